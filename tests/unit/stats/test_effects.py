"""Judges on one scale: who scored what must not make a cell look better."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipbench.stats import compare_cells, compare_judged, one_scale

pytestmark = pytest.mark.unit

NAN = float("nan")


def tips(cells: int, scenarios: int, n_tips: int, rng: np.random.Generator, behind: float = 0.0) -> np.ndarray:
    """What is there; the last cell is `behind`."""
    mean = np.zeros((cells, 1, 1))
    mean[-1] = -behind
    base = 3.2 + mean + 0.4 * rng.standard_normal((1, scenarios, 1)) + 0.3 * rng.standard_normal((cells, scenarios, 1))
    return base + 0.6 * rng.standard_normal((cells, scenarios, n_tips))


def judge(there: np.ndarray, rng: np.random.Generator, lenient: float = 0.0, slope: float = 1.0) -> np.ndarray:
    seen = 3.2 + slope * (there - 3.2) + lenient + 0.4 * rng.standard_normal(there.shape)
    return np.clip(np.rint(seen), 1, 5)


def only(scores: np.ndarray, cells: list[int], scenarios: slice = slice(None), n_tips: int | None = None) -> np.ndarray:
    kept = np.full(scores.shape, NAN)
    kept[cells, scenarios, :n_tips] = scores[cells, scenarios, :n_tips]
    return kept


@pytest.mark.parametrize("seed", range(6))
def test_a_lenient_judge_of_one_model_only_does_not_make_it_better(seed: int) -> None:
    """The issue's example: two equal models, one judge scores all, a second, a point more lenient, only one model's tips."""
    rng = np.random.default_rng(seed)
    there = tips(2, 8, 5, rng)
    first, second = judge(there, rng), only(judge(there, rng, lenient=1.0), [0])
    found = compare_judged(np.stack([first, second]), seed=0)
    assert found.comparison.tied == (True, True)
    # The complete judge alone decides, and loses nothing by the other.
    np.testing.assert_allclose(found.comparison.p_adjusted, compare_cells(first.mean(axis=2), seed=0).p_adjusted)


@settings(max_examples=25, deadline=None)
@given(
    lenient=st.floats(-1.5, 1.5), seed=st.integers(0, 1000), where=st.sampled_from(["all", "odd scenarios", "one tip"])
)
def test_leniency_of_judges_who_score_whole_scenarios_moves_no_difference(
    lenient: float, seed: int, where: str
) -> None:
    rng = np.random.default_rng(seed)
    there = tips(3, 8, 3, rng)
    one, other = judge(there, rng), judge(there, rng)
    if where == "odd scenarios":
        other[:, ::2] = NAN
    elif where == "one tip":
        other[:, :, 1:] = NAN
    a, b = (compare_judged(np.stack([one, x]), seed=0, draws=300).comparison for x in (other, other + lenient))
    np.testing.assert_allclose(a.diff, b.diff, atol=1e-8)
    np.testing.assert_allclose(a.p_adjusted, b.p_adjusted)


@settings(max_examples=15, deadline=None)
@given(lenient=st.floats(-1.5, 1.5), seed=st.integers(0, 1000))
def test_leniency_of_connected_judges_moves_no_difference(lenient: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    there = tips(4, 12, 3, rng)
    one = only(judge(there, rng), [0, 1])
    other = only(judge(there, rng), [2, 3])
    other[0, :8] = judge(there, rng)[0, :8]
    a, b = (compare_judged(np.stack([one, x]), seed=0, draws=300) for x in (other, other + lenient))
    if a.scale.connected and b.scale.connected:
        np.testing.assert_allclose(a.comparison.diff, b.comparison.diff, atol=1e-8)
        np.testing.assert_allclose(a.comparison.p_adjusted, b.comparison.p_adjusted, atol=0.02)


def test_connected_judges_are_put_on_one_scale() -> None:
    """A judge a point more lenient scores half of the cells, and shares one cell's tips with the other in every scenario."""
    rng = np.random.default_rng(4)
    there = tips(4, 30, 5, rng)
    one = only(judge(there, rng), [0, 1])
    other = only(judge(there, rng, lenient=0.8), [2, 3])
    other[0, :20] = judge(there, rng, lenient=0.8)[0, :20]
    x = np.stack([one, other])
    found = compare_judged(x, seed=0)
    assert found.scale.connected and not found.left_out
    leniency = found.scale.leniency(x)
    assert leniency[1] - leniency[0] == pytest.approx(0.8, abs=0.15)
    assert not found.comparison.pairs.better.any()
    raw = np.nanmean(np.nanmean(x, axis=0), axis=(1, 2))
    assert raw[2:].mean() - raw[:2].mean() > 0.4  # what averaging would have said
    assert abs(found.comparison.mean[2:].mean() - found.comparison.mean[:2].mean()) < 0.3


def test_equal_cells_are_called_equal_when_judges_are_connected() -> None:
    """150 boards: at most 9 % with a false difference (level 5 %, plus chance)."""
    false = boards = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        there = tips(4, 16, 4, rng)
        one = only(judge(there, rng), [0, 1])
        other = only(judge(there, rng, lenient=0.8), [2, 3])
        other[0, :8, :2] = judge(there, rng, lenient=0.8)[0, :8, :2]
        found = compare_judged(np.stack([one, other]), seed=0, draws=1000)
        boards += 1
        false += bool(found.comparison.pairs.better.any())
    assert false / boards <= 0.09


def test_a_judge_on_another_scale_is_left_out_by_name_and_its_cells_have_no_rank() -> None:
    rng = np.random.default_rng(1)
    there = tips(4, 30, 5, rng, behind=1.0)
    one = only(judge(there, rng), [0, 1, 3])
    other = only(judge(there, rng, lenient=0.8, slope=0.4), [2, 3])
    other[0] = judge(there, rng, lenient=0.8, slope=0.4)[0]
    one[3, ::2] = NAN
    other[3, 1::2] = NAN
    other[[0], 20:] = NAN
    x = np.stack([one, other])
    scale, left_out = one_scale(x)
    assert [(o.judge, o.reason) for o in left_out] == [(1, "another scale")]
    assert scale.cells.tolist() == [True, True, False, True]
    assert np.isnan(compare_judged(x, seed=0).comparison.mean[2])


def test_a_judge_that_shares_too_little_is_left_out() -> None:
    rng = np.random.default_rng(2)
    there = tips(2, 16, 3, rng)
    one, other = only(judge(there, rng), [0]), only(judge(there, rng), [1])
    other[0, :5] = judge(there, rng)[0, :5]
    one[0, 12:] = NAN
    _, left_out = one_scale(np.stack([one, other]))
    assert [(o.judge, o.reason, o.scenarios) for o in left_out] == [(0, "shares too little", 5)]


def test_nothing_scored_and_a_single_judge() -> None:
    assert np.isnan(compare_judged(np.full((1, 2, 3, 2), NAN), seed=0).comparison.mean).all()
    assert compare_judged(np.empty((0, 2, 3, 0)), seed=0).comparison.rank.tolist() == [1, 2]
    rng = np.random.default_rng(3)
    x = judge(tips(3, 8, 2, rng), rng)
    np.testing.assert_allclose(
        compare_judged(x[None], seed=0).comparison.p_adjusted, compare_cells(x.mean(axis=2), seed=0).p_adjusted
    )
