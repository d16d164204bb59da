"""Every option of every command is run once, in this process, on a real store folder and the embedded model.

An option that nobody ever ran is an option that nobody knows to work.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tipbench.cli import cli

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

RUNNER = CliRunner()
EXPERIMENT = "tip-bench-every"
SMALL = {"models": "smollm2:135m", "prompts": "v1,v2-mentor", "n_scenarios": "2", "n_tips": "2", "num_predict": "8"}
SMALL |= {"num_ctx": "1024", "num_thread": "1", "engine": "embedded", "experiment": EXPERIMENT}
SERVER = {"ollama_url", "base_url"}
"""Addresses of servers that none of these runs asks."""
EXPECTED = {
    ("judge export", "sample_tips"): (2, "--tips needs --sample"),
    ("compare", "against"): (2, "no experiment tip-bench-none"),
    ("compare", "fail_on"): (2, "--fail-on needs --against"),
    ("compare", "references"): (2, ""),
    ("run", "references"): (2, "it takes 6"),
    ("run", "n_sample"): (2, "--sample: is for judge = llm"),
    ("run", "sample_tips"): (2, "--sample-tips: needs sample"),
    ("next", "take_back"): (2, "--take-back needs --as"),
    ("judge export", "expected"): (2, "has nothing to judge"),
}
ELSEWHERE = {"next": (2, "no rounds"), "import": (2, "")}
"""Commands that this experiment is no case for: they have to say so. tests/integration has theirs."""
LONG_RUNNING = {"serve"}
"""Commands that stay; tests/integration/api starts them."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [((*path, name), command)]
    return found


CASES = [
    (path, option)
    for path, command in commands(cli)
    if path[0] not in LONG_RUNNING
    for option in [None, *(p for p in command.params if isinstance(p, click.Option))]
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, empty_db: Path) -> Path:
    """A folder with a judged experiment, and files of every kind that options name."""
    folder = tmp_path_factory.mktemp("every")
    (folder / "store").mkdir()
    shutil.copy(empty_db, folder / "store")
    catalog = resources.files("tipbench.catalog")
    for name in ("scenarios.yaml", "rubric.yaml", "judge.yaml"):
        (folder / name).write_text((catalog / name).read_text(encoding="utf-8"), encoding="utf-8")
    shutil.copytree(str(catalog / "prompts"), folder / "prompts")
    (folder / "config.yaml").write_text("temperature: 0.5\n")
    for words in (
        [
            "collect",
            *options(
                folder,
                "models",
                "prompts",
                "n_scenarios",
                "n_tips",
                "num_predict",
                "num_ctx",
                "num_thread",
                "engine",
                "experiment",
                "mlflow_url",
                "spool",
            ),
        ],
        ["judge", "export", *options(folder, "experiment", "mlflow_url"), "--out", str(folder / "judge.json")],
        ["judge", "score", str(folder / "judge.json"), "--with", "baseline", "--apply", *options(folder, "mlflow_url")],
    ):
        done = RUNNER.invoke(cli, words)
        assert done.exit_code == 0, done.output
    shutil.copy(folder / "judge.json", folder / "scored.json")
    return folder


def values(folder: Path) -> dict[str, str]:
    return SMALL | {
        "mlflow_url": str(folder / "store"),
        "spool": str(folder / "spool"),
        "config_file": str(folder / "config.yaml"),
        "scenarios": str(folder / "scenarios.yaml"),
        "rubric": str(folder / "rubric.yaml"),
        "prompts_dir": str(folder / "prompts"),
        "judge_prompt": str(folder / "judge.yaml"),
        "out": str(folder / "out"),
        "weights": "relevance=2,tone=1",
        "repeats": "10%",
        "memory_limit": "1.5Gi",
        "keep_alive": "1m",
        "judges": "baseline",
        "judge_name": "ann",
        "name": "ann",
        "asked_for": "baseline",
        "expected": "other:1b",
        "spec": "baseline",
        "reason": "because",
        "notify_url": "http://127.0.0.1:9/hook",
        "temperature": "0.5",
        "power": "0.5",
        "max_model_b": "3",
        "engine_url": "http://127.0.0.1:9/v1",
        "parameters": "smollm2:135m=135m",
        "until": "all",
        "cells": "smollm2:135m|v1",
        "references": "baseline",
        "against": "tip-bench-none",
    }


def options(folder: Path, *names: str) -> list[str]:
    known = values(folder)
    return [word for name in names for word in ("--" + name.replace("_", "-"), known[name])]


def words_of(path: tuple[str, ...], command: click.Command, option: click.Option | None, folder: Path) -> list[str]:
    """A call of the command: what it needs, and the option."""
    known, words = values(folder), list(path)
    for param in command.params:
        name = param.name or ""
        if isinstance(param, click.Argument):
            words.append(param.type.choices[0] if isinstance(param.type, click.Choice) else str(folder / "scored.json"))
        elif param is option:
            continue
        elif name in SMALL or name in ("mlflow_url", "spool") or param.required:
            words += [param.opts[0], value(param, known, path, folder)]
        elif name == "spec":
            words += [param.opts[0], "baseline"]
    if option is not None:
        words += [option.opts[0]] if option.is_flag else [option.opts[0], value(option, known, path, folder)]
    return words


def value(param: click.Parameter, known: dict[str, str], path: tuple[str, ...], folder: Path) -> str:
    name = param.name or ""
    if name == "out" and path == ("judge", "export"):
        return str(folder / "exported.json")
    if name == "out" and path == ("export-scores",):
        return str(folder / "table.csv")
    if name == "judges" and path == ("plan",):
        return "2"
    if isinstance(param.type, click.Choice):
        return str(param.type.choices[-1])
    if name in SERVER:
        return "http://127.0.0.1:9"
    return known.get(name, "1")


@pytest.mark.parametrize(
    ("path", "option"), CASES, ids=[f"{' '.join(p)} {o.opts[0] if o else 'alone'}" for p, o in CASES]
)
def test_every_option_of_every_command_runs(
    world: Path, path: tuple[str, ...], option: click.Option | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("XDG_STATE_HOME", str(world / "state"))
    command = dict(commands(cli))[path]
    done: Result = RUNNER.invoke(cli, words_of(path, command, option, world))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    name = option.name or "" if option else ""
    code, words = EXPECTED.get((" ".join(path), name), ELSEWHERE.get(path[0], (0, "")))
    assert done.exit_code == code and words in done.output, done.output
