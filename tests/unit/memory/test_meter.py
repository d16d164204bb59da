"""The meter: the largest figure, from the best gauge that sees the model, for quick cells too."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tipbench.memory.meter import EVERY_S, Meter, Reading, ReportedGauge, Source

pytestmark = pytest.mark.unit


class Scripted:
    """A gauge that gives figures in turn, the last one for ever."""

    def __init__(self, source: Source, *figures: int | None) -> None:
        self.source = source
        self.asked = 0
        self._figures = figures

    def read(self) -> int | None:
        self.asked += 1
        return self._figures[min(self.asked, len(self._figures)) - 1]


def test_the_largest_figure_stands_though_the_last_is_smaller() -> None:
    meter = Meter([Scripted("processes", 5, 9, 3)]).watching()
    for _ in range(3):
        meter.look()
    assert meter.peak() == Reading(9, "processes")


def test_a_cell_that_is_over_at_once_is_looked_at_when_its_figure_is_asked_for() -> None:
    gauge = Scripted("processes", 5)
    meter = Meter([gauge]).watching()
    assert meter.peak() == Reading(5, "processes") and gauge.asked == 1
    assert meter.peak() == Reading(5, "processes") and gauge.asked == 2, "each cell has a look of its own"


def test_the_first_cell_is_looked_at_once_it_is_over_since_its_model_may_have_been_half_loaded_before() -> None:
    gauge = Scripted("processes", 1, 9)
    meter = Meter([gauge]).watching()
    meter.look()
    assert meter.peak() == Reading(9, "processes")
    meter.look()
    assert meter.peak() == Reading(9, "processes") and gauge.asked == 3, "and the next ones as before"


def test_a_model_that_has_left_memory_keeps_its_last_peak() -> None:
    meter = Meter([Scripted("processes", 5, None), Scripted("reported", 2)]).watching()
    assert meter.peak() == meter.peak() == Reading(5, "processes")


def test_the_next_best_gauge_is_asked_when_one_sees_nothing_and_a_better_one_takes_over() -> None:
    best, last = Scripted("sidecar", None, 7), Scripted("reported", 2)
    meter = Meter([best, last]).watching()
    assert meter.peak() == Reading(2, "reported")
    assert meter.peak() == Reading(7, "sidecar")


def test_another_models_peak_is_forgotten() -> None:
    meter = Meter([Scripted("processes", 9, 4)]).watching()
    meter.look()
    assert meter.watching().peak() == Reading(4, "processes")


def test_what_no_gauge_sees_is_not_made_up() -> None:
    assert Meter([Scripted("processes", None), ReportedGauge(list)]).watching().peak() is None


@pytest.fixture
def watched() -> Iterator[tuple[Meter, Scripted]]:
    gauge = Scripted("processes", None, None, 5, 8, 6)
    with Meter([gauge]).watching() as meter:
        yield meter, gauge


def test_it_looks_by_itself_soon_and_then_seldom(watched: tuple[Meter, Scripted]) -> None:
    meter, gauge = watched
    deadline = time.monotonic() + 10
    while gauge.asked < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert meter.peak() == Reading(8, "processes")
    asked, began = gauge.asked, time.monotonic()
    time.sleep(2 * EVERY_S)
    assert gauge.asked - asked <= (time.monotonic() - began) / EVERY_S + 1


def test_it_ends_with_the_block(watched: tuple[Meter, Scripted]) -> None:
    meter, gauge = watched
    meter.__exit__(None, None, None)
    asked = gauge.asked
    time.sleep(2 * EVERY_S)
    assert gauge.asked == asked
