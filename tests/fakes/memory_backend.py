"""A store in memory, for tests of what is decided from it: the backend's dozen operations, without MLflow's time and limits."""

from __future__ import annotations

import dataclasses
import itertools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence

from tipbench.store import Store
from tipbench.store.records import ExperimentInfo, Run

_TERM = re.compile(r"(tags|params|attributes)\.`?([^`=!]+?)`? (=|!=) '([^']*)'")


class MemoryBackend:
    """Runs, tags and artifacts in dictionaries; the filters that tipbench uses."""

    where = "memory"

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.gone: set[str] = set()
        self.files: dict[tuple[str, str], bytes] = {}
        self.tags: dict[str, str] = {}
        self.requests = 0
        self._experiment_of: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    def close(self) -> None:
        pass

    def find_experiment(self, name: str) -> str | None:
        return self._names.get(name)

    def create_experiment(self, name: str) -> str:
        return self._names.setdefault(name, str(len(self._names)))

    def experiments(self, prefix: str) -> list[ExperimentInfo]:
        return [ExperimentInfo(i, n, None) for n, i in self._names.items() if n.startswith(prefix)]

    def experiment_tags(self, experiment_id: str) -> Mapping[str, str]:
        return dict(self.tags)

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        self.tags[key] = value

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        with self._lock:
            run_id = f"{next(self._numbers):032x}"
            self._experiment_of[run_id] = experiment_id
            self.runs[run_id] = Run(run_id, "RUNNING", f"memory:{run_id}", start_ms, None, {}, {}, dict(tags))
            return self.runs[run_id]

    def rename(self, run_id: str, new: str) -> None:
        """Give a run another id, as it had elsewhere."""
        with self._lock:
            self.runs[new] = dataclasses.replace(self.runs.pop(run_id), run_id=new)
            self._experiment_of[new] = self._experiment_of.pop(run_id)

    def log_batch(
        self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, str], tags: Mapping[str, str], at_ms: int
    ) -> None:
        with self._lock:
            run = self.runs[run_id]
            for name, value in params.items():
                assert run.params.get(name, value) == value, f"MLflow refuses to change param {name}"
            cut = {key: value[:8000] for key, value in tags.items()}
            self.runs[run_id] = dataclasses.replace(
                run, params={**run.params, **params}, metrics={**run.metrics, **metrics}, tags={**run.tags, **cut}
            )

    def set_status(self, run_id: str, status: str, end_ms: int | None) -> None:
        with self._lock:
            run = self.runs[run_id]
            self.runs[run_id] = dataclasses.replace(run, status=status, end_ms=end_ms or run.end_ms)

    def get_run(self, run_id: str) -> Run | None:
        return None if run_id in self.gone else self.runs.get(run_id)

    def delete_run(self, run_id: str) -> None:
        self.gone.add(run_id)

    def deleted(self, experiment_id: str, filter_string: str) -> set[str]:
        return {r for r in self.gone if _matches(self.runs[r], filter_string)}

    def search(self, experiment_id: str, filter_string: str) -> Iterator[Run]:
        yield from self.page(experiment_id, filter_string, (), 10**9, "")[0]

    def page(
        self, experiment_id: str, filter_string: str, order_by: Sequence[str], limit: int, token: str
    ) -> tuple[list[Run], str]:
        self.requests += 1
        with self._lock:
            found = [
                run
                for run_id, run in self.runs.items()
                if run_id not in self.gone
                and self._experiment_of[run_id] == experiment_id
                and _matches(run, filter_string)
            ]
        if order_by and "DESC" in order_by[0]:
            found.sort(
                key=lambda r: ((r.end_ms or 0) if "end_time" in order_by[0] else r.start_ms, r.run_id), reverse=True
            )
        else:
            found.sort(key=lambda r: (r.start_ms, r.run_id))
        return found[:limit], ""

    def put_artifact(self, run: Run, path: str, content: bytes) -> None:
        self.requests += 1
        self.files[run.run_id, path] = content

    def get_artifact(self, run: Run, path: str) -> bytes | None:
        self.requests += 1
        return self.files.get((run.run_id, path))


def _matches(run: Run, filter_string: str) -> bool:
    terms = _TERM.findall(filter_string)
    assert len(terms) == filter_string.count(" AND ") + bool(filter_string), filter_string
    for kind, name, relation, value in terms:
        found = (
            {"status": run.status}.get(name, "")
            if kind == "attributes"
            else (run.tags if kind == "tags" else run.params).get(name)
        )
        if (found == value) != (relation == "="):
            return False
    return True


def memory_store(backend: MemoryBackend | None = None) -> Store:
    """A store on a backend in memory; several stores on one backend are several processes."""
    return Store(backend or MemoryBackend())
