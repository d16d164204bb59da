"""A race in rounds as judges and the panel see it: which round, how far it is judged, and whether the decision is made. Nothing of who is ahead."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tipbench.api.models import RaceState
from tipbench.counting.census import Census, Entry
from tipbench.counting.judged import BASELINE, Asked, Judges
from tipbench.rounds.record import Race


def state_of(census: Census, race: Race, rubric_hash: str) -> RaceState | None:
    """How far the race is; None for an experiment without rounds."""
    if not race.orders or not race.members:
        return None
    number = min(len(race.looks) + 1, len(race.ends))
    judges = Judges((e.cell for e in census.counted), rubric_hash)
    # As the looks have it: anybody but the baseline, or the baseline where nobody else has judged.
    asked = Asked(BASELINE) if set(judges.kinds.values()) == {"baseline"} else Asked()
    tips = judged = 0
    for entry, block in _placed(census, race):
        if block == number and entry.row.id in race.left:
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


def blocks_of(census: Census, race: Race) -> dict[str, int]:
    """run id -> the block in which its tips are handed out; cells that are out, and scenarios without a place, come last."""
    last = len(race.ends) + 1
    return {e.run_id: (block or last) if e.row.id in race.left else last + 1 for e, block in _placed(census, race)}


def _placed(census: Census, race: Race) -> Iterator[tuple[Entry, int]]:
    """Entries that count, each with the block that its scenario is in; 0 for none."""
    block_of = {name: race.block_of(name) for name in race.scenarios}
    for entry in census.counted:
        yield entry, block_of.get(census.scenario_names.get(entry.column, entry.cell.scenario), 0)
