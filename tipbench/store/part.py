"""What every part of the store builds on: one backend, the kinds of runs, and reading files side by side."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from tipbench.errors import InputError
from tipbench.store.backend import Backend
from tipbench.store.records import Run

KIND = "tipbench.kind"
READERS = 8
"""Threads for reads and writes that MLflow takes one run at a time."""

T = TypeVar("T")
U = TypeVar("U")


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts time."""
    return int(time.time() * 1000)


def quotable(value: str) -> str:
    """`value` for a filter of MLflow's, whose quotes cannot be escaped; raises InputError for one that has any."""
    if "'" in value:
        raise InputError(f"{value!r}: a name cannot have a quote in it")
    return value


class Recent(Generic[T]):
    """What was read of the experiments that were asked for last, so that a service that sees many does not keep all."""

    KEPT = 4

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, experiment_id: str) -> T:
        """What is kept of an experiment; empty when nothing is."""
        with self._lock:
            if experiment_id not in self._kept:
                self._kept[experiment_id] = self._make()
            self._kept.move_to_end(experiment_id)
            while len(self._kept) > self.KEPT:
                self._kept.popitem(last=False)
            return self._kept[experiment_id]


class Part:
    """A part of the store: reads and writes through one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def where(self) -> str:
        """The server or folder, without credentials, for messages."""
        return self._backend.where

    def close(self) -> None:
        """Release connections."""
        self._backend.close()

    def _runs(self, experiment_id: str, kind: str, also: str = "") -> Iterator[Run]:
        yield from self._backend.search(experiment_id, f"tags.`{KIND}` = '{kind}'" + (f" AND {also}" if also else ""))

    def _one(self, experiment_id: str, kind: str, tag: str, value: str) -> Run | None:
        return next(self._runs(experiment_id, kind, f"tags.`{tag}` = '{quotable(value)}'"), None)

    def _new(self, experiment_id: str, kind: str, name: str, tags: Mapping[str, str]) -> Run:
        return self._backend.create_run(experiment_id, name, {KIND: kind, **tags}, now_ms())

    def _supersede(
        self, experiment_id: str, kind: str, name: str, tags: Mapping[str, str], file: tuple[str, bytes]
    ) -> None:
        """Put what was made from other runs into one run of this kind, and delete the earlier ones when it is whole."""
        old = list(self._runs(experiment_id, kind))
        run = self._new(experiment_id, kind, name, tags)
        self._backend.put_artifact(run, *file)
        self._backend.set_status(run.run_id, "FINISHED", now_ms())
        for one in old:
            self._backend.delete_run(one.run_id)

    def _artifacts(self, runs: Sequence[Run], path: str) -> list[bytes | None]:
        return self._files([(run, path) for run in runs])

    def _files(self, wanted: Sequence[tuple[Run, str]]) -> list[bytes | None]:
        """Artifacts, in the order asked for; None for one that is not there."""
        return side_by_side(lambda one: self._backend.get_artifact(*one), wanted)


def side_by_side(call: Callable[[T], U], values: Iterable[T]) -> list[U]:
    """`call` of each value, a few at a time, in order."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(call, values))
