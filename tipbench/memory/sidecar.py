"""Memory over HTTP: a container beside Ollama, in the same pod and its process namespace and user, says what its processes take.

    python -m tipbench.memory --port 11435

`GET /memory` answers `{"schema_version": "tipbench.memory/1", "bytes": 1234 or null}`, null while no model is loaded. It
reads and changes nothing else, and needs no right in the cluster: the kernel lets a user read the user's own processes.
"""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tipbench.memory.meter import Source
from tipbench.memory.processes import measure, servers

PORT = 11435
SCHEMA = "tipbench.memory/1"
TIMEOUT_S = 3.0
GIVE_UP_AFTER = 3
"""Failed questions in a row after which no sidecar is looked for any more."""


class SidecarGauge:
    """Asks the sidecar on the host of an Ollama URL."""

    source: Source = "sidecar"

    def __init__(self, url: str, port: int = PORT) -> None:
        host = urlsplit(url).hostname or ""
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}/memory"
        self._failures = 0

    @property
    def gave_up(self) -> bool:
        """Was it looked for long enough?"""
        return self._failures >= GIVE_UP_AFTER

    def read(self) -> int | None:
        """Bytes of the server's processes; None when no sidecar answers, or no model is loaded."""
        if self.gave_up:
            return None
        import httpx  # the sidecar itself does without

        try:
            # Past proxies: it is beside the server, and a proxy would answer for hosts that have none.
            answer = httpx.get(self._url, timeout=TIMEOUT_S, trust_env=False)
            body = answer.json() if answer.status_code == 200 else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError):
            body = None
        if not isinstance(body, dict) or body.get("schema_version") != SCHEMA:
            self._failures += 1
            return None
        self._failures = 0
        size = body.get("bytes")
        return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/memory":
            self._answer(200, {"schema_version": SCHEMA, "bytes": measure(servers())})
        elif self.path == "/healthz":
            self._answer(200, {"ok": True})
        else:
            self._answer(404, {"error": "there are /memory and /healthz"})

    def _answer(self, status: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        with suppress(ConnectionError):  # who asked did not wait
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Four lines a second are no log."""


def serve(host: str, port: int) -> ThreadingHTTPServer:
    """The server, bound and ready for `serve_forever`."""
    server = ThreadingHTTPServer((host, port), _Handler)
    server.daemon_threads = True
    return server


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(
        prog="python -m tipbench.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default all)")  # noqa: S104
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}")
    arguments = parser.parse_args()
    serve(arguments.host, arguments.port).serve_forever()
