"""What there is: experiments, their runs, and the tips that a cell wrote."""

from __future__ import annotations

from collections.abc import Sequence
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
from tipbench.api.service import Digest, Service, is_pending, moment
from tipbench.store.records import Candidate, CellRecord, CellResult, ExperimentInfo

router = APIRouter(prefix="/api/bench", tags=["results"])


@router.get("/experiments", responses=documented(401, 502, 503))
async def experiments(api: Api) -> Experiments:
    """All `tip-bench-*` experiments, most recently active first."""
    found = await api.experiments()
    digests: dict[str, Digest] = {}

    async def read(one: ExperimentInfo) -> None:
        digests[one.experiment_id] = await api.digest(one.experiment_id)

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
    rows = digest.rows
    finished = [row for row in rows if row.finished]
    last = max((row.ended_ms for row in rows), default=info.last_update_ms)
    return ExperimentSummary(
        name=info.name,
        experiment_id=info.experiment_id,
        cells=len(rows),
        failed=len(rows) - len(finished),
        pending=sum(row.pending for row in finished),
        judged=sum(not row.pending for row in finished),
        tips=sum(row.n_candidates for row in rows),
        models=tuple(dict.fromkeys(row.model for row in rows)),
        prompts=tuple(dict.fromkeys(row.prompt for row in rows)),
        judges=tuple(sorted({judge for row in rows for judge in row.judges})),
        last_activity=moment(last) if last is not None else None,
        mlflow_url=api.mlflow_link(info.experiment_id),
    )


@router.get("/runs/{experiment}", responses=documented(401, 404, 422, 502, 503))
async def runs(
    experiment: Experiment,
    request: Request,
    api: Api,
    model: ModelName = None,
    prompt: PromptName = None,
    scenario: Annotated[str | None, Query(pattern=NAME)] = None,
    status: Literal["finished", "failed", "pending", "judged"] | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    page_token: Annotated[str, Query(max_length=2000, description="from the page before")] = "",
) -> RunPage:
    """An experiment's runs, one for each (model, prompt, scenario), oldest first and page by page."""
    experiment_id = await api.experiment_id(experiment)
    wanted = {"model": model, "prompt": prompt, "scenario": scenario, "status": status}
    wanted_given = {name: value for name, value in wanted.items() if value is not None}
    pages: URLSafeSerializer = request.app.state.pages
    token = ""
    if page_token:
        try:
            # A token belongs to its question: another filter's pages begin elsewhere.
            asked, token = pages.loads(page_token)
        except (BadSignature, ValueError, TypeError) as error:
            raise invalid("1 fault in the request", ("page_token", "is not one that this API gave")) from error
        if asked != [experiment, wanted_given]:
            raise invalid("1 fault in the request", ("page_token", "belongs to another question"))
    cells, following = await api.cell_page(experiment_id, wanted_given, limit, token)
    return RunPage(
        experiment=experiment,
        runs=tuple(_row(api, experiment_id, cell) for cell in cells),
        next_page_token=pages.dumps([[experiment, wanted_given], following]) if following else None,
    )


def _row(api: Service, experiment_id: str, cell: CellRecord) -> RunRow:
    metrics = cell.run.metrics
    peak = metrics.get("peak_memory_bytes")
    return RunRow(
        run_id=cell.run.run_id,
        model=cell.model,
        prompt=cell.prompt,
        scenario=cell.scenario,
        status="finished" if cell.finished else "failed",
        pending=is_pending(cell),
        n_tips=cell.n_tips,
        n_candidates=cell.n_candidates,
        judges=tuple(sorted({record.judge for record in cell.scores})),
        scores={k.removeprefix("score_"): v for k, v in metrics.items() if k.startswith("score_")},
        failure=_failure(cell),
        tokens_per_s=metrics.get("tokens_per_s"),
        ttft_s=metrics.get("ttft_s"),
        wall_s=metrics.get("wall_s"),
        peak_memory_bytes=int(peak) if peak is not None else None,
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
) -> Tips:
    """What a model wrote with a prompt, scenario by scenario, with every judge's scores."""
    experiment_id, store = await api.experiment_id(experiment), api.store
    rubric = api.rubric()
    cells, _ = await api.in_store(store.cell_page, experiment_id, {"model": model, "prompt": prompt}, 200)
    filled = {cell.scenario for cell in cells if cell.finished}
    cells = [cell for cell in cells if cell.finished or cell.scenario not in filled]
    results = await api.in_store(store.results, [cell.run for cell in cells])
    return Tips(
        experiment=experiment,
        model=model,
        prompt=prompt,
        criteria=tuple(c.id for c in rubric.criteria),
        groups=tuple(
            _group(api, experiment_id, cell, result, rubric.hash)
            for cell, result in sorted(zip(cells, results, strict=True), key=lambda pair: pair[0].scenario)
        ),
    )


def _group(api: Service, experiment_id: str, cell: CellRecord, result: CellResult, rubric_hash: str) -> TipGroup:
    return TipGroup(
        scenario=cell.scenario,
        situation=result.situation,
        run_id=cell.run.run_id,
        failure=_failure(cell),
        tips=tuple(_tip(candidate, _scores(cell, candidate.index, rubric_hash)) for candidate in result.candidates),
        mlflow_url=api.mlflow_link(experiment_id, cell.run.run_id),
    )


def _scores(cell: CellRecord, index: int, rubric_hash: str) -> list[TipScore]:
    return [
        TipScore(
            judge=record.judge,
            kind=record.kind,
            scores=dict(zip(record.criteria, record.scores[index], strict=True)),
            repeat=dict(zip(record.criteria, record.repeats[index], strict=True)) if index in record.repeats else None,
        )
        for record in cell.scores
        if record.rubric_hash == rubric_hash and index in record.scores
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
