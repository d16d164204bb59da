"""The max-T test over all pairs of cells: standard errors of their differences, and how large the largest |t| gets by chance."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tipbench.stats.arrays import BoolArray, FloatArray

CHUNK = 100_000
"""Most numbers in one intermediate array, so that memory does not grow with the number of draws."""
NULL_WORK = 100_000_000
"""Draws x pairs that the simulated null distribution may cost; beyond some 100 cells it has fewer draws."""
EXTREMES = 64
"""Of more cells than these, the simulation of complete data looks at the pairs of the most extreme ones."""
MIN_NULL_DRAWS = 500
TINY = np.finfo(np.float32).tiny
"""Keeps a simulated variance that rounding made zero from giving 0/0."""


def centred_by_scenario(x: npt.NDArray[Any], mask: BoolArray) -> npt.NDArray[Any]:
    """Scenario effects taken out (no difference changes, but sums of squares lose no digits), zeros for what is missing.

    `x` has shape (..., C, S), `mask` (C, S).
    """
    counts = np.maximum(mask.sum(axis=0), 1).astype(x.dtype)
    zeroed = np.where(mask, x, np.zeros((), dtype=x.dtype))
    return np.where(mask, zeroed - zeroed.sum(axis=-2, keepdims=True) / counts, np.zeros((), dtype=x.dtype))


def pair_spreads(z: npt.NDArray[Any], mask: BoolArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Paired differences of all pairs of cells, sums of squares about them, and the scenarios that both have.

    `z` has shape (..., C, S) with zeros where `mask` (C, S) is False; the results are (..., C, C), the last one (C, C).
    The sum of squares of a pair with fewer than two common scenarios is 0.
    """
    m = mask.astype(z.dtype)
    n = m @ m.T
    # In place where it can be: of a thousand cells each of these is some megabytes.
    total = z @ m.T
    total = total - np.swapaxes(total, -1, -2)
    diff = total / np.maximum(n, 1)
    spread = (z * z) @ m.T
    spread = spread + np.swapaxes(spread, -1, -2)
    spread -= (2 * z) @ np.swapaxes(z, -1, -2)
    total *= diff
    spread -= total
    np.maximum(spread, 0, out=spread)
    spread *= (n > 1) & ~np.eye(len(n), dtype=bool)
    return diff, spread, n


def moderated_variance(spread: npt.NDArray[Any], n: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The variance between scenarios of every paired difference, (..., C, C), from what `pair_spreads` found.

    A pair's own variance over eight scenarios is too noisy to rank by, and one variance for all pairs is wrong when a
    cell is more erratic than the others. So both count: v = (d0 · v̄ + d · v_pair) / (d0 + d), d = n - 1 for n common
    scenarios, with v̄ the mean over pairs weighted by d, the form of Smyth 2004 (limma). The prior's weight is fixed at
    as many degrees of freedom as the fullest pair has, not estimated: the estimate follows chance and, where one cell
    differs, shrinks too much. For complete data that is the plain average of v̄ and v_pair.
    """
    df = np.maximum(n - 1, 0)
    np.fill_diagonal(df, 0)
    prior = df.max(initial=0)
    variance: npt.NDArray[Any] = spread + spread.sum(axis=(-1, -2), keepdims=True) * (prior / max(df.sum(), 1))
    df += prior
    variance /= np.maximum(df, 1, out=df)
    return variance


def studentised(z: npt.NDArray[Any], mask: BoolArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Paired differences of all pairs of cells, their moderated standard errors, and the scenarios that both have.

    `z` has shape (..., C, S) with zeros where `mask` (C, S) is False; the results are (..., C, C), the last one (C, C).
    Pairs with fewer than two common scenarios have an infinite standard error.
    """
    diff, spread, n = pair_spreads(z, mask)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = moderated_variance(spread, n)
        variance *= np.where(n > 1, 1 / np.maximum(n, 1), np.inf).astype(z.dtype)
    return diff, np.sqrt(variance, out=variance), n


def mask_key(mask: BoolArray) -> bytes:
    """The missing pattern with its rows sorted: the largest of all pairs' |t| does not depend on the cells' order."""
    return mask[np.lexsort(mask.T)].tobytes() if mask.size else b""


def null_draws(draws: int, mask: BoolArray) -> int:
    n_cells = int(mask.shape[0])
    pairs = n_cells * (min(n_cells, EXTREMES) if mask.all() else n_cells)
    return max(min(draws, NULL_WORK // pairs), min(draws, MIN_NULL_DRAWS))


def normal_scores(mask: BoolArray, draws: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.float32]]:
    """Standard normal residuals with this missing pattern, (chunk, C, S) at a time."""
    n_cells, n_scenarios = mask.shape
    chunk = max(1, CHUNK // (n_cells * max(min(n_cells, EXTREMES), n_scenarios)))
    for start in range(0, draws, chunk):
        # Single precision: these are random numbers, and half the memory is nearly half the time.
        z = rng.standard_normal((min(chunk, draws - start), n_cells, n_scenarios), dtype=np.float32)
        z *= mask
        yield z


def complete_maxima(z: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """max |t| over all pairs of each draw of complete data, (B, C, S) -> (B,): as by `studentised`, in less time.

    Of many cells only the pairs with one of the `EXTREMES` cells farthest from 0 are looked at. Half of each variance
    is the pooled one, so t is at most √2 times the difference over its pooled error, and the difference of two cells
    that are nearer to 0 than all of those is too small to be the largest t.
    """
    n_cells, n_scenarios = z.shape[1:]
    mean = z.mean(axis=-1)
    z = z - mean[..., None]
    own = (z * z).sum(axis=-1)
    shared = 2 * (n_cells * own.sum(axis=-1) - (z.sum(axis=1) ** 2).sum(axis=-1)) / (n_cells * (n_cells - 1))
    some = min(n_cells, EXTREMES)
    top = np.argpartition(-np.abs(mean), some - 1, axis=1)[:, :some]
    spread = np.take_along_axis(z, top[..., None], axis=1) @ np.swapaxes(z, -1, -2)
    spread *= -2
    spread += np.take_along_axis(own, top, axis=1)[..., None]
    spread += own[:, None, :]
    spread += shared[:, None, None]
    np.maximum(spread, TINY, out=spread)
    diff = np.take_along_axis(mean, top, axis=1)[..., None] - mean[:, None, :]
    diff *= diff
    diff /= spread
    maxima: npt.NDArray[np.float32] = np.sqrt(diff.max(axis=(-1, -2)) * (2 * n_scenarios * (n_scenarios - 1)))
    return maxima


@lru_cache(maxsize=64)
def null_maxima(key: bytes, shape: tuple[int, int], draws: int, seed: int) -> FloatArray:
    """Sorted draws of max |t| over all pairs when every cell is equal, for this design and missing pattern.

    Residuals are independent standard normal; cell means, scenario effects and the common variance cancel out of t.
    """
    mask = np.frombuffer(key, dtype=bool).reshape(shape)
    rng = np.random.default_rng([seed, 1])
    maxima = []
    for z in normal_scores(mask, draws, rng):
        if mask.all():
            maxima.append(complete_maxima(z))
        else:
            diff, se, _ = studentised(z, mask)
            diff /= np.maximum(se, TINY)
            maxima.append(diff.max(axis=(-1, -2)))  # every pair stands there with both signs
    result = np.sort(np.concatenate(maxima).astype(float))
    result.flags.writeable = False
    return result


def critical_value(null: FloatArray, confidence: float) -> float:
    """The |t| beyond which the add-one p value is below 1 - confidence, so that p and interval never disagree."""
    exceed = int(np.ceil((1 - confidence) * (null.size + 1) - 1e-9)) - 2
    return float(null[null.size - 1 - exceed]) if exceed >= 0 else float("inf")
