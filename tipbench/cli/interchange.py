"""`tipbench import` and `tipbench export-scores`: outputs and scores as tables."""

from __future__ import annotations

import click

from tipbench.cli.options import config_options, json_option
from tipbench.cli.printing import me, print_json, where
from tipbench.cli.root import Command
from tipbench.cli.services import store_of
from tipbench.config import Config, split_list


@click.command(
    "import",
    cls=Command,
    short_help="Bring outputs and scores of your own, as CSV or JSONL.",
    epilog="\b\nExample:\n  tipbench import scores.csv --experiment tip-bench-own --dry-run",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True))
@config_options("experiment", "mlflow_url", "rubric")
@click.option("--ignore", default="", metavar="COLUMNS", help="Columns (comma-separated) to pass over.")
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@json_option
def import_table(config: Config, file: str, ignore: str, dry_run: bool, as_json: bool) -> None:
    """Bring outputs, and scores where they are there, into an experiment: one row a candidate, or a judge's score of one.

    Columns: model, prompt, scenario, text; where known index, situation, output_tokens, output_s, peak_memory_bytes; for scores judge, judge_kind
    and one for each criterion of the rubric. All or nothing; the same file again changes nothing.
    """
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.progress import bar
    from tipbench.stages import importing

    with Path(file).open("rb") as opened, store_of(config) as store, bar(as_json, "cells") as on_progress:
        result = importing.run(
            opened,
            file,
            config.experiment,
            store,
            load_rubric(config.rubric or None),
            ignore=split_list(ignore),
            dry_run=dry_run,
            on_progress=on_progress,
        )
    if as_json:
        print_json(result)
        return
    would = "would bring" if dry_run else "brought"
    click.echo(
        f"{result.experiment}: {would} {result.new_candidates} new candidates ({result.known_candidates} were there) in {result.cells} "
        f"cells; {result.new_scores} new and {result.changed_scores} changed scores, {result.unchanged_scores} unchanged."
    )
    if not dry_run:
        step = "compare" if result.judges else "judge export --out judge.json"
        click.echo(f"Next: {me()} {step} --experiment {result.experiment}{where(config, 'rubric')}")


@click.command(
    "export-scores",
    cls=Command,
    short_help="Write outputs and scores as CSV or JSONL.",
    epilog="\b\nExample:\n  tipbench export-scores --experiment tip-bench-auto --out scores.csv",
)
@config_options("experiment", "mlflow_url", "rubric")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The file to write; .jsonl makes it JSONL.")
@json_option
def export_scores(config: Config, out: str, as_json: bool) -> None:
    """Write what counts in an experiment as a table, one row a candidate and judge: for a spreadsheet, a data frame, or import."""
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.stages import export_scores as stage

    with store_of(config) as store:
        result = stage.run(config.experiment, store, load_rubric(config.rubric or None), Path(out))
    if as_json:
        print_json(result)
    else:
        judges = f" by {', '.join(result.judges)}" if result.judges else ""
        click.echo(f"{out}: {result.rows} rows, {result.candidates} candidates, scores{judges or ' by nobody yet'}.")
