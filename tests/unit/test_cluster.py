"""Leases of Ollama replicas and deaths by memory, against an API server in memory that keeps resource versions."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import ApiException
from kubernetes.client import models as k8s
from urllib3.exceptions import MaxRetryError

from tipbench import cluster as module
from tipbench.cluster import Cluster, LeaseLost, fitted_name, lease_name, pod_name
from tipbench.errors import UnreachableError

pytestmark = pytest.mark.unit
ONE, TWO = "http://ollama-0.ollama-headless:11434", "http://ollama-1.ollama-headless:11434"


class ApiServer:
    """Leases and pods with optimistic concurrency, as Kubernetes has it; `away` makes every call fail."""

    def __init__(self) -> None:
        self.leases: dict[str, Any] = {}
        self.pods: dict[str, Any] = {}
        self.away = False
        self.forbidden = False
        self._lock = threading.Lock()
        self._version = 0

    def _answer(self) -> None:
        if self.away:
            raise MaxRetryError(None, "/apis", "connection refused")  # type: ignore[arg-type]
        if self.forbidden:
            raise ApiException(status=403, reason="Forbidden")

    def read_namespaced_lease(self, name: str, namespace: str, **_: Any) -> Any:
        self._answer()
        if name not in self.leases:
            raise ApiException(status=404)
        return deepcopy(self.leases[name])

    def create_namespaced_lease(self, namespace: str, body: Any, **_: Any) -> Any:
        self._answer()
        with self._lock:
            if body.metadata.name in self.leases:
                raise ApiException(status=409)
            return self._keep(body.metadata.name, namespace, body)

    def replace_namespaced_lease(self, name: str, namespace: str, body: Any, **_: Any) -> Any:
        self._answer()
        with self._lock:
            if name not in self.leases:
                raise ApiException(status=404)
            if self.leases[name].metadata.resource_version != body.metadata.resource_version:
                raise ApiException(status=409)
            return self._keep(name, namespace, body)

    def _keep(self, name: str, namespace: str, body: Any) -> Any:
        self._version += 1
        kept = deepcopy(body)
        kept.metadata.resource_version, kept.metadata.namespace = str(self._version), namespace
        self.leases[name] = kept
        return deepcopy(kept)

    def read_namespaced_pod(self, name: str, namespace: str, **_: Any) -> Any:
        self._answer()
        if name not in self.pods:
            raise ApiException(status=404)
        return self.pods[name]

    def list_namespaced_pod(self, namespace: str, label_selector: str = "", **_: Any) -> Any:
        self._answer()
        wanted = dict(part.split("=") for part in label_selector.split(","))
        found = [p for p in self.pods.values() if wanted.items() <= (p.metadata.labels or {}).items()]
        return k8s.V1PodList(items=found)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    """The API server that every Cluster of the test talks to."""
    server = ApiServer()
    monkeypatch.setattr(module.kube_config, "load_incluster_config", lambda: None)
    monkeypatch.setattr(module, "CoreV1Api", lambda: server)
    monkeypatch.setattr(module, "CoordinationV1Api", lambda: server)
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "RENEW_S", 0.05)
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    return server


def pod(name: str, phase: str = "Running", labels: dict[str, str] | None = None, **last: Any) -> Any:
    """A pod with one container `ollama`, limited to 200 MiB; `last` is how it ended the last time."""
    ended = k8s.V1ContainerState(terminated=k8s.V1ContainerStateTerminated(**last)) if last else None
    status = k8s.V1ContainerStatus(
        name="ollama",
        image="i",
        image_id="i",
        ready=True,
        restart_count=1,
        last_state=ended,
        state=k8s.V1ContainerState(),
    )
    limits = k8s.V1ResourceRequirements(limits={"memory": "200Mi"})
    return k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name=name, labels=labels),
        spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="ollama", resources=limits)]),
        status=k8s.V1PodStatus(phase=phase, container_statuses=[status]),
    )


def test_one_address_has_one_name() -> None:
    assert lease_name(ONE) == lease_name(ONE + "/") == "tipbench-ollama-0.ollama-headless-11434"
    assert lease_name("https://ollama.example") == "tipbench-ollama.example-443"
    assert lease_name(ONE) != lease_name(TWO)


def test_no_two_ever_hold_the_same_replica(server: ApiServer) -> None:
    held: dict[str, str] = {}
    met: list[str] = []
    lock = threading.Lock()

    def collect(name: str) -> None:
        server.pods[name] = pod(name)
        with Cluster("ns").claim([ONE, TWO], name) as replica:
            with lock:
                if replica.url in held:
                    met.append(f"{name} met {held[replica.url]} on {replica.url}")
                held[replica.url] = name
            time.sleep(0.05)
            with lock:
                del held[replica.url]

    threads = [threading.Thread(target=collect, args=(f"pod-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not met and not held and not any(t.is_alive() for t in threads)
    assert {lease.spec.holder_identity for lease in server.leases.values()} == {""}


def test_whoever_waits_is_told_who_holds_it(server: ApiServer) -> None:
    server.pods["first"] = pod("first")
    said: list[str] = []
    with Cluster("ns").claim([ONE], "first"):
        waiting = threading.Thread(target=lambda: enter(Cluster("ns").claim([ONE], "second", said.append)))
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive()
    waiting.join(5)
    assert not waiting.is_alive() and len(said) == 1 and "by first" in said[0]


def enter(claim: Any) -> None:
    with claim:
        pass


@pytest.mark.parametrize("end", ["gone", "Succeeded", "Failed"])
def test_a_replica_left_behind_by_a_pod_that_ended_is_taken_at_once(server: ApiServer, end: str) -> None:
    claim = Cluster("ns", pod="dead").claim([ONE], "dead_1")
    lost = claim.__enter__()
    lost._renewal._done.set()  # the process is gone: nothing renews, nothing gives back
    if end != "gone":
        server.pods["dead"] = pod("dead", phase=end)
    began = time.monotonic()
    with Cluster("ns").claim([ONE], "next") as replica:
        assert replica.url == ONE and time.monotonic() - began < 5


def test_a_holder_that_lives_but_does_not_renew_loses_it_after_the_leases_time(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_S", 1)
    server.pods["stuck"] = pod("stuck")
    claim = Cluster("ns", pod="stuck").claim([ONE], "stuck")
    stuck = claim.__enter__()
    stuck._renewal._done.set()
    began = time.monotonic()
    with Cluster("ns").claim([ONE], "next"):
        assert 0.9 < time.monotonic() - began < 5
        stuck._renewal._done.clear()
        stuck._renewal._work()
        for look in (lambda: stuck.killed(0), stuck.in_flight, stuck.before_request):
            with pytest.raises(LeaseLost, match="went to next"):
                look()


def test_an_api_server_that_is_away_for_a_while_costs_nothing(server: ApiServer) -> None:
    with Cluster("ns").claim([ONE], "me") as replica:
        server.away = True
        time.sleep(0.3)
        server.away = False
        time.sleep(0.2)
        assert replica.killed(0) == ""
    assert server.leases[lease_name(ONE)].spec.holder_identity == ""


def test_a_holder_outside_the_cluster_is_alive_until_its_lease_is_old(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop with a kubeconfig, a pod of another namespace: that no pod of its name is here says nothing."""
    monkeypatch.setattr(module, "LEASE_S", 1)
    claim = Cluster("ns", pod="").claim([ONE], "laptop_1")
    gone = claim.__enter__()
    gone._renewal._done.set()
    began = time.monotonic()
    with Cluster("ns").claim([ONE], "next"):
        assert time.monotonic() - began > 0.9


def test_no_two_processes_of_one_host_are_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIPBENCH_POD", "tipbench-collect-abc")
    assert pod_name().startswith("tipbench-collect-abc_") and pod_name() != pod_name()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of one second, that the holder counts as sure for half of it."""
    monkeypatch.setattr(module, "LEASE_S", 1)
    monkeypatch.setattr(module, "HOLD_S", 0.5)


def test_a_holder_that_is_cut_off_begins_no_request_while_another_may_hold_the_replica(
    server: ApiServer, short: None
) -> None:
    """A partition: the holder reaches Ollama but not the API server. At no moment may both begin requests."""
    began: list[tuple[float, str]] = []
    cut_off = Cluster("ns")
    claim = cut_off.claim([ONE], "cut-off")
    replica = claim.__enter__()
    partition = ApiServer()
    partition.away = True
    replica._renewal._leases = partition  # this process's calls fail; the others' do not
    stop = threading.Event()

    def generate() -> None:
        try:
            while not stop.is_set():
                replica.before_request()
                began.append((time.monotonic(), "cut-off"))
                time.sleep(0.01)
        except LeaseLost:
            began.append((time.monotonic(), "lost"))

    thread = threading.Thread(target=generate)
    thread.start()
    with Cluster("ns").claim([ONE], "next"):
        taken = time.monotonic()
        time.sleep(0.2)
        with pytest.raises(LeaseLost, match="could not be renewed"):
            replica.in_flight()
        replica._renewal._leases = server  # the partition ends, and the holder learns whose the replica is
        thread.join(5)
    stop.set()
    assert not thread.is_alive() and began[-1][1] == "lost"
    assert max(at for at, what in began if what == "cut-off") < taken


def test_a_holder_waits_while_nobody_can_tell_and_goes_on_when_it_is_still_its_own(
    server: ApiServer, short: None
) -> None:
    with Cluster("ns").claim([ONE], "me") as replica:
        server.away = True
        time.sleep(0.6)
        threading.Timer(0.3, setattr, (server, "away", False)).start()
        began = time.monotonic()
        replica.before_request()
        assert 0.2 < time.monotonic() - began < 3
        replica.in_flight()


def test_a_lease_that_cannot_be_renewed_for_long_is_lost(
    server: ApiServer, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNSURE_S", 0.2)
    with Cluster("ns").claim([ONE], "me") as replica:
        server.away = True
        time.sleep(0.6)
        with pytest.raises(LeaseLost, match=r"could not be renewed for .* what is finished is kept"):
            replica.before_request()


def test_a_lease_that_somebody_deleted_is_lost(server: ApiServer, replica: Any) -> None:
    server.leases.clear()
    with pytest.raises(LeaseLost, match="deleted"):
        for _ in range(100):
            replica.before_request()
            time.sleep(0.02)


@given(st.text(max_size=120), st.text(max_size=120))
def test_names_fit_kubernetes_and_different_texts_have_different_names(one: str, other: str) -> None:
    name = fitted_name(one)
    assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", name)
    assert (name == fitted_name(other)) is (one == other)


def test_a_name_that_fits_is_kept() -> None:
    assert fitted_name("smollm2-135m") == "smollm2-135m"
    pairs = [("a/b:1", "a-b:1"), ("hf.co/org/model-GGUF:Q4_K_M" * 3, "hf.co/org/model-GGUF:Q4_K_S" * 3), ("a", "a-")]
    assert all(fitted_name(a) != fitted_name(b) for a, b in pairs)
    assert lease_name("http://[::1]:11434") != lease_name("http://1:11434")
    assert len(lease_name(f"http://{'a' * 60}.{'b' * 63}.{'c' * 63}.{'d' * 63}:11434")) <= 253


def test_a_missing_role_is_said_with_its_name(server: ApiServer) -> None:
    server.forbidden = True
    with pytest.raises(UnreachableError, match=r"403.*tipbench-stage"):
        enter(Cluster("ns").claim([ONE], "me"))


@pytest.fixture
def replica(server: ApiServer) -> Iterator[Any]:
    """A claimed replica."""
    with Cluster("ns").claim([ONE], "me") as replica:
        yield replica


def now_ms() -> int:
    return int(time.time() * 1000)


def test_a_kill_for_memory_is_found_at_the_pod_behind_the_address(server: ApiServer, replica: Any) -> None:
    server.pods["ollama-0"] = pod("ollama-0", reason="OOMKilled", exit_code=137, finished_at=datetime.now(UTC))
    assert replica.killed(now_ms() - 5000) == (
        "Kubernetes ended container ollama of pod ollama-0 with OOMKilled at its memory limit of 200 MiB."
    )
    assert replica.memory_limit() == 200 * 1024**2


def test_a_service_leads_to_the_pods_of_its_app(server: ApiServer) -> None:
    labels = {"app.kubernetes.io/name": "ollama", "app.kubernetes.io/part-of": "tipbench"}
    server.pods["ollama-0"] = pod(
        "ollama-0", labels=labels, reason="OOMKilled", exit_code=137, finished_at=datetime.now(UTC)
    )
    with Cluster("ns").claim(["http://ollama:11434"], "me") as replica:
        assert "ollama-0" in replica.killed(now_ms() - 5000)


@pytest.mark.parametrize(
    "last",
    [
        {"reason": "OOMKilled", "exit_code": 137, "finished_at": datetime.now(UTC) - timedelta(hours=1)},
        {"reason": "Error", "exit_code": 1, "finished_at": datetime.now(UTC) + timedelta(minutes=1)},
        {},
    ],
)
def test_an_older_kill_or_another_end_is_no_death_by_memory(
    server: ApiServer, replica: Any, last: dict[str, Any]
) -> None:
    server.pods["ollama-0"] = pod("ollama-0", **last)
    assert replica.killed(now_ms()) == ""


def test_what_cannot_be_seen_is_not_claimed(server: ApiServer, replica: Any) -> None:
    assert replica.killed(0) == "" and replica.memory_limit() is None
    server.away = True
    assert replica.killed(0) == ""
    server.away = False
