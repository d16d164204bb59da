"""A server that speaks Ollama's API with instant answers and fails on demand.

It is there to make failures happen when a test wants them, and for benchmarks of everything but the model. Tests that
claim Ollama use the real one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = "take one small step now: set a timer, put the phone away, drink water, write it down, breathe, and begin again".split()


@dataclass
class Fault:
    """One failure. `kind`: hang, hang_midstream, hang_at_end, error_midstream, garbage, empty, thinking_only, truncated, reset,
    wrong_types, nan, deep, not_gzip, no_think, says (`error` is the answer), or `http` with `status` and `error`."""

    kind: str
    status: int = 500
    error: str = "something went wrong"
    retry_after: str | None = None


@dataclass
class FakeOllama:
    """The server and what it has seen. Faults are used up one per chat request; `always` never is."""

    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None
    delay: float = 0.0
    """Seconds every answer takes."""
    tokens: int = 20
    generations: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """(model, last message, seed) -> answers completed"""
    requests: list[dict[str, Any]] = field(default_factory=list)
    loads: Counter[str] = field(default_factory=Counter)
    resident: dict[str, int] = field(default_factory=dict)
    most_resident: int = 0
    library: dict[str, int] = field(default_factory=dict)
    """What can be pulled: name -> parameters"""
    broken: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """Models that are listed and cannot be opened: name -> the status and body of `/api/show`"""
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What `/api/tags` and `/api/show` say beyond the usual: name -> fields"""
    pulls: deque[Any] = field(default_factory=deque)
    """What the next pulls say instead: an error's words, or None for a connection that breaks"""
    prompt_tokens: int = 50
    connections: int = 0
    """TCP connections accepted so far"""

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.httpd: _Server | None = None
        if not self.models:
            self.add("small:1b", 1_000_000_000)

    def add(self, name: str, parameters: int, size: int = 500_000_000) -> None:
        """A model with a parameter count."""
        self.models[name] = {
            "name": name,
            "size": size,
            "digest": hashlib.sha256(name.encode()).hexdigest(),
            "info": {
                "general.architecture": "llama",
                "general.parameter_count": parameters,
                "llama.block_count": 16,
                "llama.attention.head_count": 16,
                "llama.attention.head_count_kv": 4,
                "llama.embedding_length": 1024,
            },
        }

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self.httpd is not None
        return f"http://127.0.0.1:{self.httpd.server_address[1]}"

    def start(self, port: int = 0) -> FakeOllama:
        """Listen in a thread."""
        self.httpd = _Server(("127.0.0.1", port), _Handler)
        self.httpd.fake = self
        threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self.httpd is not None:
            self.httpd.shutdown()
            self.httpd.server_close()
            self.httpd.drop_connections()

    def text(self, model: str, question: str, seed: int) -> str:
        """The answer, which depends on model, question and seed alone."""
        number = int.from_bytes(hashlib.sha256(f"{model}|{question}|{seed}".encode()).digest()[:8], "big")
        picked = [WORDS[(number >> (3 * i)) % len(WORDS)] for i in range(self.tokens)]
        return " ".join(picked).capitalize() + "."

    def load(self, model: str) -> None:
        """Put a model into memory; like a server with OLLAMA_MAX_LOADED_MODELS unset, next to others."""
        with self.lock:
            if model not in self.resident:
                self.loads[model] += 1
                self.resident[model] = self.models[model]["size"]
            self.most_resident = max(self.most_resident, len(self.resident))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeOllama

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        self.fake.connections += 1
        super().process_request(request, client_address)

    def drop_connections(self) -> None:
        for sock in list(self.open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed in mid-request are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    @property
    def fake(self) -> FakeOllama:
        return self.server.fake

    def do_GET(self) -> None:
        if self.path == "/api/version":
            return self._send({"version": "0.0.0-fake"})
        if self.path == "/api/tags":
            return self._send(
                {
                    "models": [
                        {k: m[k] for k in ("name", "size", "digest")} | self.fake.extras.get(m["name"], {})
                        for m in self.fake.models.values()
                    ]
                }
            )
        if self.path == "/api/ps":
            with self.fake.lock:
                return self._send({"models": [{"name": n, "size": s} for n, s in self.fake.resident.items()]})
        return self._send({"error": "404 page not found"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = body.get("model", "")
        if self.path == "/api/pull":
            return self._pull(model)
        # Like the real server: case and the parts that are the default make no difference.
        short = model.lower().removeprefix("https://").removeprefix("registry.ollama.ai/").removeprefix("library/")
        model = next((name for name in self.fake.models if name.lower() in (short, f"{short}:latest")), model)
        body["model"] = model
        if self.path == "/api/show" and model in self.fake.broken:
            status, said = self.fake.broken[model]
            return self._send(said, status)
        if model not in self.fake.models:
            return self._send({"error": f"model '{model}' not found"}, 404)
        if self.path == "/api/show":
            info = self.fake.models[model]["info"]
            if not body.get("verbose"):
                # Like the real server: arrays come only when asked for.
                info = {k: None if isinstance(v, list) else v for k, v in info.items()}
            return self._send(
                {"model_info": info, "details": {"quantization_level": "Q4_0", "family": "llama"}}
                | self.fake.extras.get(model, {})
            )
        if self.path == "/api/generate":
            if body.get("keep_alive") == 0:
                with self.fake.lock:
                    self.fake.resident.pop(model, None)
            return self._send({"done": True})
        if self.path == "/api/chat":
            return self._chat(body)
        return self._send({"error": "404 page not found"}, 404)

    def _pull(self, model: str) -> None:
        if self.fake.pulls:
            said = self.fake.pulls.popleft()
            chunks = [{"status": "pulling manifest"}, *([{"error": said}] if said is not None else [])]
            return self._stream(chunks, "reset" if said is None else "")
        if model not in self.fake.library:
            return self._stream(
                [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}], ""
            )
        self.fake.add(model, self.fake.library[model])
        return self._stream([{"status": "pulling manifest"}, {"status": "success"}], "")

    def _chat(self, body: dict[str, Any]) -> None:
        fake, model = self.fake, body["model"]
        with fake.lock:
            fake.requests.append(body)
            fault = fake.always or (fake.faults.popleft() if fake.faults else None)
        question, seed = body["messages"][-1]["content"], body["options"]["seed"]
        if fault is not None and fault.kind == "no_think" and "think" in body:
            return self._send({"error": f'"{model}" does not support thinking'}, 400)
        if fault is not None and fault.kind == "http":
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return self._send({"error": fault.error}, fault.status, headers)
        if fault is not None and fault.kind == "hang":
            time.sleep(30)
            return None
        if body.get("truncate") is False and fake.prompt_tokens > body["options"]["num_ctx"]:
            return self._send({"error": "the input length exceeds the context length"}, 400)
        fake.load(model)
        if fake.delay:
            time.sleep(fake.delay)
        text = fake.text(model, question, seed)
        half = len(text) // 2
        chunks: list[Any] = [_chunk(text[:half]), _chunk(text[half:])]
        last = {
            **_chunk(""), "done": True, "done_reason": "stop", "total_duration": 3_000_000, "load_duration": 0,
            "prompt_eval_count": min(fake.prompt_tokens, body["options"]["num_ctx"]), "prompt_eval_duration": 1_000_000, "eval_count": fake.tokens, "eval_duration": 2_000_000,
        }  # fmt: skip
        kind = fault.kind if fault is not None else ""
        if kind == "error_midstream":
            chunks = [chunks[0], {"error": fault.error if fault else ""}]
        elif kind == "garbage":
            chunks = [chunks[0], "<html>502 Bad Gateway</html>"]
        elif kind == "wrong_types":
            chunks = [{"message": {"content": 7}}, last]
        elif kind == "deep":
            chunks = ["[" * 100_000]
        elif kind == "nan":
            chunks.append({**last, "eval_duration": float("nan")})
        elif kind == "empty":
            chunks = [_chunk(""), last]
        elif kind == "says" and fault is not None:
            chunks = [_chunk(fault.error), last]
        elif kind == "thinking_only":
            chunks = [{"message": {"role": "assistant", "content": "", "thinking": "hm"}}, last]
        elif kind in ("truncated", "reset", "hang_midstream"):
            chunks = chunks[:1]
        else:
            chunks.append(last)
        if body.get("keep_alive") == 0:
            with fake.lock:
                fake.resident.pop(model, None)
        self._stream(chunks, kind)
        if not kind or kind == "no_think":
            with fake.lock:
                fake.generations[model, question, seed] += 1
        return None

    def _stream(self, chunks: list[Any], kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        if kind == "not_gzip":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        lines = [(c if isinstance(c, str) else json.dumps(c)) + "\n" for c in chunks]
        self.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(d), d) for d in (line.encode() for line in lines)))
        self.wfile.flush()
        if kind in ("hang_midstream", "hang_at_end"):
            time.sleep(30)
        if kind in ("reset", "hang_midstream", "hang_at_end"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, body: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)


def _chunk(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "done": False}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Instant answers in Ollama's words, for benchmarks.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--delay", type=float, default=0.0)
    arguments = parser.parse_args()
    server = FakeOllama(delay=arguments.delay)
    for name in arguments.model:
        server.add(name, 1_000_000_000)
    server.start(arguments.port)
    print(server.url, flush=True)
    threading.Event().wait()
