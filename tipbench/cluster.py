"""The only module that knows the Kubernetes client: a replica of Ollama for this pod alone, and why one died.

Several pods may want the same Ollama: mapped tasks, another DAG run, a Job that somebody started by hand. Each takes a Lease
(coordination.k8s.io/v1) of the replica that it uses, so that two models never meet in one replica's memory, whoever started them.
"""

from __future__ import annotations

import contextlib
import os
import re
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
RENEW_S = 10.0
POLL_S = 2.0
LABELS = {"app.kubernetes.io/part-of": "tipbench", "app.kubernetes.io/component": "ollama-lease"}
CALL_S = 10.0
"""Time for one call to the API server."""


class LeaseLost(UnreachableError):
    """Another pod took the replica over, since this one could not renew its lease in time. Exit code 5."""


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

    def __init__(self, namespace: str) -> None:
        """Raises InputError when there is neither a service account nor a kubeconfig."""
        try:
            _load_config()
        except kube_config.ConfigException as error:
            raise InputError(
                f"TIPBENCH_LEASE_NAMESPACE={namespace} needs a cluster: no service account token is mounted, and there is no "
                "kubeconfig. Mount the token of tipbench-stage, or unset the variable."
            ) from error
        self.namespace = namespace
        self._core = CoreV1Api()
        self._leases = CoordinationV1Api()

    # -- a replica for this pod alone ----------------------------------------------------------

    @contextlib.contextmanager
    def claim(
        self, urls: Sequence[str], holder: str, on_wait: Callable[[str], None] = lambda words: None
    ) -> Iterator[Replica]:
        """Wait for a replica that nobody uses, hold it, and let go of it at the end.

        `on_wait` is told once who holds the replicas. Raises UnreachableError when the API server refuses.
        """
        names = {url: lease_name(url) for url in urls}
        seen: dict[str, tuple[tuple[str, str], float]] = {}
        told = False
        while True:
            for url, name in names.items():
                lease = self._take(name, holder, seen)
                if lease is not None:
                    with _Renewal(self._leases, lease, holder) as renewal:
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
        spec = lease.spec
        if spec.holder_identity not in (None, "", holder) and not self._abandoned(name, spec, seen):
            return None
        lease.spec = _spec(holder)
        try:
            return self._leases.replace_namespaced_lease(name, self.namespace, lease, _request_timeout=CALL_S)
        except ApiException as error:
            if error.status in (404, 409):  # somebody was quicker
                return None
            raise _refused(f"take the lease {name}", error) from error

    def _create(self, name: str, holder: str) -> V1Lease | None:
        body = V1Lease(metadata=V1ObjectMeta(name=name, labels=LABELS), spec=_spec(holder))
        try:
            return self._leases.create_namespaced_lease(self.namespace, body, _request_timeout=CALL_S)
        except ApiException as error:
            if error.status == 409:
                return None
            raise _refused(f"create the lease {name}", error) from error

    def _abandoned(self, name: str, spec: V1LeaseSpec, seen: dict[str, tuple[tuple[str, str], float]]) -> bool:
        """Has the holder ended, or not renewed for the lease's time by this pod's own clock (others' may be wrong)?"""
        state = (str(spec.holder_identity), str(spec.renew_time))
        if name not in seen or seen[name][0] != state:
            seen[name] = (state, time.monotonic())
        if time.monotonic() - seen[name][1] > (spec.lease_duration_seconds or LEASE_S):
            return True
        try:
            pod = self._core.read_namespaced_pod(state[0], self.namespace, _request_timeout=CALL_S)
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
    """Keeps a lease alive from a thread of its own; gives it back at the end."""

    def __init__(self, leases: CoordinationV1Api, lease: V1Lease, holder: str) -> None:
        self._leases = leases
        self._lease = lease
        self._holder = holder
        self._lost = ""
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
        """Raises LeaseLost when the lease is somebody else's."""
        if self._lost:
            raise LeaseLost(self._lost)

    def _work(self) -> None:
        while not self._done.wait(RENEW_S) and not self._lost:
            try:
                self._lease.spec = _spec(self._holder)
                self._write()
            except ApiException as error:
                if error.status in (404, 409):
                    self._look_again()
            except HTTPError:
                continue  # nobody else can take it while the API server is away

    def _look_again(self) -> None:
        """The lease changed under us: ours after all (an answer was lost), or taken?"""
        name, namespace = self._lease.metadata.name, self._lease.metadata.namespace
        try:
            now = self._leases.read_namespaced_lease(name, namespace, _request_timeout=CALL_S)
        except (ApiException, HTTPError):
            return
        if now.spec.holder_identity == self._holder:
            self._lease = now
        else:
            self._lost = f"the lease {name} went to {now.spec.holder_identity}, since this pod did not renew it in time; try again"

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
    return "tipbench-" + re.sub(r"[^a-z0-9.-]+", "-", address.lower())


def pod_name() -> str:
    """Who this process is to others in the cluster: its pod, by the host name that Kubernetes gives it."""
    return os.environ.get("HOSTNAME") or os.uname().nodename


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
