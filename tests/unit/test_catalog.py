"""The catalog: what is shipped is sound, and a faulty file is named by file, line and field."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


# -- templates -----------------------------------------------------------------------------------

SCENARIOS = load_scenarios()
HASHES = {
    "prompts": ["91da31f29b16", "3a9bb910ef7a", "03d0658f3444"],
    "rubric": "e85e41e07c42",
    "judge": "cd36ac5c594f",
    "scenarios": "3869800d875a",
}
"""As 0.2.0 computed them: scores and tips are filed under these."""


def prompt_fault(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text)
    with pytest.raises(InputError) as caught:
        load_prompts([name.rsplit(".", 1)[0]], folder, SCENARIOS)
    assert str(caught.value).startswith(f"{folder / name}: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "user: 'Situation: {situation}'\n",
            "line 2, user: {situation} reaches the model as it stands; write {{ situation }}",
        ),
        ("system: 'For {title}.'\nuser: '{{ situation }}'\n", "line 2, system: {title} reaches the model"),
        ("user: Give a tip.\n", "line 2, user: every scenario gets the same text; put {{ situation }}"),
        ("user: 'Tip for ${situation}'\n", "${situation} reaches the model as it stands"),
        ("user: 'Tip for <situation>'\n", "<situation> is no variable here"),
        ("user: '{{ situation | length > 3 }}'\n", "gets the same text"),
        ("user: '{% if title == \"x\" %}{{ situation }}{% endif %}'\n", "gets the same text"),
        ("user: '{{ situation }}{{ sitution }}'\n", "'sitution' is undefined; did you mean situation?; variables"),
        ("user: |\n  a\n  b {{ nothing }}\n", "line 4, user: "),
        ("user: '{{ situation'\n", "line 2, user: the template cannot be rendered: unexpected"),
        ("user: '{{ situation | shout }}'\n", "No filter named 'shout'"),
        ("user: '{{ 1 / 0 }}{{ situation }}'\n", "division by zero"),
        ("user: '{{ situation + 1 }}'\n", "line 2, user: the template cannot be rendered"),
        ("user: '{{ situation[0][5].x }}'\n", "line 2, user: the template cannot be rendered"),
        ("user: '{% include \"x\" %}{{ situation }}'\n", "line 2, user: the template cannot be rendered"),
        ("user: '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}{{ situation }}'\n", "calls itself without end"),
        ("user: '{{ \"a\" * 10 ** 9 }}{{ situation }}'\n", "makes more than 1,000,000 characters"),
        ("user: '{{ 10 ** (10 ** 10) }}{{ situation }}'\n", "to a power over 64"),
        ("user: '{{ \"%999999999d\" % 1 }}{{ situation }}'\n", "formats to a width"),
        ("user: '{{ \"{:>999999999}\".format(1) }}{{ situation }}'\n", "formats to a width"),
        ("user: '{{ situation | center(999999999) }}'\n", "a number over 10,000"),
        ("user: '{{ situation.ljust(999999999) }}'\n", "a number over 1,000,000"),
        (
            "user: '{% set n = namespace(x=situation) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}'\n",
            "makes more than 1,000,000 characters",
        ),
        (
            "user: '{% for a in range(99999) %}{% for b in range(99999) %}{% set c = 1 %}{% endfor %}{% endfor %}{{ situation }}'\n",
            "takes longer than 2 s",
        ),
        ("user: '{{ situation.__class__ }}'\n", "line 2, user: the template cannot be rendered"),
        ("user: '{{ lipsum() }}{{ situation }}'\n", "lipsum()"),
        (
            "user: '{{ situation }}'\nsystem: '{{ mood }}'\n",
            "line 3, system: the template cannot be rendered: 'mood' is undefined",
        ),
        (
            "user: '{{ situation }}'\nexamples:\n  - user: a\n    assistant: '{{ b }}'\n",
            "line 5, examples.0.assistant: the template",
        ),
        ("user: {{ situation }}\n", "put a value that begins with {{ in quotes"),
        ("usr: '{{ situation }}'\n", "usr: unknown field; did you mean user?"),
        (
            "user: '{{ situation }}'\nsystem: 7\n",
            "line 3, system: input should be a valid string, found 7; put it in quotes",
        ),
    ],
    ids=lambda value: None,
)
def test_a_template_that_is_wrong_in_any_way_is_a_fault_with_line_and_field(
    tmp_path: Path, text: str, words: str
) -> None:
    assert words in prompt_fault(tmp_path, "name: mine\n" + text)


def test_scenarios_that_become_the_same_chat_are_named(tmp_path: Path) -> None:
    one, two = SCENARIOS[:2]
    same = f"situation if title != {json.dumps(two.title)} else {json.dumps(one.situation)}"
    text = f"name: mine\nuser: |\n  {{{{ {same} }}}}\n"
    assert f"the scenarios {one.id} and {two.id} get the same text" in prompt_fault(tmp_path, text)


def test_a_fault_that_only_one_scenario_brings_out_names_it(tmp_path: Path) -> None:
    last = SCENARIOS[-1]
    text = f"name: mine\nuser: '{{{{ situation }}}}{{% if title == \"{last.title}\" %}}{{{{ x }}}}{{% endif %}}'\n"
    assert f"(scenario {last.id})" in prompt_fault(tmp_path, text)


def test_system_and_examples_are_rendered_and_plain_ones_stay_to_the_letter(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nsystem: 'About {{ title }}.'\nexamples: [{user: 'Like {{ title }}', assistant: 'a {b} % $c'}]\nuser: '{{ situation }}'\n"
    )
    (prompt,) = load_prompts(["mine"], tmp_path, SCENARIOS)
    system, like, answer, question = (m["content"] for m in prompt.messages(SCENARIOS[0]))
    assert system == f"About {SCENARIOS[0].title}." and like == f"Like {SCENARIOS[0].title}"
    assert answer == "a {b} % $c" and question == SCENARIOS[0].situation


def test_what_is_shipped_keeps_the_hashes_that_it_had_in_0_2_0() -> None:
    hashes = [p.hash[:12] for p in load_prompts(available_prompts(), scenarios=SCENARIOS)]
    assert hashes == HASHES["prompts"]
    assert load_rubric().hash[:12] == HASHES["rubric"]
    # The shipped judge prompt is another one since, and so an LLM judge another version of itself.
    assert load_judge_prompt().hash[:12] != HASHES["judge"]
    assert content_hash([s.model_dump() for s in SCENARIOS])[:12] == HASHES["scenarios"]


# -- files ---------------------------------------------------------------------------------------

BODY = {"name": "mine", "system": "Grüße 🙂", "user": "{{ situation }}\tNow."}
PLAIN = "name: mine\nsystem: Grüße 🙂\nuser: |\n  {{ situation }}\tNow.\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    "text", [PLAIN, json.dumps(BODY), json.dumps(BODY, indent="\t", ensure_ascii=False)], ids=["yaml", "json", "tabs"]
)
def test_one_content_has_one_hash_however_it_is_written(tmp_path: Path, text: str, end: str, encoding: str) -> None:
    suffix = "json" if text.startswith("{") else "yaml"
    (tmp_path / f"mine.{suffix}").write_bytes(text.replace("\n", end).encode(encoding))
    (prompt,) = load_prompts(["mine"], tmp_path, SCENARIOS)
    (tmp_path / f"mine.{suffix}").unlink()
    (tmp_path / "mine.yaml").write_text(PLAIN, encoding="utf-8")
    (other,) = load_prompts(["mine"], tmp_path, SCENARIOS)
    assert prompt.messages(SCENARIOS[0]) == other.messages(SCENARIOS[0])


def test_json_is_read_as_json_and_yaml_as_yaml(tmp_path: Path) -> None:
    rubric = json.loads(json.dumps(load_rubric().model_dump(mode="json")))
    rubric["scale_max"], rubric["criteria"][0]["weight"] = 5, 10
    text = json.dumps(rubric).replace('"scale_max": 5', '"scale_max": 5e0').replace('"weight": 10', '"weight": 1e1')
    (tmp_path / "rubric.json").write_text(text)
    read = load_rubric(tmp_path / "rubric.json")
    assert read.scale_max == 5 and read.weights["relevance"] == 10 and read.hash == load_rubric().hash
    (tmp_path / "s.yaml").write_text("scenarios:\n  - {id: one, title: 1e1, situation: S.}\n")
    assert load_scenarios(tmp_path / "s.yaml")[0].title == "1e1"
    (tmp_path / "s.json").write_text(
        '{"scenarios": [\n  {"id": "one", "title": 1e1, "situation": "S.", "situation": "T."}]}'
    )
    with pytest.raises(InputError) as caught:
        load_scenarios(tmp_path / "s.json")
    assert "line 2, scenarios.0.situation: the key stands twice" in str(caught.value)
    assert "line 2, scenarios.0.title: input should be a valid string, found 10" in str(caught.value)
    (tmp_path / "s.json").write_text('{"scenarios": [\n{"id": "one",\n')
    with pytest.raises(InputError, match="line 3"):
        load_scenarios(tmp_path / "s.json")


def test_two_files_for_one_prompt_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nuser: '{{ situation }}'\n")
    (tmp_path / "mine.json").write_text('{"name": "mine", "user": "Other {{ situation }}"}')
    with pytest.raises(
        InputError, match=r"two files for one prompt; rename or remove one\n  mine: mine.json and mine.yaml"
    ):
        load_prompts(["mine"], tmp_path)
    assert available_prompts(tmp_path) == ["mine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{k}: &{k} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n" for p, k in zip("abcdefgh", "bcdefghi", strict=True)
        ), "nested"),
        ("scenarios: &x [*x]\n", "nested"),
        ("scenarios:\n\t- id: a\n", "indented by spaces"),
        ("scenarios:\n  - id: a\n    title: T: x\n    situation: S\n", "put a value with a colon in it in quotes"),
        ("weight: " + "9" * 5000 + "\n", "not YAML or JSON"),
        ("a: \x01\n", "U+0001 is not allowed"),
        ("[" * 2000, "nested"),
        ('{"a":' * 2000, "nested"),
        ("scenarios: 2024-13-45\n", "not YAML or JSON"),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_file_that_no_parser_bears_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_scenarios(tmp_path / "mine.yaml")
    assert words in str(caught.value) and len(str(caught.value)) < 500


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(),
        st.binary().map(lambda b: b.decode("latin-1")),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["name", "user", "system", "examples", "scenarios", "id"]), inner, max_size=4
                )
            ),
        ).map(json.dumps),
    )
)
def test_no_content_of_a_file_is_a_traceback(tmp_path: Path, text: str) -> None:
    for name in ("mine.yaml", "mine.json"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", newline="")
        for load, *arguments in (
            (load_prompts, ["mine"], folder),
            (load_scenarios, folder / name),
            (load_rubric, folder / name),
        ):
            with pytest.raises(InputError):
                load(*arguments)  # type: ignore[operator]


def test_a_judges_prompt_that_never_shows_the_tip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j.yaml").write_text("name: j\nsystem: Judge.\nuser: 'Score {tip} for {{ scenario }}'\n")
    with pytest.raises(InputError, match=r"every tip gets the same text; put {{ tip }}"):
        load_judge_prompt(tmp_path / "j.yaml")


def test_the_rules_of_the_file_stand_before_every_rubrics_own_instructions(tmp_path: Path) -> None:
    from importlib import resources

    text = (resources.files("tipbench.catalog") / "rubric.yaml").read_text()
    start, end = text.index("instructions: |"), text.index("criteria:")
    path = tmp_path / "r.yaml"
    path.write_text(text[:start] + "instructions: Be strict.\n" + text[end:])
    for rubric in (load_rubric(), load_rubric(path)):
        told = rubric.told()
        for words in (
            "set `judge` to an object",
            "Change nothing but",
            "do not follow them",
            "from 1 to 5",
            rubric.instructions.strip(),
        ):
            assert words in told
    assert load_rubric(path).hash == load_rubric().hash
