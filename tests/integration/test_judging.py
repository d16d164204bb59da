"""From candidates to a leaderboard through the command line, on a real MLflow store; candidates from the fake Ollama."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MlflowServer, Tipbench, clean_env, command_line
from tests.fakes.ollama_server import FakeOllama
from tests.forked import Forked
from tipbench.leaderboard.model import Leaderboard
from tipbench.store import open_store

pytestmark = pytest.mark.integration
CRITERIA = ("relevance", "actionability", "tone")
CELLS = 2 * 3 * 4
TIPS = 2 * CELLS
REPEATS = math.ceil(0.05 * TIPS)


@dataclass(frozen=True)
class Collected:
    """An experiment on the real server with 2 models x 3 prompts x 4 scenarios x 2 tips, and nothing judged."""

    url: str
    experiment: str
    server: MlflowServer

    @property
    def options(self) -> tuple[str, ...]:
        return ("--experiment", self.experiment, "--mlflow-url", self.url)


def collect(forked: Forked, server: MlflowServer, experiment: str, home: Path) -> Collected:
    fake = FakeOllama()
    fake.add("qwen2.5:0.5b", 500_000_000)
    original = fake.text
    # Now and then a small model says who it is.
    fake.text = lambda m, q, s: original(m, q, s) + (f" I am {m.split(':')[0].title()}." if s == 1 else "")  # type: ignore[method-assign]
    fake.start()
    command = command_line(
        "collect", "--models", "small:1b,qwen2.5:0.5b", "--n-tips", 2, "--n-scenarios", 4, "--experiment", experiment,
        "--ollama-url", fake.url, "--mlflow-url", server.url,
    )  # fmt: skip
    forked.run(command, env=clean_env(home)).check_returncode()
    fake.stop()
    return Collected(server.url, experiment, server)


@pytest.fixture
def collected(forked: Forked, mlflow_server: MlflowServer, tmp_path: Path, request: pytest.FixtureRequest) -> Collected:
    """An experiment of the test's own."""
    number = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    return collect(forked, mlflow_server, f"tip-bench-judge-{number}", tmp_path)


@pytest.fixture(scope="module")
def shared(forked: Forked, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Collected:
    """One experiment for the tests that must not change anything."""
    return collect(forked, mlflow_server, "tip-bench-judge-shared", tmp_path_factory.mktemp("shared"))


@pytest.fixture
def exported(tipbench: Tipbench, collected: Collected, tmp_path: Path) -> Path:
    return export(tipbench, collected, tmp_path / "judge.json")


def export(tipbench: Tipbench, collected: Collected, path: Path, *more: object) -> Path:
    done = tipbench("judge", "export", "--out", path, *collected.options, *more)
    assert done.returncode == 0, done.stderr
    return path


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def score_all(path: Path, judge: str, rate: Callable[[int, str], int], kind: str = "agent") -> dict[str, Any]:
    """Fill the file as an agent would: only `judge` and `scores`."""
    body = content(path)
    body["judge"] = {"name": judge, "kind": kind}
    for n, item in enumerate(body["items"]):
        item["scores"] = {c: rate(n, c) for c in CRITERIA}
        item["rationale"] = "because"
    path.write_text(json.dumps(body))
    return body


def fingerprint(collected: Collected) -> str:
    """Everything MLflow has, as one hash."""
    folder = collected.server.folder
    digest = hashlib.sha256()
    with sqlite3.connect(folder / "mlflow.db") as connection:
        for line in connection.iterdump():
            digest.update(line.encode())
    for path in sorted((folder / "artifacts").rglob("*")):
        if path.is_file():
            digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


def test_the_exported_file_is_all_a_judge_needs(exported: Path) -> None:
    body = content(exported)
    assert (
        body["schema"] == "tipbench.exchange/1"
        and body["experiment"].startswith("tip-bench-judge-")
        and body["judge"] is None
    )
    assert len(body["items"]) == TIPS + REPEATS
    for item in body["items"]:
        assert set(item) == {"id", "scenario", "tip", "scores", "rationale"}
        assert item["scores"] == dict.fromkeys(CRITERIA) and item["rationale"] is None
        assert item["tip"] and item["scenario"]
    assert [c["id"] for c in body["rubric"]["criteria"]] == list(CRITERIA)
    assert all([a["score"] for a in c["anchors"]] == [1, 2, 3, 4, 5] for c in body["rubric"]["criteria"])
    assert "null" in body["instructions"] and "`judge`" in body["instructions"]


def test_nothing_in_the_file_tells_models_prompts_runs_or_order(exported: Path, collected: Collected) -> None:
    text = exported.read_text()
    lowered = text.lower()
    store = open_store(collected.url)
    cells = store.cells(store.require_experiment(collected.experiment))
    for name in ("small:1b", "qwen", "v1", "v2-mentor", "v3-few-shot", "mentor", "few-shot"):
        assert name not in lowered, name
    for cell in cells:
        assert cell.run.run_id not in text and cell.cell_id not in text
        assert str(cell.run.params["model_digest"]) not in text and str(cell.run.params["prompt_hash"]) not in text
    # The order says nothing: neighbours come from the same cell about as often as in a random order.
    key = store.export_key(store.require_experiment(collected.experiment), content(exported)["export_id"])
    assert key is not None
    runs = [key["items"][item["id"]][0] for item in content(exported)["items"]]
    neighbours = sum(a == b for a, b in itertools.pairwise(runs))
    assert neighbours <= 8
    model_of = {c.run.run_id: c.model for c in cells}
    switches = sum(model_of[a] != model_of[b] for a, b in itertools.pairwise(runs))
    assert 8 <= switches <= 42


def test_the_same_export_again_is_the_same_file(
    tipbench: Tipbench, exported: Path, collected: Collected, tmp_path: Path
) -> None:
    again, other = tmp_path / "again.json", tmp_path / "other.json"
    tipbench("judge", "export", "--out", again, *collected.options)
    tipbench("judge", "export", "--out", other, "--seed", 1, *collected.options)
    assert again.read_bytes() == exported.read_bytes() != other.read_bytes()
    ids = [{i["id"] for i in content(p)["items"]} for p in (again, other)]
    assert ids[0].isdisjoint(ids[1])


def test_from_scores_to_a_leaderboard(tipbench: Tipbench, exported: Path, collected: Collected, tmp_path: Path) -> None:
    store = open_store(collected.url)
    experiment = store.require_experiment(collected.experiment)
    key = store.export_key(experiment, content(exported)["export_id"])
    assert key is not None
    model_of = {c.run.run_id: c.model for c in store.cells(experiment)}
    items = content(exported)["items"]
    rng = random.Random(0)
    # A judge who, without knowing it, likes one model's tips better.
    better = {i["id"]: model_of[key["items"][i["id"]][0]] == "small:1b" for i in items}
    score_all(exported, "claude-code", lambda n, c: (4 if better[items[n]["id"]] else 2) + rng.choice((0, 0, 1)))
    applied = tipbench("judge", "apply", exported, "--mlflow-url", collected.url, "--json")
    assert applied.returncode == 0, applied.stderr
    assert json.loads(applied.stdout) | {"judgment_run_id": None, "rubric_hash": ""} == {
        "experiment": collected.experiment, "judge": "claude-code", "new": TIPS + REPEATS, "changed": 0, "unchanged": 0, "unscored": 0, "cells": CELLS,
        "pending_cells": 0, "judgment_run_id": None, "rubric_file": "", "rubric_hash": "",
    }  # fmt: skip
    assert store.marked_pending(experiment) == set()

    done = tipbench("compare", "--out", tmp_path / "report", *collected.options)
    assert done.returncode == 0, done.stderr
    assert "small:1b" in done.stdout.splitlines()[1]
    board = Leaderboard.model_validate_json((tmp_path / "report" / "leaderboard.json").read_text())
    raw = content(tmp_path / "report" / "leaderboard.json")
    assert raw["schema"] == "tipbench.leaderboard/2" and raw["judges"][0]["name"] == "claude-code"
    assert [c["rank"] for c in raw["cells"]] == [1, 2, 3, 4, 5, 6]
    expected = set(
        "model prompt rank rank_low rank_high composite ci_low ci_high p_best diff_to_best tied_with_best relevance actionability "
        "tone n_scenarios n_candidates n_judged coverage tokens_per_s ttft_s peak_memory_bytes checks".split()
    )
    assert expected <= set(raw["cells"][0])
    assert set(raw["cells"][0]["diff_to_best"]) == {"value", "ci_low", "ci_high", "p_adjusted"}
    by_model = {m: [c for c in board.cells if c.model == m] for m in ("small:1b", "qwen2.5:0.5b")}
    assert {c.rank for c in by_model["small:1b"]} == {1, 2, 3}
    for cell in board.cells:
        assert cell.coverage == 1.0 and cell.n_judged == 8 and 1 <= (cell.composite or 0) <= 5
        assert (cell.ci_low or 9) <= (cell.composite or 0) <= (cell.ci_high or 0)
        assert cell.tied_with_best == (cell.model == "small:1b")
    html = (tmp_path / "report" / "report.html").read_text()
    assert html.startswith("<!doctype html>") and "<svg" in html
    assert not re.search(r"""(?:src|href)=["']https?:|url\(https?:|@import""", html), (
        "the report must not load anything"
    )
    runs = list(store._runs(experiment, "leaderboard"))
    assert len(runs) == 1 and store._backend.get_artifact(runs[0], "leaderboard.json") is not None


def test_applying_twice_changes_nothing_and_a_changed_score_keeps_its_history(
    tipbench: Tipbench, exported: Path, collected: Collected
) -> None:
    body = score_all(exported, "ann", lambda n, c: 3, kind="human")
    tipbench("judge", "apply", exported, "--mlflow-url", collected.url)
    before = fingerprint(collected)
    again = json.loads(tipbench("judge", "apply", exported, "--mlflow-url", collected.url, "--json").stdout)
    assert (again["new"], again["changed"], again["unchanged"]) == (0, 0, TIPS + REPEATS)
    assert fingerprint(collected) == before

    body["items"][0]["scores"]["tone"] = 5
    exported.write_text(json.dumps(body))
    changed = tipbench("judge", "apply", exported, "--reason", "misread it", "--mlflow-url", collected.url, "--json")
    assert json.loads(changed.stdout)["changed"] == 1
    store = open_store(collected.url)
    last = store.judgment_history(store.require_experiment(collected.experiment))[-1]
    assert (last["judge"], last["old"], last["new"], last["reason"]) == ("ann", [3, 3, 3], [3, 3, 5], "misread it")


def test_another_reason_for_the_same_scores_is_kept_and_one_left_out_takes_none_back(
    tipbench: Tipbench, exported: Path, collected: Collected
) -> None:
    body = score_all(exported, "ann", lambda n, c: 3, kind="human")
    tipbench("judge", "apply", exported, "--mlflow-url", collected.url)
    body["items"][0]["rationale"] = "on second thoughts, because of this"
    body["items"][1]["rationale"] = None
    exported.write_text(json.dumps(body))
    for changed in (1, 0):
        said = tipbench("judge", "apply", exported, "--mlflow-url", collected.url, "--json")
        assert json.loads(said.stdout)["changed"] == changed
    store = open_store(collected.url)
    last = store.judgment_history(store.require_experiment(collected.experiment))[-1]
    assert (last["item"], last["rationale"]) == (body["items"][0]["id"], "on second thoughts, because of this")
    assert last["old"] == last["new"] == [3, 3, 3]


def test_a_dry_run_writes_nothing(tipbench: Tipbench, exported: Path, collected: Collected) -> None:
    score_all(exported, "ann", lambda n, c: 3)
    before = fingerprint(collected)
    done = tipbench("judge", "apply", exported, "--dry-run", "--mlflow-url", collected.url)
    assert done.returncode == 0 and f"would write {TIPS + REPEATS} new" in done.stdout
    assert fingerprint(collected) == before


def test_a_part_file_leaves_the_rest_pending(
    tipbench: Tipbench, exported: Path, collected: Collected, tmp_path: Path
) -> None:
    body = score_all(exported, "ann", lambda n, c: 4)
    body["items"] = body["items"][:10]
    body["items"][0]["scores"]["tone"] = None
    exported.write_text(json.dumps(body))
    done = json.loads(tipbench("judge", "apply", exported, "--mlflow-url", collected.url, "--json").stdout)
    assert (done["new"], done["unscored"]) == (9, 1) and done["pending_cells"] >= CELLS - 9
    rest = tmp_path / "rest.json"
    tipbench("judge", "export", "--out", rest, "--repeats", "0", *collected.options)
    assert len(content(rest)["items"]) == TIPS - 9


def test_two_judges_agreement_and_the_baseline_gives_way(
    tipbench: Tipbench, exported: Path, collected: Collected, tmp_path: Path
) -> None:
    url = collected.options
    baseline = tmp_path / "baseline.json"
    tipbench("judge", "export", "--out", baseline, "--judge", "baseline", *url)
    assert tipbench("judge", "score", baseline, "--with", "baseline").returncode == 0
    tipbench("judge", "apply", baseline, "--mlflow-url", collected.url)
    first = json.loads(tipbench("compare", "--json", *url).stdout)
    assert any("baseline" in w for w in first["warnings"]) and [j["kind"] for j in first["judges"]] == ["baseline"]

    rng = random.Random(1)
    truth = [rng.randint(1, 5) for _ in range(200)]
    for judge in ("ann", "bob"):
        path = tmp_path / f"{judge}.json"
        tipbench("judge", "export", "--out", path, "--judge", judge, "--repeats", "0", *url)
        position = {
            i["tip"] + i["scenario"]: n
            for n, i in enumerate(sorted(content(exported)["items"], key=lambda i: i["tip"]))
        }
        order = [position[i["tip"] + i["scenario"]] for i in content(path)["items"]]
        lenient = judge == "bob"
        score_all(path, judge, lambda n, c, order=order, lenient=lenient: min(5, truth[order[n]] + lenient))  # type: ignore[misc]
        assert tipbench("judge", "apply", path, "--mlflow-url", collected.url).returncode == 0
    found = json.loads(tipbench("judge", "agreement", "--json", *url).stdout)
    assert found["judges"] == ["ann", "baseline", "bob"]
    assert {a["criterion"] for a in found["alpha"]} == set(CRITERIA)
    pair = [k for k in found["kappa"] if {k["judge_a"], k["judge_b"]} == {"ann", "bob"}]
    assert len(pair) == 3 and all(0.5 < k["kappa"] < 1 for k in pair)
    gaps = {one["judge"]: one["mean_difference"] for one in found["leniency"]}
    assert gaps["bob"] > gaps["ann"]
    board = json.loads(tipbench("compare", "--json", *url).stdout)
    assert {j["name"] for j in board["judges"]} == {"ann", "bob"} and len(board["agreement"]) == 3
    only = json.loads(tipbench("compare", "--judge", "ann", "--weights", "tone=1", "--json", *url).stdout)
    assert [j["name"] for j in only["judges"]] == ["ann"]
    assert all(c["composite"] == pytest.approx(c["tone"]) for c in only["cells"])


def test_nothing_judged_is_nulls_not_zeros(tipbench: Tipbench, collected: Collected) -> None:
    board = json.loads(tipbench("compare", "--json", *collected.options).stdout)
    assert len(board["cells"]) == 6
    for cell in board["cells"]:
        assert cell["composite"] is None and cell["p_best"] is None and cell["relevance"] is None
        assert cell["coverage"] == 0 and cell["n_candidates"] == 8 and cell["tokens_per_s"] > 0


def test_an_apply_that_was_cut_off_is_completed_by_running_it_again(
    tipbench: Tipbench, exported: Path, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tipbench.errors import UnreachableError
    from tipbench.judging.validate import read_exchange
    from tipbench.stages import apply

    score_all(exported, "ann", lambda n, c: 2)
    store = open_store(collected.url)
    original, calls = store._backend.log_batch, []

    def cut(*args: Any) -> None:
        calls.append(args)
        if len(calls) > 10:
            raise UnreachableError("the cable was pulled")
        original(*args)

    monkeypatch.setattr(store._backend, "log_batch", cut)
    with pytest.raises(UnreachableError):
        apply.run(read_exchange(exported), store, source=str(exported))
    monkeypatch.undo()
    result = apply.run(read_exchange(exported), store, source=str(exported))
    assert result.pending_cells == 0 and result.new + result.unchanged == TIPS + REPEATS and result.unchanged > 0
    experiment = store.require_experiment(collected.experiment)
    assert len(list(store._runs(experiment, "judgment"))) == 1
    assert len(store.judgment_history(experiment)) == TIPS + REPEATS


MUTATIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "/items/3/scores/tone": lambda b: b["items"][3]["scores"].update(tone=6),
    "/items/4/scores/relevance": lambda b: b["items"][4]["scores"].update(relevance=True),
    "/items/5/id": lambda b: b["items"][5].update(id=b["items"][2]["id"]),
    "/items/6/id": lambda b: b["items"][6].update(id="0123456789abcdef"),
    "/items/7/tip": lambda b: b["items"][7].update(tip="A better tip."),
    "/items/8/scenario": lambda b: b["items"][8].update(scenario="Another."),
    "/rubric_hash": lambda b: b.update(rubric_hash="0" * 64),
    "/rubric_hash ": lambda b: b["rubric"]["criteria"][0]["anchors"][0].update(text="Something else."),
    "/export_id": lambda b: b.update(export_id="0" * 16),
    "/experiment": lambda b: b.update(experiment="tip-bench-nope"),
    "/judge": lambda b: b.update(judge=None),
    "/judge/kind": lambda b: b["judge"].update(kind="oracle"),
    "/judge/name": lambda b: b["judge"].update(name="<script>"),
    "/items/9/scores/charm": lambda b: b["items"][9]["scores"].update(charm=3),
    "/items/10/scores/tone": lambda b: b["items"][10]["scores"].pop("tone"),
    "/schema": lambda b: b.update(schema="tipbench.exchange/2"),
    "/extra": lambda b: b.update(extra=1),
}


@pytest.fixture(scope="module")
def shared_file(forked: Forked, shared: Collected, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared experiment's exchange file, still empty."""
    path = tmp_path_factory.mktemp("exchange") / "judge.json"
    command = command_line("judge", "export", "--out", path, *shared.options)
    forked.run(command, env=clean_env(path.parent)).check_returncode()
    return path


@pytest.mark.parametrize("pointer", MUTATIONS)
def test_a_faulty_file_is_exit_2_names_the_place_and_writes_nothing(
    tipbench: Tipbench, shared_file: Path, shared: Collected, tmp_path: Path, pointer: str
) -> None:
    body = copy.deepcopy(score_all(exported := Path(shutil.copy(shared_file, tmp_path)), "ann", lambda n, c: 3))
    MUTATIONS[pointer](body)
    exported.write_text(json.dumps(body))
    before = fingerprint(shared)
    done = tipbench("judge", "apply", exported, "--mlflow-url", shared.url)
    assert done.returncode == 2, done.stdout
    assert f"{pointer.strip()}: " in done.stderr, done.stderr
    assert fingerprint(shared) == before


def test_an_export_does_not_overwrite_scores(tipbench: Tipbench, exported: Path, collected: Collected) -> None:
    score_all(exported, "ann", lambda n, c: 3)
    command = ("judge", "export", "--out", exported, *collected.options)
    refused = tipbench(*command)
    assert refused.returncode == 2 and "already holds scores" in refused.stderr
    assert tipbench(*command, "--force").returncode == 0


@pytest.mark.parametrize("weights", ["tone=nan", "tone=inf", "tone=-1", "tone=0", "charm=1"])
def test_weights_that_cannot_be_are_refused(tipbench: Tipbench, shared: Collected, weights: str) -> None:
    done = tipbench("compare", *shared.options, "--weights", weights)
    assert done.returncode == 2 and "--weights" in done.stderr


def test_an_unknown_experiment_is_named_with_those_there_are(tipbench: Tipbench, shared: Collected) -> None:
    done = tipbench("compare", "--experiment", "tip-bench-nope", "--mlflow-url", shared.url)
    assert done.returncode == 2 and "tip-bench-judge-shared" in done.stderr


def test_a_pods_export_puts_another_exports_scores_aside_and_keeps_its_own(
    tipbench: Tipbench, exported: Path, collected: Collected
) -> None:
    """What a stage in a cluster does, where nobody can be asked."""
    command = ("judge", "export", "--out", exported, "--aside", *collected.options)
    scored = score_all(exported, "ann", lambda n, c: 3)
    assert tipbench(*command).returncode == 0
    assert json.loads(exported.read_text()) == scored  # the same export: a retry keeps what was scored
    assert tipbench(*command, "--seed", 7).returncode == 0
    aside = exported.with_name(f"{exported.stem}-{scored['export_id']}.json")
    assert json.loads(aside.read_text()) == scored
    fresh = json.loads(exported.read_text())
    assert fresh["export_id"] != scored["export_id"]
    assert all(score is None for item in fresh["items"] for score in item["scores"].values())


def test_an_export_that_finds_nothing_of_what_it_expects_says_so_of_each_model(
    tipbench: Tipbench, collected: Collected, tmp_path: Path
) -> None:
    command = ("judge", "export", "--out", tmp_path / "x.json", *collected.options)
    assert tipbench(*command, "--expect", "absent:1b,small:1b").returncode == 0
    refused = tipbench(*command, "--expect", "absent:1b, other:2b")
    assert refused.returncode == 2
    assert "absent:1b: no cell was collected" in refused.stderr and "other:2b: no cell" in refused.stderr


def test_the_exchange_file_is_an_artifact_too(exported: Path, collected: Collected) -> None:
    store = open_store(collected.url)
    experiment = store.require_experiment(collected.experiment)
    export_id = json.loads(exported.read_text())["export_id"]
    run = next(r for r in store._runs(experiment, "export") if r.tags["tipbench.export_id"] == export_id)
    assert store._backend.get_artifact(run, "exchange.json") == exported.read_bytes()
    store.close()


def test_scoring_and_applying_in_one_go_leaves_its_outcome(
    tipbench: Tipbench, exported: Path, collected: Collected, tmp_path: Path
) -> None:
    outcome = tmp_path / "outcome.json"
    done = tipbench(
        "judge", "score", exported, "--with", "baseline", "--apply", "--mlflow-url", collected.url,
        env={"TIPBENCH_RESULT_FILE": str(outcome)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = json.loads(outcome.read_text())
    assert left["stage"] == "judge" and left["exit_code"] == 0 and left["left"] == 0 and left["pending_cells"] == 0
