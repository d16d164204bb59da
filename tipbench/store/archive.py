"""Reading what counts of an experiment in few requests: logs of scores put together, and cells that no longer change in one file.

Both are made from what is there and can be made again: whoever finds that much has come since makes a new one. Two who do so at once make
two that say the same; readers take the newest that is whole, and nothing is ever taken from the logs and runs themselves.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from sys import intern
from typing import Any

from tipbench.store.cells import ENDED, PARENT, as_cell
from tipbench.store.collections import Collections, as_collection
from tipbench.store.legacy import legacy_scores
from tipbench.store.part import KIND, Recent
from tipbench.store.records import CellRecord, Collection, Holdings, Judge, Run, Score, ScoreRecord
from tipbench.store.scores import FILE_SCORES, RECORDS, Entry, Scores, pack, path_of
from tipbench.store.texts import MANY_CELLS, Texts

MANY_LOGS = 48
"""Logs that are read one by one; with more, they are put together."""
FEW_SEARCHES = 20
"""Collections whose cells are searched for one by one; with more, all cells are."""
KEPT_TAGS = ("judge_pending", "tipbench.", PARENT)
COVERED = "covered.json"
INDEX = "cells.json.gz"


Sealed = tuple[str, tuple[CellRecord, ...], Collection | None]


@dataclass(frozen=True)
class Scored:
    """Cells, the scores in the logs in the order in which they were read, and the cells with these scores."""

    cells: Sequence[CellRecord]
    entries: Sequence[Entry]
    scored: Sequence[CellRecord]

    def with_more(self, cells: Sequence[CellRecord], entries: Sequence[Entry]) -> list[CellRecord] | None:
        """The same with what was added since; None when something else has changed, or a score is older than one that is there."""
        if len(cells) != len(self.cells) or any(a is not b for a, b in zip(cells, self.cells, strict=True)):
            return None
        known, added = 0, []
        for entry in entries:
            if known < len(self.entries) and entry == self.entries[known]:
                known += 1
            else:
                added.append(entry)
        if known < len(self.entries):
            return None
        added.sort(key=lambda entry: entry[1].at_ms)
        if added and self.entries and added[0][1].at_ms < max(score.at_ms for _, score in self.entries):
            return None
        return with_more_scores(self.scored, added) if added else list(self.scored)


class Archive(Texts, Scores, Collections):
    """What an answer can depend on, read together."""

    _sealed: Recent[dict[str, Sealed]]
    """experiment -> collection run -> its mark when it was read, its cells, and itself"""
    _scored: Recent[list[Scored]]
    """experiment -> what was last put together of all its cells and scores; one, or none yet"""

    def holdings(self, experiment_id: str) -> Holdings:
        """Every ended cell with its current scores, and every collection."""
        cells, collections = self._cells_and_collections(experiment_id)
        entries, last = self._entries(experiment_id, cells), self._scored.of(experiment_id)
        scored = last[0].with_more(cells, entries) if last else None
        if scored is None:
            scored = with_scores(cells, entries)
        last[:] = [Scored(cells, entries, scored)]
        return Holdings(experiment_id, tuple(scored), tuple(collections))

    def cells(self, experiment_id: str) -> list[CellRecord]:
        """Every ended cell run with its current scores, whether it counts or not (`counting` knows), oldest first."""
        return list(self.holdings(experiment_id).cells)

    def cells_of(self, run_ids: Iterable[str], experiment_id: str) -> list[CellRecord]:
        """These cells alone, as they are now, however many the experiment has; those that are gone are left out."""
        return self._with_scores(experiment_id, [as_cell(run) for run in self.runs_of(run_ids)])

    # -- scores --------------------------------------------------------------------------------

    def _with_scores(self, experiment_id: str, cells: Sequence[CellRecord]) -> list[CellRecord]:
        return with_scores(cells, self._entries(experiment_id, cells))

    def _entries(self, experiment_id: str, cells: Sequence[CellRecord]) -> list[Entry]:
        """Every score that was given in the experiment; those of version 0.2.0 stand with these cells."""
        entries = legacy_scores((c.run for c in cells), lambda: self._old_judgments(experiment_id))
        return entries + self.score_entries(experiment_id)

    def score_entries(self, experiment_id: str) -> list[Entry]:
        """Every score in the logs, one log after the other, each in its order."""
        logs = [run for run in self._runs(experiment_id, "judgment") if run.tags.get(RECORDS)]
        archive, covered = self._archive(experiment_id) if len(logs) > MANY_LOGS else (None, {})
        entries = self._logged(experiment_id, [archive], {}) if archive is not None else []
        return entries + self._logged(experiment_id, logs, covered)

    def _archive(self, experiment_id: str) -> tuple[Run | None, Mapping[str, int]]:
        """The newest archive that is whole, and how much of each log is in it."""
        for run in reversed(list(self._runs(experiment_id, "archive", "attributes.status = 'FINISHED'"))):
            content = self._backend.get_artifact(run, COVERED)
            if content is not None:
                return run, json.loads(content)
        return None, {}

    def compact(self, experiment_id: str) -> bool:
        """Put the logs together when there are many; True when that was done. Safe to do at any time, by several at once."""
        logs = [run for run in self._runs(experiment_id, "judgment") if run.tags.get(RECORDS)]
        old, covered = self._archive(experiment_id) if len(logs) > MANY_LOGS else (None, {})
        if sum(run.run_id not in covered for run in logs) <= MANY_LOGS:
            return False
        entries = self.score_entries(experiment_id)
        run = self._new(experiment_id, "archive", "scores put together", {})
        for number, start in enumerate(range(0, len(entries), FILE_SCORES)):
            self._backend.put_artifact(run, path_of(number), pack(entries[start : start + FILE_SCORES]))
        counts = {log.run_id: int(log.tags[RECORDS]) for log in logs}
        self._backend.put_artifact(run, COVERED, json.dumps(counts).encode())
        self._end(run, len(entries))
        if old is not None:
            self._backend.delete_run(old.run_id)
        return True

    def _old_judgments(self, experiment_id: str) -> list[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]:
        """What version 0.2.0 applied, oldest first."""
        runs = [run for run in self._runs(experiment_id, "judgment") if not run.tags.get(RECORDS)]
        files = self._files([(run, path) for run in runs for path in ("exchange.json", "changes.json")])
        pairs = zip(files[::2], files[1::2], strict=True)
        return [(json.loads(one), json.loads(other)) for one, other in pairs if one is not None and other is not None]

    def judgment_history(self, experiment_id: str) -> list[dict[str, Any]]:
        """Every score that was ever given or changed, oldest first: item, candidate, old and new scores, judge, time, reason."""
        found: list[dict[str, Any]] = [
            dict(change) for _, changes in self._old_judgments(experiment_id) for change in changes
        ]
        current: dict[tuple[object, ...], tuple[int, ...]] = {}
        for change in found:
            slot = (change["judge"], change["run_id"], change["candidate"], change["repeat"])
            current[slot] = tuple(change["new"])
        for heading, score in sorted(self.score_entries(experiment_id), key=lambda entry: entry[1].at_ms):
            slot = (heading.judge.name, score.run_id, score.index, score.repeat)
            found.append(
                {
                    "item": score.item,
                    "run_id": score.run_id,
                    "candidate": score.index,
                    "repeat": score.repeat,
                    "judge": heading.judge.name,
                    "version": heading.judge.version,
                    "rubric": heading.rubric_hash,
                    "criteria": list(heading.criteria),
                    "old": list(current[slot]) if slot in current else None,
                    "new": list(score.scores),
                    "rationale": score.rationale,
                    "at_ms": score.at_ms,
                    "reason": score.reason,
                }
            )
            current[slot] = score.scores
        return found

    # -- cells ---------------------------------------------------------------------------------

    def _cells_and_collections(self, experiment_id: str) -> tuple[list[CellRecord], list[Collection]]:
        """Ended cells, oldest first, and collections by the time of their plan.

        Cells whose collection has ended are read once and kept; of the others, and of cells without a collection, MLflow
        is asked anew.
        """
        runs = list(self._runs(experiment_id, "collection"))
        marks = {run.run_id: _mark(run) for run in runs}
        sealed = self._sealed.of(experiment_id)
        known = {k: v for k, v in sealed.items() if v[0] and v[0] == marks.get(k)}
        if len(known) < len(runs):
            indexed = self._indexed(experiment_id)
            # The cells of a collection that somebody deleted belong to none: they are found by a search only.
            if set(indexed) <= set(marks):
                known = {k: v for k, v in indexed.items() if v[0] and v[0] == marks[k]} | known
                sealed |= known
        unread = [run for run in runs if run.run_id not in known]
        by_parent: dict[str, list[CellRecord]] = defaultdict(list)
        conditions = [f"tags.`{PARENT}` = '{run.run_id}'" for run in unread]
        if not known or len(unread) > FEW_SEARCHES:
            conditions, known, unread = [""], {}, runs
        remembered = bool(known)
        for condition in conditions:
            for run in self._runs(experiment_id, "cell", condition):
                if run.status in ENDED:
                    by_parent[run.tags.get(PARENT, "")].append(as_cell(_slim(run)))
        orphaned = not set(by_parent) <= set(marks)
        bodies = self._artifacts(unread, "collection.json")
        for run, content in zip(unread, bodies, strict=True):
            collection = as_collection(run, content) if content is not None else None
            entry = (marks[run.run_id], tuple(by_parent.pop(run.run_id, ())), collection)
            known[run.run_id] = entry
            if marks[run.run_id] and collection is not None and not orphaned:
                sealed[run.run_id] = entry
        cells = {c.run.run_id: c for orphans in by_parent.values() for c in orphans}
        for _, found, _ in known.values():
            for cell in found:
                # A cell that was filled again stands under both collections; the later look is the true one.
                other = cells.get(cell.run.run_id)
                if other is None or (cell.run.end_ms or 0) >= (other.run.end_ms or 0):
                    cells[cell.run.run_id] = cell
        # A search finds no run that somebody deleted; what was read earlier may be gone.
        deleted = self._backend.deleted(experiment_id, f"tags.`{KIND}` = 'cell'") if remembered else set()
        ordered = sorted(cells.values(), key=lambda c: (c.run.start_ms, c.run.run_id))
        collections = [one for _, _, one in known.values() if one is not None]
        return (
            [cell for cell in ordered if cell.run.run_id not in deleted],
            sorted(collections, key=lambda one: (one.planned_ms, one.run_id)),
        )

    def _indexed(self, experiment_id: str) -> dict[str, Sealed]:
        """What the newest index holds: collection run -> its mark, its cells, and itself."""
        pages, _ = self._backend.page(
            experiment_id,
            f"tags.`{KIND}` = 'index' AND attributes.status = 'FINISHED'",
            ["attributes.start_time DESC"],
            1,
            "",
        )
        content = self._backend.get_artifact(pages[0], INDEX) if pages else None
        if content is None:
            return {}
        body = json.loads(gzip.decompress(content))
        columns = body["columns"]
        found: dict[str, Sealed] = {}
        for one in body["collections"]:
            cells = tuple(as_cell(_as_run(dict(zip(columns, row, strict=True)))) for row in one["cells"])
            collection = as_collection(_as_run(one["run"]), json.dumps(one["body"]).encode())
            found[one["run"]["run_id"]] = (one["mark"], cells, collection)
        return found

    def index(self, experiment_id: str) -> bool:
        """Put cells of ended collections, and what they hold, into two files when many are not in them yet; True when that was done."""
        cells, _ = self._cells_and_collections(experiment_id)
        if len(cells) < MANY_CELLS:
            return False
        kept = self.keep_texts(experiment_id, [cell for cell in cells if cell.finished])
        return self._index(experiment_id) or kept

    def _index(self, experiment_id: str) -> bool:
        runs = {run.run_id: run for run in self._runs(experiment_id, "collection")}
        known = self._sealed.of(experiment_id)
        sealed = {k: v for k, v in known.items() if k in runs and _mark(runs[k]) == v[0] and v[2] is not None}
        there = self._indexed(experiment_id)
        fresh = sum(len(v[1]) for k, v in sealed.items() if there.get(k, ("",))[0] != v[0])
        if fresh < MANY_CELLS:
            return False
        bodies = self._artifacts([runs[k] for k in sealed], "collection.json")
        columns = ["run_id", "status", "artifact_uri", "start_ms", "end_ms", "params", "metrics", "tags"]
        content = {
            "columns": columns,
            "collections": [
                {
                    "run": _as_dict(runs[run_id]),
                    "mark": mark,
                    "body": json.loads(body),
                    "cells": [list(_as_dict(cell.run).values()) for cell in cells],
                }
                for (run_id, (mark, cells, _)), body in zip(sealed.items(), bodies, strict=True)
                if body is not None
            ],
        }
        packed = gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 6, mtime=0)
        self._supersede(experiment_id, "index", "cells put together", {}, (INDEX, packed))
        return True


def _mark(run: Run) -> str:
    """What changes whenever a collection is carried out again; empty while it is under way."""
    return f"{run.status} {run.end_ms}" if run.status not in ("RUNNING", "SCHEDULED") and run.end_ms else ""


def _slim(run: Run) -> Run:
    """A cell's run with what an answer can depend on; ten thousand of them are many."""
    tags = {intern(k): v for k, v in run.tags.items() if k.startswith(KEPT_TAGS)}
    params = {intern(k): intern(v) for k, v in run.params.items()}
    metrics = {intern(k): v for k, v in run.metrics.items() if not k.startswith("score_")}
    return Run(run.run_id, intern(run.status), run.artifact_uri, run.start_ms, run.end_ms, params, metrics, tags)


def _as_dict(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "status": run.status,
        "artifact_uri": run.artifact_uri,
        "start_ms": run.start_ms,
        "end_ms": run.end_ms,
        "params": dict(run.params),
        "metrics": dict(run.metrics),
        "tags": dict(run.tags),
    }


def _as_run(raw: Mapping[str, Any]) -> Run:
    return _slim(Run(**raw))


def with_scores(cells: Sequence[CellRecord], entries: Iterable[Entry]) -> list[CellRecord]:
    """Cells with the current scores among `entries`: of each judge, version, rubric and candidate the last one in time.

    A score of a text that no longer stands there counts for nothing.
    """
    return _merged(cells, sorted(entries, key=lambda entry: entry[1].at_ms))


def with_more_scores(cells: Sequence[CellRecord], entries: Iterable[Entry]) -> list[CellRecord]:
    """Cells with the scores that they have and later ones."""
    return _merged(cells, entries)


def _merged(cells: Sequence[CellRecord], entries: Iterable[Entry]) -> list[CellRecord]:
    by_run = {cell.run.run_id: cell for cell in cells}
    texts: dict[str, tuple[str, ...]] = {}
    books: dict[str, dict[tuple[str, str, str], _Book]] = {}
    for heading, score in entries:
        cell = by_run.get(score.run_id)
        if cell is None:
            continue
        if (known := texts.get(score.run_id)) is None:
            known = texts[score.run_id] = cell.texts
        if score.text and score.index < len(known) and known[score.index] != score.text:
            continue
        if score.run_id not in books:
            books[score.run_id] = {(r.judge, r.version, r.rubric_hash): _Book.of(r) for r in cell.scores}
        slot = (heading.judge.name, heading.judge.version, heading.rubric_hash)
        book = books[score.run_id].get(slot)
        if book is None:
            book = books[score.run_id][slot] = _Book(heading.judge, heading.rubric_hash, heading.criteria)
        book.take(score)
    return [
        replace(cell, scores=tuple(book.record() for book in books[cell.run.run_id].values()))
        if cell.run.run_id in books
        else cell
        for cell in cells
    ]


class _Book:
    """One judge's scores of one cell, as they come."""

    __slots__ = ("criteria", "expected", "judge", "last_ms", "rationales", "repeats", "rubric_hash", "scores")

    def __init__(self, judge: Judge, rubric_hash: str, criteria: tuple[str, ...]) -> None:
        self.judge, self.rubric_hash, self.criteria = judge, rubric_hash, criteria
        self.scores: dict[int, tuple[int, ...]] = {}
        self.repeats: dict[int, tuple[int, ...]] = {}
        self.expected: dict[int, tuple[float, ...]] = {}
        self.rationales: dict[tuple[int, bool], str] = {}
        self.last_ms = 0

    @classmethod
    def of(cls, record: ScoreRecord) -> _Book:
        """A book that goes on from a record."""
        book = cls(Judge(record.judge, record.kind, record.version), record.rubric_hash, record.criteria)
        book.scores, book.repeats = dict(record.scores), dict(record.repeats)
        book.expected, book.last_ms = dict(record.expected), record.last_ms
        book.rationales = dict(record.rationales)
        return book

    def take(self, score: Score) -> None:
        """One score more; it takes the place of an earlier one."""
        (self.repeats if score.repeat else self.scores)[score.index] = score.scores
        if not score.repeat:
            self.expected.pop(score.index, None)
            if score.expected is not None:
                self.expected[score.index] = score.expected
        self.rationales.pop((score.index, score.repeat), None)
        if score.rationale:
            self.rationales[score.index, score.repeat] = score.rationale
        self.last_ms = max(self.last_ms, score.at_ms)

    def record(self) -> ScoreRecord:
        """What stands now."""
        return ScoreRecord(
            judge=self.judge.name,
            kind=self.judge.kind,
            rubric_hash=self.rubric_hash,
            criteria=self.criteria,
            scores=self.scores,
            repeats=self.repeats,
            version=self.judge.version,
            expected=self.expected,
            rationales=self.rationales,
            last_ms=self.last_ms,
        )
