"""How far judges agree, with each other and with themselves. All figures are for one rubric's scores on one scale."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import krippendorff
import numpy as np
from numpy.typing import NDArray

WEAK = 0.667
"""Krippendorff (Content Analysis, 2004, ch. 11): below this, not even tentative conclusions should be drawn."""
DRAWS = 1000

Scores = Mapping[str, Mapping[str, Mapping[str, int]]]
"""judge -> candidate -> criterion -> score"""


@dataclass(frozen=True)
class Ratings:
    """Every judge's scores, the scenario of every candidate, and second scores of candidates shown twice."""

    scores: Scores
    scenario_of: Mapping[str, str]
    repeats: Scores = field(default_factory=dict)


@dataclass(frozen=True)
class Alpha:
    """Ordinal alpha of one criterion with a 95% interval; None when nothing varies or nobody overlaps."""

    criterion: str
    alpha: float | None
    ci_low: float | None
    ci_high: float | None
    n_units: int
    """Candidates that at least two judges scored."""


@dataclass(frozen=True)
class Kappa:
    """Quadratic-weighted kappa of two judges on one criterion, over the `n` candidates both scored."""

    judge_a: str
    judge_b: str
    criterion: str
    kappa: float | None
    n: int


@dataclass(frozen=True)
class Leniency:
    """Mean of a judge's scores minus the others' mean on the same `n` candidates, in points of the scale."""

    judge: str
    mean_difference: float | None
    n: int


@dataclass(frozen=True)
class Consistency:
    """How a judge scored the same tip twice: share of `n` scores alike, and their mean absolute difference."""

    judge: str
    exact: float | None
    mean_abs_difference: float | None
    n: int


def alpha_by_criterion(ratings: Ratings, criteria: Sequence[str], *, seed: int = 0, draws: int = DRAWS) -> list[Alpha]:
    """Krippendorff's alpha, ordinal, per criterion; the interval is a percentile bootstrap over scenarios."""
    return [_alpha(ratings, criterion, seed, draws) for criterion in criteria]


def is_weak(alpha: Alpha) -> bool:
    """True when the judges agree too little to lean on the ranking. An alpha that cannot be known is not called weak."""
    return alpha.alpha is not None and alpha.alpha < WEAK


def _alpha(ratings: Ratings, criterion: str, seed: int, draws: int) -> Alpha:
    per_unit: dict[str, list[int]] = {}
    for candidates in ratings.scores.values():
        for candidate, scores in candidates.items():
            if criterion in scores:
                per_unit.setdefault(candidate, []).append(scores[criterion])
    units = {c: values for c, values in per_unit.items() if len(values) > 1}
    levels = sorted({v for values in units.values() for v in values})
    if len(levels) < 2:
        return Alpha(criterion, None, None, None, len(units))
    position = {v: i for i, v in enumerate(levels)}
    scenarios = sorted({ratings.scenario_of[c] for c in units})
    counts = np.zeros((len(units), len(levels)))
    by_scenario = np.zeros((len(scenarios), len(levels), len(levels)))
    for row, (candidate, values) in enumerate(units.items()):
        for value in values:
            counts[row, position[value]] += 1
        by_scenario[scenarios.index(ratings.scenario_of[candidate])] += _coincidences(counts[row])
    point = float(krippendorff.alpha(value_counts=counts, value_domain=levels, level_of_measurement="ordinal"))
    low = high = None
    if len(scenarios) > 1:
        rng = np.random.default_rng([seed, 0xA1FA])
        weights = rng.multinomial(len(scenarios), np.full(len(scenarios), 1 / len(scenarios)), size=draws)
        # Coincidences add up over units, so a draw is a weighted sum of its scenarios' matrices.
        alphas = ordinal_alpha(np.tensordot(weights.astype(float), by_scenario, axes=1))
        alphas = alphas[~np.isnan(alphas)]
        if len(alphas):
            low, high = (float(q) for q in np.quantile(alphas, [0.025, 0.975]))
    return Alpha(criterion, point, low, high, len(units))


def _coincidences(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """One unit's share of the coincidence matrix: pairs of values, divided by the number of values minus 1."""
    return np.asarray((np.outer(counts, counts) - np.diag(counts)) / (counts.sum() - 1))


def ordinal_alpha(coincidences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Alpha for each of (draws, V, V) coincidence matrices; NaN where nothing varies.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": 1 - observed / expected disagreement, with the ordinal distance
    (sum of the marginals from c to k, less half of both ends) squared. Only values with their order matter.
    """
    marginals = coincidences.sum(axis=2)
    n = marginals.sum(axis=1)
    cumulative = marginals.cumsum(axis=1) - marginals / 2
    distance = (cumulative[:, :, None] - cumulative[:, None, :]) ** 2
    observed = (coincidences * distance).sum(axis=(1, 2))
    expected = (marginals[:, :, None] * marginals[:, None, :] * distance).sum(axis=(1, 2)) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(expected > 0, 1 - observed / expected, np.nan))


def pairwise_kappa(ratings: Ratings, criteria: Sequence[str]) -> list[Kappa]:
    """Quadratic-weighted kappa for every pair of judges and every criterion."""
    found = []
    for a, b in itertools.combinations(sorted(ratings.scores), 2):
        common = sorted(set(ratings.scores[a]) & set(ratings.scores[b]))
        for criterion in criteria:
            pairs = [(ratings.scores[a][c][criterion], ratings.scores[b][c][criterion]) for c in common]
            found.append(Kappa(a, b, criterion, weighted_kappa(pairs), len(pairs)))
    return found


def weighted_kappa(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Cohen 1968 with quadratic weights; None when neither judge varies, so that chance agreement is complete.

    With d = a - b over the pairs: 1 - mean(d^2) / (expected d^2 under independence), and the latter is
    var(a) + var(b) + (mean(a) - mean(b))^2.
    """
    if not pairs:
        return None
    a, b = np.array(pairs, dtype=float).T
    expected = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    return float(1 - ((a - b) ** 2).mean() / expected) if expected > 0 else None


def leniency(ratings: Ratings, criteria: Sequence[str]) -> list[Leniency]:
    """Every judge against the mean of the others, over candidates that somebody else scored too."""
    means = {
        judge: {c: statistics.fmean(s[k] for k in criteria) for c, s in candidates.items()}
        for judge, candidates in ratings.scores.items()
    }
    by_candidate: dict[str, list[float]] = {}
    for candidates in means.values():
        for candidate, value in candidates.items():
            by_candidate.setdefault(candidate, []).append(value)
    found = []
    for judge, candidates in sorted(means.items()):
        gaps = []
        for candidate, value in candidates.items():
            everybody = by_candidate[candidate]
            if len(everybody) > 1:
                others = (sum(everybody) - value) / (len(everybody) - 1)
                gaps.append(value - others)
        found.append(Leniency(judge, statistics.fmean(gaps) if gaps else None, len(gaps)))
    return found


def self_consistency(ratings: Ratings) -> list[Consistency]:
    """For every judge who scored a tip twice: how often alike, and how far apart."""
    found = []
    for judge, repeats in sorted(ratings.repeats.items()):
        first = ratings.scores.get(judge, {})
        gaps = [abs(again[k] - first[c][k]) for c, again in repeats.items() if c in first for k in again]
        exact = statistics.fmean(gap == 0 for gap in gaps) if gaps else None
        found.append(Consistency(judge, exact, statistics.fmean(gaps) if gaps else None, len(gaps)))
    return found
