"""One cell: its mean over scenarios, with an interval that keeps its level with few of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit


@dataclass(frozen=True)
class Interval:
    """A mean with its standard error and confidence limits; what the data cannot tell is None."""

    mean: float | None
    se: float | None
    low: float | None
    high: float | None


def scenario_interval(
    scenario_means: npt.ArrayLike, confidence: float = 0.95, bounds: tuple[float, float] | None = None
) -> Interval:
    """The t interval of a mean over scenarios: mean ± t(G-1) · s / √G, with s the standard deviation of G scenario means.

    `scenario_means` has one mean per scenario, NaN for a scenario without scores. With fewer than two scenarios there
    is no error to estimate: `se`, `low` and `high` are None. `bounds` clips the limits to the scale.
    """
    x = np.asarray(scenario_means, dtype=float)
    x = x[~np.isnan(x)]
    if x.size == 0:
        return Interval(None, None, None, None)
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, None, None, None)
    se = float(x.std(ddof=1) / np.sqrt(x.size))
    half = float(stdtrit(x.size - 1, (1 + confidence) / 2)) * se
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(mean, se, low, high)


def clustered_se(scores: npt.ArrayLike, clusters: npt.ArrayLike, *, small_sample: bool = False) -> float:
    """Standard error of the mean of all scores, clustered: √(Σ_c (Σ_i (s_ic - s̄))²) / n.

    Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), appendix A. `small_sample` multiplies the variance by
    G/(G-1) for G clusters; then, with as many scores in each cluster, it is the standard error of `scenario_interval`.
    Both arguments have shape (n,). Raises ValueError when there is no score, or one cluster only with `small_sample`.
    """
    s = np.asarray(scores, dtype=float)
    _, label = np.unique(np.asarray(clusters), return_inverse=True)
    if s.size == 0 or s.shape != label.shape:
        raise ValueError("scores and clusters must have the same length, and at least one score")
    sums = np.bincount(label, weights=s - s.mean())
    variance = float((sums**2).sum()) / s.size**2
    if small_sample:
        if sums.size < 2:
            raise ValueError("the small-sample factor takes at least two clusters")
        variance *= sums.size / (sums.size - 1)
    return float(np.sqrt(variance))
