"""A write-ahead journal: a candidate is on disk when it is made, a finished cell leaves when MLflow has it.

So neither a killed process nor an MLflow that is away costs more than the answer in hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from tipbench.files import append_line, explained, lock, writable, write_whole
from tipbench.store.records import Candidate, CellResult


class Journal:
    """One folder per (store, experiment), one file per cell."""

    def __init__(self, root: str, store: str, experiment: str) -> None:
        """`root` is the user's folder or empty for the default. Raises InputError when it cannot be written."""
        state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        base = Path(root) if root else Path(state) / "tipbench" / "spool"
        self.folder = base.expanduser() / f"{experiment}-{sha256(store.encode()).hexdigest()[:8]}"
        writable(self.folder, "the spool folder", "name another with --spool")
        with explained(self.folder):
            self._lock = (self.folder / ".lock").open("ab")

    def hold(self) -> None:
        """Keep other processes off this folder until `release`, or until this process ends, however it ends.

        Raises BusyError when another process holds it: two collectors would save each other's cells twice. Raises InputError
        when its file system has no locks, so that nobody could tell.
        """
        lock(
            self._lock,
            f"another tipbench collect is filling this experiment from {self.folder}; wait for it, or give this one "
            "a folder of its own with --spool",
            f"the spool folder {self.folder}",
            "name a folder on a local disk with --spool",
        )

    def release(self) -> None:
        """Let others use the folder."""
        self._lock.close()

    def note(self, cell_id: str, candidate: Candidate) -> None:
        """Put one candidate of an unfinished cell on disk. One append, so that a kill tears at most its own line."""
        append_line(self.folder / f"{cell_id}.candidates", candidate.model_dump_json().encode())

    def noted(self) -> dict[str, tuple[Candidate, ...]]:
        """cell id -> the candidates that an interrupted run had made."""
        return {path.stem: tuple(_candidates(path)) for path in sorted(self.folder.glob("*.candidates"))}

    def add(self, result: CellResult) -> None:
        """Put a cell on disk, whole or not at all; it takes the place of its candidates."""
        write_whole(self._path(result.cell_id), result.model_dump_json().encode(), durable=True)
        (self.folder / f"{result.cell_id}.candidates").unlink(missing_ok=True)

    def remove(self, cell_id: str) -> None:
        """The store has the cell now."""
        self._path(cell_id).unlink(missing_ok=True)

    def entries(self) -> Iterator[CellResult]:
        """Cells that the store may not have yet. A file that does not parse is set aside, not deleted."""
        for path in sorted(self.folder.glob("[!.]*.json")):
            try:
                yield CellResult.model_validate_json(path.read_bytes())
            except ValidationError:
                path.rename(path.with_suffix(".unreadable"))

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("[!.]*.json"))

    def _path(self, cell_id: str) -> Path:
        return self.folder / f"{cell_id}.json"


def _candidates(path: Path) -> Iterator[Candidate]:
    """The whole lines of a file, each index once."""
    seen: set[int] = set()
    for line in path.read_bytes().splitlines():
        try:
            candidate = Candidate.model_validate_json(line)
        except ValidationError:
            continue
        if candidate.index not in seen:
            seen.add(candidate.index)
            yield candidate
