"""MLflow and Airflow down, slow, refusing or talking nonsense: the API stays up, says so, and recovers by itself."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import MlflowServer, free_port
from tests.integration.api.conftest import Serve, Server, fill, judge_all, problem, scores_for
from tests.integration.api.fake_airflow import FakeAirflow

pytestmark = pytest.mark.integration


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    fake = FakeAirflow()
    yield fake
    fake.stop()


def _server(serve: Serve, mlflow_url: str, airflow: FakeAirflow) -> Server:
    return serve(
        mlflow_url, airflow_url=airflow.url, airflow_username="a", airflow_password="a-secret-word", airflow_s=1.0
    )


@pytest.mark.parametrize(
    ("fails", "status", "words"),
    [
        ("hang", 503, "in time"),
        ("reset", 503, "cannot be reached"),
        ("503", 503, "not ready"),
        ("500", 502, "failed (500)"),
        ("401", 502, "TIPBENCH_AIRFLOW_PASSWORD"),
        ("403", 502, "TIPBENCH_AIRFLOW_PASSWORD"),
        ("nonsense", 502, "TIPBENCH_AIRFLOW"),
    ],
)
def test_a_failing_airflow_is_named_and_the_api_recovers(
    serve: Serve, mlflow_url: str, airflow: FakeAirflow, fails: str, status: int, words: str
) -> None:
    server = _server(serve, mlflow_url, airflow)
    airflow.fails = fails
    for answer in (
        server.client.post("/api/bench/run", json={"experiment": "tip-bench-a"}),
        server.client.get("/api/bench/dag-runs"),
        server.client.get("/api/bench/dag-runs/api-1"),
    ):
        body = problem(answer, status)
        assert words in body["detail"] and "a-secret-word" not in answer.text
        assert status != 503 or answer.headers["retry-after"]
    ready = server.client.get("/readyz")
    assert ready.status_code == 503
    assert {d["name"]: d["ok"] for d in ready.json()["dependencies"]} == {"mlflow": True, "airflow": False}
    assert server.client.get("/healthz").status_code == 200
    found = server.client.get("/api/bench/experiments")
    assert found.status_code == 200, found.text
    airflow.fails = ""
    assert server.client.post("/api/bench/run", json={"experiment": "tip-bench-a"}).status_code == 202
    assert server.client.get("/readyz").status_code == 200


def test_an_airflow_that_is_not_there_at_all(serve: Serve, mlflow_url: str) -> None:
    server = serve(mlflow_url, airflow_url=f"http://127.0.0.1:{free_port()}", airflow_s=1.0)
    assert "cannot be reached" in problem(server.client.get("/api/bench/dag-runs"), 503)["detail"]


def test_a_token_is_kept_until_airflow_refuses_it(serve: Serve, mlflow_url: str, airflow: FakeAirflow) -> None:
    server = _server(serve, mlflow_url, airflow)
    for n in range(5):
        assert server.client.post("/api/bench/run", json={"experiment": f"tip-bench-{n}"}).status_code == 202
    assert airflow.calls["POST /auth/token"] == 1
    airflow.good_tokens = {"token-2", "token-3"}
    assert server.client.post("/api/bench/run", json={"experiment": "tip-bench-x"}).status_code == 202
    assert airflow.calls["POST /auth/token"] == 2


def test_a_retry_after_a_lost_answer_starts_nothing_new(serve: Serve, mlflow_url: str, airflow: FakeAirflow) -> None:
    server = _server(serve, mlflow_url, airflow)
    ask = {"json": {"experiment": "tip-bench-a"}, "headers": {"Idempotency-Key": "k"}}
    assert server.client.post("/api/bench/run", **ask).json()["created"] is True
    assert server.client.post("/api/bench/run", **ask).json()["created"] is False
    another_replica = _server(serve, mlflow_url, airflow)
    assert another_replica.client.post("/api/bench/run", **ask).json()["created"] is False
    assert len(airflow.runs) == 1


def test_mlflow_going_and_coming_back(serve: Serve, own_mlflow: MlflowServer, airflow: FakeAirflow) -> None:
    fill(own_mlflow.url, "tip-bench-a", models=("small:1b",))
    server = _server(serve, own_mlflow.url, airflow)
    base = "/api/bench/judging/tip-bench-a"
    [item] = server.client.get(base + "/next", params={"judge": "ada"}).json()["items"]
    score = {"export_id": item["export_id"], "judge": {"name": "ada", "kind": "human"}, "scores": scores_for(item)}
    assert server.client.get("/api/bench/leaderboard/tip-bench-a").status_code == 200
    own_mlflow.stop()
    for path in ("experiments", "leaderboard/tip-bench-a", "runs/tip-bench-a", "judging/tip-bench-a/next?judge=ada"):
        time.sleep(0.3)
        answer = server.client.get(f"/api/bench/{path}")
        if answer.status_code != 200:  # what was just looked at may be believed for a second
            assert "MLflow" in problem(answer, 503)["detail"] and answer.headers["retry-after"]
    problem(server.client.get("/api/bench/experiments"), 503)
    problem(server.client.put(f"{base}/items/{item['id']}", json=score), 503)
    ready = server.client.get("/readyz")
    assert ready.status_code == 503 and ready.json()["dependencies"][0] == {
        "name": "mlflow",
        "ok": False,
        "detail": "cannot be reached",
    }
    started = server.client.post("/api/bench/run", json={"experiment": "tip-bench-a"}).json()
    detail = server.client.get(f"/api/bench/dag-runs/{started['id']}").json()
    assert detail["state"] == "queued" and detail["progress"] is None and "MLflow" in detail["degraded"]
    own_mlflow.start()
    assert server.client.put(f"{base}/items/{item['id']}", json=score).json()["outcome"] == "new"
    assert judge_all(server.client, "tip-bench-a", "ada") >= 5
    assert server.client.get("/readyz").status_code == 200


def test_a_slow_mlflow_costs_its_own_requests_their_time_and_nothing_else(serve: Serve) -> None:
    """A socket that takes connections and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        server = serve(f"http://127.0.0.1:{silent.getsockname()[1]}", read_s=1.0)
        answers: list[int] = []

        def ask() -> None:
            with server.session(bearer="a-token-for-tests") as client:
                answers.append(client.get("/api/bench/experiments").status_code)

        threads = [threading.Thread(target=ask) for _ in range(30)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        assert server.client.get("/healthz").status_code == 200
        assert server.client.get("/api/bench/me").status_code == 200
        assert time.monotonic() - began < 2
        for thread in threads:
            thread.join(60)
        assert answers == [503] * 30
        assert time.monotonic() - began < 15, "each of them waited its own time, one after the other"
