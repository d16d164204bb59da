"""`tipbench serve` as on a laptop, in a process of its own, and the Ollama that it collects from."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.conftest import clean_env, free_port
from tests.fakes.ollama_server import FakeOllama


class Laptop:
    """`tipbench serve` as a process, to be stopped and killed at will, with everything in one folder."""

    def __init__(self, folder: Path, ollama: FakeOllama, mlflow_url: str = "") -> None:
        """Without an `mlflow_url` it keeps its results in a folder, as it does when nothing is configured."""
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        self.experiment = f"tip-bench-local-{self.port}"
        """The one that a run without a name is in; nobody else's on a shared MLflow."""
        self.environment = clean_env(folder) | {
            "TIPBENCH_EXPERIMENT": self.experiment,
            "XDG_STATE_HOME": str(folder / "state"),
            "TIPBENCH_OLLAMA_URL": ollama.url,
            "TIPBENCH_MODELS": "small:1b,other:1b",
            **({"TIPBENCH_MLFLOW_URL": mlflow_url} if mlflow_url else {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, in_background: bool = False) -> httpx.Client:
        """Start it, as from a terminal or as a script's background job; a client with the token that it printed."""

        def ignore_interrupts() -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "tipbench", "serve", "--port", str(self.port)]
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=log,
                stderr=log,
                preexec_fn=ignore_interrupts if in_background else None,
            )
        deadline = time.monotonic() + 180
        while True:
            try:
                httpx.get(self.url + "/healthz", timeout=5)
                break
            except httpx.TransportError:
                assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)
        found = re.search(r"Bearer ([\w-]+)", self.log.read_text())
        assert found is not None
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {found[1]}"}, timeout=60)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it with a signal, and wait."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None


@contextmanager
def an_ollama(delay: float = 0.0) -> Iterator[FakeOllama]:
    """An Ollama with two models, that takes `delay` seconds for an answer."""
    fake = FakeOllama(delay=delay)
    fake.add("other:1b", 1_000_000_000)
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()
