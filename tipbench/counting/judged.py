"""Whose scores count, and what is pending for whom: always under one rubric, and for the judge that was asked.

A judge that is a program has versions (digest, judge prompt, rationale mode); the one that scored last is in force, and the others are told
apart and never pooled with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tipbench.errors import InputError
from tipbench.store.records import CellRecord, Judge, ScoreRecord

ANYONE, MANUAL, LLM, BASELINE = "anyone", "manual", "llm", "baseline"
"""Who may be asked: anybody but the baseline; a person or an agent; any LLM; the baseline. Or a judge, by name."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked to judge. `version` is that of a named judge; None means the one in force."""

    who: str = ANYONE
    version: str | None = None

    def __str__(self) -> str:
        return {ANYONE: "anybody", MANUAL: "a person or an agent", LLM: "an LLM"}.get(self.who, self.who)


class Judges:
    """The judges of some cells under one rubric."""

    def __init__(self, cells: Iterable[CellRecord], rubric_hash: str) -> None:
        self.rubric_hash = rubric_hash
        last: dict[str, tuple[int, str]] = {}
        self.kinds: dict[str, str] = {}
        self.versions: dict[str, set[str]] = {}
        self.other_rubrics: set[str] = set()
        for cell in cells:
            for record in cell.scores:
                if record.rubric_hash != rubric_hash:
                    self.other_rubrics.add(record.rubric_hash)
                    continue
                self.kinds[record.judge] = record.kind
                self.versions.setdefault(record.judge, set()).add(record.version)
                last[record.judge] = max(last.get(record.judge, (-1, "")), (record.last_ms, record.version))
        self._in_force = {judge: version for judge, (_, version) in last.items()}

    def in_force(self, judge: str) -> str:
        """The version of a judge that counts."""
        return self._in_force.get(judge, "")

    def is_in_force(self, record: ScoreRecord) -> bool:
        """Is the record under this rubric, and by the version in force of its judge?"""
        return record.rubric_hash == self.rubric_hash and record.version == self.in_force(record.judge)

    def answers(self, record: ScoreRecord, asked: Asked) -> bool:
        """Is the record an answer of who was asked?"""
        if record.rubric_hash != self.rubric_hash:
            return False
        if asked.version is not None and record.judge == asked.who:
            return record.version == asked.version
        if record.version != self.in_force(record.judge):
            return False
        if asked.who == ANYONE:
            return record.kind != "baseline"
        if asked.who == MANUAL:
            return record.kind in ("human", "agent")
        if asked.who in (LLM, BASELINE):
            return record.kind == asked.who
        return record.judge == asked.who

    def judged(self, cell: CellRecord, asked: Asked) -> set[int]:
        """Indices of the cell's candidates that who was asked has scored."""
        return {i for record in cell.scores if self.answers(record, asked) for i in record.scores}

    def pending(self, cell: CellRecord, asked: Asked) -> list[int]:
        """Indices of the cell's candidates that wait for who was asked, in order."""
        return sorted(set(range(cell.n_candidates)) - self.judged(cell, asked))

    def counting(self, names: Sequence[str] = ()) -> dict[str, str]:
        """judge -> version whose scores make the board: the named ones, else all, but the baseline only where nobody else judged.

        A name may have a version behind an @ (its first digits do). Raises InputError for a judge that has scored nothing here.
        """
        if names:
            return dict(self._named(name) for name in names)
        chosen = [judge for judge, kind in self.kinds.items() if kind != "baseline"] or list(self.kinds)
        return {judge: self.in_force(judge) for judge in chosen}

    def _named(self, name: str) -> tuple[str, str]:
        if name in self.kinds:
            return name, self.in_force(name)
        judge, _, wanted = name.rpartition("@")
        matching = [v for v in self.versions.get(judge, ()) if wanted and v.startswith(wanted)]
        if len(matching) == 1:
            return judge, matching[0]
        labels = sorted(
            Judge(judge, "llm", version).label if len(versions) > 1 else judge
            for judge, versions in self.versions.items()
            for version in versions
        )
        raise InputError(f"no scores by {name} under this rubric; judges there: {', '.join(labels) or 'none'}")

    def records(self, cell: CellRecord, counting: Mapping[str, str]) -> list[ScoreRecord]:
        """The cell's records that count."""
        return [
            r
            for r in cell.scores
            if r.rubric_hash == self.rubric_hash and counting.get(r.judge, None) == r.version and r.judge in counting
        ]
