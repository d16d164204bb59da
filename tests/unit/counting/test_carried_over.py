"""An experiment that version 0.2.0 made opens, shows the same board, and can be judged on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.memory_backend import MemoryBackend, memory_store
from tests.fixtures import load, restore
from tipbench.catalog import load_rubric
from tipbench.counting.judged import Asked
from tipbench.judging.exchange import JudgeIdentity
from tipbench.judging.validate import scored, with_items
from tipbench.leaderboard.options import BoardOptions
from tipbench.stages import apply, compare, export, status
from tipbench.store import Store

pytestmark = pytest.mark.unit
EXPERIMENT = "tip-bench-old"
RUBRIC = load_rubric()


@pytest.fixture
def backend() -> MemoryBackend:
    backend = MemoryBackend()
    restore(backend, load())
    return backend


@pytest.fixture
def store(backend: MemoryBackend) -> Store:
    return memory_store(backend)


def figures(board: dict[str, Any]) -> list[dict[str, Any]]:
    """What a board says of each cell, without what later versions added to it."""
    names = ["model", "prompt", "rank", "composite", "ci_low", "ci_high", "se", "diff_to_best", "tied_with_best"]
    names += ["n_scenarios", "n_expected", "n_candidates", "n_judged", "coverage", "tokens_per_s", "mean_words", "tone"]
    return [{name: cell[name] for name in names} for cell in board["cells"]]


def test_it_shows_the_same_board(store: Store) -> None:
    ranking = compare.rank(EXPERIMENT, store, RUBRIC, BoardOptions(judges=("ann",)))
    now = json.loads(ranking.leaderboard.model_dump_json(by_alias=True))
    assert figures(now) == figures(load()["leaderboard_of_ann"])


def test_all_of_it_counts_and_every_judge_is_known(store: Store) -> None:
    found = status.run(EXPERIMENT, store, RUBRIC)
    assert (found.cells, found.counted, found.judged, found.pending) == (12, 12, 12, 0)
    assert (found.superseded, found.twins, found.failed) == (0, 0, 0)
    # An LLM's version is known from what it applied.
    judges = {j.name: j for j in found.judges}
    assert {name: (j.kind, j.judged) for name, j in judges.items()} == {
        "ann": ("human", 12),
        "baseline": ("baseline", 12),
        "ollama:x": ("llm", judges["ollama:x"].judged),
    }
    assert 0 < judges["ollama:x"].candidates < 24 and judges["ollama:x"].version and not judges["ann"].version


def test_it_can_be_judged_on_and_a_changed_score_keeps_its_history(store: Store) -> None:
    exported = export.run(EXPERIMENT, store, RUBRIC, judge="bob", asked=Asked("bob"), repeats=0)
    assert exported.n_items == 24
    items = [scored(item, dict.fromkeys(item.scores, 4), None, None) for item in exported.exchange.items]  # type: ignore[arg-type]
    exchange = with_items(exported.exchange, JudgeIdentity(name="bob", kind="human"), items)
    done = apply.run(exchange, store, source="bob.json")
    assert (done.new, done.changed, done.pending_cells) == (24, 0, 0)
    assert {j.name: j.judged for j in status.run(EXPERIMENT, store, RUBRIC).judges}["bob"] == 12
    history = store.judgment_history(store.require_experiment(EXPERIMENT))
    assert [h["reason"] for h in history if h["reason"]] == ["typo"] and len(history) >= 26 + 24


def test_scores_that_mlflow_has_cut_are_made_up_for_from_the_history(backend: MemoryBackend, store: Store) -> None:
    whole = compare.rank(EXPERIMENT, store, RUBRIC, BoardOptions(judges=("ann",))).leaderboard
    for run_id, run in backend.runs.items():
        for key, value in run.tags.items():
            if key.startswith("tipbench.scores."):
                backend.log_batch(run_id, {}, {}, {key: value[: len(value) // 2]}, 0)
    cut = compare.rank(EXPERIMENT, memory_store(backend), RUBRIC, BoardOptions(judges=("ann",))).leaderboard
    assert [(c.model, c.prompt, c.composite) for c in cut.cells] == [
        (c.model, c.prompt, c.composite) for c in whole.cells
    ]
