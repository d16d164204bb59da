"""Stands where Airflow would, to fail on demand: hang, refuse, answer 401, 500 or nonsense. The real one is in test_airflow.py."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeAirflow:
    """Answers well enough to trigger a run, unless `fails` names how not to."""

    def __init__(self) -> None:
        self.fails = ""
        self.good_tokens = {"token-1"}
        self.calls: Counter[str] = Counter()
        self.runs: dict[str, dict[str, object]] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fake._answer(self)

            do_GET = do_PATCH = do_POST

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length) or b"{}")
        path = request.path.split("?")[0]
        self.calls[f"{request.command} {path}"] += 1
        if self.fails == "hang":
            time.sleep(3)
        if self.fails == "reset":
            request.connection.close()
            return
        if self.fails == "nonsense":
            self._send(request, 200, b"<html>hello</html>")
            return
        if self.fails.isdigit():
            self._send(request, int(self.fails), b'{"detail": "as was asked for"}')
            return
        if path == "/auth/token":
            token = max(self.good_tokens)
            self._send(request, 201, json.dumps({"access_token": token}).encode())
            return
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.good_tokens:
            self._send(request, 401, b'{"detail": "Invalid JWT token"}')
            return
        self._send(request, *self._api(request.command, path, body))

    def _api(self, method: str, path: str, body: dict[str, object]) -> tuple[int, bytes]:
        if path.endswith("/details"):
            params = {
                name: {"value": value} for name, value in {"models": "a:1b", "experiment": "tip-bench-auto"}.items()
            }
            return 200, json.dumps({"params": params}).encode()
        if method == "POST":
            run_id = str(body["dag_run_id"])
            if run_id in self.runs:
                return 409, b'{"detail": "exists"}'
            assert "logical_date" in body
            run: dict[str, object] = {
                "dag_run_id": run_id,
                "state": "queued",
                "conf": body["conf"],
                "note": body["note"],
            }
            self.runs[run_id] = run
            return 200, json.dumps(run).encode()
        if path.endswith("/taskInstances"):
            return 200, b'{"task_instances": [], "total_entries": 0}'
        if "/dagRuns/" in path:
            known = self.runs.get(path.rsplit("/", 1)[-1])
            return (200, json.dumps(known).encode()) if known else (404, b'{"detail": "no such run"}')
        return 200, b'{"is_paused": false}'

    def _send(self, request: BaseHTTPRequestHandler, status: int, content: bytes) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def stop(self) -> None:
        """Nobody listens any more."""
        self.server.shutdown()
        self.server.server_close()
