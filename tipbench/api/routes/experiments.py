"""What there is: experiments, their runs, and the tips that a cell wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Query, Request
from itsdangerous import BadSignature, URLSafeSerializer

from tipbench.api.models import (
    Experiments,
    ExperimentSummary,
    RunPage,
    RunRow,
    Tip,
    TipGroup,
    Tips,
    TipScore,
)
from tipbench.api.problems import documented, invalid
from tipbench.api.routes.common import NAME, Api, Experiment, ModelName, PromptName
from tipbench.api.service import Digest, Service, moment
from tipbench.catalog import Rubric
from tipbench.counting.census import Census, Entry
from tipbench.counting.judged import Asked, Judges
from tipbench.counting.status import Status
from tipbench.judging.exchange import JUDGE_NAME
from tipbench.store.memory import measured
from tipbench.store.records import Candidate, CellRecord, CellResult, ExperimentInfo, ScoreRecord

router = APIRouter(prefix="/api/bench", tags=["results"])


@router.get("/experiments", responses=documented(401, 502, 503))
async def experiments(api: Api) -> Experiments:
    """All `tip-bench-*` experiments, most recently active first."""
    found = await api.experiments()
    digests: dict[str, Digest] = {}

    async def read(one: ExperimentInfo) -> None:
        digests[one.experiment_id] = await api.digest(one.experiment_id, one.name)

    try:
        async with anyio.create_task_group() as group:
            for one in found:
                group.start_soon(read, one)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    summaries = [_summary(api, one, digests[one.experiment_id]) for one in found]
    summaries.sort(key=lambda s: (s.last_activity is not None, s.last_activity), reverse=True)
    return Experiments(experiments=tuple(summaries))


def _summary(api: Service, info: ExperimentInfo, digest: Digest) -> ExperimentSummary:
    rows, counts = digest.rows, digest.status
    assert counts is not None  # it is read with the rows
    last = max((row.ended_ms for row in rows), default=info.last_update_ms)
    return ExperimentSummary(
        name=info.name,
        experiment_id=info.experiment_id,
        cells=counts.counted + counts.failed,
        failed=counts.failed,
        pending=counts.pending,
        judged=counts.judged,
        superseded=counts.superseded,
        twins=counts.twins,
        tips=counts.candidates,
        models=tuple(dict.fromkeys(row.model for row in rows)),
        prompts=tuple(dict.fromkeys(row.prompt for row in rows)),
        judges=tuple(judge.name for judge in counts.judges if judge.in_force),
        last_activity=moment(last) if last is not None else None,
        mlflow_url=api.mlflow_link(info.experiment_id),
    )


@router.get("/status/{experiment}", responses=documented(401, 404, 422, 502, 503))
async def status(
    experiment: Experiment,
    api: Api,
    asked: Annotated[
        str,
        Query(
            alias="for",
            pattern=JUDGE_NAME,
            description="count what waits for anyone (but the baseline), manual (a person or an agent), llm, baseline, or a judge",
        ),
    ] = "anyone",
) -> Status:
    """What counts of an experiment under the rubric in force, what is judged, by whom, and what waits for who was asked."""
    return await api.status(experiment, Asked(asked))


@router.get("/runs/{experiment}", responses=documented(401, 404, 422, 502, 503))
async def runs(
    experiment: Experiment,
    request: Request,
    api: Api,
    model: ModelName = None,
    prompt: PromptName = None,
    scenario: Annotated[str | None, Query(pattern=NAME)] = None,
    status: Literal["finished", "failed", "pending", "judged", "counted", "superseded", "twin"] | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    page_token: Annotated[str, Query(max_length=2000, description="from the page before")] = "",
) -> RunPage:
    """An experiment's runs, one for each (model, prompt, scenario), oldest first and page by page."""
    experiment_id = await api.experiment_id(experiment)
    wanted = {"model": model, "prompt": prompt, "scenario": scenario, "status": status}
    wanted_given = {name: value for name, value in wanted.items() if value is not None}
    pages: URLSafeSerializer = request.app.state.pages
    start = 0
    if page_token:
        try:
            # A token belongs to its question: another filter's pages begin elsewhere.
            asked, start = pages.loads(page_token)
        except (BadSignature, ValueError, TypeError) as error:
            raise invalid("1 fault in the request", ("page_token", "is not one that this API gave")) from error
        if asked != [experiment, wanted_given]:
            raise invalid("1 fault in the request", ("page_token", "belongs to another question"))
    known = await api.known(experiment_id)
    found, more = await api.in_store(_page, known.census, api.rubric(), wanted_given, int(start), limit)
    return RunPage(
        experiment=experiment,
        runs=tuple(_row(api, experiment_id, entry, pending, scores) for entry, pending, scores in found),
        next_page_token=pages.dumps([[experiment, wanted_given], int(start) + limit]) if more else None,
    )


def _page(
    census: Census, rubric: Rubric, wanted: Mapping[str, str], start: int, limit: int
) -> tuple[list[tuple[Entry, bool, dict[str, float]]], bool]:
    """Entries that are wanted, from `start` on, each with whether it waits and its mean scores; and whether there are more."""
    judges = Judges((e.cell for e in census.counted), rubric.hash)
    asked, counting = Asked(), judges.counting()
    found = []
    for entry in census.entries:
        cell = entry.cell
        names = {"model": cell.model, "prompt": cell.prompt, "scenario": cell.scenario}
        if any(wanted.get(name, value) != value for name, value in names.items()):
            continue
        pending = entry.standing == "counted" and bool(judges.pending(cell, asked))
        states = {"finished" if cell.finished else "failed", entry.standing}
        if entry.standing == "counted":
            states.add("pending" if pending else "judged")
        if wanted.get("status") in (None, *states):
            found.append((entry, pending))
    page = found[start : start + limit]
    return [
        (entry, pending, _means(judges.records(entry.cell, counting))) for entry, pending in page
    ], start + limit < len(found)


def _means(records: Sequence[ScoreRecord]) -> dict[str, float]:
    """criterion -> mean over judges and tips."""
    found: dict[str, list[int]] = {}
    for record in records:
        for scores in record.scores.values():
            for criterion, score in zip(record.criteria, scores, strict=True):
                found.setdefault(criterion, []).append(score)
    return {criterion: sum(scores) / len(scores) for criterion, scores in found.items()}


def _row(api: Service, experiment_id: str, entry: Entry, pending: bool, scores: dict[str, float]) -> RunRow:
    cell = entry.cell
    metrics = cell.run.metrics
    memory = measured([cell.run])
    return RunRow(
        run_id=cell.run.run_id,
        model=cell.model,
        prompt=cell.prompt,
        scenario=cell.scenario,
        status="finished" if cell.finished else "failed",
        standing=entry.standing,
        pending=pending,
        n_tips=cell.n_tips,
        n_candidates=cell.n_candidates,
        judges=tuple(sorted({record.judge for record in cell.scores})),
        scores=scores,
        failure=_failure(cell),
        tokens_per_s=metrics.get("tokens_per_s"),
        ttft_s=metrics.get("ttft_s"),
        wall_s=metrics.get("wall_s"),
        peak_memory_bytes=memory.size if memory else None,
        memory_source=memory.source if memory else None,
        started_at=moment(cell.run.start_ms),
        ended_at=moment(cell.run.end_ms) if cell.run.end_ms is not None else None,
        mlflow_url=api.mlflow_link(experiment_id, cell.run.run_id),
    )


def _failure(cell: CellRecord) -> str | None:
    return f"{cell.failure.reason}: {cell.failure.message}" if cell.failure else None


@router.get("/tips/{experiment}", responses=documented(401, 404, 422, 502, 503))
async def tips(
    experiment: Experiment,
    api: Api,
    model: Annotated[str, Query(pattern=NAME, examples=["gemma3:1b"])],
    prompt: Annotated[str, Query(pattern=NAME, examples=["v1"])],
    row: Annotated[
        str,
        Query(
            pattern=r"^([0-9a-f]{16})?$", description="one row of the board (row.id), where several have these names"
        ),
    ] = "",
) -> Tips:
    """What a model wrote with a prompt, scenario by scenario, with every judge's scores."""
    experiment_id, store = await api.experiment_id(experiment), api.store
    rubric = api.rubric()
    census = (await api.known(experiment_id)).census
    judges = Judges((e.cell for e in census.counted), rubric.hash)
    labels = {info.row.id: (info.model, info.prompt) for info in census.rows if info.current}
    cells = [
        entry.cell
        for entry in (*census.counted, *census.failed)
        if labels.get(entry.row.id) == (model, prompt) and (not row or entry.row.id == row)
    ]
    results = await api.in_store(store.results, [cell.run for cell in cells])
    return Tips(
        experiment=experiment,
        model=model,
        prompt=prompt,
        criteria=tuple(c.id for c in rubric.criteria),
        groups=tuple(
            _group(api, experiment_id, cell, result, judges)
            for cell, result in sorted(zip(cells, results, strict=True), key=lambda pair: pair[0].scenario)
        ),
    )


def _group(api: Service, experiment_id: str, cell: CellRecord, result: CellResult, judges: Judges) -> TipGroup:
    return TipGroup(
        scenario=cell.scenario,
        situation=result.situation,
        run_id=cell.run.run_id,
        failure=_failure(cell),
        tips=tuple(_tip(candidate, _scores(cell, candidate.index, judges)) for candidate in result.candidates),
        mlflow_url=api.mlflow_link(experiment_id, cell.run.run_id),
    )


def _scores(cell: CellRecord, index: int, judges: Judges) -> list[TipScore]:
    return [
        TipScore(
            judge=record.judge,
            kind=record.kind,
            scores=dict(zip(record.criteria, record.scores[index], strict=True)),
            repeat=dict(zip(record.criteria, record.repeats[index], strict=True)) if index in record.repeats else None,
        )
        for record in cell.scores
        if judges.is_in_force(record) and index in record.scores
    ]


def _tip(candidate: Candidate, scores: Sequence[TipScore]) -> Tip:
    mean = {c: sum(s.scores[c] for s in scores) / len(scores) for c in scores[0].scores} if scores else None
    speed = candidate.output_tokens / candidate.output_s if candidate.output_tokens and candidate.output_s else None
    return Tip(
        index=candidate.index,
        text=candidate.text,
        words=len(candidate.text.split()),
        done_reason=candidate.done_reason,
        tokens_per_s=speed,
        ttft_s=candidate.ttft_s,
        scores=tuple(scores),
        mean=mean,
    )
