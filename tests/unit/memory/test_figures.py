"""Memory figures of cells: the best source stands, and only what was measured decides about a limit."""

from __future__ import annotations

import pytest

from tipbench.memory.meter import Reading
from tipbench.memory.need import MemoryEstimate
from tipbench.policy import check_memory
from tipbench.store.memory import measured, reading, took_before
from tipbench.store.records import MEMORY_SOURCE, SLOTS, CellRecord, Failure, Run

pytestmark = pytest.mark.unit


def run(size: int | None, source: str | None = None, engine: str = "ollama", **more: str) -> Run:
    metrics = {} if size is None else {"peak_memory_bytes": float(size)}
    tags = {SLOTS: more.pop("slots", "1")} | ({} if source is None else {MEMORY_SOURCE: source})
    params = {"engine": engine, "model_digest": "d", "num_ctx": "2048", **more}
    return Run("r", "FINISHED", "", 0, 1, params, metrics, tags)


def cell(of: Run, failure: Failure | None = None) -> CellRecord:
    return CellRecord(of, "id", "m", "p", "s", 1, 1, failure, ())


def test_figures_of_two_sources_do_not_mix_and_the_better_one_stands() -> None:
    assert measured([run(900, "reported"), run(500, "sidecar"), run(600, "sidecar"), run(None)]) == Reading(
        600, "sidecar"
    )
    assert measured([run(None)]) is None


def test_what_earlier_versions_wrote_was_reported_or_the_process_itself() -> None:
    assert reading(run(5)) == Reading(5, "reported")
    assert reading(run(5, engine="embedded")) == Reading(5, "own process")


def test_an_earlier_run_of_the_same_model_options_and_engine_is_found() -> None:
    same = cell(run(600, "processes"))
    others = [
        cell(run(900, "processes", model_digest="other")),
        cell(run(900, "processes", num_ctx="4096")),
        cell(run(900, "processes", slots="2")),
        cell(run(900, "own process", engine="embedded")),
        cell(run(900, "processes"), Failure(reason="OOMKilled", message="")),
    ]
    assert took_before([*others, same], "d", 2048, 1, "ollama") == Reading(600, "processes")
    assert took_before(others, "d", 2048, 1, "ollama") is None
    assert took_before([cell(run(600, "reported"))], "d", 2048, 1, "ollama") is None, (
        "the engine's own count is too little"
    )


def test_what_was_measured_comes_before_the_estimate() -> None:
    estimate = MemoryEstimate(weights=1000, kv_cache=0)
    assert check_memory("m", estimate, 900, Reading(800, "processes")).allowed
    refused = check_memory("m", estimate, 2000, Reading(3 * 1024**3, "sidecar"))
    assert not refused.allowed and "3.0 GiB" in refused.reason and "sidecar" in refused.reason
    assert not check_memory("m", estimate, 900).allowed
