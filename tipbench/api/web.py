"""What every answer goes through: a size limit, security headers, metrics and, for a change, a line in the audit log."""

from __future__ import annotations

import json
import logging
import time
import uuid
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tipbench.api import problems
from tipbench.api.auth import SAFE
from tipbench.api.problems import Problem

BODY_LIMIT = 1024**2
APPLY_LIMIT = 32 * 1024**2
"""Bytes of a body; an exchange file that comes back, or a table, may be larger than any other."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
audit_log = logging.getLogger("tipbench.audit")


class Metrics:
    """What Prometheus reads, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "tipbench_api_requests", "Requests by route.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "tipbench_api_request_seconds", "Time to the answer's first byte.", ["route"], registry=self.registry
        )
        self.in_flight = Gauge("tipbench_api_in_flight", "Requests being answered.", registry=self.registry)
        self.cache = Counter("tipbench_api_cache", "Looks into the caches.", ["what", "result"], registry=self.registry)
        self.scores = Counter("tipbench_api_scores", "Items scored through the API.", registry=self.registry)
        self.upstream = Counter(
            "tipbench_api_upstream_failures", "Answers 502 and 503, by service.", ["service"], registry=self.registry
        )


class Web:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        scope["request_id"] = str(uuid.uuid4())
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(scope, message)
                self._count(scope, status, time.perf_counter() - began)
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, _limited(scope, receive), sending)
        except Exception as error:
            if status:
                raise
            await problems.response(problems.of(error), scope["request_id"])(scope, receive, sending)
        finally:
            self._metrics.in_flight.dec()
            if scope["method"] not in SAFE:
                _audit(scope, status)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route(scope)
        self._metrics.requests.labels(scope["method"], route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)


class Prefixed:
    """ASGI middleware: all of it once more under a path, for a proxy that passes paths on as they are. One that takes the path away,
    and a probe that comes without, are served as well.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path == self._prefix:  # the panel's links are relative
                query = scope["query_string"].decode("latin-1")
                await RedirectResponse(f"{path}/" + (f"?{query}" if query else ""), 308)(scope, receive, send)
                return
            scope = {**scope, "prefix": self._prefix}
            if path.startswith(self._prefix + "/"):
                scope["path"] = path[len(self._prefix) :]
                scope["raw_path"] = scope.get("raw_path", b"")[len(self._prefix) :]
        await self._app(scope, receive, send)


def _route(scope: Scope) -> str:
    """The route's template, so that metrics do not grow with every name; panel files and strays are one each."""
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        return str(path)
    return "panel" if scope.get("panel") else "none"


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Raises 413 as soon as the body is known to be too large."""
    limit = APPLY_LIMIT if scope["path"].endswith(("/apply", "/import")) else BODY_LIMIT
    words = f"The body may have {limit:,} bytes at most."
    stated = Headers(scope=scope).get("content-length", "")
    seen = 0

    async def receiving() -> Message:
        nonlocal seen
        if stated.isdigit() and int(stated) > limit:
            raise Problem(413, words)
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise Problem(413, words)
        return message

    return receiving


def _add_headers(scope: Scope, message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if scope.get("scheme") == "https":
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    headers["X-Request-ID"] = scope["request_id"]
    if "set_cookie" in scope:
        headers.append("Set-Cookie", scope["set_cookie"])


def note(request: Request, **details: object) -> None:
    """Add details to the audit line of this request."""
    request.scope.setdefault("audit", {}).update(details)


def _audit(scope: Scope, status: int) -> None:
    """One JSON line: who did what to what, and what came of it. No body, no token."""
    identity = scope.get("identity")
    client = scope.get("client")
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "actor": identity.actor if identity else None,
        "token": identity.name if identity else None,
        "method": identity.method if identity else None,
        "action": f"{scope['method']} {_route(scope)}",
        "target": scope.get("path_params", {}),
        "status": status,
        "client": client[0] if client else None,
        "request_id": scope["request_id"],
        **scope.get("audit", {}),
    }
    audit_log.info(json.dumps(line, default=str))
