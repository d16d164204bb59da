"""What the models wrote, read in one request: the texts of many cells put together, so that ten thousand cells are not ten thousand files.

Made from the cells' own files, and can be made again. A text counts only as long as the cell says that it still stands there.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tipbench.store.cells import Cells
from tipbench.store.records import CellRecord, CellResult, text_hash

MANY_CELLS = 500
"""Cells whose files are read one by one; with more that are not put together yet, they are."""
CHUNK = 500
KEPT = "texts.jsonl.gz"
COVERS = "tipbench.cells"


class Written(NamedTuple):
    """A cell's situation, and its candidates by index."""

    situation: str
    texts: Mapping[int, str]


class Texts(Cells):
    """Situations and candidates of cells."""

    def texts(self, experiment_id: str, cells: Sequence[CellRecord]) -> dict[str, Written]:
        """run id -> what stands in that cell. Raises StoreError naming a run whose artifact is gone."""
        if len(cells) < MANY_CELLS:
            return self._read_texts(cells)
        kept = self._kept_texts(experiment_id)
        found = {c.run.run_id: w for c in cells if (w := kept.get(c.run.run_id)) is not None and _stands(c, w)}
        unread = [cell for cell in cells if cell.run.run_id not in found]
        found |= self._read_texts(unread)
        if len(unread) >= MANY_CELLS:
            self._put_texts(experiment_id, kept | found)
        return found

    def keep_texts(self, experiment_id: str, cells: Sequence[CellRecord]) -> bool:
        """Put the texts of these cells together when many are not yet; True when that was done. Safe at any time, by several at once."""
        covered = max((int(run.tags.get(COVERS, "0")) for run in self._runs(experiment_id, "texts")), default=0)
        if len(cells) - covered < MANY_CELLS:
            return False
        self.texts(experiment_id, cells)
        return True

    def _read_texts(self, cells: Sequence[CellRecord]) -> dict[str, Written]:
        found: dict[str, Written] = {}
        for start in range(0, len(cells), CHUNK):
            chunk = cells[start : start + CHUNK]
            for cell, result in zip(chunk, self.results(c.run for c in chunk), strict=True):
                found[cell.run.run_id] = _written(result)
        return found

    def _kept_texts(self, experiment_id: str) -> dict[str, Written]:
        for run in reversed(list(self._runs(experiment_id, "texts", "attributes.status = 'FINISHED'"))):
            content = self._backend.get_artifact(run, KEPT)
            if content is not None:
                return dict(_unpacked(gzip.decompress(content).splitlines()))
        return {}

    def _put_texts(self, experiment_id: str, texts: Mapping[str, Written]) -> None:
        lines = [
            json.dumps([run_id, w.situation, list(w.texts), list(w.texts.values())]) for run_id, w in texts.items()
        ]
        packed = gzip.compress("\n".join(lines).encode(), 6, mtime=0)
        self._supersede(experiment_id, "texts", "texts put together", {COVERS: str(len(texts))}, (KEPT, packed))


def _written(result: CellResult) -> Written:
    return Written(result.situation, {c.index: c.text for c in result.candidates})


def _unpacked(lines: Iterable[bytes]) -> Iterable[tuple[str, Written]]:
    for line in lines:
        run_id, situation, indices, texts = json.loads(line)
        yield run_id, Written(situation, dict(zip(indices, texts, strict=True)))


def _stands(cell: CellRecord, written: Written) -> bool:
    """Is this what the cell holds now? A run of version 0.2.0 notes no hashes; its candidates never changed."""
    if not cell.texts:
        return len(written.texts) == cell.n_candidates
    return cell.texts == tuple(text_hash(text) for _, text in sorted(written.texts.items()))
