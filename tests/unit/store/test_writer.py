"""Whatever goes wrong while a cell is saved ends the collection, in words, with what is kept."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.fakes.memory_backend import memory_store
from tests.unit.store.test_archive import result
from tipbench.errors import TipbenchError, UnreachableError
from tipbench.store.journal import Journal
from tipbench.store.writer import CellWriter

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "error",
    [httpx.DecodingError("cut gzip"), KeyError("run"), RuntimeError("odd"), UnreachableError("MLflow is away.")],
)
def test_any_error_of_a_writing_thread_is_heard(error: Exception, tmp_path: Path) -> None:
    store = memory_store()
    experiment = store.ensure_experiment("tip-bench-x")

    def broken(*args: object) -> None:
        raise error

    store.save_cell = broken  # type: ignore[method-assign, assignment]
    journal = Journal(str(tmp_path), "store", "tip-bench-x")
    saved: list[object] = []
    writer = CellWriter(store, journal, (experiment, "parent"), {}, saved.append)
    journal.add(result("a"))
    writer.put(result("a"))
    with pytest.raises(TipbenchError, match=r"1 cells are kept in .*; the same command resumes"):
        writer.close()
    assert not saved and len(journal) == 1
