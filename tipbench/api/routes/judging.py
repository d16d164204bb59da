"""Judging over HTTP: the exchange file for agents, and one tip at a time for people. Both go through the same `apply`.

A score is applied the moment it is put: it is in MLflow when the answer says so, under its judge's name. Applying is one at a
time for an experiment, because whether a cell is pending depends on all judges' scores of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from tipbench.api import handout
from tipbench.api.models import (
    Applied,
    JudgingItem,
    JudgingNext,
    JudgingProgress,
    JudgingSaved,
    JudgingScore,
    SampleBody,
    SamplePlanBody,
    SampleRequest,
    SampleState,
)
from tipbench.api.problems import Problem, documented, invalid
from tipbench.api.routes.common import Api, Experiment, JudgeName
from tipbench.api.service import Known, Service
from tipbench.api.web import note
from tipbench.catalog import Rubric
from tipbench.counting.judged import MANUAL, Asked, Judges
from tipbench.counting.sample import MOST, Sample, requests
from tipbench.judging.exchange import JUDGE_NAME, Exchange, ExchangeItem, ExchangeRubric
from tipbench.judging.validate import exchange_bytes, inspect
from tipbench.pipeline import SMALLEST_SAMPLE
from tipbench.rounds.blocks import blocks_of
from tipbench.stages import apply as apply_stage
from tipbench.stages import export as export_stage
from tipbench.stages import plan as plan_stage
from tipbench.store.records import CellRecord

router = APIRouter(prefix="/api/bench/judging", tags=["judging"])
PREVIOUS = 20
"""Items to go back to."""
REPEATS = 0.05
ItemId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]


# -- the whole file ------------------------------------------------------------------------------


@router.get(
    "/{experiment}/export",
    response_model=None,
    responses={
        200: {
            "description": "The exchange file",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Exchange"}}},
        },
        **documented(401, 404, 422, 502, 503),
    },
)
async def export(
    experiment: Experiment,
    api: Api,
    judge: Annotated[str | None, Query(pattern=JUDGE_NAME, description="what this judge has not scored")] = None,
    asked: Annotated[
        str | None,
        Query(
            alias="for",
            pattern=JUDGE_NAME,
            description="what waits for anyone (but the baseline), manual (a person or an agent), llm, baseline, or a judge",
        ),
    ] = None,
    seed: Annotated[int, Query(ge=0, le=2**31)] = 0,
    repeats: Annotated[float, Query(ge=0, le=1, description="share of tips shown twice")] = REPEATS,
) -> Response:
    """The blind exchange file: rubric, instructions, and every tip that the judge (by default: anybody) has not scored."""
    await api.experiment_id(experiment)
    result = await api.in_store(
        export_stage.run,
        experiment,
        api.store,
        api.rubric(),
        judge=judge,
        asked=export_stage.asked_by(asked) if asked else None,
        seed=seed,
        repeats=repeats,
    )
    headers = {"Content-Disposition": f'attachment; filename="{experiment}-{result.exchange.export_id}.json"'}
    return Response(exchange_bytes(result.exchange), media_type="application/json", headers=headers)


@router.post(
    "/{experiment}/apply",
    responses=documented(401, 403, 404, 413, 422, 502, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Exchange"}}},
        }
    },
)
async def apply(
    experiment: Experiment,
    request: Request,
    api: Api,
    dry_run: Annotated[bool, Query(description="check everything, write nothing")] = False,
    reason: Annotated[str, Query(max_length=500, description="why scores changed; kept in their history")] = "",
) -> Applied:
    """Take a scored exchange file back (at most 32 MiB): every fault is listed and nothing written, or all of it is."""
    experiment_id = await api.experiment_id(experiment)
    reading = inspect(await request.body(), "the exchange file")
    stated = reading.raw.get("experiment") if isinstance(reading.raw, dict) else None
    if reading.exchange is not None and stated != experiment:
        raise invalid("the exchange file: 1 fault", ("/experiment", f"is {stated}, not {experiment}"))
    async with _applying(api, experiment_id):
        result = await api.in_store(
            apply_stage.run, reading, api.store, source="the scores", reason=reason, dry_run=dry_run
        )
    if not dry_run:
        api.rescored(experiment_id)
        api.metrics.scores.inc(result.new + result.changed)
    note(request, judge=result.judge, new=result.new, changed=result.changed, dry_run=dry_run)
    told = {name: value for name, value in vars(result).items() if name in Applied.model_fields}
    return Applied(dry_run=dry_run, **told)


@asynccontextmanager
async def _applying(api: Service, experiment_id: str) -> AsyncIterator[None]:
    """One at a time for an experiment; afterwards nothing that was read before is believed."""
    async with api.applying(experiment_id):
        try:
            yield
        finally:
            api.changed(experiment_id)


# -- one at a time -------------------------------------------------------------------------------


@router.get("/{experiment}/next", responses=documented(401, 404, 422, 502, 503))
async def next_items(
    experiment: Experiment,
    request: Request,
    api: Api,
    judge: JudgeName,
    scope: Annotated[
        handout.Scope,
        Query(description="what nobody has scored, also what only others have (a second opinion), or the sample"),
    ] = "pending",
    limit: Annotated[int, Query(ge=1, le=50)] = 1,
) -> JudgingNext:
    """The next tips for a judge, blind. Judges who work at the same time get different ones, as long as there are enough."""
    experiment_id, rubric = await api.experiment_id(experiment), api.rubric()
    known = await api.known(experiment_id, judging=True)
    key = await _key(api, experiment, experiment_id, rubric, known, judge)
    race = await api.race(experiment_id, rubric)
    blocks = blocks_of(known.census, race)
    drawn = await _drawn(api, experiment_id, known, rubric) if scope == "sample" else frozenset()
    entries = await api.in_store(handout.entries, key, known.cells, rubric.hash, judge, blocks, drawn)
    open_entries = handout.still_open(entries, scope)
    shown: handout.Shown = request.app.state.shown
    chosen = handout.in_turn(open_entries, judge, shown)[:limit]
    for entry in chosen:
        shown.show(judge, (entry.run_id, entry.index))
    criteria = [c.id for c in rubric.criteria]
    counts = await api.in_store(handout.counts, entries, known.cells, rubric.hash, judge, scope, drawn)
    done = [e for e in entries if e.own is not None and (e.drawn or scope != "sample")]
    return JudgingNext(
        experiment=experiment,
        judge=judge,
        items=tuple(_item(entry, key["export_id"], criteria) for entry in chosen),
        previous=tuple(_item(entry, key["export_id"], criteria) for entry in done[-PREVIOUS:]),
        progress=JudgingProgress(
            total=counts.total,
            done=counts.done,
            left=counts.left,
            others=counts.total - counts.done - counts.left,
            pending=counts.pending,
        ),
        race=await api.race_state(experiment_id, rubric, known) if race.orders else None,
        instructions=rubric.instructions,
        rubric=_exchange_rubric(rubric),
        rubric_hash=rubric.hash,
    )


async def _drawn(api: Service, experiment_id: str, known: Known, rubric: Rubric) -> frozenset[tuple[str, int]]:
    """(run id, index) of the candidates of the sample that people were asked for. Raises 409 when they were asked for none."""
    wanted = await _wanted(api, experiment_id, rubric)
    if wanted is None:
        raise Problem(409, "People were not asked for a sample of this experiment; draw one first (POST …/sample).")
    return frozenset((e.run_id, i) for e in known.census.counted for i in wanted.indices(e))


async def _wanted(api: Service, experiment_id: str, rubric: Rubric) -> Sample | None:
    tags = await api.in_store(api.store.experiment_tags, experiment_id)
    asked = [one for one in requests(tags) if one.rubric_hash == rubric.hash and one.who == MANUAL]
    return asked[0].sample if asked else None


@router.get("/{experiment}/sample", responses=documented(401, 404, 422, 502, 503))
async def sample(experiment: Experiment, api: Api) -> SampleState:
    """The sample that people were asked for, who has scored how much of it, and from how many scenarios one can be drawn."""
    experiment_id, rubric = await api.experiment_id(experiment), api.rubric()
    known = await api.known(experiment_id, judging=True)
    return _sample_state(known, rubric, await _wanted(api, experiment_id, rubric))


@router.post("/{experiment}/sample", responses=documented(401, 403, 404, 413, 422, 502, 503))
async def draw_sample(experiment: Experiment, body: SampleRequest, request: Request, api: Api) -> SampleState:
    """Ask people for a sample: scenarios and tips drawn at random, of all cells, kept with the experiment. A larger one holds a smaller."""
    experiment_id, rubric = await api.experiment_id(experiment), api.rubric()
    known = await api.known(experiment_id)
    drawn = await api.in_store(
        export_stage.request,
        api.store,
        experiment_id,
        known.census,
        rubric.hash,
        Asked(MANUAL),
        body.scenarios,
        body.tips,
        body.seed,
    )
    note(request, scenarios=body.scenarios, tips=body.tips)
    return _sample_state(known, rubric, drawn)


@router.get("/{experiment}/sample/plan", responses=documented(401, 404, 422, 502, 503))
async def plan_sample(
    experiment: Experiment,
    api: Api,
    scenarios: Annotated[int, Query(ge=SMALLEST_SAMPLE, le=MOST, description="in the sample")],
    tips: Annotated[int, Query(ge=0, le=200, description="of each cell; 0 for all")] = 0,
) -> SamplePlanBody:
    """Which difference a person's scores of such a sample would detect, before anything is drawn or scored."""
    experiment_id, rubric = await api.experiment_id(experiment), api.rubric()
    known = await api.known(experiment_id, judging=True)
    found = await api.at_work(plan_stage.sample, experiment, known.census, rubric, scenarios, tips)
    reference = found.reference
    return SamplePlanBody(
        scenarios=scenarios,
        n_scenarios=found.n_scenarios,
        n_cells=found.n_cells,
        n_tips=found.tips,
        power=found.power,
        difference=None if reference is None else reference.difference,
        alone=None if reference is None else reference.alone,
        spreads=found.spreads.source,
        words=found.words,
    )


def _sample_state(known: Known, rubric: Rubric, wanted: Sample | None) -> SampleState:
    census, body = known.census, None
    if wanted is not None:
        n_tips, left = wanted.left(census.counted, Judges((e.cell for e in census.counted), rubric.hash))
        body = SampleBody(scenarios=len(wanted.scenarios), tips=wanted.tips, seed=wanted.seed, n_tips=n_tips, left=left)
    columns = {e.column for e in census.counted}
    return SampleState(n_scenarios=len(columns), least=SMALLEST_SAMPLE, sample=body)


async def _key(
    api: Service,
    experiment: str,
    experiment_id: str,
    rubric: Rubric,
    known: Known,
    judge: str,
) -> Mapping[str, Any]:
    """The key of the newest file that was made for this judge; of a new one when that lacks anything."""
    latest = await api.in_store(api.store.latest_export, experiment_id, judge)
    key = await api.export_key(experiment_id, latest) if latest else None
    if key is None or await api.in_store(handout.lacks, key, known.cells, rubric.hash, judge):
        exported = await api.in_store(
            export_stage.from_census,
            experiment,
            experiment_id,
            known.census,
            api.store,
            rubric,
            judge,
            Asked(judge),
            repeats=REPEATS,
        )
        if exported.n_items or key is None:
            key = await api.export_key(experiment_id, exported.exchange.export_id)
    return key or {"export_id": "", "items": {}}


def _cells_of(api: Service, run_id: str, experiment_id: str) -> dict[str, CellRecord]:
    return {cell.run.run_id: cell for cell in api.store.cells_of([run_id], experiment_id)}


def _item(entry: handout.Entry, export_id: str, criteria: Sequence[str]) -> JudgingItem:
    return JudgingItem(
        id=entry.item_id,
        export_id=export_id,
        scenario=entry.scenario,
        tip=entry.tip,
        scores=dict(zip(criteria, entry.own, strict=True)) if entry.own is not None else None,
    )


def _exchange_rubric(rubric: Rubric) -> ExchangeRubric:
    return ExchangeRubric.model_validate(rubric.judge_view(), strict=False)


@router.put("/{experiment}/items/{item_id}", responses=documented(401, 403, 404, 409, 413, 422, 502, 503))
async def put_item(
    experiment: Experiment, item_id: ItemId, body: JudgingScore, request: Request, api: Api
) -> JudgingSaved:
    """Score one tip. It is in MLflow, under the judge's name, when this is answered; the same again changes nothing."""
    experiment_id, rubric = await api.experiment_id(experiment), api.rubric()
    key = await api.export_key(experiment_id, body.export_id)
    if key is None or item_id not in key["items"]:
        raise Problem(404, f"{experiment} has no item {item_id} in an export {body.export_id}.")
    if key["rubric_hash"] != rubric.hash:
        raise Problem(
            409, "The rubric has changed since this tip was shown; get the next ones, and score by the new rubric."
        )
    faults = _score_faults(rubric, body.scores)
    if faults:
        raise invalid(f"{len(faults)} fault{'s' * (len(faults) > 1)} in the scores", *faults)
    run_id, _, _, scenario, tip, *_ = key["items"][item_id]
    exchange = Exchange(
        experiment=experiment,
        export_id=body.export_id,
        rubric_hash=rubric.hash,
        judge=body.judge,
        instructions=rubric.instructions,
        rubric=_exchange_rubric(rubric),
        items=(
            ExchangeItem(
                id=item_id,
                scenario=scenario,
                tip=tip,
                scores=dict(body.scores),
                rationale=body.rationale,
                scored_at=datetime.now(UTC).replace(microsecond=0),
            ),
        ),
    )
    async with _applying(api, experiment_id):
        # The cell as it is known here, or as it is now: what others scored of it meanwhile changes nothing of this score.
        known = (await api.known(experiment_id, judging=True)).cells
        cells = (
            {run_id: known[run_id]} if run_id in known else await api.in_store(_cells_of, api, run_id, experiment_id)
        )
        result, after = await api.in_store(
            apply_stage.run_on, exchange, api.store, experiment_id, key, cells, source="the scores", reason=body.reason
        )
        await api.saved(experiment_id, after)
    api.metrics.scores.inc(result.new + result.changed)
    outcome: Literal["new", "changed", "unchanged"] = (
        "new" if result.new else "changed" if result.changed else "unchanged"
    )
    note(request, judge=body.judge.name, outcome=outcome)
    return JudgingSaved(id=item_id, outcome=outcome, cell_pending=result.pending_cells > 0)


def _score_faults(rubric: Rubric, scores: Mapping[str, int]) -> list[tuple[str, str]]:
    known = [c.id for c in rubric.criteria]
    faults = [(f"/scores/{c}", "is missing") for c in known if c not in scores]
    for criterion, score in scores.items():
        if criterion not in known:
            faults.append((f"/scores/{criterion}", f"the rubric has no such criterion (it has {', '.join(known)})"))
        elif not rubric.scale_min <= score <= rubric.scale_max:
            words = f"{score} is outside the scale of {rubric.scale_min} to {rubric.scale_max}"
            faults.append((f"/scores/{criterion}", words))
    return faults
