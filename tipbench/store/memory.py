"""Memory figures of cells' runs: the best source that there is among them, and what an earlier run took."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from tipbench.memory.meter import Reading, Source
from tipbench.store.records import MEMORY_SOURCE, SLOTS, CellRecord, Run

SOURCES: tuple[Source, ...] = get_args(Source)


def reading(run: Run) -> Reading | None:
    """A cell's figure; what versions before 0.3 wrote was the engine's own count, or what the process grew by."""
    size = run.metrics.get("peak_memory_bytes")
    if size is None:
        return None
    before: Source = "own process" if run.params.get("engine") == "embedded" else "reported"
    stated = run.tags.get(MEMORY_SOURCE)
    return Reading(int(size), next((source for source in SOURCES if source == stated), before))


def measured(runs: Iterable[Run]) -> Reading | None:
    """The largest figure of the best source: figures of two sources do not mix."""
    found = [one for one in map(reading, runs) if one is not None]
    if not found:
        return None
    best = min((one.source for one in found), key=SOURCES.index)
    return max((one for one in found if one.source == best), key=lambda one: one.size)


def took_before(cells: Iterable[CellRecord], digest: str, num_ctx: int, parallel: int, engine: str) -> Reading | None:
    """What the same model took in an earlier run with the same context and slots in the same engine; None when not measured.

    A cell that failed says nothing: its model may have been killed on the way up.
    """
    same = [
        cell.run
        for cell in cells
        if cell.failure is None
        and cell.run.params.get("model_digest") == digest
        and cell.run.params.get("num_ctx") == str(num_ctx)
        and cell.run.params.get("engine") == engine
        and cell.run.tags.get(SLOTS) == str(parallel)
    ]
    found = measured(same)
    return None if found is None or found.source == "reported" else found
