"""Starting runs, listing them, looking at one, and stopping it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from tipbench.api.backends import stop
from tipbench.api.checking import checked
from tipbench.api.models import DagRun, DagRunDetail, DagRuns, RunRequest, RunStarted
from tipbench.api.problems import documented, invalid
from tipbench.api.progress import detail, facts
from tipbench.api.routes.common import Api, Caller, RunId
from tipbench.api.web import note
from tipbench.config import EXPERIMENT_PATTERN

router = APIRouter(prefix="/api/bench", tags=["collecting"])


@router.post("/run", status_code=202, responses=documented(401, 403, 409, 413, 422, 502, 503))
async def start(
    body: RunRequest,
    request: Request,
    response: Response,
    identity: Caller,
    api: Api,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="a repeated request with the same key starts nothing new"),
    ] = None,
) -> RunStarted:
    """Start a collection: a run of the DAG `bench_collect`, or of the same steps on this machine."""
    conf, config = await checked(api, body.root)
    conf = {**conf, "experiment": config.experiment}
    run_id = _run_id(idempotency_key)
    run, created = await api.in_back_end(api.back_end.start, run_id, conf, identity.actor)
    if not created and any(run.config.get(name) != value for name, value in conf.items()):
        raise invalid("This Idempotency-Key has started another configuration", ("Idempotency-Key", "was used before"))
    url = f"{request.scope.get('prefix', '')}/api/bench/dag-runs/{run.id}"
    response.headers["Location"] = url
    note(request, run=run.id, created=created, experiment=config.experiment)
    return RunStarted(id=run.id, created=created, experiment=config.experiment, url=url, airflow_url=run.url)


def _run_id(key: str | None) -> str:
    """From the key alone, so that the back end's own refusal of a second run with one id holds across replicas and restarts."""
    if key is not None:
        return f"api-{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    return f"api-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


@router.get("/dag-runs", responses=documented(401, 422, 502, 503))
async def dag_runs(
    api: Api,
    experiment: Annotated[str | None, Query(pattern=EXPERIMENT_PATTERN)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> DagRuns:
    """The latest runs, newest first."""
    found, total = await api.in_back_end(api.back_end.runs, experiment or "", limit, offset)
    return DagRuns(dag_runs=tuple(DagRun(**facts(api, run)) for run in found), total=total)


@router.get("/dag-runs/{run_id}", responses=documented(401, 404, 422, 502, 503))
async def dag_run(run_id: RunId, api: Api) -> DagRunDetail:
    """One run: its tasks, its progress and, when it failed, why."""
    return await detail(api, await api.in_back_end(api.back_end.run, run_id))


@router.post("/dag-runs/{run_id}/cancel", status_code=202, responses=documented(401, 403, 404, 409, 422, 502, 503))
async def cancel(run_id: RunId, identity: Caller, api: Api) -> DagRunDetail:
    """Stop a run, and with it its chain. What it has collected is kept; the same configuration goes on where it stopped."""
    return await detail(api, await api.in_back_end(stop, api.back_end, run_id, identity.actor))
