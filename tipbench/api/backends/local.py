"""Runs on this machine: the commands that the pods would run, one after the other, one collection at a time.

Every step is on disk before it is taken, so that a restart tells the truth: what was being collected was interrupted, what was
waiting for a judge goes on waiting. A stage is a process of its own: it can be stopped, and its memory goes with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, TypeAdapter, ValidationError

from tipbench.api.backends import PipelineRun, state_of
from tipbench.api.models import JUDGE_KEYS, SERVER_KEYS, RunState, TaskBody, TaskState
from tipbench.api.problems import Problem, invalid
from tipbench.config import ENV_PREFIX, KEYS, Config
from tipbench.errors import BusyError, InputError, TipbenchError
from tipbench.files import explained, lock, writable, write_whole
from tipbench.net.address import revealed
from tipbench.outcome import VARIABLE
from tipbench.pipeline import WAITS, Step, arguments, chain_of, goes_on, round_id, steps

POLL_S = 2.0
STOP_S = 20.0
"""How long an interrupted stage may take to save what it has."""
KEPT = 200
"""Runs remembered."""
INTERRUPTED = "The API was stopped while this ran. Nothing that was collected is lost; start it again and it goes on where it stopped."


class _Record(BaseModel):
    """A run, as it lies on disk."""

    id: str
    state: RunState = "queued"
    config: dict[str, Any]
    started_by: str
    queued_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    tasks: list[TaskBody]
    reason: str | None = None
    pid: int | None = None

    @property
    def over(self) -> bool:
        return self.state in ("success", "failed", "cancelled")

    def as_run(self) -> PipelineRun:
        return PipelineRun(
            id=self.id,
            state=state_of(self.tasks, self.state),
            config=self.config,
            started_by=self.started_by,
            queued_at=self.queued_at,
            started_at=self.started_at,
            ended_at=self.ended_at,
            tasks=tuple(self.tasks),
            reason=self.reason,
        )


class _Stopped(Exception):
    """The run ends here: cancelled, or the API stops."""


class _Failed(Exception):
    """A stage failed; the message says why."""


class Asked(Protocol):
    """What the store's tags say, as the DAG's own tasks read them. Raises TipbenchError while the store is away."""

    def waits(self, step: Step, config: Mapping[str, Any]) -> bool:
        """Does a run of this configuration wait on, in a step that waits for people or agents?"""

    def next(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """What an experiment in rounds needs next: `action` (collect, judge, stop), `looks_taken` and `reason`."""


class LocalBackend:
    """Runs in threads of this process, each of which walks through one run's stages."""

    name: Literal["airflow", "local"] = "local"

    def __init__(self, folder: Path, config: Config, store_url: str, asked: Asked) -> None:
        """`asked` answers what the DAG's own tasks would ask MLflow; it may raise TipbenchError while the store is away.

        Raises InputError when another process has the folder.
        """
        self._folder = folder
        self._config = config
        self._store_url = store_url
        self._asked = asked
        self._lock = threading.RLock()
        self._stops: dict[str, threading.Event] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._closing = False
        writable(folder, "the state folder", "name another (TIPBENCH_STATE_DIR)")
        with explained(folder):
            self._hold = (folder / ".lock").open("ab")
        try:
            lock(
                self._hold,
                f"another tipbench serve keeps its runs in {folder}; stop it, or name another folder (TIPBENCH_STATE_DIR)",
                f"the state folder {folder}",
                "name a folder on a local disk (TIPBENCH_STATE_DIR)",
            )
        except BusyError as error:
            raise InputError(str(error)) from error
        self._records = _load(folder)
        self._recover()

    # -- the protocol --------------------------------------------------------------------------

    def defaults(self) -> Mapping[str, Any]:
        keys = {name: value for name, value in asdict(self._config).items() if name not in SERVER_KEYS}
        judge = {name: rules["default"] for name, rules in JUDGE_KEYS.items() if name != "collect_memory"}
        return keys | {"mlflow_url": self._store_url} | judge

    def start(self, run_id: str, config: Mapping[str, Any], started_by: str) -> tuple[PipelineRun, bool]:
        with self._lock:
            if run_id in self._records:
                return self._records[run_id].as_run(), False
            if config.get("mlflow_url", self._store_url) != self._store_url:
                raise invalid(
                    "configuration: 1 fault", ("/mlflow_url", f"this API keeps its runs at {self._store_url}")
                )
            active = next(
                (r for r in self._records.values() if r.state in ("queued", "running") and not _waits(r)), None
            )
            if active is not None:
                raise Problem(
                    409,
                    f"This machine does one collection at a time, and {active.id} is under way; wait, or cancel it.",
                )
            record = self._new(run_id, {**self.defaults(), **config}, started_by)
            self._begin(record)
            return record.as_run(), True

    def _new(self, run_id: str, config: dict[str, Any], started_by: str) -> _Record:
        record = _Record(
            id=run_id,
            config=config,
            started_by=started_by,
            queued_at=datetime.now(UTC),
            tasks=[
                TaskBody(task=name, label=name, state="pending", raw_state=None)
                for name in steps(config["judge"], config["sample"])
            ],
        )
        self._records[run_id] = record
        self._save(record)
        return record

    def runs(self, experiment: str, limit: int, offset: int) -> tuple[list[PipelineRun], int]:
        with self._lock:
            found = [r.as_run() for r in self._records.values() if experiment in ("", r.config["experiment"])]
        found.sort(key=lambda run: run.queued_at or datetime.min.replace(tzinfo=UTC), reverse=True)
        return found[offset : offset + limit], len(found)

    def run(self, run_id: str) -> PipelineRun:
        with self._lock:
            return self._record(run_id).as_run()

    def chain(self, run_id: str) -> list[PipelineRun]:
        first, _ = chain_of(run_id)
        with self._lock:
            found = [r.as_run() for r in self._records.values() if chain_of(r.id)[0] == first]
        return sorted(found, key=lambda run: chain_of(run.id)[1])

    def cancel(self, run_id: str, by: str) -> PipelineRun:
        with self._lock:
            record = self._record(run_id)
            if record.over:
                raise Problem(409, f"This run is over already: {record.state}.")
            record.reason = f"cancelled by {by}"
            self._save(record)
            self._stops[run_id].set()
            thread = self._threads[run_id]
        thread.join(STOP_S + 5)
        return self.run(run_id)

    def check(self) -> None:
        """This machine is always there."""

    def close(self) -> None:
        self._closing = True
        for stop in self._stops.values():
            stop.set()
        for thread in list(self._threads.values()):
            thread.join(STOP_S + 5)
        self._hold.close()

    def _record(self, run_id: str) -> _Record:
        if run_id not in self._records:
            raise Problem(404, f"There is no run {run_id}.")
        return self._records[run_id]

    # -- what is on disk -----------------------------------------------------------------------

    def _save(self, record: _Record) -> None:
        path = self._folder / f"{record.id}.json"
        write_whole(path, record.model_dump_json(indent=1).encode())

    def _recover(self) -> None:
        """After a restart: runs that waited go on waiting, runs that worked were interrupted."""
        for record in self._records.values():
            if record.over:
                continue
            if _waits(record):
                self._begin(record)
                continue
            _interrupt_orphan(record)
            for task in record.tasks:
                if task.state == "running":
                    self._mark(record, task.task, "failed", INTERRUPTED)
            record.state, record.reason, record.ended_at = "failed", INTERRUPTED, datetime.now(UTC)
            self._save(record)

    # -- the work ------------------------------------------------------------------------------

    def _begin(self, record: _Record) -> None:
        self._stops[record.id] = threading.Event()
        thread = threading.Thread(target=self._work, args=(record,), name=f"run-{record.id}", daemon=True)
        self._threads[record.id] = thread
        thread.start()

    def _work(self, record: _Record) -> None:
        """Walk through the stages that are not done yet; whatever happens ends up in the record."""
        record.state = "running"
        record.started_at = record.started_at or datetime.now(UTC)
        reason: str | None = None
        state: RunState = "success"
        following: _Record | None = None
        try:
            for task in [t.task for t in record.tasks if t.state in ("pending", "waiting")]:
                self._mark(record, task, "waiting" if task in WAITS else "running")
                partly = self._stage(record, task)
                self._mark(record, task, "failed" if partly else "success", partly)
            following = self._next_round(record)
        except _Stopped:
            if self._closing and _waits(record):
                return  # It goes on waiting after the restart.
            state, reason = ("failed", INTERRUPTED) if self._closing else ("cancelled", record.reason)
        except _Failed as error:
            state, reason = "failed", str(error)
        except Exception as error:
            state, reason = "failed", f"{type(error).__name__}: {error}"
        with self._lock:
            for task_body in record.tasks:
                if task_body.state in ("running", "waiting"):
                    self._mark(record, task_body.task, "failed", reason)
            record.state, record.reason, record.ended_at = state, reason, datetime.now(UTC)
            self._save(record)
            if following is not None:
                self._begin(following)

    def _next_round(self, record: _Record) -> _Record | None:
        """With until = sure: the run of the next round, which is not begun yet; None when the race is over. Twice asked is once done."""
        if record.config.get("until") != "sure":
            return None
        said = self._asked.next(record.config)
        if said["action"] == "judge":
            raise _Failed(f"{said['reason']}: not all tips of this round are scored. Score them and start it again.")
        following = round_id(record.id, int(said["looks_taken"]) + 1)
        with self._lock:
            if said["action"] == "stop" or following in self._records or self._stops[record.id].is_set():
                return None
            return self._new(following, dict(record.config), record.started_by)

    def _stage(self, record: _Record, task: str) -> str | None:
        """Do one stage; what failed of it while the rest can go on, as in the DAG."""
        if task in WAITS:
            self._await(record, Step(task))
            return None
        folder = self._folder / record.id
        folder.mkdir(exist_ok=True)
        code, outcome = self._command(record, task, arguments(Step(task), record.config, str(folder)))
        if code and goes_on(Step(task), code):
            counts = [f"{count} failed: {reason}" for reason, count in outcome.get("failed", {}).items()]
            return "; ".join(outcome.get("why") or counts) or "a part failed"
        if code:
            raise _Failed(_why(outcome, code, folder / f"{task}.log"))
        return None

    def _await(self, record: _Record, step: Step) -> None:
        began = next(t.started_at for t in record.tasks if t.task == step) or datetime.now(UTC)
        hours = float(record.config["judge_timeout_hours"])
        while True:
            try:
                if not self._asked.waits(step, record.config):
                    return
            except TipbenchError:
                pass  # The store is away; it is asked again.
            if (datetime.now(UTC) - began).total_seconds() > hours * 3600:
                what = "everything" if step == Step.AWAIT else "the whole sample"
                raise _Failed(
                    f"No judge had scored {what} within {hours:g} hours (judge_timeout_hours). Score the rest, then start "
                    "the same collection again: it collects nothing twice."
                )
            if self._stops[record.id].wait(POLL_S):
                raise _Stopped

    def _command(self, record: _Record, task: str, arguments: Sequence[str]) -> tuple[int, dict[str, Any]]:
        """Run `tipbench` with these arguments; its exit code, and the outcome that it leaves."""
        folder = self._folder / record.id
        result = folder / f"{task}.outcome.json"
        result.unlink(missing_ok=True)
        keys = {name: value for name, value in record.config.items() if name in KEYS} | {"mlflow_url": self._store_url}
        keys |= {name: revealed(value) for name, value in asdict(self._config).items() if name in SERVER_KEYS}
        # The one place where credentials are handed on: a file that only this user reads, to a process of ours.
        owned = {name: getattr(self._config, name) for name in ("ollama_url", "engine_url")}
        for name, own in {**owned, "mlflow_url": self._store_url}.items():
            if keys.get(name) == own:
                keys[name] = revealed(own)
        _write_private(folder / "config.json", json.dumps(keys, indent=1))
        # The file has every key; variables of the same name would win over it.
        env = {k: v for k, v in os.environ.items() if k.removeprefix(ENV_PREFIX).lower() not in KEYS}
        env |= {"TIPBENCH_CONFIG": str(folder / "config.json"), "TIPBENCH_RUN": record.id, VARIABLE: str(result)}
        # What an LLM judge is asked with is no key of the stages that ask it; in arguments, everybody could read it.
        env["TIPBENCH_OLLAMA_URL"] = str(keys["ollama_url"])
        env |= {
            f"{ENV_PREFIX}{name.upper()}": str(record.config.get(name, ""))
            for name in ("judge_parallel", "judge_rationale")
        }
        with (folder / f"{task}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "tipbench", *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            record.pid = process.pid
            self._save(record)
            self._wait(record, process)
        record.pid = None
        try:
            outcome = json.loads(result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            outcome = {}
        return process.returncode, outcome

    def _wait(self, record: _Record, process: subprocess.Popen[bytes]) -> None:
        """Wait for the process; when the run is stopped, interrupt it and let it save what it has."""
        stop = self._stops[record.id]
        while process.poll() is None:
            if not stop.wait(0.1):
                continue
            # Not SIGINT: a server that a script started in the background has it ignored, and so would the stage.
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if stop.is_set():
            raise _Stopped

    def _mark(self, record: _Record, task: str, state: TaskState, reason: str | None = None) -> None:
        with self._lock:
            now = datetime.now(UTC)
            for place, one in enumerate(record.tasks):
                if one.task != task:
                    continue
                begins = state in ("running", "waiting")
                record.tasks[place] = one.model_copy(
                    update={
                        "state": state,
                        "raw_state": state,
                        "attempt": max(one.attempt, 1),
                        "started_at": one.started_at or (now if begins else None),
                        "ended_at": None if begins else now,
                        "reason": reason,
                    }
                )
            self._save(record)


def _waits(record: _Record) -> bool:
    return any(t.task in WAITS and t.state == "waiting" for t in record.tasks)


def _write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read, whatever the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)


def _why(outcome: Mapping[str, Any], code: int, log: Path) -> str:
    """The stage's own words, else the end of its log."""
    if outcome.get("error"):
        return str(outcome["error"])
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"exit code {code}: {lines[-1] if lines else 'no words'}"


def _load(folder: Path) -> dict[str, _Record]:
    """The runs on disk, oldest first; the oldest beyond the limit go."""
    reader = TypeAdapter(_Record)
    found = []
    for path in folder.glob("*.json"):
        try:
            found.append(reader.validate_json(path.read_bytes()))
        except (ValidationError, OSError):
            path.replace(path.with_suffix(".unreadable"))
    found.sort(key=lambda record: record.queued_at)
    for old in [record for record in found[:-KEPT] if record.over]:
        (folder / f"{old.id}.json").unlink(missing_ok=True)
        found.remove(old)
    return {record.id: record for record in found}


def _interrupt_orphan(record: _Record) -> None:
    """Stop a stage that outlived an API that was killed; only when it is certain that it is ours."""
    if record.pid is None:
        return
    try:
        environment = Path(f"/proc/{record.pid}/environ").read_bytes()
        if f"TIPBENCH_RUN={record.id}\0".encode() in environment:
            os.kill(record.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            while Path(f"/proc/{record.pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
    except OSError:
        return
