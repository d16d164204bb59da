"""What more than one kind of test needs: a real MLflow server, the command line as a process, and who runs which test.

`make test` has several workers at once (pytest-xdist), each with servers of its own. What shares a costly set-up stays together
(TOGETHER, and one file's tests), what shares little is spread (APART).
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
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.forked import Forked
from tipbench.store import open_store

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

    def __init__(self, folder: Path, empty: Path | None = None) -> None:
        """`empty`: a database to begin with, which spares the server the making of its tables."""
        self.folder = folder
        self._empty = empty
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> None:
        """Start it if it does not run."""
        if self._process is None:
            self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._empty is not None and not (self.folder / "mlflow.db").exists():
            shutil.copy(self._empty, self.folder / "mlflow.db")
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
def empty_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them: its dozens of migrations, which take a second of a core, run once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "empty-store"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "mlflow.db").exists():
            open_store(str(folder)).close()
    return folder / "mlflow.db"


@pytest.fixture
def store_folder(tmp_path: Path, empty_db: Path) -> Path:
    """A store in a folder, with nothing in it yet."""
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(empty_db, folder)
    return folder


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, empty_db: Path) -> Iterator[MlflowServer]:
    """One real MLflow server for the session; tests keep apart by experiment names."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"), empty_db)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mlflow_url(mlflow_server: MlflowServer) -> str:
    """The URL of a real MLflow server."""
    return mlflow_server.url


@pytest.fixture(scope="session")
def spare_mlflow(tmp_path_factory: pytest.TempPathFactory, empty_db: Path) -> Iterator[MlflowServer]:
    """Another MLflow server, not started yet, with few experiments; for `own_mlflow`, and for one module at a time."""
    server = MlflowServer(tmp_path_factory.mktemp("spare-mlflow"), empty_db)
    yield server
    server.stop()


@pytest.fixture
def own_mlflow(spare_mlflow: MlflowServer) -> MlflowServer:
    """A real MLflow server that nobody else uses now, to be stopped and started at will; experiments of earlier tests stay in it."""
    spare_mlflow.ensure()
    return spare_mlflow


Tipbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def forked() -> Iterator[Forked]:
    """The installed command with its imports done, for processes that end by themselves."""
    opened = Forked()
    yield opened
    opened.close()


@pytest.fixture
def tipbench(forked: Forked, tmp_path: Path) -> Tipbench:
    """`tipbench(*args)` runs the installed command in an empty HOME and returns the finished process."""

    def run(*args: object, env: dict[str, str] | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return forked.run(command_line(*args), env=clean_env(tmp_path) | (env or {}), timeout=timeout)

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

TOGETHER = {
    "browser": ("tests/browser/",),
    "dags": ("tests/dags/",),
    "ollama": tuple(
        f"tests/integration/test_{name}.py"
        for name in ("memory_sources", "ollama_judges_real", "ollama_models_real", "ollama_real")
    ),
}
"""Files, by the beginnings of their names, that one worker runs: what they share takes longer to set up than they take to run."""

APART = tuple(
    f"tests/integration/{name}.py"
    for name in "api/test_local_runs test_collect test_every_option test_interrupts test_judges test_judging test_no_secret_shown".split()
)
"""Files whose tests take long one after the other and share little: any worker may have one of them (or, where a parameter has
several words, those with the same first word)."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """A file's tests go to one worker, and so do the files that share a server; those of a long file without one go to any."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            if file.startswith("tests/e2e/"):
                return nodeid
            if file in APART:
                return nodeid.split(" ", 1)[0]
            return next((group for group, files in TOGETHER.items() if file.startswith(files)), file)

    return Together(config, log)


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
    """Tests that wait for servers come first, and the many quick ones fill the gaps."""
    if hasattr(config, "workerinput"):
        marks = ("browser", "airflow", "ollama", "integration", "dags", "charts")
        items.sort(
            key=lambda item: next((n for n, mark in enumerate(marks) if item.get_closest_marker(mark)), len(marks))
        )


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
        terminalreporter.write_line("those that install the values for production; run: make e2e E2E=production")
    elif on_cluster:
        terminalreporter.write_line(f"{on_cluster} tests: they need the kind cluster; run: make e2e")
