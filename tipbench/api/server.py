"""`tipbench serve`: the app under uvicorn, with logs that have no secret in them."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import signal
import sys
from types import FrameType

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tipbench.api.app import create_app
from tipbench.api.settings import Settings, from_environment
from tipbench.config import Config
from tipbench.ending import cut_later
from tipbench.errors import InputError

GRACE_S = 10
"""How long open answers (live streams above all) may take when the server is stopped."""


def serve(host: str, port: int, *, airflow_url: str | None = None, mlflow_url: str | None = None) -> None:
    """Serve until interrupted. Without TIPBENCH_TOKENS_DIR there is one token, made for this start, and a URL that logs in once."""
    environment = dict(os.environ)
    if airflow_url is not None:
        environment["TIPBENCH_AIRFLOW_URL"] = airflow_url
    if mlflow_url is not None:
        environment["TIPBENCH_MLFLOW_URL"] = mlflow_url
    settings = from_environment(environment)
    if not settings.tokens_dir and host not in ("127.0.0.1", "::1", "localhost"):
        raise InputError(
            f"--host {host} lets other machines in; name a folder with tokens (TIPBENCH_TOKENS_DIR), or leave --host out"
        )
    _configure_logs()
    token = "" if settings.tokens_dir else secrets.token_urlsafe(24)
    app = create_app(settings, {"laptop": token} if token else None)
    if token:
        _welcome(settings, f"http://{'[::1]' if host == '::1' else host}:{port}", token, app.state.auth.tokens.once())
    config = uvicorn.Config(
        Behind(app, settings.trusted_proxies),
        host=host,
        port=port,
        proxy_headers=False,
        log_config=None,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        date_header=True,
    )
    _Server(config).run()


class _Server(uvicorn.Server):
    """Lets open answers end after SIGTERM; after Ctrl-C, somebody waits for the prompt."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's own, with a limit after Ctrl-C."""
        if sig == signal.SIGINT:
            self.config.timeout_graceful_shutdown = 1
            # The requests that are cut off are no news to whoever pressed the keys.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            cut_later()
        super().handle_exit(sig, frame)


class Behind:
    """The app behind proxies: those that are trusted say from where, how and to which name a request came (X-Forwarded-For, -Proto,
    -Host, -Port). Of anybody else these headers mean nothing.
    """

    def __init__(self, app: ASGIApp, trusted: str) -> None:
        """`trusted`: addresses and networks, comma-separated; `*` for all."""
        self._app = ProxyHeadersMiddleware(app, trusted_hosts=trusted)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        if scope["type"] == "http" and peer and peer[0] in self._app.trusted_hosts:
            headers = Headers(scope=scope)
            for name in ("host", "port"):
                # Of several proxies the first one met the browser.
                scope[f"forwarded_{name}"] = headers.get(f"x-forwarded-{name}", "").split(",")[0].strip()
        await self._app(scope, receive, send)  # type: ignore[arg-type]


def _welcome(settings: Settings, url: str, token: str, code: str) -> None:
    where = f"Airflow at {settings.airflow_url}" if settings.airflow_url else "this machine"
    lines = [
        f"tipbench: results in {settings.store_url}, collections by {where}",
        *_other_store(settings),
        "",
        f"  open      {url}/#/login?token={code}",
        "            (works once)",
        f"  or curl   -H 'Authorization: Bearer {token}' {url}/api/bench/experiments",
        "            (works until this command ends)",
        "",
    ]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def _other_store(settings: Settings) -> list[str]:
    """Without being told, `serve` on a laptop keeps results in a folder, and the other commands ask a server: say so, and how to meet."""
    other = Config().store_url
    if settings.store_url == other or settings.config.mlflow_url:
        return []
    return [
        f"          the other commands use {other} unless they are told; to meet there or here:",
        f"          tipbench serve --mlflow-url {other}",
        f"          tipbench compare --mlflow-url {shlex.quote(settings.store_url)}",
    ]


def _configure_logs() -> None:
    """Everything to standard error, one line each; the audit log is JSON as it is."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("tipbench.api", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
    audit = logging.getLogger("tipbench.audit")
    plain = logging.StreamHandler()
    plain.setFormatter(logging.Formatter("%(message)s"))
    audit.addHandler(plain)
    audit.setLevel(logging.INFO)
    audit.propagate = False
