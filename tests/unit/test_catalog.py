"""The catalog: what is shipped is sound, and a faulty file is named by file, line and field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tipbench.catalog import (
    RESERVED,
    available_prompts,
    content_hash,
    load_judge_prompt,
    load_prompts,
    load_rubric,
    load_scenarios,
)
from tipbench.errors import InputError
from tipbench.leaderboard.model import Cell

pytestmark = pytest.mark.unit


def test_eight_scenarios_three_prompts_and_an_anchor_for_every_score_are_shipped() -> None:
    scenarios = load_scenarios()
    assert len(scenarios) == len({s.id for s in scenarios}) == 8
    assert available_prompts() == ["v1", "v2-mentor", "v3-few-shot"]
    rubric = load_rubric()
    assert [c.id for c in rubric.criteria] == ["relevance", "actionability", "tone"]
    assert all(sorted(c.anchors) == [1, 2, 3, 4, 5] for c in rubric.criteria)
    assert set(rubric.weights.values()) == {1.0}


def test_a_prompt_becomes_a_chat_about_the_scenario() -> None:
    scenario = load_scenarios()[0]
    plain, mentor, few_shot = load_prompts(["v1", "v2-mentor", "v3-few-shot"])
    for prompt in (plain, mentor, few_shot):
        messages = prompt.messages(scenario)
        assert messages[0]["role"] == "system" and scenario.situation in messages[-1]["content"]
        assert "{{" not in str(messages)
    assert [m["role"] for m in few_shot.messages(scenario)] == ["system", *["user", "assistant"] * 3, "user"]
    assert len({p.hash for p in (plain, mentor, few_shot)}) == 3


def test_what_a_judge_reads_names_no_model_and_no_prompt() -> None:
    text = (str(load_rubric().judge_view()) + load_rubric().instructions).lower()
    for name in ("v1", "v2", "v3", "mentor", "few-shot", "qwen", "gemma", "llama", "smollm"):
        assert not re.search(rf"\b{name}\b", text), name


def test_weights_are_not_in_the_hash_and_anchors_are(tmp_path: Path) -> None:
    from importlib import resources

    text = (resources.files("tipbench.catalog") / "rubric.yaml").read_text()
    heavier, other = tmp_path / "heavier.yaml", tmp_path / "other.yaml"
    heavier.write_text(text.replace("weight: 1", "weight: 3", 1))
    other.write_text(text.replace("It is rude", "It is very rude"))
    assert load_rubric(heavier).hash == load_rubric().hash != load_rubric(other).hash
    assert load_rubric(heavier).weights["relevance"] == 3


def test_reserved_criterion_ids_are_the_columns_of_the_leaderboard() -> None:
    assert set(Cell.model_fields) == RESERVED


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1}) != content_hash({"a": 1, "b": [3]})


GOOD = "scenarios:\n  - id: one\n    title: One\n    situation: Somebody somewhere.\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("scenarios: [\n", "line 2"),
        ("- a\n", "line 1, (the whole file)"),
        ("{}", "scenarios: is missing"),
        ("scenarios: []", "line 1, scenarios: needs at least 1, found 0"),
        ("scenarios:\n  - id: one\n", ": 2 faults"),
        (
            GOOD + "  - id: one\n    title: T\n    situation: S\n",
            "line 5, scenarios.1.id: 'one' is also the id of scenarios.0",
        ),
        (
            GOOD + "  - id: Two Words\n    title: T\n    situation: S\n",
            "line 5, scenarios.1.id: 'Two Words' must have small",
        ),
        (GOOD + "  - id: two\n    situation: S\n", "line 5, scenarios.1.title: is missing"),
        (GOOD + "  - id: two\n    title: ''\n    situation: S\n", "line 6, scenarios.1.title: must not be empty"),
        (GOOD + "  - id: two\n    title: T\n    situation: 7\n", "line 7, scenarios.1.situation: "),
        (GOOD + "    mood: sad\n", "line 5, scenarios.0.mood: unknown field"),
        (GOOD + "    title: Two\n", "line 5, scenarios.0.title: the key stands twice"),
    ],
)
def test_a_faulty_scenarios_file_is_named_by_line_and_field(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_scenarios(path)
    assert str(caught.value).startswith(f"{path}: ") and fault in str(caught.value), str(caught.value)


def test_json_is_fine_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"scenarios": [{"id": "one", "title": "One", "situation": "S."}]}')
    assert [s.id for s in load_scenarios(path)] == ["one"]


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_scenarios(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"scenarios: caf\xe9")
    with pytest.raises(InputError, match="not UTF-8"):
        load_scenarios(tmp_path / "latin.yaml")


def test_an_unknown_prompt_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no prompt v9 .*v1, v2-mentor, v3-few-shot"):
        load_prompts(["v1", "v9"])
    with pytest.raises(InputError, match="no such folder"):
        load_prompts(["v1"], tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "name: mine\nuser: '{{ situaton }}'\n",
            "line 2, user: the template cannot be rendered: 'situaton' is undefined",
        ),
        ("name: mine\nuser: '{{ situation'\n", "line 2, user: the template cannot be rendered"),
        ("name: other\nuser: '{{ situation }}'\n", "name: is 'other', but the file is called 'mine'"),
        ("name: mine\nuser: '{{ situation.__class__.__mro__ }}'\n", "line 2, user: the template cannot be rendered"),
        ("name: mine\nsystem: hi\n", "user: is missing"),
    ],
)
def test_a_faulty_prompt_is_named_by_line_and_field(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_prompts(["mine"], tmp_path)
    assert fault in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "      3: It is correct and neutral, with a stiff or empty phrase; it neither helps nor hurts.\n",
            "",
            "criterion tone: no anchor for 3",
        ),
        ("id: tone", "id: rank", "'rank' is a column of the leaderboard"),
        ("id: tone", "id: relevance", "'relevance' is also the id of criteria.0"),
        ("scale_max: 5", "scale_max: 6", "no anchor for 6"),
        ("weight: 1", "weight: -1", "criteria.0.weight"),
        ("weight: 1", "weight: .nan", "criteria.0.weight"),
    ],
)
def test_a_faulty_rubric_is_named(tmp_path: Path, old: str, new: str, fault: str) -> None:
    from importlib import resources

    text = (resources.files("tipbench.catalog") / "rubric.yaml").read_text()
    assert old in text
    path = tmp_path / "rubric.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_rubric(path)
    assert fault in str(caught.value), str(caught.value)


def test_the_llm_judges_prompt_has_rubric_scenario_and_tip() -> None:
    system, user = load_judge_prompt().messages(load_rubric().judge_view(), "A scenario.", "A tip.")
    for criterion in load_rubric().criteria:
        assert all(anchor in user["content"] for anchor in criterion.anchors.values())
    assert "A scenario." in user["content"] and "A tip." in user["content"] and "JSON" in system["content"]
