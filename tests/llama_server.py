"""llama.cpp's own server on the packaged model, as a process: `python -m tests.llama_server` prints its base URL."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def main() -> None:
    import xllamacpp

    from tipbench.engines.embedded import _packaged

    params = xllamacpp.CommonParams()
    params.model.path = str(_packaged("smollm2:135m"))
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.verbosity = -1
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    threading.Event().wait()


@contextmanager
def llama_server() -> Iterator[str]:
    """Its base URL while it runs."""
    process = subprocess.Popen([sys.executable, "-m", "tests.llama_server"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
