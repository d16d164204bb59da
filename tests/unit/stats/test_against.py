"""A gate's limits keep their level, whatever the number of cells, and say nothing where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.gate import boards
from tipbench.stats.against import FEWEST, against

pytestmark = pytest.mark.unit


def test_one_cell_has_the_textbooks_limits() -> None:
    d = np.array([0.2, -0.4, 0.1, 0.5, -0.1, 0.3, 0.0, 0.2])
    found = against(d)
    low = stats.ttest_1samp(d, 0, alternative="greater").confidence_interval(0.95).low
    high = stats.ttest_1samp(d, 0, alternative="less").confidence_interval(0.95).high
    assert (found.low[0], found.high[0]) == pytest.approx((low, high)) and found.n[0] == 8


@pytest.mark.parametrize(("cells", "scenarios"), [(1, 8), (12, 8), (12, 4), (4, 30)])
def test_false_alarms_stay_within_five_per_cent(cells: int, scenarios: int) -> None:
    boards_ = boards(cells, scenarios, 0.0, 1500, np.random.default_rng(7))
    alarms = np.mean([(against(d).high < 0).any() for d in boards_])
    assert alarms <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 1500)


@pytest.mark.parametrize("cells", [1, 12])
def test_a_loss_of_the_margin_is_let_through_in_five_per_cent_at_most(cells: int) -> None:
    boards_ = boards(cells, 8, 0.5, 1500, np.random.default_rng(8))
    margin = -boards_[:, 0].mean()  # the scale has ends: what is seen of the loss is a little less
    through = np.mean([against(d).low[0] > -margin for d in boards_])
    assert through <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 1500)


def test_a_large_loss_is_heard() -> None:
    boards_ = boards(4, 16, 1.0, 200, np.random.default_rng(9))
    assert np.mean([against(d).high[0] < 0 for d in boards_]) > 0.95


def test_too_few_scenarios_have_no_limits() -> None:
    found = against(np.array([[-1.0, -1.2, np.nan], [np.nan] * 3, [-1.0, -1.1, -0.9]]))
    assert np.isnan(found.low[:2]).all() and np.isnan(found.high[:2]).all()
    assert found.diff[0] == pytest.approx(-1.1) and np.isnan(found.diff[1])
    assert found.high[2] < 0 and list(found.n) == [2, 0, FEWEST]


def test_a_spread_of_zero_is_not_taken_for_certainty() -> None:
    assert np.isnan(against([-1.0] * 4).high[0])
    assert against([-1.0] * 5).high[0] == -1.0
    assert np.isnan(against([[-1.0] * 5, [0.1, 0.2, 0.0, -0.1, 0.3]]).high[0])


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-4, 4) | st.just(float("nan")), min_size=6, max_size=6), min_size=1, max_size=6))
def test_limits_enclose_the_difference(rows: list[list[float]]) -> None:
    found = against(rows)
    there = ~np.isnan(found.low)
    assert (found.low[there] <= found.diff[there] + 1e-9).all() and (
        found.diff[there] <= found.high[there] + 1e-9
    ).all()
    assert (found.n[there] >= FEWEST).all()
