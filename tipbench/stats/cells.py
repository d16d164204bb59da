"""Cells against each other: ranks, differences to the leader, and which cells are worth their cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tipbench.stats.arrays import BoolArray, FloatArray
from tipbench.stats.maxt import (
    CHUNK,
    centred_by_scenario,
    critical_value,
    mask_key,
    null_draws,
    null_maxima,
    studentised,
)


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


def compare_cells(means: npt.ArrayLike, *, seed: int, draws: int = 10_000, confidence: float = 0.95) -> Comparison:
    """Rank the cells, and say how sure each rank and each difference to the leader is.

    `means` has shape (C cells, S scenarios), NaN for what is missing. A cell's composite is the mean of its scenarios.

    Ranks and P(best): percentiles of a cluster bootstrap that draws whole scenarios, the same ones for every cell, so
    that what makes a scenario hard cancels out. In a draw that holds none of a cell's scenarios it keeps its mean. A
    cell with one scenario has no rank interval, unless it is the only cell.

    Differences to the leader, paired by scenario: simultaneous over *all* pairs of cells (max-T: Westfall & Young 1993;
    with a pooled variance it would be Tukey's range test), since any cell might have been the leader. See
    `studentised` for the standard error and `null_maxima` for the null distribution. A difference is called when
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
    all_diff, all_se, common = studentised(centred_by_scenario(x, mask), mask)
    diff, se, n = all_diff[:, leader], all_se[:, leader], common[:, leader]
    diff = np.where(n == 0, np.nan, np.where(np.abs(diff) <= 1e-9 * scale, 0.0, diff))
    low, high, p = np.full((3, x.shape[0]), np.nan)
    testable = n >= 2
    if testable.sum() > 1:
        if se[testable].max() > 1e-9 * scale:
            null = null_maxima(mask_key(mask), mask.shape, null_draws(draws, mask), seed)
            t = np.abs(diff[testable]) / se[testable]
            p[testable] = (1 + null.size - np.searchsorted(null, t)) / (1 + null.size)
            half = critical_value(null, confidence) * se[testable]
            low[testable], high[testable] = diff[testable] - half, diff[testable] + half
        else:
            pairs = x.shape[0] * (x.shape[0] - 1) // 2
            p[testable] = np.where(diff[testable] == 0, 1.0, np.minimum(1.0, pairs * 2.0 ** (1.0 - n[testable])))
    diff[leader], low[leader], high[leader], p[leader] = 0.0, 0.0, 0.0, 1.0
    return diff, low, high, p


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
    chunk = max(1, CHUNK // max(n_cells, n_scenarios))
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
