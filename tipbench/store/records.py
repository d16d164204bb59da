"""What the store keeps: candidates, cells, scores, collections. Plain data, no MLflow in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tipbench.memory.meter import Source

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
    flags: dict[str, str] | None = None
    """What the automatic checks found: flag -> why. None in what 0.2.0 collected."""


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
    memory_source: Source | None = None
    """Where `resident_bytes` comes from; None in what versions before 0.3 wrote."""
    failure: Failure | None
    started_ms: int
    ended_ms: int


MEMORY_SOURCE, SLOTS = "tipbench.memory_source", "tipbench.parallel"
"""Tags of a cell's run: where its memory figure comes from, and how many requests were in flight."""
OPTIONS = ("temperature", "seed", "num_predict", "num_ctx", "engine")
"""Params of a cell's run that are part of what the cell is: the same text under other options is another row."""


@dataclass(frozen=True, slots=True)
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


JudgeKind = Literal["human", "agent", "llm", "baseline"]


@dataclass(frozen=True, slots=True)
class Judge:
    """Who scored: a name and, for a judge that is a program, a version. Two versions are two judges of one name.

    `version` is a hash of what makes a program judge as it does (`judge_version`); empty for people and agents.
    """

    name: str
    kind: JudgeKind
    version: str = ""

    @property
    def label(self) -> str:
        """The name, with the version behind it where there is one."""
        return f"{self.name}@{self.version[:8]}" if self.version else self.name


def judge_version(kind: str, details: Mapping[str, str]) -> str:
    """The version of a judge by the details of its identity: a hash of model digest, judge prompt and rationale mode.

    Empty for a person or an agent, and for a judge that tells none of them. Version 0.2.0 told the prompt as
    `NAME HASH` and knew one mode, a rationale before the scores.
    """
    told = {
        "digest": details.get("digest", ""),
        "judge_prompt": (details.get("judge_prompt") or details.get("prompt", "").rpartition(" ")[2])[:12],
        "rationale": details.get("rationale", "before").replace("before", ""),
    }
    told = {name: value for name, value in told.items() if value}
    if kind not in ("llm", "baseline") or not told:
        return ""
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Score:
    """One candidate scored once, as it stands in the log of scores; the last one of a judge is the one that counts.

    `scores` follow the criteria of the record's heading. `text` is a hash of the tip that was read, empty when unknown.
    """

    run_id: str
    index: int
    repeat: bool
    scores: tuple[int, ...]
    at_ms: int
    text: str = ""
    expected: tuple[float, ...] | None = None
    """Means of the judge's own score distribution, where it gave one."""
    rationale: str | None = None
    reason: str = ""
    item: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """What the scores of one applied file have alike."""

    judge: Judge
    rubric_hash: str
    criteria: tuple[str, ...]
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """One judge's current scores of one cell under one rubric: candidate index -> a score per criterion.

    `repeats` are the second scores of candidates that were shown twice without saying so. `expected` are the means of
    the judge's score distributions, for the candidates where it gave them.
    """

    judge: str
    kind: JudgeKind
    rubric_hash: str
    criteria: tuple[str, ...]
    scores: Mapping[int, tuple[int, ...]]
    repeats: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    version: str = ""
    expected: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    rationales: Mapping[tuple[int, bool], str] = field(default_factory=dict)
    """(candidate index, repeat) -> why the judge scored it so, where that was said"""
    last_ms: int = 0
    """When the last of these scores was given; 0 when that is not known."""


def text_hash(text: str) -> str:
    """Eight hexadecimal digits that tell one tip from another."""
    return sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class CellRecord:
    """A cell's run as the store holds it, with every judge's scores."""

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
        """True when every candidate that was asked for was generated."""
        return self.failure is None

    @property
    def texts(self) -> tuple[str, ...]:
        """`text_hash` of each candidate by index; empty for a run of a version that did not note them."""
        noted = self.run.tags.get("tipbench.texts", "")
        return tuple(noted.split(",")) if noted else ()


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
    planned_ms: int = 0
    """When this plan was last set out to be carried out."""


@dataclass(frozen=True)
class Holdings:
    """All that the store holds of an experiment and that an answer can depend on."""

    experiment_id: str
    cells: tuple[CellRecord, ...]
    """Every cell run that has ended, whether it counts or not, oldest first."""
    collections: tuple[Collection, ...]
    """By the time of their plan, oldest first."""


@dataclass(frozen=True)
class ExperimentInfo:
    """One experiment at a glance."""

    experiment_id: str
    name: str
    last_update_ms: int | None
