"""For whoever runs the API: is it alive, is it ready, what does it measure; and its own documentation."""

from __future__ import annotations

import html
import json
from typing import Any, Literal

import anyio
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tipbench import __version__
from tipbench.api.models import Alive, Dependency, Ready
from tipbench.api.problems import Problem, documented
from tipbench.api.routes.common import Api
from tipbench.api.service import Service
from tipbench.errors import TipbenchError

router = APIRouter(tags=["operations"])
CHECK_S = 8.0


@router.get("/healthz", openapi_extra={"security": []})
async def healthz() -> Alive:
    """The process answers. Says nothing of the services that it needs."""
    return Alive(version=__version__)


@router.get(
    "/readyz",
    openapi_extra={"security": []},
    responses={503: {"model": Ready, "description": "A service that the API needs is away"}},
)
async def readyz(api: Api, response: Response) -> Ready:
    """Can the API do its work, and which service is missing if not?"""
    found: list[Dependency] = []

    async def look(name: Literal["mlflow", "airflow"], check: Any) -> None:
        detail = ""
        try:
            with anyio.fail_after(CHECK_S):
                await check(api)
        except TimeoutError:
            detail = "does not answer in time"
        except (TipbenchError, Problem) as error:
            detail = "cannot be reached" if getattr(error, "exit_code", 0) == 5 else "answers, but not as it should"
        found.append(Dependency(name=name, ok=not detail, detail=detail))

    async with anyio.create_task_group() as group:
        group.start_soon(look, "mlflow", _mlflow)
        if api.back_end.name == "airflow":
            group.start_soon(look, "airflow", _airflow)
    found.sort(key=lambda one: one.name, reverse=True)
    ready = all(one.ok for one in found)
    response.status_code = 200 if ready else 503
    return Ready(ready=ready, dependencies=tuple(found))


async def _mlflow(api: Service) -> None:
    store = api.store
    await api.in_store(store.find_experiment, "tip-bench-readiness")


async def _airflow(api: Service) -> None:
    await api.in_back_end(api.back_end.check)


@router.get(
    "/metrics",
    response_model=None,
    responses={
        200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(401),
    },
)
async def metrics(api: Api) -> Response:
    """What Prometheus reads; it needs a token like everybody."""
    return Response(generate_latest(api.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> dict[str, Any]:
    """The OpenAPI document."""
    document: dict[str, Any] = request.app.openapi()
    prefix = request.scope.get("prefix")
    return {**document, "servers": [{"url": prefix}]} if prefix else document


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The same as a page to read, without a script and without the internet."""
    return Response(_page(request.app.openapi()), media_type="text/html")


def _page(document: dict[str, Any]) -> str:
    """One section a route: what it does, its parameters, its body and its answers."""
    sections = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            words = html.escape(operation.get("description") or operation.get("summary", ""))
            parts = [f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{words}</p>"]
            parts += [_parameters(operation.get("parameters", []))]
            body = operation.get("requestBody", {}).get("content", {})
            parts += [_block(f"Body ({media})", document, content.get("schema", {})) for media, content in body.items()]
            for status, answer in operation["responses"].items():
                schemas = [c.get("schema", {}) for c in answer.get("content", {}).values()]
                shown = next((s for s in schemas if "$ref" in s), None)
                label = f"{status}: {answer.get('description', '')}"
                parts.append(_block(label, document, shown) if shown else f"<p>{html.escape(label)}</p>")
            sections.append(f"<section>{''.join(parts)}</section>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>tipbench API</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="style.css"></head><body><main>'
        f"<h1>tipbench API {html.escape(document['info']['version'])}</h1>"
        '<p>The same for machines: <a href="openapi.json">openapi.json</a>.</p>'
        f"{''.join(sections)}</main></body></html>"
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = [
        f"<li><code>{html.escape(p['name'])}</code> ({p['in']}{', required' if p.get('required') else ''}) "
        f"{html.escape(p.get('description', ''))}</li>"
        for p in parameters
    ]
    return f"<ul>{''.join(rows)}</ul>" if rows else ""


def _block(title: str, document: dict[str, Any], schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    shown = document["components"]["schemas"].get(name, schema)
    text = html.escape(json.dumps(shown, indent=1, ensure_ascii=False))
    return f"<details><summary>{html.escape(title)} {name}</summary><pre>{text}</pre></details>"
