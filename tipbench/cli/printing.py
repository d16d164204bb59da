"""What every command needs to answer: a console, JSON, and suggestions that can be typed as they stand."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

import click

from tipbench.config import ENV_PREFIX, Config


def me() -> str:
    """How to call tipbench from here: by its name when that is on PATH, else the way this process was called."""
    import shutil

    called = sys.argv[0]
    found = os.path.basename(called) != "tipbench" or shutil.which("tipbench") == os.path.abspath(called)
    return "tipbench" if found else called


def where(config: Config) -> str:
    """` --mlflow-url ...` for a command that is suggested, when this one was told and the environment does not say."""
    told = config.mlflow_url and config.mlflow_url != os.environ.get(ENV_PREFIX + "MLFLOW_URL")
    return f" --mlflow-url {config.mlflow_url}" if told else ""


def console() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    import json

    def plain(one: Any) -> Any:
        return dataclasses.asdict(one) if dataclasses.is_dataclass(one) and not isinstance(one, type) else str(one)

    click.echo(json.dumps(value, indent=2, default=plain))
