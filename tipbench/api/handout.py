"""Handing out tips to judges: who has which on the screen, and whose turn a tip is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tipbench.stages.export import judged
from tipbench.store.records import ScoreRecord

SHOWN_S = 300.0
"""How long an item that one judge has on the screen is kept from the others, as long as there are more."""


@dataclass(frozen=True)
class Scored:
    """What handing out needs of a finished cell."""

    n_candidates: int
    records: tuple[ScoreRecord, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of a judge's exchange file, and what is known of its candidate."""

    item_id: str
    run_id: str
    index: int
    repeat: bool
    scenario: str
    tip: str
    own: tuple[int, ...] | None
    """This judge's scores of it."""
    scored: bool
    """Somebody has scored the candidate."""


class Shown:
    """Which candidate is on whose screen. Only to hand out wisely: it costs nothing to lose it."""

    def __init__(self) -> None:
        self._by: dict[tuple[str, int], tuple[str, float]] = {}

    def show(self, judge: str, candidate: tuple[str, int]) -> None:
        """The judge has it now."""
        now = time.monotonic()
        if len(self._by) > 10_000:
            self._by = {c: (j, at) for c, (j, at) in self._by.items() if now - at < SHOWN_S}
        self._by[candidate] = (judge, now)

    def elsewhere(self, judge: str, candidate: tuple[str, int]) -> bool:
        """Another judge has it."""
        holder, at = self._by.get(candidate, (judge, 0.0))
        return holder != judge and time.monotonic() - at < SHOWN_S


def lacks(key: Mapping[str, Any], cells: Mapping[str, Scored], rubric_hash: str, judge: str) -> bool:
    """Is the file of this key for another rubric, or is there a candidate that this judge has not scored and that is not in it?"""
    if key["rubric_hash"] != rubric_hash:
        return True
    there = {(row[0], row[1]) for row in key["items"].values()}
    return any(
        (run_id, index) not in there
        for run_id, cell in cells.items()
        for index in set(range(cell.n_candidates)) - judged(cell.records, rubric_hash, judge)
    )


def entries(key: Mapping[str, Any], cells: Mapping[str, Scored], rubric_hash: str, judge: str) -> list[Entry]:
    """The items of the judge's file in its order; those whose cell is gone are left out."""
    known = {run_id: _scored(cell.records, rubric_hash, judge) for run_id, cell in cells.items()}
    found = []
    for item_id, (run_id, index, repeat, scenario, tip) in key["items"].items():
        if run_id in known:
            anybody, own, again = known[run_id]
            mine = (again if repeat else own).get(index)
            found.append(Entry(item_id, run_id, index, repeat, scenario, tip, mine, index in anybody))
    return found


def _scored(
    records: Sequence[ScoreRecord], rubric_hash: str, judge: str
) -> tuple[set[int], Mapping[int, Any], Mapping[int, Any]]:
    """Candidates that anybody has scored, this judge's scores, and this judge's second scores."""
    own = next((r for r in records if r.judge == judge and r.rubric_hash == rubric_hash), None)
    return judged(records, rubric_hash, None), own.scores if own else {}, own.repeats if own else {}


def still_open(found: Sequence[Entry], scope: Literal["pending", "all"]) -> list[Entry]:
    """What the judge may be given: what nobody has scored or, with all, also what only others have (a second opinion)."""
    first_done = {(e.run_id, e.index) for e in found if e.own is not None and not e.repeat}
    return [
        e
        for e in found
        if e.own is None
        # A repeat comes after its first showing; it is there to measure this judge, whoever else has scored the tip.
        and ((e.run_id, e.index) in first_done if e.repeat else scope == "all" or not e.scored)
    ]


@dataclass(frozen=True)
class Counts:
    """How far a judge is, in items: tips, and the hidden repeats of this judge's file. Judging never moves `total`."""

    total: int
    done: int
    """Scored by this judge."""
    left: int
    """To be handed out to this judge, now or once a first showing is scored."""
    pending: int
    """Tips that nobody has scored."""


def counts(
    found: Sequence[Entry],
    cells: Mapping[str, Scored],
    rubric_hash: str,
    judge: str,
    scope: Literal["pending", "all"],
) -> Counts:
    """Counted over the cells, not over the judge's newest file, which holds only what was open when it was made."""
    tips = done = pending = 0
    for cell in cells.values():
        anybody, own, again = _scored(cell.records, rubric_hash, judge)
        tips += cell.n_candidates + len(again)
        done += len(own) + len(again)
        pending += cell.n_candidates - len(anybody)
    firsts = {(e.run_id, e.index) for e in found if not e.repeat and e.own is None and (scope == "all" or not e.scored)}
    mine = {(e.run_id, e.index) for e in found if not e.repeat and e.own is not None}
    again_open = [e for e in found if e.repeat and e.own is None]
    return Counts(
        total=tips + len(again_open),
        done=done,
        left=len(firsts) + sum((e.run_id, e.index) in firsts | mine for e in again_open),
        pending=pending,
    )


def in_turn(open_entries: Sequence[Entry], judge: str, shown: Shown) -> list[Entry]:
    """What nobody has scored or looks at comes first, what others have scored last; the file's order decides among equals.

    Repeats stand among the last ones, in the file's order: there, half the file lies between a tip and its repeat. Any earlier,
    and a tip that others have scored, too, might come again at once.
    """

    def rank(entry: Entry) -> int:
        return 2 if entry.scored else int(shown.elsewhere(judge, (entry.run_id, entry.index)))

    last = max((rank(entry) for entry in open_entries if not entry.repeat), default=0)
    return sorted(open_entries, key=lambda entry: last if entry.repeat else rank(entry))
