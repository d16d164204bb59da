"""What is told of a collection while it goes on, and counted of it for the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from tipbench.store.records import CellResult


@dataclass(frozen=True)
class Event:
    """Something a user would want to see: one line in a log, one step of a progress bar."""

    kind: Literal["start", "skip", "refused", "cell", "failed", "warning", "note", "saved"]
    message: str
    total: int = 0
    done: int = 0


@dataclass(frozen=True)
class FailedCells:
    """Cells of one model that failed for the same reason; the first one's message stands for all."""

    model: str
    reason: str
    cells: int
    message: str

    def __str__(self) -> str:
        return f"{self.model}: {self.cells} cells failed, {self.reason}: {self.message}"


@dataclass
class Tally:
    """Counts that both the generating and the writing side add to."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    collected: int = 0
    why: dict[tuple[str, str], FailedCells] = field(default_factory=dict)
    generations: int = 0
    engine_s: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def failed(self) -> dict[str, int]:
        """reason -> cells"""
        counts: dict[str, int] = {}
        for one in self.why.values():
            counts[one.reason] = counts.get(one.reason, 0) + one.cells
        return counts

    def generated(self, seconds: float) -> None:
        """One candidate more, and the engine's own time for it."""
        with self.lock:
            self.generations += 1
            self.engine_s += seconds

    def saved(self, result: CellResult) -> None:
        """One cell more in the store."""
        with self.lock:
            if result.failure is None:
                self.collected += 1
                return
            reason = result.failure.reason
            so_far = self.why.get((result.model, reason))
            one = so_far or FailedCells(result.model, reason, 0, result.failure.message)
            self.why[result.model, reason] = replace(one, cells=one.cells + 1)


OnEvent = Callable[[Event], None]
