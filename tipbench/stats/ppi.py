"""Reference judges on a part, another judge on all: what would the references have said of everything?

Prediction-powered inference with power tuning (PPI++: Angelopoulos, Duchi & Zrnic 2023, arXiv 2311.01453), on scenario
means and on paired differences. For a cell, or a difference of two, let y be what the references say of a scenario, f what
the other judge says of it, n the scenarios with references and M those with the other judge alone:

    θ = ȳ_n + λ (f̄_M - f̄_n),   se² = var(y - λ f) / n + λ² var(f) / M,   λ = cov(y, f) / (var f + (n / M) var f)

Whatever λ is, the other judge's bias cancels out, as long as the scenarios with references are like the others. There is
one λ for the whole board, so that differences add up and agree with the order: from scores with the scenario's and the
cell's mean taken out, summed over cells, and cut off at 0 and 1. A λ for each pair, with ordinary critical values, calls
false differences (docs/explanation/statistics.md); here the distribution of the largest |t| is simulated with λ
estimated in every draw as it is in the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from tipbench.stats.arrays import BoolArray, FloatArray
from tipbench.stats.cells import Comparison, compared, probability_best
from tipbench.stats.intervals import Interval, scenario_interval
from tipbench.stats.maxt import (
    CHUNK,
    MIN_NULL_DRAWS,
    NULL_WORK,
    TINY,
    centred_by_scenario,
    moderated_variance,
    pair_spreads,
)
from tipbench.stats.pairs import AllPairs, assess, compare_pairs

MIN_REFERENCE_SCENARIOS = 6
"""With fewer, intervals were measured to lose their level (bench/simulate_judges.py)."""

LIKENESS = 0.3
"""Correlation of the judges for which the null distribution is simulated: there the critical value is largest."""


class TooFewReferences(ValueError):
    """The references scored fewer than `MIN_REFERENCE_SCENARIOS` scenarios of every cell; `n` is the most of any cell."""

    def __init__(self, n: int) -> None:
        super().__init__(f"the reference judges scored {n} scenarios; it takes {MIN_REFERENCE_SCENARIOS}")
        self.n = n


@dataclass(frozen=True)
class Estimate:
    """What the references would have said of everything, in the order in which the cells came in."""

    cells: tuple[Interval, ...]
    """Composite of each cell with a t interval; all None for a cell that is not estimated."""
    comparison: Comparison
    weight: float
    """λ: how far the other judge's scores are used; 0 when they tell nothing, or nothing that the references do not."""
    estimated: BoolArray
    """Which cells have references on enough scenarios, (C,)."""
    n_reference: int
    """Scenarios with references."""
    n_other: int
    """Scenarios with the other judge alone."""
    worth: float | None
    """As many reference scenarios, with nothing else, would give differences the same error; None without any error."""


@dataclass(frozen=True)
class Bias:
    """How another judge's scores differ from the references' on the same tips, in points; other minus references."""

    level: Interval
    """Mean over the cells, with a t interval over scenarios."""
    cells: tuple[Interval, ...]
    """Each cell's difference beyond the level, which is what moves ranks; simultaneous over cells (Bonferroni)."""


def estimate(
    y: npt.ArrayLike,
    shared: npt.ArrayLike | None = None,
    everything: npt.ArrayLike | None = None,
    *,
    seed: int,
    draws: int = 10_000,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Composites and all differences as the references would give them.

    All three arrays hold scenario means, (C cells, S scenarios), NaN for what is missing: `y` the references', `shared`
    the other judge's on the very tips that the references scored, `everything` the other judge's on all tips. With all
    tips scored by the references, `shared` is `everything`. Without another judge, or where nothing was scored by the
    other judge alone, λ is 0 and the result is the references' own. A scenario where any cell has references is one of
    the n; pairs of cells use the scenarios that both have. `bounds` clips limits to the scale.

    Raises TooFewReferences when no cell has references on `MIN_REFERENCE_SCENARIOS` scenarios; single cells with fewer are not estimated.
    """
    known, estimated, with_reference = _known(y, shared, everything)
    weight, pairs = _tested(known, seed=seed, draws=draws, confidence=confidence)
    intervals = _levels(known, weight, confidence, bounds)
    mean = np.full(len(estimated), np.nan)
    mean[estimated] = [i.mean for i in intervals]
    groups = [known.y - weight * known.shared if weight else known.y]
    if weight:
        groups.append(weight * known.alone)
    found = iter(intervals)
    return Estimate(
        cells=tuple(next(found) if e else Interval(None, None, None, None) for e in estimated),
        comparison=compared(mean, pairs, probability_best(groups, seed=seed, draws=draws)),
        weight=weight,
        estimated=estimated,
        n_reference=int(with_reference.sum()),
        n_other=known.n_other,
        worth=_worth(known, pairs),
    )


def difference_tests(
    y: npt.ArrayLike,
    shared: npt.ArrayLike | None = None,
    everything: npt.ArrayLike | None = None,
    *,
    seed: int,
    draws: int = 10_000,
    confidence: float = 0.95,
) -> tuple[float, AllPairs]:
    """The part of `estimate` that tests: λ, and all pairs of the cells with references on enough scenarios."""
    return _tested(_known(y, shared, everything)[0], seed=seed, draws=draws, confidence=confidence)


def bias(y: npt.ArrayLike, shared: npt.ArrayLike, *, confidence: float = 0.95) -> Bias:
    """Another judge's bias on the tips that the references scored; scenario means (C, S), NaN for what is missing.

    The level is the mean over a scenario's cells, then over scenarios. A cell's own part is taken within the scenario
    (its difference minus the mean of the others'), so that the level's noise is not in it; None with fewer than two scenarios or cells.
    """
    gap = np.asarray(shared, dtype=float) - np.asarray(y, dtype=float)
    has = ~np.isnan(gap)
    counts = has.sum(axis=0)
    total = np.where(has, gap, 0.0).sum(axis=0)
    per_scenario = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    own = np.where(has & (counts > 1), gap - per_scenario, np.nan)
    each = 1 - (1 - confidence) / max(1, int(has.any(axis=1).sum()))
    return Bias(scenario_interval(per_scenario, confidence), tuple(scenario_interval(row, each) for row in own))


def _known(
    y: npt.ArrayLike, shared: npt.ArrayLike | None, everything: npt.ArrayLike | None
) -> tuple[_Scores, BoolArray, BoolArray]:
    """The scores that count, which cells they are of (C,), and which scenarios have references (S,)."""
    y = np.asarray(y, dtype=float)
    same_tips = np.full_like(y, np.nan) if shared is None else np.asarray(shared, dtype=float)
    all_tips = np.full_like(y, np.nan) if everything is None else np.asarray(everything, dtype=float)
    if not np.isnan(all_tips).all():
        # A rectifier takes both judges on the same tips.
        y = np.where(np.isnan(same_tips), np.nan, y)
    same_tips = np.where(np.isnan(y), np.nan, same_tips)
    counts = (~np.isnan(y)).sum(axis=1)
    cells = np.asarray(counts >= MIN_REFERENCE_SCENARIOS)
    if not cells.any():
        raise TooFewReferences(int(counts.max(initial=0)))
    first = np.asarray((~np.isnan(y[cells])).any(axis=0))
    known = _Scores(
        y[cells][:, first], same_tips[cells][:, first], all_tips[cells][:, first], all_tips[cells][:, ~first]
    )
    return known, cells, first


def _tested(known: _Scores, *, seed: int, draws: int, confidence: float) -> tuple[float, AllPairs]:
    if not known.n_other:
        return 0.0, compare_pairs(known.y, seed=seed, draws=draws, confidence=confidence)
    z = known.prepared()
    weight = _weight(z)
    diff, se, n = _differences(z, weight)
    scale = float(np.nanmax(np.abs(known.y)))
    pairs = assess(diff, se, n, lambda: _null(z, draws, seed), scale=scale, confidence=confidence)
    return float(weight), pairs


@dataclass(frozen=True)
class _Scores:
    """The cells' scores in two groups of scenarios: with references (C, n), and the other judge's alone (C, M)."""

    y: FloatArray
    shared: FloatArray
    """The other judge on the references' tips."""
    same: FloatArray
    """The other judge on all tips of the same scenarios."""
    alone: FloatArray

    @property
    def n_other(self) -> int:
        """Scenarios that the other judge alone scored."""
        return int((~np.isnan(self.alone)).any(axis=0).sum())

    def prepared(self) -> _Centred:
        masks = _Masks(~np.isnan(self.y), ~np.isnan(self.same), ~np.isnan(self.alone))
        return _Centred(
            centred_by_scenario(self.y, masks.reference),
            centred_by_scenario(self.shared, masks.reference),
            centred_by_scenario(self.same, masks.same),
            centred_by_scenario(self.alone, masks.alone),
            masks,
        )


@dataclass(frozen=True)
class _Masks:
    reference: BoolArray
    same: BoolArray
    alone: BoolArray


@dataclass(frozen=True)
class _Centred:
    """Scores with the scenarios' means taken out, zeros for what is missing; (..., C, n) and (..., C, M)."""

    y: npt.NDArray[Any]
    shared: npt.NDArray[Any]
    same: npt.NDArray[Any]
    alone: npt.NDArray[Any]
    masks: _Masks

    @property
    def other(self) -> tuple[npt.NDArray[Any], BoolArray]:
        """The other judge on all tips of all scenarios, and where it is known."""
        return np.concatenate([self.same, self.alone], axis=-1), np.hstack([self.masks.same, self.masks.alone])


def _product(a: npt.NDArray[Any], b: npt.NDArray[Any], mask: BoolArray) -> npt.NDArray[Any]:
    """Sum over cells and scenarios of the products of deviations from the cells' means, (...)."""
    n = np.maximum(mask.sum(axis=1), 1)
    return np.asarray((a * b).sum(axis=(-1, -2)) - (a.sum(axis=-1) * b.sum(axis=-1) / n).sum(axis=-1))


def _weight(z: _Centred) -> npt.NDArray[Any]:
    """λ of each draw, (...): the one that makes the pairs' mean variance least, cut off at 0 and 1.

    The covariance is over the scenarios with references, divided by their number; the variance of `shared` is the
    variance over all scenarios, corrected by how much it differs from that of all tips where both are known.
    """
    every, known = z.other
    n = int(z.masks.reference.any(axis=0).sum())
    m = int(z.masks.alone.any(axis=0).sum())
    rows_n = np.maximum(z.masks.reference.sum(), 1)
    cells = z.masks.reference.any(axis=1).sum()
    covariance = _product(z.y, z.shared, z.masks.reference) / rows_n
    variance = _product(every, every, known) / max(int(known.sum()) - cells, 1)
    of_shared = _product(z.shared, z.shared, z.masks.reference) / max(int(rows_n) - cells, 1)
    of_same = _product(z.same, z.same, z.masks.same) / max(int(z.masks.same.sum()) - cells, 1)
    tips = np.maximum(variance + of_shared - of_same, 0)
    denominator = tips + n / max(m, 1) * variance
    return np.asarray(np.clip(covariance / np.where(denominator > 0, denominator, np.inf), 0, 1))


def _differences(z: _Centred, weight: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Differences of all pairs, their standard errors, both (..., C, C), and the reference scenarios of each pair (C, C).

    A pair without common scenarios that the other judge scored alone has the references' own difference.
    """
    weight = weight[..., None, None].astype(z.y.dtype)
    diff, spread, n = pair_spreads(z.y - weight * z.shared, z.masks.reference)
    mean_f, _, m = pair_spreads(z.alone, z.masks.alone)
    _, spread_f, n_f = pair_spreads(*z.other)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = moderated_variance(spread, n) / n + weight**2 * moderated_variance(spread_f, n_f) / np.maximum(m, 1)
        if (m == 0).any():
            own, own_spread, _ = pair_spreads(z.y, z.masks.reference)
            diff = np.where(m == 0, own, diff)
            variance = np.where(m == 0, moderated_variance(own_spread, n) / n, variance)
        variance = np.where(n > 1, variance, np.inf)
    return diff + np.where(m > 0, weight * mean_f, 0), np.sqrt(variance), n


def _levels(known: _Scores, weight: float, confidence: float, bounds: tuple[float, float] | None) -> list[Interval]:
    """Each cell's composite with a t interval, n - 1 degrees of freedom for n scenarios with references."""
    intervals = []
    for y, shared, same, alone in zip(known.y, known.shared, known.same, known.alone, strict=True):
        has, other = ~np.isnan(y), ~np.isnan(alone)
        w = weight if other.any() else 0.0
        n, m = int(has.sum()), int(other.sum())
        rectified = y[has] - w * shared[has] if w else y[has]
        mean, variance = float(rectified.mean()), float(rectified.var(ddof=1)) / n
        if w:
            mean += w * float(alone[other].mean())
            every = np.concatenate([same, alone])
            variance += w**2 * float(np.nanvar(every, ddof=1)) / m
        se = float(np.sqrt(variance))
        half = float(stdtrit(n - 1, (1 + confidence) / 2)) * se
        low, high = mean - half, mean + half
        if bounds is not None:
            mean = min(max(mean, bounds[0]), bounds[1])
            low, high = min(max(low, bounds[0]), mean), max(min(high, bounds[1]), mean)
        intervals.append(Interval(mean, se, low, high))
    return intervals


def _worth(known: _Scores, pairs: AllPairs) -> float | None:
    """n times the mean variance of the references' own differences over that of these."""
    if len(known.y) < 2:
        return None
    _, spread, n = pair_spreads(*_plain(known.y))
    both = (n > 1) & np.isfinite(pairs.se)
    np.fill_diagonal(both, False)
    if not both.any() or pairs.se[both].max() == 0:
        return None
    own = (moderated_variance(spread, n)[both] / n[both]).mean()
    return float(known.y.shape[1] * own / (pairs.se[both] ** 2).mean())


def _plain(x: FloatArray) -> tuple[FloatArray, BoolArray]:
    mask = ~np.isnan(x)
    return centred_by_scenario(x, mask), mask


def _null(z: _Centred, draws: int, seed: int) -> FloatArray:
    """The null distribution for this board: its design, and the spreads of the two judges as the data say, in coarse steps.

    The critical value hardly depends on how alike the judges are, and is largest for a weak likeness: that is what is
    simulated, so that no estimate of it is needed. Steps let boards of one design share a simulation.
    """
    yy = float(_product(z.y, z.y, z.masks.reference))
    ff = float(_product(z.shared, z.shared, z.masks.reference))
    of_same = float(_product(z.same, z.same, z.masks.same))
    ratio = float(np.sqrt(ff / yy)) if yy * ff > 0 else 1.0
    part = float(np.clip(of_same / ff, 0.1, 1)) if ff > 0 else 1.0
    steps = round(2 * float(np.log2(np.clip(ratio, 0.125, 8))))
    n_cells = z.y.shape[-2]
    most = max(min(draws, NULL_WORK // n_cells**2), min(draws, MIN_NULL_DRAWS))
    order = np.lexsort(np.hstack([z.masks.reference, z.masks.same, z.masks.alone]).T)
    masks = tuple((m[order].tobytes(), m.shape) for m in (z.masks.reference, z.masks.same, z.masks.alone))
    return _simulated(masks, 2 ** (steps / 2), round(part, 1), most, seed)


@lru_cache(maxsize=256)
def _simulated(
    keys: Sequence[tuple[bytes, tuple[int, int]]], ratio: float, part: float, draws: int, seed: int
) -> FloatArray:
    """Sorted draws of max |t| over all pairs when every cell is equal, λ estimated and cut off in each.

    Residuals are normal: the other judge's on all tips, `part` of the variance of its residuals on the references' tips,
    which have the correlation `LIKENESS` with the references' and are `ratio` times as spread.
    """
    masks = _Masks(*(np.frombuffer(key, dtype=bool).reshape(shape) for key, shape in keys))
    n_cells, n = masks.reference.shape
    m = masks.alone.shape[1]
    rng = np.random.default_rng([seed, 4])
    chunk = max(1, CHUNK // (n_cells * max(n_cells, n + m)))
    maxima = []
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        f, g, e = (rng.standard_normal((size, n_cells, k), dtype=np.float32) for k in (n + m, n, n))
        every = np.float32(np.sqrt(part)) * f
        shared = every[..., :n] + np.float32(np.sqrt(1 - part)) * g
        y = np.float32(LIKENESS) * shared + np.float32(np.sqrt(1 - LIKENESS**2)) * e
        every, shared = np.float32(ratio) * every, np.float32(ratio) * shared
        z = _Centred(
            centred_by_scenario(y, masks.reference),
            centred_by_scenario(shared, masks.reference),
            centred_by_scenario(every[..., :n], masks.same),
            centred_by_scenario(every[..., n:], masks.alone),
            masks,
        )
        diff, se, _ = _differences(z, _weight(z))
        maxima.append((diff / np.maximum(se, TINY)).max(axis=(-1, -2)))
    result = np.sort(np.concatenate(maxima).astype(float))
    result.flags.writeable = False
    return result
