"""Before anything is spent: how small a difference would a design find, and what spreads does real data have?"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from tipbench.stats.maxt import (
    MIN_NULL_DRAWS,
    NULL_WORK,
    critical_value,
    mask_key,
    normal_scores,
    null_draws,
    null_maxima,
    studentised,
)

SD_INTERACTION = 0.35
"""Assumed spread of how well a cell does on one scenario beyond its own and the scenario's mean, in points."""
SD_TIP = 0.7
"""Assumed spread of the candidates of one cell and scenario, in points."""
SD_JUDGE = 0.5
"""Assumed noise of one judge's score of one candidate, in points."""

LIKENESS_OF_JUDGES = 0.4
"""Assumed correlation of another judge's paired differences with the references', between a weak judge's and a good one's."""


@dataclass(frozen=True)
class VarianceComponents:
    """Spreads in points of the scale, as `minimum_detectable_difference` takes them."""

    sd_interaction: float
    sd_tip: float


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
    critical = critical_value(null_maxima(mask_key(mask), mask.shape, null_draws(10_000, mask), seed), confidence)
    needed = []
    for z in normal_scores(
        mask, max(MIN_NULL_DRAWS, min(10_000, NULL_WORK // n_cells**2)), np.random.default_rng([seed, 3])
    ):
        diff, se, _ = studentised(z, mask)
        needed.append(critical * se[:, 0, 1] - diff[:, 0, 1])
    return sd * float(np.quantile(np.concatenate(needed), power))


def with_another_judge(
    difference: float, n_reference: int, n_scenarios: int, likeness: float = LIKENESS_OF_JUDGES
) -> float:
    """The detectable difference when another judge scores all of `n_scenarios`, from that of the references' scores alone.

    With the best λ of PPI++ the variance of a paired difference is 1 - ρ² M/N of the references' own, for M = N - n scenarios with
    the other judge alone and a correlation of ρ (`likeness`) between the two judges' differences.
    """
    return difference * float(np.sqrt(1 - likeness**2 * (1 - n_reference / n_scenarios)))


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
