"""The leaderboard as it crosses borders: JSON with a schema version.

A cell is a (model, prompt) pair. Quality figures are on the rubric's own scale (1-5 by default);
a figure that cannot be known is null, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tipbench.memory.meter import Source

SCHEMA: Literal["tipbench.leaderboard/1"] = "tipbench.leaderboard/1"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Difference(_Frozen):
    """A cell minus the leader, paired by scenario; the interval is simultaneous over all pairs of cells."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    p_adjusted: float | None


class Checks(_Frozen):
    """Automatic checks: how many of the cell's candidates each one flagged."""

    empty: int = 0
    refusal: int = 0
    prompt_leak: int = 0
    near_duplicate: int = 0
    too_long: int = 0
    truncated: int = 0


class RowBody(_Frozen):
    """What a row of the board is besides its names."""

    id: str = Field(description="the same for the same model digest, prompt text and options")
    current: bool = Field(description="false for an older version, which only --versions all shows")
    options: dict[str, str] = Field(description="temperature, seed, ...; empty where unknown")
    same_tips: tuple[str, ...] = Field(default=(), description="rows that wrote the same tips, letter for letter")


class Cell(_Frozen):
    """One (model, prompt), under the same options. Mean scores per criterion stand as keys of their own, named as in the rubric."""

    model: str
    prompt: str
    variant: str = Field(default="", description="what tells it from other rows of the same names")
    row: RowBody | None = None
    rank: int = Field(ge=1, description="1 is best; cells with nothing judged come last")
    rank_low: int | None = Field(description="95% interval of the rank, best end")
    rank_high: int | None
    composite: float | None = Field(description="weighted mean of the criteria, mean over scenarios")
    ci_low: float | None = Field(description="95% t interval over scenario means")
    ci_high: float | None
    se: float | None = Field(description="standard error clustered by scenario")
    p_best: float | None = Field(ge=0, le=1)
    diff_to_best: Difference
    tied_with_best: bool | None = Field(description="the difference to the leader could be chance")
    n_scenarios: int
    n_expected: int = Field(description="candidates that the design asked for")
    n_candidates: int
    n_judged: int
    n_failed: int = Field(description="scenarios whose generation failed")
    failures: dict[str, int] = Field(default_factory=dict, description="reason -> scenarios")
    coverage: float = Field(ge=0, le=1, description="judged / expected candidates")
    tokens_per_s: float | None
    ttft_s: float | None = Field(description="median time to first token, model load left out")
    seconds_per_tip: float | None
    peak_memory_bytes: int | None = Field(description="the most that was in memory while the model wrote")
    memory_source: Source | None = Field(
        default=None,
        description="where that figure comes from; `reported` is the engine's own count, and less than it takes",
    )
    mean_words: float | None
    pareto: bool | None = Field(
        description="no other cell is at least as good in quality, speed and memory, and better in one"
    )
    checks: Checks

    # The criteria's means, keyed by criterion id: relevance, actionability, tone for the shipped rubric.
    __pydantic_extra__: dict[str, float | None]
    model_config = ConfigDict(extra="allow", frozen=True)


class JudgeSummary(_Frozen):
    """One judge whose scores stand in this leaderboard."""

    name: str
    kind: Literal["human", "agent", "llm", "baseline"]
    n_judged: int
    mean: float | None
    self_consistency: float | None = Field(default=None, description="share of hidden repeats scored alike")


class AgreementSummary(_Frozen):
    """Krippendorff's ordinal alpha for one criterion, with a cluster-bootstrap interval."""

    criterion: str
    alpha: float | None
    ci_low: float | None
    ci_high: float | None


class Refusal(_Frozen):
    """A model that the RAM policy turned away, and why, in words with both numbers."""

    model: str
    reason: str


class Leaderboard(_Frozen):
    """Everything `compare` found, ordered by rank."""

    schema_: Literal["tipbench.leaderboard/1"] = Field(default=SCHEMA, alias="schema")
    experiment: str
    headline: str = Field(default="", description="the answer in a sentence, no surer than the data")
    created_at: datetime
    rubric_hash: str
    rubric_name: str
    scale_min: int
    scale_max: int
    criteria: tuple[str, ...]
    weights: dict[str, float]
    method: str = Field(description="how the intervals were made, in one sentence")
    confidence: float = 0.95
    seed: int
    judges: tuple[JudgeSummary, ...]
    agreement: tuple[AgreementSummary, ...] = ()
    warnings: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    receipt: dict[str, str] = Field(default_factory=dict, description="engine, versions, digests, catalog hashes")
    cells: tuple[Cell, ...]

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


@dataclass(frozen=True)
class ReportTip:
    """One tip in the HTML report's drill-down; `scores` are means over judges, None while unjudged."""

    model: str
    prompt: str
    scenario: str
    tip: str
    scores: dict[str, float] | None
    flags: tuple[str, ...] = ()
    variant: str = ""
    situation: str = ""
