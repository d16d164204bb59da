"""The process around the command line: signals, and a quick end after an interrupt."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

from tipbench.ending import INTERRUPTED, cut_later


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Ctrl-C, and Kubernetes' SIGTERM: a tidy stop. After Ctrl-C somebody waits for the prompt, so that it has its limit."""
    if signum == signal.SIGINT:
        cut_later()
    raise KeyboardInterrupt


def _before_start(signum: int, frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)


# An interrupt while the imports run is an end like any other, without a traceback. A shell's background jobs ignore it: so be it.
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, _before_start)

# What is imported stays until the end: collecting it again and again would take a tenth of the start-up.
gc.disable()
from tipbench.cli import EXIT_INTERRUPTED, cli  # noqa: E402

gc.freeze()
gc.enable()
# What a command makes is freed by its reference counts, nearly all of it; of a board of a thousand rows, looking for more takes a quarter of the time.
gc.set_threshold(10_000, 10, 10)


def main() -> None:
    """Entry point of `tipbench` and `python -m tipbench`."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    code = 0
    try:
        cli.main(prog_name="tipbench")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        # A second one, while the first was being tidied up after.
        code = EXIT_INTERRUPTED
    sys.stdout.flush()
    sys.stderr.flush()
    if code == EXIT_INTERRUPTED:
        # A thread may still wait for a server's answer; nobody will read it, so do not join it.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
