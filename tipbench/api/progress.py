"""How far a run is: what the back end knows of its tasks, and what the store has of the cells that it is to fill."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tipbench.api.backends import PipelineRun
from tipbench.api.checking import n_scenarios
from tipbench.api.models import SERVER_KEYS, DagRunDetail, ModelProgress, Progress, RoundLink, TaskBody
from tipbench.api.problems import Problem
from tipbench.api.service import OPTIONS, Digest, Row, Service
from tipbench.config import EXPERIMENT_PATTERN, KEYS, Config, build
from tipbench.errors import InputError, TipbenchError
from tipbench.pipeline import WAITS, chain_of


def facts(api: Service, run: PipelineRun) -> dict[str, Any]:
    """What a list tells of a run, by the names of `DagRun`."""
    return {
        "id": run.id,
        "chain": chain_of(run.id)[0],
        "round": chain_of(run.id)[1],
        "experiment": str(run.config.get("experiment", "")),
        "state": run.state,
        "started_by": run.started_by,
        "queued_at": run.queued_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "config": dict(run.config),
        "judge": str(run.config.get("judge", "")),
        "airflow_url": run.url,
        "mlflow_url": None,
    }


async def detail(api: Service, run: PipelineRun) -> DagRunDetail:
    """The run as the back end has it, with the progress that MLflow knows; without MLflow, it says so."""
    told = facts(api, run)
    progress, degraded, race = None, None, None
    chain = await api.in_back_end(api.back_end.chain, run.id) if run.in_rounds else []
    links = tuple(RoundLink(id=one.id, round=chain_of(one.id)[1], state=one.state) for one in chain)
    try:
        experiment_id = await _existing(api, told["experiment"])
        if experiment_id is not None:
            told["mlflow_url"] = api.mlflow_link(experiment_id)
        config = build({k: v for k, v in run.config.items() if k in KEYS and k not in SERVER_KEYS}, "run")
        ended = run.ended_at if run.over else None
        digest = await api.digest(experiment_id, ended=ended) if experiment_id is not None else Digest("", (), {})
        if run.in_rounds and experiment_id is not None:
            race = await api.race_state(experiment_id, api.rubric(), await api.known(experiment_id))
        progress = _progress(config, n_scenarios(api, config), digest, run)
    except InputError as error:
        degraded = f"The progress cannot be told: {error}"
    except TipbenchError as error:
        degraded = str(error)
    return DagRunDetail(
        **told,
        tasks=timed(run.tasks),
        progress=progress,
        reason=run.reason,
        degraded=degraded,
        chain_runs=links,
        race=race,
    )


def timed(tasks: Sequence[TaskBody]) -> tuple[TaskBody, ...]:
    """The tasks, with a wait for scores counted from the end of what came before it.

    Airflow dates a deferred task from when it was resumed: a wait of hours would have taken a second.
    """
    found: list[TaskBody] = []
    for task in tasks:
        ended = [one.ended_at for one in found if one.ended_at is not None]
        began = max(ended, default=None)
        if task.task in WAITS and task.started_at is not None and began is not None:
            task = task.model_copy(update={"started_at": min(began, task.started_at)})
        found.append(task)
    return tuple(found)


async def _existing(api: Service, experiment: str) -> str | None:
    if not re.fullmatch(EXPERIMENT_PATTERN, experiment):
        return None
    try:
        return await api.experiment_id(experiment)
    except Problem as problem:
        if problem.status_code == 404:
            return None
        raise


def _progress(config: Config, n_scenarios: int, digest: Digest, run: PipelineRun) -> Progress:
    """What the store has of the cells that this run is to fill, and when the last one will be there at this pace."""
    options = (repr(config.temperature), str(config.seed), str(config.num_predict), str(config.num_ctx))
    assert len(options) == len(OPTIONS)
    mine = [
        row
        for row in digest.rows
        if row.options == options
        and (row.n_candidates >= config.n_tips or not row.finished)
        and row.prompt in config.prompt_list
    ]
    planned = len(config.prompt_list) * n_scenarios
    models = []
    for model in config.model_list:
        rows = [row for row in mine if row.model == model]
        failures: dict[str, int] = {}
        for row in rows:
            if not row.finished:
                failures[row.failure] = failures.get(row.failure, 0) + 1
        models.append(
            ModelProgress(
                model=model,
                planned=planned,
                finished=min(planned, sum(row.finished for row in rows)),
                failed=sum(failures.values()),
                failures=failures,
                refused=None if rows else digest.refused.get(model),
            )
        )
    finished, failed = sum(m.finished for m in models), sum(m.failed for m in models)
    total = planned * sum(m.refused is None for m in models)
    return Progress(
        planned=planned * len(models),
        finished=finished,
        failed=failed,
        pending=sum(row.pending for row in mine if row.model in config.model_list),
        eta_s=_eta(run, mine, total - finished - failed),
        models=tuple(models),
    )


def _eta(run: PipelineRun, rows: list[Row], left: int) -> float | None:
    """Seconds left, at the pace of the cells that ended since the run began; None without such a cell."""
    collecting = any(t.task == "collect" and t.state in ("running", "pending") for t in run.tasks)
    if run.over or not collecting or run.started_at is None or left <= 0:
        return None
    began = run.started_at.timestamp()
    ended = [row.ended_ms / 1000 for row in rows if row.ended_ms / 1000 > began]
    if not ended:
        return None
    return max(0.0, (max(ended) - began) / len(ended) * left)
