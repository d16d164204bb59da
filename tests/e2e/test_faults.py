"""Faults while a run is under way: the run ends well, or with the true reason and a retry completes it; no cell lost or repeated."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.conftest import (
    SMALL,
    Airflow,
    Mlflow,
    assert_complete,
    collecting,
    helm,
    kubectl,
    objects,
    secret,
    until,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
LONGER = {
    **SMALL,
    "n_scenarios": 4,
    "n_tips": 3,
    "prompts": "v1,v2-mentor",
    "models": "smollm2:135m",
    "judge": "baseline",
}
"""24 tips in 8 cells: long enough for something to happen in the middle."""
CELLS = 8


def delete_pod(selector: str) -> Callable[[], None]:
    def strike() -> None:
        kubectl("delete", "pod", "-l", selector, "--wait=false")

    return strike


def kill_collect() -> None:
    """As hard as it goes: no signal, no grace."""
    kubectl("delete", "pod", "-l", "tipbench.dev/stage=collect", "--grace-period=0", "--force")


def restart_kubelet() -> None:
    subprocess.run(
        ["docker", "exec", "tipbench-control-plane", "systemctl", "restart", "kubelet"], check=True, timeout=120
    )


OLLAMA = delete_pod("app.kubernetes.io/name=ollama,app.kubernetes.io/component=server")
MLFLOW = delete_pod("app.kubernetes.io/name=mlflow,app.kubernetes.io/component=server")
SCHEDULER = delete_pod("app.kubernetes.io/component=scheduler")
TRIGGERER = delete_pod("app.kubernetes.io/component=triggerer")
AIRFLOW_API = delete_pod("app.kubernetes.io/component=api-server")


@pytest.mark.parametrize(
    "strikes",
    [
        pytest.param((kill_collect, OLLAMA), id="collect-pod-then-ollama"),
        pytest.param((MLFLOW, SCHEDULER), id="mlflow-then-scheduler"),
        pytest.param((TRIGGERER, AIRFLOW_API), id="triggerer-then-airflow-api"),
        pytest.param((restart_kubelet,), id="kubelet"),
    ],
)
def test_a_run_survives(
    strikes: tuple[Callable[[], None], ...], airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    """Two faults in one run, some cells apart."""
    run = airflow.trigger(**LONGER, experiment=experiment)
    for number, strike in enumerate(strikes):
        until("some cells are there", lambda n=number: finished(mlflow, experiment) > n, timeout=400, every=0.5)
        struck = finished(mlflow, experiment)
        strike()
    assert struck < CELLS, "it was over before the last fault"
    # The API server may be what is away.
    if airflow.end(run, timeout=900) == "failed":
        airflow.clear_failed(run)
        assert airflow.end(run, timeout=900) == "success"
    assert_complete(mlflow.cells(experiment), models=1, scenarios=4, tips=3)
    assert objects("pods", f"tipbench.dev/experiment={experiment}") == []


def finished(mlflow: Mlflow, experiment: str) -> int:
    """Cells that are complete."""
    return sum(cell["status"] == "FINISHED" for cell in mlflow.cells(experiment))


def signal_pod(job: str, signal: str) -> None:
    """Send a signal to the process of a job's pod, from the node: a container's first process cannot be stopped from within."""
    (pod,) = objects("pods", f"batch.kubernetes.io/job-name={job}")
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    command = ["docker", "exec", "tipbench-control-plane", "ctr", "-n", "k8s.io", "tasks", "kill", "--signal", signal]
    subprocess.run([*command, container], check=True, timeout=60)


def test_a_pod_that_was_paused_stops_where_another_took_its_replica(mlflow: Mlflow, experiment: str) -> None:
    """As when a node hangs: the lease runs out meanwhile, another pod works, and the first one begins no request when it is back."""
    first, second = f"paused-{experiment[-5:]}", f"other-{experiment[-5:]}"
    other = f"{experiment}-other"
    collecting(first, experiment, n_scenarios=4, n_tips=4)
    until("it collects", lambda: finished(mlflow, experiment) > 1, timeout=200, every=0.5)
    signal_pod(first, "SIGSTOP")
    stood = finished(mlflow, experiment)
    try:
        collecting(second, other)
        until("the other has the replica", lambda: finished(mlflow, other) > 0, timeout=240, every=1)
        assert finished(mlflow, experiment) == stood < CELLS
    finally:
        signal_pod(first, "SIGCONT")
    failed = ("get", "job", first, "-o", "jsonpath={.status.failed}")
    until("it ends", lambda: kubectl(*failed) == "1", timeout=120)
    log = kubectl("logs", f"job/{first}")
    assert "went to other-" in log or "may be another's by now" in log, log
    # What was under way may have been finished; nothing was begun.
    assert finished(mlflow, experiment) <= stood + 1
    kubectl("wait", "--for=condition=complete", f"job/{second}", "--timeout=300s")
    assert_complete(mlflow.cells(other), models=1)
    collecting(f"{first}-again", experiment, n_scenarios=4, n_tips=4, spool=f"/exchange/spool/{first}")
    kubectl("wait", "--for=condition=complete", f"job/{first}-again", "--timeout=300s")
    assert_complete(mlflow.cells(experiment), models=1, scenarios=4, tips=4)
    kubectl("delete", "job", first, second, f"{first}-again")


def test_an_upgrade_and_a_rollback_keep_secrets_tokens_and_data(airflow: Airflow, mlflow: Mlflow) -> None:
    names = {"airflow-admin": "password", "tipbench-admin": "token", "mlflow-postgresql": "password"}
    before = {name: secret(name, key) for name, key in names.items()}
    airflow.log_in()
    experiments = len(mlflow.runs("tip-bench-e2e-defaults"))
    values = "charts/tipbench/values-kind.yaml"
    assert (
        helm("upgrade", "tipbench", "charts/tipbench", "-f", values, "--set", "config.n_tips=7", "--wait").returncode
        == 0
    )
    assert "7" in kubectl("get", "configmap", "tipbench-config", "-o", "jsonpath={.data.TIPBENCH_N_TIPS}")
    for release in ("mlflow", "airflow"):
        done = helm(
            "upgrade",
            release,
            f"charts/{release}",
            "-f",
            f"charts/{release}/values-kind.yaml",
            "--wait",
            "--timeout",
            "5m",
        )
        assert done.returncode == 0, done.stderr
    assert helm("rollback", "tipbench", "--wait").returncode == 0
    assert kubectl("get", "configmap", "tipbench-config", "-o", "jsonpath={.data.TIPBENCH_N_TIPS}") != "7"
    # Uninstalling keeps what holds results, and the next installation finds it.
    claims = {c["metadata"]["uid"] for c in objects("pvc")}
    assert helm("uninstall", "tipbench", "--wait").returncode == 0
    assert {c["metadata"]["uid"] for c in objects("pvc")} == claims
    done = helm("install", "tipbench", "charts/tipbench", "-f", values, "--wait", "--timeout", "5m")
    assert done.returncode == 0, done.stderr
    assert {c["metadata"]["uid"] for c in objects("pvc")} == claims
    assert {name: secret(name, key) for name, key in names.items()} == before
    assert len(mlflow.runs("tip-bench-e2e-defaults")) == experiments
    assert airflow.token_still_valid()
