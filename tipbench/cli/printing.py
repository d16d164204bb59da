"""What every command needs to answer: a console, JSON, and suggestions that can be typed as they stand."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

import click

from tipbench.config import ENV_PREFIX, Config
from tipbench.errors import InputError
from tipbench.net.address import has_credentials, without_credentials


def typed(word: str) -> str:
    """A path or a name as it is typed into a shell."""
    import shlex

    return shlex.quote(word)


def me() -> str:
    """How to call tipbench from here: by its name when that is on PATH, else the way this process was called."""
    import shutil

    called = sys.argv[0]
    if os.path.basename(called) == "__main__.py":
        return f"{typed(sys.executable)} -m tipbench"
    if os.path.basename(called) != "tipbench":
        return "tipbench"
    found = shutil.which("tipbench")
    return "tipbench" if found and os.path.realpath(found) == os.path.realpath(called) else typed(called)


def where(config: Config, *also: str) -> str:
    """` --mlflow-url ...` for a command that is suggested, and the options `also`: what this command was told and the environment does not say."""
    words = ""
    for name in (*also, "mlflow_url"):
        told = getattr(config, name)
        known = os.environ.get(ENV_PREFIX + name.upper(), "").strip()
        if told and str(told) != (without_credentials(known) if name.endswith("_url") else known):
            words += f" --{name.replace('_', '-')} {typed(_shown(told))}"
    return words


def _shown(value: str) -> str:
    """A password is not printed; that there was one is."""
    return value.replace("://", "://USER:PASSWORD@", 1) if has_credentials(value) else value


def rubric_for(file: str, rubric_hash: str) -> str:
    """` --rubric FILE` for a command about scores under this rubric, when it is not the one that the command would take by itself."""
    from tipbench.catalog import load_rubric

    def fits(one: str) -> bool:
        try:
            return load_rubric(one or None).hash == rubric_hash
        except InputError:
            return False

    if not rubric_hash or fits(os.environ.get(ENV_PREFIX + "RUBRIC", "")):
        return ""
    if file and fits(file):
        near = os.path.relpath(file)
        return f" --rubric {typed(near if not near.startswith('..') else file)}"
    return " --rubric FILE" if rubric_hash else ""


def console() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    import json

    def plain(one: Any) -> Any:
        return dataclasses.asdict(one) if dataclasses.is_dataclass(one) and not isinstance(one, type) else str(one)

    click.echo(json.dumps(value, indent=2, default=plain))
