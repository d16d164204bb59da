"""Whoever waits for a service that is away is told so, once."""

from __future__ import annotations

import time
from concurrent.futures import Future
from threading import Thread

import pytest
import tenacity

from tipbench.patience import Patience

pytestmark = pytest.mark.unit


def waiting(seconds: float) -> tenacity.RetryCallState:
    """A call that has failed for this long."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.start_time = time.monotonic() - seconds
    outcome: Future[object] = Future()
    outcome.set_exception(ConnectionError("refused"))
    state.outcome = outcome  # type: ignore[assignment]
    return state


def test_many_calls_that_wait_are_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    patience = Patience("MLflow at http://m", 180)
    threads = [Thread(target=patience, args=[waiting(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caplog.messages == ["MLflow at http://m does not answer (refused); trying again for up to 180 s"]


def test_a_moment_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    Patience("MLflow at http://m", 180)(waiting(0.5))
    assert caplog.messages == []
