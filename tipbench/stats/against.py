"""Cells against their own earlier selves: one-sided limits of paired differences, corrected for how many are compared.

Each cell is compared with one fixed partner, so there is no choosing by looking; what has to be paid for is the number of cells. Bonferroni's
correction holds whatever the cells' dependence, and paired t limits over scenarios keep their level with eight scenarios and scores on a scale of
five (`bench/gate.py` measures both).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

FEWEST = 3
"""Scenarios below which a difference has no limits: two differences say nothing of their spread."""


@dataclass(frozen=True)
class Against:
    """Differences of m cells to their partners, on the scores' scale; NaN where there are too few scenarios.

    With the stated confidence all true differences lie above `low` at once, and with the same all lie under `high` at once.
    """

    diff: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    n: npt.NDArray[np.intp]
    """Scenarios in which both were judged."""


def against(differences: npt.ArrayLike, *, confidence: float = 0.95) -> Against:
    """One-sided simultaneous limits for the mean differences.

    `differences`: cells x scenarios, NaN where one of the two was not judged. A spread of zero is that of rounding, not of the truth:
    a sign test with n scenarios cannot be surer than 2^-n, so such a cell gets limits only where that is sure enough.
    """
    x = np.atleast_2d(np.asarray(differences, dtype=float))
    n = (~np.isnan(x)).sum(axis=1)
    cells = max(int((n >= FEWEST).sum()), 1)
    level = (1 - confidence) / cells
    diff, low, high = (np.full(len(x), np.nan) for _ in range(3))
    for i, row in enumerate(x):
        d = row[~np.isnan(row)]
        if len(d) == 0:
            continue
        diff[i] = d.mean()
        if len(d) < FEWEST:
            continue
        sd = d.std(ddof=1)
        if sd < 1e-12 and 0.5 ** len(d) > level:
            continue
        half = -stdtrit(len(d) - 1, level) * sd / np.sqrt(len(d))
        low[i], high[i] = diff[i] - half, diff[i] + half
    return Against(diff, low, high, n.astype(np.intp))
