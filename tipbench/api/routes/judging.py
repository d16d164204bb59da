"""Judging over HTTP: the exchange file for agents, and one tip at a time for people. Both go through the same `apply`.

A score is applied the moment it is put: it is in MLflow when the answer says so, under its judge's name. Applying is one at a
time for an experiment, because whether a cell is pending depends on all judges' scores of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from tipbench.api.models import (
    JUDGE_NAME,
    Applied,
    JudgingItem,
    JudgingNext,
    JudgingProgress,
    JudgingSaved,
    JudgingScore,
)
from tipbench.api.problems import Problem, documented, invalid
from tipbench.api.routes.common import Api, Experiment, JudgeName
from tipbench.api.service import Service
from tipbench.api.web import note
from tipbench.catalog import Rubric
from tipbench.judging.exchange import Exchange, ExchangeItem, ExchangeRubric
from tipbench.judging.validate import exchange_bytes, parse_exchange
from tipbench.stages import apply as apply_stage
from tipbench.stages import export as export_stage
from tipbench.stages.apply import ApplyResult
from tipbench.store import Store
from tipbench.store.records import CellRecord

router = APIRouter(prefix="/api/bench/judging", tags=["judging"])
SHOWN_S = 300.0
"""How long an item that one judge has on the screen is kept from the others, as long as there are more."""
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
    seed: Annotated[int, Query(ge=0, le=2**31)] = 0,
    repeats: Annotated[float, Query(ge=0, le=1, description="share of tips shown twice")] = REPEATS,
) -> Response:
    """The blind exchange file: rubric, instructions, and every tip that the judge (by default: anybody) has not scored."""
    await api.experiment_id(experiment)
    result = await api.in_store(
        export_stage.run, experiment, api.store, api.rubric(), judge=judge, seed=seed, repeats=repeats
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
    exchange = parse_exchange(await request.body(), "the exchange file")
    if exchange.experiment != experiment:
        raise invalid("the exchange file: 1 fault", ("/experiment", f"is {exchange.experiment}, not {experiment}"))
    result = await _apply(api, experiment_id, exchange, reason=reason, dry_run=dry_run)
    note(request, judge=result.judge, new=result.new, changed=result.changed, dry_run=dry_run)
    return Applied(dry_run=dry_run, **vars(result))


async def _apply(
    api: Service, experiment_id: str, exchange: Exchange, *, reason: str, dry_run: bool = False
) -> ApplyResult:
    """The apply stage, one at a time for an experiment."""
    async with api.applying(experiment_id):
        store = api.store
        try:
            result = await api.in_store(
                apply_stage.run, exchange, store, source="the scores", reason=reason, dry_run=dry_run
            )
        finally:
            api.changed(experiment_id)
    if not dry_run:
        api.metrics.scores.inc(result.new + result.changed)
    return result


# -- one at a time -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """One item of a judge's exchange file, and what is known of its candidate."""

    item_id: str
    run_id: str
    index: int
    repeat: bool
    scenario: str
    tip: str
    own: tuple[int, ...] | None
    """This judge's scores of it."""
    scored: bool
    """Somebody has scored the candidate."""


@router.get("/{experiment}/next", responses=documented(401, 404, 422, 502, 503))
async def next_items(
    experiment: Experiment,
    request: Request,
    api: Api,
    judge: JudgeName,
    scope: Annotated[
        Literal["pending", "all"],
        Query(description="what nobody has scored, or also what only others have (a second opinion)"),
    ] = "pending",
    limit: Annotated[int, Query(ge=1, le=50)] = 1,
) -> JudgingNext:
    """The next tips for a judge, blind. Judges who work at the same time get different ones, as long as there are enough."""
    experiment_id, store = await api.experiment_id(experiment), api.store
    rubric = api.rubric()
    export_id, entries = await api.in_store(_entries, store, experiment, experiment_id, rubric, judge)
    shown: Shown = request.app.state.shown
    first_done = {(e.run_id, e.index) for e in entries if e.own is not None and not e.repeat}
    open_entries = [
        e
        for e in entries
        if e.own is None
        # A repeat comes after its first showing; it is there to measure this judge, whoever else has scored the tip.
        and ((e.run_id, e.index) in first_done if e.repeat else scope == "all" or not e.scored)
    ]
    chosen = _in_turn(open_entries, judge, shown)[:limit]
    for entry in chosen:
        shown.show(judge, (entry.run_id, entry.index))
    criteria = [c.id for c in rubric.criteria]
    done = [e for e in entries if e.own is not None]
    return JudgingNext(
        experiment=experiment,
        judge=judge,
        items=tuple(_item(entry, export_id, criteria) for entry in chosen),
        previous=tuple(_item(entry, export_id, criteria) for entry in done[-PREVIOUS:]),
        progress=JudgingProgress(
            total=len(entries),
            done=len(done),
            left=len(open_entries),
            pending=sum(not e.scored for e in entries if not e.repeat),
        ),
        instructions=rubric.instructions,
        rubric=_exchange_rubric(rubric),
        rubric_hash=rubric.hash,
    )


class Shown:
    """Which candidate is on whose screen. Only to hand out wisely: it costs nothing to lose it."""

    def __init__(self) -> None:
        self._by: dict[tuple[str, int], tuple[str, float]] = {}

    def show(self, judge: str, candidate: tuple[str, int]) -> None:
        """The judge has it now."""
        now = time.monotonic()
        if len(self._by) > 10_000:
            self._by = {c: (j, at) for c, (j, at) in self._by.items() if now - at < SHOWN_S}
        self._by[candidate] = (judge, now)

    def elsewhere(self, judge: str, candidate: tuple[str, int]) -> bool:
        """Another judge has it."""
        holder, at = self._by.get(candidate, (judge, 0.0))
        return holder != judge and time.monotonic() - at < SHOWN_S


def _in_turn(entries: Sequence[_Entry], judge: str, shown: Shown) -> list[_Entry]:
    """What nobody has scored or looks at comes first, what others have scored last; the file's order decides among equals.

    Repeats stand among the last ones, in the file's order: there, half the file lies between a tip and its repeat. Any earlier,
    and a tip that others have scored, too, might come again at once.
    """

    def rank(entry: _Entry) -> int:
        return 2 if entry.scored else int(shown.elsewhere(judge, (entry.run_id, entry.index)))

    last = max((rank(entry) for entry in entries if not entry.repeat), default=0)
    return sorted(entries, key=lambda entry: last if entry.repeat else rank(entry))


def _entries(store: Store, experiment: str, experiment_id: str, rubric: Rubric, judge: str) -> tuple[str, list[_Entry]]:
    """The judge's items in their order, from the newest file made for this judge; a new one when it lacks anything."""
    cells = {cell.run.run_id: cell for cell in store.cells(experiment_id) if cell.finished}
    key = store.latest_export(experiment_id, judge)
    if key is None or key["rubric_hash"] != rubric.hash or _lacks(key, cells, rubric.hash, judge):
        exported = export_stage.run(experiment, store, rubric, judge=judge, repeats=REPEATS)
        if exported.n_items or key is None:
            key = store.export_key(experiment_id, exported.exchange.export_id)
    if key is None:
        return "", []
    scored_by: dict[str, Any] = {run_id: _scored(cell, rubric.hash, judge) for run_id, cell in cells.items()}
    entries = []
    for item_id, (run_id, index, repeat, scenario, tip) in key["items"].items():
        if run_id in cells:
            anybody, own, again = scored_by[run_id]
            mine = (again if repeat else own).get(index)
            entries.append(_Entry(item_id, run_id, index, repeat, scenario, tip, mine, index in anybody))
    return key["export_id"], entries


def _scored(cell: CellRecord, rubric_hash: str, judge: str) -> tuple[set[int], Mapping[int, Any], Mapping[int, Any]]:
    """Candidates that anybody has scored, this judge's scores, and this judge's second scores."""
    own = next((r for r in cell.scores if r.judge == judge and r.rubric_hash == rubric_hash), None)
    return (
        export_stage.judged(cell, rubric_hash, None),
        own.scores if own else {},
        own.repeats if own else {},
    )


def _lacks(key: Mapping[str, Any], cells: Mapping[str, CellRecord], rubric_hash: str, judge: str) -> bool:
    """Is there a candidate that this judge has not scored and that is not in the file?"""
    there = {(row[0], row[1]) for row in key["items"].values()}
    return any(
        (run_id, index) not in there
        for run_id, cell in cells.items()
        for index in set(range(cell.n_candidates)) - export_stage.judged(cell, rubric_hash, judge)
    )


def _item(entry: _Entry, export_id: str, criteria: Sequence[str]) -> JudgingItem:
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
    experiment_id, store = await api.experiment_id(experiment), api.store
    rubric = api.rubric()
    key = await api.in_store(store.export_key, experiment_id, body.export_id)
    if key is None or item_id not in key["items"]:
        raise Problem(404, f"{experiment} has no item {item_id} in an export {body.export_id}.")
    if key["rubric_hash"] != rubric.hash:
        raise Problem(
            409, "The rubric has changed since this tip was shown; get the next ones, and score by the new rubric."
        )
    faults = _score_faults(rubric, body.scores)
    if faults:
        raise invalid(f"{len(faults)} fault{'s' * (len(faults) > 1)} in the scores", *faults)
    *_, scenario, tip = key["items"][item_id]
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
    result = await _apply(api, experiment_id, exchange, reason=body.reason)
    outcome: Literal["new", "changed", "unchanged"] = (
        "new" if result.new else "changed" if result.changed else "unchanged"
    )
    note(request, judge=body.judge.name, outcome=outcome)
    return JudgingSaved(id=item_id, outcome=outcome, pending_cells=result.pending_cells)


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
