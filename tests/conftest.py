"""What more than one kind of test needs: a real MLflow server, the command line as a process, and who runs which test.

`make test` has several workers at once (pytest-xdist). Each has servers of its own, and one file's tests stay together, so that
what a file sets up is set up once.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = 1000
_ports = itertools.cycle(range(12_000 + WORKER % 16 * PORTS, 12_000 + (WORKER % 16 + 1) * PORTS))
for _ in range(random.SystemRandom().randrange(PORTS)):
    next(_ports)


def free_port() -> int:
    """A TCP port that nobody listens on right now, and that no other worker and no outgoing connection will be given meanwhile.

    The system's own choice (port 0) comes from the range of outgoing connections, and is handed out again as soon as it is free.
    """
    for port in itertools.islice(_ports, PORTS):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"none of {PORTS} ports is free")


class MlflowServer:
    """A real `mlflow server` process on a folder; it can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Is there a process?"""
        return self._process is not None

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


@pytest.fixture(scope="session")
def _spare_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("spare-mlflow"))
    yield server
    server.stop()


@pytest.fixture
def own_mlflow(_spare_mlflow: MlflowServer) -> MlflowServer:
    """A real MLflow server that nobody else uses now, to be stopped and started at will; experiments of earlier tests stay in it."""
    if not _spare_mlflow.running:
        _spare_mlflow.start()
    return _spare_mlflow


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


# -- several workers -----------------------------------------------------------------------------

SPINNING = "ollama"
"""Tests with this mark run while no other worker has a test: llama.cpp's threads wait for each other by spinning, and beside a
busy neighbour a model writes a word a second instead of sixty."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait, outside every time limit, until this test may begin."""
    session = getattr(item.config, "workerinput", {}).get("testrunuid")
    if session is None:
        return (yield)
    here = Path(tempfile.gettempdir()) / f"tipbench-tests-{session}"
    with here.with_suffix(".door").open("w") as door, here.with_suffix(".room").open("w") as room:
        # The door is closed by whoever wants the room alone, so that those who share it do not keep it for ever.
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if SPINNING in item.keywords else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `auto` means: a worker for every core that this process may use, and one more, since most tests wait for servers.

    A worker with its servers takes about 1 GiB: eight at most.
    """
    if wanted := os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return int(wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return min(cores + 1, 8)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that want the machine alone come first, then those that wait for servers, and the many quick ones fill the gaps.

    A file's tests go to one worker (--dist loadfile).
    """
    if hasattr(config, "workerinput"):
        marks = (SPINNING, "airflow", "browser", "integration", "dags", "charts")
        items.sort(key=lambda item: next((n for n, mark in enumerate(marks) if mark in item.keywords), len(marks)))


def pytest_deselected(items: list[pytest.Item]) -> None:
    """What a worker leaves out is told to the process that writes the summary."""
    config = items[0].config if items else None
    if config is not None and hasattr(config, "workeroutput"):
        config.workeroutput["on_cluster"] = sum("e2e" in item.keywords for item in items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What the workers left out: each of them leaves out the same."""
    found = getattr(node, "workeroutput", {}).get("on_cluster", 0)
    node.config.stash[ON_CLUSTER] = max(found, node.config.stash.get(ON_CLUSTER, 0))


ON_CLUSTER = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(
        str(report.longrepr[2] if isinstance(report.longrepr, tuple | list) else report.longrepr).removeprefix(
            "Skipped: "
        )
        for report in skipped
    )
    terminalreporter.section("left out")
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} tests: {reason}")
    deselected = terminalreporter.stats.get("deselected", [])
    on_cluster = sum("e2e" in item.keywords for item in deselected) or config.stash.get(ON_CLUSTER, 0)
    if "not production" in config.option.markexpr:
        terminalreporter.write_line(
            f"{on_cluster} tests install the values for production; run: make e2e E2E=production"
        )
    elif on_cluster:
        terminalreporter.write_line(f"{on_cluster} tests: they need the kind cluster; run: make e2e")
