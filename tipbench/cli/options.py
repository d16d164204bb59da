"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from tipbench import quantities
from tipbench.config import ENV_PREFIX, KEYS, Config, build, read, type_of
from tipbench.errors import InputError

ENVIRONMENT = ParameterSource.ENVIRONMENT


class Value(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks only
    """An option's value by one of the readers in `quantities`; a fault names the variable when it came from one."""

    def __init__(
        self, read: Callable[[str], Any], metavar: str, low: float | None = None, high: float | None = None
    ) -> None:
        self.name = metavar
        self._read, self._low, self._high = read, low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value in the reader's unit, between the bounds."""
        try:
            found = self._read(value) if isinstance(value, str) else value
            if isinstance(found, int | float) and not isinstance(found, bool):
                quantities.within(found, self._low, self._high)
        except ValueError as error:
            hint = None
            if ctx is not None and param is not None and ctx.get_parameter_source(param.name or "") is ENVIRONMENT:
                hint = str(param.envvar)
            raise click.BadParameter(str(error), ctx, param, hint) from error
        return found


def whole_number(low: int, high: int) -> Value:
    """An option that is a whole number between these."""
    return Value(quantities.whole, "N", low, high)


def number_between(low: float, high: float) -> Value:
    """An option that is a number between these."""
    return Value(quantities.number, "X", low, high)


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
    variable = ENV_PREFIX + name.upper()
    text = rules["help"] + (f"  [default: {default}]" if default not in ("", False) else "")
    if type_of(name) is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, envvar=variable, help=text)
    metavar = {str: "TEXT", int: "N", float: "X"}[type_of(name)]
    if rules.get("choices"):
        metavar = "|".join(rules["choices"])
    # Bounds are checked with all other keys, so that every fault is listed at once.
    kind = Value(functools.partial(read, name), metavar)
    if rules.get("many"):
        # --models a --models b is --models a,b.
        return click.option(flag, name, type=kind, multiple=True, metavar=metavar, envvar=variable, help=text)
    return click.option(flag, name, type=kind, default=None, metavar=metavar, envvar=variable, help=text)


def _config(given: dict[str, Any], config_file: str | None) -> Config:
    """Options and environment over --config over defaults, checked by the one definition."""
    values: dict[str, Any] = {}
    if config_file:
        values = read_mapping(config_file)
        build(values, config_file)
    explicit = {
        name: ",".join(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None and value != ()
    }
    return build(_with_folder(values | explicit), "options", _origin)


def _origin(name: str) -> str:
    """The variable from which a key's value came, or an empty text."""
    ctx = click.get_current_context(silent=True)
    from_variable = ctx is not None and ctx.get_parameter_source(name) is ENVIRONMENT
    return ENV_PREFIX + name.upper() if from_variable else ""


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


def read_mapping(path: str) -> dict[str, Any]:
    """The keys and values of a YAML or JSON file. InputError names file and line, and keys that stand twice."""
    from pathlib import Path

    from tipbench.documents import read_document

    document = read_document(Path(path))
    if document.value is None and not document.faults:
        return {}
    if not isinstance(document.value, dict):
        raise InputError(f"{path}: needs keys and values at the top, not {document.kind}")
    document.refuse()
    return {str(key): value for key, value in document.value.items()}


def _apply_options(*options: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[Callable[..., Any]], Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


judge_identity_options = _apply_options(
    click.option("--base-url", envvar="TIPBENCH_JUDGE_BASE_URL", default="https://api.openai.com/v1",
                 show_default=True, help="OpenAI-compatible endpoint, for openai:MODEL; the key comes from OPENAI_API_KEY."),
    click.option("--passes", type=whole_number(1, 99), default=1, show_default=True,
                 help="An LLM judge scores every tip this often; the median counts."),
    click.option("--judge-prompt", type=click.Path(exists=True, dir_okay=False),
                 help="YAML file with the LLM judge's prompt instead of the shipped one."),
    click.option("--rationale", type=click.Choice(["before", "after", "none"]), default="before", show_default=True,
                 envvar="TIPBENCH_JUDGE_RATIONALE",
                 help="Where an LLM judge writes its sentence of reason: before the scores, after them, or not at all."),
)  # fmt: skip
"""What makes a judge that is a model the judge it is. Wants the configuration's `ollama_url` beside it."""


def parallel_option(flag: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """How many tips a judge that is a model is asked about at once; `run` has a `--parallel` of its own."""
    return click.option(
        flag, "judge_parallel", type=click.IntRange(1, 64), envvar="TIPBENCH_JUDGE_PARALLEL", metavar="N",
        help="Tips an LLM judge is asked about at once.  [default: 8 for openai, $OLLAMA_NUM_PARALLEL or 1 for ollama, 1 for embedded]",
    )  # fmt: skip


weights_option = click.option(
    "--weights", metavar="C=W,...", multiple=True,
    help="Weights of the criteria, e.g. relevance=2,actionability=1,tone=1; a criterion that is not named gets 0.",
)  # fmt: skip
repeats_option = click.option(
    "--repeats", type=Value(quantities.share, "SHARE"), default="5%", show_default=True,
    help="Share of tips shown twice, to measure self-consistency.",
)  # fmt: skip


def parse_weights(texts: tuple[str, ...]) -> dict[str, float] | None:
    """`("relevance=2", "tone=1,...")` -> criterion -> weight; None when nothing was said. Raises InputError."""
    if not texts:
        return None
    found: dict[str, float] = {}
    shape = "write it like relevance=2,actionability=1,tone=1"
    for part in ",".join(texts).split(","):
        name, equals, weight = (one.strip() for one in part.partition("="))
        if not (name and equals):
            raise InputError(f"--weights {quantities.shown(','.join(texts))}: {shape}")
        if name in found:
            raise InputError(f"--weights: {name} has two weights, {found[name]:g} and {weight}; give it one")
        try:
            found[name] = quantities.number(weight)
            quantities.within(found[name], 0, 1_000_000)
        except ValueError as error:
            raise InputError(f"--weights: {name}: {error}; {shape}") from error
    return found
