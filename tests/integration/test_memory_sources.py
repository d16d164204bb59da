"""Where a board's memory figures come from, on a real Ollama: its processes on this machine, or only its own count elsewhere."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Tipbench
from tests.integration.conftest import OllamaServer

pytestmark = [pytest.mark.integration, pytest.mark.ollama]

MIB = 1024**2


@contextlib.contextmanager
def forwarded(port: int) -> Iterator[int]:
    """A port that hands on to another one, as `kubectl port-forward` does: the server's processes are not those that listen."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=pump, args=(near, far), daemon=True).start()
                threading.Thread(target=pump, args=(far, near), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.close()


class Watch:
    """The largest sum of proportional set sizes over a process and those below it, as the kernel writes it."""

    def __init__(self, pid: int) -> None:
        self.most = 0
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *ending: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            size = 0
            for process in (self._root, *self._root.children(recursive=True)):
                with contextlib.suppress(OSError):
                    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
                    size += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
            self.most = max(self.most, size)
            time.sleep(0.1)


@pytest.fixture
def board(tipbench: Tipbench, tmp_path: Path) -> Callable[[str], tuple[list[dict[str, Any]], dict[str, str]]]:
    """Runs the pipeline against an address: the cells of the JSON board, and each form of the board as text."""

    def make(url: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
        out = tmp_path / "report"
        done = tipbench(
            "run", "--models", "smollm2:135m", "--prompts", "v1", "--n-scenarios", 2, "--n-tips", 1, "--num-predict", 20,
            "--ollama-url", url, "--mlflow-url", tmp_path / "store", "--out", out,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        forms = {path.suffix: path.read_text() for path in out.iterdir() if path.suffix in (".md", ".html")}
        return json.loads((out / "leaderboard.json").read_text())["cells"], {"terminal": done.stdout, **forms}

    return make


@pytest.fixture(autouse=True)
def nothing_loaded(ollama: OllamaServer) -> None:
    """What a test before left in memory is none of this one's."""
    for name in ollama.resident():
        httpx.post(ollama.url + "/api/generate", json={"model": name, "keep_alive": 0}).raise_for_status()
    deadline = time.monotonic() + 30
    while psutil.Process(ollama.process.pid).children():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_server_on_this_machine_is_measured_by_its_processes(
    board: Callable[[str], tuple[list[dict[str, Any]], dict[str, str]]], ollama: OllamaServer
) -> None:
    with Watch(ollama.process.pid) as watch:
        (cell,), forms = board(ollama.url)
    assert cell["memory_source"] == "processes"
    assert cell["peak_memory_bytes"] == pytest.approx(watch.most, rel=0.05)
    figure = f"{cell['peak_memory_bytes'] / MIB:.0f} MiB"
    assert set(forms) == {"terminal", ".md", ".html"}
    for form, text in forms.items():
        assert figure in text and "(processes)" in text and f"{figure} reported" not in text, form


def test_what_a_server_elsewhere_reports_is_marked_as_that(
    board: Callable[[str], tuple[list[dict[str, Any]], dict[str, str]]], ollama: OllamaServer
) -> None:
    with forwarded(int(ollama.url.rsplit(":", 1)[1])) as port, Watch(ollama.process.pid) as watch:
        (cell,), forms = board(f"http://127.0.0.1:{port}")
    assert cell["memory_source"] == "reported" and cell["peak_memory_bytes"] < 0.8 * watch.most
    figure = f"{cell['peak_memory_bytes'] / MIB:.0f} MiB"
    for form, text in forms.items():
        assert figure in text and "(reported)" in text, form
    assert f"{figure} reported" in forms[".md"] and f"{figure} reported" in forms[".html"]
