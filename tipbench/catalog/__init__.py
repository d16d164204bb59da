"""The catalog: scenarios, prompts and rubric as data with a hash, shipped here and replaceable by the user's own files.

A faulty file is an InputError that lists every fault with file, line and field.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tipbench.errors import InputError

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

RESERVED = frozenset(
    [
        "model",
        "prompt",
        "variant",
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
    """A prompt version: optional system text, optional examples, and a template for the user's turn.

    The template is Jinja with `{{ title }}` and `{{ situation }}`.
    """

    name: Slug
    description: str = ""
    system: str = ""
    examples: tuple[Example, ...] = ()
    user: Text

    @field_validator("user")
    @classmethod
    def _renders(cls, template: str) -> str:
        _render(template, title="title", situation="situation")
        return template

    @property
    def hash(self) -> str:
        """Content hash of all that reaches the model; the description does not."""
        return content_hash(self.model_dump(mode="json", exclude={"description", "name"}))

    def messages(self, scenario: Scenario) -> list[dict[str, str]]:
        """The chat for one scenario: system, examples, then the question."""
        system = [{"role": "system", "content": self.system.strip()}] if self.system.strip() else []
        shots = [
            {"role": role, "content": text.strip()}
            for example in self.examples
            for role, text in (("user", example.user), ("assistant", example.assistant))
        ]
        question = _render(self.user, title=scenario.title, situation=scenario.situation).strip()
        return [*system, *shots, {"role": "user", "content": question}]


class Criterion(_Strict):
    """One thing to score, with an anchor for every score of the scale."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    name: Text
    question: Text
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False, strict=False)
    anchors: dict[int, Text]

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

    @property
    def weights(self) -> dict[str, float]:
        """criterion id -> weight, as written."""
        return {c.id: c.weight for c in self.criteria}


class JudgePrompt(_Strict):
    """What an LLM judge is told: system text, and a template with `rubric`, `scenario` and `tip`."""

    name: Slug
    description: str = ""
    system: Text
    user: Text
    temperature: float = Field(default=0.0, ge=0, le=2, strict=False)

    @field_validator("user")
    @classmethod
    def _renders(cls, template: str) -> str:
        criterion = {"id": "c", "name": "n", "question": "q", "anchors": [{"score": 1, "text": "t"}]}
        rubric = {"name": "r", "scale_min": 1, "scale_max": 5, "criteria": [criterion]}
        _render(template, rubric=rubric, scenario="s", tip="t")
        return template

    @property
    def hash(self) -> str:
        """Content hash of all that reaches the judge."""
        return content_hash(self.model_dump(mode="json", exclude={"description", "name"}))

    def messages(self, rubric: Mapping[str, Any], scenario: str, tip: str) -> list[dict[str, str]]:
        """The chat that asks for the scores of one tip. `rubric` is a dumped ExchangeRubric."""
        user = _render(self.user, rubric=rubric, scenario=scenario, tip=tip).strip()
        return [{"role": "system", "content": self.system.strip()}, {"role": "user", "content": user}]


class _ScenarioFile(_Strict):
    scenarios: tuple[Scenario, ...] = Field(min_length=1)


# -- loading -------------------------------------------------------------------------------------


def load_scenarios(path: str | Path | None = None) -> tuple[Scenario, ...]:
    """The scenarios of a YAML or JSON file, or the shipped eight. Raises InputError."""
    return _load(_file(path, "scenarios.yaml"), _ScenarioFile).scenarios


def available_prompts(directory: str | Path | None = None) -> list[str]:
    """Names of the prompts in a folder (NAME.yaml), or of the shipped ones. Raises InputError."""
    folder = _folder(directory)
    return sorted(p.name.rsplit(".", 1)[0] for p in folder.iterdir() if p.name.endswith((".yaml", ".yml", ".json")))


def load_prompts(names: Sequence[str], directory: str | Path | None = None) -> tuple[Prompt, ...]:
    """The named prompts, in that order. Raises InputError that names the ones there are."""
    folder = _folder(directory)
    there = {p.name.rsplit(".", 1)[0]: p for p in folder.iterdir() if p.name.endswith((".yaml", ".yml", ".json"))}
    unknown = [name for name in names if name not in there]
    if unknown:
        raise InputError(f"no prompt {', '.join(unknown)} in {folder}; there are: {', '.join(sorted(there)) or 'none'}")
    prompts = []
    for name in names:
        prompt = _load(there[name], Prompt)
        if prompt.name != name:
            raise InputError(f"{there[name]}: 1 fault", (f"name: is {prompt.name!r}, but the file is called {name!r}",))
        prompts.append(prompt)
    return tuple(prompts)


def load_rubric(path: str | Path | None = None) -> Rubric:
    """The rubric of a file, or the shipped one. Raises InputError."""
    return _load(_file(path, "rubric.yaml"), Rubric)


def load_judge_prompt(path: str | Path | None = None) -> JudgePrompt:
    """The LLM judge's prompt of a file, or the shipped one. Raises InputError."""
    return _load(_file(path, "judge.yaml"), JudgePrompt)


def _file(path: str | Path | None, shipped: str) -> Any:
    return Path(path) if path else resources.files(__name__) / shipped


def _folder(directory: str | Path | None) -> Any:
    if not directory:
        return resources.files(__name__) / "prompts"
    folder = Path(directory)
    if not folder.is_dir():
        raise InputError(f"--prompts-dir {folder}: there is no such folder")
    return folder


_Model = TypeVar("_Model", bound=_Strict)


def _load(path: Any, model: type[_Model]) -> _Model:
    """A validated model from a YAML or JSON file; InputError lists every fault with line and field."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"{path}: not YAML or JSON", (f"{where}{error.problem}",)) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not YAML or JSON: {error}") from error
    faults = [*_repeated_keys(node), *_repeated_ids(value, node)]
    try:
        loaded = model.model_validate(_tuples(value))
    except ValidationError as error:
        # A list of nothing but faulty entries counts as empty to pydantic; its entries' own faults say more.
        details = [d for d in error.errors() if not (d["type"] == "too_short" and d["input"])]
        faults += [_fault(detail, node) for detail in details]
        loaded = None
    if faults or loaded is None:
        ordered = tuple(words for _, words in sorted(faults))
        raise InputError(f"{path}: {len(faults)} fault{'s' * (len(faults) > 1)}", ordered)
    return loaded


def _tuples(value: Any) -> Any:
    """Lists as tuples all the way down, since strict models take a list for nothing else."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _fault(detail: Any, node: yaml.Node | None) -> tuple[int, str]:
    """One of pydantic's errors as (line, "line 12, scenarios.3.title: what is wrong")."""
    location = [part for part in detail["loc"] if part != "[key]"]
    field = ".".join(map(str, location)) or "(the whole file)"
    line = _line(node, location)
    kind, message = detail["type"], detail["msg"].removeprefix("Value error, ")
    if kind == "missing":
        message = "is missing"
    elif kind == "extra_forbidden":
        message = "unknown field"
    elif kind == "string_too_short" or (kind == "string_pattern_mismatch" and detail["ctx"]["pattern"] == r"\S"):
        message = "must not be empty"
    elif kind == "too_short":
        message = f"needs at least {detail['ctx']['min_length']}, found {detail['ctx']['actual_length']}"
    elif kind == "string_pattern_mismatch":
        message = f"{_kind(detail['input'])} must have small letters, digits and . _ - only, at most 63"
    elif kind.endswith("_type") or kind == "model_type":
        message = f"{message[0].lower()}{message[1:]}, found {_kind(detail['input'])}"
    return line, f"line {line}, {field}: {message}"


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, tuple | list):
        return "a list"
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _line(node: yaml.Node | None, location: Sequence[str | int]) -> int:
    """The line of the deepest part of `location` that the file has."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in location:
        child = _child(node, part)
        if child is None:
            break
        node = child
        line = node.start_mark.line + 1
    return int(line)


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((v for k, v in node.value if k.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        found: yaml.Node = node.value[part]
        return found
    return None


def _repeated_keys(node: yaml.Node | None, path: str = "") -> Iterator[tuple[int, str]]:
    """Keys that stand twice in one mapping: YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = f"{path}.{key.value}".lstrip(".")
            if key.value in seen:
                line = key.start_mark.line + 1
                yield line, f"line {line}, {name}: the key stands twice"
            seen.add(key.value)
            yield from _repeated_keys(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _repeated_keys(value, f"{path}.{number}".lstrip("."))


def _repeated_ids(value: Any, node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Scenarios or criteria with the same id."""
    for name in ("scenarios", "criteria"):
        entries = value.get(name) if isinstance(value, dict) else None
        first: dict[str, int] = {}
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            one = entry.get("id") if isinstance(entry, dict) else None
            if isinstance(one, str) and one in first:
                line = _line(node, [name, number, "id"])
                yield line, f"line {line}, {name}.{number}.id: {one!r} is also the id of {name}.{first[one]}"
            elif isinstance(one, str):
                first[one] = number


# -- templates -----------------------------------------------------------------------------------


@functools.cache
def _templates() -> SandboxedEnvironment:
    # A user's template is data: the sandbox keeps it from reaching into the process.
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)


def _render(template: str, **variables: object) -> str:
    """The template with its variables; ValueError in words when it cannot be rendered."""
    from jinja2 import TemplateError

    try:
        return _templates().from_string(template).render(**variables)
    except TemplateError as error:
        known = ", ".join(sorted(variables))
        raise ValueError(f"the template cannot be rendered: {error.message or error}; variables: {known}") from error
