"""Logging in and out, and who one is."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tipbench import __version__
from tipbench.api.auth import Identity
from tipbench.api.models import Login, Me
from tipbench.api.problems import documented
from tipbench.api.routes.common import Api, Caller, auth_of
from tipbench.api.service import Service
from tipbench.api.web import note

router = APIRouter(tags=["session"])


@router.post("/api/session", responses=documented(401, 403, 429), openapi_extra={"security": []})
async def login(body: Login, request: Request, api: Api) -> Me:
    """Exchange an admin token for a session cookie."""
    identity = auth_of(request).login(request, body.token)
    note(request, token=identity.name, actor=identity.name, method="session")
    return _me(identity, api)


@router.get("/api/session", responses=documented(401))
@router.get("/api/bench/me", responses=documented(401))
async def me(identity: Caller, api: Api) -> Me:
    """Who is calling, and the CSRF token that a session's changes need."""
    return _me(identity, api)


@router.delete("/api/session", status_code=204, responses=documented(401, 403))
async def logout(request: Request, identity: Caller) -> Response:
    """End the session. Its cookie is refused from now on."""
    auth_of(request).logout(request, identity)
    return Response(status_code=204)


def _me(identity: Identity, api: Service) -> Me:
    return Me(
        name=identity.name,
        user=identity.user,
        method=identity.method,
        csrf_token=identity.csrf_token,
        expires_at=identity.expires_at,
        version=__version__,
        back_end=api.back_end.name,
    )
