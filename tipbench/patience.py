"""Says that a service is away and is being tried again, so that nobody waits in the dark."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenacity import RetryCallState

SAY_AFTER_S = 2.0
"""An outage that is over by then is not worth a word."""

_log = logging.getLogger("tipbench")


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
