"""Simulated benchmarks of the statistics: do the intervals cover, and are equal cells called equal?

    python bench/simulate_intervals.py --runs 1000

Scores come from made-up cells whose truth is known: a scenario effect, a cell x scenario effect (0.35 points) and tips
around that (0.7 points), rounded to whole scores from 1 to 5. Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy import stats
from scipy.special import polygamma

from tipbench.stats import differences_to_leader, scenario_interval

Array = npt.NDArray[np.float64]
Rng = np.random.Generator

SD_SCENARIO, SD_INTERACTION, SD_FAMILY, SD_TIP = 0.4, 0.35, 0.6, 0.7
ALPHA = 0.05
CHUNK = 1000
NULL_DRAWS = 20_000


@dataclass(frozen=True)
class Design:
    """How many of each."""

    cells: int
    scenarios: int
    tips: int


@dataclass(frozen=True)
class Process:
    """One way in which scores may come about."""

    name: str
    base: float = 3.0
    """Mean before rounding; near 5 the scale cuts off what is above it."""
    skewed: bool = False
    erratic: float = 1.0
    """Spread of the last cell's interaction, as a multiple of the others'."""
    families: int = 0
    """Groups of neighbouring cells (prompts of one model) that share an interaction of 0.6 points; 0 for none."""
    own: float = 1.0
    """Factor on the interaction that each cell has for itself."""


PROCESSES = (
    Process("normal"),
    Process("skewed", base=2.5, skewed=True),
    Process("one cell 3x", erratic=3),
    Process("skewed, one cell 3x", base=2.5, skewed=True, erratic=3),
    Process("ceiling", base=4.6),
    Process("4 families", families=4, own=0.4),
    Process("2 families", families=2, own=0.4),
)


def simulate(process: Process, design: Design, runs: int, rng: Rng, ahead: float = 0.0) -> Array:
    """Scenario means (runs, cells, scenarios); the first cell is truly `ahead` points better, before rounding."""

    def noise(*shape: int) -> Array:
        return rng.exponential(size=shape) - 1 if process.skewed else rng.standard_normal(shape)

    c, s = design.cells, design.scenarios
    sd = np.full((c, 1), SD_INTERACTION * process.own)
    sd[-1] *= process.erratic
    mean = process.base + SD_SCENARIO * noise(runs, 1, s) + sd * noise(runs, c, s)
    if process.families:
        family = np.arange(c) * process.families // c
        mean += SD_FAMILY * noise(runs, process.families, s)[:, family]
    mean[:, 0] += ahead
    tips = np.clip(np.rint(mean[..., None] + SD_TIP * noise(runs, c, s, design.tips)), 1, 5)
    return np.asarray(tips.mean(axis=-1))


def pair_variances(x: Array) -> tuple[Array, Array]:
    """Differences of mean and variances of paired differences, (runs, C, C)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    covariance = centred @ np.swapaxes(centred, -1, -2) / (x.shape[-1] - 1)
    own = np.diagonal(covariance, axis1=-2, axis2=-1)
    variance = np.maximum(own[..., :, None] + own[..., None, :] - 2 * covariance, 1e-12)
    mean = x.mean(axis=-1)
    return mean[..., :, None] - mean[..., None, :], variance


def pooled(v: Array, d: int) -> Array:
    """The mean variance over pairs, which is twice the residual mean square of the two-way layout."""
    c = v.shape[-1]
    return np.broadcast_to(v.sum(axis=(-1, -2), keepdims=True) / (c * (c - 1)), v.shape)


def limma(v: Array, d: int) -> Array:
    """Shrunk towards the pooled variance, prior degrees of freedom from the moments of log v (Smyth 2004)."""
    logs = np.log(v[..., *np.triu_indices(v.shape[-1], 1)])
    excess = np.maximum(logs.var(axis=-1, ddof=1) - polygamma(1, d / 2), 1e-3)
    y = 0.5 + 1 / excess
    for _ in range(10):
        trigamma = polygamma(1, y)
        y += trigamma * (1 - trigamma / excess) / polygamma(2, y)
    prior = 2 * y[..., None, None]
    return np.asarray((prior * pooled(v, d) + d * v) / (prior + d))


VARIANCES: dict[str, Callable[[Array, int], Array]] = {
    "max-T, each pair's own variance": lambda v, d: v,
    "max-T, pooled variance (Tukey)": pooled,
    "max-T, limma's moderation": limma,
    "max-T, larger of own and pooled": lambda v, d: np.maximum(v, pooled(v, d)),
}
HOLM = "Holm against the leader"
OURS = "tipbench: max-T, half own, half pooled"


def largest_t(x: Array, variance: Callable[[Array, int], Array]) -> Array:
    """max |t| over all pairs, (runs,)."""
    diff, v = pair_variances(x)
    t = np.abs(diff) / np.sqrt(variance(v, x.shape[-1] - 1) / x.shape[-1])
    return np.asarray(t.max(axis=(-1, -2)))


def critical_values(design: Design, rng: Rng) -> dict[str, float]:
    """The 95% point of max |t| for equal cells with normal residuals, per way of taking the variance."""
    draws = [rng.standard_normal((CHUNK, design.cells, design.scenarios)) for _ in range(NULL_DRAWS // CHUNK)]
    return {
        name: float(np.quantile(np.concatenate([largest_t(x, f) for x in draws]), 1 - ALPHA))
        for name, f in VARIANCES.items()
    }


def called(x: Array, critical: dict[str, float]) -> dict[str, npt.NDArray[np.bool_]]:
    """Per method, which cells are called worse than the leader, (runs, C)."""
    runs, cells, scenarios = x.shape
    leader = x.mean(axis=-1).argmax(axis=-1)
    diff, v = pair_variances(x)
    row = np.arange(runs)
    gap = diff[row, leader]
    found = {
        name: gap / np.sqrt(f(v, scenarios - 1)[row, leader] / scenarios) > critical[name]
        for name, f in VARIANCES.items()
    }
    p = 2 * stats.t.sf(gap / np.sqrt(v[row, leader] / scenarios), scenarios - 1)
    p[row, leader] = 2.0  # the leader itself stays out
    ordered = np.sort(p, axis=1)[:, :-1]
    passed = np.logical_and.accumulate(ordered * np.arange(cells - 1, 0, -1) < ALPHA, axis=1).sum(axis=1)
    found[HOLM] = p.argsort(axis=1).argsort(axis=1) < passed[:, None]
    found[OURS] = np.stack(
        [differences_to_leader(one, int(best), seed=0)[3] < ALPHA for one, best in zip(x, leader, strict=True)]
    )
    return found


def coverage(x: Array, truth: Array, rng: Rng) -> tuple[float, float]:
    """Share of cells whose true mean lies in the t interval, and in the percentile bootstrap's."""
    scenarios = x.shape[-1]
    weights = rng.multinomial(scenarios, np.full(scenarios, 1 / scenarios), size=2000) / scenarios
    by_t, by_bootstrap = [], []
    for run in x:
        intervals = [scenario_interval(cell, bounds=(1, 5)) for cell in run]
        by_t += [i.low <= m <= i.high for i, m in zip(intervals, truth, strict=True)]
        low, high = np.quantile(run @ weights.T, [ALPHA / 2, 1 - ALPHA / 2], axis=1)
        by_bootstrap += list((low <= truth) & (truth <= high))
    return float(np.mean(by_t)), float(np.mean(by_bootstrap))


def true_means(process: Process, design: Design, rng: Rng) -> Array:
    """What each cell scores in the long run; rounding and clipping move it, more so for the erratic cell."""
    mean = np.asarray(np.mean([simulate(process, design, CHUNK, rng).mean(axis=(0, 2)) for _ in range(20)], axis=0))
    if process.erratic == 1:
        return np.full(design.cells, mean.mean())
    mean[:-1] = mean[:-1].mean()
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--scenarios", type=int, default=8)
    parser.add_argument("--tips", type=int, default=5)
    parser.add_argument("--ahead", type=float, default=1.0, help="points that the best cell is ahead, for power")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    design = Design(args.cells, args.scenarios, args.tips)
    rng = np.random.default_rng(args.seed)
    console = Console(width=160)
    start = time.perf_counter()
    critical = critical_values(design, rng)
    cover = Table("scores", "t interval", "percentile bootstrap", title="95% interval of a cell: share that covers")
    false = Table("equal cells: runs with a false difference", *(p.name for p in PROCESSES))
    power = Table(f"one cell {args.ahead:g} ahead: share of cells told apart", *(p.name for p in PROCESSES))
    methods = [HOLM, *VARIANCES, OURS]
    false_rate: dict[str, list[str]] = {m: [] for m in methods}
    power_rate: dict[str, list[str]] = {m: [] for m in methods}
    for process in PROCESSES:
        truth = true_means(process, design, rng)
        x = simulate(process, design, args.runs, rng)
        cover.add_row(process.name, *(f"{share:.1%}" for share in coverage(x[:1000], truth, rng)))
        # Clipping costs the erratic cell a little: made equal again, so that every call is a false one.
        for name, calls in called(x - truth[:, None], critical).items():
            false_rate[name].append(f"{calls.any(axis=1).mean():.1%}")
        ahead = simulate(process, design, args.runs, rng, ahead=args.ahead)
        leads = (ahead.mean(axis=-1).argmax(axis=-1) == 0)[:, None]
        for name, calls in called(ahead, critical).items():
            power_rate[name].append(f"{(calls & leads)[:, 1:].mean():.0%}")
    for method in methods:
        false.add_row(method, *false_rate[method])
        power.add_row(method, *power_rate[method])
    console.print(f"{design}, {args.runs} runs, seed {args.seed}")
    console.print(cover, false, power)
    console.print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
