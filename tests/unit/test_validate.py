"""Reading judge files: whatever is wrong is named, with its place, and nothing else is ever raised."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tipbench.catalog import load_rubric
from tipbench.errors import InputError
from tipbench.judging.exchange import Exchange, ExchangeItem, ExchangeRubric, JudgeIdentity
from tipbench.judging.validate import (
    MAX_FAULTS,
    check_against,
    parse_exchange,
    pointer,
    read_exchange,
    scored,
    with_items,
    write_exchange,
)

pytestmark = pytest.mark.unit
RUBRIC = load_rubric()
NONE: dict[str, int | None] = dict.fromkeys(("relevance", "actionability", "tone"))


def exchange(n: int = 4, judge: JudgeIdentity | None = None) -> Exchange:
    return Exchange(
        experiment="tip-bench-x",
        export_id="e" * 16,
        rubric_hash=RUBRIC.hash,
        judge=judge,
        instructions=RUBRIC.instructions,
        rubric=ExchangeRubric.model_validate_json(json.dumps(RUBRIC.judge_view())),
        items=tuple(ExchangeItem(id=f"{i:016x}", scenario="S", tip="T", scores=dict(NONE)) for i in range(n)),
    )


def raw(n: int = 4, *, judged: bool = True) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(exchange(n).model_dump_json(by_alias=True))
    if judged:
        body["judge"] = {"name": "ann", "kind": "human"}
        for item in body["items"]:
            item["scores"] = {"relevance": 4, "actionability": 3, "tone": 5}
    return body


def parse(body: object) -> Exchange:
    return parse_exchange(json.dumps(body).encode(), "judge.json")


def faults(data: bytes) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        parse_exchange(data, "judge.json")
    assert caught.value.exit_code == 2 and str(caught.value).startswith("judge.json: ")
    return caught.value.faults


def test_a_good_file_is_read_whole() -> None:
    read = parse(raw())
    assert read.judge == JudgeIdentity(name="ann", kind="human") and all(i.complete for i in read.items)
    assert parse_exchange(b"\xef\xbb\xbf" + json.dumps(raw()).encode(), "x") == read  # a BOM is no fault


def test_a_half_scored_item_is_no_fault() -> None:
    body = raw()
    body["items"][0]["scores"]["tone"] = None
    assert not parse(body).items[0].complete


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"  \n", "the file is empty"),
        (b"\xff\xfe{}\x00", "not UTF-16 text (byte"),
        (b'{"schema": "caf\xe9"}', "not UTF-8 text (byte 15"),
        (b"{", "not JSON (line 1, column 2"),
        (b'{"a": 1,}', "not JSON"),
        (b"id,relevance,actionability,tone\n1,2,3,4\n", "looks like a CSV table"),
        (b"id;a;b\n1;2;3", "looks like a CSV table"),
        (b"schema: tipbench.exchange/1\nitems: []\n", "looks like YAML"),
        (b"```json\n{}\n```", "Markdown fence"),
        (b"<html></html>", "HTML"),
        (b"Here is the file: {}", "nothing before or after"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b'"text"', "must be an object"),
        (b"7", "must be an object"),
        (b"[" * 100_000, "nested"),
        (b"[" * 100 + b"]" * 100, "nested more than 64"),
        (b'{"a":' * 80 + b"1" + b"}" * 80, "nested more than 64"),
        (b"1" * 10_000, "too long"),
        (b'{"schema": "\\ud800"}', "not JSON"),
    ],
    ids=range(21),
)
def test_what_is_no_exchange_file_is_told_apart(data: bytes, words: str) -> None:
    assert any(words in fault for fault in faults(data))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_nan_is_named_at_its_place(word: str) -> None:
    text = json.dumps(raw()).replace('"relevance": 4', f'"relevance": {word}', 1)
    assert any(f.startswith("/items/0/scores/relevance: ") and word in f for f in faults(text.encode()))


def test_a_key_that_stands_twice_is_named() -> None:
    text = json.dumps(raw()).replace('"tone": 5', '"tone": 5, "tone": 1', 1)
    assert any(f.startswith("/items/0/scores/tone: the key stands twice") for f in faults(text.encode()))


@pytest.mark.parametrize(
    ("value", "found"),
    [(0, "outside"), (6, "outside"), (-1, "outside"), (10**30, "outside"), (True, "true"), (3.0, "3.0"), (3.5, "3.5"),
     ("3", '"3"'), ([3], "a list"), ({}, "an object"), ("", '""')],
    ids=str,
)  # fmt: skip
def test_what_is_no_score_is_named_with_what_was_found(value: object, found: str) -> None:
    body = raw()
    body["items"][2]["scores"]["tone"] = value
    (fault,) = faults(json.dumps(body).encode())
    assert fault.startswith("/items/2/scores/tone: ") and found in fault


def test_every_fault_is_listed_at_once() -> None:
    body = raw(6)
    body["items"][0]["scores"]["tone"] = 9
    body["items"][1]["id"] = body["items"][0]["id"]
    del body["items"][2]["tip"]
    body["items"][3]["note"] = "hm"
    body["items"][4]["scores"] = {"relevance": 1, "charm": 2, "tone": 3}
    body["judge"] = None
    body["experiment"] = 7
    found = faults(json.dumps(body).encode())
    places = [fault.split(": ", 1)[0] for fault in found]
    assert sorted(places) == sorted(
        ["/experiment", "/items/0/scores/tone", "/items/1/id", "/items/2/tip", "/items/3/note",
         "/items/4/scores/actionability", "/items/4/scores/charm", "/judge"]
    )  # fmt: skip


def test_a_long_list_of_faults_says_how_many_more() -> None:
    body = raw(80)
    for item in body["items"]:
        item["scores"]["tone"] = 9
    found = faults(json.dumps(body).encode())
    assert len(found) == MAX_FAULTS + 1 and found[-1] == "and 30 more"


def test_a_rubric_that_was_changed_is_noticed() -> None:
    body = raw()
    body["rubric"]["criteria"][0]["anchors"][0]["text"] = "Anything goes."
    (fault,) = faults(json.dumps(body).encode())
    assert fault.startswith("/rubric_hash: ")


def test_a_pointer_escapes_as_the_rfc_says() -> None:
    assert pointer(["items", 3, "a/b~c"]) == "/items/3/a~1b~0c"


def test_a_file_is_checked_against_what_was_issued() -> None:
    issued = {f"{i:016x}": ("S", "T") for i in range(4)}
    assert check_against(exchange(3), issued, RUBRIC.hash, "e" * 16) == []  # a part of it is fine
    assert len(check_against(exchange(5), issued, RUBRIC.hash, "e" * 16)) == 1
    assert any("/rubric_hash" in f for f in check_against(exchange(), issued, "0" * 64, "e" * 16))
    changed = dict(issued) | {f"{1:016x}": ("S", "Another tip")}
    assert check_against(exchange(), changed, RUBRIC.hash, "e" * 16) == [
        "/items/1/tip: was changed since the export; a score must be for the tip that was written"
    ]


def test_a_written_file_reads_back_and_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "judge.json"
    judge = JudgeIdentity(name="ann", kind="human")
    now = datetime(2026, 1, 2, tzinfo=UTC)
    one = scored(exchange().items[0], {"relevance": 1, "actionability": 2, "tone": 3}, "because", now)
    filled = with_items(exchange(), judge, [one, *exchange().items[1:]])
    write_exchange(filled, path)
    assert read_exchange(path) == filled
    assert [p.name for p in path.parent.iterdir()] == ["judge.json"]
    body = json.loads(path.read_text())
    assert "scored_at" in body["items"][0] and "scored_at" not in body["items"][1]
    with pytest.raises(InputError, match=r"nowhere\.json: cannot be read \(No such file"):
        read_exchange(tmp_path / "nowhere.json")


# -- properties ----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, item in inner for path in _paths(item, (*here, key)))]


PATHS = [p for p in _paths(raw()) if p]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PATHS), JSON, st.booleans())
def test_any_change_is_accepted_whole_or_named(path: tuple[Any, ...], value: object, remove: bool) -> None:
    body = copy.deepcopy(raw())
    target: Any = body
    for part in path[:-1]:
        target = target[part]
    if remove:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    try:
        read = parse_exchange(json.dumps(body).encode(), "judge.json")
    except InputError as error:
        assert error.faults and all(f.startswith(("/", ":", "and ")) for f in error.faults)
        return
    # Accepted: then every score is on the scale, ids are unique, and the rubric is the one of the hash.
    for item in read.items:
        assert set(item.scores) == set(NONE)
        assert all(s is None or (type(s) is int and 1 <= s <= 5) for s in item.scores.values())
    assert len({i.id for i in read.items}) == len(read.items)
    assert read.rubric_hash == RUBRIC.hash


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_exchange(data, "judge.json")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_file_cut_or_damaged_anywhere_never_crashes(data: st.DataObject) -> None:
    text = bytearray(json.dumps(raw(2)).encode())
    at = data.draw(st.integers(0, len(text) - 1))
    if data.draw(st.booleans()):
        text = text[:at]
    else:
        text[at] = data.draw(st.integers(0, 255))
    try:
        read = parse_exchange(bytes(text), "judge.json")
    except InputError:
        return
    assert read.rubric_hash == RUBRIC.hash
