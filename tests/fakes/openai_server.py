"""A server that speaks OpenAI's chat API, with the quirks of providers on demand.

It is there to make refusals, limits and odd answers happen when a test wants them, and for benchmarks of everything but the model.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SCORES = '{"rationale": "r", "relevance": 4, "actionability": 3, "tone": 5}'


@dataclass
class Reply:
    """One answer with a status of its own."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeOpenAI:
    """The server and what it has seen. `refuse` turns a request away: it gets the body and returns a Reply, or None."""

    content: str | Callable[[dict[str, Any]], str] = SCORES
    refuse: Callable[[dict[str, Any]], Reply | None] = lambda body: None
    replies: deque[Reply] = field(default_factory=deque)
    """Used up one per chat request."""
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "m"}])
    delay: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    """Put into the choice of every answer: logprobs, finish_reason, ..."""
    timings: dict[str, float] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    """last message -> how often it was asked"""
    most_at_once: int = 0
    connections: int = 0
    """TCP connections accepted so far"""
    hang_s: float = 0.0
    """How long a stream stays open after its last event."""

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.at_once = 0
        self.httpd: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """The base URL."""
        assert self.httpd is not None
        return f"http://127.0.0.1:{self.httpd.server_address[1]}/v1"

    def start(self, port: int = 0, host: str = "127.0.0.1") -> FakeOpenAI:
        """Listen in a thread."""
        handler = type("Handler", (_Handler,), {"fake": self})
        self.httpd = _Server((host, port), handler)
        threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening."""
        if self.httpd is not None:
            self.httpd.shutdown()
            self.httpd.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed in mid-request are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeOpenAI

    def setup(self) -> None:
        super().setup()
        with self.fake.lock:
            self.fake.connections += 1

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            return self._send(Reply(200, {"object": "list", "data": self.fake.models}))
        return self._send(Reply(404, {"error": {"message": "not found"}}))

    def do_POST(self) -> None:
        fake = self.fake
        if self.path != "/v1/chat/completions":
            self.rfile.read(int(self.headers["Content-Length"]))
            return self._send(Reply(404, {"error": {"message": "Not Found"}}))
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with fake.lock:
            fake.requests.append(body)
            fake.times.append(time.monotonic())
            fake.headers.append(dict(self.headers))
            fake.asked[body["messages"][-1]["content"]] += 1
            fake.at_once += 1
            fake.most_at_once = max(fake.most_at_once, fake.at_once)
            reply = fake.replies.popleft() if fake.replies else fake.refuse(body)
        try:
            if fake.delay:
                time.sleep(fake.delay)
            self._send(reply) if reply is not None else self._answer(body)
        finally:
            with fake.lock:
                fake.at_once -= 1
        return None

    def _answer(self, body: dict[str, Any]) -> None:
        fake = self.fake
        content = fake.content(body) if callable(fake.content) else fake.content
        choice = {"index": 0, "finish_reason": "stop", **fake.extra}
        usage = {"prompt_tokens": 50, "completion_tokens": 20}
        if not body.get("stream"):
            whole = {**choice, "message": {"role": "assistant", "content": content}}
            return self._send(Reply(200, {"choices": [whole], "usage": usage}))
        half = len(content) // 2
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]},
            {"choices": [{"index": 0, "delta": {"content": content[:half]}}]},
            {"choices": [{"index": 0, "delta": {"content": content[half:]}}]},
            {"choices": [{**choice, "delta": {}}], **({"timings": fake.timings} if fake.timings else {})},
        ]
        if body.get("stream_options", {}).get("include_usage"):
            chunks.append({"choices": [], "usage": usage})
        data = "".join(f"data: {json.dumps(c)}\n\n" for c in chunks) + "data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(data.encode()) + bool(fake.hang_s)))
        self.end_headers()
        self.wfile.write(data.encode())
        time.sleep(fake.hang_s)
        return None

    def _send(self, reply: Reply) -> None:
        data = reply.body.encode() if isinstance(reply.body, str) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in reply.headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)


def refuses(
    field_name: str, words: str, code: str = "unsupported_parameter"
) -> Callable[[dict[str, Any]], Reply | None]:
    """A server that turns away requests with a field in them, in OpenAI's shape."""

    def refuse(body: dict[str, Any]) -> Reply | None:
        if field_name not in body:
            return None
        error = {"message": words, "type": "invalid_request_error", "param": field_name, "code": code}
        return Reply(400, {"error": error})

    return refuse


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Instant scores in OpenAI's words, for benchmarks.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    arguments = parser.parse_args()
    server = FakeOpenAI(delay=arguments.delay).start(arguments.port)
    print(server.url, flush=True)
    threading.Event().wait()
