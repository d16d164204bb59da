"""Real processes: a stand-in of Ollama's name that listens and has a child with memory, read as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import free_port
from tipbench.memory.meter import Meter
from tipbench.memory.processes import FORWARDERS, OwnProcessGauge, ProcessGauge, is_here, own_size
from tipbench.memory.sidecar import GIVE_UP_AFTER, SCHEMA, SidecarGauge, serve

pytestmark = pytest.mark.unit

MIB = 1024**2
HELD = 96 * MIB
SERVER = """
import socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
child = None
for line in sys.stdin:
    if child is None:
        child = subprocess.Popen([sys.executable, "-c", sys.argv[2]], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        child.stdout.readline()
    else:
        child.kill(); child.wait(); child = None
    print("done", flush=True)
"""
RUNNER = f"held = b'x' * {HELD}; print('ready', flush=True); input()"


@dataclass
class Server:
    """A process that listens, and on demand has a child that holds memory."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def toggle(self) -> None:
        """Load the model, or drop it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        """End it and its child."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
        self.process.kill()
        self.process.wait()


@contextmanager
def started(folder: Path, name: str, port: int) -> Iterator[Server]:
    program = folder / name
    if not program.exists():
        program.symlink_to(Path(sys.executable).resolve())
    command = [str(program), "-c", SERVER, str(port), RUNNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        server = Server(port, process)
        yield server
        server.kill()


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[Server]:
    with started(tmp_path, "ollama", free_port()) as server:
        yield server


@pytest.fixture
def forwarder(tmp_path: Path) -> Iterator[Server]:
    assert "kubectl" in FORWARDERS
    with started(tmp_path, "kubectl", free_port()) as server:
        yield server


def test_server_and_runner_are_counted_together_while_a_model_is_loaded(ollama: Server) -> None:
    gauge = ProcessGauge(ollama.url)
    assert gauge.read() is None, "a server without a model says nothing of the model"
    ollama.toggle()
    size = gauge.read()
    assert size is not None and HELD < size < HELD + 60 * MIB
    ollama.toggle()
    assert gauge.read() is None


def test_the_figure_is_the_kernels(ollama: Server) -> None:
    ollama.toggle()
    tree = [ollama.process.pid, *(p.pid for p in psutil.Process(ollama.process.pid).children(recursive=True))]
    lines = [line for pid in tree for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    kernel = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    assert ProcessGauge(ollama.url).read() == pytest.approx(kernel, rel=0.02)


def test_what_only_forwards_is_not_measured(forwarder: Server) -> None:
    forwarder.toggle()
    assert ProcessGauge(forwarder.url).read() is None and ProcessGauge(forwarder.url, ollama=False).read() is None


def test_this_very_process_is_no_server() -> None:
    with serve("127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert ProcessGauge(url).read() is None and ProcessGauge(url, ollama=False).read() is None


def test_nobody_listens_or_it_is_another_machine() -> None:
    assert ProcessGauge(f"http://127.0.0.1:{free_port()}").read() is None
    assert not is_here("192.0.2.1") and not is_here("no-such-host.invalid") and is_here("localhost") and is_here("::1")
    assert ProcessGauge("http://192.0.2.1:11434").read() is None


def test_a_server_that_was_started_again_is_found_again(ollama: Server, tmp_path: Path) -> None:
    gauge = ProcessGauge(ollama.url)
    ollama.toggle()
    assert gauge.read()
    ollama.kill()
    assert gauge.read() is None
    with started(tmp_path, "ollama", ollama.port) as again:
        again.toggle()
        assert gauge.read()


def test_another_users_processes_are_read_by_what_is_resident(ollama: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: psutil.Process) -> None:
        raise psutil.AccessDenied(self.pid)

    ollama.toggle()
    monkeypatch.setattr(psutil.Process, "memory_full_info", denied)
    size = ProcessGauge(ollama.url).read()
    assert size is not None and HELD < size < HELD + 80 * MIB


def test_the_sidecar_answers_over_http(ollama: Server) -> None:
    with serve("127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = int(server.server_address[1])
        gauge = SidecarGauge("http://127.0.0.1:11434", port)
        ollama.toggle()
        size = gauge.read()
        assert size is not None and size > HELD
        # On a busy machine one answer may come too late; the meter asks again.
        meter = Meter([gauge]).watching()
        assert any(meter.peak() is not None for _ in range(GIVE_UP_AFTER))
        assert httpx.get(f"http://127.0.0.1:{port}/memory").json()["schema_version"] == SCHEMA
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/etc/passwd").status_code == 404
        server.shutdown()


def test_where_no_sidecar_answers_it_is_not_asked_for_ever() -> None:
    port = free_port()
    gauge = SidecarGauge("http://127.0.0.1:11434", port)
    for _ in range(GIVE_UP_AFTER):
        assert gauge.read() is None
    with serve("127.0.0.1", port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert gauge.read() is None and gauge.gave_up
        server.shutdown()


def test_a_model_in_this_process_is_what_the_process_grew_by() -> None:
    gauge = OwnProcessGauge()
    assert gauge.read() is None
    gauge.before_load()
    held = bytearray(b"x") * HELD
    size = gauge.read()
    assert size is not None and HELD * 0.95 < size < HELD + 20 * MIB and own_size() > size
    del held
    gauge.after_unload()
    assert gauge.read() is None
