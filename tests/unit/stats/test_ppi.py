"""Reference judges and another judge: the estimate against ppi-python, and what it must and must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipbench.stats import TooFewReferences, bias, compare_cells, difference_tests, estimate, with_another_judge

pytestmark = pytest.mark.unit

NAN = float("nan")

# Scores in steps of a quarter, made by hand so that they stand here in full: three cells, 8 scenarios with references of 12.
Y = np.array(
    [
        [4.0, 3.5, 4.25, 3.0, 4.5, 3.75, 2.5, 4.0],
        [3.5, 3.75, 3.0, 2.5, 4.0, 3.0, 3.25, 3.5],
        [2.75, 3.0, 3.5, 2.0, 3.25, 3.5, 2.0, 2.5],
    ]
)
F = np.array(
    [
        [4.5, 4.0, 4.25, 3.75, 5.0, 4.0, 3.5, 4.0, 3.75, 4.5, 4.25, 3.5],
        [4.25, 4.25, 3.5, 3.5, 4.5, 3.25, 4.0, 4.25, 3.5, 4.0, 4.5, 3.75],
        [3.5, 4.0, 4.25, 3.0, 3.75, 4.25, 3.0, 3.5, 3.25, 3.75, 4.0, 3.0],
    ]
)
# What ppi-python 0.2.3 says of them: `_calc_lam_glm` on scenario-centred scores (identity Hessian, clipped), and
# `ppi_mean_pointestimate` with that weight.
ORACLE_WEIGHT = 0.3476415094339622
ORACLE_MEANS = [3.6440448113207546, 3.3125, 2.758181014150943]


def board(cells: int, n: int, m: int, seed: int, likeness: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """References on n of n + m scenarios and another judge on all, (cells, n + m) each."""
    rng = np.random.default_rng(seed)
    f = 3 + rng.standard_normal(n + m) + 0.4 * rng.standard_normal((cells, n + m))
    y = likeness * f + 0.3 * rng.standard_normal((cells, n + m))
    y[:, n:] = NAN
    return y, f


def on_part(y: np.ndarray, f: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(y), NAN, f)


def padded(y: np.ndarray, f: np.ndarray) -> np.ndarray:
    return np.hstack([y, np.full((len(y), f.shape[1] - y.shape[1]), NAN)])


def test_the_estimate_is_ppi_pythons() -> None:
    y = padded(Y, F)
    found = estimate(y, on_part(y, F), F, seed=0)
    centred_y, centred_f = Y - Y.mean(axis=0), F - F.mean(axis=0)
    n, m = 8, 4
    # The oracle's formula, written out: covariance by 1/n over the labelled, variance by 1/(N-1) over all.
    covariance = (
        (centred_y - centred_y.mean(axis=1, keepdims=True))
        * (centred_f[:, :n] - centred_f[:, :n].mean(axis=1, keepdims=True))
    ).sum() / n
    variance = centred_f.var(axis=1, ddof=1).sum()
    assert found.weight == pytest.approx(min(1, max(0, covariance / ((1 + n / m) * variance))))
    assert found.weight == pytest.approx(ORACLE_WEIGHT, abs=1e-12)
    assert [c.mean for c in found.cells] == pytest.approx(ORACLE_MEANS, abs=1e-12)


def test_ppi_python_agrees_where_it_is_installed() -> None:
    ppi = pytest.importorskip("ppi_py.ppi")
    for seed in range(5):
        y, f = board(4, 9, 7, seed)
        found = estimate(y, on_part(y, f), f, seed=0)
        labelled = y[:, :9]
        centred_y, centred_f = (labelled - labelled.mean(axis=0)).T, (f - f.mean(axis=0)).T
        weight = ppi._calc_lam_glm(centred_y, centred_f[:9], centred_f[9:], np.eye(4), clip=True)
        assert found.weight == pytest.approx(weight)
        assert [c.mean for c in found.cells] == pytest.approx(
            list(ppi.ppi_mean_pointestimate(labelled.T, f.T[:9], f.T[9:], lam=weight))
        )


def test_with_one_weight_differences_add_up_and_agree_with_the_order() -> None:
    y, f = board(5, 8, 12, 3)
    found = estimate(y, on_part(y, f), f, seed=0)
    means = np.array([c.mean for c in found.cells])
    np.testing.assert_allclose(found.comparison.pairs.diff, means[:, None] - means, atol=1e-9)
    assert found.comparison.order.tolist() == np.argsort(-means).tolist()


@settings(max_examples=20, deadline=None)
@given(shift=st.floats(-2, 2), lean=st.lists(st.floats(-2, 2), min_size=4, max_size=4), seed=st.integers(0, 50))
def test_another_judges_bias_for_cells_changes_nothing(shift: float, lean: list[float], seed: int) -> None:
    """Additive bias, of level or for a cell, cancels out of estimate, error and weight."""
    y, f = board(4, 8, 8, seed)
    moved = f + shift + np.array(lean)[:, None]
    one, other = (estimate(y, on_part(y, x), x, seed=0, draws=200) for x in (f, moved))
    assert one.weight == pytest.approx(other.weight, abs=1e-9)
    np.testing.assert_allclose([c.mean for c in one.cells], [c.mean for c in other.cells], atol=1e-8)
    np.testing.assert_allclose(one.comparison.pairs.se, other.comparison.pairs.se, atol=1e-8)


@pytest.mark.parametrize("likeness", [0.0, -1.0])
def test_a_useless_or_lying_judge_has_hardly_any_weight(likeness: float) -> None:
    y, f = board(12, 16, 14, 1, likeness)
    assert estimate(y, on_part(y, f), f, seed=0, draws=200).weight < 0.1


def test_a_good_judge_narrows_the_intervals() -> None:
    y, f = board(6, 8, 22, 2, 1.0)
    _, own = difference_tests(y, seed=0)
    weight, with_it = difference_tests(y, on_part(y, f), f, seed=0)
    assert 0.3 < weight <= 1
    assert (with_it.high - with_it.low).mean() < 0.9 * (own.high - own.low).mean()


def test_without_another_judge_it_is_the_references_own_comparison() -> None:
    y, f = board(4, 8, 4, 5)
    alone = compare_cells(y[:, :8], seed=0)
    for shared, everything in ((None, None), (on_part(y, f), on_part(y, f))):
        found = estimate(y, shared, everything, seed=0)
        assert found.weight == 0
        np.testing.assert_allclose(found.comparison.p_adjusted, alone.p_adjusted)
        np.testing.assert_allclose(found.comparison.diff_low, alone.diff_low)
        np.testing.assert_allclose(found.comparison.p_best, alone.p_best, atol=0.02)


def test_fewer_than_six_reference_scenarios_are_refused() -> None:
    y, f = board(4, 5, 10, 0)
    with pytest.raises(TooFewReferences) as caught:
        estimate(y, on_part(y, f), f, seed=0)
    assert caught.value.n == 5


def test_a_cell_with_too_few_references_is_not_estimated_and_the_others_are_as_without_it() -> None:
    y, f = board(4, 8, 6, 7)
    more_y, more_f = np.vstack([y, np.where(np.arange(14) < 3, 3.0, NAN)]), np.vstack([f, f[0] + 1])
    one, other = estimate(y, on_part(y, f), f, seed=0), estimate(more_y, on_part(more_y, more_f), more_f, seed=0)
    assert other.estimated.tolist() == [True] * 4 + [False] and other.cells[4].mean is None
    assert one.cells == other.cells[:4]
    np.testing.assert_allclose(one.comparison.p_adjusted, other.comparison.p_adjusted[:4])
    assert other.comparison.order[-1] == 4


def test_a_part_of_the_tips_makes_the_rectifier_noisier_and_the_weight_smaller() -> None:
    rng = np.random.default_rng(9)
    there = 3 + 0.4 * rng.standard_normal((6, 30, 1)) + 0.7 * rng.standard_normal((6, 30, 5))
    y, f = there + 0.3 * rng.standard_normal(there.shape), there + 0.3 * rng.standard_normal(there.shape)
    blank = np.where(np.arange(30) < 10, 0.0, NAN)
    whole, (f_all) = y.mean(axis=2) + blank, f.mean(axis=2)
    one_y, one_f = y[..., 0] + blank, f[..., 0] + blank
    full, part = difference_tests(whole, f_all + blank, f_all, seed=0), difference_tests(one_y, one_f, f_all, seed=0)
    assert 0 < part[0] < full[0] + 0.3
    assert (part[1].se > full[1].se)[~np.eye(6, dtype=bool)].all()


def test_equal_cells_are_called_equal_and_the_truth_is_covered() -> None:
    """200 boards of 4 equal cells, 8 of 16 scenarios with references, a biased judge on all: at most 8 % with a false difference."""
    false = 0
    for seed in range(200):
        y, f = board(4, 8, 8, seed)
        _, pairs = difference_tests(
            y,
            on_part(y, f + np.array([0, 1, 0, -1])[:, None]),
            f + np.array([0, 1, 0, -1])[:, None],
            seed=0,
            draws=4000,
        )
        false += bool(pairs.better.any())
    assert false / 200 <= 0.08


def test_a_judges_bias_is_told_by_level_and_beyond_it_by_cell() -> None:
    rng = np.random.default_rng(0)
    y = 3 + rng.standard_normal((3, 10))
    found = bias(y, y + 0.5 + np.array([0.6, -0.3, -0.3])[:, None] + 0.05 * rng.standard_normal((3, 10)))
    assert found.level.mean == pytest.approx(0.5, abs=0.05)
    assert [round(c.mean or 0, 1) for c in found.cells] == [0.6, -0.3, -0.3]
    assert found.cells[0].low is not None and found.cells[0].low > 0


def test_the_planned_gain_is_the_error_that_the_estimate_has() -> None:
    """With a correlation ρ of the judges' differences, the standard error shrinks by √(1 - ρ² M/N), as the plan says."""
    rho, n, m = 0.6, 40, 60
    ratios = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        f = rng.standard_normal((6, n + m))
        y = rho * f + np.sqrt(1 - rho**2) * rng.standard_normal((6, n + m))
        y[:, n:] = NAN
        _, own = difference_tests(y, seed=0, draws=500)
        _, both = difference_tests(y, on_part(y, f), f, seed=0, draws=500)
        ratios.append(both.se[0, 1] / own.se[0, 1])
    assert np.mean(ratios) == pytest.approx(with_another_judge(1.0, n, n + m, rho), abs=0.02)
