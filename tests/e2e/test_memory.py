"""The RAM policy on a real cluster: refusals, a kill for memory, pods without a limit, and one model in a replica's memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tipbench
from tests.e2e.conftest import (
    CONTEXT,
    NAMESPACE,
    SMALL,
    Airflow,
    Mlflow,
    assert_complete,
    helm,
    kubectl,
    objects,
    ollama_port,
    until,
    watching,
)
from tests.integration.conftest import smollm2
from tests.integration.test_ollama_real import with_more_parameters
from tests.models.shapes import SHAPES
from tests.models.writing import write
from tipbench.engines.gguf import read_header
from tipbench.memory.need import Setting, estimate, shape_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def provide(name: str, gguf: Path) -> None:
    """Make Ollama have a model from a GGUF file."""
    inside = ("exec", "-i", "ollama-0", "--", "sh", "-c")
    with gguf.open("rb") as file:
        command = ["kubectl", "--context", CONTEXT, "-n", NAMESPACE, *inside, "cat > /tmp/model.gguf"]
        subprocess.run(command, stdin=file, check=True, timeout=300)
    kubectl(
        *inside,
        f"echo FROM /tmp/model.gguf > /tmp/Modelfile && ollama create {name} -f /tmp/Modelfile && rm /tmp/model.gguf",
    )


@contextlib.contextmanager
def ollama_with(*values: str) -> Iterator[None]:
    """The ollama release with other values, for a while."""
    upgrade = ("upgrade", "ollama", "charts/ollama", "-f", "charts/ollama/values-kind.yaml")
    wait = ("--wait", "--wait-for-jobs", "--timeout", "5m")
    try:
        done = helm(*upgrade, *(word for value in values for word in ("--set", value)), *wait)
        assert done.returncode == 0, done.stdout + done.stderr
        yield
    finally:
        done = helm(*upgrade, *wait)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_model_over_the_limit_is_refused_by_its_real_count(
    airflow: Airflow, mlflow: Mlflow, experiment: str, tmp_path: Path
) -> None:
    big = tmp_path / "big.gguf"
    with_more_parameters(smollm2(), big, 10, 486_548_480)
    provide("heavy:tiny", big)
    conf = {**SMALL, "models": "heavy:tiny,smollm2:135m", "experiment": experiment, "judge": "baseline"}
    run = airflow.trigger(**conf)
    assert airflow.end(run) == "success"
    states = airflow.tasks(run)
    assert states["collect[0]"] == "skipped" and states["collect[1]"] == "success"
    log = airflow.log(run, "collect", 0)
    assert "5.00 billion parameters" in log and "limit of 4 billion" in log
    board = mlflow.runs(experiment, "tags.`tipbench.kind` = 'leaderboard'")[0]
    leaderboard = json.loads(mlflow.artifact(board, "leaderboard.json"))
    assert [r["model"] for r in leaderboard["refused"]] == ["heavy:tiny"]
    assert {c["memory_source"] for c in leaderboard["cells"]} == {"sidecar"}
    assert_complete(mlflow.cells(experiment), models=1)


def test_a_model_that_does_not_fit_ends_in_a_kill_that_is_told_with_numbers(
    airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    """The tipbench release still promises 1Gi, so the estimate lets it through."""
    with ollama_with("memory=200Mi"):
        run = airflow.trigger(**SMALL, models="smollm2:135m", experiment=experiment, judge="baseline")
        airflow.until_task(run, "collect[0]", {"failed"}, timeout=400)
        log = airflow.log(run, "collect", 0)
        assert "OOMKilled" in log and "200 MiB" in log and "estimated need of smollm2:135m" in log
        assert "largest that was measured" in log
        cells = mlflow.cells(experiment)
        assert {c["tags"]["tipbench.failure"] for c in cells} == {"OOMKilled"} and len(cells) == 4
        assert "200 MiB" in cells[0]["tags"]["tipbench.failure_message"]
    assert airflow.end(run) == "failed"
    # With the memory it needs, a retry completes it.
    airflow.clear_failed(run)
    until("the run goes on", lambda: airflow.state(run) in ("running", "queued", "success"))
    assert airflow.end(run) == "success"
    assert_complete(mlflow.cells(experiment), models=1)


@pytest.mark.parametrize("name", ["qwen3:0.6b", "gemma3:1b"])
def test_a_model_runs_five_percent_over_its_estimate_and_not_ten_percent_under_it(
    name: str, tipbench: Tipbench, tmp_path: Path
) -> None:
    """Under it the model is refused; where nobody states the limit it is killed, or crawls as its program's pages come and go."""
    file, model = tmp_path / "model.gguf", f"noise-{name}"
    write(SHAPES[name], name, file)
    header = read_header(file)
    shape = shape_of(header.metadata, header.tensors)
    assert shape is not None
    needed = estimate(shape, Setting(2048)).total / 1024**2
    under, over = f"{needed * 0.9:.0f}Mi", f"{needed * 1.05:.0f}Mi"
    command = ("collect", "--models", model, "--prompts", "v1", "--n-scenarios", 1, "--n-tips", 1, "--num-predict", 8)
    command += ("--num-thread", 1, "--mlflow-url", tmp_path / "store")
    provide(model, file)
    try:
        with ollama_with(f"memory={under}"), ollama_port() as url:
            refused = tipbench(*command, "--ollama-url", url, "--memory-limit", under)
            assert refused.returncode == 3 and "over the memory limit" in refused.stderr
        with ollama_with(f"memory={over}"), ollama_port() as url:
            done = tipbench(*command, "--ollama-url", url, "--memory-limit", over)
            assert done.returncode == 0, done.stderr
    finally:
        kubectl("exec", "ollama-0", "--", "ollama", "rm", model)


def test_a_collect_pod_that_is_killed_for_memory_says_so_in_the_log_and_in_mlflow(
    airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    run = airflow.trigger(
        **{**SMALL, "models": "smollm2:135m", "experiment": experiment, "judge": "baseline", "collect_memory": "40Mi"}
    )
    airflow.until_task(run, "collect[0]", {"up_for_retry", "failed"}, timeout=300)
    log = airflow.log(run, "collect", 0)
    assert "OOMKilled" in log and "40Mi" in log
    killed = mlflow.runs(experiment, "tags.`tipbench.kind` = 'collection'")
    assert {r["tags"]["tipbench.failure"] for r in killed} == {"OOMKilled"}
    assert "40Mi" in killed[0]["tags"]["tipbench.failure_message"] and killed[0]["status"] == "KILLED"
    airflow.cancel(run)
    until("nothing is left of it", lambda: not objects("pods", f"tipbench.dev/experiment={experiment}"))


@pytest.mark.parametrize(
    ("resources", "words"),
    [({}, "memory limit"), ({"limits": {"memory": "64Gi"}, "requests": {"memory": "16Mi"}}, "")],
)
def test_a_pod_without_a_limit_or_over_the_policy_is_turned_away_by_name(resources: dict[str, Any], words: str) -> None:
    container = {
        "name": "greedy",
        "image": "busybox:1.36",
        "command": ["true"],
        "resources": resources,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "no-limits"},
        "spec": {
            "containers": [container],
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        },
    }
    said = kubectl("apply", "-f", "-", stdin=json.dumps(pod), check=False)
    assert "denied" in said and "no-limits" in said and "greedy" in said and words in said
    assert "no-limits" not in kubectl("get", "pods", "-o", "name")


def test_two_replicas_hold_two_models_one_each(airflow: Airflow, mlflow: Mlflow, experiment: str) -> None:
    scheduler = ("exec", "deploy/airflow-scheduler", "-c", "scheduler", "--", "airflow")
    urls = "http://ollama-0.ollama-headless:11434,http://ollama-1.ollama-headless:11434"
    with ollama_with("replicas=2"):
        kubectl(*scheduler, "pools", "set", "ollama", "2", "two replicas", "--include-deferred")
        try:
            with watching("ollama-0", "ollama-1") as residents:
                run = airflow.trigger(
                    models="smollm2:135m,smollm2:135m-brief", experiment=experiment, judge="baseline", ollama_url=urls,
                    n_scenarios=4, n_tips=3, num_predict=64, prompts="v1,v2-mentor",
                )  # fmt: skip
                assert airflow.end(run) == "success"
        finally:
            kubectl(*scheduler, "pools", "set", "ollama", "1", "one replica", "--include-deferred")
    assert residents.most == {"ollama-0": 1, "ollama-1": 1}
    assert residents.together == 2
    assert_complete(mlflow.cells(experiment), models=2, scenarios=4, tips=3)
