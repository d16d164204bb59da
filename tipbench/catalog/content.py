"""What scenarios, prompts and rubrics are: models with a content hash, and the texts that a model or a judge gets from them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import resources
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tipbench.catalog.templates import SYNTAX, TemplateFault, render
from tipbench.errors import InputError

RESERVED = frozenset(
    [
        "model",
        "prompt",
        "variant",
        "unranked",
        "dropped_at",
        "dropped_why",
        "memory_source",
        "row",
        "rank",
        "rank_low",
        "rank_high",
        "composite",
        "ci_low",
        "ci_high",
        "se",
        "p_best",
        "diff_to_best",
        "tied_with_best",
        "n_scenarios",
        "n_expected",
        "n_candidates",
        "n_judged",
        "n_failed",
        "failures",
        "coverage",
        "tokens_per_s",
        "ttft_s",
        "seconds_per_tip",
        "peak_memory_bytes",
        "mean_words",
        "pareto",
        "checks",
    ]
)
"""Criterion ids that would collide with a column of the leaderboard."""

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


def content_hash(value: object) -> str:
    """SHA-256 of canonical JSON (sorted keys, no spaces, UTF-8): the same content has the same hash."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# -- what the files hold -------------------------------------------------------------------------


class Scenario(_Strict):
    """A user in a situation in which the app wants to show a tip."""

    id: Slug
    title: Text
    situation: Text


class Example(_Strict):
    """One exchange shown to the model before the real one."""

    user: Text
    assistant: Text


class Prompt(_Strict):
    """A prompt version: optional system text, optional examples, and the user's turn.

    All of them are Jinja templates with `{{ title }}` and `{{ situation }}`; what reaches the model depends on the scenario.
    """

    name: Slug
    description: str = ""
    system: str = ""
    examples: tuple[Example, ...] = ()
    user: Text

    @field_validator("system", "user")
    @classmethod
    def _renders(cls, template: str) -> str:
        return _sound(template, title="title", situation="situation")

    @field_validator("examples")
    @classmethod
    def _examples_render(cls, examples: tuple[Example, ...]) -> tuple[Example, ...]:
        for number, example in enumerate(examples):
            for role in ("user", "assistant"):
                try:
                    _render_some(getattr(example, role), title="title", situation="situation")
                except TemplateFault as fault:
                    raise _as_detail(fault, f"{number}.{role}") from fault
        return examples

    @property
    def hash(self) -> str:
        """Content hash of all that reaches the model; the description does not."""
        content = self.model_dump(mode="json", exclude={"description", "name"})
        if any(SYNTAX.search(text) for text in self._constant_texts()):
            # Up to 0.2.0 such a text reached the model as it stands; those tips are another prompt's.
            content["rendered"] = ["system", "examples"]
        return content_hash(content)

    def _constant_texts(self) -> list[str]:
        return [self.system, *(text for example in self.examples for text in (example.user, example.assistant))]

    def messages(self, scenario: Scenario) -> list[dict[str, str]]:
        """The chat for one scenario: system, examples, then the question. Raises InputError naming the field."""
        try:
            return self._messages(scenario)
        except TemplateFault as fault:
            raise InputError(f"prompt {self.name}, scenario {scenario.id}: {fault}") from fault

    def _messages(self, scenario: Scenario) -> list[dict[str, str]]:
        variables = {"title": scenario.title, "situation": scenario.situation}
        system = _render_some(self.system, **variables).strip()
        shots = [
            {"role": role, "content": _render_some(text, **variables).strip()}
            for example in self.examples
            for role, text in (("user", example.user), ("assistant", example.assistant))
        ]
        question = render(self.user, **variables).strip()
        return [
            *([{"role": "system", "content": system}] if system else []),
            *shots,
            {"role": "user", "content": question},
        ]

    def faults(self, scenarios: Sequence[Scenario]) -> list[tuple[tuple[str | int, ...], str, int]]:
        """What is wrong with it for these scenarios, as (field, words, line in the template).

        Every template must render for every scenario, and two scenarios that differ must not become the same chat: then their
        tips would be called answers to situations that the model never saw.
        """
        found: list[tuple[tuple[str | int, ...], str, int]] = []
        templates: list[tuple[tuple[str | int, ...], str]] = [(("system",), self.system)]
        for number, example in enumerate(self.examples):
            templates += [
                (("examples", number, "user"), example.user),
                (("examples", number, "assistant"), example.assistant),
            ]
        templates.append((("user",), self.user))
        for field, template in templates:
            for scenario in scenarios:
                try:
                    _render_some(template, title=scenario.title, situation=scenario.situation)
                except TemplateFault as fault:
                    found.append((field, f"{fault} (scenario {scenario.id})", fault.line))
                    break
            if braces := _SINGLE.search(_EXPRESSION.sub("", template)):
                words = f"{braces[0]} reaches the model as it stands; write {{{{ {braces[1]} }}}}"
                found.append((field, words, template.count("\n", 0, max(template.find(braces[0]), 0)) + 1))
        return found or self._constant(scenarios)

    def _constant(self, scenarios: Sequence[Scenario]) -> list[tuple[tuple[str | int, ...], str, int]]:
        seen: dict[str, Scenario] = {}
        probes = [Scenario(id=f"probe-{i}", title=f"Title {i}", situation=f"Situation {i} of a probe.") for i in (1, 2)]
        different = {(s.title, s.situation): s for s in (scenarios if len(scenarios) > 1 else [*scenarios, *probes])}
        alike = []
        for scenario in different.values():
            chat = json.dumps(self._messages(scenario))
            if chat in seen:
                alike.append((seen[chat], scenario))
            seen.setdefault(chat, scenario)
        if not alike:
            return []
        other = _OTHER.search(_EXPRESSION.sub("", self.user))
        hint = f" ({other[0]} is no variable here)" if other else ""
        if len(seen) == 1:
            return [
                (("user",), f"every scenario gets the same text; put {{{{ situation }}}} where it belongs{hint}", 1)
            ]
        one, another = alike[0]
        return [
            (
                ("user",),
                f"the scenarios {one.id} and {another.id} get the same text; put {{{{ situation }}}} where it belongs{hint}",
                1,
            )
        ]


_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_SINGLE = re.compile(r"\$?\{\s*(situation|title)\s*\}", re.IGNORECASE)
_OTHER = re.compile(r"\$\{?\w+\}?|%\(\w+\)s|<\w+>|\[(?:situation|title|scenario)\]|\{\w+\}", re.IGNORECASE)


def _render_some(template: str, **variables: object) -> str:
    """A text that is a template only where it has Jinja in it; any other stays as it is, to the last character."""
    return render(template, **variables) if SYNTAX.search(template) else template


def _sound(template: str, **variables: object) -> str:
    """The template, if it renders; otherwise pydantic's error with the line in it."""
    try:
        _render_some(template, **variables)
    except TemplateFault as fault:
        raise _as_detail(fault) from fault
    return template


def _as_detail(fault: TemplateFault, within: str = "") -> PydanticCustomError:
    return PydanticCustomError(
        "template", "{words}", {"words": str(fault), "template_line": fault.line, "within": within}
    )


class Criterion(_Strict):
    """One thing to score, with an anchor for every score of the scale."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    name: Text
    question: Text
    weight: float = Field(default=1.0, ge=0, le=1_000_000, allow_inf_nan=False, strict=False)
    anchors: dict[int, Text]

    @field_validator("anchors", mode="before")
    @classmethod
    def _numbers(cls, anchors: object) -> object:
        """JSON's keys are always texts: `"1"` is the score 1."""
        if not isinstance(anchors, dict):
            return anchors
        named = {k: int(k) if isinstance(k, str) and re.fullmatch(r"[0-9]{1,3}", k) else k for k in anchors}
        return anchors if len(set(named.values())) < len(named) else {named[k]: v for k, v in anchors.items()}

    @field_validator("id")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f"{value!r} is a column of the leaderboard; choose another id")
        return value


class Rubric(_Strict):
    """What judges score, on which scale, and how they are told to."""

    name: Slug
    scale_min: int = Field(default=1, ge=0, le=100)
    scale_max: int = Field(default=5, ge=1, le=100)
    instructions: Text
    criteria: tuple[Criterion, ...] = Field(min_length=1, max_length=20)
    _file: str = PrivateAttr(default="")

    @property
    def file(self) -> str:
        """Where it was read from; empty for the shipped one. It is no part of the content."""
        return self._file

    def read_from(self, file: str) -> Rubric:
        """The same rubric, which remembers its file."""
        self._file = file
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Rubric:
        if self.scale_min >= self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} must be below scale_max {self.scale_max}")
        scale = set(range(self.scale_min, self.scale_max + 1))
        for criterion in self.criteria:
            missing, extra = sorted(scale - set(criterion.anchors)), sorted(set(criterion.anchors) - scale)
            if missing or extra:
                words = [f"no anchor for {', '.join(map(str, missing))}"] if missing else []
                words += [f"anchors outside the scale: {', '.join(map(str, extra))}"] if extra else []
                raise ValueError(f"criterion {criterion.id}: {'; '.join(words)}")
        if not any(c.weight for c in self.criteria):
            raise ValueError("every weight is 0; at least one criterion must count")
        return self

    def told(self) -> str:
        """What a judge of an exchange file is told: the rules of the file, always, and then the rubric's own instructions."""
        rules = (resources.files("tipbench.catalog") / "exchange-rules.txt").read_text(encoding="utf-8")
        scale = {"low": str(self.scale_min), "high": str(self.scale_max)}
        return f"{rules.format(**scale).rstrip()}\n\n{self.instructions.strip()}\n"

    def judge_view(self) -> dict[str, Any]:
        """The rubric as it stands in an exchange file. Weights are not in it: reweighting orphans no score."""
        return {
            "name": self.name,
            "scale_min": self.scale_min,
            "scale_max": self.scale_max,
            "criteria": [
                {
                    "id": c.id,
                    "name": c.name,
                    "question": c.question,
                    "anchors": [{"score": s, "text": t} for s, t in sorted(c.anchors.items())],
                }
                for c in self.criteria
            ],
        }

    @property
    def hash(self) -> str:
        """Content hash of `judge_view()`."""
        return content_hash(self.judge_view())

    def margin(self, asked: float = 0.0) -> float:
        """The largest loss that does not matter, in points: `asked`, or with 0 a 7.5 % of the scale's range (0.3 on 1-5)."""
        return asked or 0.075 * (self.scale_max - self.scale_min)

    @property
    def weights(self) -> dict[str, float]:
        """criterion id -> weight, as written."""
        return {c.id: c.weight for c in self.criteria}


class JudgePrompt(_Strict):
    """What an LLM judge is told: system text, and a template with `rubric`, `scenario`, `tip` and `rationale`.

    `rationale` is "before", "after" or "none". A template that does not look at it serves them all: the schema decides.
    """

    name: Slug
    description: str = ""
    system: Text
    user: Text
    temperature: float = Field(default=0.0, ge=0, le=2, strict=False)

    @field_validator("system", "user")
    @classmethod
    def _renders(cls, template: str) -> str:
        for rationale in ("before", "after", "none"):
            _sound(template, rubric=_PROBE, scenario="s", tip="t", rationale=rationale)
        return template

    @model_validator(mode="after")
    def _reads_the_tip(self) -> JudgePrompt:
        one, another = (self._messages(_PROBE, "s", tip) for tip in ("A tip.", "Another one."))
        if one == another:
            raise ValueError("every tip gets the same text; put {{ tip }} into user, where it belongs")
        return self

    @property
    def hash(self) -> str:
        """Content hash of all that reaches the judge."""
        content = self.model_dump(mode="json", exclude={"description", "name"})
        if SYNTAX.search(self.system):
            content["rendered"] = ["system"]
        return content_hash(content)

    def messages(
        self, rubric: Mapping[str, Any], scenario: str, tip: str, rationale: str = "before"
    ) -> list[dict[str, str]]:
        """The chat that asks for the scores of one tip. `rubric` is a dumped ExchangeRubric. Raises InputError."""
        try:
            return self._messages(rubric, scenario, tip, rationale)
        except TemplateFault as fault:
            raise InputError(f"judge prompt {self.name}: {fault}") from fault

    def _messages(
        self, rubric: Mapping[str, Any], scenario: str, tip: str, rationale: str = "before"
    ) -> list[dict[str, str]]:
        variables = {"rubric": rubric, "scenario": scenario, "tip": tip, "rationale": rationale}
        user = render(self.user, **variables).strip()
        return [
            {"role": "system", "content": _render_some(self.system, **variables).strip()},
            {"role": "user", "content": user},
        ]


_PROBE: dict[str, Any] = {
    "name": "r",
    "scale_min": 1,
    "scale_max": 5,
    "criteria": [{"id": "c", "name": "n", "question": "q", "anchors": [{"score": 1, "text": "t"}]}],
}
"""A rubric of the smallest kind, to try a judge's prompt with."""


class ScenarioFile(_Strict):
    """A file of scenarios."""

    scenarios: tuple[Scenario, ...] = Field(min_length=1)
