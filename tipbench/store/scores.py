"""Scores: append-only logs in artifacts, read in few requests, whatever the number of judges, criteria and candidates.

A log is a run of kind `judgment` that one process writes: each of its files is written by nobody else, so that nothing
that somebody wrote can be lost to somebody else's writing. A file holds JSON lines, gzipped: an object heads the arrays that follow it.
When a log's last file is full, the next one begins; `archive.py` puts many small logs together.

The tags and metrics of cells that say something of scores are copies for people who look into MLflow.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tipbench.store.part import Part, Recent, now_ms
from tipbench.store.records import Heading, Judge, Run, Score

RECORDS = "tipbench.records"
"""On a log's run: how many scores it holds. A judgment without it was made by version 0.2.0."""
FILE_SCORES = 500
"""Scores in one file of a log; it is written anew with every score that is added to it."""

Entry = tuple[Heading, Score]


@dataclass
class _Log:
    """A log that this process writes."""

    run: Run
    lock: threading.Lock
    full: int = 0
    """Files that are full."""
    count: int = 0
    tail: list[Entry] | None = None


class Scores(Part):
    """The logs of scores."""

    _own: dict[str, _Log]
    _own_lock: threading.Lock
    _read: Recent[dict[tuple[str, str], tuple[Entry, ...]]]

    def log_scores(
        self, experiment_id: str, heading: Heading, scores: Sequence[Score], documents: Mapping[str, bytes], key: str
    ) -> str | None:
        """Keep the scores of one applied file in a log of its own; `documents` lie beside it.

        `key` tells one applied file from another: cut off half-way, the same call completes the same log. They count from
        the moment that the last file is there. Returns the log's run id, or None when there was nothing to write.
        """
        if not scores:
            return None
        begun = self._runs(
            experiment_id, "judgment", f"tags.`tipbench.judgment_id` = '{key}' AND attributes.status = 'RUNNING'"
        )
        run = next(begun, None)
        if run is None:
            tags = {"tipbench.judgment_id": key, "tipbench.judge": heading.judge.name}
            run = self._new(experiment_id, "judgment", f"judgment by {heading.judge.name}", tags)
        for path, content in documents.items():
            self._backend.put_artifact(run, path, content)
        entries = [(heading, score) for score in scores]
        for number, start in enumerate(range(0, len(entries), FILE_SCORES)):
            self._backend.put_artifact(run, path_of(number), pack(entries[start : start + FILE_SCORES]))
        self._end(run, len(entries))
        return run.run_id

    def add_scores(self, experiment_id: str, heading: Heading, scores: Sequence[Score]) -> str | None:
        """Keep a few scores at the end of this process's own log: for a service that gets them one at a time."""
        if not scores:
            return None
        with self._own_lock:
            log = self._own.get(experiment_id)
            if log is None:
                run = self._new(experiment_id, "judgment", "judgments one by one", {"tipbench.judge": ""})
                log = self._own[experiment_id] = _Log(run, threading.Lock(), tail=[])
        with log.lock:
            tail = [*(log.tail or []), *((heading, score) for score in scores)]
            self._backend.put_artifact(log.run, path_of(log.full), pack(tail))
            log.count += len(scores)
            self._end(log.run, log.count)
            log.tail = tail
            if len(tail) >= FILE_SCORES:
                log.full, log.tail = log.full + 1, []
        return log.run.run_id

    def _end(self, run: Run, count: int) -> None:
        tags = {RECORDS: str(count)}
        self._backend.log_batch(run.run_id, {}, {}, tags, now_ms())
        self._backend.set_status(run.run_id, "FINISHED", now_ms())

    def _logged(self, experiment_id: str, runs: Sequence[Run], beyond: Mapping[str, int]) -> list[Entry]:
        """The scores in these logs, each log's in its order; of a log in `beyond` only what comes after that many.

        Files that are full never change, and are read once.
        """
        full = self._read.of(experiment_id)
        wanted: list[tuple[Run, str]] = []
        for run in runs:
            count, known = int(run.tags.get(RECORDS) or 0), beyond.get(run.run_id, 0)
            wanted += [(run, path_of(n)) for n in range(known // FILE_SCORES, -(-count // FILE_SCORES))]
        missing = [one for one in wanted if (one[0].run_id, one[1]) not in full]
        fresh = {}
        for (run, path), content in zip(missing, self._files(missing), strict=True):
            entries = tuple(unpack(content)) if content is not None else ()
            fresh[run.run_id, path] = entries
            if len(entries) >= FILE_SCORES:
                full[run.run_id, path] = entries
        found: list[Entry] = []
        for run in runs:
            count, known = int(run.tags.get(RECORDS) or 0), beyond.get(run.run_id, 0)
            first = known // FILE_SCORES
            part = [
                entry
                for n in range(first, -(-count // FILE_SCORES))
                for entry in fresh.get((run.run_id, path_of(n)), full.get((run.run_id, path_of(n)), ()))
            ]
            found += part[known - first * FILE_SCORES : count - first * FILE_SCORES]
        return found


def path_of(number: int) -> str:
    """The name of a log's file."""
    return f"scores-{number:04d}.jsonl.gz"


def pack(entries: Iterable[Entry]) -> bytes:
    """Scores as gzipped JSON lines; the same scores give the same bytes."""
    lines, last = [], None
    for heading, score in entries:
        if heading != last:
            lines.append(json.dumps(_heading(heading), separators=(",", ":"), ensure_ascii=False))
            last = heading
        lines.append(json.dumps(_row(score), separators=(",", ":"), ensure_ascii=False))
    return gzip.compress("\n".join(lines).encode(), 6, mtime=0)


def unpack(content: bytes) -> Iterator[Entry]:
    """The scores in a file of a log."""
    heading: Heading | None = None
    headings: dict[str, Heading] = {}
    for line in gzip.decompress(content).decode().split("\n"):
        if line.startswith("{"):
            heading = headings.get(line) or _as_heading(json.loads(line))
            headings[line] = heading
        elif line and heading is not None:
            yield heading, _as_score(json.loads(line))


def _heading(heading: Heading) -> dict[str, Any]:
    judge = heading.judge
    return {
        "judge": judge.name,
        "kind": judge.kind,
        "version": judge.version,
        "rubric": heading.rubric_hash,
        "criteria": list(heading.criteria),
        "details": dict(heading.details),
    }


def _as_heading(raw: Mapping[str, Any]) -> Heading:
    judge = Judge(raw["judge"], raw["kind"], raw.get("version", ""))
    return Heading(judge, raw["rubric"], tuple(raw["criteria"]), raw.get("details", {}))


def _row(score: Score) -> list[Any]:
    row: list[Any] = [score.run_id, score.index, int(score.repeat), list(score.scores), score.at_ms, score.text]
    rest = [list(score.expected) if score.expected else None, score.rationale, score.reason or None, score.item or None]
    while rest and rest[-1] is None:
        rest.pop()
    return row + rest


def _as_score(row: Sequence[Any]) -> Score:
    run_id, index, repeat, scores, at_ms, text, *rest = row
    expected, rationale, reason, item = [*rest, None, None, None, None][:4]
    return Score(
        run_id,
        index,
        bool(repeat),
        tuple(scores),
        at_ms,
        text,
        tuple(expected) if expected else None,
        rationale,
        reason or "",
        item or "",
    )
