"""`tipbench` in processes that are forked from one that has imported everything: what a start costs is paid once a worker.

`Forked.run` does for the command line what `subprocess.run` does: a process of its own, with its own environment, working folder,
file descriptors, signals and exit code. Only the imports are done already; with a store in a folder (MLflow, pandas, SQLAlchemy)
they take two seconds of a core. Tests of the start itself, of signals and of kills start the program with `subprocess`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

LATE = ("mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "numpy", "scipy.special", "krippendorff")
"""What a command imports when it needs it, beside tipbench's own modules."""
SERVER = "tipbench.api"
"""It is always started as a program."""
REQUEST_BYTES = 1 << 20


class Forked:
    """A process with everything imported, and the processes that it forks."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
            )

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `tipbench` to its end; `command[0]` is its path. Raises subprocess.TimeoutExpired, and kills it."""
        request = {"command": list(command), "env": dict(env), "cwd": str(cwd or Path.cwd())}
        ours, its = socket.socketpair()
        with ours, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, ours.makefile("r") as answers:
            with its:
                socket.send_fds(
                    self._requests, [json.dumps(request).encode()], [out.fileno(), err.fileno(), its.fileno()]
                )
            if not (told := answers.readline()):
                raise RuntimeError("the process that forks tipbench has ended; its traceback is on stderr")
            pid = int(told)
            ours.settimeout(timeout)
            try:
                code = int(answers.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(command), timeout or 0, _bytes(out), _bytes(err)) from None
            return subprocess.CompletedProcess(list(command), code, _bytes(out).decode(), _bytes(err).decode())

    def close(self) -> None:
        """End the process; what it forked has ended."""
        self._requests.close()
        self._process.wait(60)


def _bytes(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def serve(requests: socket.socket) -> None:
    """Fork a process for every request, and tell its number and then its exit code; returns in the forked ones only."""
    wake, woken = socket.socketpair()
    for one in (wake, woken):
        one.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.set_wakeup_fd(woken.fileno())
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if wake in ready:
                with contextlib.suppress(BlockingIOError):
                    wake.recv(4096)
                for pid in list(running):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended:
                        with running.pop(pid) as answers, contextlib.suppress(BrokenPipeError):
                            answers.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            if requests in ready:
                body, fds, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
                if not body:
                    os._exit(0)
                pid = os.fork()
                if not pid:
                    break
                for fd in fds[:2]:
                    os.close(fd)
                running[pid] = socket.socket(fileno=fds[2])
                running[pid].sendall(f"{pid}\n".encode())
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for one in (requests, wake, woken, *running.values()):
        one.close()
    os.dup2(fds[0], 1)
    os.dup2(fds[1], 2)
    for fd in fds:
        os.close(fd)
    asked = json.loads(body)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = asked["command"]


def import_all() -> None:
    """Everything that a command imports."""
    import tipbench

    for module in pkgutil.walk_packages(tipbench.__path__, "tipbench."):
        if not module.name.endswith("__main__") and not module.name.startswith(SERVER):
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)


def main() -> NoReturn:
    """Serve on the socket whose number is the argument; in a forked process, what the program `tipbench` is."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    gc.collect()
    gc.freeze()
    serve(requests)
    from tipbench.__main__ import main as tipbench

    sys.exit(tipbench())


if __name__ == "__main__":
    main()
