"""A meter that looks at the engine's memory again and again while a model writes, and keeps the largest figure.

What it reads comes from a gauge, and there are several, from the best to the last resort; the figure names the one it is from.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

Source = Literal["processes", "sidecar", "own process", "reported"]
"""Where a figure comes from, best first.

`processes`: the proportional set size of the server's processes on this machine. `sidecar`: the same, read by a container in
the server's pod. `own process`: what this process grew by, for an engine within it. `reported`: the engine's own count of
weights and cache, which is less than its processes take.
"""

FIRST_LOOK_S = 0.02
EVERY_S = 0.25
SHARE = 0.02
"""At most this share of the time is spent on looking: the larger the model, the longer a look takes."""


@dataclass(frozen=True)
class Reading:
    """Bytes, and where they come from."""

    size: int
    source: Source


class Gauge(Protocol):
    """One way to read the memory that the engine takes."""

    source: Source

    def read(self) -> int | None:
        """Bytes right now; None when nothing can be read, or no model is in memory. Raises nothing."""


class ReportedGauge:
    """The engine's own count, for when nothing else can be had."""

    source: Source = "reported"

    def __init__(self, sizes: Callable[[], Sequence[int]]) -> None:
        self._sizes = sizes

    def read(self) -> int | None:
        """The sum over the models in memory."""
        return sum(self._sizes()) or None


class Meter:
    """Watches one model's block: `with meter.watching(): ...; meter.peak()`. Safe to use from many threads.

    The first gauge that gives a figure is the block's; the ones after it are asked only while it has given none.
    """

    def __init__(self, gauges: Sequence[Gauge]) -> None:
        self._gauges = tuple(gauges)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._peaks: dict[int, int] = {}
        self._looks = 0
        self._told = 0

    def watching(self) -> Meter:
        """Forget the peak of the model before."""
        with self._lock:
            self._peaks.clear()
            self._looks = self._told = 0
        return self

    def __enter__(self) -> Meter:
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="memory")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None

    def peak(self) -> Reading | None:
        """The largest figure of this block so far, after at least one look since the last time it was asked for.

        A cell that is over before the watch looks is looked at here, and so is the block's first one: the watch may have seen
        its model while it was still being loaded. When the model has already left memory, the peak of the cells before stands.
        None only when no gauge has seen the model at all.
        """
        with self._lock:
            looked = self._told and self._looks > self._told
        if not looked:
            self.look()
        with self._lock:
            self._told = self._looks
            best = min(self._peaks, default=None)
            return None if best is None else Reading(self._peaks[best], self._gauges[best].source)

    def _watch(self) -> None:
        pause = FIRST_LOOK_S
        while not self._stop.wait(pause):
            began = time.perf_counter()
            self.look()
            pause = max(EVERY_S, (time.perf_counter() - began) / SHARE) if self._peaks else FIRST_LOOK_S * 2

    def look(self) -> None:
        """Ask the gauges in turn until one answers."""
        for index, gauge in enumerate(self._gauges):
            size = gauge.read()
            with self._lock:
                if size:
                    self._looks += 1
                    self._peaks[index] = max(size, self._peaks.get(index, 0))
                    return
                if index in self._peaks:
                    # It has seen the model; that it is not there at this moment is no reason to ask a worse one.
                    return
