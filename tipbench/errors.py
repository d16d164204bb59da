"""The errors a user sees, as a small tree: each class carries its documented exit code.

Every message says what was wrong, where, and what to do next. Nothing here is imported
from outside the standard library, so that the command line can catch these without loading a stage.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_ALL_REFUSED = 3
EXIT_SOME_FAILED = 4
EXIT_UNREACHABLE = 5
EXIT_GATE = 6


class TipbenchError(Exception):
    """Base of all errors that tipbench reports to its user; `exit_code` is the process's."""

    exit_code = EXIT_USAGE


class InputError(TipbenchError):
    """A file, option or value from the user is wrong. Exit code 2.

    `faults` lists every fault found, one line each; the message joins them.
    """

    def __init__(self, message: str, faults: tuple[str, ...] = ()) -> None:
        self.faults = faults
        super().__init__("\n".join([message, *(f"  {fault}" for fault in faults)]))


class AllRefusedError(TipbenchError):
    """The RAM policy refused every model. Exit code 3."""

    exit_code = EXIT_ALL_REFUSED


class UnreachableError(TipbenchError):
    """A service (Ollama, MLflow, a judge's endpoint) cannot be reached. Exit code 5."""

    exit_code = EXIT_UNREACHABLE


class BusyError(UnreachableError):
    """Another process is using it; the same command works later. Exit code 5, so that whatever runs this tries again."""
