"""`tipbench run`: everything in one go."""

from __future__ import annotations

import sys
from typing import Any

import click

from tipbench.cli.collecting import collect_cells, say_collected
from tipbench.cli.comparing import compare_cells, show_leaderboard
from tipbench.cli.exchange_files import put_aside
from tipbench.cli.judging import apply_file, asked_judge, name_of_judge, say_applied, say_scored, score_file
from tipbench.cli.options import (
    config_options,
    json_option,
    judge_identity_options,
    parallel_option,
    repeats_option,
    weights_option,
)
from tipbench.cli.printing import me, where
from tipbench.cli.root import Command
from tipbench.cli.services import store_of
from tipbench.config import Config
from tipbench.errors import EXIT_SOME_FAILED


@click.command(cls=Command, epilog="\b\nExample:\n  tipbench run --models qwen2.5:0.5b --judge baseline --out report/")
@config_options()
@click.option("--judge", "spec", default="baseline", show_default=True,
              help="terminal, baseline, ollama:MODEL, openai:MODEL or embedded:MODEL.")  # fmt: skip
@click.option("--as", "name", help="Your name as judge in the terminal.")
@click.option("--out", default="report", show_default=True, type=click.Path(file_okay=False),
              help="Folder for judge.json and the report.")  # fmt: skip
@judge_identity_options
@parallel_option("--judge-parallel")
@repeats_option
@weights_option
@json_option
def run(
    config: Config,
    spec: str,
    name: str | None,
    out: str,
    repeats: float,
    weights: tuple[str, ...],
    as_json: bool,
    judge_parallel: int | None,
    **engine: Any,
) -> None:
    """Everything in one go: collect, export, score, apply, compare."""
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.counting.judged import BASELINE, MANUAL, Asked
    from tipbench.judging.validate import write_exchange
    from tipbench.stages import export

    folder, file = Path(out), Path(out) / "judge.json"
    folder.mkdir(parents=True, exist_ok=True)
    collected = collect_cells(config, quiet=as_json)
    if not as_json:
        say_collected(collected)
    with store_of(config) as store:
        judge_name = None if spec == "terminal" and name is None else name_of_judge(spec, name)
        asked: Asked | None
        if spec == "terminal":
            asked = Asked(name) if name else Asked(MANUAL)
        elif spec == BASELINE:
            asked = Asked(BASELINE)
        else:
            asked = asked_judge(config, spec, **engine)
        exported = export.run(
            config.experiment,
            store,
            load_rubric(config.rubric or None),
            judge=judge_name,
            asked=asked,
            repeats=repeats,
        )
    scored = None
    if exported.n_items:
        # An interrupted run is resumed: a file that was begun for the same export keeps its scores, and another's is kept aside.
        if not put_aside(file, exported.exchange.export_id):
            write_exchange(exported.exchange, file)
        scored = score_file(config, str(file), spec, name, quiet=as_json, judge_parallel=judge_parallel, **engine)
        applied = apply_file(config, str(file))
        if not as_json:
            say_scored(scored)
            say_applied(applied, dry_run=False)
    elif not as_json:
        click.echo(
            f"Nothing is pending: {judge_name or 'a person or an agent'} has scored all {exported.n_candidates} tips."
        )
    result = compare_cells(config, out, weights, (), config.seed)
    if as_json:
        click.echo(result.leaderboard.model_dump_json(by_alias=True, indent=2))
    else:
        show_leaderboard(result, out)
        click.echo(f"  the judge's file     {file}")
        if spec == "baseline":
            click.echo(
                f"These scores are the baseline judge's (text statistics). To judge for real: {me()} judge export "
                f"--experiment {config.experiment} --judge YOU --out mine.json{where(config, 'rubric')}"
            )
    sys.exit(EXIT_SOME_FAILED if collected.failed or (scored and scored.failures) else 0)
