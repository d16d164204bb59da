"""Asks a service again that is away or busy, and says so, so that nobody waits in the dark."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

SAY_AFTER_S = 2.0
"""An outage that is over by then is not worth a word."""

_log = logging.getLogger("tipbench")
_T = TypeVar("_T")


class Away(Exception):
    """Nobody listens, the connection broke, or the service is in trouble of its own."""


class Busy(Exception):
    """The service is there and asks to come back later: in `wait_s` seconds, if it says so."""

    def __init__(self, words: str, wait_s: float | None = None) -> None:
        self.wait_s = wait_s
        super().__init__(words)


class Patience:
    """What tenacity calls before it sleeps: one warning for an outage, however many threads wait."""

    def __init__(self, service: str, limit_s: float) -> None:
        self._service = service
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._quiet_until = 0.0

    def __call__(self, state: RetryCallState) -> None:
        """Warn about the call's error, unless that was done for this outage."""
        now = time.monotonic()
        if now - state.start_time < SAY_AFTER_S or state.outcome is None:
            return
        with self._lock:
            if now < self._quiet_until:
                return
            self._quiet_until = now + self._limit_s
        _log.warning(
            "%s does not answer (%s); trying again for up to %g s",
            self._service,
            state.outcome.exception(),
            self._limit_s,
        )

    def ask(
        self,
        call: Callable[[], _T],
        *,
        busy_s: float,
        first_s: float,
        most_s: float,
        asked_for: Callable[[float], float] = lambda wait_s: wait_s,
    ) -> _T:
        """What `call` returns, tried again while it raises Away (for the limit of this outage) or Busy (for `busy_s`).

        Between two tries: `first_s`, twice that, … up to `most_s` (seconds), with up to `first_s` more by chance; after a Busy that names a time,
        `asked_for` that time. Each of the two faults has a clock of its own, so that a service that restarts after a long queue gets its
        full time. Raises the last Away or Busy, and at once whatever else `call` raises.
        """
        # Here, since `tipbench --help` imports this module and not tenacity.
        import tenacity

        began: dict[bool, float] = {}
        tried = time.monotonic()

        def give_up(state: RetryCallState) -> bool:
            busy = isinstance(state.outcome.exception() if state.outcome else None, Busy)
            limit = busy_s if busy else self._limit_s
            return time.monotonic() - began.setdefault(busy, tried) + state.upcoming_sleep >= limit

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, Busy) and error.wait_s is not None:
                return asked_for(error.wait_s)
            return (tenacity.wait_exponential(multiplier=first_s, max=most_s) + tenacity.wait_random(0, first_s))(state)

        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Away, Busy)),
            wait=wait,
            stop=give_up,
            before_sleep=self,
            reraise=True,
        ):
            tried = time.monotonic()
            with attempt:
                return call()
        raise AssertionError("unreachable: Retrying either returns or raises")
