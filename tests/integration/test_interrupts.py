"""Ctrl-C: every command ends within two seconds with 130 and no traceback, whatever it waits for."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import clean_env, command_line, free_port
from tests.unit.test_validate import raw

pytestmark = pytest.mark.integration
PROMISED_S = 2.0


class Tarpit:
    """A server that takes every connection and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.called = threading.Event()
        self._held: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._held.append(connection)
            self.called.set()

    def close(self) -> None:
        self._socket.close()
        for connection in self._held:
            connection.close()


@pytest.fixture
def tarpit() -> Iterator[Tarpit]:
    server = Tarpit()
    yield server
    server.close()


WAITING = {
    "collect, for Ollama": ["collect", "--models", "a:1b", "--mlflow-url", "STORE", "--ollama-url", "TARPIT"],
    "run, for Ollama": ["run", "--models", "a:1b", "--mlflow-url", "STORE", "--ollama-url", "TARPIT", "--out", "OUT"],
    "models, for Ollama": ["models", "--models", "a:1b", "--mlflow-url", "STORE", "--ollama-url", "TARPIT"],
    "doctor, for Ollama": ["doctor", "--mlflow-url", "STORE", "--ollama-url", "TARPIT"],
    "export, for MLflow": ["judge", "export", "--mlflow-url", "TARPIT", "--out", "OUT/x.json"],
    "compare, for MLflow": ["compare", "--mlflow-url", "TARPIT"],
    "agreement, for MLflow": ["judge", "agreement", "--mlflow-url", "TARPIT"],
    "plan, for MLflow": ["plan", "--from-data", "--mlflow-url", "TARPIT"],
    "apply, for MLflow": ["judge", "apply", "FILE", "--mlflow-url", "TARPIT"],
    "score, for a judge": ["judge", "score", "FILE", "--with", "openai:gpt", "--base-url", "TARPIT"],
    "score, for Ollama": ["judge", "score", "FILE", "--with", "ollama:a", "--ollama-url", "TARPIT"],
}


@pytest.mark.parametrize("words", WAITING.values(), ids=WAITING)
def test_ctrl_c_ends_within_two_seconds(words: list[str], tarpit: Tarpit, tmp_path: Path) -> None:
    body = raw(judged=words[1] == "apply")
    (tmp_path / "judge.json").write_text(json.dumps(body))
    places = {
        "TARPIT": tarpit.url,
        "STORE": str(tmp_path / "store"),
        "OUT": str(tmp_path),
        "FILE": str(tmp_path / "judge.json"),
    }
    arguments = []
    for word in words:
        for name, place in places.items():
            word = word.replace(name, place)
        arguments.append(word)
    process = subprocess.Popen(
        command_line(*arguments), env=clean_env(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert tarpit.called.wait(60), process.communicate(timeout=10)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    took = time.monotonic() - began
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "Interrupted" in errors
    assert took <= PROMISED_S, f"{took:.1f} s"


def test_ctrl_c_ends_serve_though_somebody_watches(tmp_path: Path) -> None:
    port = free_port()
    env = clean_env(tmp_path) | {"TIPBENCH_TOKENS_DIR": str(tmp_path / "tokens")}
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "me").write_text("t" * 40)
    process = subprocess.Popen(command_line("serve", "--port", port), env=env, stderr=subprocess.PIPE, text=True)
    import httpx

    for _ in range(600):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/healthz").is_success:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    slow = socket.create_connection(("127.0.0.1", port))
    slow.sendall(b"POST /api/bench/run HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    slow.close()
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert time.monotonic() - began <= PROMISED_S
