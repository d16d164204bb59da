"""From rows to candidates and scores: every fault with its line and column, all-or-nothing.

A row is a candidate (`model`, `prompt`, `scenario`, `text`) and, where `judge`, `judge_kind` and a column for each criterion are there, one judge's
score of it. With `index`, that number tells the candidates of a cell apart; without, the same text in a cell is one candidate.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, cast, get_args

from pydantic import ValidationError

from tipbench.catalog import Rubric
from tipbench.errors import InputError
from tipbench.interchange.rows import Row, RowFault, read_rows
from tipbench.judging.exchange import JudgeIdentity
from tipbench.judging.validate import MAX_FAULTS

Kind = Literal["human", "agent", "llm", "baseline"]
CellKey = tuple[str, str, str, str]
"""(model, prompt, scenario, variant); the variant tells rows of the same names apart, and is empty as a rule."""
JudgeKey = tuple[str, str]
"""(name, version); the version is empty for people and agents, and where it is not known."""

REQUIRED = ("model", "prompt", "scenario", "text")
OPTIONAL = ("variant", "index", "situation", "output_tokens", "output_s", "peak_memory_bytes")
JUDGE = ("judge", "judge_kind")
VERSION = "judge_version"
"""Optional column: tells two versions of a judge that is a program apart (digest, prompt, way of answering)."""
EXPECTED = "_expected"
"""Ending of the column with a criterion's expected score: a decimal beside the whole number."""
MAX_NAME = 200
_GIVE_UP = 1000
"""Faults after which the rest of a file is not looked at."""
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?")


@dataclass
class TableCandidate:
    """One text of a cell, and what it cost; `output_s` in seconds."""

    text: str
    index: int | None
    line: int
    output_tokens: int | None = None
    output_s: float | None = None


@dataclass
class TableCell:
    """The candidates of one (model, prompt, scenario), in the order of their index, or as they came."""

    candidates: list[TableCandidate] = field(default_factory=list)
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class TableScore:
    """One judge's scores of one candidate, in the order of the rubric's criteria."""

    scores: tuple[int, ...]
    expected: tuple[float, ...] | None
    line: int


@dataclass
class Table:
    """What a file holds."""

    rows: int = 0
    situations: dict[str, str] = field(default_factory=dict)
    """scenario -> situation, where one is given"""
    situation_lines: dict[str, int] = field(default_factory=dict)
    """scenario -> the line on which its situation is first given"""
    cells: dict[CellKey, TableCell] = field(default_factory=dict)
    judges: dict[JudgeKey, Kind] = field(default_factory=dict)
    scores: dict[tuple[JudgeKey, CellKey], dict[int, TableScore]] = field(default_factory=dict)
    """(judge, cell) -> position of the candidate in its cell -> scores"""

    @property
    def n_candidates(self) -> int:
        """Candidates in all cells."""
        return sum(len(cell.candidates) for cell in self.cells.values())


def read_table(file: BinaryIO, source: str, rubric: Rubric, ignore: Sequence[str] = ()) -> Table:
    """The table in `file`, a CSV or JSONL file that messages call `source`; columns named in `ignore` are passed over.

    Raises InputError that lists every fault as "line 12, tone: ...", up to MAX_FAULTS of them.
    """
    reader = _Reader(rubric, tuple(name.strip().lower() for name in ignore))
    try:
        reader.read(file, source)
    except RowFault as fault:
        reader.fault(fault.line, "", fault.words)
    if reader.faults:
        shown = [words for _, words in sorted(reader.faults, key=lambda one: one[0])[:MAX_FAULTS]]
        if len(reader.faults) > MAX_FAULTS:
            shown.append(f"and {len(reader.faults) - MAX_FAULTS} more")
        plural = "s" * (len(reader.faults) > 1)
        raise InputError(f"{source}: {len(reader.faults)} fault{plural}, nothing was imported", tuple(shown))
    return reader.finished()


class _Reader:
    def __init__(self, rubric: Rubric, ignore: Sequence[str]) -> None:
        self.faults: list[tuple[int, str]] = []
        self._rubric = rubric
        self._criteria = tuple(c.id for c in rubric.criteria)
        self._expected = tuple(c + EXPECTED for c in self._criteria)
        taken = sorted(set(self._criteria) & {*REQUIRED, *OPTIONAL, *JUDGE, VERSION})
        if taken:
            raise InputError(
                f"rubric {rubric.name}: the criterion {taken[0]} has the name of a column of such files; rename it"
            )
        self._known = (*REQUIRED, *OPTIONAL, *JUDGE, VERSION, *self._criteria, *self._expected)
        self._ignore = frozenset(ignore)
        self._table = Table()
        self._comma = False
        self._where: dict[CellKey, dict[object, int]] = {}
        self._kinds: dict[str, tuple[Kind, int]] = {}
        self._index_used: dict[CellKey, tuple[bool, int]] = {}
        self._names: dict[str, str] = {}

    def fault(self, line: int, column: str, words: str) -> None:
        self.faults.append((line, f"line {line}{', ' + column if column else ''}: {words}"))

    def read(self, file: BinaryIO, source: str) -> None:
        table = read_rows(file, source, self._known)
        self._comma = table.decimal_comma
        if table.columns:
            self._check_columns(1, table.columns)
            if self.faults:
                return
        shapes: set[tuple[str, ...]] = set()
        for row in table.rows:
            self._table.rows += 1
            if not table.columns and (shape := tuple(row.values)) not in shapes:
                shapes.add(shape)
                before = len(self.faults)
                self._check_columns(row.line, shape)
                if len(self.faults) > before:
                    continue
            self._row(row)
            if len(self.faults) >= _GIVE_UP:
                return
        if not self._table.rows and not self.faults:
            self.fault(2, "", "there is no row under the header")

    def finished(self) -> Table:
        """The table with candidates in the order of their indices."""
        table = self._table
        for key, cell in table.cells.items():
            order = sorted(range(len(cell.candidates)), key=lambda i: (cell.candidates[i].index or 0, i))
            if order == list(range(len(order))):
                continue
            place = {old: new for new, old in enumerate(order)}
            cell.candidates = [cell.candidates[i] for i in order]
            for judge in table.judges:
                if (judge, key) in table.scores:
                    table.scores[judge, key] = {place[i]: s for i, s in table.scores[judge, key].items()}
        return table

    # -- columns -------------------------------------------------------------------------------

    def _check_columns(self, line: int, columns: Sequence[str]) -> None:
        named = [c for c in columns if c]
        for column in dict.fromkeys(named):
            if named.count(column) > 1:
                self.fault(line, column, "the column is there twice")
            elif column not in self._known and column not in self._ignore:
                near = difflib.get_close_matches(column, self._known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.fault(
                    line,
                    column,
                    f"unknown column{hint} Criteria are those of rubric {self._rubric.name} ({', '.join(self._criteria)}; another one: "
                    "--rubric FILE); a column to pass over: --ignore NAME",
                )
        there = set(named) - self._ignore
        for column in REQUIRED:
            if column not in there:
                self.fault(line, column, "the column is missing")
        judging = there & {*JUDGE, VERSION, *self._criteria, *self._expected}
        if judging:
            for column in (*JUDGE, *self._criteria):
                if column not in there:
                    words = f"the column is missing; scores take {', '.join(JUDGE)} and every criterion of the rubric"
                    self.fault(line, column, words)
            partly = [c for c in self._expected if c in there]
            if partly and len(partly) < len(self._expected):
                missing = [c for c in self._expected if c not in there]
                self.fault(line, missing[0], f"the column is missing beside {partly[0]}")

    # -- rows ----------------------------------------------------------------------------------

    def _row(self, row: Row) -> None:
        before = len(self.faults)
        values = {name: value for name, value in row.values.items() if name not in self._ignore}
        model, prompt, scenario = (self._name(row.line, column, values.get(column)) for column in REQUIRED[:3])
        variant = (self._text(row.line, "variant", values.get("variant")) or "").strip()
        if len(variant) > MAX_NAME or not variant.isprintable():
            self.fault(row.line, "variant", f"{_short(variant)}: one line of at most {MAX_NAME} characters")
        text = self._text(row.line, "text", values.get("text"))
        if text is not None and not text.strip():
            self.fault(row.line, "text", "is empty")
        index = self._whole(row.line, "index", values.get("index"))
        tokens = self._whole(row.line, "output_tokens", values.get("output_tokens"))
        memory = self._whole(row.line, "peak_memory_bytes", values.get("peak_memory_bytes"))
        seconds = self._decimal(row.line, "output_s", values.get("output_s"))
        score = self._scores(row.line, values)
        situation = self._text(row.line, "situation", values.get("situation"))
        if len(self.faults) > before or not (model and prompt and scenario and text):
            return
        self._situation(row.line, scenario, situation)
        key = (model, prompt, scenario, variant)
        position = self._candidate(row.line, key, text, index)
        if position is None:
            return
        cell = self._table.cells[key]
        candidate = cell.candidates[position]
        for column, value in (("output_tokens", tokens), ("output_s", seconds)):
            old = getattr(candidate, column)
            if value is not None and old is not None and old != value:
                self.fault(
                    row.line, column, f"is {value:g}, but {old:g} for the same candidate on line {candidate.line}"
                )
            elif value is not None:
                setattr(candidate, column, value)
        if memory is not None:
            cell.peak_memory_bytes = max(memory, cell.peak_memory_bytes or 0)
        if score is not None:
            judge, one = score
            known = self._table.scores.setdefault((judge, key), {})
            if position in known and (known[position].scores, known[position].expected) != (one.scores, one.expected):
                words = f"{judge[0]} scored this candidate otherwise on line {known[position].line}"
                hint = (
                    ""
                    if index is not None
                    else "; if they are two candidates with the same text, tell them apart by index"
                )
                self.fault(row.line, "judge", words + hint)
            known.setdefault(position, one)

    def _situation(self, line: int, scenario: str, situation: str | None) -> None:
        situation = (situation or "").strip()
        if not situation:
            return
        known = self._table.situations.setdefault(scenario, situation)
        first = self._table.situation_lines.setdefault(scenario, line)
        if known != situation:
            self.fault(line, "situation", f"is not the one that scenario {scenario} has on line {first}")

    def _candidate(self, line: int, key: CellKey, text: str, index: int | None) -> int | None:
        """The position of the row's candidate in its cell; None when the row contradicts another."""
        indexed, first = self._index_used.setdefault(key, (index is not None, line))
        if indexed != (index is not None):
            words = "is empty, but given" if indexed else "is given, but empty"
            self.fault(
                line, "index", f"{words} for the same cell on line {first}; give it everywhere in a cell, or nowhere"
            )
            return None
        cell = self._table.cells.setdefault(key, TableCell())
        places = self._where.setdefault(key, {})
        mark: object = text if index is None else index
        if mark not in places:
            places[mark] = len(cell.candidates)
            cell.candidates.append(TableCandidate(text, index, line))
        elif index is not None and cell.candidates[places[mark]].text != text:
            other = cell.candidates[places[mark]].line
            self.fault(line, "text", f"is not the one that index {index} of the same cell has on line {other}")
            return None
        return places[mark]

    # -- values --------------------------------------------------------------------------------

    def _scores(self, line: int, values: Mapping[str, object]) -> tuple[JudgeKey, TableScore] | None:
        """(judge, scores) of a row that has some; partial scores are a fault."""
        given = [c for c in self._criteria if not _blank(values.get(c))]
        expected = [c for c in self._expected if not _blank(values.get(c))]
        if not given:
            if expected:
                self.fault(line, expected[0], "stands beside no whole score")
            return None
        missing = [c for c in self._criteria if c not in given]
        if missing:
            self.fault(
                line,
                missing[0],
                f"is empty, but {given[0]} is not; a judge scores all criteria of a candidate, or none",
            )
        if expected and len(expected) < len(self._expected):
            gap = next(c for c in self._expected if c not in expected)
            self.fault(line, gap, f"is empty, but {expected[0]} is not")
        judge = self._judge(line, values)
        low, high = self._rubric.scale_min, self._rubric.scale_max
        scores = [self._score(line, c, values[c], low, high) for c in given]
        means = [self._mean(line, c, values[c], low, high) for c in expected]
        if judge is None or None in scores or None in means or missing or len(expected) not in (0, len(self._expected)):
            return None
        told = cast("list[float]", means)
        return judge, TableScore(cast("tuple[int, ...]", tuple(scores)), tuple(told) if told else None, line)

    def _judge(self, line: int, values: Mapping[str, object]) -> JudgeKey | None:
        name = self._text(line, "judge", values.get("judge"))
        kind = self._text(line, "judge_kind", values.get("judge_kind"))
        version = self._text(line, VERSION, values.get(VERSION))
        if name is None or kind is None or version is None:
            return None
        name, kind, version = name.strip(), kind.strip().lower(), version.strip()
        if not name:
            self.fault(line, "judge", "is empty beside scores")
            return None
        if kind not in get_args(Kind):
            self.fault(line, "judge_kind", f"{_short(kind)} is none of {', '.join(get_args(Kind))}")
            return None
        if not re.fullmatch(r"[0-9A-Za-z._-]{0,64}", version) or (version and kind in ("human", "agent")):
            self.fault(line, VERSION, f"{_short(version)} is no version of a judge of kind {kind}; leave it empty")
            return None
        if name not in self._kinds:
            try:
                JudgeIdentity(name=name, kind=cast("Kind", kind))
            except ValidationError:
                words = f"{_short(name)}: a judge's name has letters, digits and . _ : / @ + - only, at most 80"
                self.fault(line, "judge", words)
                return None
            self._kinds[name] = (cast("Kind", kind), line)
        known, first = self._kinds[name]
        if known != kind:
            self.fault(line, "judge_kind", f"is {kind}, but {known} for {name} on line {first}")
            return None
        self._table.judges[name, version] = known
        return name, version

    def _score(self, line: int, column: str, value: object, low: int, high: int) -> int | None:
        number = self._number(value)
        if number is None or number != int(number):
            decimal = f"; a decimal (a mean of passes, say) goes into {column}{EXPECTED}" if number is not None else ""
            self.fault(line, column, f"{_short(value)} is no whole number from {low} to {high}{decimal}")
            return None
        if not low <= number <= high:
            self.fault(line, column, f"{_short(value)} is outside the scale of {low} to {high}")
            return None
        return int(number)

    def _mean(self, line: int, column: str, value: object, low: int, high: int) -> float | None:
        number = self._number(value)
        if number is None or not low <= number <= high:
            self.fault(line, column, f"{_short(value)} is no number from {low} to {high}")
            return None
        return number

    def _whole(self, line: int, column: str, value: object) -> int | None:
        if _blank(value):
            return None
        number = self._number(value)
        if number is None or number != int(number) or not 0 <= number < 2**53:
            self.fault(line, column, f"{_short(value)} is no whole number from 0")
            return None
        return int(number)

    def _decimal(self, line: int, column: str, value: object) -> float | None:
        if _blank(value):
            return None
        number = self._number(value)
        if number is None or number < 0:
            self.fault(line, column, f"{_short(value)} is no number from 0")
            return None
        return number

    def _number(self, value: object) -> float | None:
        """A finite number; with a decimal comma where commas part no values."""
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float):
            return float(value) if abs(value) < 2**63 else None
        if not isinstance(value, str) or len(value) > 40 or not _NUMBER.fullmatch(value.strip()):
            return None
        text = value.strip()
        if "," in text and not self._comma:
            return None
        number = float(text.replace(",", "."))
        return number if math.isfinite(number) else None

    def _name(self, line: int, column: str, value: object) -> str | None:
        text = self._text(line, column, value)
        if text is None:
            return None
        name = self._names.get(text)
        if name is None:
            name = self._names[text] = text.strip()
        if not name:
            self.fault(line, column, "is empty")
        elif len(name) > MAX_NAME or not name.isprintable() or "'" in name:
            self.fault(
                line, column, f"{_short(name)}: a name is one line of at most {MAX_NAME} characters, without quotes '"
            )
        else:
            return name
        return None

    def _text(self, line: int, column: str, value: object) -> str | None:
        if value is None:
            return ""
        if isinstance(value, str):
            if value.isascii() or not re.search("[\ud800-\udfff]", value):
                return value
            self.fault(line, column, "has half a character in it (a lone surrogate), which is no Unicode text")
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and column in REQUIRED[:3]:
            return str(value)  # a spreadsheet's scenario 7
        self.fault(line, column, f"must be text, found {_short(value)}")
        return None


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
