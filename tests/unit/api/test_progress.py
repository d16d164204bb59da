"""What a run's page is told: how long a wait took, and what a comparison may claim."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tipbench.api.models import TaskBody
from tipbench.api.progress import timed

pytestmark = pytest.mark.unit
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def task(name: str, began: float | None, ended: float | None) -> TaskBody:
    """A task with its minutes after noon."""
    at = [None if minutes is None else NOON + timedelta(minutes=minutes) for minutes in (began, ended)]
    return TaskBody(task=name, label=name, state="success", raw_state=None, started_at=at[0], ended_at=at[1])


@pytest.mark.parametrize(
    ("began", "expected"),
    [
        (59.98, 10),  # Airflow: the deferred task was resumed a second before its end
        (10.5, 10),
        (8, 8),  # it had begun before the other one ended
    ],
)
def test_a_wait_for_scores_began_when_what_came_before_it_ended(began: float, expected: float) -> None:
    tasks = [task("collect", 0, 9), task("export_for_judge", 9, 10), task("await_scores", began, 60)]
    *others, wait = timed(tasks)
    assert wait.started_at == NOON + timedelta(minutes=expected) and others == tasks[:2]


def test_a_wait_that_has_not_begun_has_no_beginning() -> None:
    assert timed([task("export_for_judge", 0, 1), task("await_scores", None, None)])[1].started_at is None
    assert timed([task("await_scores", 5, None)])[0].started_at == NOON + timedelta(minutes=5)
