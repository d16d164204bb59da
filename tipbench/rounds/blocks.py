"""In which block of scenarios a tip is handed out, to every judge in the same order."""

from __future__ import annotations

from collections.abc import Iterator

from tipbench.counting.census import Census, Entry
from tipbench.rounds.record import Race


def placed(census: Census, race: Race) -> Iterator[tuple[Entry, int]]:
    """Entries that count, each with the block that its scenario is in; 0 for none."""
    block_of = {name: race.block_of(name) for name in race.scenarios}
    for entry in census.counted:
        yield entry, block_of.get(census.scenario_names.get(entry.column, entry.cell.scenario), 0)


def blocks_of(census: Census, race: Race) -> dict[str, int]:
    """run id -> the block in which its tips are handed out; cells that are out, and scenarios without a place, come last.

    Empty for an experiment without rounds.
    """
    if not race.orders:
        return {}
    last = len(race.ends) + 1
    left = race.left
    return {e.run_id: (block or last) if e.row.id in left else last + 1 for e, block in placed(census, race)}
