"""Outputs and scores as tables: an upload that is checked as a whole, and a download in the same columns."""

from __future__ import annotations

import io
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from tipbench.api.models import Imported
from tipbench.api.problems import Problem, documented
from tipbench.api.routes.common import Api, Experiment
from tipbench.api.web import note
from tipbench.stages import export_scores as export_stage
from tipbench.stages import importing

router = APIRouter(prefix="/api/bench/tables", tags=["results"])
MEDIA = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


@router.post(
    "/{experiment}/import",
    responses=documented(401, 403, 413, 422, 502, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {media: {"schema": {"type": "string"}} for media in MEDIA.values()},
        }
    },
)
async def import_table(
    experiment: Experiment,
    request: Request,
    api: Api,
    dry_run: Annotated[bool, Query(description="check everything, write nothing")] = False,
    ignore: Annotated[list[str], Query(max_length=50, description="columns to pass over")] = [],  # noqa: B006
) -> Imported:
    """Bring a CSV or JSONL table (at most 32 MiB) into an experiment, which is made when it is not there.

    Every fault is listed by line and column and nothing written, or all of it is; the same table again changes nothing.
    """
    content = await request.body()
    jsonl = "json" in request.headers.get("Content-Type", "")
    name = f"the table.{'jsonl' if jsonl else 'csv'}"

    def bring() -> importing.ImportResult:
        return importing.run(
            io.BytesIO(content), name, experiment, api.store, api.rubric(), ignore=ignore, dry_run=dry_run
        )

    async with api.applying(f"import {experiment}"):
        result = await api.in_store(bring)
    if not dry_run:
        try:
            experiment_id = await api.experiment_id(experiment)
        except Problem:
            pass  # A table that brings nothing makes no experiment.
        else:
            api.changed(experiment_id)
            api.rescored(experiment_id)
            api.metrics.scores.inc(result.new_scores + result.changed_scores)
    note(request, new=result.new_candidates, scores=result.new_scores, changed=result.changed_scores, dry_run=dry_run)
    return Imported(dry_run=dry_run, **vars(result))


@router.get(
    "/{experiment}/scores",
    response_model=None,
    responses={
        200: {
            "description": "The table",
            "content": {media: {"schema": {"type": "string"}} for media in MEDIA.values()},
        },
        **documented(401, 404, 422, 502, 503),
    },
)
async def scores(
    experiment: Experiment,
    api: Api,
    format: Annotated[Literal["csv", "jsonl"], Query(description="the rendering")] = "csv",
) -> Response:
    """What counts in an experiment, one row a candidate and judge, in the columns that import reads."""
    await api.experiment_id(experiment)
    out = io.BytesIO()
    await api.in_store(export_stage.write, experiment, api.store, api.rubric(), out, f"scores.{format}")
    headers = {"Content-Disposition": f'attachment; filename="{experiment}-scores.{format}"'}
    return Response(out.getvalue(), media_type=MEDIA[format], headers=headers)
