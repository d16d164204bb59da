"""The statistics, against independent implementations, by invariance, and in small simulations."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from tipbench.stats import (
    Comparison,
    clustered_se,
    compare_cells,
    differences_to_leader,
    minimum_detectable_difference,
    pareto_front,
    scenario_interval,
    variance_components,
)

pytestmark = pytest.mark.unit

NAN = float("nan")
ARRAYS = ("mean", "rank", "rank_low", "rank_high", "p_best", "diff", "diff_low", "diff_high", "p_adjusted")


def scores(cells: int, scenarios: int = 8, *, seed: int = 0, spread: float = 0.4) -> np.ndarray:
    """Scenario means with a scenario effect, (cells, scenarios)."""
    rng = np.random.default_rng(seed)
    return 3 + 0.5 * rng.standard_normal(scenarios) + spread * rng.standard_normal((cells, scenarios))


def same(a: Comparison, b: Comparison, which: tuple[str, ...] = ARRAYS) -> None:
    for name in which:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=1e-9, err_msg=name)
    assert a.tied == b.tied


# --- one cell


def test_interval_is_the_one_sample_t_interval() -> None:
    x = scores(1)[0]
    found = scenario_interval(x)
    expected = scipy_stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.se) == pytest.approx((x.mean(), scipy_stats.sem(x)))


def test_interval_has_the_standard_error_of_the_bootstrap_and_is_wider() -> None:
    x = scores(1, 12, seed=5)[0]
    found = scenario_interval(x)
    for method in ("BCa", "percentile"):
        boot = scipy_stats.bootstrap((x,), np.mean, method=method, n_resamples=20_000, rng=np.random.default_rng(1))
        # The bootstrap divides by G where the sample variance divides by G - 1.
        assert boot.standard_error * np.sqrt(12 / 11) == pytest.approx(found.se, rel=0.03)
        assert found.high - found.low > boot.confidence_interval.high - boot.confidence_interval.low


def test_interval_leaves_missing_scenarios_out() -> None:
    assert scenario_interval([2, NAN, 4, 3, NAN]) == scenario_interval([2, 4, 3])


def test_interval_needs_two_scenarios() -> None:
    one, none = scenario_interval([3.5, NAN]), scenario_interval([NAN, NAN])
    assert (one.mean, one.se, one.low, one.high) == (3.5, None, None, None)
    assert (none.mean, none.se, none.low, none.high) == (None, None, None, None)


def test_interval_stays_on_the_scale() -> None:
    assert scenario_interval([5, 4.6, 5, 4.2], bounds=(1, 5)).high == 5
    assert scenario_interval([1, 2.6, 1, 1], bounds=(1, 5)).low == 1
    assert scenario_interval([5, 4.6, 5, 4.2]).high > 5


def test_wider_confidence_is_a_wider_interval() -> None:
    x = scores(1)[0]
    assert scenario_interval(x, 0.99).low < scenario_interval(x, 0.95).low < scenario_interval(x, 0.5).low


def test_clustered_se_is_millers_double_sum() -> None:
    rng = np.random.default_rng(2)
    clusters = rng.integers(0, 7, 60)
    x = rng.normal(3, 1, 60) + clusters * 0.2
    residual = x - x.mean()
    # Miller 2024, appendix A: the simple variance plus all cross terms within a cluster.
    total = sum(residual[i] * residual[j] for i in range(60) for j in range(60) if clusters[i] == clusters[j])
    assert clustered_se(x, clusters) == pytest.approx(np.sqrt(total) / 60)
    assert clustered_se(x, clusters, small_sample=True) == pytest.approx(np.sqrt(total * 7 / 6) / 60)


def test_clustered_se_of_singletons_is_the_plain_standard_error() -> None:
    x = scores(1, 30)[0]
    assert clustered_se(x, np.arange(30), small_sample=True) == pytest.approx(scipy_stats.sem(x))


def test_clustered_se_of_balanced_scenarios_is_that_of_the_interval() -> None:
    tips = scores(5, 8, seed=3)
    labels = np.broadcast_to([f"s{i}" for i in range(8)], (5, 8))
    found = clustered_se(tips.ravel(), labels.ravel(), small_sample=True)
    assert found == pytest.approx(scenario_interval(tips.mean(axis=0)).se)


def test_clustered_se_refuses_what_it_cannot_know() -> None:
    with pytest.raises(ValueError, match="at least one score"):
        clustered_se([], [])
    with pytest.raises(ValueError, match="two clusters"):
        clustered_se([1, 2], ["a", "a"], small_sample=True)


# --- many cells


def test_two_cells_are_the_paired_t_test() -> None:
    """With one pair nothing is corrected for and nothing shrunk: Student's paired test, but for simulation error."""
    x = scores(2, seed=11)
    x[1] -= 0.45
    found = compare_cells(x, seed=1)
    expected = scipy_stats.ttest_rel(x[1], x[0])
    interval = expected.confidence_interval(0.95)
    assert 0.001 < expected.pvalue < 0.5
    assert found.order.tolist() == [0, 1]
    assert found.diff[1] == pytest.approx((x[1] - x[0]).mean())
    assert found.p_adjusted[1] == pytest.approx(expected.pvalue, abs=4 * np.sqrt(expected.pvalue / 10_000))
    assert found.diff_low[1] == pytest.approx(interval.low, abs=0.05 * (interval.high - interval.low))
    assert found.diff_high[1] == pytest.approx(interval.high, abs=0.05 * (interval.high - interval.low))


def test_standard_error_is_half_the_pairs_own_and_half_the_pooled_variance() -> None:
    x = scores(4, 6, seed=8)
    found = compare_cells(x, seed=0)
    leader = found.order[0]
    own = {(i, j): np.var(x[i] - x[j], ddof=1) for i in range(4) for j in range(i)}
    pooled = np.mean(list(own.values()))
    assert pooled == pytest.approx(2 * two_way_residual_mean_square(x))
    half_width = (found.diff_high - found.diff_low) / 2
    expected = [np.sqrt((pooled + own[max(i, leader), min(i, leader)]) / 2 / 6) if i != leader else 0 for i in range(4)]
    others = [i for i in range(4) if i != leader]
    ratio = half_width[others] / np.array(expected)[others]
    np.testing.assert_allclose(ratio, ratio[0])
    assert ratio[0] > scipy_stats.t.ppf(0.975, 15)


def two_way_residual_mean_square(x: np.ndarray) -> float:
    residual = x - x.mean(axis=0) - x.mean(axis=1, keepdims=True) + x.mean()
    return float((residual**2).sum() / ((x.shape[0] - 1) * (x.shape[1] - 1)))


def test_a_clear_winner_is_told_apart_and_equals_are_not() -> None:
    x = scores(5, seed=4)
    x[3] += 2
    x[1] += 2
    found = compare_cells(x, seed=0)
    assert set(found.order[:2].tolist()) == {1, 3}
    assert [found.tied[i] for i in (0, 1, 2, 3, 4)] == [False, True, False, True, False]
    leader = found.order[0]
    assert (found.diff[leader], found.diff_low[leader], found.diff_high[leader]) == (0, 0, 0)
    assert (found.p_adjusted[leader], found.rank[leader], found.rank_low[leader]) == (1, 1, 1)
    assert found.p_best[1] + found.p_best[3] == pytest.approx(1)
    assert found.rank_high[leader] == 2


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), cells=st.integers(2, 7), scenarios=st.integers(2, 9), holes=st.floats(0, 0.5))
def test_results_hang_together(seed: int, cells: int, scenarios: int, holes: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.clip(np.rint(scores(cells, scenarios, seed=seed, spread=1.0)), 1, 5)
    x[rng.random(x.shape) < holes] = NAN
    found = compare_cells(x, seed=seed, draws=500)
    scored = ~np.isnan(x).all(axis=1)
    assert sorted(found.rank) == list(range(1, cells + 1))
    assert found.rank[found.order].tolist() == list(range(1, cells + 1))
    assert sorted(found.rank[scored]) == list(range(1, scored.sum() + 1))
    assert np.isnan(found.mean[~scored]).all()
    assert all(found.tied[i] is None for i in np.flatnonzero(~scored))
    ranked = found.mean[found.order][: scored.sum()]
    assert (np.diff(ranked) <= 1e-9).all()
    known = ~np.isnan(found.rank_low)
    assert (found.rank_low[known] <= found.rank[known]).all()
    assert (found.rank[known] <= found.rank_high[known]).all()
    often = (~np.isnan(x[scored])).sum(axis=1) > 1
    assert (known[scored] == found.pairs.testable).all() or scored.sum() == 1
    assert (~np.isnan(found.p_best[scored]) == often).all() or scored.sum() == 1
    if often.all() and scored.any():
        assert found.p_best[scored].sum() == pytest.approx(1)
    for i in range(cells):
        excludes_zero = found.diff_low[i] > 0 or found.diff_high[i] < 0
        if not np.isnan(found.diff_low[i]):
            assert excludes_zero == (found.p_adjusted[i] < 0.05)
            assert found.diff_low[i] <= found.diff[i] <= found.diff_high[i]
            assert found.tied[i] == (not (excludes_zero and found.diff[i] < 0))


@pytest.mark.parametrize("holes", [(), ((0, 1), (3, 2), (3, 7))])
def test_the_order_of_the_cells_does_not_matter(holes: tuple[tuple[int, int], ...]) -> None:
    x = scores(6, seed=9)
    for hole in holes:
        x[hole] = NAN
    shuffle = np.array([4, 0, 5, 2, 1, 3])
    whole, shuffled = compare_cells(x, seed=3), compare_cells(x[shuffle], seed=3)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(whole, name)[shuffle], getattr(shuffled, name), atol=1e-9, err_msg=name)
    assert [whole.tied[i] for i in shuffle] == list(shuffled.tied)


def test_what_makes_a_scenario_hard_cancels_out() -> None:
    x = scores(5, seed=6)
    shifted = x + 100 * np.arange(8)
    same(compare_cells(x, seed=2), compare_cells(shifted, seed=2), tuple(n for n in ARRAYS if n != "mean"))


def test_the_scale_does_not_matter() -> None:
    x = scores(5, seed=6)
    small, large = compare_cells(x, seed=2), compare_cells(20 * x, seed=2)
    same(small, large, ("rank", "rank_low", "rank_high", "p_best", "p_adjusted"))
    np.testing.assert_allclose(20 * small.diff_low, large.diff_low)


def test_the_seed_decides_the_draws() -> None:
    x = scores(6, seed=1)
    same(compare_cells(x, seed=5), compare_cells(x, seed=5))
    assert (compare_cells(x, seed=5).p_best != compare_cells(x, seed=6).p_best).any()


def test_p_best_is_a_paired_bootstrap_over_scenarios() -> None:
    x = scores(4, seed=12)
    found = compare_cells(x, seed=0)
    rng = np.random.default_rng(77)
    drawn = np.array([x[:, rng.integers(0, 8, 8)].mean(axis=1) for _ in range(4000)])
    np.testing.assert_allclose(found.p_best, (drawn.argmax(axis=1)[:, None] == np.arange(4)).mean(axis=0), atol=0.03)


def test_rank_limits_count_what_was_tested() -> None:
    x = scores(4, 8, spread=0.15) - np.array([0.0, 0.0, 1.0, 2.0])[:, None]
    found = compare_cells(x, seed=0)
    better = found.pairs.better
    np.testing.assert_array_equal(found.rank_low, 1 + better.sum(axis=0))
    np.testing.assert_array_equal(found.rank_high, 4 - better.sum(axis=1))
    assert found.rank_low[2:].tolist() == [3, 4] and (found.rank_high >= found.rank).all()


def test_cells_that_are_alike_share_first_place() -> None:
    row = scores(1, seed=3)[0]
    found = compare_cells([row, row, row, row - 3 + 0.1 * np.arange(8)], seed=0)
    assert found.rank.tolist() == [1, 2, 3, 4]
    assert found.rank_low[:3].tolist() == [1, 1, 1]
    assert found.rank_high[:3].tolist() == [3, 3, 3]
    assert found.p_best.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert found.p_adjusted[:3].tolist() == [1, 1, 1]
    assert found.tied == (True, True, True, False)


def test_many_cells_cost_memory_in_pieces_only() -> None:
    x = scores(300, 8, seed=2)
    x[7] += 3
    tracemalloc.start()
    found = compare_cells(x, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # one array of all draws x cells x cells would be 7 GB in single precision, draws x cells 24 MB
    assert found.order[0] == 7
    assert not any(tied for i, tied in enumerate(found.tied) if i != 7)


def test_the_short_cut_for_complete_data_finds_the_same_null_distribution() -> None:
    """Complete data goes another way than data with a hole; one hole in 100 cells hardly changes the critical value."""
    x = scores(100, seed=13)
    x[0] += 1.5
    holed = x.copy()
    worst = int(x.mean(axis=1).argmin())
    holed[worst, 0] = NAN
    whole, other = (differences_to_leader(data, 0, seed=0) for data in (x, holed))
    kept = [i for i in range(1, 100) if i != worst]
    np.testing.assert_allclose((whole[2] - whole[1])[kept], (other[2] - other[1])[kept], rtol=0.02)


# --- missing and degenerate data


def test_a_cell_without_scores_is_last_and_unknown() -> None:
    x = scores(3)
    found, without = compare_cells([[NAN] * 8, *x], seed=0), compare_cells(x, seed=0)
    assert found.rank[0] == 4
    assert found.order[-1] == 0
    for name in ARRAYS:
        if name != "rank":
            assert np.isnan(getattr(found, name)[0]), name
        np.testing.assert_array_equal(getattr(found, name)[1:], getattr(without, name), err_msg=name)
    assert found.tied == (None, *without.tied)


def test_a_difference_uses_the_scenarios_that_both_have() -> None:
    x = np.array([[5, 5, 4, 5, NAN, NAN], [4, 4, 4, 4, 1, 1], [3, 3, 4, 3, 3, 2]], dtype=float)
    found = compare_cells(x, seed=0)
    assert found.order.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.mean, [4.75, 3, 3])
    np.testing.assert_allclose(found.diff, [0, -0.75, -1.5])


def test_a_hole_in_another_pair_changes_little() -> None:
    """The formulas for missing data meet those for complete data."""
    x = scores(6, 10, seed=21)
    x[2] += 1.5
    whole = compare_cells(x, seed=0)
    worst = int(whole.order[-1])
    holed = x.copy()
    holed[worst, 4] = NAN
    found = compare_cells(holed, seed=0)
    others = [i for i in range(6) if i != worst]
    np.testing.assert_allclose(found.diff[others], whole.diff[others], atol=1e-9)
    np.testing.assert_allclose(found.diff_low[others], whole.diff_low[others], atol=0.1)


def test_a_cell_better_on_the_common_scenarios_is_not_called_worse() -> None:
    """The leader leads because it lacks the two hard scenarios; where both stand, the other is clearly better."""
    leader = [4.0, 4.1, 3.9, 4.0, 4.1, 3.9, NAN, NAN]
    other = [4.7, 4.7, 4.6, 4.6, 4.8, 4.6, 1.0, 1.0]
    found = compare_cells([other, leader], seed=0)
    assert found.order.tolist() == [1, 0]
    assert found.diff_low[0] > 0
    assert found.p_adjusted[0] < 0.05
    assert found.tied == (True, True)


def test_cells_without_common_scenarios_cannot_be_told_apart() -> None:
    found = compare_cells([[4.0, 4.5, 4.2, NAN, NAN, NAN], [NAN, NAN, NAN, 1.0, 1.5, 1.2]], seed=0)
    assert found.rank.tolist() == [1, 2]
    assert np.isnan([found.diff[1], found.diff_low[1], found.p_adjusted[1]]).all()
    assert found.tied == (True, None)


def test_one_cell_is_simply_first() -> None:
    found = compare_cells(scores(1), seed=0)
    assert (found.rank[0], found.rank_low[0], found.rank_high[0], found.p_best[0]) == (1, 1, 1, 1)
    assert (found.diff[0], found.p_adjusted[0], found.tied) == (0, 1, (True,))


def test_one_scenario_ranks_but_infers_nothing() -> None:
    found = compare_cells([[3.0], [4.0], [2.0]], seed=0)
    assert found.order.tolist() == [1, 0, 2]
    assert found.diff.tolist() == [-1, 0, -2]
    assert np.isnan(found.rank_low).all()
    assert np.isnan(found.p_best).all()
    assert np.isnan(found.p_adjusted[[0, 2]]).all()
    assert np.isnan(found.diff_low[[0, 2]]).all()
    assert found.tied == (None, True, None)


def test_a_cell_with_one_scenario_among_others_has_no_rank_interval() -> None:
    found = compare_cells([[4.0, 4.5, 4.2], [5.0, NAN, NAN], [3.0, 3.2, 3.5]], seed=0)
    assert found.order.tolist() == [1, 0, 2]
    assert np.isnan([found.rank_low[1], found.rank_high[1], found.p_best[1]]).all()
    assert not np.isnan(found.rank_low[[0, 2]]).any()
    assert found.tied == (None, True, None)
    empty_columns = compare_cells([[3.0, NAN], [2.0, NAN]], seed=0)
    assert np.isnan(empty_columns.p_best).all()


def test_no_cells_or_no_scores_at_all() -> None:
    assert compare_cells(np.empty((0, 0)), seed=0).order.size == 0
    nothing = compare_cells(np.full((2, 3), NAN), seed=0)
    assert nothing.rank.tolist() == [1, 2]
    assert nothing.tied == (None, None)
    assert np.isnan(nothing.p_best).all()
    assert compare_cells(np.empty((2, 0)), seed=0).rank.tolist() == [1, 2]


def test_differences_without_any_noise_fall_back_on_signs() -> None:
    eight = compare_cells([[5.0] * 8, [1.0] * 8], seed=0)
    assert eight.p_adjusted.tolist() == [1, 2**-7]
    assert eight.tied == (True, False)
    assert np.isnan(eight.diff_low[1])
    two = compare_cells([[5.0] * 2, [1.0] * 2], seed=0)
    assert two.tied == (True, True)
    alike = compare_cells([[4.0] * 8, [4.0] * 8], seed=0)
    assert alike.p_adjusted.tolist() == [1, 1]


def test_one_pair_without_noise_borrows_from_the_others() -> None:
    x = scores(4, seed=2)
    x[0] = x[1:].max() + 1
    x[1] = x[0] - 0.01
    found = compare_cells(x, seed=0)
    assert found.tied[:2] == (True, True)


# --- simulation: the level with all cells equal


def equal_cells(runs: int, erratic: float = 1.0, skewed: bool = False) -> np.ndarray:
    """(runs, 12, 8): five tips a scenario, rounded to 1-5, scenario and interaction effects, no true difference."""
    rng = np.random.default_rng(2024)

    def noise(*shape: int) -> np.ndarray:
        return rng.exponential(size=shape) - 1 if skewed else rng.standard_normal(shape)

    sd = np.full((12, 1), 0.35)
    sd[-1] *= erratic
    mean = (2.5 if skewed else 3) + 0.4 * noise(runs, 1, 8) + sd * noise(runs, 12, 8)
    return np.clip(np.rint(mean[..., None] + 0.7 * noise(runs, 12, 8, 5)), 1, 5).mean(axis=-1)


def false_calls(x: np.ndarray) -> float:
    leaders = x.mean(axis=-1).argmax(axis=-1)
    return float(
        np.mean([differences_to_leader(one, int(i), seed=0)[3].min() < 0.05 for one, i in zip(x, leaders, strict=True)])
    )


@pytest.mark.parametrize(("erratic", "skewed"), [(1.0, False), (3.0, False), (1.0, True)])
def test_equal_cells_are_rarely_called_different(erratic: float, skewed: bool) -> None:
    """At most 6%; the limit leaves two standard errors of 1,000 runs, and stays under Holm's and Tukey's rates."""
    assert false_calls(equal_cells(1000, erratic, skewed)) < 0.075


def test_holm_against_the_observed_leader_would_not_do() -> None:
    """The same data on which the test above passes: what that test guards against does happen."""
    x = equal_cells(1000)
    leader = x.mean(axis=-1).argmax(axis=-1)
    d = x - x[np.arange(len(x)), leader][:, None]
    with np.errstate(invalid="ignore"):
        p = 2 * scipy_stats.t.sf(-d.mean(axis=-1) / (d.std(axis=-1, ddof=1) / np.sqrt(8)), 7)
    assert (np.nanmin(p, axis=1) * 11 < 0.05).mean() > 0.09


def test_the_interval_of_a_cell_covers() -> None:
    x = equal_cells(500).reshape(-1, 8)
    truth = x.mean()
    intervals = [scenario_interval(cell) for cell in x]
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in intervals]) <= 0.97


# --- Pareto front


def test_pareto_front_holds_what_nothing_dominates() -> None:
    quality = [4.0, 3.0, 3.0, 2.0, 4.0]
    speed = [10.0, 50.0, 40.0, 50.0, 10.0]
    memory = [4.0, 1.0, 1.0, 0.5, 4.0]
    assert pareto_front(quality, speed, memory).tolist() == [True, True, False, True, True]


def test_pareto_front_leaves_out_what_is_missing_everywhere() -> None:
    assert pareto_front([4, 3], [NAN, NAN], [2, 1]).tolist() == [True, True]
    assert pareto_front([4, 3], [NAN, NAN], [1, 2]).tolist() == [True, False]
    assert pareto_front([4, 3, 5], [1, 2, NAN], [1, 1, 1]).tolist() == [True, True, False]
    assert pareto_front([NAN, NAN], [NAN, NAN], [NAN, NAN]).tolist() == [False, False]
    assert pareto_front([], [], []).tolist() == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_pareto_front_is_the_definition(cells: list[tuple[int, int, int]]) -> None:
    def dominates(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
        at_least = a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2]
        return at_least and a != b

    expected = [not any(dominates(other, cell) for other in cells) for cell in cells]
    assert pareto_front(*zip(*cells, strict=True)).tolist() == expected


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from([10.0, 20.0, 40.0]), st.sampled_from([100.0, 200.0])),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 1000),
)
def test_noise_in_speed_and_memory_does_not_move_the_front(cells: list[tuple[int, float, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    quality, speed, memory = (np.array(column, float) for column in zip(*cells, strict=True))
    noisy = speed * rng.uniform(0.97, 1.03, len(cells)), memory * rng.uniform(0.985, 1.015, len(cells))
    assert pareto_front(quality, *noisy).tolist() == pareto_front(quality, speed, memory).tolist()


def test_a_near_tie_in_speed_or_memory_is_no_reason() -> None:
    assert pareto_front([4.0, 3.0], [100.0, 104.0], [200.0, 199.0]).tolist() == [True, False]
    assert pareto_front([4.0, 3.0], [100.0, 120.0], [200.0, 199.0]).tolist() == [True, True]
    assert any(pareto_front([3.0] * 30, np.geomspace(10, 100, 30), np.geomspace(100, 200, 30)))


# --- planning


def test_a_planned_difference_is_found_with_the_power_promised() -> None:
    delta = minimum_detectable_difference(8, 5, 6, 2, power=0.8)
    rng = np.random.default_rng(31)
    found = []
    for _ in range(600):
        x = 0.35 * rng.standard_normal((6, 8)) + rng.normal(0, np.sqrt(0.7**2 / 5 + 0.5**2 / 10), (6, 8))
        x[0] += delta
        found.append(differences_to_leader(x, 0, seed=1)[3][1] < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_more_of_everything_detects_less_and_more_cells_cost() -> None:
    base = minimum_detectable_difference(8, 5, 12, 1)
    assert minimum_detectable_difference(16, 5, 12, 1) < base
    assert minimum_detectable_difference(8, 20, 12, 1) < base
    assert minimum_detectable_difference(8, 5, 12, 3) < base
    assert minimum_detectable_difference(8, 5, 3, 1) < base
    assert minimum_detectable_difference(8, 5, 12, 1, power=0.5) < base
    assert minimum_detectable_difference(8, 5, 12, 1, sd_tip=1.4, sd_judge=1, sd_interaction=0.7) == pytest.approx(
        2 * base
    )


@pytest.mark.parametrize("design", [(1, 5, 3, 1), (8, 5, 1, 1), (8, 0, 3, 1), (8, 5, 3, 0)])
def test_an_impossible_design_is_refused(design: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        minimum_detectable_difference(*design)


def test_variance_components_are_recovered() -> None:
    rng = np.random.default_rng(8)
    records = [
        (("model", c), f"s{s}", 3 + 0.2 * c + 0.1 * s + effect + 0.7 * rng.standard_normal())
        for c in range(20)
        for s in range(40)
        for effect in [0.35 * rng.standard_normal()]
        for _ in range(5)
    ]
    found = variance_components(records)
    assert found.sd_interaction == pytest.approx(0.35, abs=0.04)
    assert found.sd_tip == pytest.approx(0.7, abs=0.02)
    rng.shuffle(records)
    assert variance_components(iter(records)).sd_tip == pytest.approx(found.sd_tip)


def test_variance_components_of_pure_tip_noise_have_no_interaction_below_zero() -> None:
    records = [(c, s, value) for c in "ab" for s in range(3) for value in (1.0, 5.0)]
    found = variance_components(records)
    assert found.sd_interaction == 0
    assert found.sd_tip == pytest.approx(np.sqrt(8))


@pytest.mark.parametrize(
    "records",
    [
        [],
        [("a", "s", 3.0), ("a", "s", 4.0)],
        [("a", "s", 3.0), ("a", "t", 4.0), ("b", "s", 2.0), ("b", "t", 5.0)],
        [("a", "s", 3.0), ("a", "s", 4.0), ("b", "s", 2.0), ("b", "t", 5.0)],
    ],
)
def test_variance_components_of_too_little_are_unknown(records: list[tuple[str, str, float]]) -> None:
    assert variance_components(records) is None
