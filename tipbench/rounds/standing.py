"""Where a race stands: the scores that count, put before `stats.sequential`, and every look that they allow recorded."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tipbench.catalog import Rubric
from tipbench.counting.census import Census
from tipbench.counting.judged import BASELINE, Asked, Judges
from tipbench.errors import InputError
from tipbench.rounds import record
from tipbench.rounds.record import Member, Race, RecordedDrop, RecordedLook
from tipbench.stats.arrays import BoolArray, FloatArray
from tipbench.stats.sequential import Decision, Drop, Entry, Horizon, Look, decide, extend, make_horizon
from tipbench.store import Store


@dataclass(frozen=True)
class Standing:
    """The race, the scores, and what follows from both. Cells are indices of `members`, scenarios of `race.scenarios`."""

    race: Race
    members: tuple[Member, ...]
    means: FloatArray
    """(cells, scenarios), NaN for what is missing."""
    collected: BoolArray
    """(cells, scenarios): there is a finished or a failed cell."""
    horizon: Horizon
    decision: Decision
    margin: float


def stand(census: Census, rubric: Rubric, race: Race, *, margin: float = 0.0, asked: Asked | None = None) -> Standing:
    """The standing by what counts now; nothing is read or written.

    `asked` is who has to have judged a tip before a look; by default anybody but the baseline, or the baseline where
    nobody else has judged. Raises InputError when the experiment has no rounds.
    """
    if not race.orders or not race.members:
        raise InputError("this experiment has no rounds; they begin with: tipbench run --until sure")
    members = race.members
    names = race.scenarios
    row_of = {m.row: i for i, m in enumerate(members)}
    column_of = {name: i for i, name in enumerate(names)}
    counted = [e for e in census.counted if e.row.id in row_of]
    judges = Judges((e.cell for e in counted), rubric.hash)
    if asked is None:
        asked = Asked(BASELINE) if set(judges.kinds.values()) == {"baseline"} else Asked()
    counting = judges.counting()
    total = sum(rubric.weights.values())
    weights = [rubric.weights[c.id] / total for c in rubric.criteria]
    means = np.full((len(members), len(names)), np.nan)
    pending = np.ones(means.shape, dtype=bool)
    collected = np.zeros(means.shape, dtype=bool)
    for entry in (*counted, *(e for e in census.failed if e.row.id in row_of)):
        column = column_of.get(census.scenario_names.get(entry.column, entry.cell.scenario))
        if column is None:
            continue
        at = (row_of[entry.row.id], column)
        collected[at] = True
        if entry.standing == "failed":
            pending[at] = False
            continue
        by_tip: dict[int, list[float]] = {}
        for scored in judges.records(entry.cell, counting):
            for index, values in scored.scores.items():
                by_tip.setdefault(index, []).append(sum(w * v for w, v in zip(weights, values, strict=True)))
        if by_tip:
            means[at] = statistics.fmean(statistics.fmean(values) for values in by_tip.values())
        pending[at] = bool(judges.pending(entry.cell, asked))
    horizon = _horizon(race)
    history = tuple(_look(one, row_of) for one in race.looks)
    decision = decide(means, pending, horizon, margin=margin, history=history, entries=_entries(race, row_of))
    return Standing(race, members, means, collected, horizon, decision, margin)


def advance(
    store: Store,
    experiment_id: str,
    census: Census,
    rubric: Rubric,
    *,
    margin: float = 0.0,
    asked: Asked | None = None,
) -> Standing:
    """Take every look that the scores allow, and record it. What somebody else recorded first stands."""
    while True:
        race = record.read(store, experiment_id, rubric.hash)
        standing = stand(census, rubric, race, margin=margin, asked=asked)
        new = standing.decision.looks[len(race.looks) :]
        if not new:
            return standing
        for look in new:
            last = look is standing.decision.looks[-1]
            stop = (standing.decision.stop or "") if last else ""
            record.note_look(store, experiment_id, rubric.hash, _recorded(look, standing.members, margin, stop))


def _horizon(race: Race) -> Horizon:
    """The horizon that the orders on record make."""
    first, *added = race.orders
    horizon = make_horizon(len(first.scenarios), first.block, number=first.rule)
    total = len(first.scenarios)
    for order in added:
        total += len(order.scenarios)
        horizon = extend(horizon, order.after_looks, total, order.block)
    return horizon


def _entries(race: Race, row_of: Mapping[str, int]) -> list[Entry]:
    """Who came in late or came back."""
    entries = [Entry(row_of[b.row], b.after_look) for b in race.back if b.row in row_of]
    if race.looks:
        for row, cell in row_of.items():
            first = next((one.number for one in race.looks if row in one.rows), len(race.looks) + 1)
            if first > 1:
                entries.append(Entry(cell, first - 1))
    return entries


def _look(look: RecordedLook, row_of: Mapping[str, int]) -> Look:
    drops = [
        Drop(
            row_of[d.row],
            look.number,
            "worse" if d.why == "worse" else "no scores",
            row_of.get(d.than),
            d.diff,
            d.low,
            d.high,
            d.t,
            d.among,
            d.everyone,
        )
        for d in look.dropped
        if d.row in row_of
    ]
    return Look(look.number, look.n_scenarios, tuple(row_of[r] for r in look.rows if r in row_of), tuple(drops))


def _recorded(look: Look, members: Sequence[Member], margin: float, stop: str) -> RecordedLook:
    return RecordedLook(
        number=look.number,
        n_scenarios=look.n_scenarios,
        rows=tuple(members[c].row for c in look.cells),
        dropped=tuple(
            RecordedDrop(
                row=members[d.cell].row,
                why=d.why,
                than="" if d.than is None else members[d.than].row,
                diff=d.diff,
                low=d.low,
                high=d.high,
                t=None if d.t is None or not np.isfinite(d.t) else d.t,
                among=d.among,
                everyone=d.everyone,
            )
            for d in look.dropped
        ),
        margin=margin if stop == "within margin" else 0.0,
        stop=stop,
    )
