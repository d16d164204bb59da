"""What runs a collection: Airflow, or this machine. The routes know only this protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from tipbench.api.models import RunState, TaskBody
from tipbench.api.problems import Problem
from tipbench.pipeline import chain_of


@dataclass(frozen=True)
class PipelineRun:
    """One run of the pipeline, as a back end knows it."""

    id: str
    state: RunState
    config: Mapping[str, Any]
    """The keys that were asked for, with the back end's defaults filled in."""
    started_by: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    url: str | None = None
    tasks: Sequence[TaskBody] = field(default=())
    reason: str | None = None

    @property
    def in_rounds(self) -> bool:
        """Is it one of a chain, of which each run is a round?"""
        return self.config.get("until") == "sure" or chain_of(self.id)[1] > 1

    @property
    def over(self) -> bool:
        """True when nothing will change any more."""
        return self.state in ("success", "failed", "cancelled")


class Backend(Protocol):
    """Starts runs and tells of them. Methods block, and may be called from several threads.

    They raise Problem (what the caller can mend) and the tipbench errors of the service behind it.
    """

    name: Literal["airflow", "local"]

    def defaults(self) -> Mapping[str, Any]:
        """The keys that a run may set here, with their defaults."""

    def start(self, run_id: str, config: Mapping[str, Any], started_by: str) -> tuple[PipelineRun, bool]:
        """Start a run, and whether it is new: an id that is taken is answered with the run that has it."""

    def runs(self, experiment: str, limit: int, offset: int) -> tuple[list[PipelineRun], int]:
        """The latest runs without their tasks, newest first, of one experiment or ("") of all; and how many there are."""

    def run(self, run_id: str) -> PipelineRun:
        """One run with its tasks; 404 without it."""

    def chain(self, run_id: str) -> list[PipelineRun]:
        """The runs of the chain that a run is in, by round, without their tasks."""

    def cancel(self, run_id: str, by: str) -> PipelineRun:
        """Stop a run; 409 when it is over."""

    def check(self) -> None:
        """Raises when the back end cannot be reached."""

    def close(self) -> None:
        """Stop what runs in this process, and release connections."""


def stop(back_end: Backend, run_id: str, by: str) -> PipelineRun:
    """Stop a run and, of a chain, whichever round is under way; 409 when all is over."""
    run = back_end.run(run_id)
    if not run.in_rounds:
        return back_end.cancel(run_id, by)
    stopped = False
    # A round that ends just now may have started the next one: looked at again until none is left.
    while active := [one for one in back_end.chain(run_id) if not one.over]:
        for one in active:
            try:
                back_end.cancel(one.id, by)
                stopped = True
            except Problem as problem:
                if problem.status_code != 409:
                    raise
    return back_end.run(run_id) if stopped else back_end.cancel(run_id, by)


def state_of(tasks: Sequence[TaskBody], state: RunState) -> RunState:
    """A running run that only waits for a judge is `waiting`."""
    waiting = any(t.state == "waiting" for t in tasks)
    return "waiting" if state == "running" and waiting else state
