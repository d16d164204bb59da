"""The dozen MLflow operations that tipbench needs, and the errors they answer with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from tipbench.errors import TipbenchError, UnreachableError
from tipbench.store.records import ExperimentInfo, Run

OLDEST_FIRST = ("attributes.start_time ASC", "attributes.run_id ASC")


class StoreUnreachable(UnreachableError):
    """MLflow gave no usable answer within the retry limit. Exit code 5."""


class StoreError(TipbenchError):
    """MLflow answered, and said no; the message holds its words.

    `request` is the call (`GET experiments/get-by-name`), `status` the HTTP status and `code` MLflow's own word for it
    (`RESOURCE_DOES_NOT_EXIST`), where there are such.
    """

    def __init__(self, message: str, *, request: str = "", status: int | None = None, code: str = "") -> None:
        self.request = request
        self.status = status
        self.code = code
        super().__init__(message)


class Backend(Protocol):
    """Where runs live. Every method may be called from several threads."""

    where: str

    def find_experiment(self, name: str) -> str | None:
        """The id of an active experiment, or None."""

    def create_experiment(self, name: str) -> str:
        """The id of the experiment, created if it was not there."""

    def experiments(self, prefix: str) -> list[ExperimentInfo]:
        """Active experiments whose name starts with `prefix`."""

    def experiment_tags(self, experiment_id: str) -> Mapping[str, str]:
        """Tags of an experiment."""

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Set one tag of an experiment."""

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """A new run in state RUNNING."""

    def log_batch(
        self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, str], tags: Mapping[str, str], at_ms: int
    ) -> None:
        """Metrics, params and tags in one transaction."""

    def set_status(self, run_id: str, status: str, end_ms: int | None) -> None:
        """Move a run to RUNNING, FINISHED, FAILED or KILLED."""

    def get_run(self, run_id: str) -> Run | None:
        """One run, as it is now; None when there is none, or none any more."""

    def delete_run(self, run_id: str) -> None:
        """Take a run out of every listing."""

    def search(self, experiment_id: str, filter_string: str) -> Iterator[Run]:
        """All active runs that match, oldest first, over as many pages as there are."""

    def page(
        self, experiment_id: str, filter_string: str, order_by: Sequence[str], limit: int, token: str
    ) -> tuple[list[Run], str]:
        """At most `limit` active runs that match, from `token` on ("" is the first), and the next page's token ("" is none)."""

    def deleted(self, experiment_id: str, filter_string: str) -> set[str]:
        """Ids of the runs that match and that somebody deleted."""

    def put_artifact(self, run: Run, path: str, content: bytes) -> None:
        """Write one artifact file, replacing it."""

    def get_artifact(self, run: Run, path: str) -> bytes | None:
        """One artifact file; None when it is not there."""

    def close(self) -> None:
        """Release connections."""
