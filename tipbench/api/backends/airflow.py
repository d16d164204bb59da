"""Runs through Airflow's REST API v2: the DAG `bench_collect` of an Airflow 3."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

import httpx

from tipbench.api.backends import PipelineRun, state_of
from tipbench.api.models import RunState, TaskBody, TaskState
from tipbench.api.problems import Problem, invalid
from tipbench.config import KEYS, split_list
from tipbench.errors import TipbenchError, UnreachableError
from tipbench.net.address import read_address, without_credentials
from tipbench.net.clients import ERRORS, json_object, open_client, read_tls, words_of
from tipbench.net.secret import Secret, hide
from tipbench.pipeline import WAITS, chain_of

DAG = "bench_collect"
WAITING_TASKS = tuple(sorted(WAITS))
STARTED, CANCELLED, THROUGH = "started by ", "cancelled by ", " through the tipbench API"
"""What the note of a run tells: Airflow itself knows only its own user, and `failed`."""
RENEW_BEFORE_S = 60.0
PARAMS_S = 30.0
"""How long the DAG's parameters are believed."""
PAGE = 100
"""Airflow's own limit for a page, by default."""
STATES: Mapping[str | None, TaskState] = {
    None: "pending",
    "scheduled": "pending",
    "queued": "pending",
    "up_for_retry": "pending",
    "running": "running",
    "restarting": "running",
    "deferred": "running",
    "up_for_reschedule": "running",
    "success": "success",
    "failed": "failed",
    "upstream_failed": "skipped",
    "skipped": "skipped",
    "removed": "skipped",
}
CLEARS = "clear_away"
"""The task that deletes what a run left: Airflow lets it end before it calls a stopped run failed."""
ORDER = (
    *("plan", "collect", "export_for_judge", "pick_judge", "export_sample", "judge", "await_scores", "await_sample"),
    *("compare", "another_round", "next_round", CLEARS),
)


class AirflowUnreachable(UnreachableError):
    """No answer in time, or no connection: 503."""


class AirflowError(TipbenchError):
    """Airflow answered, and its answer is of no use: 502. `status` is the HTTP status, where there is one."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class AirflowBackend:
    """One Airflow, one account; the token is kept until it expires or is refused."""

    name: Literal["airflow", "local"] = "airflow"

    def __init__(
        self, url: str, username: str, password: str | Secret, *, public_url: str = "", timeout_s: float = 5.0
    ) -> None:
        """Raises InputError for an address, a password, a certificate or a proxy that cannot be used."""
        self._where = read_address(url, "TIPBENCH_AIRFLOW_URL")
        self._username = username
        self._password = password if isinstance(password, Secret) else Secret(password, "TIPBENCH_AIRFLOW_PASSWORD")
        self._public = without_credentials(public_url).rstrip("/")
        self._client = open_client(
            self._where,
            name="Airflow",
            option="TIPBENCH_AIRFLOW_URL",
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 3.0)),
            tls=read_tls(),
        )
        self._lock = threading.Lock()
        self._token, self._good_until = "", 0.0
        self._params: tuple[float, dict[str, Any]] = (-PARAMS_S, {})
        self._reasons: OrderedDict[tuple[str, str, int, int], str | None] = OrderedDict()

    def close(self) -> None:
        self._client.close()

    # -- calls ---------------------------------------------------------------------------------

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """One request with a valid token. 4xx answers come back; anything else that is no success raises."""
        response = self._send(method, path, self._valid_token(), **kwargs)
        if response.status_code in (401, 403):
            # Fine by its own date, but Airflow has another key now, which it calls 401 or 403: once more with a new token.
            response = self._send(method, path, self._valid_token(refused=True), **kwargs)
        if response.status_code in (401, 403):
            raise AirflowError(
                f"Airflow at {self._where} refuses the API's account ({response.status_code}); check "
                "TIPBENCH_AIRFLOW_USERNAME and TIPBENCH_AIRFLOW_PASSWORD, and the account's role"
            )
        return response

    def _send(self, method: str, path: str, token: str, **kwargs: Any) -> httpx.Response:
        headers = {"Accept": "application/json"}
        # Airflow reads its token from this very header, so an account of a proxy before it has no place of its own.
        auth: Any = httpx.USE_CLIENT_DEFAULT
        if token:
            headers["Authorization"], auth = f"Bearer {token}", None
        try:
            response = self._client.request(method, path, headers=headers, auth=auth, **kwargs)
        except ERRORS as error:
            raise AirflowUnreachable(
                f"Airflow at {self._where} cannot be reached: {self._client.explain(error)}"
            ) from error
        except UnicodeError as error:
            raise AirflowError(
                f"Airflow at {self._where}: {method} {path} cannot be sent: {hide(str(error))}"
            ) from error
        if away := self._client.foreign(response, own=json_object(response) is not None):
            raise AirflowUnreachable(f"Airflow at {self._where} cannot be reached: {away}")
        elsewhere = self._client.redirect(response)
        if elsewhere:
            raise AirflowError(f"Airflow at {self._where}: {elsewhere}", status=response.status_code)
        if response.status_code in (502, 503, 504):
            raise AirflowUnreachable(f"Airflow at {self._where} is not ready ({response.status_code})")
        if response.status_code >= 500:
            raise AirflowError(f"Airflow at {self._where} failed ({response.status_code}); its log tells why")
        return response

    def _valid_token(self, refused: bool = False) -> str:
        with self._lock:
            if refused or time.time() > self._good_until:
                response = self._send(
                    "POST", "/auth/token", "", json={"username": self._username, "password": self._password.reveal()}
                )
                if response.status_code != 201:
                    raise AirflowError(
                        f"Airflow at {self._where} gives the API no token ({response.status_code}); check "
                        "TIPBENCH_AIRFLOW_USERNAME and TIPBENCH_AIRFLOW_PASSWORD"
                    )
                token = str(self._json(response).get("access_token", ""))
                self._token = Secret(token, "Airflow's token").reveal()
                self._good_until = _expiry(self._token) - RENEW_BEFORE_S
            return self._token

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        body = json_object(response)
        if body is None:
            raise AirflowError(
                f"{self._where} does not answer like Airflow; is TIPBENCH_AIRFLOW_URL right?",
                status=response.status_code,
            )
        return body

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        response = self._call("GET", path, params=params)
        if response.status_code == 404:
            raise Problem(404, str(self._json(response).get("detail", "Airflow has no such thing.")))
        return self._json(self._well(response))

    def _well(self, response: httpx.Response) -> httpx.Response:
        if not response.is_success:
            raise AirflowError(
                f"Airflow at {self._where} answered {response.status_code}: {_detail(response)}",
                status=response.status_code,
            )
        return response

    # -- the DAG -------------------------------------------------------------------------------

    def defaults(self) -> Mapping[str, Any]:
        read_at, known = self._params
        if time.monotonic() - read_at < PARAMS_S:
            return known
        response = self._call("GET", f"/api/v2/dags/{DAG}/details")
        if response.status_code == 404:
            raise _no_dag(self._where)
        params = self._json(self._well(response)).get("params") or {}
        found = _shown({name: spec.get("value") if isinstance(spec, dict) else spec for name, spec in params.items()})
        self._params = (time.monotonic(), found)
        return found

    def start(self, run_id: str, config: Mapping[str, Any], started_by: str) -> tuple[PipelineRun, bool]:
        # An address that is the DAG's own is left to the DAG: what is shown of it has no credentials.
        known = self._known_defaults()
        conf = {name: value for name, value in config.items() if name not in ADDRESSES or value != known.get(name)}
        body = {
            "dag_run_id": run_id,
            "logical_date": None,
            "conf": conf,
            "note": f"{STARTED}{started_by}{THROUGH}",
        }
        try:
            response = self._call("POST", f"/api/v2/dags/{DAG}/dagRuns", json=body)
        except AirflowError as error:
            # Two requests with one id at the same moment can end as an error of Airflow's database: one of them is in.
            try:
                return self.run(run_id), False
            except Problem:
                raise error from None
        if response.status_code == 409:
            return self.run(run_id), False
        if response.status_code == 404:
            raise _no_dag(self._where)
        if response.status_code in (400, 422):
            raise invalid(f"Airflow refuses this configuration: {_detail(response)}")
        run = self._json(self._well(response))
        # A run of a paused DAG would wait for ever.
        dag = self._get(f"/api/v2/dags/{DAG}")
        if dag.get("is_paused"):
            self._well(self._call("PATCH", f"/api/v2/dags/{DAG}", json={"is_paused": False}))
        return self._as_run(run), True

    def runs(self, experiment: str, limit: int, offset: int) -> tuple[list[PipelineRun], int]:
        path = f"/api/v2/dags/{DAG}/dagRuns"
        try:
            if not experiment:
                page = self._get(path, limit=limit, offset=offset, order_by="-run_after")
                return self._seen(page["dag_runs"]), int(page["total_entries"])
            # Airflow cannot be asked for a default that was not in the conf: the latest are looked through.
            page = self._get(path, limit=PAGE, order_by="-run_after")
        except Problem:
            return [], 0
        found = [run for run in self._seen(page["dag_runs"]) if run.config.get("experiment") == experiment]
        return found[offset : offset + limit], len(found)

    def _seen(self, entries: Sequence[Mapping[str, Any]]) -> list[PipelineRun]:
        """Runs as a list shows them: those that only wait for a judge say so."""
        runs = [self._as_run(one) for one in entries]
        if any(run.state == "running" for run in runs):
            path = f"/api/v2/dags/{DAG}/dagRuns/~/taskInstances"
            states = [state for state, word in STATES.items() if word == "running"]
            ids = {
                one["dag_run_id"]
                for task in WAITING_TASKS
                for one in self._get(path, task_id=task, state=states, limit=PAGE)["task_instances"]
            }
            runs = [replace(run, state="waiting") if run.state == "running" and run.id in ids else run for run in runs]
        return runs

    def run(self, run_id: str) -> PipelineRun:
        path = f"/api/v2/dags/{DAG}/dagRuns/{quote(run_id, safe='')}"
        raw = self._get(path)
        run = self._as_run(raw)
        entries: list[dict[str, Any]] = []
        while True:
            page = self._get(f"{path}/taskInstances", limit=PAGE, offset=len(entries))
            entries += page["task_instances"]
            if not page["task_instances"] or len(entries) >= int(page["total_entries"]):
                break
        models = split_list(str(run.config.get("models", "")))
        tasks = sorted((self._task(run, one, models) for one in entries), key=_place)
        if run.state == "running" and _is_stopped(entries):
            run = self._as_run({**raw, "state": "failed"})
        failed = [
            f"{t.task if t.map_index is None else t.label}: {t.reason or 'failed'}"
            for t in tasks
            if t.state == "failed"
        ]
        reason = run.reason or ("; ".join(failed) if run.state == "failed" and failed else None)
        return replace(run, tasks=tuple(tasks), state=state_of(tasks, run.state), reason=reason)

    def chain(self, run_id: str) -> list[PipelineRun]:
        first, _ = chain_of(run_id)
        # An Airflow that does not know the pattern gives the latest runs, among which a chain's are.
        page = self._get(f"/api/v2/dags/{DAG}/dagRuns", limit=PAGE, order_by="-run_after", run_id_pattern=f"{first}%")
        found = [run for run in self._seen(page["dag_runs"]) if chain_of(run.id)[0] == first]
        return sorted(found, key=lambda run: chain_of(run.id)[1])

    def cancel(self, run_id: str, by: str) -> PipelineRun:
        run = self.run(run_id)
        if run.over:
            raise Problem(409, f"This run is over already: {run.state}.")
        path = f"/api/v2/dags/{DAG}/dagRuns/{quote(run_id, safe='')}"
        begun = f"{STARTED}{run.started_by}{THROUGH}; " if run.started_by else ""
        body = {"state": "failed", "note": f"{begun}{CANCELLED}{by}{THROUGH}"}
        self._well(self._call("PATCH", path, json=body))
        return self.run(run_id)

    def check(self) -> None:
        self.defaults()

    # -- reading -------------------------------------------------------------------------------

    def _as_run(self, raw: Mapping[str, Any]) -> PipelineRun:
        notes = dict(_notes(str(raw.get("note") or "")))
        state, canceller = str(raw["state"]), notes.get(CANCELLED)
        cancelled = state == "failed" and canceller is not None
        states: Mapping[str, RunState] = {"queued": "queued", "success": "success", "failed": "failed"}
        return PipelineRun(
            id=raw["dag_run_id"],
            state="cancelled" if cancelled else states.get(state, "running"),
            config={**self._known_defaults(), **_shown(raw.get("conf") or {})},
            # Started elsewhere than here, Airflow knows its own user; nobody when a schedule did.
            started_by=notes.get(STARTED) or raw.get("triggering_user_name") or None,
            queued_at=_time(raw.get("queued_at")),
            started_at=_time(raw.get("start_date")),
            ended_at=_time(raw.get("end_date")),
            url=f"{self._public}/dags/{DAG}/runs/{quote(raw['dag_run_id'], safe='')}" if self._public else None,
            reason=f"{CANCELLED}{canceller}" if cancelled else None,
        )

    def _known_defaults(self) -> dict[str, Any]:
        try:
            return dict(self.defaults())
        except (TipbenchError, Problem):
            return {}

    def _task(self, run: PipelineRun, raw: Mapping[str, Any], models: tuple[str, ...]) -> TaskBody:
        task, index, raw_state = raw["task_id"], raw["map_index"], raw["state"]
        state = STATES.get(raw_state, "pending")
        if task in WAITS and state == "running":
            state = "waiting"
        mapped = index >= 0
        label = models[index] if mapped and index < len(models) else raw.get("rendered_map_index") or task
        url = f"{run.url}/tasks/{task}" + (f"/mapped/{index}" if mapped else "") if run.url else None
        reason = None
        if raw_state in ("failed", "up_for_retry"):
            reason = self._reason(run.id, task, index, int(raw["try_number"]))
        elif raw_state == "upstream_failed":
            reason = "not tried: something before it failed"
        return TaskBody(
            task=task,
            map_index=index if mapped else None,
            label=str(label),
            state=state,
            raw_state=raw_state,
            attempt=raw["try_number"],
            started_at=_time(raw["start_date"]),
            ended_at=_time(raw["end_date"]),
            reason=reason,
            url=url,
        )

    def _reason(self, run_id: str, task: str, index: int, attempt: int) -> str | None:
        """Why an attempt failed: the last error in its log. Kept, since a finished attempt's log does not change."""
        slot = (run_id, task, index, attempt)
        if slot not in self._reasons:
            path = f"/api/v2/dags/{DAG}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task}/logs/{attempt}"
            try:
                log = self._get(path, map_index=index, full_content="true")
            except (TipbenchError, Problem):
                return None
            self._reasons[slot] = _last_error(log.get("content", []))
            while len(self._reasons) > 1000:
                self._reasons.popitem(last=False)
        return self._reasons[slot]


def _no_dag(where: str) -> AirflowUnreachable:
    return AirflowUnreachable(
        f"Airflow at {where} does not know the DAG {DAG} (yet); it may still be starting, or dags/{DAG}.py is not in its folder"
    )


def _notes(note: str) -> Iterator[tuple[str, str]]:
    """What a note of ours says: ("started by ", "ada")."""
    for part in note.split("; "):
        for verb in (STARTED, CANCELLED):
            if part.startswith(verb) and part.endswith(THROUGH):
                yield verb, part[len(verb) : -len(THROUGH)]


HIDDEN = frozenset(name for name, spec in KEYS.items() if spec.metadata.get("hidden"))
ADDRESSES = frozenset(name for name, spec in KEYS.items() if "address" in spec.metadata)


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as they may be seen: an address that somebody gave Airflow with a password in it is shown without, a secret not at all."""
    return {
        name: without_credentials(value) if name in ADDRESSES and isinstance(value, str) else value
        for name, value in values.items()
        if name not in HIDDEN
    }


def _detail(response: httpx.Response) -> str:
    return words_of(response, 1000)


def _expiry(token: str) -> float:
    """When a JWT ends, by its own words; ten minutes from now when it does not say."""
    try:
        part = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
    except (IndexError, KeyError, ValueError, TypeError, binascii.Error):
        return time.time() + 600


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def _is_stopped(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Is all of a run over without a board, but for what clears away after it?"""
    states = [(one["task_id"], STATES.get(one["state"], "pending")) for one in entries if one["task_id"] != CLEARS]
    over = all(state in ("success", "failed", "skipped") for _, state in states)
    return bool(states) and over and ("compare", "success") not in states


def _place(task: TaskBody) -> tuple[int, int]:
    return (ORDER.index(task.task) if task.task in ORDER else len(ORDER), task.map_index or 0)


def _last_error(lines: list[Any]) -> str | None:
    """The words of the last error in a structured log: the exception's own where there is one."""
    for line in reversed(lines):
        if not isinstance(line, dict) or line.get("level") not in ("error", "critical"):
            continue
        details = line.get("error_detail") or []
        if details and isinstance(details[-1], dict) and details[-1].get("exc_value"):
            return hide(str(details[-1]["exc_value"]))[:2000]
        if line.get("event"):
            return hide(str(line["event"]))[:2000]
    return None
