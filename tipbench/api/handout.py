"""Handing out tips to judges: who has which on the screen, and whose turn a tip is."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tipbench.counting.judged import Asked, Judges
from tipbench.store.records import CellRecord, ScoreRecord

Scope = Literal["pending", "all", "sample"]
"""What a judge is given: what nobody has scored, also what only others have, or the sample that people were asked for."""
SHOWN_S = 300.0
"""How long an item that one judge has on the screen is kept from the others, as long as there are more."""


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
    block: int = 0
    """In rounds: its turn; a repeat has that of the place where it stands in the file."""
    drawn: bool = False
    """It is in the sample that people were asked for."""


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


def lacks(key: Mapping[str, Any], cells: Mapping[str, CellRecord], rubric_hash: str, judge: str) -> bool:
    """Is the file of this key for another rubric, or is there a candidate that waits for this judge and is not in it?"""
    if key["rubric_hash"] != rubric_hash:
        return True
    there = {(row[0], row[1]) for row in key["items"].values()}
    judges, asked = Judges(cells.values(), rubric_hash), Asked(judge)
    return any((run_id, index) not in there for run_id, cell in cells.items() for index in judges.pending(cell, asked))


def entries(
    key: Mapping[str, Any],
    cells: Mapping[str, CellRecord],
    rubric_hash: str,
    judge: str,
    blocks: Mapping[str, int] | None = None,
    drawn: Collection[tuple[str, int]] = (),
) -> list[Entry]:
    """The items of the judge's file in its order; those whose cell is gone, or counts no more, are left out.

    `blocks` (run id -> number) are the turns of an experiment in rounds, `drawn` (run id, index) the candidates of the sample.
    """
    turns, turn = blocks or {}, 0
    judges, anybody = Judges(cells.values(), rubric_hash), Asked()
    known: dict[str, tuple[set[int], ScoreRecord | None]] = {}
    found = []
    for item_id, (run_id, index, repeat, scenario, tip, *_) in key["items"].items():
        if run_id not in cells:
            continue
        if run_id not in known:
            cell = cells[run_id]
            known[run_id] = (judges.judged(cell, anybody), _own(cell, judges, judge))
        scored, own = known[run_id]
        mine = (own.repeats if repeat else own.scores).get(index) if own is not None else None
        turn = turn if repeat else turns.get(run_id, 0)
        in_sample = (run_id, index) in drawn
        found.append(Entry(item_id, run_id, index, repeat, scenario, tip, mine, index in scored, turn, in_sample))
    return found


def _own(cell: CellRecord, judges: Judges, judge: str) -> ScoreRecord | None:
    """What this judge has scored of a cell."""
    return next((r for r in cell.scores if r.judge == judge and judges.is_in_force(r)), None)


def still_open(found: Sequence[Entry], scope: Scope) -> list[Entry]:
    """What the judge may be given: what nobody has scored or, with all, also what only others have (a second opinion); or the sample."""
    found = [e for e in found if e.drawn or scope != "sample"]
    first_done = {(e.run_id, e.index) for e in found if e.own is not None and not e.repeat}
    return [
        e
        for e in found
        if e.own is None
        # A repeat comes after its first showing; it is there to measure this judge, whoever else has scored the tip.
        and ((e.run_id, e.index) in first_done if e.repeat else scope != "pending" or not e.scored)
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
    cells: Mapping[str, CellRecord],
    rubric_hash: str,
    judge: str,
    scope: Scope,
    drawn: Collection[tuple[str, int]] = (),
) -> Counts:
    """Counted over the cells, not over the judge's newest file, which holds only what was open when it was made.

    With the scope `sample`, over the candidates `drawn` only.
    """
    if scope == "sample":
        return _counts_of_sample(found, cells, rubric_hash, judge, drawn)
    tips = done = pending = 0
    judges, anybody = Judges(cells.values(), rubric_hash), Asked()
    for cell in cells.values():
        own = _own(cell, judges, judge)
        again = len(own.repeats) if own is not None else 0
        tips += cell.n_candidates + again
        done += (len(own.scores) if own is not None else 0) + again
        pending += len(judges.pending(cell, anybody))
    firsts = {(e.run_id, e.index) for e in found if not e.repeat and e.own is None and (scope == "all" or not e.scored)}
    mine = {(e.run_id, e.index) for e in found if not e.repeat and e.own is not None}
    again_open = [e for e in found if e.repeat and e.own is None]
    reachable = firsts | mine
    return Counts(
        total=tips + len(again_open),
        done=done,
        left=len(firsts) + sum((e.run_id, e.index) in reachable for e in again_open),
        pending=pending,
    )


def _counts_of_sample(
    found: Sequence[Entry],
    cells: Mapping[str, CellRecord],
    rubric_hash: str,
    judge: str,
    drawn: Collection[tuple[str, int]],
) -> Counts:
    judges, anybody = Judges(cells.values(), rubric_hash), Asked()
    own = {run_id: _own(cell, judges, judge) for run_id, cell in cells.items()}
    mine = {c for c in drawn if (o := own.get(c[0])) is not None and c[1] in o.scores}
    again = sum(1 for run_id, index in drawn if (o := own.get(run_id)) is not None and index in o.repeats)
    again_open = sum(e.repeat and e.own is None and e.drawn for e in found)
    pending = sum(index in judges.pending(cells[run_id], anybody) for run_id, index in drawn if run_id in cells)
    return Counts(
        total=len(drawn) + again + again_open,
        done=len(mine) + again,
        left=len(drawn) - len(mine) + again_open,
        pending=pending,
    )


def in_turn(open_entries: Sequence[Entry], judge: str, shown: Shown) -> list[Entry]:
    """Block by block; in each, what nobody has scored or looks at first, what others have scored last; the file's order among equals.

    Repeats stand among the last ones, in the file's order: there, half the file lies between a tip and its repeat. Any earlier,
    and a tip that others have scored, too, might come again at once.
    """

    def rank(entry: Entry) -> int:
        return 2 if entry.scored else int(shown.elsewhere(judge, (entry.run_id, entry.index)))

    last = max((rank(entry) for entry in open_entries if not entry.repeat), default=0)
    return sorted(open_entries, key=lambda entry: (entry.block, last if entry.repeat else rank(entry)))
