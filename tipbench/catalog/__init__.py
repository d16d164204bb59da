"""The catalog: scenarios, prompts and rubric as data with a hash, shipped here and replaceable by the user's own files.

A faulty file is an InputError that lists every fault with file, line and field.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tipbench.catalog.content import (
    RESERVED,
    Criterion,
    Example,
    JudgePrompt,
    Prompt,
    Rubric,
    Scenario,
    ScenarioFile,
    content_hash,
)
from tipbench.catalog.reading import load, place
from tipbench.errors import InputError
from tipbench.files import explained
from tipbench.quantities import did_you_mean

__all__ = [
    "RESERVED",
    "Criterion",
    "Example",
    "JudgePrompt",
    "Prompt",
    "Rubric",
    "Scenario",
    "available_prompts",
    "content_hash",
    "load_judge_prompt",
    "load_prompts",
    "load_rubric",
    "load_scenarios",
]

ENDINGS = (".yaml", ".yml", ".json")


def load_scenarios(path: str | Path | None = None) -> tuple[Scenario, ...]:
    """The scenarios of a YAML or JSON file, or the shipped eight. Raises InputError."""
    return load(_file(path, "scenarios.yaml"), ScenarioFile)[0].scenarios


def available_prompts(directory: str | Path | None = None) -> list[str]:
    """Names of the prompts in a folder (NAME.yaml), or of the shipped ones. Raises InputError."""
    return sorted(_prompt_files(directory))


def load_prompts(
    names: Sequence[str], directory: str | Path | None = None, scenarios: Sequence[Scenario] = ()
) -> tuple[Prompt, ...]:
    """The named prompts, in that order, tried with `scenarios` (two made-up ones, when there are none).

    Raises InputError: a name that is not there (with those that are), two files for one name, a faulty file, a template that
    cannot be rendered for one of the scenarios, a prompt in which scenarios get the same text.
    """
    there = _prompt_files(directory)
    unknown = [name for name in names if name not in there]
    if unknown:
        known = ", ".join(sorted(there)) or "none"
        near = did_you_mean(unknown[0], there) if len(unknown) == 1 else ""
        raise InputError(f"no prompt {', '.join(unknown)} in {_folder(directory)}; there are: {known}{near}")
    twice = [f"{name}: {' and '.join(p.name for p in there[name])}" for name in names if len(there[name]) > 1]
    if twice:
        raise InputError(f"{_folder(directory)}: two files for one prompt; rename or remove one", tuple(twice))
    prompts = []
    for name in names:
        (path,) = there[name]
        prompt, document = load(path, Prompt)
        faults = [place(document, field, words, line) for field, words, line in prompt.faults(scenarios)]
        if prompt.name != name:
            faults.append(place(document, ["name"], f"is {prompt.name!r}, but the file is called {name!r}"))
        document.refuse(faults)
        prompts.append(prompt)
    return tuple(prompts)


def load_rubric(path: str | Path | None = None) -> Rubric:
    """The rubric of a file, or the shipped one. Raises InputError."""
    rubric = load(_file(path, "rubric.yaml"), Rubric)[0]
    return rubric.read_from(str(Path(path).absolute())) if path else rubric


def load_judge_prompt(path: str | Path | None = None) -> JudgePrompt:
    """The LLM judge's prompt of a file, or the shipped one. Raises InputError."""
    return load(_file(path, "judge.yaml"), JudgePrompt)[0]


def _file(path: str | Path | None, shipped: str) -> Any:
    return Path(path) if path else resources.files(__name__) / shipped


def _folder(directory: str | Path | None) -> Any:
    if not directory:
        return resources.files(__name__) / "prompts"
    folder = Path(directory)
    if not folder.is_dir():
        raise InputError(f"--prompts-dir {folder}: there is no such folder")
    return folder


def _prompt_files(directory: str | Path | None) -> dict[str, list[Any]]:
    """Prompt name -> the files that are called so; more than one is a fault for whoever wants that prompt."""
    folder, found = _folder(directory), dict[str, list[Any]]()
    with explained(folder, "cannot be read"):
        for path in sorted(folder.iterdir(), key=lambda p: str(p.name)):
            name, dot, ending = path.name.rpartition(".")
            if name and not name.startswith(".") and (dot + ending).lower() in ENDINGS:
                found.setdefault(name, []).append(path)
    return found
