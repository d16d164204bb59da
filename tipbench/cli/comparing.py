"""`tipbench compare`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import click

from tipbench.cli.options import config_options, json_option, parse_weights, weights_option, whole_number
from tipbench.cli.printing import console
from tipbench.cli.root import Command
from tipbench.cli.services import store_of
from tipbench.config import Config
from tipbench.outcome import leave

if TYPE_CHECKING:
    from tipbench.stages.compare import CompareResult


@click.command(
    cls=Command,
    short_help="Rank the cells: the leaderboard with error bars.",
    epilog="\b\nExample:\n  tipbench compare --experiment tip-bench-auto --out report/",
)
@config_options("experiment", "mlflow_url", "rubric", "margin")
@click.option(
    "--out", type=click.Path(file_okay=False), help="Folder for leaderboard.json, leaderboard.md and report.html."
)
@weights_option
@click.option("--judge", "judges", multiple=True, help="Count only this judge's scores; may be repeated.")
@click.option("--seed", type=whole_number(0, 2**31 - 1), default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--versions", type=click.Choice(["current", "all"]), default="current", show_default=True,
              help="Also rank what was collected before a model, prompt or scenario was changed.")  # fmt: skip
@json_option
def compare(
    config: Config,
    out: str | None,
    weights: tuple[str, ...],
    judges: tuple[str, ...],
    seed: int,
    versions: Literal["current", "all"],
    as_json: bool,
) -> None:
    """Rank the (model, prompt) cells: the leaderboard with error bars, here, in files and in MLflow."""
    result = compare_cells(config, out, weights, judges, seed, versions)
    if as_json:
        click.echo(result.leaderboard.model_dump_json(by_alias=True, indent=2))
    else:
        show_leaderboard(result, out)
    leave("compare", 0, {"cells": len(result.leaderboard.cells), "run_id": result.run_id})


def compare_cells(
    config: Config,
    out: str | None,
    weights: tuple[str, ...],
    judges: tuple[str, ...],
    seed: int,
    versions: Literal["current", "all"] = "current",
) -> CompareResult:
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.stages import compare as stage

    with store_of(config) as store:
        result = stage.run(
            config.experiment,
            store,
            load_rubric(config.rubric or None),
            weights=parse_weights(weights),
            judges=judges,
            seed=seed,
            versions=versions,
            margin=config.margin,
        )
    if out is not None:
        from tipbench.files import write_whole

        board = result.leaderboard.model_dump_json(by_alias=True, indent=2) + "\n"
        for name, content in (
            ("leaderboard.json", board),
            ("leaderboard.md", result.markdown),
            ("report.html", result.html),
        ):
            write_whole(Path(out) / name, content.encode())
    return result


def show_leaderboard(result: CompareResult, out: str | None) -> None:
    from tipbench.leaderboard.terminal import render

    render(result.leaderboard, console())
    if out is not None:
        click.echo(f"  leaderboard (JSON)   {os.path.join(out, 'leaderboard.json')}")
        click.echo(f"  report (HTML)        {os.path.join(out, 'report.html')}")
