"""What processes on this machine take: their proportional set size, so that shared pages count once.

Anonymous and mapped file pages that are resident now; the kernel's page cache, a cgroup's total and a process's all-time peak
say something else. Linux tells it to the process's own user and to root; elsewhere `psutil` gives the unique set size.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tipbench.memory.meter import Source

SERVER = "ollama"
"""Name of Ollama's program; its server runs a child for each model in memory."""
FORWARDERS = frozenset({"docker-proxy", "envoy", "haproxy", "kubectl", "nginx", "rootlessport", "socat", "ssh", "sshd"})


def footprint(processes: Iterable[psutil.Process]) -> int | None:
    """Bytes that these processes take together; None when not one of them can be read."""
    sizes, anonymous, files = [], 0, []
    for process in processes:
        try:
            full = process.memory_full_info()
            sizes.append(getattr(full, "pss", 0) or full.uss)
        except psutil.AccessDenied:
            # Another user's: what is resident may be read all the same. The same file pages are in each of them.
            resident = _resident(process.pid)
            if resident is not None:
                anonymous += resident[0]
                files.append(resident[1])
        except (psutil.Error, OSError):
            # It ended meanwhile; psutil lets some of the kernel's own errors through then.
            continue
    total = sum(sizes) + anonymous + max(files, default=0)
    return total or None


def _resident(pid: int) -> tuple[int, int] | None:
    """Resident bytes: what is the process's own, and pages of files; None where the kernel does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    try:
        kib = {name: int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem", "RssFile")}
    except (KeyError, ValueError, IndexError):
        return None
    return (kib["RssAnon"] + kib["RssShmem"]) * 1024, kib["RssFile"] * 1024


def own_size() -> int:
    """What this process takes, in bytes; 0 where that cannot be read."""
    return footprint([psutil.Process()]) or 0


def with_children(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes and all below them, each once."""
    found: dict[int, psutil.Process] = {}
    for root in roots:
        with suppress(psutil.Error):
            for process in (root, *root.children(recursive=True)):
                found.setdefault(process.pid, process)
    return list(found.values())


def servers() -> list[psutil.Process]:
    """Every Ollama server that runs here: a process of that name whose parent is none of that name."""
    named = [p for p in psutil.process_iter(["name", "ppid"]) if _is_ollama(p)]
    pids = {p.pid for p in named}
    return [p for p in named if p.info.get("ppid") not in pids]


def _is_ollama(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        name: str = process.name()
        return name.removesuffix(".exe").lower() == SERVER
    return False


def is_here(host: str) -> bool:
    """Is this an address of this machine?"""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    own = {a.address.split("%")[0] for addresses in psutil.net_if_addrs().values() for a in addresses}
    return bool(found) and all(ip_address(str(a).split("%")[0]).is_loopback or a in own for a in found)


def listeners(port: int) -> list[psutil.Process] | None:
    """The processes of this machine that listen on a TCP port; None when somebody does and the system does not say who."""
    pids: set[int | None] = set()
    try:
        for connection in psutil.net_connections(kind="tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port:
                pids.add(connection.pid)
    except psutil.Error:
        return None
    if None in pids:
        return None
    found = []
    for pid in pids:
        with suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


class ProcessGauge:
    """The processes of the server that listens at a URL on this machine.

    Ollama's server is known by its name; of another kind of server everybody may listen there but a program that only
    forwards, such as `kubectl port-forward` or `ssh -L`: what it hands on to is somewhere else.
    """

    source: Source = "processes"

    def __init__(self, url: str, *, ollama: bool = True) -> None:
        self._ollama = ollama
        parts = urlsplit(url)
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._here = is_here(parts.hostname or "")
        self._roots: Sequence[psutil.Process] = ()

    def read(self) -> int | None:
        """Bytes of the server and its runners; None when it is not here, or holds no model."""
        if not self._here:
            return None
        try:
            if not self._roots or not all(p.is_running() for p in self._roots):
                self._roots = self._find()
            return measure(self._roots)
        except (psutil.Error, OSError):
            return None

    def _find(self) -> Sequence[psutil.Process]:
        """The servers among those who listen there, never this very process."""
        found = listeners(self._port)
        if found is not None and not any(p.name() == "docker-proxy" for p in found):
            return [p for p in found if p.pid != os.getpid() and self._serves(p)]
        if not self._ollama:
            return ()
        # Nobody may say who listens, or Docker hands it on: the only Ollama there is, unless it listens elsewhere.
        others = [p for p in servers() if not _listens_elsewhere(p, self._port)]
        return others if len(others) == 1 else ()

    def _serves(self, process: psutil.Process) -> bool:
        return _is_ollama(process) if self._ollama else process.name() not in FORWARDERS


def _listens_elsewhere(process: psutil.Process, port: int) -> bool:
    try:
        ports = {c.laddr.port for c in process.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}
    except psutil.Error:
        return False
    # In a container it listens on a port of its own network, which is not this machine's.
    return bool(ports) and port not in ports and _same_network(process.pid)


def _same_network(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        return True


def measure(roots: Sequence[psutil.Process]) -> int | None:
    """Bytes of servers and their children; None when an Ollama among them holds no model."""
    everyone = with_children(roots)
    if not everyone or (len(everyone) == len(roots) and any(_is_ollama(p) for p in roots)):
        return None
    return footprint(everyone)


class OwnProcessGauge:
    """What this process grew by since a model was loaded into it."""

    source: Source = "own process"

    def __init__(self) -> None:
        self._before: int | None = None

    def before_load(self) -> None:
        """Nothing is loaded now: what is taken is the rest of the program's."""
        self._before = own_size()

    def after_unload(self) -> None:
        """No model is there any more."""
        self._before = None

    def read(self) -> int | None:
        """Bytes of the model, its cache and its buffers."""
        return None if self._before is None else max(own_size() - self._before, 0) or None
