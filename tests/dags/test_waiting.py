"""The DAG's own questions to MLflow: what is waited for, what no waiting mends, and as whom it asks."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import free_port
from tipbench.pipeline import WAITS, Step, arguments, steps

pytestmark = pytest.mark.dags
RUBRIC = "0123456789abcdef" * 4
TAG = "tipbench.pending.0123456789ab.manual"


class Server:
    """An MLflow that answers as a test says: `answer` is a status and a body (an object becomes JSON)."""

    def __init__(self) -> None:
        self.answer: tuple[int, Any] = (200, {})
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(dict(self.headers))
                status, body = outer.answer
                content = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/mlflow"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def pending(self, candidates: int, **other: Any) -> None:
        """There is the experiment, and so many candidates are pending."""
        tags = [{"key": TAG, "value": json.dumps({"cells": 2, "candidates": candidates})}]
        self.answer = (200, {"experiment": {"experiment_id": "7", "tags": tags, **other}})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("USERNAME", "PASSWORD", "TOKEN", "SERVER_CERT_PATH", "INSECURE_TLS"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    server = Server()
    yield server
    server.close()


def poke(dag: Any, url: str, rubric: str | None = RUBRIC, *, task: str = "await_scores", reference: str = "") -> bool:
    """One look of the sensor."""

    def pull(task_ids: str, key: str = "return_value") -> Any:
        return {"return_value": "/exchange/judge.json", "rubric": rubric}[key]

    context = {
        "params": {"mlflow_url": url, "experiment": "tip-bench-x", "reference": reference},
        "ti": SimpleNamespace(xcom_pull=pull),
    }
    return dag.get_task(task).poke(context)  # type: ignore[no-any-return]


def test_it_waits_until_nothing_is_pending_under_the_rubric_of_the_export(dag: Any, server: Server) -> None:
    server.pending(3)
    assert poke(dag, server.url) is False
    server.pending(0)
    assert poke(dag, server.url) is True


def test_the_sample_is_waited_for_until_every_reference_has_scored_it(dag: Any, server: Server) -> None:
    def look(by: dict[str, int], tips: int = 12, reference: str = "ann, bob") -> bool:
        said = {"rubric": RUBRIC, "scenarios": 6, "tips": tips, "by": by}
        tags = [{"key": "tipbench.pending_sample.0123456789ab.manual", "value": json.dumps(said)}]
        server.answer = (200, {"experiment": {"experiment_id": "7", "tags": tags}})
        return poke(dag, server.url, task="await_sample", reference=reference)

    assert not look({})  # nobody has begun
    assert not look({"ann": 0})
    assert not look({"ann": 0, "bob": 1, "carol": 0})
    assert look({"ann": 0, "bob": 0, "robot": 4})
    assert look({"bob": 0}, reference="bob")
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="export_sample"):
        look({}, tips=0)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_an_outage_is_waited_for(dag: Any, server: Server, status: int) -> None:
    server.answer = (status, "<html>later</html>")
    assert poke(dag, server.url) is False


def test_a_server_that_is_away_is_waited_for(dag: Any) -> None:
    assert poke(dag, f"http://127.0.0.1:{free_port()}/mlflow") is False


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, "You are not authenticated"), "MLFLOW_TRACKING_TOKEN"),
        ((403, {"error_code": "PERMISSION_DENIED", "message": "Permission denied"}), "403: Permission denied"),
        ((403, "Invalid Host header - possible DNS rebinding attack detected"), "allowedHosts"),
        ((404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No Experiment"}), "tip-bench-x is gone"),
        ((400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "bad name"}), "bad name"),
        ((405, ""), "405"),
        ((501, {}), None),
        ((200, "<html>Sign in</html>"), "not as MLflow does"),
        ((200, {"experiment": {"experiment_id": "7", "tags": []}}), "does not say what is pending"),
        ((200, {"experiment": {"experiment_id": "7", "tags": [{"key": TAG, "value": "{"}]}}), "clear export_for_judge"),
    ],
)
def test_what_no_waiting_mends_fails_at_once_with_a_sentence(
    dag: Any, server: Server, answer: tuple[int, Any], words: str | None
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    server.answer = answer
    if words is None:
        assert poke(dag, server.url) is False
        return
    with pytest.raises(AirflowFailException, match=words):
        poke(dag, server.url)


@pytest.mark.parametrize("said", ["", "<html>no such page</html>", "default backend - 404", {"detail": "Not Found"}])
def test_a_404_that_is_not_mlflows_ends_a_try_and_says_what_may_be_wrong(dag: Any, server: Server, said: Any) -> None:
    """A gateway gives it while MLflow is away, too: the task is tried again, as often as its retries say."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    server.answer = (404, said)
    with pytest.raises(AirflowException, match="path of mlflow_url") as failure:
        poke(dag, server.url)
    assert not isinstance(failure.value, AirflowFailException)
    for task in ("await_scores", "await_sample", "another_round"):
        assert dag.get_task(task).retries > 0


def test_a_redirect_names_the_address_to_use(dag: Any, server: Server) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    server.answer = (308, "")
    server.headers = {"Location": "https://mlflow.example.com/mlflow/api/2.0/mlflow/experiments/get-by-name"}
    with pytest.raises(AirflowFailException, match=r"make that the mlflow_url") as failure:
        poke(dag, server.url)
    assert "https://mlflow.example.com/mlflow:" in str(failure.value)


def test_a_deleted_experiment_is_gone(dag: Any, server: Server) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    server.pending(0, lifecycle_stage="deleted")
    with pytest.raises(AirflowFailException, match="is gone"):
        poke(dag, server.url)


def test_an_export_that_names_no_rubric_is_of_an_older_image(dag: Any, server: Server) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="older than this DAG"):
        poke(dag, server.url, rubric=None)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"TOKEN": "t0ken\n"}, "Bearer t0ken"),
        ({"USERNAME": "ann", "PASSWORD": "s3cret"}, "Basic " + base64.b64encode(b"ann:s3cret").decode()),
        ({"USERNAME": "ann", "PASSWORD": "s3cret", "TOKEN": "t"}, "Basic " + base64.b64encode(b"ann:s3cret").decode()),
        ({}, None),
    ],
)
def test_it_asks_as_mlflows_own_variables_say(
    dag: Any, server: Server, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], sent: str | None
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    server.pending(0)
    assert poke(dag, server.url)
    assert server.asked[-1].get("Authorization") == sent


def test_no_password_of_the_address_reaches_a_message(dag: Any, server: Server) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    server.answer = (401, "no")
    with pytest.raises(AirflowFailException) as failure:
        poke(dag, server.url.replace("//", "//ann:s3cret@"))
    assert "s3cret" not in str(failure.value)


# -- a judge that could not score everything ------------------------------------------------------


def ended(code: int, **outcome: Any) -> Any:
    """A judge's pod that ended with this exit code."""
    from kubernetes.client import models as k8s

    message = json.dumps({"stage": "judge", "exit_code": code, "error": "", **outcome})
    state = k8s.V1ContainerState(
        terminated=k8s.V1ContainerStateTerminated(exit_code=code, reason="Error", message=message)
    )
    status = k8s.V1ContainerStatus(name="judge", state=state, image="i", image_id="i", ready=False, restart_count=0)
    return k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="tipbench-judge-abc", namespace="tipbench", labels={}),
        spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="judge")]),
        status=k8s.V1PodStatus(phase="Failed", container_statuses=[status]),
    )


def finish(dag: Any, monkeypatch: pytest.MonkeyPatch, pod: Any) -> Any:
    """What the operator makes of the trigger's word that the pod failed."""
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    task = (
        dag.get_task("judge").prepare_for_execution()
        if hasattr(dag.get_task("judge"), "prepare_for_execution")
        else dag.get_task("judge")
    )
    task.partly = False
    for name in (
        "patch_already_checked",
        "process_pod_deletion",
        "_read_pod_events",
        "_read_pod_container_states",
        "_write_logs",
    ):
        monkeypatch.setattr(KubernetesPodOperator, name, lambda *a, **k: None)
    monkeypatch.setattr(KubernetesPodOperator, "is_istio_enabled", lambda *a: False)
    task.__dict__["hook"] = SimpleNamespace(get_pod=lambda *a: pod)
    task.__dict__["pod_manager"] = SimpleNamespace(await_pod_completion=lambda *a: pod)
    event = {"status": "failed", "name": "tipbench-judge-abc", "namespace": "tipbench", "message": "exit code"}
    return task.trigger_reentry({"ti": None}, event)


def test_a_judge_that_scored_a_part_lets_the_run_go_on(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finish(dag, monkeypatch, ended(4, failed={"BrokenAnswer": 1})) is None


@pytest.mark.parametrize(("code", "final"), [(2, True), (5, False), (1, False)])
def test_a_judge_that_failed_otherwise_fails_the_task(
    dag: Any, monkeypatch: pytest.MonkeyPatch, code: int, final: bool
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with pytest.raises(AirflowException) as failure:
        finish(dag, monkeypatch, ended(code))
    assert isinstance(failure.value, AirflowFailException) is final


@pytest.mark.parametrize(
    ("judge", "model", "sample"),
    [("manual", "", 0), ("skip", "", 0), ("baseline", "", 0), ("llm", "ollama:m:1b", 0), ("llm", "ollama:m:1b", 8)],
)
def test_every_stage_is_called_as_the_pipeline_of_the_package_calls_it(
    dag: Any, judge: str, model: str, sample: int
) -> None:
    import jinja2

    params = {**dag.params.dump(), "judge": judge, "judge_model": model, "models": "a:1b,b:2b"}
    params |= {"sample": sample, "sample_tips": 2, "reference": "ann,bob"} if sample else {}
    folder = "/exchange/tip-bench-auto/a-run"
    environment = jinja2.Environment()
    environment.filters["label"] = lambda text: text
    ti = SimpleNamespace(xcom_pull=lambda _: f"{folder}/judge.json")

    def rendered(step: Step) -> list[str]:
        task = dag.get_task(step)
        arguments = task.partial_kwargs["arguments"] if step == Step.COLLECT else task.arguments
        return [environment.from_string(text).render(params=params, ti=ti, run_id="a-run") for text in arguments]

    for step in steps(judge, sample):
        if step in WAITS:
            assert dag.get_task(step).mode == "reschedule"
        else:
            assert rendered(step) == arguments(step, params, folder), step
