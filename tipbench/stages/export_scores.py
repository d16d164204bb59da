"""Export of outputs and scores as a table: what counts in an experiment, one row a candidate and judge, in the format that import reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tipbench.catalog import Rubric
from tipbench.counting.census import Entry, RowInfo, take
from tipbench.files import writing
from tipbench.interchange.table import EXPECTED, VERSION
from tipbench.interchange.write import columns_of, lines
from tipbench.store import Store
from tipbench.store.records import ScoreRecord

CHUNK = 200
"""Cells whose candidates are in memory at once."""


@dataclass(frozen=True)
class ExportScoresResult:
    """What was written."""

    file: str
    rows: int
    candidates: int
    judges: tuple[str, ...]


def run(experiment: str, store: Store, rubric: Rubric, path: Path) -> ExportScoresResult:
    """Write the table to `path`, whole or not at all; JSONL when its name ends in .jsonl or .ndjson, else CSV. What is the same in
    the store is the same file.

    Second scores of hidden repeats are left out. Raises InputError when there is no such experiment or the file cannot be written.
    """
    with writing(path) as file:
        return write(experiment, store, rubric, file, str(path))


def write(experiment: str, store: Store, rubric: Rubric, file: BinaryIO, name: str) -> ExportScoresResult:
    """The same into an open file; `name` says what it is."""
    census = take(store.holdings(store.require_experiment(experiment)))
    names = census.scenario_names

    def place(entry: Entry) -> tuple[str, str]:
        """By name: when a cell was written is chance where several are written at once."""
        return names.get(entry.column, entry.cell.scenario), entry.column

    board = [
        (info, sorted((e for e in entries if e.standing == "counted"), key=place))
        for info, entries in census.on_board()
    ]
    records = [r for _, entries in board for e in entries for r in e.cell.scores if r.rubric_hash == rubric.hash]
    criteria = tuple(c.id for c in rubric.criteria)
    columns = columns_of(
        criteria,
        expected=any(r.expected for r in records),
        variants=any(info.variant for info, _ in board),
        versions=any(r.version for r in records),
    )
    tally = [0, 0]
    jsonl = Path(name).suffix.lower() in (".jsonl", ".ndjson")
    for piece in lines(_rows(store, board, rubric, names, tally), columns, jsonl=jsonl):
        file.write(piece)
    return ExportScoresResult(name, tally[0], tally[1], tuple(sorted({r.judge for r in records})))


def _rows(
    store: Store,
    board: Sequence[tuple[RowInfo, Sequence[Entry]]],
    rubric: Rubric,
    names: Mapping[str, str],
    tally: list[int],
) -> Iterator[dict[str, object]]:
    """One row a candidate and judge; a candidate that nobody scored has one row. `tally` counts rows and candidates."""
    wanted = [(info, entry) for info, entries in board for entry in entries]
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        results = store.results(entry.cell.run for _, entry in chunk)
        for (info, entry), result in zip(chunk, results, strict=True):
            records = [r for r in entry.cell.scores if r.rubric_hash == rubric.hash]
            for candidate in sorted(result.candidates, key=lambda c: c.index):
                row: dict[str, object] = {
                    "model": info.model,
                    "prompt": info.prompt,
                    "variant": info.variant or None,
                    "scenario": names.get(entry.column, entry.cell.scenario),
                    "index": candidate.index,
                    "text": candidate.text,
                    "situation": result.situation or None,
                    "output_tokens": candidate.output_tokens,
                    "output_s": candidate.output_s,
                    "peak_memory_bytes": result.resident_bytes,
                }
                tally[1] += 1
                scored = [r for r in records if candidate.index in r.scores]
                for record in scored:
                    tally[0] += 1
                    yield row | _scored(record, candidate.index)
                if not scored:
                    tally[0] += 1
                    yield row


def _scored(record: ScoreRecord, index: int) -> dict[str, object]:
    row: dict[str, object] = {
        "judge": record.judge,
        "judge_kind": record.kind,
        VERSION: record.version or None,
        **dict(zip(record.criteria, record.scores[index], strict=True)),
    }
    if index in record.expected:
        row |= {c + EXPECTED: v for c, v in zip(record.criteria, record.expected[index], strict=True)}
    return row
