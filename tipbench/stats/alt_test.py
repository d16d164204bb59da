"""May a judge replace people? The alternative annotator test (Calderon, Reichart & Dror 2025, arXiv 2501.10970).

Each person is left out in turn: is the judge as near to the remaining people as the one left out is? For every item, the judge
wins when its distance to the others' scores (root of the mean square) is not larger than that person's, and the person wins
when his is not larger than the judge's. With d = 1 if only the person wins, -1 if only the judge does, else 0, the judge is
preferred to that person when the mean of d is shown to be below ε, the price of a person's time. The paper's t test takes
items for independent; here scenarios are the clusters, with one degree of freedom less than there are scenarios. Over people,
Benjamini & Yekutieli 2001 at 5 %. A judge that is preferred to at least half of the people may replace them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from tipbench.stats.arrays import FloatArray

EPSILON = 0.2
"""What a person's time is worth, as a difference of winning shares; the paper's for experts (skilled 0.15, crowd 0.1)."""
MIN_PEOPLE, MIN_ITEMS = 3, 30
WINS = 0.5


@dataclass(frozen=True)
class AltTest:
    """The outcome, or why there is none."""

    refused: str
    """Why it cannot be told; empty where it can."""
    people: int
    """People with enough items."""
    items: int
    """Most items that one of them shares with the judge and another person."""
    winning_rate: float | None = None
    """Share of the people that the judge is preferred to."""
    advantage: float | None = None
    """Mean chance that the judge is at least as near to the others as a person."""
    passes: bool | None = None


def alternative_annotator_test(
    people: npt.ArrayLike, judge: npt.ArrayLike, scenarios: npt.ArrayLike, *, epsilon: float = EPSILON, q: float = 0.05
) -> AltTest:
    """The test for `judge` (I items,) against `people` (H, I), NaN for what was not scored; `scenarios` (I,) are clusters."""
    h, f = np.asarray(people, dtype=float), np.asarray(judge, dtype=float)
    _, label = np.unique(np.asarray(scenarios), return_inverse=True)
    usable = ~np.isnan(f) & ((~np.isnan(h)).sum(axis=0) >= 2)
    p_values, advantages, most = [], [], 0
    for one in range(len(h)):
        items = usable & ~np.isnan(h[one])
        most = max(most, int(items.sum()))
        if items.sum() < MIN_ITEMS or len(np.unique(label[items])) < 2:
            continue
        rest = np.delete(h, one, axis=0)[:, items]
        judges, own = _distance(f[items], rest), _distance(h[one, items], rest)
        judge_wins, person_wins = judges <= own + 1e-9, own <= judges + 1e-9
        advantages.append(float(judge_wins.mean()))
        p_values.append(_p_below(person_wins.astype(float) - judge_wins, label[items], epsilon))
    n = len(p_values)
    if len(h) < MIN_PEOPLE:
        return AltTest(f"{len(h)} people scored, and it takes {MIN_PEOPLE}", n, most)
    if n < MIN_PEOPLE:
        words = f"{n} people share {MIN_ITEMS} items in two scenarios with the judge and another person, and it takes {MIN_PEOPLE}"
        return AltTest(words, n, most)
    order = np.sort(p_values)
    limits = np.arange(1, n + 1) / n * q / (1 / np.arange(1, n + 1)).sum()
    passed = np.flatnonzero(order <= limits)
    rate = (int(passed.max()) + 1) / n if passed.size else 0.0
    return AltTest("", n, most, rate, float(np.mean(advantages)), rate >= WINS)


def _distance(score: FloatArray, others: FloatArray) -> FloatArray:
    """Root mean square distance (I,) of scores (I,) to those of others (H, I), where they are."""
    return np.asarray(np.sqrt(np.nanmean((others - score) ** 2, axis=0)))


def _p_below(d: FloatArray, label: npt.NDArray[np.intp], epsilon: float) -> float:
    """One-sided p of mean(d) < epsilon, clustered by label."""
    mean = float(d.mean())
    _, group = np.unique(label, return_inverse=True)
    sums = np.bincount(group, weights=d - mean)
    se = float(np.sqrt(sums.size / (sums.size - 1) * (sums**2).sum())) / d.size
    if se == 0:
        return 0.0 if mean < epsilon else 1.0
    return float(stdtr(sums.size - 1, (mean - epsilon) / se))
