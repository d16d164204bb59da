"""A store in a local folder: MLflow's own SQLite store, in this process, without a server."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tipbench.errors import InputError
from tipbench.files import why, write_whole
from tipbench.store.backend import OLDEST_FIRST, StoreError
from tipbench.store.records import ExperimentInfo, Run


class LocalBackend:
    """`FOLDER/mlflow.db` for runs, `FOLDER/artifacts` for files; `mlflow ui` opens the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser().absolute()
        self.where = str(self._folder)
        try:
            (self._folder / "artifacts").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the local store {self._folder} cannot be used ({why(error)})") from error
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise InputError("a local store needs the full mlflow package: pip install 'tipbench[local]'") from error
        # MLflow narrates its schema migrations, which says nothing to the user of a fresh folder.
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # It prints the traceback of what it then raises, which is said in a sentence here.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        # MLflow wraps most of its database's errors, not all of them.
        self._errors = (MlflowException, *_database_errors())
        with self._words():
            self._client = MlflowClient(tracking_uri=f"sqlite:///{self._folder / 'mlflow.db'}")

    def close(self) -> None:
        """Nothing to release: SQLite's connections end with the process."""

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise StoreError(f"the local store {self.where}: {_in_words(str(error))}") from error
        except OSError as error:
            raise StoreError(f"the local store {self.where} cannot be used ({why(error)})") from error

    def find_experiment(self, name: str) -> str | None:
        with self._words():
            experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            raise StoreError(f"experiment {name} was deleted in MLflow; restore it there, or use another name")
        return str(experiment.experiment_id)

    def create_experiment(self, name: str) -> str:
        found = self.find_experiment(name)
        if found is not None:
            return found
        with self._words():
            return str(
                self._client.create_experiment(name, artifact_location=(self._folder / "artifacts" / name).as_uri())
            )

    def experiments(self, prefix: str) -> list[ExperimentInfo]:
        found: list[ExperimentInfo] = []
        token = None
        with self._words():
            while True:
                page = self._client.search_experiments(filter_string=f"name LIKE '{prefix}%'", page_token=token)
                found += [ExperimentInfo(str(e.experiment_id), e.name, e.last_update_time) for e in page]
                token = page.token
                if not token:
                    return found

    def experiment_tags(self, experiment_id: str) -> Mapping[str, str]:
        with self._words():
            return dict(self._client.get_experiment(experiment_id).tags)

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        with self._words():
            self._client.set_experiment_tag(experiment_id, key, value)

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        with self._words():
            return _run(self._client.create_run(experiment_id, start_time=start_ms, tags=dict(tags), run_name=name))

    def log_batch(
        self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, str], tags: Mapping[str, str], at_ms: int
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        with self._words():
            self._client.log_batch(
                run_id,
                metrics=[Metric(k, v, at_ms, 0) for k, v in metrics.items()],
                params=[Param(k, v) for k, v in params.items()],
                tags=[RunTag(k, v) for k, v in tags.items()],
            )

    def set_status(self, run_id: str, status: str, end_ms: int | None) -> None:
        with self._words():
            if end_ms is None:
                self._client.update_run(run_id, status=status)
            else:
                self._client.set_terminated(run_id, status=status, end_time=end_ms)

    def get_run(self, run_id: str) -> Run | None:
        with self._words():
            try:
                found = self._client.get_run(run_id)
            except self._errors as error:
                if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
        return None if found.info.lifecycle_stage == "deleted" else _run(found)

    def delete_run(self, run_id: str) -> None:
        with self._words():
            self._client.delete_run(run_id)

    def search(self, experiment_id: str, filter_string: str) -> Iterator[Run]:
        token = ""
        while True:
            runs, token = self.page(experiment_id, filter_string, OLDEST_FIRST, 1000, token)
            yield from runs
            if not token:
                return

    def page(
        self, experiment_id: str, filter_string: str, order_by: Sequence[str], limit: int, token: str
    ) -> tuple[list[Run], str]:
        with self._words():
            page = self._client.search_runs(
                [experiment_id],
                filter_string=filter_string,
                max_results=limit,
                order_by=list(order_by),
                page_token=token or None,
            )
        following = page.token or ""  # The client hands its own token out as bytes.
        return [_run(run) for run in page], following.decode() if isinstance(following, bytes) else following

    def deleted(self, experiment_id: str, filter_string: str) -> set[str]:
        from mlflow.entities import ViewType

        found: set[str] = set()
        token = None
        with self._words():
            while True:
                page = self._client.search_runs(
                    [experiment_id], filter_string, run_view_type=ViewType.DELETED_ONLY, page_token=token
                )
                found |= {run.info.run_id for run in page}
                token = page.token
                if not token:
                    return found

    def put_artifact(self, run: Run, path: str, content: bytes) -> None:
        target = self._artifact(run, path)
        write_whole(target, content)

    def get_artifact(self, run: Run, path: str) -> bytes | None:
        try:
            return self._artifact(run, path).read_bytes()
        except FileNotFoundError:
            return None

    def _artifact(self, run: Run, path: str) -> Path:
        from mlflow.utils.file_utils import local_file_uri_to_path

        return Path(local_file_uri_to_path(run.artifact_uri)) / path


SQLITE = {
    "disk is full": "the disk is full; free some space, then run the same command again",
    "readonly database": "it is read-only; name another folder, or change its permissions",
    "unable to open database": "mlflow.db cannot be opened; name another folder, or change its permissions",
    "not a database": "mlflow.db is no MLflow database; name another folder",
    "malformed": "mlflow.db is damaged; restore it from a copy, or name another folder",
    "locking protocol": "its file system has no locks, as some network file systems; name a folder on a local disk",
    "database is locked": "another program holds mlflow.db; wait for it. On a network file system, name a folder on a local disk",
    "disk i/o error": "the disk reports an error; on a network file system, name a folder on a local disk",
    "detected out-of-date database schema": "another version of MLflow made it; run: mlflow db upgrade sqlite:///FOLDER/mlflow.db",
}
"""What SQLite says, and what a person can do."""


def _database_errors() -> tuple[type[Exception], ...]:
    import sqlite3

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return (sqlite3.Error,)
    return (sqlite3.Error, SQLAlchemyError)


def _in_words(message: str) -> str:
    """A database's error without its SQL."""
    found = next((words for sign, words in SQLITE.items() if sign in message.lower()), None)
    return found or message.split("\n[SQL", 1)[0].split(" [SQL", 1)[0][:500]


def _run(raw: Any) -> Run:
    return Run(
        run_id=raw.info.run_id,
        status=raw.info.status,
        artifact_uri=raw.info.artifact_uri,
        start_ms=raw.info.start_time,
        end_ms=raw.info.end_time,
        params=dict(raw.data.params),
        metrics=dict(raw.data.metrics),
        tags=dict(raw.data.tags),
    )
