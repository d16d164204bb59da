"""A leaderboard of an experiment in rounds: who is in, who left, when and why, with intervals that know about the looks."""

from __future__ import annotations

import math

from tipbench.leaderboard.model import Cell, Difference, Leaderboard, Race, RaceStep, RaceStepCell
from tipbench.rounds.standing import Standing
from tipbench.rounds.words import stop_words, why
from tipbench.stats import scenario_interval
from tipbench.stats.sequential import standing as differences

METHOD = (
    " In rounds: differences, p values and ties are those of the group-sequential all-pairs max-T test, whose error of 5% counts all "
    "looks together; a cell that was dropped has those of the look at which it left."
)


def in_rounds(board: Leaderboard, standing: Standing) -> Leaderboard:
    """The board with what the race decided: those left first, then those that left, the last to leave first."""
    decision = standing.decision
    index = {m.row: i for i, m in enumerate(standing.members)}
    diff, low, high, p = differences(standing.means, decision, standing.horizon)
    place = {cell: at for at, cell in enumerate(decision.left)}
    looked = bool(decision.looks)

    def order(cell: Cell) -> tuple[float, float, int]:
        member = index.get(cell.row.id) if cell.row and cell.row.current else None
        # What has no rank of its own comes last, as on any board.
        last = cell.rank if cell.rank is not None else len(board.cells) + 1
        if cell.rank is None:
            return (3.0, 0.0, last)
        if not looked or member is None:
            return (1.0 if looked else 0.0, 0.0, last)
        if member in place:
            return (0.0, float(place[member]), last)
        drop = decision.dropped.get(member)
        return (2.0, -float(drop.look) if drop else 0.0, last)

    rows = []
    for rank, cell in enumerate(sorted(board.cells, key=order), 1):
        member = index.get(cell.row.id) if cell.row and cell.row.current else None
        update: dict[str, object] = {
            "rank": None if cell.rank is None else rank,
            "rank_low": None if cell.rank_low is None else min(cell.rank_low, rank),
            "rank_high": None if cell.rank_high is None else max(cell.rank_high, rank),
        }
        if member is not None and cell.composite is not None:
            drop = decision.dropped.get(member)
            update["diff_to_best"] = Difference(
                value=_known(diff[member]),
                ci_low=_known(low[member]),
                ci_high=_known(high[member]),
                p_adjusted=_known(p[member]),
            )
            update["tied_with_best"] = False if drop else None if not looked or math.isnan(p[member]) else True
            if drop:
                update |= {"dropped_at": drop.look, "dropped_why": why(standing, member), "p_best": None}
        rows.append(cell.model_copy(update=update))
    return board.model_copy(
        update={"cells": tuple(rows), "race": _summary(board, standing), "method": board.method + METHOD}
    )


def _summary(board: Leaderboard, standing: Standing) -> Race:
    decision = standing.decision
    ends = standing.horizon.looks
    steps = []
    for look in decision.looks:
        cells = []
        for member in look.cells:
            interval = scenario_interval(
                standing.means[member, : look.n_scenarios], board.confidence, (board.scale_min, board.scale_max)
            )
            if interval.mean is not None:
                one = standing.members[member]
                cells.append(
                    RaceStepCell(
                        model=one.model,
                        prompt=one.prompt,
                        composite=interval.mean,
                        ci_low=interval.low,
                        ci_high=interval.high,
                    )
                )
        steps.append(RaceStep(look=look.number, n_scenarios=look.n_scenarios, cells=tuple(cells)))
    used = int(standing.collected.sum())
    full = len(standing.members) * ends[-1]
    return Race(
        looks_taken=len(decision.looks),
        looks_planned=len(ends),
        stop=decision.stop,
        reason=stop_words(standing) if decision.stop else "not decided yet",
        work=min(1.0, used / full),
        margin=standing.margin,
        steps=tuple(steps),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
