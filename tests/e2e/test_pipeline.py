"""The DAG on a real cluster with real Ollama: from the command line of Airflow to the leaderboard in MLflow, and stage by stage without Airflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import (
    CONTEXT,
    MLFLOW,
    NAMESPACE,
    SMALL,
    Airflow,
    Mlflow,
    assert_complete,
    by_hand,
    helm,
    kubectl,
    objects,
    until,
    watching,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
TWO = "smollm2:135m,smollm2:135m-brief"


def tipbench(*words: str) -> str:
    """The command line on this machine, against the cluster's MLflow."""
    command = [sys.executable, "-m", "tipbench", *words, "--mlflow-url", MLFLOW]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_everything_is_ready_and_labelled() -> None:
    pods = [p for p in objects("pods", "!tipbench.dev/stage") if p["status"]["phase"] not in ("Succeeded", "Failed")]
    names = {p["metadata"]["labels"]["app.kubernetes.io/name"] for p in pods}
    assert names >= {"ollama", "mlflow", "airflow", "tipbench"}
    for pod in pods:
        assert all(c["ready"] for c in pod["status"]["containerStatuses"]), pod["metadata"]["name"]
    assert {p["metadata"]["labels"]["app.kubernetes.io/part-of"] for p in pods} == {"tipbench"}


def test_nothing_runs_as_root_or_writes_to_its_image() -> None:
    for pod in objects("pods"):
        name, shared = pod["metadata"]["name"], pod["spec"].get("securityContext", {})
        for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
            own = container["securityContext"]
            assert own.get("runAsNonRoot", shared.get("runAsNonRoot")), (name, container["name"])
            assert own["readOnlyRootFilesystem"] and own["capabilities"] == {"drop": ["ALL"]}, (name, container["name"])
            assert container["resources"]["limits"]["memory"], (name, container["name"])
    for target in (
        "deploy/airflow-scheduler",
        "deploy/mlflow",
        "deploy/tipbench-api",
        "sts/ollama",
        "sts/mlflow-postgresql",
    ):
        assert kubectl("exec", target, "--", "id", "-u").strip() not in ("", "0"), target
        assert "Read-only file system" in kubectl("exec", target, "--", "touch", "/x", check=False), target


@pytest.mark.parametrize("release", ["ollama", "mlflow", "airflow", "tipbench"])
def test_helm_test_goes_through_the_service(release: str) -> None:
    done = helm("test", release, "--timeout", "3m")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.concurrent
def test_the_whole_road_with_a_manual_judge(airflow: Airflow, mlflow: Mlflow, experiment: str, tmp_path: Path) -> None:
    conf = {**SMALL, "models": TWO, "experiment": experiment}
    said = kubectl("exec", "deploy/airflow-scheduler", "-c", "scheduler", "--",
                   "airflow", "dags", "trigger", "bench_collect", "--conf", json.dumps(conf), "-o", "json")  # fmt: skip
    run = json.loads(said.splitlines()[-1])[0]["dag_run_id"]

    with watching("ollama-0") as residents:
        pod = until(
            "a collect pod", lambda: objects("pods", f"tipbench.dev/stage=collect,tipbench.dev/experiment={experiment}")
        )[0]
        labels = pod["metadata"]["labels"]
        # A colon is no part of a label: what was replaced is told apart by a hash.
        assert labels["tipbench.dev/model"].startswith("smollm2-135m-") and labels["tipbench.dev/run"]
        airflow.until_task(run, "await_scores", {"up_for_reschedule"}, timeout=480)
    assert residents.most == {"ollama-0": 1}
    assert residents.names == set(TWO.split(","))

    cells = mlflow.cells(experiment)
    assert_complete(cells, models=2)
    assert {c["tags"]["judge_pending"] for c in cells} == {"true"}

    # The file: its path from XCom, by kubectl cp; and the same as an artifact in MLflow.
    path = airflow.xcom(run, "export_for_judge")
    api = next(p["metadata"]["name"] for p in objects("pods", "app.kubernetes.io/component=api"))
    judged = tmp_path / "judge.json"
    subprocess.run(
        ["kubectl", "--context", CONTEXT, "cp", f"{NAMESPACE}/{api}:{path}", str(judged)],
        check=True, capture_output=True, cwd="/",
    )  # fmt: skip
    export = mlflow.runs(experiment, "tags.`tipbench.kind` = 'export'")[0]
    exchange = json.loads(judged.read_text())
    assert json.loads(mlflow.artifact(export, "exchange.json")) == exchange
    assert "smollm2" not in judged.read_text()

    for number, item in enumerate(exchange["items"]):
        item["scores"] = {"relevance": 1 + number % 5, "actionability": 3, "tone": 4}
    exchange["judge"] = {"name": "ann", "kind": "human"}
    judged.write_text(json.dumps(exchange))
    assert airflow.state(run) == "running"
    tipbench("judge", "apply", str(judged))

    assert airflow.end(run) == "success"
    states = airflow.tasks(run)
    assert states["compare"] == "success" and states["judge"] == "skipped" and states["await_scores"] == "success"
    board = mlflow.runs(experiment, "tags.`tipbench.kind` = 'leaderboard'")[0]
    leaderboard = json.loads(mlflow.artifact(board, "leaderboard.json"))
    assert [c["rank"] for c in leaderboard["cells"]] == [1, 2, 3, 4]
    assert leaderboard["judges"][0]["name"] == "ann"
    assert all(c["coverage"] == 1 and c["peak_memory_bytes"] for c in leaderboard["cells"])
    assert objects("pods", f"tipbench.dev/experiment={experiment}") == []


@pytest.mark.concurrent
def test_with_no_word_of_models_it_collects_what_this_cluster_has(airflow: Airflow, mlflow: Mlflow) -> None:
    """What people type first succeeds; the two models write different tips."""
    experiment = "tip-bench-e2e-defaults"
    run = airflow.trigger(
        judge="baseline", experiment=experiment, n_scenarios=1, prompts="v1", n_tips=2, num_predict=48
    )
    assert airflow.end(run) == "success"
    cells = mlflow.cells(experiment)
    assert_complete(cells, models=2, scenarios=1, prompts=1)
    texts = {
        cell["params"]["model"]: [c["text"] for c in json.loads(mlflow.artifact(cell, "candidates.json"))["candidates"]]
        for cell in cells
    }
    assert texts["smollm2:135m"] != texts["smollm2:135m-brief"]


@pytest.mark.concurrent
def test_models_that_are_not_there_are_named_and_asked_for_once(airflow: Airflow, experiment: str) -> None:
    contract = ["qwen2.5:0.5b", "qwen2.5:1.5b", "gemma3:1b", "llama3.2:3b"]
    run = airflow.trigger(
        judge="baseline", experiment=experiment, n_scenarios=1, prompts="v1", models=",".join(contract)
    )
    assert airflow.end(run) == "failed"
    for index, model in enumerate(contract):
        assert f"ollama pull {model}" in airflow.log(run, "collect", index), model
        assert airflow.attempts(run, "collect", index) == 1  # another try would not mend it
    log = airflow.log(run, "export_for_judge")
    assert "nothing to judge" in log and "llama3.2:3b" in log


@pytest.mark.concurrent
def test_a_key_of_the_conf_that_is_none_is_refused_at_once(airflow: Airflow) -> None:
    run = airflow.trigger(model="smollm2:135m")
    assert airflow.end(run, timeout=120) == "failed"
    assert "did you mean 'models'?" in airflow.log(run, "plan")
    assert airflow.tasks(run)["compare"] in ("upstream_failed", "skipped")


@pytest.mark.concurrent
def test_a_rubric_of_ones_own_is_waited_for_after_everything_was_judged_by_another(
    airflow: Airflow, mlflow: Mlflow, experiment: str, tmp_path: Path
) -> None:
    """Pending is under the rubric of the export and for who was asked: a baseline's scores satisfy no person's run."""
    conf = {**SMALL, "models": "smollm2:135m", "prompts": "v1", "experiment": experiment}
    assert airflow.end(airflow.trigger(**conf, judge="baseline")) == "success"
    run = airflow.trigger(**conf, judge="manual")
    airflow.until_task(run, "await_scores", {"up_for_reschedule"}, timeout=300)
    judged = tmp_path / "judge.json"
    tipbench("judge", "export", "--experiment", experiment, "--for", "manual", "--out", str(judged))
    exchange = json.loads(judged.read_text())
    for item in exchange["items"]:
        item["scores"] = {"relevance": 4, "actionability": 3, "tone": 5}
    exchange["judge"] = {"name": "ann", "kind": "human"}
    judged.write_text(json.dumps(exchange))
    tipbench("judge", "apply", str(judged))
    assert airflow.end(run) == "success"


def test_a_lease_that_was_lost_ends_the_collection_before_its_next_request(
    airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    """Somebody took the replica over, as after a partition: the pod stops by itself, and its next try completes the run."""
    conf = {"models": "smollm2:135m", "prompts": "v1,v2-mentor", "n_scenarios": 4, "n_tips": 4, "num_predict": 64}
    run = airflow.trigger(**conf, experiment=experiment, judge="baseline")
    lease = "lease/tipbench-ollama-0.ollama-headless-11434"
    until("it collects", lambda: len(mlflow.cells(experiment)) > 0, timeout=300, every=1)
    kubectl("patch", lease, "--type=merge", "-p", json.dumps({"spec": {"holderIdentity": "another_1"}}))
    try:
        airflow.until_task(run, "collect[0]", {"up_for_retry", "failed"}, timeout=120)
        finished = len(mlflow.cells(experiment))
        assert "went to another_1" in airflow.log(run, "collect", 0)
        assert finished < 8, "it stopped in the middle"
    finally:
        kubectl("patch", lease, "--type=merge", "-p", json.dumps({"spec": {"holderIdentity": ""}}))
    assert airflow.end(run) == "success"
    assert_complete(mlflow.cells(experiment), models=1, scenarios=4, tips=4)


@pytest.mark.concurrent
def test_a_missing_model_does_not_keep_the_other_from_being_compared(
    airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    conf = {**SMALL, "models": "missing:1b,smollm2:135m", "experiment": experiment, "judge": "baseline"}
    run = airflow.trigger(**conf)
    assert airflow.end(run) == "success"
    states = airflow.tasks(run)
    assert states["collect[0]"] == "failed" and states["collect[1]"] == "success"
    board = mlflow.runs(experiment, "tags.`tipbench.kind` = 'leaderboard'")[0]
    cells = json.loads(mlflow.artifact(board, "leaderboard.json"))["cells"]
    assert {c["model"]: c["coverage"] for c in cells} == {"smollm2:135m": 1.0, "missing:1b": 0.0}
    assert cells[-1]["failures"] == {"ModelMissing": 2} and cells[-1]["composite"] is None


@pytest.mark.concurrent
def test_stage_by_stage_without_airflow(mlflow: Mlflow, experiment: str) -> None:
    for stage in ("collect", "export", "judge", "compare"):
        name = f"e2e-{stage}-{experiment[-5:]}"
        by_hand(stage, name, experiment=experiment, models="smollm2:135m", **SMALL)
        kubectl("wait", "--for=condition=complete", f"job/{name}", "--timeout=180s")
        kubectl("delete", "job", name)
    assert_complete(mlflow.cells(experiment), models=1)
    assert mlflow.runs(experiment, "tags.`tipbench.kind` = 'leaderboard'")
