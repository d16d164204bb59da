"""How much each criterion counts in the composite."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tipbench.catalog import Rubric
from tipbench.errors import InputError


def weights_of(rubric: Rubric, weights: Mapping[str, float] | None) -> dict[str, float]:
    """criterion -> weight, summing to 1. Raises InputError for an unknown criterion, and for weights that are none."""
    chosen = dict(rubric.weights if weights is None else weights)
    known = [c.id for c in rubric.criteria]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise InputError(f"--weights: no criterion {', '.join(unknown)}; the rubric has {', '.join(known)}")
    total = sum(chosen.get(c, 0.0) for c in known)
    if not math.isfinite(total) or total <= 0 or min(chosen.values()) < 0:
        raise InputError("--weights: weights must be numbers, none below 0, and one above it")
    return {c: chosen.get(c, 0.0) / total for c in known}
