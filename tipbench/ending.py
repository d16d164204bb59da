"""A limit on the end: after Ctrl-C somebody waits for the prompt, whatever still waits for an answer that nobody will read."""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

TIDY_S = 1.2
"""Seconds that an interrupted command has for a tidy end. All that it finished is on disk before, so that a cut costs nothing."""
INTERRUPTED = 130
WORDS = "\nInterrupted. What was finished is saved; the same command resumes."


def cut_later() -> None:
    """End this process in TIDY_S seconds, unless it has ended by itself."""
    timer = threading.Timer(TIDY_S, _cut)
    timer.daemon = True
    timer.start()


def _cut() -> NoReturn:
    try:
        sys.stdout.flush()
        os.write(2, f"{WORDS}\n".encode())
    finally:
        os._exit(INTERRUPTED)
