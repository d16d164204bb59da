"""`tipbench compare`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import click

from tipbench.cli.options import config_options, json_option, parse_weights, weights_option
from tipbench.cli.printing import console
from tipbench.cli.services import store_of
from tipbench.config import Config, split_list
from tipbench.outcome import leave

if TYPE_CHECKING:
    from tipbench.stages.compare import CompareResult


@click.command(
    short_help="Rank the cells: the leaderboard with error bars.",
    epilog="\b\nExample:\n  tipbench compare --experiment tip-bench-auto --out report/",
)
@config_options("experiment", "mlflow_url", "rubric", "margin")
@click.option(
    "--out", type=click.Path(file_okay=False), help="Folder for leaderboard.json, leaderboard.md and report.html."
)
@weights_option
@click.option("--judge", "judges", multiple=True,
              help="Count only this judge's scores; with --reference, this judge's stand in for theirs. May be repeated.")  # fmt: skip
@click.option("--reference", "references", metavar="NAME,NAME", default="",
              help="Estimate what these judges would say of everything, from their scores on a part and another judge's on all.")  # fmt: skip
@click.option("--prefer", type=click.Choice(["memory", "speed"]), default="memory", show_default=True,
              help="What makes a cell cheap, among those that are good enough.")  # fmt: skip
@click.option(
    "--schema", type=click.IntRange(1, 2), default=2, show_default=True, help="Version of the leaderboard's JSON."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--versions", type=click.Choice(["current", "all"]), default="current", show_default=True,
              help="Also rank what was collected before a model, prompt or scenario was changed.")  # fmt: skip
@json_option
def compare(
    config: Config,
    out: str | None,
    weights: str | None,
    judges: tuple[str, ...],
    references: str,
    prefer: Literal["memory", "speed"],
    schema: int,
    seed: int,
    versions: Literal["current", "all"],
    as_json: bool,
) -> None:
    """Rank the (model, prompt) cells: the leaderboard with error bars, here, in files and in MLflow."""
    result = compare_cells(
        config, out, weights, judges, seed, versions, references=split_list(references), prefer=prefer, schema=schema
    )
    if as_json:
        from tipbench.leaderboard.model import to_json

        click.echo(to_json(result.leaderboard, schema))
    else:
        show_leaderboard(result, out)
    leave("compare", 0, {"cells": len(result.leaderboard.cells), "run_id": result.run_id})


def compare_cells(
    config: Config,
    out: str | None,
    weights: str | None,
    judges: tuple[str, ...],
    seed: int,
    versions: Literal["current", "all"] = "current",
    *,
    references: tuple[str, ...] = (),
    prefer: Literal["memory", "speed"] = "memory",
    schema: int = 2,
) -> CompareResult:
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.leaderboard.model import to_json
    from tipbench.stages import compare as stage

    with store_of(config) as store:
        result = stage.run(
            config.experiment,
            store,
            load_rubric(config.rubric or None),
            weights=parse_weights(weights),
            judges=judges,
            references=references,
            margin=config.margin,
            prefer=prefer,
            seed=seed,
            versions=versions,
            schema=schema,
        )
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "leaderboard.json").write_text(to_json(result.leaderboard, schema) + "\n", encoding="utf-8")
        (folder / "leaderboard.md").write_text(result.markdown, encoding="utf-8")
        (folder / "report.html").write_text(result.html, encoding="utf-8")
    return result


def show_leaderboard(result: CompareResult, out: str | None) -> None:
    from tipbench.leaderboard.terminal import render

    render(result.leaderboard, console())
    if out is not None:
        click.echo(f"  leaderboard (JSON)   {os.path.join(out, 'leaderboard.json')}")
        click.echo(f"  report (HTML)        {os.path.join(out, 'report.html')}")
