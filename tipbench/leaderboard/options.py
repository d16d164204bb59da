"""What a reader asks of a board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tipbench.counting.census import Versions

Scores = Literal["whole", "expected"]
"""What a judge is taken at: its whole scores, or the means of its own score distribution where it gave them."""
Prefer = Literal["memory", "speed"]


@dataclass(frozen=True)
class BoardOptions:
    """What of an experiment a board shows, and how it is reckoned; hashable, so that a cache can be keyed by it."""

    weights: Mapping[str, float] | None = field(default=None, hash=False)
    """Criterion -> weight instead of the rubric's, normalised later."""
    judges: tuple[str, ...] = ()
    """Whose scores count; nobody named: all judges, except that the baseline judge gives way to any other."""
    references: tuple[str, ...] = ()
    """The judges who are believed; the board is what they would have said of everything."""
    margin: float = 0.0
    """In points, 0 for the rubric's own."""
    prefer: Prefer = "memory"
    seed: int = 0
    versions: Versions = "current"
    """`all` adds superseded versions as rows of their own."""
    scores: Scores = "whole"
    """`expected`: a judge's expected scores stand for its whole ones where it gave them."""


AS_IT_STANDS = BoardOptions()
"""Everybody's scores under the rubric's own weights."""
