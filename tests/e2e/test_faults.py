"""Faults while a run is under way: the run ends well, or with the true reason and a retry completes it; no cell lost or repeated."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.conftest import SMALL, Airflow, Mlflow, assert_complete, helm, kubectl, objects, secret, until

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
