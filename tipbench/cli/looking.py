"""Commands that look and change nothing: `models`, `plan`, `doctor`, `schema`."""

from __future__ import annotations

import contextlib
import sys

import click

from tipbench.cli.options import config_options, json_option, number_between, whole_number
from tipbench.cli.printing import console, print_json
from tipbench.cli.services import engine_of, store_of
from tipbench.config import Config
from tipbench.errors import EXIT_UNREACHABLE


@click.command(
    short_help="What the engine has, and what the policy says.",
    epilog="\b\nExamples:\n  tipbench models --memory-limit 2Gi\n  tipbench models --fits 1Gi",
)
@config_options(
    "models",
    "engine",
    "ollama_url",
    "engine_url",
    "parameters",
    "mlflow_url",
    "max_model_b",
    "num_ctx",
    "parallel",
    "memory_limit",
    "num_thread",
)
@click.option("--fits", "fits_in", metavar="SIZE", default="",
              help="Which models fit into this much memory (e.g. 1Gi), and with which num_ctx at most.")  # fmt: skip
@json_option
def models(config: Config, fits_in: str, as_json: bool) -> None:
    """What the engine has: parameters, quantisation, size, estimated memory, and the policy's verdict."""
    from tipbench.policy import parse_bytes
    from tipbench.stages import models as stage

    try:
        limit = parse_bytes(fits_in)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fits") from error
    with engine_of(config) as engine:
        result = stage.run(config, engine, limit)
    if as_json:
        print_json(result)
    else:
        stage.render(result, console(), limit)


@click.command(
    short_help="What counts of an experiment, what is judged, and what waits.",
    epilog="\b\nExample:\n  tipbench status --experiment tip-bench-auto",
)
@config_options("experiment", "mlflow_url", "rubric")
@click.option("--for", "asked_for", default="anyone", show_default=True, metavar="WHO",
              help="Count what waits for WHO: anyone (but the baseline), manual (a person or an agent), llm, baseline, or a "
              "judge's name.")  # fmt: skip
@json_option
def status(config: Config, asked_for: str, as_json: bool) -> None:
    """What counts of an experiment under a rubric, what is judged, by whom, and what waits for whom."""
    from tipbench.catalog import load_rubric
    from tipbench.stages import export
    from tipbench.stages import status as stage

    with store_of(config) as store:
        result = stage.run(config.experiment, store, load_rubric(config.rubric or None), export.asked_by(asked_for))
    if as_json:
        click.echo(result.model_dump_json(by_alias=True, indent=2))
    else:
        stage.render(result, console())


@click.command(
    name="next",
    short_help="What an experiment in rounds needs next, or why it stops.",
    epilog="\b\nExample:\n  tipbench next --experiment tip-bench-auto",
)
@config_options("experiment", "mlflow_url", "rubric", "margin")
@click.option("--take-back", default="", metavar="MODEL|PROMPT",
              help="Put a cell that was dropped into the race again. It is recorded, and it has to catch up.")  # fmt: skip
@click.option("--as", "name", default="", help="Your name, for the record of --take-back.")
@click.option("--reason", default="", help="Why, for the record of --take-back.")
@json_option
def next_(config: Config, take_back: str, name: str, reason: str, as_json: bool) -> None:
    """What to do next in an experiment with until = sure, and why: these cells, this block, or stop."""
    from tipbench.catalog import load_rubric
    from tipbench.stages import next as stage

    if take_back and not name:
        raise click.UsageError("--take-back needs --as YOUR_NAME: it is recorded")
    rubric = load_rubric(config.rubric or None)
    with store_of(config) as store:
        result = stage.run(
            config.experiment,
            store,
            rubric,
            margin=rubric.margin(config.margin),
            take_back=take_back,
            by=name,
            reason=reason,
        )
    if as_json:
        click.echo(result.model_dump_json(by_alias=True, indent=2))
    else:
        stage.render(result, console())


@click.command(
    short_help="How small a difference a design could detect.",
    epilog="\b\nExample:\n  tipbench plan --n-scenarios 8 --n-tips 5 --judges 2",
)
@config_options(
    "models",
    "prompts",
    "n_tips",
    "n_scenarios",
    "experiment",
    "mlflow_url",
    "scenarios",
    "rubric",
    "until",
    "block",
    "margin",
)
@click.option("--judges", default=1, show_default=True, type=whole_number(1, 1000), help="Judges who score every tip.")
@click.option("--power", default=0.8, show_default=True, type=number_between(0.01, 0.999),
              help="Chance of detecting a difference of the size that is printed.")  # fmt: skip
@click.option("--from-data", is_flag=True, help="Take the spreads from --experiment instead of assumed ones.")
@json_option
def plan(config: Config, judges: int, power: float, from_data: bool, as_json: bool) -> None:
    """The smallest difference between two cells that this design could detect."""
    from tipbench.stages import plan as stage

    with store_of(config) if from_data else contextlib.nullcontext() as store:
        result = stage.run(config, judges=judges, power=power, store=store)
    if as_json:
        print_json(result)
    else:
        stage.render(result, console())


@click.command(epilog="\b\nExample:\n  tipbench doctor --mlflow-url http://localhost:5000")
@config_options()
@json_option
def doctor(config: Config, as_json: bool) -> None:
    """Is everything reachable and sane, and what to do if not."""
    from tipbench.stages import doctor as stage

    result = stage.run(config)
    if as_json:
        print_json(result)
    else:
        stage.render(result, console())
    sys.exit(EXIT_UNREACHABLE if result.unreachable else 2 if result.failed else 0)


@click.command(epilog="\b\nExample:\n  tipbench schema exchange > exchange.schema.json")
@click.argument("name", type=click.Choice(["config", "exchange", "leaderboard", "cell", "status", "next"]))
def schema(name: str) -> None:
    """Print the JSON schema of what crosses tipbench's borders."""
    import json

    from tipbench.stages.schemas import schema_of

    click.echo(json.dumps(schema_of(name), indent=2))
