"""All pairs of cells, tested at once: what is shown to differ, the ranks that leaves possible, and what is good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tipbench.stats.arrays import BoolArray, FloatArray
from tipbench.stats.maxt import centred_by_scenario, critical_value, mask_key, null_draws, null_maxima, studentised

MOST_SCENARIOS = 10_000
"""A design with more scenarios than this is not worth naming."""


@dataclass(frozen=True)
class AllPairs:
    """Simultaneous statements on all pairs: [a, b] is cell a minus cell b, each (C, C), NaN where nothing is known."""

    diff: FloatArray
    se: FloatArray
    p: FloatArray
    """Adjusted for all pairs; below 1 - confidence exactly when the interval leaves out 0."""
    critical: float
    """How many standard errors the simultaneous limits are away from a difference; NaN where there is no noise to scale by."""
    confidence: float

    @property
    def low(self) -> FloatArray:
        """Lower limits; made when asked for, like the upper ones, since a thousand cells have a million pairs."""
        return self._limit(-self.critical)

    @property
    def high(self) -> FloatArray:
        """Upper limits."""
        return self._limit(self.critical)

    def _limit(self, errors: float) -> FloatArray:
        with np.errstate(invalid="ignore"):
            limit = self.se * errors
            limit += self.diff
        limit[np.isnan(self.p)] = np.nan
        np.fill_diagonal(limit, 0.0)
        return limit

    @property
    def better(self) -> BoolArray:
        """[a, b]: a is shown to be better than b, (C, C)."""
        with np.errstate(invalid="ignore"):
            return np.asarray((self.p < 1 - self.confidence) & (self.diff > 0))

    @property
    def testable(self) -> BoolArray:
        """Cells that were tested against another, (C,)."""
        known = ~np.isnan(self.p)
        np.fill_diagonal(known, False)
        return np.asarray(known.any(axis=1))


@dataclass(frozen=True)
class Choice:
    """The cheapest cell that is good enough; indices are those of the cells that were passed in."""

    cell: int | None
    """The one to take; None while no cell has been shown to be within the margin of all others."""
    candidate: int | None
    """Without one to take: the cheapest cell that has not been shown to be worse than the margin allows."""
    scenarios: int | None
    """How many scenarios, about, it would take to tell whether the candidate is good enough; None if beyond reach."""


def assess(
    diff: FloatArray,
    se: FloatArray,
    n: FloatArray,
    null: Callable[[], FloatArray],
    *,
    scale: float,
    confidence: float,
) -> AllPairs:
    """All-pairs max-T: limits and adjusted p from differences, standard errors and common scenarios, each (C, C).

    `null` gives the sorted draws of the largest |t| among equal cells; it is asked only when needed. When no difference
    varies between scenarios (against `scale`, the size of the scores) there is no noise to scale by: then p is the
    sign-flip test's, 2^(1-n) for n scenarios, times the number of pairs, and the limits are unknown.
    """
    diff = np.where(np.abs(diff) <= 1e-9 * scale, 0.0, diff)
    diff[n == 0] = np.nan
    testable = (n >= 2) & np.isfinite(se)
    np.fill_diagonal(testable, False)
    p, critical = np.full(diff.shape, np.nan), np.nan
    if testable.any():
        if se.max(where=testable, initial=0.0) > 1e-9 * scale:
            maxima = null()
            with np.errstate(divide="ignore", invalid="ignore"):
                np.divide(np.abs(diff), se, out=p, where=testable)
            p[testable] = (1 + maxima.size - np.searchsorted(maxima, p[testable])) / (1 + maxima.size)
            critical = critical_value(maxima, confidence)
        else:
            pairs = len(diff) * (len(diff) - 1) // 2
            p[testable] = np.where(diff[testable] == 0, 1.0, np.minimum(1.0, pairs * 2.0 ** (1.0 - n[testable])))
    np.fill_diagonal(diff, 0.0)
    np.fill_diagonal(p, 1.0)
    return AllPairs(diff, se, p, critical, confidence)


def compare_pairs(x: FloatArray, *, seed: int, draws: int = 10_000, confidence: float = 0.95) -> AllPairs:
    """All pairs of cells by scenario means `x` (C, S), NaN for what is missing; every row must have some score."""
    mask = ~np.isnan(x)
    diff, se, n = studentised(centred_by_scenario(x, mask), mask)
    return assess(
        diff,
        se,
        n,
        lambda: null_maxima(mask_key(mask), mask.shape, null_draws(draws, mask), seed),
        scale=float(np.nanmax(np.abs(x), initial=0.0)),
        confidence=confidence,
    )


def rank_limits(pairs: AllPairs, rank: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Simultaneous limits of every cell's rank, (C,) each: 1 + the cells shown better … C - the cells shown worse.

    With the simultaneous confidence of the pairs, every true rank lies between its limits (Al Mohamad, van Zwet &
    Goeman take them from Tukey's test just so). `rank` (C,) are the ranks shown, which the limits
    include also where missing scenarios make means and differences disagree. NaN for a cell that was not tested; a single cell has rank 1.
    """
    better = pairs.better
    n_cells = len(better)
    shown = np.asarray(rank, dtype=float)
    low = np.minimum(1.0 + better.sum(axis=0), shown)
    high = np.maximum(float(n_cells) - better.sum(axis=1), shown)
    unknown = ~pairs.testable if n_cells > 1 else np.zeros(1, dtype=bool)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def choose(pairs: AllPairs, cost: npt.ArrayLike, margin: float, *, n_scenarios: int) -> Choice:
    """The cheapest cell whose simultaneous lower limit against every other cell is above -margin.

    `cost` (C,), NaN where unknown: an unknown cost is dearer than every known one, and equal costs go to the cell with
    the smaller largest shortfall. `margin` is in points. The leader seen is no yardstick: a cell must be close to each
    of the others, since any of them may be the best. So a cell that is truly worse than the best by more than the
    margin is named with a chance of at most 1 - confidence. How many scenarios it takes is reckoned from today's
    differences, with limits that narrow as 1/√n.
    """
    n_cells = len(pairs.diff)
    if n_cells == 0:
        return Choice(None, None, None)
    others = ~np.eye(n_cells, dtype=bool)
    price = np.asarray(cost, dtype=float)
    shortfall = np.where(others, np.where(np.isnan(pairs.diff), np.inf, -pairs.diff), -np.inf).max(axis=1)
    order = np.lexsort((shortfall, np.where(np.isnan(price), np.inf, price)))
    if n_cells == 1:
        return Choice(0, None, None)
    known = ~np.isnan(pairs.low)
    with np.errstate(invalid="ignore"):
        near: BoolArray = (pairs.low > -margin) | ~others
        far: BoolArray = np.asarray((pairs.high < -margin) & others & known)
    good: BoolArray = np.asarray(near.all(axis=1))
    for cell in order:
        if good[cell]:
            return Choice(int(cell), None, None)
    excluded: BoolArray = np.asarray(far.any(axis=1))
    open_cells = [int(cell) for cell in order if not excluded[cell]]
    if not open_cells:
        return Choice(None, None, None)
    return Choice(None, open_cells[0], _scenarios_to_tell(pairs, open_cells[0], margin, n_scenarios))


def _scenarios_to_tell(pairs: AllPairs, cell: int, margin: float, n_scenarios: int) -> int | None:
    half = (pairs.high - pairs.low)[cell] / 2
    room = pairs.diff[cell] + margin
    others = np.arange(len(room)) != cell
    half, room = half[others], room[others]
    if np.isnan(half).any() or np.isnan(room).any():
        return None
    with np.errstate(divide="ignore"):
        needed = n_scenarios * (half / np.abs(room)) ** 2
    most = float(needed.max() if (room > 0).all() else needed[room <= 0].min())
    return int(np.floor(most)) + 1 if most < MOST_SCENARIOS else None
