"""The answer as it crosses borders: how many cells count, are judged, are pending, and why the others do not count."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tipbench.counting.census import Census, Entry
from tipbench.counting.judged import Asked, Judges
from tipbench.store.records import Judge

SCHEMA: Literal["tipbench.status/1"] = "tipbench.status/1"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Counts(_Frozen):
    """Cells; a cell is a run for one model, prompt and scenario. `cells` is the sum of all but `pending` and `judged`."""

    cells: int = Field(description="runs that have ended")
    counted: int = Field(description="finished cells that stand on the board; pending ones and judged ones")
    pending: int = Field(description="counted cells in which some tip waits for who was asked")
    judged: int = Field(description="counted cells in which who was asked has scored every tip")
    failed: int = Field(description="cells that failed, and that no other try made good")
    superseded: int = Field(description="cells of another version of the model, the prompt or the scenario")
    twins: int = Field(description="cells that another collector filled, too")


class RowStatus(Counts):
    """The same for one row of the board."""

    model: str
    prompt: str
    variant: str = Field(default="", description="what tells it from other rows of the same names")
    current: bool = True


class JudgeStatus(_Frozen):
    """What one judge, in one version, has scored under this rubric."""

    name: str
    kind: Literal["human", "agent", "llm", "baseline"]
    version: str = ""
    in_force: bool = Field(default=True, description="the version whose scores count")
    judged: int = Field(description="counted cells in which this judge has scored every tip")
    candidates: int = Field(description="tips that this judge has scored")


class Twin(_Frozen):
    """A run that does not count, and the one that does."""

    run_id: str
    counted: str
    model: str
    prompt: str
    scenario: str


class Status(Counts):
    """What counts of an experiment, under one rubric, for who was asked."""

    schema_: Literal["tipbench.status/1"] = Field(default=SCHEMA, alias="schema")
    experiment: str
    rubric_hash: str
    asked: str = Field(
        description="anyone (but the baseline), manual (a person or an agent), llm, baseline, or a judge"
    )
    candidates: int = Field(description="tips in counted cells")
    pending_candidates: int = Field(description="tips that wait for who was asked")
    judges: tuple[JudgeStatus, ...]
    rows: tuple[RowStatus, ...]
    twin_runs: tuple[Twin, ...] = ()
    other_rubrics: tuple[str, ...] = Field(default=(), description="rubrics under which there are scores as well")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def status(experiment: str, census: Census, rubric_hash: str, asked: Asked | None = None) -> Status:
    """The status of an experiment. `asked` None is anybody but the baseline."""
    asked = asked or Asked()
    judges = Judges((e.cell for e in census.counted), rubric_hash)
    waiting = {e.run_id: len(judges.pending(e.cell, asked)) for e in census.counted}
    by_row: dict[tuple[str, bool], list[Entry]] = defaultdict(list)
    current = {info.row.id for info in census.rows if info.current}
    for entry in census.entries:
        # A superseded cell of a current row is a scenario's older version.
        stale = entry.standing == "superseded" and not entry.other and entry.row.id in current
        by_row[entry.row.id, stale].append(entry)
    return Status(
        experiment=experiment,
        rubric_hash=rubric_hash,
        asked=asked.who,
        candidates=sum(e.cell.n_candidates for e in census.counted),
        pending_candidates=sum(waiting.values()),
        judges=tuple(_judges(census, judges)),
        rows=tuple(
            RowStatus(
                model=info.model,
                prompt=info.prompt,
                variant=info.variant,
                current=info.current and not info.stale_columns,
                **_counts(by_row[info.row.id, info.stale_columns], waiting),
            )
            for info in census.rows
        ),
        twin_runs=tuple(
            Twin(run_id=e.run_id, counted=e.other, model=e.cell.model, prompt=e.cell.prompt, scenario=e.cell.scenario)
            for e in census.twins
        ),
        other_rubrics=tuple(sorted(judges.other_rubrics)),
        **_counts(census.entries, waiting),
    )


def _counts(entries: Iterable[Entry], waiting: Mapping[str, int]) -> Any:
    """The fields of `Counts`."""
    entries = list(entries)
    standing = Counter(e.standing for e in entries)
    pending = sum(e.standing == "counted" and waiting[e.run_id] > 0 for e in entries)
    return {
        "cells": len(entries),
        "counted": standing["counted"],
        "pending": pending,
        "judged": standing["counted"] - pending,
        "failed": standing["failed"],
        "superseded": standing["superseded"],
        "twins": standing["twin"],
    }


def _judges(census: Census, judges: Judges) -> Iterable[JudgeStatus]:
    for name in sorted(judges.kinds):
        for version in sorted(judges.versions[name]):
            asked = Asked(name, version)
            scored = [(len(judges.judged(e.cell, asked)), e.cell.n_candidates) for e in census.counted]
            judge = Judge(name, judges.kinds[name], version)  # type: ignore[arg-type]
            yield JudgeStatus(
                name=judge.name,
                kind=judge.kind,
                version=judge.version,
                in_force=version == judges.in_force(name),
                judged=sum(n == total and total > 0 for n, total in scored),
                candidates=sum(n for n, _ in scored),
            )
