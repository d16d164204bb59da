"""Statistics: how sure a ranking of cells is, when only a few scenarios carry it.

Everything here is a pure function of numpy arrays in points of the rubric's scale. Candidates of one scenario are not
independent, so the unit is always the scenario: its mean score per cell goes in, never the single candidate.
`docs/explanation/statistics.md` tells why these methods and what they were measured to do.
"""

from __future__ import annotations

from tipbench.stats.alt_test import AltTest, alternative_annotator_test
from tipbench.stats.cells import Comparison, compare_cells, differences_to_leader, pareto_front
from tipbench.stats.effects import (
    MIN_SHARED_SCENARIOS,
    Judged,
    LeftOut,
    Scale,
    compare_judged,
    one_scale,
    within_scenario,
)
from tipbench.stats.intervals import Interval, clustered_se, scenario_interval
from tipbench.stats.pairs import AllPairs, Choice, choose, compare_pairs, rank_limits
from tipbench.stats.planning import (
    LIKENESS_OF_JUDGES,
    SD_INTERACTION,
    SD_JUDGE,
    SD_TIP,
    VarianceComponents,
    minimum_detectable_difference,
    variance_components,
    with_another_judge,
)
from tipbench.stats.ppi import (
    MIN_REFERENCE_SCENARIOS,
    Bias,
    Estimate,
    TooFewReferences,
    bias,
    difference_tests,
    estimate,
)

__all__ = [
    "LIKENESS_OF_JUDGES",
    "MIN_REFERENCE_SCENARIOS",
    "MIN_SHARED_SCENARIOS",
    "SD_INTERACTION",
    "SD_JUDGE",
    "SD_TIP",
    "AllPairs",
    "AltTest",
    "Bias",
    "Choice",
    "Comparison",
    "Estimate",
    "Interval",
    "Judged",
    "LeftOut",
    "Scale",
    "TooFewReferences",
    "VarianceComponents",
    "alternative_annotator_test",
    "bias",
    "choose",
    "clustered_se",
    "compare_cells",
    "compare_judged",
    "compare_pairs",
    "difference_tests",
    "differences_to_leader",
    "estimate",
    "minimum_detectable_difference",
    "one_scale",
    "pareto_front",
    "rank_limits",
    "scenario_interval",
    "variance_components",
    "with_another_judge",
    "within_scenario",
]
