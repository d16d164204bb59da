"""The leaderboard as it crosses borders: JSON with a schema version.

A cell is a (model, prompt) pair. Quality figures are on the rubric's own scale (1-5 by default);
a figure that cannot be known is null, never zero.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tipbench.memory.meter import Source

SCHEMA: Literal["tipbench.leaderboard/2"] = "tipbench.leaderboard/2"


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
    rank: int | None = Field(
        ge=1, description="1 is best; cells with nothing judged come last; null where `unranked` says why"
    )
    unranked: str = Field(default="", description="why a judged cell has no rank")
    rank_low: int | None = Field(description="simultaneous 95% limits of the rank: 1 + the cells shown to be better")
    rank_high: int | None
    composite: float | None = Field(description="weighted mean of the criteria, mean over scenarios")
    ci_low: float | None = Field(description="95% t interval over scenario means")
    ci_high: float | None
    se: float | None = Field(description="standard error clustered by scenario")
    p_best: float | None = Field(ge=0, le=1)
    diff_to_best: Difference
    tied_with_best: bool | None = Field(description="the difference to the leader could be chance")
    dropped_at: int | None = Field(
        default=None, description="in rounds: the look at which it left; null while it is in"
    )
    dropped_why: str = Field(default="", description="in rounds: why it left, in words")
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


class CellBias(_Frozen):
    """How much higher than the references a judge scores one cell, beyond its level, in points."""

    model: str
    prompt: str
    variant: str = ""
    value: float | None
    ci_low: float | None = Field(description="simultaneous over cells")
    ci_high: float | None


class JudgeBias(_Frozen):
    """How a judge differs from the reference judges on the same tips, in points: the judge minus the references."""

    level: float | None
    ci_low: float | None
    ci_high: float | None
    cells: tuple[CellBias, ...]


class JudgeSummary(_Frozen):
    """One judge whose scores stand in this leaderboard."""

    name: str
    kind: Literal["human", "agent", "llm", "baseline"]
    n_judged: int
    mean: float | None
    self_consistency: float | None = Field(default=None, description="share of hidden repeats scored alike")
    bias: JudgeBias | None = Field(default=None, description="against the reference judges, where there are any")


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


class RaceStepCell(_Frozen):
    """A cell that was in at a look, over the scenarios seen until then; the interval is the cell's own, of that moment."""

    model: str
    prompt: str
    composite: float
    ci_low: float | None
    ci_high: float | None


class RaceStep(_Frozen):
    """One look of a race."""

    look: int
    n_scenarios: int
    cells: tuple[RaceStepCell, ...]


class Race(_Frozen):
    """An experiment in rounds: how far it is, and how it ended."""

    looks_taken: int
    looks_planned: int
    stop: Literal["one left", "within margin", "used up", "nothing scored"] | None
    reason: str = Field(description="the end in a sentence")
    work: float = Field(description="cells collected, as a share of all cells on all scenarios")
    margin: float = Field(description="differences below this are as good as none; 0 for never")
    steps: tuple[RaceStep, ...]


class Reference(_Frozen):
    """The judges whose opinion the board estimates, and from how much of it."""

    judges: tuple[str, ...]
    others: tuple[str, ...] = Field(description="whose scores stand in where the references have not scored")
    n_scenarios: int = Field(description="scenarios with scores of the references")
    n_alone: int = Field(description="scenarios that only the others scored")
    share: float = Field(ge=0, le=1, description="of the compared cells' tips, those with a score of a reference")
    weight: float = Field(alias="lambda", ge=0, le=1, description="how far the others' scores are used")
    worth: float | None = Field(description="as many scenarios scored by the references alone would tell as much")
    drawn: bool = Field(description="the references were asked for a sample drawn at random, and it is complete")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Recommended(_Frozen):
    """The cell to take: the cheapest that is surely within the margin of every other."""

    model: str
    prompt: str
    variant: str = ""
    why: str


class Nearest(_Frozen):
    """While there is none to take: the cheapest cell that may still be good enough."""

    model: str
    prompt: str
    variant: str = ""
    scenarios: int | None = Field(description="about how many scenarios it would take to tell; null beyond 10,000")
    why: str


class Leaderboard(_Frozen):
    """Everything `compare` found, ordered by rank."""

    schema_: Literal["tipbench.leaderboard/2"] = Field(default=SCHEMA, alias="schema")
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
    reference: Reference | None = None
    margin: float = Field(default=0.0, ge=0, description="points behind the best that are still good enough")
    prefer: Literal["memory", "speed"] = Field(default="memory", description="what cheap means in `recommended`")
    recommended: Recommended | None = None
    nearest: Nearest | None = None
    warnings: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    receipt: dict[str, str] = Field(default_factory=dict, description="engine, versions, digests, catalog hashes")
    race: Race | None = Field(default=None, description="how a race in rounds went; null for other experiments")
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


def version_1(board: Leaderboard) -> dict[str, Any]:
    """The same board as `tipbench.leaderboard/1` had it, for readers of that version: what is new in 2 is left out.

    A cell without a rank is numbered on behind the ranked ones, as cells with nothing judged always were.
    """
    data = board.model_dump(mode="json", by_alias=True)
    data["schema"] = "tipbench.leaderboard/1"
    for name in ("reference", "margin", "prefer", "recommended", "nearest"):
        del data[name]
    for judge in data["judges"]:
        del judge["bias"]
    for place, cell in enumerate(data["cells"], start=1):
        del cell["unranked"]
        cell["rank"] = place if cell["rank"] is None else cell["rank"]
    return data


def to_json(board: Leaderboard, schema: int = 2, indent: int = 2) -> str:
    """The board as JSON in a version of its schema, 1 or 2."""
    if schema == 1:
        return json.dumps(version_1(board), indent=indent, ensure_ascii=False)
    return board.model_dump_json(by_alias=True, indent=indent)
