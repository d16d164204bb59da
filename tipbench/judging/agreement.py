"""Agreement of judges: with each other (alpha, kappa, leniency) and with themselves (hidden repeats).

Pure functions of the ratings. A figure that the ratings cannot tell is None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import krippendorff
import numpy as np
import numpy.typing as npt

from tipbench.stats import AltTest, alternative_annotator_test

FloatArray = npt.NDArray[np.float64]

WEAK_ALPHA = 0.667
"""Below this even tentative conclusions are not supported (Krippendorff, Content Analysis, 4th ed., section 12.4)."""

Scores = Mapping[str, Mapping[str, Mapping[str, int]]]
"""judge -> candidate key -> criterion -> score"""


@dataclass(frozen=True)
class Ratings:
    """Who scored what. Candidate keys are any unique strings; each judge may have scored other candidates."""

    scores: Scores
    scenario_of: Mapping[str, str]
    """candidate key -> its scenario, the cluster of the bootstrap"""
    repeats: Scores = field(default_factory=dict)
    """The second scores of candidates that were shown twice without saying so."""


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's ordinal alpha of one criterion: 1 is agreement, 0 is chance, below 0 is worse than chance."""

    criterion: str
    alpha: float | None
    """None when no candidate has two judges, or no score differs from another."""
    ci_low: float | None
    ci_high: float | None
    n_units: int
    """Candidates with two judges or more."""


@dataclass(frozen=True)
class Kappa:
    """Quadratic-weighted kappa of two judges on one criterion."""

    judge_a: str
    judge_b: str
    criterion: str
    kappa: float | None
    n: int
    """Candidates that both scored."""


@dataclass(frozen=True)
class Leniency:
    """How much higher than the others a judge scores the same candidates, in points, mean over criteria."""

    judge: str
    mean_difference: float | None
    n: int
    """Candidates that the judge shares with another."""


@dataclass(frozen=True)
class Consistency:
    """How far a judge repeats itself on hidden repeats; each criterion of each repeat counts as one score."""

    judge: str
    exact: float | None
    """Share of scores given again exactly."""
    mean_abs_difference: float | None
    n: int
    """Scores repeated."""


def alpha_by_criterion(
    ratings: Ratings, criteria: Sequence[str], *, draws: int = 1000, confidence: float = 0.95, seed: int = 0
) -> list[Alpha]:
    """Krippendorff's alpha (ordinal) of all judges, per criterion, with a percentile interval.

    The interval is a cluster bootstrap over scenarios: candidates of one scenario are not independent. Draws without
    variation have no alpha and are left out; with fewer than two scenarios, or half of the draws left out, the limits are None.
    Few scenarios make any percentile interval too narrow: read it as a lower bound on the doubt.
    """
    return [_alpha(ratings, criterion, draws, confidence, seed) for criterion in criteria]


def _alpha(ratings: Ratings, criterion: str, draws: int, confidence: float, seed: int) -> Alpha:
    rows: dict[str, list[int]] = {}
    for by_candidate in ratings.scores.values():
        for candidate, given in by_candidate.items():
            if criterion in given:
                rows.setdefault(candidate, []).append(given[criterion])
    pairable = {candidate: scores for candidate, scores in rows.items() if len(scores) > 1}
    values = sorted({score for scores in pairable.values() for score in scores})
    if len(values) < 2:
        return Alpha(criterion, None, None, None, len(pairable))
    position = {value: i for i, value in enumerate(values)}
    counts = np.zeros((len(pairable), len(values)), dtype=int)
    for row, scores in enumerate(pairable.values()):
        for score in scores:
            counts[row, position[score]] += 1
    alpha = float(krippendorff.alpha(value_counts=counts, value_domain=values, level_of_measurement="ordinal"))
    scenarios = sorted({ratings.scenario_of[candidate] for candidate in pairable})
    label = np.searchsorted(scenarios, [ratings.scenario_of[candidate] for candidate in pairable])
    low = high = None
    if len(scenarios) > 1:
        by_scenario = np.stack([_coincidences(counts[label == s]) for s in range(len(scenarios))])
        n = len(scenarios)
        weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
        drawn = _ordinal_alpha(np.tensordot(weights, by_scenario, axes=1))
        drawn = drawn[~np.isnan(drawn)]
        if drawn.size > draws / 2:
            low, high = (float(q) for q in np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return Alpha(criterion, alpha, low, high, len(pairable))


def _coincidences(counts: npt.NDArray[np.int_]) -> FloatArray:
    """Coincidence matrix (V, V) of units with value counts (N, V), each with at least two values.

    A unit with m values adds its ordered pairs, each weighted 1/(m-1) (Krippendorff, "Computing Krippendorff's
    Alpha-Reliability", 2011). It is a sum over units, so scenarios can be drawn again without counting again.
    """
    weight = 1 / (counts.sum(axis=1) - 1)
    pairs = np.einsum("u,uc,uk->ck", weight, counts, counts)
    matrix: FloatArray = pairs - np.diag(weight @ counts)
    return matrix


def _ordinal_alpha(coincidences: FloatArray) -> FloatArray:
    """Ordinal alpha of each coincidence matrix, (B, V, V) -> (B,); NaN without variation.

    1 - (n-1) Σ o_ck δ²_ck / Σ n_c n_k δ²_ck, with δ_ck = Σ_{g=c..k} n_g - (n_c + n_k)/2, which is the distance of the
    two values' mid-ranks (same source).
    """
    totals = coincidences.sum(axis=2)
    mid = np.cumsum(totals, axis=1) - totals / 2
    delta = (mid[:, :, None] - mid[:, None, :]) ** 2
    observed = (coincidences * delta).sum(axis=(1, 2))
    expected = (totals[:, :, None] * totals[:, None, :] * delta).sum(axis=(1, 2))
    result = np.full(len(totals), np.nan)
    np.divide((totals.sum(axis=1) - 1) * observed, expected, out=result, where=expected > 0)
    return 1 - result


def is_weak(alpha: Alpha) -> bool:
    """True when agreement is known to be below `WEAK_ALPHA`; an alpha of None is unknown, not weak."""
    return alpha.alpha is not None and alpha.alpha < WEAK_ALPHA


def pairwise_kappa(ratings: Ratings, criteria: Sequence[str]) -> list[Kappa]:
    """Quadratic-weighted kappa of every pair of judges per criterion, on the candidates both scored."""
    found = []
    for a, b in combinations(sorted(ratings.scores), 2):
        for criterion in criteria:
            pairs = _common(ratings.scores[a], ratings.scores[b], [criterion])
            found.append(Kappa(a, b, criterion, weighted_kappa(pairs), len(pairs)))
    return found


def weighted_kappa(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Quadratic-weighted kappa (Cohen 1968) of two raters' scores of the same things.

    With weights (x-y)² the observed disagreement is the mean of (x-y)², and the one expected by chance, over all
    pairings of the two raters' scores, is var(x) + var(y) + (x̄-ȳ)². None without pairs, or when both gave one and the
    same score throughout.
    """
    if not pairs:
        return None
    x, y = np.array(pairs, dtype=float).T
    expected = float(x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    return None if expected == 0 else 1 - float(((x - y) ** 2).mean()) / expected


def leniency(ratings: Ratings, criteria: Sequence[str]) -> list[Leniency]:
    """For each judge, the mean over candidates of (own score - mean of the other judges' scores), criteria averaged."""
    found = []
    for judge in sorted(ratings.scores):
        others = [scores for name, scores in ratings.scores.items() if name != judge]
        differences = []
        for candidate, own in ratings.scores[judge].items():
            per_criterion = [
                own[c] - float(np.mean(theirs))
                for c in criteria
                if c in own and (theirs := [o[candidate][c] for o in others if c in o.get(candidate, {})])
            ]
            if per_criterion:
                differences.append(float(np.mean(per_criterion)))
        found.append(Leniency(judge, float(np.mean(differences)) if differences else None, len(differences)))
    return found


def self_consistency(ratings: Ratings) -> list[Consistency]:
    """For each judge with hidden repeats: how often, and how nearly, the second score was the first."""
    found = []
    for judge in sorted(ratings.repeats):
        first, second = ratings.scores.get(judge, {}), ratings.repeats[judge]
        if not second:
            continue
        criteria = {criterion for scores in second.values() for criterion in scores}
        pairs = np.array(_common(first, second, criteria), dtype=float).reshape(-1, 2)
        gap = np.abs(pairs[:, 0] - pairs[:, 1])
        known = gap.size > 0
        found.append(
            Consistency(
                judge, float((gap == 0).mean()) if known else None, float(gap.mean()) if known else None, gap.size
            )
        )
    return found


@dataclass(frozen=True)
class Replacement:
    """May a judge that is no person replace people, by the alternative annotator test, on one criterion?"""

    judge: str
    criterion: str
    test: AltTest


def may_replace(
    ratings: Ratings, criteria: Sequence[str], people: Sequence[str], judges: Sequence[str]
) -> list[Replacement]:
    """The alternative annotator test of each judge on each criterion, items being candidates and scenarios clusters."""
    candidates = sorted({c for name in people for c in ratings.scores.get(name, {})})
    scenarios = [ratings.scenario_of[c] for c in candidates]

    def row(name: str, criterion: str) -> list[float]:
        scores = ratings.scores.get(name, {})
        return [float(scores.get(c, {}).get(criterion, np.nan)) for c in candidates]

    return [
        Replacement(
            judge,
            criterion,
            alternative_annotator_test(
                np.array([row(name, criterion) for name in people]).reshape(len(people), len(candidates)),
                row(judge, criterion),
                scenarios,
            ),
        )
        for judge in judges
        for criterion in criteria
    ]


def _common(
    a: Mapping[str, Mapping[str, int]], b: Mapping[str, Mapping[str, int]], criteria: Iterable[str]
) -> list[tuple[int, int]]:
    """The two scores of each candidate and criterion that both have."""
    return [
        (a[candidate][c], b[candidate][c])
        for c in sorted(criteria)
        for candidate in a
        if candidate in b and c in a[candidate] and c in b[candidate]
    ]
