"""What the store keeps: candidates, cells, scores, collections. Plain data, no MLflow in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

CELL_SCHEMA = "tipbench.cell/1"


class Candidate(BaseModel):
    """One generated tip and what it cost; times in seconds, None where the engine did not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    seed: int
    text: str
    done_reason: str | None
    ttft_s: float | None
    load_s: float | None
    prompt_tokens: int | None
    prompt_s: float | None
    output_tokens: int | None
    output_s: float | None
    total_s: float | None
    wall_s: float
    attempts: int


class Failure(BaseModel):
    """Why a cell failed: a stable word and a sentence with the facts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str
    message: str


class CellResult(BaseModel):
    """One (model, prompt, scenario), as it is journalled and kept as the run's artifact.

    A failed cell keeps the candidates it did get. Times of day in milliseconds since the epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal["tipbench.cell/1"] = "tipbench.cell/1"
    cell_id: str
    collection_id: str
    model: str
    prompt: str
    scenario: str
    situation: str
    n_tips: int
    params: dict[str, str]
    tags: dict[str, str]
    candidates: tuple[Candidate, ...]
    flags: dict[str, int]
    resident_bytes: int | None
    failure: Failure | None
    started_ms: int
    ended_ms: int


@dataclass(frozen=True)
class Run:
    """An MLflow run, whichever way it was read."""

    run_id: str
    status: str
    artifact_uri: str
    start_ms: int
    end_ms: int | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class ScoreRecord:
    """One judge's current scores of one cell under one rubric: candidate index -> a score per criterion.

    `repeats` are the second scores of candidates that were shown twice without saying so.
    """

    judge: str
    kind: Literal["human", "agent", "llm", "baseline"]
    rubric_hash: str
    criteria: tuple[str, ...]
    scores: Mapping[int, tuple[int, ...]]
    repeats: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class CellRecord:
    """A finished or failed cell as the store holds it, with every judge's scores."""

    run: Run
    cell_id: str
    model: str
    prompt: str
    scenario: str
    n_tips: int
    n_candidates: int
    failure: Failure | None
    scores: tuple[ScoreRecord, ...]

    @property
    def finished(self) -> bool:
        """True when every candidate of the cell was generated."""
        return self.failure is None


@dataclass(frozen=True)
class PlannedCell:
    """One cell that a collection set out to fill."""

    cell_id: str
    model: str
    prompt: str
    scenario: str
    n_tips: int


@dataclass(frozen=True)
class Collection:
    """One `collect`: its plan, its reproducibility receipt and the models that the policy refused."""

    run_id: str
    plan: tuple[PlannedCell, ...]
    receipt: Mapping[str, Any]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class ExperimentInfo:
    """One experiment at a glance."""

    experiment_id: str
    name: str
    last_update_ms: int | None
