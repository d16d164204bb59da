"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import click

from tipbench.config import ENV_PREFIX, KEYS, Config, build, type_of
from tipbench.errors import InputError


def config_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options for configuration keys (all, if none is named) and --config; the command gets one `config`."""
    wanted = names or tuple(KEYS)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapper(config_file: str | None, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in wanted}
            return command(config=_config(given, config_file), **kwargs)

        decorated: Callable[..., Any] = wrapper
        for name in reversed(wanted):
            decorated = _option(name)(decorated)
        return click.option(
            "--config",
            "config_file",
            type=click.Path(exists=True, dir_okay=False),
            envvar=ENV_PREFIX + "CONFIG",
            help="YAML or JSON file with configuration keys; options and environment variables win over it.",
        )(decorated)

    return decorate


def _option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    rules = KEYS[name].metadata
    default = KEYS[name].default
    flag = "--" + name.replace("_", "-")
    text = rules["help"] + (f"  [default: {default}]" if default not in ("", False) else "")
    if type_of(name) is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, envvar=ENV_PREFIX + name.upper(), help=text)
    metavar = {str: "TEXT", int: "N", float: "X"}[type_of(name)]
    if rules.get("choices"):
        metavar = "|".join(rules["choices"])
    return click.option(
        flag, name, type=type_of(name), default=None, metavar=metavar, envvar=ENV_PREFIX + name.upper(), help=text
    )


def _config(given: dict[str, Any], config_file: str | None) -> Config:
    """Options and environment over --config over defaults, checked by the one definition."""
    values: dict[str, Any] = {}
    if config_file:
        values = _read_mapping(config_file)
        build(values, config_file)
    explicit = {name: value for name, value in given.items() if value is not None}
    return build(_with_folder(values | explicit), "options")


def _with_folder(values: dict[str, Any]) -> dict[str, Any]:
    """`--prompts FOLDER`: all the prompts in it."""
    folder = values.get("prompts")
    if not isinstance(folder, str) or values.get("prompts_dir") or not os.path.isdir(folder):
        return values
    from tipbench.catalog import available_prompts

    if folder in available_prompts():
        return values
    names = available_prompts(folder)
    if not names:
        raise InputError(f"--prompts {folder}: there is no prompt (NAME.yaml) in this folder")
    return values | {"prompts": ",".join(names), "prompts_dir": folder}


def _read_mapping(path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML or JSON: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: needs keys and values at the top, not a {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def _apply_options(*options: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[Callable[..., Any]], Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
judge_engine_options = _apply_options(
    click.option("--ollama-url", envvar="TIPBENCH_OLLAMA_URL", default="http://localhost:11434", show_default=True,
                 help="Where Ollama listens, for --with ollama:MODEL."),
    click.option("--base-url", envvar="TIPBENCH_JUDGE_BASE_URL", default="https://api.openai.com/v1",
                 show_default=True, help="OpenAI-compatible endpoint, for openai:MODEL; the key comes from OPENAI_API_KEY."),
    click.option("--passes", type=click.IntRange(1, 99), default=1, show_default=True,
                 help="An LLM judge scores every tip this often; the median counts."),
    click.option("--judge-prompt", type=click.Path(exists=True, dir_okay=False),
                 help="YAML file with the LLM judge's prompt instead of the shipped one."),
)  # fmt: skip
weights_option = click.option(
    "--weights", metavar="C=W,...", help="Weights of the criteria, e.g. relevance=2,actionability=1,tone=1."
)
repeats_option = click.option(
    "--repeats", default="5%", show_default=True, help="Share of tips shown twice, to measure self-consistency."
)


def parse_weights(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        return {name.strip(): float(weight) for name, weight in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise InputError(f"--weights {text!r}: write it like relevance=2,actionability=1,tone=1") from error


def parse_share(text: str) -> float:
    """`"5%"` or `"0.05"` -> 0.05."""
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise InputError(f"--repeats {text!r}: write it like 5% or 0.05") from error
    if not 0 <= value <= 1:
        raise InputError(f"--repeats {text!r}: must be between 0% and 100%")
    return value
