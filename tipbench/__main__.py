"""The process around the command line: signals, and a quick end after an interrupt."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

# What is imported stays until the end: collecting it again and again would take a tenth of the start-up.
gc.disable()
from tipbench.cli import EXIT_INTERRUPTED, cli  # noqa: E402

gc.freeze()
gc.enable()


def main() -> None:
    """Entry point of `tipbench` and `python -m tipbench`."""
    # Kubernetes ends a pod with SIGTERM; it deserves the same tidy stop as Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    code = 0
    try:
        cli.main(prog_name="tipbench")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    if code == EXIT_INTERRUPTED:
        # A thread may still wait for a server's answer; nobody will read it, so do not join it.
        os._exit(code)
    sys.exit(code)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
