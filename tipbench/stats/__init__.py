"""Statistics: how sure a ranking of cells is, when only a few scenarios carry it.

Everything here is a pure function of numpy arrays in points of the rubric's scale. Candidates of one scenario are not
independent, so the unit is always the scenario: its mean score per cell goes in, never the single candidate.
`docs/explanation/statistics.md` tells why these methods and what they were measured to do.
"""

from __future__ import annotations

from tipbench.stats.cells import Comparison, compare_cells, differences_to_leader, pareto_front
from tipbench.stats.intervals import Interval, clustered_se, scenario_interval
from tipbench.stats.planning import (
    SD_INTERACTION,
    SD_JUDGE,
    SD_TIP,
    VarianceComponents,
    minimum_detectable_difference,
    variance_components,
)

__all__ = [
    "SD_INTERACTION",
    "SD_JUDGE",
    "SD_TIP",
    "Comparison",
    "Interval",
    "VarianceComponents",
    "clustered_se",
    "compare_cells",
    "differences_to_leader",
    "minimum_detectable_difference",
    "pareto_front",
    "scenario_interval",
    "variance_components",
]
