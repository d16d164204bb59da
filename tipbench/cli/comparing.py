"""`tipbench compare`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Literal

import click

from tipbench.cli.options import (
    config_options,
    json_option,
    parse_weights,
    weights_option,
    whole_number,
)
from tipbench.cli.printing import console
from tipbench.cli.services import store_of, tell_once
from tipbench.config import Config, split_list
from tipbench.errors import EXIT_GATE, InputError
from tipbench.outcome import leave

if TYPE_CHECKING:
    from tipbench.stages.compare import CompareResult


@click.command(
    short_help="Rank the cells: the leaderboard with error bars.",
    epilog="\b\nExample:\n  tipbench compare --experiment tip-bench-auto --out report/",
)
@config_options("experiment", "mlflow_url", "rubric", "margin", "notify_url")
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
    "--schema", type=whole_number(1, 2), default=2, show_default=True, help="Version of the leaderboard's JSON."
)
@click.option("--seed", type=whole_number(0, 2**31 - 1), default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--versions", type=click.Choice(["current", "all"]), default="current", show_default=True,
              help="Also rank what was collected before a model, prompt or scenario was changed.")  # fmt: skip
@click.option("--scores", type=click.Choice(["whole", "expected"]), default="whole", show_default=True,
              help="Take LLM judges at their whole scores, or at their expected ones where they gave them.")  # fmt: skip
@click.option("--against", metavar="EXPERIMENT",
              help="Compare each cell with the same one of this experiment instead; --out gets gate.json and gate.md.")  # fmt: skip
@click.option("--fail-on", type=click.Choice(["worse", "not-shown-within-margin"]),
              help="With --against: end with exit code 6 when a cell is shown worse, or when a loss above --margin is not excluded.")  # fmt: skip
@json_option
def compare(
    config: Config,
    out: str | None,
    weights: tuple[str, ...],
    judges: tuple[str, ...],
    references: str,
    prefer: Literal["memory", "speed"],
    schema: int,
    seed: int,
    versions: Literal["current", "all"],
    scores: Literal["whole", "expected"],
    against: str | None,
    fail_on: Literal["worse", "not-shown-within-margin"] | None,
    as_json: bool,
) -> None:
    """Rank the (model, prompt) cells: the leaderboard with error bars, here, in files and in MLflow.

    With --against, a gate: every cell that both experiments have, paired by scenario, under the same rubric and judges.
    """
    if against is not None:
        sys.exit(gate_cells(config, out, weights, judges, scores, against, fail_on, as_json))
    if fail_on is not None:
        raise InputError("--fail-on needs --against EXPERIMENT")
    result = compare_cells(
        config,
        out,
        weights,
        judges,
        seed,
        versions,
        scores,
        references=split_list(references),
        prefer=prefer,
        schema=schema,
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
    weights: tuple[str, ...],
    judges: tuple[str, ...],
    seed: int,
    versions: Literal["current", "all"] = "current",
    scores: Literal["whole", "expected"] = "whole",
    *,
    references: tuple[str, ...] = (),
    prefer: Literal["memory", "speed"] = "memory",
    schema: int = 2,
) -> CompareResult:
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.leaderboard.model import to_json
    from tipbench.leaderboard.options import BoardOptions
    from tipbench.notice import board_ready
    from tipbench.stages import compare as stage

    with store_of(config) as store:
        result = stage.run(
            config.experiment,
            store,
            load_rubric(config.rubric or None),
            BoardOptions(
                weights=parse_weights(weights),
                judges=judges,
                references=references,
                margin=config.margin,
                prefer=prefer,
                seed=seed,
                versions=versions,
                scores=scores,
            ),
            schema=schema,
        )
        board = result.leaderboard
        place = out or str(config.store_url)
        tell_once(
            config, store, result.run_id,
            lambda: board_ready(board.experiment, board.headline, len(board.cells), sum(c.n_judged for c in board.cells), place),
        )  # fmt: skip
    if out is not None:
        from tipbench.files import write_whole

        body = to_json(result.leaderboard, schema) + "\n"
        for name, content in (
            ("leaderboard.json", body),
            ("leaderboard.md", result.markdown),
            ("report.html", result.html),
        ):
            write_whole(Path(out) / name, content.encode())
    return result


def gate_cells(
    config: Config,
    out: str | None,
    weights: tuple[str, ...],
    judges: tuple[str, ...],
    scores: Literal["whole", "expected"],
    against: str,
    fail_on: Literal["worse", "not-shown-within-margin"] | None,
    as_json: bool,
) -> int:
    """The gate: found, shown and written; its exit code."""
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.leaderboard.gate import render, to_markdown
    from tipbench.stages import gate as stage

    rubric = load_rubric(config.rubric or None)
    with store_of(config) as store:
        gate = stage.run(
            config.experiment,
            against,
            store,
            rubric,
            fail_on=fail_on,
            margin=rubric.margin(config.margin),
            weights=parse_weights(weights),
            judges=judges,
            scores=scores,
        )
    body = gate.model_dump_json(by_alias=True, indent=2)
    if out is not None:
        from tipbench.files import write_whole

        write_whole(Path(out) / "gate.json", (body + "\n").encode())
        write_whole(Path(out) / "gate.md", to_markdown(gate).encode())
    if as_json:
        click.echo(body)
    else:
        render(gate, console())
        if out is not None:
            click.echo(f"  for a pull request   {os.path.join(out, 'gate.md')}")
    code = EXIT_GATE if gate.failed else 0
    leave(
        "compare",
        code,
        {"cells": len(gate.cells), "failed": sum(c.fails for c in gate.cells)},
        gate.headline if code else "",
    )
    return code


def show_leaderboard(result: CompareResult, out: str | None) -> None:
    from tipbench.leaderboard.terminal import render

    render(result.leaderboard, console())
    if out is not None:
        click.echo(f"  leaderboard (JSON)   {os.path.join(out, 'leaderboard.json')}")
        click.echo(f"  report (HTML)        {os.path.join(out, 'report.html')}")
