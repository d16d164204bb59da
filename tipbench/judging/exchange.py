"""The exchange file: what a judge gets, fills in, and hands back.

It is self-contained (rubric, instructions, items) and blind: opaque ids in shuffled order, no
model, prompt or run in it. The key that leads from an id back to its candidate stays in MLflow.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tipbench.errors import InputError

SCHEMA: Literal["tipbench.exchange/1"] = "tipbench.exchange/1"

ItemId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="Opaque id of one item.")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Anchor(_Strict):
    """What one score of one criterion looks like."""

    score: int
    text: str


class RubricCriterion(_Strict):
    """One thing to score, with an anchor for every score."""

    id: str
    name: str
    question: str
    anchors: tuple[Anchor, ...]


class ExchangeRubric(_Strict):
    """The rubric as the judge sees it; its hash covers exactly this."""

    name: str
    scale_min: int = 1
    scale_max: int = 5
    criteria: tuple[RubricCriterion, ...]


JUDGE = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79}"
"""A judge's name, as a part of a pattern."""
JUDGE_NAME = f"^{JUDGE}$"


class JudgeIdentity(_Strict):
    """Who scored: the name is what scores are filed under."""

    name: str = Field(pattern=JUDGE_NAME)
    kind: Literal["human", "agent", "llm", "baseline"]
    details: dict[str, str] = Field(default_factory=dict, description="Model digest, prompt hash, passes, ...")


def identify(name: str, kind: Literal["human", "agent", "llm", "baseline"], source: str) -> JudgeIdentity:
    """Who scores, from a name that a user gave; `source` says where. Raises InputError for a name that cannot be filed under."""
    try:
        return JudgeIdentity(name=name, kind=kind)
    except ValidationError as error:
        raise InputError(
            f"{source} {name!r}: a judge's name has letters, digits and . _ : / @ + - only, at most 80"
        ) from error


class ExchangeItem(_Strict):
    """One candidate tip, to be scored on its own."""

    id: ItemId
    scenario: str = Field(description="The situation the tip was written for.")
    tip: str
    scores: dict[str, int | None] = Field(
        description="criterion id -> score on the rubric's scale, null while unscored"
    )
    expected: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = Field(
        default=None,
        description="criterion id -> mean score under the judge's own probabilities, beside the whole numbers; not there where unknown",
    )
    rationale: str | None = Field(default=None, max_length=2000)
    scored_at: datetime | None = Field(default=None, strict=False)

    @property
    def complete(self) -> bool:
        """True when every criterion has a score."""
        return all(score is not None for score in self.scores.values())


class Exchange(_Strict):
    """The whole file. Scores may be partly filled; an item counts when all its criteria have a score."""

    schema_: Literal["tipbench.exchange/1"] = Field(default=SCHEMA, alias="schema")
    experiment: str
    export_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    rubric_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    judge: JudgeIdentity | None = None
    instructions: str
    rubric: ExchangeRubric
    items: tuple[ExchangeItem, ...]

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
