"""Statistics: how sure a ranking of cells is, when only a few scenarios carry it.

Everything here is a pure function of numpy arrays in points of the rubric's scale. Candidates of one scenario are not
independent, so the unit is always the scenario: its mean score per cell goes in, never the single candidate.
`docs/explanation/statistics.md` tells why these methods and what they were measured to do.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SD_INTERACTION = 0.35
"""Assumed spread of how well a cell does on one scenario beyond its own and the scenario's mean, in points."""
SD_TIP = 0.7
"""Assumed spread of the candidates of one cell and scenario, in points."""
SD_JUDGE = 0.5
"""Assumed noise of one judge's score of one candidate, in points."""

_CHUNK = 100_000
"""Most numbers in one intermediate array, so that memory does not grow with the number of draws."""
_NULL_WORK = 100_000_000
"""Draws x pairs that the simulated null distribution may cost; beyond some 100 cells it has fewer draws."""
_EXTREMES = 64
"""Of more cells than these, the simulation of complete data looks at the pairs of the most extreme ones."""
_MIN_NULL_DRAWS = 500
_TINY = np.finfo(np.float32).tiny
"""Keeps a simulated variance that rounding made zero from giving 0/0."""


@dataclass(frozen=True)
class Interval:
    """A mean with its standard error and confidence limits; what the data cannot tell is None."""

    mean: float | None
    se: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Cells against each other; arrays of length C in the order the cells came in, NaN where nothing can be known."""

    order: npt.NDArray[np.intp]
    """Indices of the cells from best to worst; cells without data last; equal means keep the order they came in."""
    rank: npt.NDArray[np.intp]
    """Position in `order`, from 1."""
    mean: FloatArray
    rank_low: FloatArray
    """Best rank in the interval."""
    rank_high: FloatArray
    p_best: FloatArray
    """Share of bootstrap draws in which the cell is first; cells that tie for first share the draw."""
    diff: FloatArray
    """Mean difference to the leader (cell minus leader) over the scenarios that both have."""
    diff_low: FloatArray
    diff_high: FloatArray
    p_adjusted: FloatArray
    tied: tuple[bool | None, ...]
    """Not shown to be worse than the leader; None where that cannot be tested."""


@dataclass(frozen=True)
class VarianceComponents:
    """Spreads in points of the scale, as `minimum_detectable_difference` takes them."""

    sd_interaction: float
    sd_tip: float


def scenario_interval(
    scenario_means: npt.ArrayLike, confidence: float = 0.95, bounds: tuple[float, float] | None = None
) -> Interval:
    """The t interval of a mean over scenarios: mean ± t(G-1) · s / √G, with s the standard deviation of G scenario means.

    `scenario_means` has one mean per scenario, NaN for a scenario without scores. With fewer than two scenarios there
    is no error to estimate: `se`, `low` and `high` are None. `bounds` clips the limits to the scale.
    """
    x = np.asarray(scenario_means, dtype=float)
    x = x[~np.isnan(x)]
    if x.size == 0:
        return Interval(None, None, None, None)
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, None, None, None)
    se = float(x.std(ddof=1) / np.sqrt(x.size))
    half = float(stats.t.ppf((1 + confidence) / 2, x.size - 1)) * se
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(mean, se, low, high)


def clustered_se(scores: npt.ArrayLike, clusters: npt.ArrayLike, *, small_sample: bool = False) -> float:
    """Standard error of the mean of all scores, clustered: √(Σ_c (Σ_i (s_ic - s̄))²) / n.

    Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), appendix A. `small_sample` multiplies the variance by
    G/(G-1) for G clusters; then, with as many scores in each cluster, it is the standard error of `scenario_interval`.
    Both arguments have shape (n,). Raises ValueError when there is no score, or one cluster only with `small_sample`.
    """
    s = np.asarray(scores, dtype=float)
    _, label = np.unique(np.asarray(clusters), return_inverse=True)
    if s.size == 0 or s.shape != label.shape:
        raise ValueError("scores and clusters must have the same length, and at least one score")
    sums = np.bincount(label, weights=s - s.mean())
    variance = float((sums**2).sum()) / s.size**2
    if small_sample:
        if sums.size < 2:
            raise ValueError("the small-sample factor takes at least two clusters")
        variance *= sums.size / (sums.size - 1)
    return float(np.sqrt(variance))


def compare_cells(means: npt.ArrayLike, *, seed: int, draws: int = 10_000, confidence: float = 0.95) -> Comparison:
    """Rank the cells, and say how sure each rank and each difference to the leader is.

    `means` has shape (C cells, S scenarios), NaN for what is missing. A cell's composite is the mean of its scenarios.

    Ranks and P(best): percentiles of a cluster bootstrap that draws whole scenarios, the same ones for every cell, so
    that what makes a scenario hard cancels out. In a draw that holds none of a cell's scenarios it keeps its mean. A
    cell with one scenario has no rank interval, unless it is the only cell.

    Differences to the leader, paired by scenario: simultaneous over *all* pairs of cells (max-T: Westfall & Young 1993;
    with a pooled variance it would be Tukey's range test), since any cell might have been the leader. See
    `_studentised` for the standard error and `_null_maxima` for the null distribution. A difference is called when
    p_adjusted < 1 - confidence, which is when its interval leaves out 0. A cell that beats the leader on the scenarios
    they share (possible when scenarios are missing) is never called worse.

    Nothing can be tested between cells with fewer than two common scenarios: NaN, and `tied` None. If no difference
    varies between scenarios there is no noise to scale by: then p is the sign-flip test's, 2^(1-n) for n scenarios,
    times the number of pairs, and the interval is unknown.
    """
    x = np.asarray(means, dtype=float)
    n_cells = x.shape[0]
    has = ~np.isnan(x)
    scored = has.any(axis=1)
    mean = np.full(n_cells, np.nan)
    mean[scored] = np.nanmean(x[scored], axis=1)
    # Rounding makes sums of the same scores in another order the same mean.
    order = np.argsort(np.where(scored, -mean.round(9), np.inf), kind="stable")
    rank = np.empty(n_cells, dtype=np.intp)
    rank[order] = np.arange(1, n_cells + 1)
    rank_low, rank_high, p_best = np.full((3, n_cells), np.nan)
    rank_low[scored], rank_high[scored], p_best[scored] = _bootstrap_ranks(
        x[scored], rank[scored], draws=draws, confidence=confidence, seed=seed
    )
    diff, low, high, p = np.full((4, n_cells), np.nan)
    tied: list[bool | None] = [None] * n_cells
    if scored.any():
        leader = int(np.flatnonzero(scored).searchsorted(order[0]))
        diff[scored], low[scored], high[scored], p[scored] = differences_to_leader(
            x[scored], leader, draws=draws, confidence=confidence, seed=seed
        )
        alpha = 1 - confidence
        tied = [None if np.isnan(pi) else bool(pi >= alpha or d > 0) for pi, d in zip(p, diff, strict=True)]
    return Comparison(order, rank, mean, rank_low, rank_high, p_best, diff, low, high, p, tuple(tied))


def differences_to_leader(
    x: FloatArray, leader: int, *, seed: int, draws: int = 10_000, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Difference, lower and upper limit, and adjusted p of every cell to the one with index `leader`, each (C,).

    The part of `compare_cells` that tests; `x` (C, S) must have some score in every row.
    """
    mask = ~np.isnan(x)
    scale = float(np.nanmax(np.abs(x)))
    all_diff, all_se, common = _studentised(_fill(x, mask), mask)
    diff, se, n = all_diff[:, leader], all_se[:, leader], common[:, leader]
    diff = np.where(n == 0, np.nan, np.where(np.abs(diff) <= 1e-9 * scale, 0.0, diff))
    low, high, p = np.full((3, x.shape[0]), np.nan)
    testable = n >= 2
    if testable.sum() > 1:
        if se[testable].max() > 1e-9 * scale:
            null = _null_maxima(_key(mask), mask.shape, _null_draws(draws, mask), seed)
            t = np.abs(diff[testable]) / se[testable]
            p[testable] = (1 + null.size - np.searchsorted(null, t)) / (1 + null.size)
            half = _critical(null, confidence) * se[testable]
            low[testable], high[testable] = diff[testable] - half, diff[testable] + half
        else:
            pairs = x.shape[0] * (x.shape[0] - 1) // 2
            p[testable] = np.where(diff[testable] == 0, 1.0, np.minimum(1.0, pairs * 2.0 ** (1.0 - n[testable])))
    diff[leader], low[leader], high[leader], p[leader] = 0.0, 0.0, 0.0, 1.0
    return diff, low, high, p


def _fill(x: FloatArray, mask: BoolArray) -> FloatArray:
    """Scenario effects taken out (no difference changes, but sums of squares lose no digits), zeros for what is missing."""
    counts = np.maximum(mask.sum(axis=0), 1)
    zeroed = np.where(mask, x, 0.0)
    return np.where(mask, zeroed - zeroed.sum(axis=0) / counts, 0.0)


def _studentised(z: npt.NDArray[Any], mask: BoolArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Paired differences of all pairs of cells, their moderated standard errors, and the scenarios that both have.

    `z` has shape (..., C, S) with zeros where `mask` (C, S) is False; the results are (..., C, C), the last one (C, C).
    A pair's own variance over eight scenarios is too noisy to rank by, and one variance for all pairs is wrong when a
    cell is more erratic than the others. So both count: v = (d0 · v̄ + d · v_pair) / (d0 + d), d = n - 1 for n common
    scenarios, with v̄ the mean over pairs weighted by d, the form of Smyth 2004 (limma). The prior's weight is fixed at
    as many degrees of freedom as the fullest pair has, not estimated: the estimate follows chance and, where one cell
    differs, shrinks too much. For complete data that is the plain average of v̄ and v_pair.
    Pairs with fewer than two common scenarios have an infinite standard error.
    """
    m = mask.astype(z.dtype)
    n = m @ m.T
    sums, squares = z @ m.T, (z * z) @ m.T
    total = sums - np.swapaxes(sums, -1, -2)
    diff = total / np.maximum(n, 1)
    spread = squares + np.swapaxes(squares, -1, -2) - 2 * (z @ np.swapaxes(z, -1, -2)) - total * diff
    df = np.maximum(n - 1, 0)
    np.fill_diagonal(df, 0)
    np.maximum(spread, 0, out=spread)
    spread *= df > 0
    prior = df.max(initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread += spread.sum(axis=(-1, -2), keepdims=True) * (prior / max(df.sum(), 1))
        spread *= np.where(n > 1, 1 / ((prior + df) * n), np.inf)
    return diff, np.sqrt(spread, out=spread), n


def _key(mask: BoolArray) -> bytes:
    """The missing pattern with its rows sorted: the largest of all pairs' |t| does not depend on the cells' order."""
    return mask[np.lexsort(mask.T)].tobytes() if mask.size else b""


def _null_draws(draws: int, mask: BoolArray) -> int:
    n_cells = int(mask.shape[0])
    pairs = n_cells * (min(n_cells, _EXTREMES) if mask.all() else n_cells)
    return max(min(draws, _NULL_WORK // pairs), min(draws, _MIN_NULL_DRAWS))


def _normal_scores(mask: BoolArray, draws: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.float32]]:
    """Standard normal residuals with this missing pattern, (chunk, C, S) at a time."""
    n_cells, n_scenarios = mask.shape
    chunk = max(1, _CHUNK // (n_cells * max(min(n_cells, _EXTREMES), n_scenarios)))
    for start in range(0, draws, chunk):
        # Single precision: these are random numbers, and half the memory is nearly half the time.
        z = rng.standard_normal((min(chunk, draws - start), n_cells, n_scenarios), dtype=np.float32)
        z *= mask
        yield z


def _complete_maxima(z: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """max |t| over all pairs of each draw of complete data, (B, C, S) -> (B,): as by `_studentised`, in less time.

    Of many cells only the pairs with one of the `_EXTREMES` cells farthest from 0 are looked at. Half of each variance
    is the pooled one, so t is at most √2 times the difference over its pooled error, and the difference of two cells
    that are nearer to 0 than all of those is too small to be the largest t.
    """
    n_cells, n_scenarios = z.shape[1:]
    mean = z.mean(axis=-1)
    z = z - mean[..., None]
    own = (z * z).sum(axis=-1)
    shared = 2 * (n_cells * own.sum(axis=-1) - (z.sum(axis=1) ** 2).sum(axis=-1)) / (n_cells * (n_cells - 1))
    some = min(n_cells, _EXTREMES)
    top = np.argpartition(-np.abs(mean), some - 1, axis=1)[:, :some]
    spread = np.take_along_axis(z, top[..., None], axis=1) @ np.swapaxes(z, -1, -2)
    spread *= -2
    spread += np.take_along_axis(own, top, axis=1)[..., None]
    spread += own[:, None, :]
    spread += shared[:, None, None]
    np.maximum(spread, _TINY, out=spread)
    diff = np.take_along_axis(mean, top, axis=1)[..., None] - mean[:, None, :]
    diff *= diff
    diff /= spread
    maxima: npt.NDArray[np.float32] = np.sqrt(diff.max(axis=(-1, -2)) * (2 * n_scenarios * (n_scenarios - 1)))
    return maxima


@lru_cache(maxsize=64)
def _null_maxima(key: bytes, shape: tuple[int, int], draws: int, seed: int) -> FloatArray:
    """Sorted draws of max |t| over all pairs when every cell is equal, for this design and missing pattern.

    Residuals are independent standard normal; cell means, scenario effects and the common variance cancel out of t.
    """
    mask = np.frombuffer(key, dtype=bool).reshape(shape)
    rng = np.random.default_rng([seed, 1])
    maxima = []
    for z in _normal_scores(mask, draws, rng):
        if mask.all():
            maxima.append(_complete_maxima(z))
        else:
            diff, se, _ = _studentised(z, mask)
            diff /= np.maximum(se, _TINY)
            maxima.append(diff.max(axis=(-1, -2)))  # every pair stands there with both signs
    result = np.sort(np.concatenate(maxima).astype(float))
    result.flags.writeable = False
    return result


def _critical(null: FloatArray, confidence: float) -> float:
    """The |t| beyond which the add-one p value is below 1 - confidence, so that p and interval never disagree."""
    exceed = int(np.ceil((1 - confidence) * (null.size + 1) - 1e-9)) - 2
    return float(null[null.size - 1 - exceed]) if exceed >= 0 else float("inf")


def _bootstrap_ranks(
    x: FloatArray, rank: npt.NDArray[np.intp], *, draws: int, confidence: float, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rank interval and P(best) of every cell (rows of `x`, none empty); NaN for a cell with one scenario only."""
    x = x[:, ~np.isnan(x).all(axis=0)]
    n_cells, n_scenarios = x.shape
    if n_cells <= 1:
        return np.ones(n_cells), np.ones(n_cells), np.ones(n_cells)
    mask = ~np.isnan(x)
    unknown = mask.sum(axis=1) < 2
    zeroed = np.where(mask, x, 0.0)
    point = zeroed.sum(axis=1) / mask.sum(axis=1)
    rng = np.random.default_rng([seed, 2])
    column = np.arange(n_cells) * n_cells
    best_ranks, worst_ranks = np.zeros((2, n_cells * n_cells), dtype=np.int64)
    p_best = np.zeros(n_cells)
    chunk = max(1, _CHUNK // max(n_cells, n_scenarios))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        weights = rng.multinomial(n_scenarios, np.full(n_scenarios, 1 / n_scenarios), size=size).astype(float)
        count = weights @ mask.T
        drawn = np.where(count > 0, weights @ zeroed.T / np.maximum(count, 1), point).round(9)
        best, worst = _tied_ranks(drawn)
        best_ranks += np.bincount((column + best).ravel(), minlength=n_cells * n_cells)
        worst_ranks += np.bincount((column + worst).ravel(), minlength=n_cells * n_cells)
        first = best == 0
        p_best += (first / first.sum(axis=1, keepdims=True)).sum(axis=0)
    tail = (1 - confidence) / 2 * draws
    # First rank that is not in the lower tail by the better end of ties, and last one by the worse end.
    low = 1 + (best_ranks.reshape(n_cells, n_cells).cumsum(axis=1) <= tail).sum(axis=1)
    high = 1 + (worst_ranks.reshape(n_cells, n_cells).cumsum(axis=1) < draws - tail).sum(axis=1)
    # Where equal means were ranked by the order they came in, the interval still holds the rank shown.
    low, high = np.minimum(low, rank), np.maximum(high, rank)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high), np.where(unknown, np.nan, p_best / draws)


def _tied_ranks(x: FloatArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Ranks from 0 along the last axis, highest first, shape (B, C): the better and the worse end of each tie."""
    n = x.shape[1]
    order = np.argsort(-x, axis=1)
    ordered = np.take_along_axis(x, order, axis=1)
    steps = ordered[:, 1:] != ordered[:, :-1]
    edge = np.ones((x.shape[0], 1), dtype=bool)
    position = np.arange(n)
    starts = np.maximum.accumulate(np.where(np.hstack([edge, steps]), position, 0), axis=1)
    ends = np.minimum.accumulate(np.where(np.hstack([steps, edge]), position, n - 1)[:, ::-1], axis=1)[:, ::-1]
    best, worst = np.empty_like(order), np.empty_like(order)
    np.put_along_axis(best, order, starts, axis=1)
    np.put_along_axis(worst, order, ends, axis=1)
    return best, worst


def pareto_front(quality: npt.ArrayLike, speed: npt.ArrayLike, memory: npt.ArrayLike) -> BoolArray:
    """Which cells no other cell dominates: at least as good in all three, and better in one. Shapes (C,) -> (C,).

    More quality and speed are better, less memory is better. A cell with a figure missing (NaN) is not on the front,
    but a figure that is missing everywhere is left out.
    """
    figures = np.stack([np.asarray(quality, float), np.asarray(speed, float), -np.asarray(memory, float)], axis=1)
    figures = figures[:, ~np.isnan(figures).all(axis=0)]
    front: BoolArray = ~np.isnan(figures).any(axis=1) & (figures.shape[1] > 0)
    known = figures[front]
    front[front] = [not ((known >= one).all(axis=1) & (known > one).any(axis=1)).any() for one in known]
    return np.asarray(front, dtype=bool)


def minimum_detectable_difference(
    n_scenarios: int,
    n_tips: int,
    n_cells: int,
    n_judges: int,
    *,
    power: float = 0.8,
    confidence: float = 0.95,
    sd_interaction: float = SD_INTERACTION,
    sd_tip: float = SD_TIP,
    sd_judge: float = SD_JUDGE,
    seed: int = 0,
) -> float:
    """Smallest true difference, in points, that `compare_cells` calls with probability `power`.

    Assumes: one cell compared with one that is truly better and leads; complete data; normal effects, alike in all
    cells. A difference between two cells on one scenario then has the variance 2 (sd_interaction² + sd_tip² / n_tips +
    sd_judge² / (n_tips · n_judges)); judges err independently, and a judge's leniency cancels out. Rounding to whole
    scores is part of sd_tip. The same standard error and critical value as in `compare_cells`, simulated: a difference
    δ is called when δ + noise > critical · se, so the answer is the `power` quantile of critical · se - noise.
    Raises ValueError for fewer than two cells or scenarios, or none of tips or judges.
    """
    if n_cells < 2 or n_scenarios < 2:
        raise ValueError("a difference takes at least two cells and two scenarios")
    if n_tips < 1 or n_judges < 1:
        raise ValueError("a score takes at least one tip and one judge")
    sd = float(np.sqrt(sd_interaction**2 + sd_tip**2 / n_tips + sd_judge**2 / (n_tips * n_judges)))
    mask = np.ones((n_cells, n_scenarios), dtype=bool)
    critical = _critical(_null_maxima(_key(mask), mask.shape, _null_draws(10_000, mask), seed), confidence)
    needed = []
    for z in _normal_scores(
        mask, max(_MIN_NULL_DRAWS, min(10_000, _NULL_WORK // n_cells**2)), np.random.default_rng([seed, 3])
    ):
        diff, se, _ = _studentised(z, mask)
        needed.append(critical * se[:, 0, 1] - diff[:, 0, 1])
    return sd * float(np.quantile(np.concatenate(needed), power))


def variance_components(records: Iterable[tuple[Hashable, Hashable, float]]) -> VarianceComponents | None:
    """The spreads of real data, from (cell, scenario, composite) of every judged candidate.

    Moments of the two-way layout (Searle, Casella & McCulloch 1992): sd_tip² is the variance within cell and scenario,
    pooled; half the mean variance of paired differences between cells estimates sd_interaction² + sd_tip² · mean(1/n),
    from which the tips' part is taken off, never below 0. A judge's noise is inside sd_tip, so that a plan which adds
    sd_judge to it errs on the safe side. None when there are not two cells with two common scenarios, or never two
    candidates.
    """
    rows = list(records)
    if not rows:
        return None
    cell_index = {cell: i for i, cell in enumerate(dict.fromkeys(r[0] for r in rows))}
    scenario_index = {scenario: i for i, scenario in enumerate(dict.fromkeys(r[1] for r in rows))}
    shape = (len(cell_index), len(scenario_index))
    at = np.array([cell_index[c] * shape[1] + scenario_index[s] for c, s, _ in rows])
    score = np.array([value for _, _, value in rows], dtype=float)
    size = shape[0] * shape[1]
    count = np.bincount(at, minlength=size)
    mean = np.bincount(at, weights=score, minlength=size) / np.maximum(count, 1)
    within_df = int(np.maximum(count - 1, 0).sum())
    mask = (count > 0).reshape(shape)
    common = mask.astype(int) @ mask.T.astype(int)
    np.fill_diagonal(common, 0)
    if within_df == 0 or common.max() < 2:
        return None
    tip_variance = float(((score - mean[at]) ** 2).sum()) / within_df
    means = np.where(mask, mean.reshape(shape), np.nan)
    a, b = np.nonzero(np.triu(common) >= 2)
    differences = [d[~np.isnan(d)] for d in means[a] - means[b]]
    pair_variance = sum(float(((d - d.mean()) ** 2).sum()) for d in differences) / sum(d.size - 1 for d in differences)
    interaction = pair_variance / 2 - tip_variance * float((1 / count[count > 0]).mean())
    return VarianceComponents(float(np.sqrt(max(interaction, 0.0))), float(np.sqrt(tip_variance)))
