"""The app, put together: settings in, FastAPI out."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from itsdangerous import URLSafeSerializer
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from tipbench import __version__
from tipbench.api import problems
from tipbench.api.asking import StoreAsked
from tipbench.api.auth import COOKIE, Auth, Tokens
from tipbench.api.backends import Backend
from tipbench.api.backends.airflow import AirflowBackend
from tipbench.api.backends.local import LocalBackend
from tipbench.api.handout import Shown
from tipbench.api.models import ProblemBody
from tipbench.api.routes import (
    dag_runs,
    experiments,
    form,
    interchange,
    judging,
    leaderboard,
    operations,
    session,
    stream,
)
from tipbench.api.service import Service
from tipbench.api.settings import Settings
from tipbench.api.web import Metrics, Prefixed, Web
from tipbench.judging.exchange import Exchange
from tipbench.leaderboard.model import Leaderboard
from tipbench.store import Store, open_store

PANEL = Path(__file__).parent / "panel"
NOT_PANEL = ("/api", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")
DESCRIPTION = """Start a benchmark of small language models, watch it, judge it and read its leaderboard. For admins only: send
`Authorization: Bearer TOKEN`, or log in for a session (then changes need the header `X-CSRF-Token`).

Errors are problem details (RFC 9457, `application/problem+json`); `errors` names every field at fault. 503 means that MLflow or
Airflow is away: try again later; 502 that it answered with something of no use."""


def create_app(settings: Settings, tokens: Mapping[str, str] | None = None, back_end: Backend | None = None) -> FastAPI:
    """The app. `tokens` (name -> token) are good for this process only; `back_end` replaces the one that the settings name."""
    metrics = Metrics()
    secret = settings.session_secret.reveal() or secrets.token_hex(32)
    auth = Auth(Tokens(settings.tokens_dir, tokens), secret, settings.user_header)
    store = open_store(settings.store_url, retry_s=settings.retry_s, read_s=settings.read_s)
    service = Service(settings, store, back_end or _back_end(settings, store), metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="tipbench",
        version=__version__,
        description=DESCRIPTION,
        dependencies=[Depends(auth)],
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service, app.state.auth, app.state.streams = service, auth, 0
    app.state.pages = URLSafeSerializer(secret, salt="tipbench.page")
    app.state.shown = Shown()
    problems.install(app)
    app.add_middleware(Web, metrics=metrics)
    if settings.root_path:
        app.add_middleware(Prefixed, prefix=settings.root_path)
    for module in (operations, session, experiments, leaderboard, interchange, form, dag_runs, stream, judging):
        app.include_router(module.router)
    app.router.routes.append(_Panel("/", _Files(directory=PANEL, html=True, check_dir=False), name="panel"))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _back_end(settings: Settings, store: Store) -> Backend:
    if settings.airflow_url:
        return AirflowBackend(
            settings.airflow_url,
            settings.airflow_username,
            settings.airflow_password,
            public_url=settings.airflow_public_url,
            timeout_s=settings.airflow_s,
        )

    return LocalBackend(settings.state_dir, settings.config, settings.store_url, StoreAsked(settings, store))


class _Panel(Mount):
    """The panel's files, at the root; what is the API's stays the API's, so that its 404s and 405s are its own."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope.get("path", "")
        if scope["type"] != "http" or any(path == p or path.startswith(p + "/") for p in NOT_PANEL):
            return Match.NONE, {}
        match, child = super().matches(scope)
        return match, {**child, "panel": True}


class _Files(StaticFiles):
    """Files that a browser asks about again each time: a new release shows at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with what FastAPI cannot know: the two ways to log in, and the bodies that routes name themselves."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        for model in (ProblemBody, Exchange, Leaderboard):
            schema = model.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
        }
        document["security"] = [{"bearer": []}, {"session": []}]
        for methods in document["paths"].values():
            for operation in methods.values():
                # Whoever takes a body or a parameter may find it unreadable, too large or wrong.
                found = {400, 413, 422} if "requestBody" in operation else {422} if "parameters" in operation else set()
                found |= set() if operation.get("security") == [] else {429}
                faults = {str(status): answer for status, answer in problems.documented(*found).items()}
                operation["responses"] = dict(sorted({**operation["responses"], **faults}.items()))
        app.openapi_schema = document
    return app.openapi_schema
