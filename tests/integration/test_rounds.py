"""Rounds against a fake Ollama and a judge who knows the truth: work, decisions, kills, and cells taken back."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import Tipbench, clean_env, command_line
from tests.fakes.memory_backend import MemoryBackend, memory_store
from tests.fakes.ollama_server import FakeOllama
from tipbench.catalog import Rubric, content_hash, load_rubric
from tipbench.config import Config, build
from tipbench.counting.census import take
from tipbench.engines import open_engine
from tipbench.errors import InputError
from tipbench.judging.exchange import identify
from tipbench.rounds import record
from tipbench.rounds.words import Next
from tipbench.stages import apply, collect, compare, export
from tipbench.stages import next as next_stage
from tipbench.store import Store

pytestmark = pytest.mark.integration

TRUTH = {"v1": 2.0, "v2-mentor": 4.0, "v3-few-shot": 4.0}
EXPERIMENT = "tip-bench-rounds"


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    server = FakeOllama().start()
    yield server
    server.stop()


@pytest.fixture
def config(fake: FakeOllama, tmp_path: Path) -> Config:
    scenarios = tmp_path / "scenarios.yaml"
    scenarios.write_text(
        yaml.safe_dump(
            {
                "scenarios": [
                    {"id": f"s{i:02}", "title": f"Title {i}", "situation": f"Situation number {i}."} for i in range(12)
                ]
            }
        )
    )
    return build(
        {
            "until": "sure",
            "block": 4,
            "models": "small:1b",
            "prompts": ",".join(TRUTH),
            "n_tips": 2,
            "experiment": EXPERIMENT,
            "ollama_url": fake.url,
            "mlflow_url": str(tmp_path / "store"),
            "spool": str(tmp_path / "spool"),
            "scenarios": str(scenarios),
        }
    )


@pytest.fixture
def rubric() -> Rubric:
    return load_rubric(None)


class Killed(BaseException):
    """Stands for the end of the process."""


class Mortal(MemoryBackend):
    """A store whose user's process ends after so many writes, before the next one."""

    def __init__(self, dies_after: int = 10**9) -> None:
        super().__init__()
        self.writes = 0
        self.dies_after = dies_after

    def _count(self) -> None:
        self.writes += 1
        if self.writes > self.dies_after:
            raise Killed

    def create_run(self, *args: Any, **more: Any) -> Any:
        self._count()
        return super().create_run(*args, **more)

    def put_artifact(self, *args: Any, **more: Any) -> Any:
        self._count()
        return super().put_artifact(*args, **more)

    def set_status(self, *args: Any, **more: Any) -> Any:
        self._count()
        return super().set_status(*args, **more)


@pytest.fixture
def store() -> Store:
    return memory_store()


def collect_once(config: Config, store: Store) -> collect.CollectResult:
    engine = open_engine(config)
    try:
        return collect.run(config, engine, store)
    finally:
        engine.close()


def score(prompt: str, scenario: str, index: int, truth: dict[str, float]) -> int:
    """The same for the same tip, whoever asks and when: around the truth, one point off now and then."""
    rng = random.Random(content_hash([prompt, scenario, str(index)]))
    return min(5, max(1, round(truth[prompt]) + rng.choice((-1, 0, 0, 0, 1))))


def judge(config: Config, store: Store, rubric: Rubric, truth: dict[str, float] = TRUTH, name: str = "ann") -> int:
    """Score everything that is pending by the truth; returns the number of items."""
    exported = export.run(config.experiment, store, rubric, judge=name, repeats=0)
    experiment_id = store.require_experiment(config.experiment)
    cells = {c.run.run_id: c for c in store.holdings(experiment_id).cells}
    key = store.export_key(experiment_id, exported.exchange.export_id)
    assert key is not None
    items = []
    for item in exported.exchange.items:
        run_id, index, *_ = key["items"][item.id]
        cell = cells[run_id]
        value = score(cell.prompt, cell.scenario, index, truth)
        items.append(item.model_copy(update={"scores": dict.fromkeys(item.scores, value)}))
    if items:
        filled = exported.exchange.model_copy(update={"items": tuple(items), "judge": identify(name, "human", "judge")})
        apply.run(filled, store, source="judge.json")
    return len(items)


def one_round(config: Config, store: Store, rubric: Rubric, truth: dict[str, float] = TRUTH) -> Next:
    collect_once(config, store)
    judge(config, store, rubric, truth)
    return next_stage.run(config.experiment, store, rubric, margin=config.margin)


def to_the_end(config: Config, store: Store, rubric: Rubric, truth: dict[str, float] = TRUTH) -> Next:
    for _ in range(10):
        result = one_round(config, store, rubric, truth)
        if result.action == "stop":
            return result
        assert result.action == "collect"
    raise AssertionError("the race does not end")


def written(store: Store) -> list[tuple[str, str]]:
    return sorted((c.prompt, c.scenario) for c in store.cells(store.require_experiment(EXPERIMENT)))


def looks(store: Store, rubric: Rubric) -> tuple[record.RecordedLook, ...]:
    return record.read(store, store.require_experiment(EXPERIMENT), rubric.hash).looks


def test_the_worse_cell_leaves_and_costs_no_more(
    config: Config, rubric: Rubric, store: Store, fake: FakeOllama
) -> None:
    first = one_round(config, store, rubric)
    assert first.action == "collect"
    assert len(written(store)) == 3 * 4
    end = to_the_end(config, store, rubric)
    assert end.stop == "used up"
    assert end.reason.startswith("stop: no more scenarios; small:1b with v")
    (out,) = end.dropped
    assert (out.prompt, out.look <= 2) == ("v1", True)
    assert "worse than small:1b with v" in out.why
    kept = [p for p, _ in written(store)]
    assert kept.count("v1") == out.n_scenarios
    assert kept.count("v2-mentor") == kept.count("v3-few-shot") == 12
    asked_before = len(fake.requests)
    assert collect_once(config, store).planned == 0
    assert len(fake.requests) == asked_before


def test_the_board_keeps_the_cell_that_left(config: Config, rubric: Rubric, store: Store) -> None:
    end = to_the_end(config, store, rubric)
    result = compare.run(config.experiment, store, rubric)
    by_prompt = {c.prompt: c for c in result.leaderboard.cells}
    out = by_prompt["v1"]
    assert out.tied_with_best is False
    assert out.dropped_at == end.dropped[0].look
    assert out.dropped_why == end.dropped[0].why
    assert out.n_scenarios == end.dropped[0].n_scenarios
    assert out.rank == 3
    assert out.diff_to_best.ci_high is not None and out.diff_to_best.ci_high < 0
    for prompt in ("v2-mentor", "v3-few-shot"):
        assert by_prompt[prompt].dropped_at is None
        assert by_prompt[prompt].n_scenarios == 12
        assert by_prompt[prompt].tied_with_best is True
    race = result.leaderboard.race
    assert race is not None
    assert race.work == pytest.approx((24 + out.n_scenarios) / 36)
    assert [s.n_scenarios for s in race.steps] == [4, 8, 12]
    assert 'aria-label="Composite score with interval of 3 cells over 3 looks"' in result.html
    assert "Out at look" in result.markdown


def test_two_equal_cells_stop_within_a_margin(config: Config, rubric: Rubric, store: Store) -> None:
    config = replace(config, margin=2.5)
    end = to_the_end(config, store, rubric, {"v1": 1.0, "v2-mentor": 4.0, "v3-few-shot": 4.0})
    assert end.stop == "within margin"
    assert end.reason.endswith("are equal within 2.5")
    assert collect_once(config, store).planned == 0


@pytest.mark.parametrize("share", [0.05, 0.2, 0.35, 0.5, 0.65, 0.8])
def test_killed_anywhere_the_same_command_comes_to_the_same_decision(
    config: Config, rubric: Rubric, tmp_path: Path, share: float
) -> None:
    config = replace(config, n_tips=1)
    undisturbed = Mortal()
    whole = memory_store(undisturbed)
    expected = to_the_end(replace(config, spool=str(tmp_path / "s1")), whole, rubric)
    config = replace(config, spool=str(tmp_path / "s2"))
    backend = Mortal(int(undisturbed.writes * share))
    with pytest.raises(BaseException):  # noqa: B017
        to_the_end(config, memory_store(backend), rubric)
    backend.dies_after = 10**9
    store = memory_store(backend)
    end = to_the_end(config, store, rubric)
    cells = written(store)
    assert len(cells) == len(set(cells))
    assert (end.stop, end.leader, end.dropped) == (expected.stop, expected.leader, expected.dropped)
    assert [(k.number, k.dropped) for k in looks(store, rubric)] == [
        (k.number, k.dropped) for k in looks(whole, rubric)
    ]
    assert cells == written(whole)


def test_first_all_then_sure_decides_as_if_in_rounds_and_writes_nothing_new(
    config: Config, rubric: Rubric, store: Store, fake: FakeOllama
) -> None:
    collect_once(replace(config, until="all"), store)
    judge(config, store, rubric)
    asked_before = len(fake.requests)
    end = to_the_end(config, store, rubric)
    assert len(fake.requests) == asked_before
    assert end.stop == "used up"
    assert [d.prompt for d in end.dropped] == ["v1"]


def test_a_second_judge_who_comes_late_undoes_no_look(config: Config, rubric: Rubric, store: Store) -> None:
    one_round(config, store, rubric)
    result = one_round(config, store, rubric)
    assert [d.prompt for d in result.dropped] == ["v1"]
    before = looks(store, rubric)
    judge(config, store, rubric, {"v1": 5.0, "v2-mentor": 1.0, "v3-few-shot": 1.0}, name="bob")
    after = next_stage.run(config.experiment, store, rubric)
    assert looks(store, rubric) == before
    assert after.dropped == result.dropped


def test_a_cell_taken_back_is_recorded_and_catches_up(config: Config, rubric: Rubric, store: Store) -> None:
    one_round(config, store, rubric)
    result = one_round(config, store, rubric)
    assert [d.prompt for d in result.dropped] == ["v1"]
    back = next_stage.run(
        config.experiment, store, rubric, take_back="small:1b|v1", by="ann", reason="a fault in the prompt file"
    )
    assert back.dropped == ()
    (cell,) = [c for c in back.cells if c.prompt == "v1"]
    assert len(cell.collect) == 12 - result.dropped[0].n_scenarios
    end = to_the_end(config, store, rubric)
    assert [p for p, _ in written(store)].count("v1") == 12
    assert [(d.prompt, d.look) for d in end.dropped] == [("v1", 3)]
    (event,) = record.read(store, store.require_experiment(EXPERIMENT), rubric.hash).back
    assert (event.by, event.reason, event.after_look) == ("ann", "a fault in the prompt file", 2)
    with pytest.raises(InputError, match="no such cell was dropped"):
        next_stage.run(config.experiment, store, rubric, take_back="small:1b|v2-mentor", by="ann")


def test_added_scenarios_go_behind_and_the_order_stays(config: Config, rubric: Rubric, store: Store) -> None:
    few = replace(config, n_scenarios=8)
    assert to_the_end(few, store, rubric).stop == "used up"
    race = record.read(store, store.require_experiment(EXPERIMENT), rubric.hash)
    end = to_the_end(config, store, rubric)
    longer = record.read(store, store.require_experiment(EXPERIMENT), rubric.hash)
    assert longer.scenarios[:8] == race.scenarios
    assert longer.looks[:2] == race.looks
    assert (end.looks_taken, end.looks_planned) == (3, 3)


def test_a_scenario_of_the_order_that_is_gone_is_named(
    config: Config, rubric: Rubric, store: Store, tmp_path: Path
) -> None:
    one_round(config, store, rubric)
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"scenarios": [{"id": "other", "title": "Other", "situation": "Another one."}]}))
    with pytest.raises(InputError, match="order of scenarios was drawn with s"):
        collect_once(replace(config, scenarios=str(other)), store)


def test_any_prefix_of_the_order_is_a_fair_sample(config: Config, rubric: Rubric, store: Store) -> None:
    """Drawn, not the file's, and the same for whoever reads it."""
    collect_once(config, store)
    experiment_id = store.require_experiment(EXPERIMENT)
    drawn = record.read(store, experiment_id, rubric.hash).scenarios
    assert sorted(drawn) == [f"s{i:02}" for i in range(12)]
    assert list(drawn) != sorted(drawn)
    assert record.read(store, experiment_id, rubric.hash).scenarios == drawn
    assert {s for _, s in written(store)} == set(drawn[:4])


def test_the_exchange_file_goes_block_by_block(config: Config, rubric: Rubric, store: Store) -> None:
    collect_once(replace(config, until="all"), store)
    collect_once(config, store)
    experiment_id = store.require_experiment(EXPERIMENT)
    exported = export.run(EXPERIMENT, store, rubric, repeats=0)
    key = store.export_key(experiment_id, exported.exchange.export_id)
    assert key is not None
    race = record.read(store, experiment_id, rubric.hash)
    scenario_of = {c.run.run_id: c.scenario for c in store.cells(experiment_id)}
    order = [scenario_of[key["items"][item.id][0]] for item in exported.exchange.items]
    blocks = [race.block_of(s) for s in order]
    assert blocks == sorted(blocks)
    assert set(blocks) == {1, 2, 3}
    assert len(set(order[:24])) == 4
    assert order[:24] != sorted(order[:24])


def test_tips_of_a_cell_that_is_out_come_last(config: Config, rubric: Rubric, store: Store) -> None:
    """In the file as in the panel: a judge who stops early has spent nothing on them."""
    collect_once(replace(config, until="all"), store)
    while not one_round(config, store, rubric).dropped:
        pass
    experiment_id = store.require_experiment(EXPERIMENT)
    exported = export.run(EXPERIMENT, store, rubric, repeats=0, judge="bob")
    key = store.export_key(experiment_id, exported.exchange.export_id)
    assert key is not None
    prompt_of = {c.run.run_id: c.prompt for c in store.cells(experiment_id)}
    prompts = [prompt_of[key["items"][item.id][0]] for item in exported.exchange.items]
    assert prompts.index("v1") == len(prompts) - prompts.count("v1") > 0


def test_only_the_cells_asked_for(config: Config, rubric: Rubric, store: Store) -> None:
    collect_once(replace(config, cells="small:1b|v1,small:1b|v2-mentor", until="all"), store)
    assert {p for p, _ in written(store)} == {"v1", "v2-mentor"}
    with pytest.raises(InputError, match=r"small:1b\|v9"):
        collect_once(replace(config, cells="small:1b|v9"), store)


def test_next_needs_rounds(config: Config, rubric: Rubric, store: Store) -> None:
    collect_once(replace(config, until="all"), store)
    with pytest.raises(InputError, match="has no rounds"):
        next_stage.run(EXPERIMENT, store, rubric)


def test_on_the_command_line(tipbench: Tipbench, config: Config, tmp_path: Path) -> None:
    options = ["--experiment", EXPERIMENT, "--mlflow-url", config.mlflow_url]
    done = tipbench(
        *("run", "--until", "sure", "--block", 4, "--models", "small:1b", "--n-tips", 1, "--judge", "baseline"),
        *("--ollama-url", config.ollama_url, "--scenarios", config.scenarios, "--out", tmp_path / "out", *options),
    )
    assert done.returncode == 0, done.stderr
    assert "stop: " in done.stdout
    asked = tipbench("next", "--json", *options)
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert (answer["schema"], answer["action"]) == ("tipbench.next/1", "stop")
    assert answer["reason"] in done.stdout
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert board["race"]["stop"] == answer["stop"]
    assert tipbench("next", "--take-back", "small:1b|v1", *options).returncode == 2


def test_a_command_killed_in_any_round_decides_as_if_it_had_not_been(
    config: Config, fake: FakeOllama, tmp_path: Path, empty_db: Path
) -> None:
    """kill -9, in the middle of every round, then the same command: no tip is written twice but those that were in flight."""
    fake.delay = 0.03
    for folder in ("whole", "killed"):
        (tmp_path / folder / "store").mkdir(parents=True)
        shutil.copy(empty_db, tmp_path / folder / "store")

    def start(folder: str) -> subprocess.Popen[bytes]:
        home = tmp_path / folder
        command = command_line(
            *("run", "--until", "sure", "--block", 4, "--models", "small:1b", "--n-tips", 1, "--judge", "baseline"),
            *("--ollama-url", config.ollama_url, "--scenarios", config.scenarios, "--experiment", EXPERIMENT),
            *("--mlflow-url", home / "store", "--out", home / "out"),
        )
        return subprocess.Popen(command, env=clean_env(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def board(folder: str) -> dict[str, Any]:
        told = json.loads((tmp_path / folder / "out" / "leaderboard.json").read_text())
        return {
            "race": told["race"],
            "cells": [(c["model"], c["prompt"], c["composite"], c["n_judged"]) for c in told["cells"]],
        }

    assert start("whole").wait(120) == 0
    needed = fake.generations.total()
    kills = 0
    for part in (5, 16, 27):
        process = start("killed")
        while process.poll() is None and fake.generations.total() - needed < part:
            time.sleep(0.005)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert start("killed").wait(120) == 0
    assert kills >= 2
    assert board("killed") == board("whole")
    assert needed <= fake.generations.total() - needed <= needed + kills


def test_the_census_and_the_race_read_the_same_cells(config: Config, rubric: Rubric, store: Store) -> None:
    """Cells that left stay current on the board though later plans leave them out."""
    to_the_end(config, store, rubric)
    census = take(store.holdings(store.require_experiment(EXPERIMENT)))
    assert len(census.counted) == len(written(store))
    assert not census.superseded
    assert np.all([info.current for info in census.rows])
