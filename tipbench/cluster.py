"""The only module that knows the Kubernetes client: a replica of Ollama for this pod alone, and why one died.

Several pods may want the same Ollama: mapped tasks, another DAG run, a Job that somebody started by hand. Each takes a Lease
(coordination.k8s.io/v1) of the replica that it uses, so that two models never meet in one replica's memory, whoever started them.

A lease protects only what looks at it. Whoever waits may take a lease over when it was not renewed for LEASE_S by the waiter's own
clock; so the holder, by its own clock, sends no request from HOLD_S after its last renewal on until it has renewed it again, and breaks
an answer off at LEASE_S. Neither trusts the other's clock, and a holder that is cut off, paused or slow stops before another begins.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from kubernetes import config as kube_config
from kubernetes.client import ApiException, CoordinationV1Api, CoreV1Api, V1Lease, V1LeaseSpec, V1ObjectMeta, V1Pod
from urllib3.exceptions import HTTPError

from tipbench.errors import InputError, UnreachableError
from tipbench.policy import format_bytes, parse_bytes

LEASE_S = 60
"""How long a lease holds without being renewed."""
HOLD_S = 45.0
"""How long after its last renewal the holder still begins requests: less than LEASE_S, so that a short one ends in time."""
UNSURE_S = 600.0
"""How long the holder waits to learn whether a lease that it could not renew is still its own."""
RENEW_S = 10.0
RETRY_S = 2.0
POLL_S = 2.0
POD = "tipbench.dev/pod"
"""Annotation with the holder's pod in the lease's namespace; a holder elsewhere has none, and counts as alive until its lease is old."""
LABELS = {"app.kubernetes.io/part-of": "tipbench", "app.kubernetes.io/component": "ollama-lease"}
CALL_S = 10.0
"""Time for one call to the API server."""


class LeaseLost(UnreachableError):
    """The replica is another's, or nobody knows whose, since this process could not renew its lease in time. Exit code 5."""


@dataclass(frozen=True)
class Death:
    """A container that the kernel killed for its memory."""

    pod: str
    container: str
    limit: int | None
    """The container's memory limit in bytes."""

    def __str__(self) -> str:
        limit = f" at its memory limit of {format_bytes(self.limit)}" if self.limit is not None else ""
        return f"Kubernetes ended container {self.container} of pod {self.pod} with OOMKilled{limit}."


class Cluster:
    """One namespace, as the pod's service account may see it."""

    def __init__(self, namespace: str, pod: str | None = None) -> None:
        """`pod` is the pod of this process in that namespace; by default what the variable TIPBENCH_POD says.

        Raises InputError when there is neither a service account nor a kubeconfig.
        """
        try:
            _load_config()
        except kube_config.ConfigException as error:
            raise InputError(
                f"TIPBENCH_LEASE_NAMESPACE={namespace} needs a cluster: no service account token is mounted, and there is no "
                "kubeconfig. Mount the token of tipbench-stage, or unset the variable."
            ) from error
        self.namespace = namespace
        self._pod = os.environ.get("TIPBENCH_POD", "") if pod is None else pod
        self._core = CoreV1Api()
        self._leases = CoordinationV1Api()

    # -- a replica for this pod alone ----------------------------------------------------------

    @contextlib.contextmanager
    def claim(
        self, urls: Sequence[str], holder: str, on_wait: Callable[[str], None] = lambda words: None
    ) -> Iterator[Replica]:
        """Wait for a replica that nobody uses, hold it, and let go of it at the end. `holder` names this process and no other.

        `on_wait` is told once who holds the replicas. Raises UnreachableError when the API server refuses.
        """
        names = {url: lease_name(url) for url in urls}
        seen: dict[str, tuple[tuple[str, str], float]] = {}
        told = False
        while True:
            for url, name in names.items():
                asked = time.monotonic()
                lease = self._take(name, holder, seen)
                if lease is not None:
                    with _Renewal(self._leases, lease, holder, asked) as renewal:
                        yield Replica(self, url, renewal)
                    return
            if not told:
                told = True
                holders = ", ".join(f"{name} by {seen[name][0][0]}" for name in names.values() if name in seen)
                on_wait(f"waiting for a free Ollama replica; taken: {holders or 'all'}")
            time.sleep(POLL_S)

    def _take(self, name: str, holder: str, seen: dict[str, tuple[tuple[str, str], float]]) -> V1Lease | None:
        """The lease, if it is free, ours already, or left behind; None when somebody else is using it."""
        try:
            lease = self._leases.read_namespaced_lease(name, self.namespace, _request_timeout=CALL_S)
        except ApiException as error:
            if error.status != 404:
                raise _refused(f"read the lease {name}", error) from error
            return self._create(name, holder)
        except HTTPError as error:
            raise _away(error) from error
        if lease.spec.holder_identity not in (None, "", holder) and not self._abandoned(name, lease, seen):
            return None
        lease.spec = _spec(holder)
        lease.metadata.annotations = (lease.metadata.annotations or {}) | {POD: self._pod}
        try:
            return self._leases.replace_namespaced_lease(name, self.namespace, lease, _request_timeout=CALL_S)
        except ApiException as error:
            if error.status in (404, 409):  # somebody was quicker
                return None
            raise _refused(f"take the lease {name}", error) from error

    def _create(self, name: str, holder: str) -> V1Lease | None:
        body = V1Lease(
            metadata=V1ObjectMeta(name=name, labels=LABELS, annotations={POD: self._pod}), spec=_spec(holder)
        )
        try:
            return self._leases.create_namespaced_lease(self.namespace, body, _request_timeout=CALL_S)
        except ApiException as error:
            if error.status == 409:
                return None
            raise _refused(f"create the lease {name}", error) from error

    def _abandoned(self, name: str, lease: V1Lease, seen: dict[str, tuple[tuple[str, str], float]]) -> bool:
        """Has the holder ended, or not renewed for the lease's time by this pod's own clock (others' may be wrong)?"""
        spec, pod_name = lease.spec, (lease.metadata.annotations or {}).get(POD)
        state = (str(spec.holder_identity), str(spec.renew_time))
        if name not in seen or seen[name][0] != state:
            seen[name] = (state, time.monotonic())
        if time.monotonic() - seen[name][1] > (spec.lease_duration_seconds or LEASE_S):
            return True
        if not pod_name:
            return False
        try:
            pod = self._core.read_namespaced_pod(pod_name, self.namespace, _request_timeout=CALL_S)
        except ApiException as error:
            return bool(error.status == 404)
        except HTTPError:
            return False
        return pod.status.phase in ("Succeeded", "Failed")

    # -- why a replica died --------------------------------------------------------------------

    def death(self, url: str, since: datetime) -> Death | None:
        """The out-of-memory kill that ended the pod behind `url` after `since`; None when there was none, or none can be seen."""
        for pod in self._pods(url):
            for status in pod.status.container_statuses or []:
                for state in (status.state, status.last_state):
                    ended = state.terminated if state else None
                    if ended and ended.reason == "OOMKilled" and ended.finished_at and ended.finished_at >= since:
                        return Death(pod.metadata.name, status.name, _limit(pod, status.name))
        return None

    def memory_limit(self, url: str) -> int | None:
        """The memory limit in bytes of the pod behind `url`; None when it has none, or it cannot be seen."""
        limits = [_limit(pod, container.name) for pod in self._pods(url) for container in pod.spec.containers]
        return min((limit for limit in limits if limit is not None), default=None)

    def _pods(self, url: str) -> list[V1Pod]:
        """The pods behind a URL: the one that its host names, or those of the app that the Service is called after."""
        host = (urlsplit(url).hostname or "").split(".")[0]
        try:
            return [self._core.read_namespaced_pod(host, self.namespace, _request_timeout=CALL_S)]
        except ApiException as error:
            if error.status != 404:
                return []
        except HTTPError:
            return []
        try:
            selector = f"app.kubernetes.io/name={host},app.kubernetes.io/part-of=tipbench"
            found = self._core.list_namespaced_pod(self.namespace, label_selector=selector, _request_timeout=CALL_S)
        except (ApiException, HTTPError):
            return []
        return list(found.items)


class Replica:
    """The Ollama replica that this process holds; what a collection asks when its engine goes quiet."""

    def __init__(self, cluster: Cluster, url: str, renewal: _Renewal) -> None:
        self.url = url
        self._cluster = cluster
        self._renewal = renewal

    def before_request(self) -> None:
        """Return when the replica is surely ours; waits while that is unknown. Raises LeaseLost."""
        self._renewal.sure()

    def in_flight(self) -> None:
        """Raises LeaseLost when an answer that is on its way has to be broken off."""
        self._renewal.check()

    def killed(self, since_ms: int) -> str:
        """How the replica was killed for its memory since then (milliseconds since the epoch), in words; or nothing.

        Raises LeaseLost when the replica is not ours any more.
        """
        self._renewal.check()
        # Kubernetes counts in whole seconds, rounded down.
        death = self._cluster.death(self.url, datetime.fromtimestamp(since_ms / 1000, UTC) - timedelta(seconds=1))
        return str(death) if death else ""

    def memory_limit(self) -> int | None:
        """The replica's memory limit in bytes, where it can be seen."""
        return self._cluster.memory_limit(self.url)


class _Renewal:
    """Keeps a lease alive from a thread of its own; knows how long it surely holds; gives it back at the end."""

    def __init__(self, leases: CoordinationV1Api, lease: V1Lease, holder: str, asked: float) -> None:
        self._leases = leases
        self._lease = lease
        self._holder = holder
        self._renewed = asked
        """When the last renewal that the API server took was sent, on this process's monotonic clock."""
        self._lost = ""
        self._changed = threading.Condition()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="renew-lease")

    def __enter__(self) -> _Renewal:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(CALL_S + 1)
        if not self._lost:
            self._lease.spec.holder_identity = ""
            # A lease that cannot be given back is found abandoned by the next one who looks.
            with contextlib.suppress(ApiException, HTTPError):
                self._write()

    def check(self) -> None:
        """Raises LeaseLost when the lease is somebody else's, or may be by now."""
        age = time.monotonic() - self._renewed
        if self._lost or age >= LEASE_S:
            raise LeaseLost(self._lost or self._unsure(age))

    def sure(self) -> None:
        """Return once the lease has surely some time left. Raises LeaseLost when it went to somebody else, or nobody can tell."""
        end = time.monotonic() + UNSURE_S
        with self._changed:
            while True:
                if self._lost:
                    raise LeaseLost(self._lost)
                age = time.monotonic() - self._renewed
                if age < HOLD_S:
                    return
                if time.monotonic() >= end:
                    raise LeaseLost(self._unsure(age))
                self._changed.wait(1)

    def _unsure(self, age: float) -> str:
        return (
            f"the lease {self._lease.metadata.name} could not be renewed for {age:.0f} s, so the replica may be another's by now; "
            "can this process reach the Kubernetes API? Try again: what is finished is kept"
        )

    def _work(self) -> None:
        pause = RENEW_S
        while not self._done.wait(pause) and not self._lost:
            pause = RETRY_S  # an answer that did not come is asked for again soon
            try:
                asked = time.monotonic()
                self._lease.spec = _spec(self._holder)
                self._write()
                self._still_ours(asked)
                pause = RENEW_S
            except ApiException as error:
                if error.status in (404, 409) and self._look_again():
                    pause = 0
            except HTTPError:
                continue  # whether somebody took it will be seen when the API server is back

    def _still_ours(self, asked: float) -> None:
        with self._changed:
            self._renewed = asked
            self._changed.notify_all()

    def _look_again(self) -> bool:
        """The lease changed under us: ours after all (an answer was lost), or taken? True when it can be renewed at once."""
        name, namespace = self._lease.metadata.name, self._lease.metadata.namespace
        try:
            now = self._leases.read_namespaced_lease(name, namespace, _request_timeout=CALL_S)
        except ApiException as error:
            if error.status != 404:
                return False
            taken_by = "nobody: it was deleted"
        except HTTPError:
            return False
        else:
            if now.spec.holder_identity == self._holder:
                self._lease = now
                return True
            taken_by = str(now.spec.holder_identity)
        with self._changed:
            self._lost = f"the lease {name} went to {taken_by}, since this pod did not renew it in time; try again"
            self._changed.notify_all()
        return False

    def _write(self) -> None:
        name, namespace = self._lease.metadata.name, self._lease.metadata.namespace
        self._lease = self._leases.replace_namespaced_lease(name, namespace, self._lease, _request_timeout=CALL_S)


def _load_config() -> None:
    """The pod's service account, or else the user's kubeconfig."""
    try:
        kube_config.load_incluster_config()
    except kube_config.ConfigException:
        kube_config.load_kube_config()


def lease_name(url: str) -> str:
    """`http://ollama-0.ollama-headless:11434` -> `tipbench-ollama-0.ollama-headless-11434`: one name for one address."""
    parts = urlsplit(url)
    address = f"{parts.hostname}-{parts.port or (443 if parts.scheme == 'https' else 80)}"
    return "tipbench-" + fitted_name(address.lower(), "a-z0-9.-", 253 - len("tipbench-"))


def fitted_name(text: str, allowed: str = "A-Za-z0-9_.-", longest: int = 63) -> str:
    """`text` as a name for Kubernetes (by default: a label's value): at most `longest` of the `allowed` characters, a letter or digit at
    both ends. Where something had to be replaced or cut, a hash of the whole keeps different texts apart. The same rule is in
    dags/bench_collect.py and in the charts.
    """
    kept = re.sub(f"[^{allowed}]", "-", text)[:longest].strip("-_.")
    if kept == text:
        return kept
    return f"{kept[: longest - 9].strip('-_.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


def pod_name() -> str:
    """Who this process is to others in the cluster: its pod or host, and something that no other process there has."""
    return (
        f"{os.environ.get('TIPBENCH_POD') or os.environ.get('HOSTNAME') or os.uname().nodename}_{secrets.token_hex(4)}"
    )


def _spec(holder: str) -> V1LeaseSpec:
    now = datetime.now(UTC)
    return V1LeaseSpec(holder_identity=holder, lease_duration_seconds=LEASE_S, acquire_time=now, renew_time=now)


def _limit(pod: V1Pod, container: str) -> int | None:
    for one in pod.spec.containers:
        if one.name == container and one.resources and one.resources.limits:
            return parse_bytes(str(one.resources.limits.get("memory", "")))
    return None


def _refused(what: str, error: ApiException) -> UnreachableError:
    hint = " Give its service account the Role of the tipbench chart (tipbench-stage)." if error.status == 403 else ""
    return UnreachableError(f"the Kubernetes API did not let this pod {what} ({error.status} {error.reason}).{hint}")


def _away(error: Any) -> UnreachableError:
    return UnreachableError(f"the Kubernetes API cannot be reached: {error}")
