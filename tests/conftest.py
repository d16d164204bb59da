"""Fixtures that more than one kind of test needs: a real MLflow server, and the command line as a process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class MlflowServer:
    """A real `mlflow server` process on a folder; it can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(self.url + "/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise RuntimeError("mlflow server did not start:\n" + (self.folder / "server.log").read_text()[-4000:])

    def stop(self) -> None:
        """Stop the server and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One real MLflow server for the session; tests keep apart by experiment names."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mlflow_url(mlflow_server: MlflowServer) -> str:
    """The URL of a real MLflow server."""
    return mlflow_server.url


@pytest.fixture
def own_mlflow(tmp_path: Path) -> Iterator[MlflowServer]:
    """A real MLflow server of the test's own, to be stopped and started at will."""
    server = MlflowServer(tmp_path / "mlflow")
    server.start()
    yield server
    server.stop()


Tipbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tipbench(tmp_path: Path) -> Tipbench:
    """`tipbench(*args)` runs the installed command in an empty HOME and returns the finished process."""

    def run(*args: object, env: dict[str, str] | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line(*args), env=clean_env(tmp_path) | (env or {}), capture_output=True, text=True, timeout=timeout
        )

    return run


def command_line(*args: object) -> list[str]:
    """The installed `tipbench` with arguments."""
    program = Path(sys.executable).with_name("tipbench")
    return [str(program if program.exists() else shutil.which("tipbench")), *map(str, args)]


def clean_env(home: Path) -> dict[str, str]:
    """The environment without anything that configures tipbench or MLflow, and with a HOME of its own."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("TIPBENCH_", "MLFLOW_", "OLLAMA_", "XDG_", "OPENAI_"))
    }
    return kept | {"HOME": str(home), "COLUMNS": "120"}


def pytest_configure() -> None:
    """A shell starts its background jobs with interrupts ignored, and a program that is born so never sees one: end that here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons: dict[str, int] = {}
    for report in skipped:
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] = reasons.get(reason.removeprefix("Skipped: "), 0) + 1
    terminalreporter.section("left out")
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} tests: {reason}")
    on_cluster = sum("e2e" in item.keywords for item in terminalreporter.stats.get("deselected", []))
    if on_cluster:
        terminalreporter.write_line(f"{on_cluster} tests: they need the kind cluster; run: make e2e")
