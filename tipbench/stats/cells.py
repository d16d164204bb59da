"""Cells against each other: ranks, differences to the leader, and which cells are worth their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tipbench.stats.arrays import BoolArray, FloatArray
from tipbench.stats.maxt import CHUNK
from tipbench.stats.pairs import AllPairs, compare_pairs, rank_limits


@dataclass(frozen=True)
class Comparison:
    """Cells against each other; arrays of length C in the order the cells came in, NaN where nothing can be known."""

    order: npt.NDArray[np.intp]
    """Indices of the cells from best to worst; cells without data last; equal means keep the order they came in."""
    rank: npt.NDArray[np.intp]
    """Position in `order`, from 1."""
    mean: FloatArray
    rank_low: FloatArray
    """Best rank that the tests leave possible."""
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
    pairs: AllPairs
    """The tests of all pairs of the cells that have data, in the order they came in."""


def compare_cells(means: npt.ArrayLike, *, seed: int, draws: int = 10_000, confidence: float = 0.95) -> Comparison:
    """Rank the cells, and say how sure each rank and each difference to the leader is.

    `means` has shape (C cells, S scenarios), NaN for what is missing. A cell's composite is the mean of its scenarios.

    Rank limits count what was tested (`rank_limits`), so that nothing looks surer than the test; P(best) is a cluster
    bootstrap's (`probability_best`).

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
    scored = ~np.isnan(x).all(axis=1)
    mean = np.full(len(x), np.nan)
    mean[scored] = np.nanmean(x[scored], axis=1)
    pairs = compare_pairs(x[scored], seed=seed, draws=draws, confidence=confidence)
    return compared(mean, pairs, probability_best([x[scored]], seed=seed, draws=draws))


def differences_to_leader(
    x: FloatArray, leader: int, *, seed: int, draws: int = 10_000, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Difference, lower and upper limit, and adjusted p of every cell to the one with index `leader`, each (C,).

    The part of `compare_cells` that tests; `x` (C, S) must have some score in every row.
    """
    pairs = compare_pairs(x, seed=seed, draws=draws, confidence=confidence)
    return pairs.diff[:, leader], pairs.low[:, leader], pairs.high[:, leader], pairs.p[:, leader]


def ranking(mean: FloatArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The cells from best to worst, and each one's position from 1; (C,) each, NaN last, equal means in the order they came in."""
    # Rounding makes sums of the same scores in another order the same mean.
    order = np.argsort(np.where(np.isnan(mean), np.inf, -mean.round(9)), kind="stable")
    rank = np.empty(len(mean), dtype=np.intp)
    rank[order] = np.arange(1, len(mean) + 1)
    return order, rank


def compared(mean: FloatArray, pairs: AllPairs, p_best: FloatArray) -> Comparison:
    """The comparison that these tests of the cells with a mean give; `pairs` and `p_best` leave the other cells out."""
    scored = ~np.isnan(mean)
    order, rank = ranking(mean)
    best, low, high, diff, diff_low, diff_high, p = np.full((7, len(mean)), np.nan)
    tied: list[bool | None] = [None] * len(mean)
    if scored.any():
        leader = int(np.flatnonzero(scored).searchsorted(order[0]))
        low[scored], high[scored] = rank_limits(pairs, rank[scored])
        best[scored] = p_best
        diff[scored], p[scored] = pairs.diff[:, leader], pairs.p[:, leader]
        diff_low[scored], diff_high[scored] = pairs.low[:, leader], pairs.high[:, leader]
        alpha = 1 - pairs.confidence
        tied = [None if np.isnan(pi) else bool(pi >= alpha or d > 0) for pi, d in zip(p, diff, strict=True)]
    return Comparison(order, rank, mean, low, high, best, diff, diff_low, diff_high, p, tuple(tied), pairs)


def probability_best(groups: Sequence[FloatArray], *, seed: int, draws: int = 10_000) -> FloatArray:
    """Share of bootstrap draws in which each cell is first, (C,); cells that tie for first share the draw.

    A cell's composite is the sum over `groups` of its mean over that group's scenarios, each group (C, S) with NaN for
    what is missing and its scenarios drawn on their own: one group for plain scenario means, two for references and
    another judge. Whole scenarios are drawn, the same ones for every cell, so that what makes a scenario hard cancels
    out. In a draw that holds none of a cell's scenarios it keeps its mean. NaN for a cell with fewer than two scenarios in the first group, unless it is the only one.
    """
    groups = [group[:, ~np.isnan(group).all(axis=0)] for group in groups]
    n_cells = len(groups[0])
    if n_cells <= 1:
        return np.ones(n_cells)
    masks = [~np.isnan(group) for group in groups]
    zeroed = [np.where(mask, group, 0.0) for mask, group in zip(masks, groups, strict=True)]
    points = [z.sum(axis=1) / np.maximum(m.sum(axis=1), 1) for z, m in zip(zeroed, masks, strict=True)]
    rng = np.random.default_rng([seed, 2])
    first_draws = np.zeros(n_cells)
    chunk = max(1, CHUNK // max(n_cells, *(group.shape[1] for group in groups)))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        drawn = np.zeros((size, n_cells))
        for mask, scores, point in zip(masks, zeroed, points, strict=True):
            n = scores.shape[1]
            if n == 0:
                continue
            weights = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(float)
            count = weights @ mask.T
            drawn += np.where(count > 0, weights @ scores.T / np.maximum(count, 1), point)
        drawn = drawn.round(9)
        first = drawn == drawn.max(axis=1, keepdims=True)
        first_draws += (first / first.sum(axis=1, keepdims=True)).sum(axis=0)
    return np.where(masks[0].sum(axis=1) < 2, np.nan, first_draws / draws)


NEAR_SPEED, NEAR_MEMORY = 0.10, 0.05
"""Shares by which two cells may differ in speed and in memory and still count as equal there. A convention: a smaller difference is no
reason to choose, and comes and goes from one collection to the next."""


def pareto_front(quality: npt.ArrayLike, speed: npt.ArrayLike, memory: npt.ArrayLike) -> BoolArray:
    """Which cells no other cell dominates: at least as good in all three, and better in one. Shapes (C,) -> (C,).

    More quality and speed are better, less memory is better. Speed and memory are measured anew in every collection: figures
    within NEAR_SPEED and NEAR_MEMORY (of the larger one) are ties, so that the front is the same run after run. A cell with a
    figure missing (NaN) is not on the front, but a figure that is missing everywhere is left out.
    """
    figures = np.stack([np.asarray(quality, float), np.asarray(speed, float), -np.asarray(memory, float)], axis=1)
    there = ~np.isnan(figures).all(axis=0)
    figures, near = figures[:, there], np.array([0.0, NEAR_SPEED, NEAR_MEMORY])[there]
    front: BoolArray = ~np.isnan(figures).any(axis=1) & (figures.shape[1] > 0)
    known = figures[front]
    kept = ~_dominated(known, near)
    # Ties are not transitive, so that cells could beat each other in a circle; then the exact figures decide.
    front[front] = kept if kept.any() else ~_dominated(known, np.zeros_like(near))
    return np.asarray(front, dtype=bool)


def _dominated(figures: FloatArray, near: FloatArray) -> BoolArray:
    """For which cells there is another that is as good everywhere and better somewhere, (C,), by figures (C, F) of which more is better.

    Two figures count as equal that differ by at most a share `near` (F,) of the larger one.
    """
    n_cells = len(figures)
    as_good, better = np.ones((n_cells, n_cells), dtype=bool), np.zeros((n_cells, n_cells), dtype=bool)
    for figure, share in zip(figures.T, near, strict=True):
        size = np.abs(figure)
        slack = share * np.maximum(size[:, None], size)
        as_good &= figure[:, None] >= figure - slack
        better |= figure[:, None] > figure + slack
    return np.asarray((as_good & better).any(axis=0), dtype=bool)
