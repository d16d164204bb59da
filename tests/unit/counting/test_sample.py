"""A person's way: an LLM has scored all, a sample is drawn, scored and applied, and the board is the person's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.fakes.memory_backend import MemoryBackend, memory_store
from tests.unit.counting.test_histories import Writer
from tipbench.catalog import load_rubric
from tipbench.config import Config
from tipbench.counting import marks, sample
from tipbench.counting.census import take
from tipbench.counting.judged import MANUAL, Asked
from tipbench.errors import InputError
from tipbench.judging.exchange import Exchange, JudgeIdentity
from tipbench.judging.validate import scored, with_items
from tipbench.leaderboard.options import BoardOptions
from tipbench.stages import apply, collect, compare, export
from tipbench.store import Store

pytestmark = pytest.mark.unit
EXPERIMENT = "tip-bench-sample"
RUBRIC = load_rubric()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = memory_store(MemoryBackend())
    rows = [{"id": f"s{i:02}", "title": f"S{i}", "situation": f"Situation {i}."} for i in range(12)]
    (tmp_path / "scenarios.yaml").write_text(yaml.safe_dump({"scenarios": rows}))
    config = Config(
        models="one:1b,two:1b",
        prompts="v1",
        scenarios=str(tmp_path / "scenarios.yaml"),
        n_tips=3,
        experiment=EXPERIMENT,
        spool=str(tmp_path / "spool"),
    )
    collect.run(config, Writer({"one:1b": "one", "two:1b": "two"}, None), store)
    give(store, export.run(EXPERIMENT, store, RUBRIC, asked=Asked("robot"), repeats=0).exchange, "robot", "llm", 1)
    return store


def give(store: Store, exchange: Exchange, name: str, kind: str, seed: int, most: int = 10_000) -> None:
    rng = np.random.default_rng(seed)
    items = [
        scored(item, {c: int(rng.integers(2, 6)) for c in item.scores}, None, None) if i < most else item  # type: ignore[arg-type]
        for i, item in enumerate(exchange.items)
    ]
    apply.run(with_items(exchange, JudgeIdentity(name=name, kind=kind), items), store, source="x.json")  # type: ignore[arg-type]


def test_from_a_sample_to_the_persons_board(store: Store) -> None:
    assert export.run(EXPERIMENT, store, RUBRIC, repeats=0).n_items == 0  # nothing waits for anybody
    asked = export.run(EXPERIMENT, store, RUBRIC, repeats=0, n_sample=7, sample_tips=2)
    assert (asked.n_cells, asked.n_items) == (14, 28)
    give(store, asked.exchange, "anna", "human", 2, most=10)
    left = export.run(EXPERIMENT, store, RUBRIC, repeats=0, n_sample=7, sample_tips=2)
    assert left.n_items == 18  # the same request: what is left of it
    give(store, left.exchange, "anna", "human", 3)
    board = compare.rank(EXPERIMENT, store, RUBRIC, BoardOptions(references=("anna",))).leaderboard
    assert board.reference is not None
    assert (board.reference.n_scenarios, board.reference.n_alone, board.reference.drawn) == (7, 5, True)
    assert board.reference.share == pytest.approx(28 / 72)
    assert not any("representative" in w for w in board.warnings)


def test_scores_beside_the_sample_are_no_drawn_sample(store: Store) -> None:
    give(store, export.run(EXPERIMENT, store, RUBRIC, repeats=0, n_sample=7).exchange, "anna", "human", 2)
    rest = export.run(EXPERIMENT, store, RUBRIC, asked=Asked("anna"), repeats=0)
    give(store, rest.exchange, "anna", "human", 3, most=1)
    board = compare.rank(EXPERIMENT, store, RUBRIC, BoardOptions(references=("anna",))).leaderboard
    assert board.reference is not None and not board.reference.drawn
    assert any("taken for representative" in w for w in board.warnings)


def test_a_draw_follows_from_its_seed_and_a_larger_one_holds_the_smaller(store: Store) -> None:
    census = take(store.holdings(store.require_experiment(EXPERIMENT)))
    small, large = sample.draw(census, 4, 2, 5), sample.draw(census, 9, 3, 5)
    assert small == sample.draw(census, 4, 2, 5) != sample.draw(census, 4, 2, 6)
    assert set(small.scenarios) < set(large.scenarios)
    for entry in census.counted:
        if small.wants(entry):
            assert set(small.indices(entry)) < set(large.indices(entry)) == {0, 1, 2}
    tips = {tuple(small.indices(e)) for e in census.counted if small.wants(e)}
    assert len(tips) > 1  # not always the first ones


def test_a_request_is_kept_whole_and_a_broken_one_is_passed_over(store: Store) -> None:
    census = take(store.holdings(store.require_experiment(EXPERIMENT)))
    drawn = sample.draw(census, 4, 2, 5)
    tag = sample.key(RUBRIC.hash, Asked(MANUAL))
    assert sample.asked_for({tag: drawn.to_text(RUBRIC.hash), "other": "x"}, RUBRIC.hash) == [drawn]
    assert sample.asked_for({tag: drawn.to_text(RUBRIC.hash)[:-9]}, RUBRIC.hash) == []
    assert sample.asked_for({tag: drawn.to_text(RUBRIC.hash)}, "f" * 64) == []


@pytest.mark.parametrize("n", [13, -1])
def test_a_sample_that_cannot_be_is_refused(store: Store, n: int) -> None:
    with pytest.raises(InputError, match="from 1 to 12"):
        export.run(EXPERIMENT, store, RUBRIC, n_sample=n)


def test_the_mark_that_a_waiting_run_reads_follows_every_score(store: Store) -> None:
    experiment_id = store.require_experiment(EXPERIMENT)

    def left(*names: str) -> int | None:
        return marks.sample_left(store, experiment_id, RUBRIC.hash, names)

    assert left("anna") is None  # nobody was asked
    asked = export.run(EXPERIMENT, store, RUBRIC, asked=Asked(MANUAL), repeats=0, n_sample=7, sample_tips=2).exchange
    assert left("anna") == 28
    give(store, asked, "anna", "human", 2, most=10)
    assert left("anna") == 18 and left("anna", "bert") == 28
    give(store, asked, "anna", "human", 2)
    assert left("anna") == 0 and left("anna", "bert") == 28
    # What others are asked in the same words is the same sample.
    for_bert = export.run(EXPERIMENT, store, RUBRIC, judge="bert", repeats=0, n_sample=7, sample_tips=2).exchange
    assert {item.tip for item in for_bert.items} == {item.tip for item in asked.items}
    give(store, for_bert, "bert", "human", 3)
    assert left("anna", "bert") == 0
