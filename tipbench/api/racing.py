"""A race in rounds as judges and the panel see it: which round, how far it is judged, and whether the decision is made. Nothing of who is ahead."""

from __future__ import annotations

import math

from tipbench.api.models import RaceState
from tipbench.counting.census import Census
from tipbench.counting.judged import BASELINE, Asked, Judges
from tipbench.rounds.blocks import placed
from tipbench.rounds.record import Race


def state_of(census: Census, race: Race, rubric_hash: str) -> RaceState | None:
    """How far the race is; None for an experiment without rounds."""
    if not race.orders or not race.members:
        return None
    number = min(len(race.looks) + 1, len(race.ends))
    judges = Judges((e.cell for e in census.counted), rubric_hash)
    # As the looks have it: anybody but the baseline, or the baseline where nobody else has judged.
    asked = Asked(BASELINE) if set(judges.kinds.values()) == {"baseline"} else Asked()
    left = race.left
    tips = judged = 0
    for entry, block in placed(census, race):
        if block == number and entry.row.id in left:
            tips += entry.cell.n_candidates
            judged += len(judges.judged(entry.cell, asked))
    return RaceState(
        round=number,
        rounds=len(race.ends),
        looks_taken=len(race.looks),
        tips=tips,
        judged=judged,
        over=race.is_over(math.inf),
    )
