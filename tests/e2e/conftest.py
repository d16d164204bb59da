"""The kind cluster that `make kind-up` made, and what a test asks of it. Logs, events and descriptions are kept on a failure."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.browsing import DESKTOP, SCREENSHOTS, chromium
from tests.conftest import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CONTEXT = "kind-tipbench"
NAMESPACE = "tipbench"
AIRFLOW = "http://127.0.0.1:8080"
MLFLOW = "http://127.0.0.1:5000/mlflow"
API = "http://127.0.0.1:8000"
ARTIFACTS = Path("build/e2e")
NO_REUSE = httpx.Limits(max_keepalive_connections=0)
"""A connection through a NodePort stays tied to its pod, also when that pod is gone."""
SMALL = {"n_scenarios": 2, "n_tips": 2, "num_predict": 48, "prompts": "v1,v2-mentor"}
"""A collection of 8 tips a model: seconds on one CPU."""


def kubectl(*words: str, check: bool = True, stdin: str | None = None) -> str:
    """kubectl's output; raises AssertionError with its words when it fails."""
    return kubectl_of(NAMESPACE, *words, check=check, stdin=stdin)


def kubectl_of(namespace: str, *words: str, check: bool = True, stdin: str | None = None) -> str:
    """The same in another namespace."""
    command = ["kubectl", "--context", CONTEXT, "--namespace", namespace, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)
    assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + (done.stderr if not check else "")


def objects(kind: str, selector: str = "") -> list[dict[str, Any]]:
    """Objects of a kind as kubectl's JSON has them."""
    return json.loads(kubectl("get", kind, "-o", "json", *(["-l", selector] if selector else [])))["items"]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """helm against the cluster."""
    command = ["helm", "--kube-context", CONTEXT, "--namespace", NAMESPACE, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def secret(name: str, key: str) -> str:
    """A Secret's value."""
    return base64.b64decode(kubectl("get", "secret", name, "-o", f"jsonpath={{.data.{key}}}")).decode()


def until(what: str, check: Callable[[], Any], timeout: float = 300, every: float = 1) -> Any:
    """What `check` returns once it is true. Errors of a connection count as not yet."""
    end = time.monotonic() + timeout
    last: Any = None
    while time.monotonic() < end:
        try:
            last = check()
            if last:
                return last
        except (httpx.HTTPError, AssertionError, KeyError) as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"not within {timeout:g} s: {what} (last: {last})")


class Airflow:
    """Airflow's REST API, as an admin."""

    def __init__(self) -> None:
        self._client = httpx.Client(base_url=AIRFLOW, timeout=60, limits=NO_REUSE)

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        for _ in range(2):
            answer = self._client.request(method, "/api/v2" + path, **kwargs)
            if answer.status_code != 401:
                break
            self.log_in()
        return answer.raise_for_status()

    def log_in(self) -> None:
        """A new token."""
        user = {"username": secret("airflow-admin", "username"), "password": secret("airflow-admin", "password")}
        token = self._client.post("/auth/token", json=user).raise_for_status().json()["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"

    def token_still_valid(self) -> bool:
        """Does Airflow take the token of the last log-in?"""
        return self._client.get("/api/v2/dags/bench_collect").status_code == 200

    def trigger(self, **conf: Any) -> str:
        """Start a run; returns its id."""
        until("the DAG is there", lambda: self._call("GET", "/dags/bench_collect"), timeout=180)
        answer = self._call("POST", "/dags/bench_collect/dagRuns", json={"conf": conf, "logical_date": None})
        return str(answer.json()["dag_run_id"])

    def state(self, run: str) -> str:
        """queued, running, success or failed."""
        return str(self._call("GET", f"/dags/bench_collect/dagRuns/{run}").json()["state"])

    def tasks(self, run: str) -> dict[str, str]:
        """task (with [index] where it is mapped) -> state."""
        found = self._call("GET", f"/dags/bench_collect/dagRuns/{run}/taskInstances").json()["task_instances"]
        name = "{task_id}[{map_index}]"
        return {(name.format(**t) if t["map_index"] >= 0 else t["task_id"]): str(t["state"]) for t in found}

    def log(self, run: str, task: str, index: int = -1, attempt: int = 1) -> str:
        """A task's log as text."""
        path = f"/dags/bench_collect/dagRuns/{run}/taskInstances/{task}/logs/{attempt}"
        answer = self._call(
            "GET", path, params={"map_index": index, "full_content": True}, headers={"Accept": "application/json"}
        )
        content = answer.json().get("content", [])
        # What an exception said stands apart from the line that tells of it.
        return "\n".join(
            f"{line.get('event', line)} {line.get('error_detail', '')}" if isinstance(line, dict) else str(line)
            for line in content
        )

    def attempts(self, run: str, task: str, index: int = -1) -> int:
        """How often a task was tried."""
        suffix = f"/{index}" if index >= 0 else ""
        answer = self._call("GET", f"/dags/bench_collect/dagRuns/{run}/taskInstances/{task}{suffix}")
        return int(answer.json()["try_number"])

    def cancel(self, run: str) -> None:
        """End a run as failed; what it started is taken down."""
        self._call("PATCH", f"/dags/bench_collect/dagRuns/{run}", json={"state": "failed"})

    def clear_failed(self, run: str) -> None:
        """Have a run's failed tasks tried again, and what comes after them."""
        body = {
            "dag_run_id": run,
            "only_failed": True,
            "dry_run": False,
            "reset_dag_runs": True,
            "include_downstream": True,
        }
        self._call("POST", "/dags/bench_collect/clearTaskInstances", json=body)

    def xcom(self, run: str, task: str) -> Any:
        """What a task returned."""
        path = f"/dags/bench_collect/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value"
        return self._call("GET", path).json()["value"]

    def end(self, run: str, timeout: float = 480) -> str:
        """The state in which the run ended."""

        def over() -> str:
            state = self.state(run)
            return state if state in ("success", "failed") else ""

        return str(until(f"{run} ends", over, timeout))

    def until_task(self, run: str, task: str, states: set[str], timeout: float = 300) -> None:
        """Wait for a task to be in one of `states`."""
        until(f"{task} of {run} is {states}", lambda: self.tasks(run).get(task) in states, timeout)


class Mlflow:
    """MLflow's REST API, through the port that people use."""

    def __init__(self) -> None:
        self._client = httpx.Client(base_url=MLFLOW + "/api/2.0", timeout=60, limits=NO_REUSE)

    def runs(self, experiment: str, condition: str = "") -> list[dict[str, Any]]:
        """Runs of an experiment: {id, status, params, tags, metrics}."""
        answer = self._client.get("/mlflow/experiments/get-by-name", params={"experiment_name": experiment})
        if answer.status_code == 404:
            return []
        ids = [answer.raise_for_status().json()["experiment"]["experiment_id"]]
        body = {"experiment_ids": ids, "filter": condition, "max_results": 1000}
        found = self._client.post("/mlflow/runs/search", json=body).raise_for_status().json().get("runs", [])
        return [
            {
                "id": run["info"]["run_id"],
                "status": run["info"]["status"],
                "artifacts": run["info"]["artifact_uri"],
                **{k: {p["key"]: p["value"] for p in run["data"].get(k, [])} for k in ("params", "tags", "metrics")},
            }
            for run in found
        ]

    def cells(self, experiment: str) -> list[dict[str, Any]]:
        """The runs that are cells."""
        return self.runs(experiment, "tags.`tipbench.kind` = 'cell'")

    def artifact(self, run: dict[str, Any], path: str) -> bytes:
        """One artifact of a run, through MLflow's proxy."""
        root = run["artifacts"].split(":", 1)[1].lstrip("/")
        return self._client.get(f"/mlflow-artifacts/artifacts/{root}/{path}").raise_for_status().content


@dataclass
class Residents:
    """How many models each Ollama replica held, polled while a test goes on."""

    most: dict[str, int] = field(default_factory=dict)
    together: int = 0
    """Most replicas that held a model at the same poll."""
    names: set[str] = field(default_factory=set)


@contextlib.contextmanager
def ollama_port(pod: str = "ollama-0") -> Iterator[str]:
    """The URL of one Ollama pod, by a port-forward."""
    with port_forward(NAMESPACE, f"pod/{pod}", 11434, "/api/version") as url:
        yield url


@contextlib.contextmanager
def port_forward(namespace: str, target: str, port: int, answers: str = "/") -> Iterator[str]:
    """A URL that leads to a port of a pod or Service; it is there when something answers on the path `answers`."""
    local = free_port()
    command = ["kubectl", "--context", CONTEXT, "-n", namespace, "port-forward", target, f"{local}:{port}"]
    forward = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{local}"
    try:
        until(f"{target} answers", lambda: httpx.get(url + answers) is not None, timeout=60, every=0.5)
        yield url
    finally:
        forward.terminate()
        forward.wait(10)


@contextlib.contextmanager
def watching(*pods: str) -> Iterator[Residents]:
    """Poll /api/ps of these Ollama pods through port-forwards."""
    seen, stop = Residents(), threading.Event()

    def poll(urls: dict[str, str]) -> None:
        while not stop.wait(0.3):
            held = 0
            for pod, url in urls.items():
                with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                    names = [m["name"] for m in httpx.get(f"{url}/api/ps", timeout=5).json()["models"]]
                    seen.most[pod] = max(seen.most.get(pod, 0), len(names))
                    seen.names |= set(names)
                    held += bool(names)
            seen.together = max(seen.together, held)

    with contextlib.ExitStack() as stack:
        urls = {pod: stack.enter_context(ollama_port(pod)) for pod in pods}
        thread = threading.Thread(target=poll, args=(urls,), daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join(10)


def assert_complete(
    cells: list[dict[str, Any]], models: int, scenarios: int = 2, prompts: int = 2, tips: int = 2
) -> None:
    """Every cell once, finished, with all its candidates."""
    keys = [(c["params"]["model"], c["params"]["prompt"], c["params"]["scenario"]) for c in cells]
    assert len(keys) == len(set(keys)) == models * scenarios * prompts, keys
    assert {c["status"] for c in cells} == {"FINISHED"}
    assert all(c["metrics"]["n_candidates"] == tips for c in cells)


def run_of(api: httpx.Client, run: str) -> dict[str, Any]:
    """A run's detail."""
    return api.get(f"/dag-runs/{run}").raise_for_status().json()


@contextlib.contextmanager
def applied(*objects: dict[str, Any]) -> Iterator[None]:
    """These objects, for a while."""
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    kubectl("apply", "-f", "-", stdin=body)
    try:
        yield
    finally:
        kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=body)


def upgrade(values: dict[str, Any]) -> None:
    """The tipbench release with these values, ready."""
    command = ["helm", "--kube-context", CONTEXT, "-n", NAMESPACE, "upgrade", "tipbench", "charts/tipbench", "-f", "charts/tipbench/values-kind.yaml"]  # fmt: skip
    done = subprocess.run(
        [*command, "-f", "-", "--wait", "--timeout", "5m"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """The tipbench release as it was, whatever it became meanwhile."""
    try:
        yield
    finally:
        upgrade({})


def by_hand(stage: str, name: str, **settings: object) -> None:
    """A job of a stage as its CronJob would make it, once, with these settings."""
    job = json.loads(
        kubectl("create", "job", f"--from=cronjob/tipbench-{stage}", name, "--dry-run=client", "-o", "json")
    )
    job["spec"]["backoffLimit"] = 0
    (container,) = job["spec"]["template"]["spec"]["containers"]
    mine = {f"TIPBENCH_{key.upper()}": str(value) for key, value in settings.items()}
    container["env"] = [e for e in container.get("env", []) if e["name"] not in mine] + [
        {"name": key, "value": value} for key, value in mine.items()
    ]
    kubectl("apply", "-f", "-", stdin=json.dumps(job))


def collecting(name: str, experiment: str, **more: object) -> None:
    """A job by hand that collects, with a spool of its own."""
    mine = {"experiment": experiment, "models": "smollm2:135m", "spool": f"/exchange/spool/{name}"} | SMALL | more
    by_hand("collect", name, **mine)


def opened_panel(browser: Browser) -> Page:
    """The panel in a new window, logged in as the first admin."""
    page = browser.new_context(viewport=DESKTOP).new_page()
    page.set_default_timeout(60_000)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.goto(API)
    page.get_by_label("Admin token").fill(secret("tipbench-admin", "token"))
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Run collection").first.wait_for()
    return page


# -- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    """The cluster has to be there: `make e2e` makes it. Its absence is a failure, never a skip."""
    if shutil.which("kubectl") is None:
        pytest.fail("kubectl is not on PATH")
    if subprocess.run(
        ["kubectl", "--context", CONTEXT, "get", "ns", NAMESPACE], capture_output=True, check=False
    ).returncode:
        pytest.fail("there is no kind cluster tipbench; run: make e2e")


@pytest.fixture(scope="session")
def airflow() -> Airflow:
    """Airflow in the cluster."""
    return Airflow()


@pytest.fixture(scope="session")
def mlflow() -> Mlflow:
    """MLflow in the cluster."""
    return Mlflow()


@pytest.fixture
def api() -> Iterator[httpx.Client]:
    """The API with the first admin's token, as a script has it; ready, though the test before may have had its pod replaced."""
    token = secret("tipbench-admin", "token")
    headers = {"Authorization": f"Bearer {token}"}
    until("the API is ready", lambda: httpx.get(f"{API}/readyz").json()["ready"], timeout=120)
    with httpx.Client(base_url=f"{API}/api/bench", headers=headers, timeout=60, limits=NO_REUSE) as client:
        yield client


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    """An experiment of the test's own."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    return f"tip-bench-e2e-{name}-{int(time.time()) % 100000}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """On a failure: logs of every container, events, descriptions, into build/e2e/TEST."""
    outcome: Any = yield
    report = outcome.get_result()
    if not report.failed or "tests/e2e" not in str(item.path):
        return
    folder = ARTIFACTS / re.sub(r"[^A-Za-z0-9_.-]+", "-", item.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pods.txt").write_text(kubectl("get", "pods,jobs,pvc,leases", "-o", "wide", check=False))
    (folder / "events.txt").write_text(kubectl("get", "events", "--sort-by=.lastTimestamp", check=False))
    (folder / "describe.txt").write_text(kubectl("describe", "pods", check=False))
    for line in kubectl("get", "pods", "-o", "name", check=False).splitlines():
        text = kubectl("logs", line, "--all-containers", "--prefix", "--tail=2000", check=False)
        (folder / f"{line.replace('/', '-')}.log").write_text(text)
