"""Collecting through every kind of trouble: real processes, a real MLflow server, failures from the fake Ollama."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MlflowServer, Tipbench, clean_env, command_line
from tests.fakes.ollama_server import FakeOllama, Fault
from tipbench.memory.meter import Source
from tipbench.store import Store, open_store
from tipbench.store.records import SLOTS, CellResult

pytestmark = pytest.mark.integration


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    server = FakeOllama()
    server.add("other:2b", 2_000_000_000)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(mlflow_url: str) -> Iterator[Store]:
    opened = open_store(mlflow_url)
    yield opened
    opened.close()


def arguments(fake: FakeOllama, url: object, experiment: str, *more: object) -> list[object]:
    # Models add up: those that a test names stand alone.
    models: list[object] = [] if "--models" in more else ["--models", "small:1b"]
    base: list[object] = ["collect", *models, "--experiment", experiment, "--ollama-url", fake.url]
    return [*base, "--mlflow-url", url, *more]


def cells(store: Store, experiment: str) -> list[Any]:
    return store.cells(store.require_experiment(experiment))


def test_every_cell_is_filled_and_tagged(tipbench: Tipbench, fake: FakeOllama, store: Store, mlflow_url: str) -> None:
    done = tipbench(*arguments(fake, mlflow_url, "tip-bench-fill", "--models", "small:1b,other:2b", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["collected"] == 2 * 3 * 8
    found = cells(store, "tip-bench-fill")
    assert {(c.model, c.prompt) for c in found} == {
        (m, p) for m in ("small:1b", "other:2b") for p in ("v1", "v2-mentor", "v3-few-shot")
    }
    for cell in found:
        assert cell.run.status == "FINISHED" and cell.run.tags["judge_pending"] == "true" and cell.n_candidates == 5
        assert {"model", "prompt", "scenario"} <= set(cell.run.params)
    (result,) = store.results([found[0].run])
    assert len({c.text for c in result.candidates}) == 5
    # One load a model, never two at once, nothing left behind.
    assert dict(fake.loads) == {"small:1b": 1, "other:2b": 1}
    assert fake.most_resident == 1 and fake.resident == {}
    (collection,) = store.collections(store.require_experiment("tip-bench-fill"))
    assert len(collection.plan) == 48 and collection.receipt["models"]["small:1b"]["digest"]


def test_the_same_command_again_does_nothing(tipbench: Tipbench, fake: FakeOllama, mlflow_url: str) -> None:
    command = arguments(fake, mlflow_url, "tip-bench-same-again", "--n-scenarios", 1, "--json")
    first, second = json.loads(tipbench(*command).stdout), json.loads(tipbench(*command).stdout)
    assert (first["collected"], first["skipped"]) == (3, 0)
    assert (second["collected"], second["skipped"], second["generations"]) == (0, 3, 0)
    assert fake.generations.total() == 15


def test_more_tips_extend_a_cell_and_keep_those_it_has(
    tipbench: Tipbench, fake: FakeOllama, store: Store, mlflow_url: str
) -> None:
    texts = []
    for n_tips in (2, 3, 2):
        tipbench(
            *arguments(fake, mlflow_url, "tip-bench-more", "--n-scenarios", 1, "--prompts", "v1", "--n-tips", n_tips)
        )
        (cell,) = cells(store, "tip-bench-more")
        (result,) = store.results([cell.run])
        texts.append([c.text for c in result.candidates])
        assert cell.run.params["n_tips"] == "2" and cell.n_candidates == len(texts[-1]) and cell.finished
    assert [len(found) for found in texts] == [2, 3, 3] and texts[1][:2] == texts[0] and texts[2] == texts[1]


def test_killed_again_and_again_it_loses_nothing_and_repeats_no_cell(
    fake: FakeOllama, store: Store, mlflow_url: str, tmp_path: Path
) -> None:
    fake.delay = 0.02
    command = command_line(*arguments(fake, mlflow_url, "tip-bench-kill", "--models", "small:1b,other:2b"))
    rng, kills = random.Random(7), 0
    for _ in range(12):
        process = subprocess.Popen(command, env=clean_env(tmp_path), stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        process.stderr.readline()  # it has begun
        try:
            process.wait(rng.uniform(0.05, 0.7))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.stderr.close()
        process.wait()
    final = subprocess.run(command, env=clean_env(tmp_path), capture_output=True, text=True, check=False)
    assert final.returncode == 0, final.stderr
    assert kills >= 5

    experiment = store.require_experiment("tip-bench-kill")
    runs = list(store._runs(experiment, "cell"))
    assert len(runs) == 48 and {r.status for r in runs} == {"FINISHED"}
    assert len({r.tags["tipbench.cell_id"] for r in runs}) == 48
    assert all(len(r.candidates) == 5 for r in store.results(runs))
    assert len(store.collections(experiment)) == 1
    # A kill costs at most the answer in hand.
    assert 240 <= fake.generations.total() <= 240 + kills
    assert fake.resident == {}


def test_ctrl_c_leaves_a_state_that_resumes(fake: FakeOllama, store: Store, mlflow_url: str, tmp_path: Path) -> None:
    fake.delay = 0.05
    command = command_line(*arguments(fake, mlflow_url, "tip-bench-ctrl-c"))
    process = subprocess.Popen(command, env=clean_env(tmp_path), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for _ in range(4):
        process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=30)
    assert process.returncode == 130 and "resumes" in words
    assert "Traceback" not in words
    assert fake.resident == {}
    saved = len(cells(store, "tip-bench-ctrl-c"))
    assert 1 <= saved < 24
    done = subprocess.run([*command, "--json"], env=clean_env(tmp_path), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["skipped"] >= saved
    assert len(cells(store, "tip-bench-ctrl-c")) == 24


def test_mlflow_away_for_a_while_costs_no_generation(
    tipbench: Tipbench, fake: FakeOllama, own_mlflow: MlflowServer
) -> None:
    fake.delay = 0.03

    def trouble() -> None:
        while fake.generations.total() < 20:
            time.sleep(0.01)
        own_mlflow.stop()
        time.sleep(3)
        own_mlflow.start()

    thread = threading.Thread(target=trouble)
    thread.start()
    done = tipbench(*arguments(fake, own_mlflow.url, "tip-bench-mlflow", "--json"))
    thread.join()
    assert done.returncode == 0, done.stderr
    store = open_store(own_mlflow.url)
    assert len(cells(store, "tip-bench-mlflow")) == 24
    assert fake.generations.total() == 120


def test_mlflow_that_stays_away_ends_with_5_and_the_next_run_saves_the_rest(
    tipbench: Tipbench, fake: FakeOllama, own_mlflow: MlflowServer, tmp_path: Path
) -> None:
    fake.delay = 0.02
    command = arguments(fake, own_mlflow.url, "tip-bench-away", "--spool", tmp_path / "spool")

    def trouble() -> None:
        while fake.generations.total() < 20:
            time.sleep(0.01)
        own_mlflow.stop()

    thread = threading.Thread(target=trouble)
    thread.start()
    done = tipbench(*command, env={"TIPBENCH_MLFLOW_RETRY_S": "1"})
    thread.join()
    assert done.returncode == 5, done.stderr
    assert "cannot be reached" in done.stderr and str(tmp_path / "spool") in done.stderr
    own_mlflow.start()
    again = tipbench(*command, "--json")
    assert again.returncode == 0, again.stderr
    assert len(cells(open_store(own_mlflow.url), "tip-bench-away")) == 24
    # What waited in the spool was saved, not generated again; the cell in hand may have been.
    assert fake.generations.total() <= 125


def test_ollama_that_goes_down_ends_with_5_and_keeps_what_there_is(
    tipbench: Tipbench, fake: FakeOllama, store: Store, mlflow_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake.delay = 0.02

    def trouble() -> None:
        while fake.generations.total() < 33:
            time.sleep(0.005)
        fake.stop()

    from tipbench.config import build
    from tipbench.engines.ollama import Limits, OllamaEngine
    from tipbench.errors import UnreachableError
    from tipbench.stages import collect

    config = build({"models": "small:1b", "experiment": "tip-bench-down", "spool": str(tmp_path / "spool")})
    thread = threading.Thread(target=trouble)
    thread.start()
    with pytest.raises(UnreachableError, match="the same command resumes") as caught:
        collect.run(config, OllamaEngine(fake.url, limits=Limits(unreachable=1)), store)
    thread.join()
    assert caught.value.exit_code == 5
    found = cells(store, "tip-bench-down")
    finished = [c for c in found if c.finished]
    (failed,) = [c for c in found if not c.finished]
    assert len(finished) >= 6 and failed.failure.reason == "EngineUnreachable"
    before = fake.generations.total()
    fake.start()
    result = collect.run(config, OllamaEngine(fake.url), store)
    assert result.failed == {} and len(cells(store, "tip-bench-down")) == 24
    # The candidates that the failed cell did get were kept.
    assert fake.generations.total() == 120 and before >= 33


@pytest.mark.parametrize(
    ("fault", "reason", "tried"),
    [
        (Fault("empty"), "EmptyAnswer", 3),
        (Fault("error_midstream"), "BrokenAnswer", 3),
        (Fault("http", 500, "llama runner process has terminated: signal: killed"), "OOMKilled", 2),
    ],
    ids=["empty", "error", "oom"],
)
def test_cells_that_fail_are_data_and_the_other_model_goes_on(
    tipbench: Tipbench, fake: FakeOllama, store: Store, mlflow_url: str, fault: Fault, reason: str, tried: int
) -> None:
    experiment = f"tip-bench-fail-{reason.lower()}"
    fake.add("bad:1b", 1_000_000_000)
    original = fake.text

    def text(model: str, question: str, seed: int) -> str:
        fake.always = None
        return original(model, question, seed)

    fake.text = text  # type: ignore[method-assign]
    # Every answer of the first model fails; its last request clears the fault for the second.
    fake.always = fault
    command = arguments(fake, mlflow_url, experiment, "--models", "bad:1b", "--n-scenarios", 2, "--n-tips", 1)
    if fault.kind in ("empty", "error_midstream"):
        fake.text = original  # type: ignore[method-assign]
    done = tipbench(*command, "--memory-limit", "2Gi")
    assert done.returncode == 4, done.stderr
    assert f"bad:1b: 6 cells failed, {reason}" in done.stdout
    failed = cells(store, experiment)
    assert len(failed) == 6 and {c.failure.reason for c in failed} == {reason}
    assert {c.run.tags["judge_pending"] for c in failed} == {"false"}
    assert sum("not tried" in c.failure.message for c in failed) == 6 - tried
    if reason == "OOMKilled":
        assert "Memory limit: 2.0 GiB" in failed[0].failure.message and "estimated need" in failed[0].failure.message
    fake.always = None
    again = tipbench(*command, "--memory-limit", "2Gi")
    assert again.returncode == 0, again.stderr
    assert all(c.finished for c in cells(store, experiment))


def test_a_missing_model_fails_its_cells_and_the_other_goes_on(
    tipbench: Tipbench, fake: FakeOllama, store: Store, mlflow_url: str
) -> None:
    done = tipbench(
        *arguments(fake, mlflow_url, "tip-bench-missing", "--models", "gone:1b,small:1b", "--n-scenarios", 1)
    )
    assert done.returncode == 4
    assert "ollama pull gone:1b" in done.stderr
    found = cells(store, "tip-bench-missing")
    assert {c.model for c in found if c.finished} == {"small:1b"}
    assert {c.failure.reason for c in found if not c.finished} == {"ModelMissing"}


def test_a_model_over_the_limit_is_refused_by_its_real_count_and_the_others_run(
    tipbench: Tipbench, fake: FakeOllama, store: Store, mlflow_url: str
) -> None:
    fake.add("gemma3:4b", 4_299_915_632)
    done = tipbench(
        *arguments(fake, mlflow_url, "tip-bench-policy", "--models", "gemma3:4b,small:1b", "--n-scenarios", 1)
    )
    assert done.returncode == 0, done.stderr
    assert "gemma3:4b has 4.30 billion parameters (4,299,915,632), over the limit of 4 billion" in done.stderr
    assert {c.model for c in cells(store, "tip-bench-policy")} == {"small:1b"}
    assert not [r for r in fake.requests if r["model"] == "gemma3:4b"]


def test_all_models_refused_is_exit_3_and_the_refusal_is_kept(
    tipbench: Tipbench, fake: FakeOllama, store: Store, mlflow_url: str
) -> None:
    done = tipbench(*arguments(fake, mlflow_url, "tip-bench-none", "--max-model-b", "0.5"))
    assert done.returncode == 3 and "1.00 billion" in done.stderr and "0.5 billion" in done.stderr
    kept = store.collections(store.require_experiment("tip-bench-none"))
    assert len(kept) == 1 and "0.5 billion" in kept[0].refused["small:1b"] and kept[0].plan == ()


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    tipbench: Tipbench, fake: FakeOllama, mlflow_url: str
) -> None:
    done = tipbench(*arguments(fake, mlflow_url, "tip-bench-memory", "--memory-limit", "400Mi"))
    assert done.returncode == 3
    assert "needs about" in done.stderr and "400 MiB" in done.stderr
    assert fake.requests == []


@pytest.mark.parametrize(
    ("source", "size", "num_ctx", "code", "said"),
    [
        # The estimate is over the limit; what was measured fits.
        ("processes", 300, 2048, 0, ""),
        ("sidecar", 700, 2048, 3, "small:1b took 700 MiB in an earlier run (measured: sidecar)"),
        # Too little, or of other options: the estimate decides.
        ("reported", 300, 2048, 3, "needs about"),
        ("processes", 300, 4096, 3, "needs about"),
    ],
)
def test_what_an_earlier_run_took_decides_about_the_memory_limit_in_every_experiment(
    tipbench: Tipbench, fake: FakeOllama, store: Store, mlflow_url: str, source: Source, size: int, num_ctx: int,
    code: int, said: str,
) -> None:  # fmt: skip
    name = f"{source}-{size}-{num_ctx}"
    fake.models["small:1b"]["digest"] = hashlib.sha256(name.encode()).hexdigest()
    params = {
        "model_digest": fake.models["small:1b"]["digest"],
        "num_ctx": str(num_ctx),
        "engine": "ollama",
    }
    earlier = CellResult(
        cell_id=name, collection_id="c", model="small:1b", prompt="v1", scenario="s", situation="", n_tips=0,
        params=params, tags={SLOTS: "1"}, candidates=(), flags={}, resident_bytes=size * 1024**2, memory_source=source,
        failure=None, started_ms=1, ended_ms=2,
    )  # fmt: skip
    store.save_cell(store.ensure_experiment("tip-bench-measured-before"), "", earlier, None)
    few = ("--memory-limit", "400Mi", "--prompts", "v1", "--n-scenarios", 1, "--n-tips", 1)
    done = tipbench(*arguments(fake, mlflow_url, f"tip-bench-limit-{name}", *few))
    assert done.returncode == code, done.stderr
    assert said in done.stderr and bool(fake.requests) == (code == 0)


def test_two_collectors_on_one_spool_do_not_save_twice(fake: FakeOllama, mlflow_url: str, tmp_path: Path) -> None:
    fake.delay = 2.0  # the first one is at work until the second one has ended
    command = command_line(*arguments(fake, mlflow_url, "tip-bench-two", "--n-scenarios", 2))
    first = subprocess.Popen(command, env=clean_env(tmp_path), stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    first.stderr.readline()
    second = subprocess.run(command, env=clean_env(tmp_path), capture_output=True, text=True, check=False)
    fake.delay = 0.0
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert second.returncode == 5 and "another tipbench collect" in second.stderr


def test_parallel_requests_fill_the_same_cells(
    tipbench: Tipbench, fake: FakeOllama, store: Store, mlflow_url: str
) -> None:
    done = tipbench(*arguments(fake, mlflow_url, "tip-bench-parallel", "--parallel", 8, "--json"))
    assert done.returncode == 0, done.stderr
    assert len(cells(store, "tip-bench-parallel")) == 24
    assert fake.generations.total() == 120 and max(fake.generations.values()) == 1
