"""The DAG, loaded by a real Airflow."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DAGS = Path(__file__).parents[2] / "dags"
CLUSTER = {
    "TIPBENCH_IMAGE_REPOSITORY": "registry.example/tipbench",
    "TIPBENCH_IMAGE_TAG": "9.9.9",
    "TIPBENCH_OLLAMA_URL": "http://ollama-0.ollama-headless:11434,http://ollama-1.ollama-headless:11434",
    "TIPBENCH_MLFLOW_URL": "http://mlflow:5000/mlflow",
    "TIPBENCH_MLFLOW_SECRET": "mlflow-auth",
}


@pytest.fixture(scope="session")
def dagbag(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What Airflow makes of the folder `dags`, in the environment that the chart gives."""
    home = tmp_path_factory.mktemp("airflow")
    airflow = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TIPBENCH_MODELS", raising=False)
        for name, value in (airflow | CLUSTER).items():
            patch.setenv(name, value)
        from airflow.dag_processing.dagbag import DagBag

        return DagBag(dag_folder=str(DAGS))


@pytest.fixture(scope="session")
def dag(dagbag: Any) -> Any:
    """The DAG bench_collect."""
    assert dagbag.import_errors == {}
    return dagbag.dags["bench_collect"]


@pytest.fixture(scope="session")
def module(dag: Any) -> ModuleType:
    """The module that Airflow loaded the DAG from."""
    import sys

    return sys.modules[type(dag.get_task("compare")).__module__]
