"""MLflow over its REST API.

MLflow's own client imports for seconds and takes 80-190 MB before its first call (bench/startup.py measures it),
which a stage on a small pod cannot afford; the dozen calls below are all that tipbench needs of the documented API.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

import httpx
import tenacity

from tipbench.net.address import read_address
from tipbench.net.clients import ERRORS, Client, json_object, mlflow_account, mlflow_tls, open_client, words_of
from tipbench.patience import Patience
from tipbench.quantities import seconds_from
from tipbench.store.backend import OLDEST_FIRST, StoreError, StoreUnreachable
from tipbench.store.records import ExperimentInfo, Run

RETRY_S = 180.0
"""How long a call is retried before MLflow counts as unreachable; TIPBENCH_MLFLOW_RETRY_S changes it."""
CONNECT_S, READ_S = 5.0, 60.0
PAGE = 1000
GONE, TAKEN, DENIED = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED"
"""MLflow's words for what it refuses."""
P = ParamSpec("P")
T = TypeVar("T")


class _Transient(Exception):
    """Worth another try: no connection, a timeout, an answer cut short, 429 or 5xx."""


def _retry_limit() -> float:
    return seconds_from(os.environ, "TIPBENCH_MLFLOW_RETRY_S", RETRY_S)


def _of_mlflow(method: Callable[P, T]) -> Callable[P, T]:
    """Whatever shape an answer has: what is not MLflow's is said in a StoreError, never in an error of the reading."""

    @functools.wraps(method)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError, RecursionError) as error:
            backend: Any = args[0]
            raise backend._not_mlflow() from error

    return reading


class RestBackend:
    """MLflow behind a URL; a path prefix is kept. Credentials come from the URL, or from MLflow's own environment variables."""

    def __init__(
        self, url: str, *, connections: int = 16, retry_s: float | None = None, read_s: float = READ_S
    ) -> None:
        """`retry_s` replaces the retry limit, `read_s` is how long one answer may take, both in seconds.

        Raises InputError for a URL, a token, a certificate or a proxy that cannot be used.
        """
        address = read_address(url, "--mlflow-url")
        self.where: str = address
        token, account = mlflow_account()
        self._client: Client = open_client(
            address,
            name="MLflow",
            option="--mlflow-url",
            timeout=httpx.Timeout(read_s, connect=min(CONNECT_S, read_s)),
            connections=connections,
            token=token,
            account=account,
            tls=mlflow_tls(),
        )
        self._retry_s = _retry_limit() if retry_s is None else retry_s
        self._patience = Patience(f"MLflow at {self.where}", self._retry_s)

    def close(self) -> None:
        self._client.close()

    # -- calls ---------------------------------------------------------------------------------

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """One request, retried until the limit: at once at first, since an `mlflow server` without Flask-WTF fails now and then where several
        searches meet (each of them imports its account module anew, and may see the half of it that another has), then with backoff.
        """
        try:
            for attempt in tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_Transient),
                wait=tenacity.wait_random_exponential(multiplier=0.1, max=10),
                stop=tenacity.stop_after_delay(self._retry_s),
                before_sleep=self._patience,
                reraise=True,
            ):
                with attempt:
                    return self._once(method, path, **kwargs)
        except _Transient as error:
            raise StoreUnreachable(
                f"MLflow at {self.where} cannot be reached ({error}); tried for {self._retry_s:g} s. "
                "Start it (mlflow server), or name another with --mlflow-url."
            ) from error
        raise AssertionError("unreachable: Retrying either returns or raises")

    def _once(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """One request. Raises _Transient, StoreUnreachable for what no waiting mends, and StoreError for the rest."""
        try:
            response = self._client.request(method, path, **kwargs)
        except ERRORS as error:
            words = self._client.explain(error)
            if self._client.lasting(error):
                raise StoreUnreachable(f"MLflow at {self.where} cannot be reached: {words}") from error
            if isinstance(error, httpx.HTTPError):
                raise _Transient(words) from error
            raise StoreError(f"MLflow at {self.where}: {words}", request=f"{method} {path}") from error
        except UnicodeError as error:
            raise StoreError(f"MLflow at {self.where}: {method} {path} cannot be sent: {error}") from error
        if response.is_success:
            return response
        own = "error_code" in (json_object(response) or {})
        away = self._client.foreign(response, own=own)
        if away and response.status_code in (403, 407):
            raise StoreUnreachable(f"MLflow at {self.where} cannot be reached: {away}")
        if away or response.status_code in (408, 429) or response.status_code >= 500:
            raise _Transient(away or f"HTTP {response.status_code}")
        return response

    def _api(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        response = self._send(method, "/api/2.0/mlflow/" + path, **kwargs)
        if response.is_success:
            answer = json_object(response)
            if answer is None:
                raise self._not_mlflow()
            self._client.has_answered = True
            return answer
        raise self._refusal(response, f"{method} {path}")

    def _find(self, path: str, what: str, params: Mapping[str, str]) -> Mapping[str, Any] | None:
        """One thing by its name or id, or None when MLflow says that there is no such thing."""
        try:
            found: Mapping[str, Any] = self._api("GET", path, params=params)[what]
        except StoreError as error:
            if error.status == 404 and error.code == GONE:
                return None
            raise
        return found

    def _not_mlflow(self) -> StoreError:
        return StoreError(f"{self.where} does not answer like MLflow; is the URL (and its path prefix) right?")

    def _refusal(self, response: httpx.Response, request: str) -> StoreError:
        """What an answer that is no success says, with advice that fits it."""
        status, where = response.status_code, f"MLflow at {self.where}"
        code = str((json_object(response) or {}).get("error_code") or "")
        elsewhere = self._client.redirect(response)
        if elsewhere:
            return StoreError(f"{where}: {elsewhere}", request=request, status=status)
        words = words_of(response)
        advice = _advice(status, code, words)
        said = f"{where} answered {status} {code}".rstrip()
        return StoreError(f"{said}: {words}{advice}", request=request, status=status, code=code)

    # -- experiments ---------------------------------------------------------------------------

    @_of_mlflow
    def find_experiment(self, name: str) -> str | None:
        experiment = self._find("experiments/get-by-name", "experiment", {"experiment_name": name})
        if experiment is None:
            return None
        if experiment.get("lifecycle_stage") == "deleted":
            raise StoreError(f"experiment {name} was deleted in MLflow; restore it there, or use another name")
        return str(experiment["experiment_id"])

    @_of_mlflow
    def create_experiment(self, name: str) -> str:
        found = self.find_experiment(name)
        if found is not None:
            return found
        try:
            return str(self._api("POST", "experiments/create", json={"name": name})["experiment_id"])
        except StoreError as error:
            if error.code != TAKEN:
                raise
        # Another collector, or this very request before its answer was lost, was first.
        found = self.find_experiment(name)
        if found is None:
            raise StoreError(f"experiment {name} can neither be created nor found at {self.where}")
        return found

    @_of_mlflow
    def experiments(self, prefix: str) -> list[ExperimentInfo]:
        found, token = [], ""
        while True:
            body: dict[str, Any] = {"max_results": PAGE, "filter": f"name LIKE '{prefix}%'", "view_type": "ACTIVE_ONLY"}
            page = self._api("POST", "experiments/search", json=body | ({"page_token": token} if token else {}))
            found += [
                ExperimentInfo(str(e["experiment_id"]), e["name"], _int(e.get("last_update_time")))
                for e in page.get("experiments", [])
            ]
            token = page.get("next_page_token") or ""
            if not token:
                return found

    @_of_mlflow
    def experiment_tags(self, experiment_id: str) -> Mapping[str, str]:
        answer = self._api("GET", "experiments/get", params={"experiment_id": experiment_id})
        return {tag["key"]: tag["value"] for tag in answer["experiment"].get("tags", [])}

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        self._api(
            "POST",
            "experiments/set-experiment-tag",
            json={"experiment_id": experiment_id, "key": key, "value": value},
        )

    # -- runs ----------------------------------------------------------------------------------

    @_of_mlflow
    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        body = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": start_ms,
            "tags": _pairs(tags),
        }
        return _run(self._api("POST", "runs/create", json=body)["run"])

    def log_batch(
        self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, str], tags: Mapping[str, str], at_ms: int
    ) -> None:
        body = {
            "run_id": run_id,
            "metrics": [{"key": k, "value": v, "timestamp": at_ms, "step": 0} for k, v in metrics.items()],
            "params": _pairs(params),
            "tags": _pairs(tags),
        }
        self._api("POST", "runs/log-batch", json=body)

    def set_status(self, run_id: str, status: str, end_ms: int | None) -> None:
        body: dict[str, Any] = {"run_id": run_id, "status": status}
        if end_ms is not None:
            body["end_time"] = end_ms
        self._api("POST", "runs/update", json=body)

    @_of_mlflow
    def get_run(self, run_id: str) -> Run | None:
        found = self._find("runs/get", "run", {"run_id": run_id})
        return None if found is None or found["info"].get("lifecycle_stage") == "deleted" else _run(found)

    def delete_run(self, run_id: str) -> None:
        self._api("POST", "runs/delete", json={"run_id": run_id})

    def search(self, experiment_id: str, filter_string: str) -> Iterator[Run]:
        token = ""
        while True:
            runs, token = self.page(experiment_id, filter_string, OLDEST_FIRST, PAGE, token)
            yield from runs
            if not token:
                return

    @_of_mlflow
    def page(
        self, experiment_id: str, filter_string: str, order_by: Sequence[str], limit: int, token: str
    ) -> tuple[list[Run], str]:
        body: dict[str, Any] = {
            "experiment_ids": [experiment_id],
            "filter": filter_string,
            "max_results": limit,
            "order_by": list(order_by),
        }
        page = self._api("POST", "runs/search", json=body | ({"page_token": token} if token else {}))
        return [_run(run) for run in page.get("runs", [])], page.get("next_page_token") or ""

    def deleted(self, experiment_id: str, filter_string: str) -> set[str]:
        body: dict[str, Any] = {
            "experiment_ids": [experiment_id],
            "filter": filter_string,
            "max_results": PAGE,
            "run_view_type": "DELETED_ONLY",
        }
        found: set[str] = set()
        token = ""
        while True:
            page = self._api("POST", "runs/search", json=body | ({"page_token": token} if token else {}))
            found |= {run["info"]["run_id"] for run in page.get("runs", [])}
            token = page.get("next_page_token") or ""
            if not token:
                return found

    # -- artifacts -----------------------------------------------------------------------------

    def put_artifact(self, run: Run, path: str, content: bytes) -> None:
        response = self._send("PUT", self._artifact_path(run, path), content=content)
        if not response.is_success:
            raise self._refusal(response, f"PUT artifact {path}")

    @_of_mlflow
    def get_artifact(self, run: Run, path: str) -> bytes | None:
        where = self._artifact_path(run, path)
        try:
            response = self._once("GET", where)
        except _Transient:
            # Behind an S3 bucket, MLflow answers 500 for a file that is not there, and others 404 without a word; the listing tells
            # that from an outage.
            listing = self._api("GET", "artifacts/list", params={"run_id": run.run_id})
            if path not in {file["path"] for file in listing.get("files", [])}:
                return None
            response = self._send("GET", where)
        if response.status_code == 404:
            return None
        if not response.is_success:
            raise self._refusal(response, f"GET artifact {path}")
        return response.content

    def _artifact_path(self, run: Run, path: str) -> str:
        scheme, _, rest = run.artifact_uri.partition(":")
        if scheme != "mlflow-artifacts":
            raise StoreError(
                f"run {run.run_id} keeps its artifacts at {run.artifact_uri}, not behind MLflow; start the server with "
                "--serve-artifacts and no --default-artifact-root, so that tipbench can reach them through it"
            )
        root = rest.split("/", 3)[3] if rest.startswith("//") else rest.lstrip("/")
        return f"/api/2.0/mlflow-artifacts/artifacts/{quote(root)}/{quote(path)}"


def _advice(status: int, code: str, words: str) -> str:
    """What to do about a refusal; nothing where nothing is known to help."""
    if status == 401:
        return " Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    if status == 403 and code != DENIED and "host" in words.lower():
        return " The server protects its host names: add this one to MLFLOW_SERVER_ALLOWED_HOSTS, port included."
    if status == 403:
        return " The account that tipbench uses may not do this; have it given the permission, or use another one."
    if status == 404 and not code:
        return " Is the URL (and its path prefix) right?"
    return ""


def _pairs(mapping: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in mapping.items()]


def _int(value: object) -> int | None:
    return int(str(value)) if value not in (None, "") else None


def _run(raw: Mapping[str, Any]) -> Run:
    info, data = raw["info"], raw.get("data", {})
    return Run(
        run_id=info["run_id"],
        status=info["status"],
        artifact_uri=info.get("artifact_uri", ""),
        start_ms=_int(info.get("start_time")) or int(time.time() * 1000),
        end_ms=_int(info.get("end_time")),
        params={p["key"]: p["value"] for p in data.get("params", [])},
        metrics={m["key"]: float(m["value"]) for m in data.get("metrics", [])},
        tags={t["key"]: t.get("value", "") for t in data.get("tags", [])},
    )
