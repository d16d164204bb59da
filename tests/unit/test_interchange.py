"""Tables of outputs and scores: what spreadsheets make of them is read, and every fault has its line and column."""

from __future__ import annotations

import io
import json
import random
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tipbench.catalog import load_rubric
from tipbench.errors import InputError
from tipbench.interchange.table import Table, read_table
from tipbench.interchange.write import columns_of, lines

pytestmark = pytest.mark.unit

RUBRIC = load_rubric()
CRITERIA = ("relevance", "actionability", "tone")
HEAD = "model,prompt,scenario,text,judge,judge_kind,relevance,actionability,tone"
ROW = "m,p,s,Drink water.,ann,human,4,3,5"


def read(content: str | bytes, name: str = "scores.csv", ignore: tuple[str, ...] = ()) -> Table:
    data = content.encode() if isinstance(content, str) else content
    return read_table(io.BytesIO(data), name, RUBRIC, ignore)


def faults(content: str | bytes, name: str = "scores.csv") -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        read(content, name)
    assert caught.value.exit_code == 2
    return caught.value.faults


def test_a_row_is_a_judges_score_of_a_candidate() -> None:
    table = read(
        f"{HEAD}\n{ROW}\nm,p,s,Drink water.,bob,human,2,2,2\nm,p,s,Go to bed.,ann,human,1,1,1\nn,p,s,Go.,,,,,\n"
    )
    assert (table.rows, table.n_candidates, table.judges) == (4, 3, {("ann", ""): "human", ("bob", ""): "human"})
    cell = table.cells["m", "p", "s", ""]
    assert [c.text for c in cell.candidates] == ["Drink water.", "Go to bed."]
    assert {i: s.scores for i, s in table.scores[("ann", ""), ("m", "p", "s", "")].items()} == {
        0: (4, 3, 5),
        1: (1, 1, 1),
    }
    assert (("ann", ""), ("n", "p", "s", "")) not in table.scores


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + f"{HEAD}\n{ROW}\n",
        f"{HEAD}\r\n{ROW}\r\n\r\n",
        f"{HEAD}\n{ROW}",
        f"{HEAD};;\n{ROW};;\n".replace(",", ";"),
        "sep=;\n" + f"{HEAD}\n{ROW}\n".replace(",", ";"),
        f"{HEAD}\n{ROW}\n".replace(",", "\t"),
        f"{HEAD}\n{ROW}\n".replace(",", "\t").encode("utf-16"),
        "\ufeff".encode("utf-16-be") + f"{HEAD}\n{ROW}\n".encode("utf-16-be"),
        f"{HEAD.title()}\n{ROW}\n",
        f"{HEAD}\n{ROW}\n".replace("4,3,5", "4.0,3, 5"),
        f"{HEAD}\n{ROW}\n".replace(",", ";").replace("4;3;5", "4,0;3;5"),
        f'{HEAD}\n"m",p,s,"Drink water.",ann,Human,4,3,5\n',
    ],
)  # fmt: skip
def test_what_spreadsheets_write_is_read(content: str | bytes) -> None:
    table = read(content)
    assert table.cells["m", "p", "s", ""].candidates[0].text == "Drink water."
    assert table.scores[("ann", ""), ("m", "p", "s", "")][0].scores == (4, 3, 5)


def test_jsonl_is_the_same_table() -> None:
    row = dict(zip(HEAD.split(","), ["m", "p", "s", "A\nb", "ann", "llm", 4, 3, 5], strict=True))
    plain = {k: row[k] for k in ("model", "prompt", "scenario", "text")}
    more = {**plain, "text": "c", "output_s": 0.5, "situation": "Late."}
    table = read("\n".join(json.dumps(r) for r in (row, more)), "scores.jsonl")
    assert [c.text for c in table.cells["m", "p", "s", ""].candidates] == ["A\nb", "c"]
    assert table.cells["m", "p", "s", ""].candidates[1].output_s == 0.5 and table.situations == {"s": "Late."}


def test_costs_and_decimals_with_a_comma() -> None:
    head = "model;prompt;scenario;text;index;output_tokens;output_s;peak_memory_bytes;situation"
    table = read(f"{head}\nm;p;s;b;2;12;0,75;1000;Late.\nm;p;s;a;1;10;1,5;3000;Late.\n")
    cell = table.cells["m", "p", "s", ""]
    assert [(c.text, c.output_tokens, c.output_s) for c in cell.candidates] == [("a", 10, 1.5), ("b", 12, 0.75)]
    assert cell.peak_memory_bytes == 3000


def test_an_expected_score_is_a_decimal_beside_the_whole_one() -> None:
    head = HEAD + "".join(f",{c}_expected" for c in CRITERIA)
    table = read(f"{head}\n{ROW},4.25,2.9,5\n")
    assert table.scores[("ann", ""), ("m", "p", "s", "")][0].expected == (4.25, 2.9, 5.0)
    assert "relevance_expected" in faults(f"{HEAD}\n{ROW.replace('4,3,5', '4.5,3,5')}\n")[0]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "line 1: the file is empty"),
        ("model,prompt,scenario\nm,p,s\n", "line 1, text: the column is missing"),
        (HEAD + "\n", "line 2: there is no row under the header"),
        (f"{HEAD},relevnce\n{ROW},3\n", "line 1, relevnce: unknown column; did you mean relevance?"),
        (f"{HEAD},tone\n{ROW},3\n", "line 1, tone: the column is there twice"),
        (f"{HEAD.replace(',tone', '')}\n{ROW[:-2]}\n", "line 1, tone: the column is missing; scores take"),
        (f"{HEAD.replace(',judge_kind', '')}\n{ROW.replace(',human', '')}\n", "line 1, judge_kind: the column is missing"),
        (f"{HEAD}\n{ROW}\nm,p,,x,ann,human,4,3,5\n", "line 3, scenario: is empty"),
        (f"{HEAD}\n{ROW}\nm,p,s,,ann,human,4,3,5\n", "line 3, text: is empty"),
        (f"{HEAD}\n{ROW.replace(',5', ',6')}\n", "line 2, tone: '6' is outside the scale of 1 to 5"),
        (f"{HEAD}\n{ROW.replace(',5', ',good')}\n", "line 2, tone: 'good' is no whole number from 1 to 5"),
        (f"{HEAD}\n{ROW.replace(',5', ',')}\n", "line 2, tone: is empty, but relevance is not"),
        (f"{HEAD}\n{ROW.replace('human', 'person')}\n", "line 2, judge_kind: 'person' is none of human"),
        (f"{HEAD}\n{ROW.replace('ann', 'ann smith')}\n", "line 2, judge: 'ann smith': a judge's name has"),
        (f"{HEAD}\n{ROW.replace('ann', '')}\n", "line 2, judge: is empty beside scores"),
        (f"{HEAD}\n{ROW}\n{ROW.replace('4,3,5', '4,3,4')}\n", "line 3, judge: ann scored this candidate otherwise on line 2"),
        (f"{HEAD}\n{ROW}\n{ROW.replace('human', 'llm')}\n", "line 3, judge_kind: is llm, but human for ann on line 2"),
        (f"{HEAD}\n{ROW}\nm,p,s,x\n", "line 3: has 4 cells, the header has 9"),
        (f'{HEAD}\n{ROW}\nm,p,s,"a\nb"c,ann,human,4,3,5\n', "the row begins on line 3"),
        (f'{HEAD}\n{ROW}\nm,p,s,"a\n', "line 3: not CSV"),
        (f"{HEAD}\n".encode() + ROW.encode().replace(b"water", b"w\xe4ter"), "line 2: not UTF-8 text"),
        ("<html>", "line 1: this is neither CSV nor JSONL"),
        ('[{"model": 1}]', "line 1: this is neither CSV nor JSONL"),
        ('{"model": "m"', "line 1: not JSON"),
        ('{"model": "m", "prompt": "p", "scenario": "s", "text": ["x"]}', "line 1, text: must be text"),
        ('{"model": "m", "prompt": "p", "scenario": "s", "text": "\\ud800"}', "line 1, text: has half a character"),
        ('{"model": "m", "Model": "m", "prompt": "p", "scenario": "s", "text": "x"}', "line 1: not a row: Model stands there twice"),
    ],
)  # fmt: skip
def test_a_fault_has_its_line_and_column(content: str | bytes, fault: str) -> None:
    assert any(fault in one for one in faults(content)), faults(content)


def test_rows_that_contradict_each_other() -> None:
    head = "model,prompt,scenario,text,index,situation,output_s"
    assert faults(
        f"{head}\nm,p,s,a,0,Late.,1\nm,q,s,b,0,Early.,1\nm,p,s,c,0,Late.,1\nm,p,s,d,,Late.,1\nm,p,s,a,0,,2\n"
    ) == (
        "line 3, situation: is not the one that scenario s has on line 2",
        "line 4, text: is not the one that index 0 of the same cell has on line 2",
        "line 5, index: is empty, but given for the same cell on line 2; give it everywhere in a cell, or nowhere",
        "line 6, output_s: is 2, but 1 for the same candidate on line 2",
    )


def test_a_column_can_be_passed_over_and_many_faults_are_cut() -> None:
    assert read(f"{HEAD},note\n{ROW},hm\n", ignore=("Note",)).rows == 1
    many = faults(HEAD + "\n" + "m,p,s,x,ann,human,9,9,9\n" * 300)
    assert len(many) == 51 and many[-1].startswith("and ")


VALID = [
    HEAD,
    ROW,
    "m,q,s2,Sleep.,ann,human,2,3,1",
    'n,p,s,"Eat, then ""rest"".\nNow.",gpt,llm,5,5,5',
    "n,q,s,Go.,,,,,",
]


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_no_malformed_file_breaks_the_reader_or_slips_through(data: st.DataObject) -> None:
    """A change anywhere in a good file is either read with scores on the scale, or refused with a line."""
    content = bytearray("\n".join(VALID).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["replace", "insert", "delete", "cut"]))
        piece = data.draw(
            st.sampled_from(
                [b'"', b",", b";", b"\n", b"\r", b"\x00", b"\xff", b"9", b"-", b"e", b"{", b" ", b"\xef\xbb\xbf"]
            )
        )
        if kind == "replace":
            content[at : at + 1] = piece
        elif kind == "insert":
            content[at:at] = piece
        elif kind == "delete":
            del content[at : at + data.draw(st.integers(1, 20))]
        else:
            del content[at:]
        if not content:
            break
    try:
        table = read(bytes(content), data.draw(st.sampled_from(["a.csv", "a.jsonl"])))
    except InputError as error:
        assert error.faults and all(re.match(r"line \d+|and \d+ more", one) for one in error.faults)
        return
    assert table.rows
    for scores in table.scores.values():
        assert all(s in range(1, 6) for one in scores.values() for s in one.scores)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.jsonl"]))
def test_no_bytes_break_the_reader(content: bytes, name: str) -> None:
    try:
        read(content, name)
    except InputError as error:
        assert error.faults


WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30).filter(
    str.strip
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["m", "n:1b"]), st.sampled_from(["p", "q"]), st.sampled_from(["s", "t"])),
        st.lists(
            st.tuples(WORDS, st.none() | st.lists(st.integers(1, 5), min_size=3, max_size=3)), min_size=1, max_size=4
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_what_is_written_is_read_back(
    cells: dict[tuple[str, str, str], list[tuple[str, list[int] | None]]], jsonl: bool
) -> None:
    rows: list[dict[str, object]] = []
    for (model, prompt, scenario), candidates in cells.items():
        for index, (text, scores) in enumerate(candidates):
            row = {"model": model, "prompt": prompt, "scenario": scenario, "index": index, "text": text}
            if scores:
                row |= {"judge": "ann", "judge_kind": "human", **dict(zip(CRITERIA, scores, strict=True))}
            rows.append(row)
    content = b"".join(lines(rows, columns_of(CRITERIA, expected=False), jsonl=jsonl))
    table = read(content, "x.jsonl" if jsonl else "x.csv")
    assert {key: [c.text for c in cell.candidates] for key, cell in table.cells.items()} == {
        (*key, ""): [text for text, _ in candidates] for key, candidates in cells.items()
    }
    for key, candidates in cells.items():
        wanted = {i: tuple(scores) for i, (_, scores) in enumerate(candidates) if scores}
        assert {i: s.scores for i, s in table.scores.get((("ann", ""), (*key, "")), {}).items()} == wanted


def test_a_hundred_thousand_rows_take_seconds() -> None:
    rng = random.Random(1)
    rows = [
        f"m{i % 20},p,s{i // 20 % 500},tip {i // 10},j{i % 5},human,{rng.randint(1, 5)},{rng.randint(1, 5)},3" for i in range(100_000)
    ]  # fmt: skip
    rows = [r.replace(f"tip {i // 10},", f"tip {i},") for i, r in enumerate(rows)]
    content = ("\n".join([HEAD, *rows])).encode()
    began = time.process_time()
    assert read(content).n_candidates == 100_000
    assert time.process_time() - began < 20
