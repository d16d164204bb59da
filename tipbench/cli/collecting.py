"""`tipbench collect`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tipbench.cli.options import config_options, json_option
from tipbench.cli.printing import print_json
from tipbench.cli.root import Command
from tipbench.cli.services import claimed, engine_of, store_of
from tipbench.config import Config
from tipbench.errors import EXIT_SOME_FAILED
from tipbench.outcome import leave

if TYPE_CHECKING:
    from tipbench.engines.base import Engine
    from tipbench.stages.collect import CollectResult
    from tipbench.store import Store


@click.command(
    cls=Command, epilog="\b\nExample:\n  tipbench collect --models qwen2.5:0.5b,gemma3:1b --n-scenarios 2 --n-tips 3"
)
@config_options()
@json_option
def collect(config: Config, as_json: bool) -> None:
    """Have every (model, prompt) write tips for every scenario."""
    result = collect_cells(config, quiet=as_json)
    if as_json:
        print_json(result)
    else:
        say_collected(result)
    code = EXIT_SOME_FAILED if result.failed else 0
    counts = {"planned": result.planned, "skipped": result.skipped, "collected": result.collected}
    why = [str(one) for one in result.why]
    leave("collect", code, {**counts, "failed": result.failed, "why": why, "refused": result.refused})
    sys.exit(code)


def collect_cells(config: Config, quiet: bool) -> CollectResult:
    from tipbench.progress import reporter
    from tipbench.stages import collect as stage

    engine: Engine
    store: Store
    with (
        claimed(config) as (config, held),
        engine_of(config, held) as engine,
        store_of(config) as store,
        reporter(quiet) as on_event,
    ):
        return stage.run(config, engine, store, on_event, held)


def say_collected(result: CollectResult) -> None:
    click.echo(
        f"{result.experiment}: {result.planned} cells, {result.skipped} were there before, {result.collected} collected, "
        f"{sum(result.failed.values())} failed, in {result.wall_s:.0f} s."
    )
    for one in result.why:
        click.echo(f"  {one}")
    for warning in result.warnings:
        click.echo(f"  warning: {warning}")
