"""A sample for reference judges: scenarios drawn at random, all cells, some tips of each, kept as a request in the store.

The draw follows from its seed alone: scenarios and tips are ordered by a hash of seed and content, so that a larger sample holds the
smaller one, and the same request is the same sample on any machine. Once asked for, its scenarios are fixed, whatever is collected later.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from tipbench.counting.census import Census, Entry
from tipbench.counting.judged import Asked, Judges
from tipbench.errors import InputError

PREFIX = "tipbench.sample."
"""Before the rubric's first 12 digits and who was asked, in the tags of an experiment."""
SHORT = 12
MOST = 400
"""Scenarios that one request can name: a tag holds 8,000 characters."""


@dataclass(frozen=True)
class Sample:
    """What was asked for."""

    seed: int
    tips: int
    """Tips of each cell; 0 for all."""
    scenarios: tuple[str, ...]
    """The first digits of their hashes, in the order drawn."""

    @property
    def words(self) -> tuple[int, int, int]:
        """What was said to get it: scenarios, tips of a cell, seed."""
        return len(self.scenarios), self.tips, self.seed

    def wants(self, entry: Entry) -> bool:
        """Is the cell in the sample?"""
        return _short(entry.column) in self.scenarios

    def indices(self, entry: Entry) -> list[int]:
        """Which of the cell's tips are in the sample."""
        if not self.wants(entry):
            return []
        every = range(entry.cell.n_candidates)
        if not self.tips or self.tips >= entry.cell.n_candidates:
            return list(every)
        cell = f"{entry.row.id} {entry.column}"
        return sorted(sorted(every, key=lambda i: _hash(self.seed, f"{cell} {i}"))[: self.tips])

    def pending(self, entry: Entry, judges: Judges, asked: Asked) -> list[int]:
        """The cell's tips in the sample that wait for who was asked."""
        waiting = set(judges.pending(entry.cell, asked))
        return [i for i in self.indices(entry) if i in waiting]

    def is_what(self, names: Iterable[str], entries: Sequence[Entry], judges: Judges) -> bool:
        """Have these judges scored the whole sample, and no other scenario?"""
        scored = {
            (e.run_id, i)
            for e in entries
            for r in e.cell.scores
            if r.judge in set(names) and judges.is_in_force(r)
            for i in r.scores
        }
        wanted = {(e.run_id, i) for e in entries for i in self.indices(e)}
        inside = {e.run_id for e in entries if self.wants(e)}
        return bool(wanted) and wanted <= scored and {run for run, _ in scored} <= inside

    def left(self, entries: Sequence[Entry], judges: Judges) -> tuple[int, dict[str, int]]:
        """How many tips the sample has, and how many each judge that has scored some of them has left."""
        total = 0
        scored: Counter[str] = Counter()
        for entry in entries:
            wanted = set(self.indices(entry))
            total += len(wanted)
            for record in entry.cell.scores if wanted else ():
                if judges.is_in_force(record):
                    scored[record.judge] += len(wanted & set(record.scores))
        return total, {judge: total - n for judge, n in sorted(scored.items()) if n}

    def to_text(self, rubric_hash: str) -> str:
        """For the tag."""
        kept = {"rubric": rubric_hash, "seed": self.seed, "tips": self.tips, "scenarios": self.scenarios}
        return json.dumps(kept, separators=(",", ":"))


@dataclass(frozen=True)
class Request:
    """A sample that is on record: under which rubric, and who was asked (`Asked.who`)."""

    rubric_hash: str
    who: str
    sample: Sample


def draw(census: Census, n_scenarios: int, tips: int = 0, seed: int = 0) -> Sample:
    """Draw `n_scenarios` of the scenarios that stand on the board, and `tips` of each cell's tips (0: all).

    Raises InputError when there are fewer scenarios, or none.
    """
    columns = sorted({e.column for e in census.counted}, key=lambda column: _hash(seed, column))
    if not columns:
        raise InputError("--sample: nothing that counts has been collected yet")
    if not 1 <= n_scenarios <= min(len(columns), MOST):
        raise InputError(
            f"--sample {n_scenarios}: a whole number from 1 to {min(len(columns), MOST)}; so many scenarios there are"
        )
    return Sample(seed, tips, tuple(_short(column) for column in columns[:n_scenarios]))


def key(rubric_hash: str, asked: Asked) -> str:
    """The tag that keeps the request."""
    return f"{PREFIX}{rubric_hash[:SHORT]}.{asked.who}"


def requests(tags: Mapping[str, str]) -> list[Request]:
    """Every sample on record, from the experiment's tags; what is none that can be read is left out."""
    found = []
    for name, text in sorted(tags.items()):
        if not name.startswith(PREFIX):
            continue
        who = name.removeprefix(PREFIX).partition(".")[2]
        try:
            kept = json.loads(text)
            sample = Sample(int(kept["seed"]), int(kept["tips"]), tuple(map(str, kept["scenarios"])))
            found.append(Request(str(kept["rubric"]), who, sample))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def asked_for(tags: Mapping[str, str], rubric_hash: str) -> list[Sample]:
    """The samples that were asked for under this rubric, from the experiment's tags."""
    return [one.sample for one in requests(tags) if one.rubric_hash == rubric_hash]


def _short(column: str) -> str:
    return column if column.startswith("name:") else column.removeprefix("sha256:")[:SHORT]


def _hash(seed: int, text: str) -> str:
    return sha256(f"{seed} {text}".encode()).hexdigest()
