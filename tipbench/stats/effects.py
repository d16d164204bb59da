"""Judges on one scale: a lenient judge of some cells must not make those cells look better.

Averages over unequal sets of judges are never compared. By default differences are made within (scenario, judge): in a
scenario those judges count that scored the most of its cells, all the same ones, so that a judge's leniency, and how it
changes from scenario to scenario, cancels out. Only where that would lose cells, because no judge scored them together with
the others, additive effects of the judges connect them: score = tip + judge + noise, by least squares on the tips that
judges share. The effects are estimates, and their error is in every standard error and in the null distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from tipbench.stats.arrays import BoolArray, FloatArray
from tipbench.stats.cells import Comparison, compared, probability_best
from tipbench.stats.maxt import (
    CHUNK,
    TINY,
    centred_by_scenario,
    moderated_variance,
    null_draws,
    pair_spreads,
    studentised,
)
from tipbench.stats.pairs import assess, compare_pairs

MIN_SHARED_SCENARIOS = 6
"""Scenarios in which a judge must share tips with another before an additive effect may connect it."""
UNEQUAL = 0.75
"""Two judges' spreads over the same tips further apart than this ratio are unequal scales, however few the tips."""
_SURELY_UNEQUAL = 0.9
"""Nearer to 1 than this, a difference of spreads is no matter, even when it is not chance."""
_LOST = 0.5
"""A cell that would lose more than this share of its scenarios calls for connecting judges."""


@dataclass(frozen=True)
class LeftOut:
    """A judge whose scores cannot be put on the others' scale."""

    judge: int
    """Index of the judge."""
    reason: Literal["shares too little", "another scale"]
    scenarios: int
    """Scenarios in which it shares tips with the others."""
    ratio: float | None = None
    """How spread its scores are on the shared tips, as a multiple of another judge's."""


@dataclass(frozen=True)
class Judged:
    """Cells compared on one scale of all judges that can be put on it."""

    comparison: Comparison
    """Cells without a score that counts have no mean."""
    means: FloatArray
    """Scenario means on one scale, (C, S); where judges were connected, with the error of the connection in their spread."""
    scale: Scale
    left_out: tuple[LeftOut, ...]


class Scale:
    """Which scores count, and how scores of these judges (any criterion) become scenario means on one scale."""

    def __init__(self, used: BoolArray, connected: bool) -> None:
        """`used` (J, C, S, T): the scores that count."""
        self.used = used
        self.connected = connected

    @property
    def cells(self) -> BoolArray:
        """Cells with a score that counts, (C,)."""
        return np.asarray(self.used.any(axis=(0, 2, 3)))

    def means(self, scores: npt.ArrayLike) -> FloatArray:
        """Scenario means (C, S), NaN for what is missing, of scores (J, C, S, T) of one criterion or of the composite."""
        x = np.where(self.used, np.asarray(scores, dtype=float), 0.0)
        if self.connected:
            return self._linear.pseudo_values(x)
        count = self.used.sum(axis=3)
        own = x.sum(axis=3) / np.maximum(count, 1)
        judges = (count > 0).sum(axis=0)
        return np.where(judges > 0, own.sum(axis=0) / np.maximum(judges, 1), np.nan)

    def leniency(self, scores: npt.ArrayLike) -> FloatArray:
        """Each judge's additive effect, (J,), summing to 0; NaN where judges were not connected by effects."""
        if not self.connected:
            return np.full(len(self.used), np.nan)
        x = np.where(self.used, np.asarray(scores, dtype=float), 0.0)
        effects, _ = self._linear.effects(x)
        return np.where(self.used.any(axis=(1, 2, 3)), effects, np.nan)

    @cached_property
    def _linear(self) -> _Linear:
        return _Linear(self.used)


def compare_judged(scores: npt.ArrayLike, *, seed: int, draws: int = 10_000, confidence: float = 0.95) -> Judged:
    """Compare cells by the scores of several judges, each of whom may have scored another part.

    `scores` has shape (J judges, C cells, S scenarios, T tips), NaN for what was not scored; the composite of a tip, or one
    criterion. A judge that cannot be put on the others' scale is left out, and with it the cells that nobody else scored.
    """
    x = np.asarray(scores, dtype=float)
    scale, left_out = one_scale(x)
    means = scale.means(x)
    scored = scale.cells
    mean = np.full(len(means), np.nan)
    mean[scored] = np.nanmean(means[scored], axis=1)
    if scale.connected:
        mask = ~np.isnan(means[scored])
        diff, se, n = studentised(centred_by_scenario(means[scored], mask), mask)
        pairs = assess(
            diff,
            se,
            n,
            lambda: scale._linear.null(x, scored, null_draws(draws, mask), seed),
            scale=float(np.nanmax(np.abs(means))),
            confidence=confidence,
        )
    else:
        pairs = compare_pairs(means[scored], seed=seed, draws=draws, confidence=confidence)
    p_best = probability_best([means[scored]], seed=seed, draws=draws)
    return Judged(compared(mean, pairs, p_best), means, scale, left_out)


def one_scale(scores: npt.ArrayLike) -> tuple[Scale, tuple[LeftOut, ...]]:
    """Which of the scores (J, C, S, T) can be compared, and the judges that cannot be put on the others' scale."""
    x = np.asarray(scores, dtype=float)
    has = ~np.isnan(x)
    left_out: list[LeftOut] = []
    while True:
        used = within_scenario(has)
        before, after = has.any(axis=(0, 3)).sum(axis=1), used.any(axis=(0, 3)).sum(axis=1)
        if not (after < (1 - _LOST) * before).any():
            return Scale(used, connected=False), tuple(left_out)
        apart = _cannot_connect(np.where(has, x, np.nan), has)
        if not apart:
            return Scale(has, connected=True), tuple(left_out)
        # One at a time: without it, the others may need no connecting.
        left_out.append(apart[0])
        has = has.copy()
        has[apart[0].judge] = False


def within_scenario(has: BoolArray) -> BoolArray:
    """The scores whose differences are free of leniency: of `has` (J, C, S, T), those to use.

    In each scenario the judges count that scored the most of its cells, all the same ones; a tie between sets of cells goes
    to the one with more judges, then to the one with more scores in the whole table.
    """
    scored: BoolArray = np.asarray(has.any(axis=3))
    total = has.sum(axis=(1, 2, 3))
    used = np.zeros_like(has)
    for s in range(has.shape[2]):
        groups: dict[bytes, list[int]] = {}
        for judge in np.flatnonzero(scored[:, :, s].any(axis=1)):
            groups.setdefault(scored[judge, :, s].tobytes(), []).append(int(judge))
        if groups:
            _, judges = max(groups.items(), key=lambda g: (sum(g[0]), len(g[1]), int(total[g[1]].sum()), -g[1][0]))
            used[judges, :, s] = has[judges, :, s]
    return used


def _cannot_connect(x: FloatArray, has: BoolArray) -> list[LeftOut]:
    """The judges that additive effects cannot connect to the one with the most scores, the first to leave out first."""
    judges = [int(j) for j in np.argsort(-has.sum(axis=(1, 2, 3)), kind="stable") if has[j].any()]
    together, waiting = judges[:1], judges[1:]
    apart: list[LeftOut] = []
    while waiting:
        shared = {j: _shared_scenarios(has, j, together) for j in waiting}
        nearest = max(waiting, key=lambda j: shared[j])
        waiting.remove(nearest)
        if shared[nearest] < MIN_SHARED_SCENARIOS:
            apart.append(LeftOut(nearest, "shares too little", shared[nearest]))
            continue
        partner = max(together, key=lambda j: int((has[j] & has[nearest]).sum()))
        ratio, surely = _spread_ratio(x[nearest], x[partner])
        if min(ratio, 1 / ratio) < (_SURELY_UNEQUAL if surely else UNEQUAL):
            apart.append(LeftOut(nearest, "another scale", shared[nearest], ratio))
        else:
            together.append(nearest)
    return apart


def _shared_scenarios(has: BoolArray, judge: int, others: Sequence[int]) -> int:
    shared = has[judge] & has[list(others)].any(axis=0)
    return int(shared.any(axis=(0, 2)).sum())


def _spread_ratio(a: FloatArray, b: FloatArray) -> tuple[float, bool]:
    """How spread `a` is on the tips that `b` scored too, as a multiple, and whether that is surely not 1; (C, S, T) each.

    Two judges with one scale and as much noise have the same variance on the same things, which is when the sum and the
    difference of their scores are uncorrelated (Pitman 1939, Morgan 1939); tested with scenarios as clusters, at 5 %.
    """
    both = ~np.isnan(a) & ~np.isnan(b)
    u, v = a[both] - a[both].mean(), b[both] - b[both].mean()
    if not (u**2).sum() or not (v**2).sum():
        # A judge that gives one and the same score tells nothing of its scale.
        return (1.0 if (u**2).sum() == (v**2).sum() else 1e-9), False
    label = np.broadcast_to(np.arange(a.shape[1])[None, :, None], a.shape)[both]
    parts = np.bincount(label, weights=u**2 - v**2)
    parts = parts[np.unique(label)]
    error = float(np.sqrt((parts**2).sum()))
    surely = error > 0 and abs(parts.sum()) / error > stdtrit(parts.size - 1, 0.975)
    return float(np.sqrt((u**2).sum() / (v**2).sum())), bool(surely)


class _Linear:
    """Additive judge effects by least squares, and what they do to the cells' means; all linear in the scores."""

    def __init__(self, used: BoolArray) -> None:
        self.used = used
        self.judges = np.maximum(used.sum(axis=0), 1)
        self.tips: BoolArray = np.asarray(used.any(axis=0))
        shared = used.sum(axis=0) > 1
        h = (used & shared).astype(float)
        # Normal equations of tip + judge with the tips swept out, scenario by scenario: (S, J, J).
        cross = np.einsum("jcst,kcst,cst->sjk", h, h, 1 / self.judges, optimize=True)
        self.equations = -cross + np.einsum("jcst,jk->sjk", h, np.eye(len(used)), optimize=True)
        self.inverse = np.linalg.pinv(self.equations.sum(axis=0), hermitian=True)
        self.shared = h
        self.scenarios: BoolArray = np.asarray(self.tips.any(axis=2))
        n_tips = np.maximum(self.tips.sum(axis=2), 1)
        self.n_tips = n_tips
        # How much of each judge is in a cell's mean on a scenario, and in its mean: (J, C, S) and (C, J).
        part = (used / self.judges).sum(axis=3) / n_tips
        self.n_scenarios = np.maximum(self.scenarios.sum(axis=1), 1)
        self.share = (part.sum(axis=2) / self.n_scenarios).T
        self.part = part

    def effects(self, x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Effects of the judges (..., J), and each scenario's influence on them (..., S, J); x is 0 where not used."""
        mean = x.sum(axis=-4) / self.judges
        gap = np.einsum("...jcst,jcst->...sj", x - mean[..., None, :, :, :], self.shared, optimize=True)
        effects = gap.sum(axis=-2) @ self.inverse
        influence = (gap - np.einsum("sjk,...k->...sj", self.equations, effects)) @ self.inverse
        return effects, influence

    def pseudo_values(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Scenario values (..., C, S) with the cells' means for mean, and a spread that has the effects' error in it.

        A cell's mean is linear in the effects, with the cell's `share` of each judge as coefficient, and the effects are
        a sum over scenarios of influences; so a scenario's value is what its tips say plus what it did to the effects.
        """
        effects, influence = self.effects(x)
        tips = x.sum(axis=-4) / self.judges * self.tips
        plain = tips.sum(axis=-1) / self.n_tips - np.einsum("...j,jcs->...cs", effects, self.part, optimize=True)
        through = np.einsum("...sj,cj->...cs", influence, self.share, optimize=True) * self.n_scenarios[:, None]
        through = np.where(self.scenarios, through, 0.0)
        through = through - through.sum(axis=-1, keepdims=True) / self.n_scenarios[:, None]
        return np.where(self.scenarios, plain - through, np.nan)

    def null(self, scores: FloatArray, cells: BoolArray, draws: int, seed: int) -> FloatArray:
        """Sorted draws of the largest |t| over all pairs of `cells` when all are equal, effects estimated in each draw."""
        sd_interaction, sd_tip, sd_noise = self.spreads(scores)
        shape = self.used.shape
        mask = self.scenarios[cells]
        rng = np.random.default_rng([seed, 5])
        chunk = max(1, 20 * CHUNK // self.used.size)
        maxima = []
        for start in range(0, draws, chunk):
            size = min(chunk, draws - start)
            there = sd_interaction * rng.standard_normal((size, *shape[1:3], 1))
            there = there + sd_tip * rng.standard_normal((size, *shape[1:]))
            x = (there[:, None] + sd_noise * rng.standard_normal((size, *shape))) * self.used
            z = np.where(mask, self.pseudo_values(x)[:, cells], 0.0)
            diff, se, _ = studentised(z, mask)
            maxima.append((diff / np.maximum(se, TINY)).max(axis=(-1, -2)))
        result: FloatArray = np.sort(np.concatenate(maxima))
        return result

    def spreads(self, scores: FloatArray) -> tuple[float, float, float]:
        """Spreads of cell x scenario, of tips and of judges' noise, by moments; only their ratios matter to the null."""
        x = np.where(self.used, scores, 0.0)
        effects, _ = self.effects(x)
        adjusted = np.where(self.used, x - effects[:, None, None, None], 0.0)
        tip = adjusted.sum(axis=0) / self.judges
        shared = self.shared.astype(bool)
        residual = np.where(shared, adjusted - tip, 0.0)
        n_judges = int(shared.any(axis=(1, 2, 3)).sum())
        free = int(shared.sum()) - int(shared.any(axis=0).sum()) - (n_judges - 1)
        noise = float((residual**2).sum()) / max(free, 1)
        cell = (tip * self.tips).sum(axis=2) / self.n_tips
        within = np.where(self.tips, tip - cell[..., None], 0.0)
        within_free = int(np.maximum(self.tips.sum(axis=2) - 1, 0).sum())
        of_tips = float((within**2).sum()) / within_free if within_free else 0.0
        sampling = noise * float((1 / self.judges)[self.tips].mean())
        tips = max(of_tips - sampling, 0.0)
        _, spread, n = pair_spreads(centred_by_scenario(cell, self.scenarios), self.scenarios)
        off = (n > 1) & ~np.eye(len(n), dtype=bool)
        between = float(moderated_variance(spread, n)[off].mean()) / 2 if off.any() else 0.0
        interaction = max(between - (tips + sampling) * float((1 / self.n_tips)[self.scenarios].mean()), 0.0)
        if interaction + tips + noise == 0:
            return 1.0, 0.0, 0.0
        return float(np.sqrt(interaction)), float(np.sqrt(tips)), float(np.sqrt(noise))
