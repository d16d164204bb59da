"""A run's state as server-sent events, for as long as somebody looks and until the run is over."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from tipbench.api.auth import LONGEST_S, Auth
from tipbench.api.models import DagRunDetail
from tipbench.api.problems import Problem, documented, of, response
from tipbench.api.progress import detail
from tipbench.api.routes.common import Api, RunId, auth_of
from tipbench.api.service import Service
from tipbench.errors import TipbenchError

router = APIRouter(prefix="/api/bench", tags=["collecting"])
LOOK_EVERY_S, HEARTBEAT_S = 2.0, 15.0
"""How often a live stream looks for news, and how long it is silent at most."""
STREAMS = 100
"""Live streams at once."""


@router.get(
    "/dag-runs/{run_id}/events",
    response_model=None,
    responses={
        200: {
            "description": "Server-sent events: `state` (a DagRunDetail) at once and on every change, `problem`, `end`",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(401, 404, 422, 429, 502, 503),
    },
)
async def events(run_id: RunId, request: Request, api: Api) -> StreamingResponse:
    """A run's state as it changes."""
    first = await detail(api, await api.in_back_end(api.back_end.run, run_id))
    if request.app.state.streams >= STREAMS:
        raise Problem(429, f"There are {STREAMS} live streams already.", headers={"Retry-After": "30"})
    return StreamingResponse(
        _stream(run_id, first, request, api), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def _stream(run_id: str, current: DagRunDetail, request: Request, api: Service) -> AsyncIterator[str]:
    state = request.app.state
    auth: Auth = auth_of(request)
    state.streams += 1
    shown, silent_since = "", time.monotonic()
    try:
        while True:
            text = _event("state", current.model_dump_json())
            if text != shown:
                yield text
                shown, silent_since = text, time.monotonic()
            if current.state in ("success", "failed", "cancelled"):
                yield _event("end", "{}")
                return
            if time.monotonic() - silent_since > HEARTBEAT_S:
                yield ": still here\n\n"
                silent_since = time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                auth.identify(request, LONGEST_S)
                current = await detail(api, await api.in_back_end(api.back_end.run, run_id))
            except (TipbenchError, Problem) as error:
                problem = of(error)
                yield _event("problem", bytes(response(problem, request.scope["request_id"]).body).decode())
                shown = ""
                if problem.status_code in (401, 404):
                    yield _event("end", "{}")
                    return
    finally:
        state.streams -= 1


def _event(kind: str, data: str) -> str:
    return f"event: {kind}\ndata: {json.dumps(json.loads(data))}\n\n"
