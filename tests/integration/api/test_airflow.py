"""The client against a real Airflow 3: token, trigger, unpause, states, reasons, cancel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import IN_CI, free_port
from tests.integration.api.conftest import Serve, problem
from tipbench.api.backends import PipelineRun
from tipbench.api.backends.airflow import AirflowBackend

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(600)]
PASSWORD = "a-password-for-tests"


class Airflow:
    """`airflow standalone` in a folder of its own."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "airflow.log"
        passwords = folder / "passwords.json"
        passwords.write_text(json.dumps({"admin": PASSWORD}))
        settings = {
            "CORE__LOAD_EXAMPLES": "false",
            "CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "true",
            "CORE__PARALLELISM": "4",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "API__PORT": str(self.port),
            "API__WORKERS": "1",
            "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "LOGGING__LOGGING_LEVEL": "WARNING",
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "TIPBENCH_", "MLFLOW_"))}
        env = kept | {f"AIRFLOW__{name}": value for name, value in settings.items()}
        env |= {"AIRFLOW_HOME": str(folder), "PATH": f"{program.parent}:{env['PATH']}", "PYTHONPATH": ""}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(program), "standalone"], env=env, stdout=log, stderr=log, start_new_session=True, cwd=folder
            )

    def wait(self) -> None:
        """Until it knows the DAG."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-4000:]
            try:
                backend = AirflowBackend(self.url, "admin", PASSWORD, timeout_s=60)
                if backend.defaults():
                    return
            except Exception:
                time.sleep(2)
        raise AssertionError("Airflow did not get ready:\n" + self.log.read_text(errors="replace")[-4000:])

    def stop(self) -> None:
        """Stop all of it."""
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A real Airflow: the one beside this Python, else the one on PATH."""
    beside = Path(sys.executable).with_name("airflow")
    program = beside if beside.exists() else shutil.which("airflow")
    if program is None:
        message = "Airflow is not installed beside this Python, nor on PATH; make install puts it there"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    server = Airflow(Path(program), tmp_path_factory.mktemp("airflow"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture
def backend(airflow: Airflow) -> Iterator[AirflowBackend]:
    """The client under test."""
    client = AirflowBackend(airflow.url, "admin", PASSWORD, public_url="http://airflow.example", timeout_s=60)
    yield client
    client.close()


def _until(backend: AirflowBackend, run_id: str, done: Callable[[PipelineRun], bool]) -> PipelineRun:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        run = backend.run(run_id)
        if done(run):
            return run
        time.sleep(1)
    raise AssertionError(f"still {run.state}: {[(t.label, t.raw_state) for t in run.tasks]}")


def _id() -> str:
    return f"api-{uuid.uuid4().hex}"


def test_a_run_of_a_paused_dag_runs_waits_for_a_judge_and_is_cancelled(backend: AirflowBackend) -> None:
    run_id = _id()
    config = {"experiment": "tip-bench-a", "models": "a:1b,bad:2b"}
    started, created = backend.start(run_id, config, "ada")
    assert created and started.state in ("queued", "running")
    run = _until(backend, run_id, lambda run: run.state == "waiting")
    assert run.started_by == "ada" and run.config["n_tips"] == 5 and run.config["models"] == "a:1b,bad:2b"
    assert run.url == f"http://airflow.example/dags/bench_collect/runs/{run_id}"
    tasks = {(t.task, t.map_index): t for t in run.tasks}
    assert [t.task for t in run.tasks][:3] == ["plan", "collect", "collect"]
    assert tasks["collect", 0].label == "a:1b" and tasks["collect", 0].state == "success"
    bad = tasks["collect", 1]
    assert bad.state == "failed" and bad.label == "bad:2b" and bad.reason == "bad:2b: the pod was ended with OOMKilled"
    assert tasks["await_scores", None].state == "waiting" and tasks["judge", None].state == "skipped"
    # The sensor looks every few seconds, and for that moment the run is "running".
    deadline = time.monotonic() + 60
    while {r.id: r.state for r in backend.runs("", 10, 0)[0]}[run_id] != "waiting":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    cancelled = backend.cancel(run_id, "bob")
    assert (cancelled.state, cancelled.started_by, cancelled.reason) == ("cancelled", "ada", "cancelled by bob")


def test_a_run_that_is_cancelled_while_it_collects_is_stopped(backend: AirflowBackend) -> None:
    run_id = _id()
    backend.start(run_id, {"experiment": "tip-bench-slow", "models": "slow:1b"}, "ada")
    _until(backend, run_id, lambda run: any(t.task == "collect" and t.state == "running" for t in run.tasks))
    assert backend.cancel(run_id, "ada").state == "cancelled"
    _until(backend, run_id, lambda run: all(t.state != "running" for t in run.tasks))


def test_a_run_that_ends_well(backend: AirflowBackend) -> None:
    run_id = _id()
    backend.start(run_id, {"experiment": "tip-bench-b", "models": "a:1b", "judge": "skip"}, "ada")
    run = _until(backend, run_id, lambda run: run.over)
    assert run.state == "success" and run.reason is None and run.ended_at is not None
    found, total = backend.runs("tip-bench-b", 10, 0)
    assert total == 1 and found[0].id == run_id


def test_the_same_key_from_many_sides_at_once_makes_one_dag_run(
    airflow: Airflow, serve: Serve, mlflow_url: str
) -> None:
    server = serve(
        mlflow_url, airflow_url=airflow.url, airflow_username="admin", airflow_password=PASSWORD, airflow_s=60.0
    )
    body = {"experiment": "tip-bench-twice", "models": "a:1b", "judge": "skip"}
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.client.post("/api/bench/run", json=body, headers=headers), range(6)))
    assert {a.status_code for a in answers} == {202}, [a.text for a in answers]
    assert len({a.json()["id"] for a in answers}) == 1 and sum(a.json()["created"] for a in answers) == 1
    other = server.client.post("/api/bench/run", json=body | {"models": "b:1b"}, headers=headers)
    assert problem(other, 422)["errors"][0]["pointer"] == "Idempotency-Key"
    runs = server.client.get("/api/bench/dag-runs", params={"experiment": "tip-bench-twice"}).json()
    assert runs["total"] == 1
    detail = server.client.get(f"/api/bench/dag-runs/{answers[0].json()['id']}").json()
    assert detail["progress"]["planned"] == 8 and detail["degraded"] is None
    unknown = problem(server.client.post("/api/bench/run", json={"memory_limit": "2Gi"}), 422)
    assert "whole installation" in unknown["errors"][0]["detail"]
    dag_says = server.client.post("/api/bench/run", json=body | {"judge_timeout_hours": 501})
    assert "Airflow refuses" in problem(dag_says, 422)["detail"]
    problem(server.client.get("/api/bench/dag-runs/api-none"), 404)
    schema = server.client.get("/api/bench/config/schema").json()
    assert schema["back_end"] == "airflow" and set(schema["defaults"]) == set(schema["schema"]["properties"])
    assert "memory_limit" not in schema["schema"]["properties"] and schema["defaults"]["models"] == "a:1b,b:1b"


def test_a_token_that_airflow_no_longer_takes_is_renewed(backend: AirflowBackend) -> None:
    assert backend.defaults()
    backend._token = backend._token[:-4] + "AAAA"
    backend._params = (-1e9, {})
    assert backend.defaults()


def test_a_wrong_password_is_said_to_be_one(airflow: Airflow) -> None:
    backend = AirflowBackend(airflow.url, "admin", "wrong", timeout_s=60)
    with pytest.raises(Exception, match="TIPBENCH_AIRFLOW_PASSWORD"):
        backend.check()


def test_readiness_tells_of_airflow(airflow: Airflow, serve: Serve, mlflow_url: str) -> None:
    server = serve(
        mlflow_url, airflow_url=airflow.url, airflow_username="admin", airflow_password=PASSWORD, airflow_s=60.0
    )
    assert httpx.get(server.url + "/readyz", timeout=60).json() == {
        "ready": True,
        "dependencies": [{"name": "mlflow", "ok": True, "detail": ""}, {"name": "airflow", "ok": True, "detail": ""}],
    }
