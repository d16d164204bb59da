"""Journalled cells on their way into the store, from threads of their own, so that the engine never waits for MLflow."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping

from tipbench.errors import TipbenchError, UnreachableError
from tipbench.store.backend import StoreError
from tipbench.store.journal import Journal
from tipbench.store.records import CellResult, Run
from tipbench.store.store import Store

WRITERS = 4


class CellWriter:
    """Brings journalled cells to the store; the first error of any thread ends the collection, with what is kept said."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        parent: tuple[str, str],
        known: Mapping[str, Run],
        on_saved: Callable[[CellResult], None],
    ) -> None:
        """`parent` is the experiment's id and the collection's run id; `known` maps a cell's id to the run that it already has."""
        self._store = store
        self._journal = journal
        self._experiment_id, self._parent_run_id = parent
        self._known = known
        self._on_saved = on_saved
        # Bounded, so that a slow MLflow holds the engine back instead of filling memory; the journal has the rest.
        self._queue: queue.Queue[CellResult | None] = queue.Queue(maxsize=256)
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"write-{i}") for i in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def put(self, result: CellResult) -> None:
        """Hand over a journalled cell; raises the writer's own error, if it had one."""
        while True:
            self._raise_error()
            try:
                return self._queue.put(result, timeout=0.5)
            except queue.Full:
                continue

    def close(self, hurry: bool = False) -> None:
        """Wait until the store has everything. `hurry` gives up on what is still queued: the journal keeps it."""
        if hurry:
            while True:
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    break
        for _ in self._threads:
            while self._error is None:
                try:
                    self._queue.put(None, timeout=0.5)
                    break
                except queue.Full:
                    continue
        for thread in self._threads:
            thread.join(timeout=10 if hurry else None)
        self._raise_error()

    def _raise_error(self) -> None:
        error = self._error
        if error is None:
            return
        kept = (
            f"{len(self._journal)} cells are kept in {self._journal.folder}; the same command resumes and saves them."
        )
        if isinstance(error, UnreachableError):
            raise UnreachableError(f"{error} {kept}") from error
        if isinstance(error, TipbenchError):
            raise error
        raise StoreError(f"a cell could not be saved ({type(error).__name__}: {error}). {kept}") from error

    def _work(self) -> None:
        while self._error is None:
            try:
                result = self._queue.get(timeout=0.5)
            except queue.Empty:
                continue
            if result is None:
                return
            try:
                self._save(result)
            except BaseException as error:  # whatever it is: a thread that dies unheard would lose cells in silence
                self._error = error

    def _save(self, result: CellResult) -> None:
        known = self._known.get(result.cell_id)
        if known is not None and known.status == "FINISHED" and not _adds(known, result):
            # The process died between MLflow's answer and the journal's line, or somebody else was first.
            self._journal.remove(result.cell_id)
            return
        self._store.save_cell(self._experiment_id, self._parent_run_id, result, known)
        self._journal.remove(result.cell_id)
        self._on_saved(result)


def _adds(known: Run, result: CellResult) -> bool:
    return len(result.candidates) > int(known.tags.get("tipbench.n_candidates", "0"))
