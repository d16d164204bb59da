"""`tipbench run`: everything in one go."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

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
    whole_number,
)
from tipbench.cli.printing import console, me, where
from tipbench.cli.sampling import check, score_sample
from tipbench.cli.services import store_of
from tipbench.config import Config, split_list
from tipbench.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from pathlib import Path

    from tipbench.counting.judged import Asked
    from tipbench.stages.score import ScoreResult


@click.command(
    short_help="Everything in one go, or round after round until it is sure.",
    epilog="\b\nExample:\n  tipbench run --models qwen2.5:0.5b --judge baseline --out report/",
)
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
@click.option("--reference", "references", metavar="NAME,NAME", default="",
              help="Estimate what these judges would say of everything, from their scores on a part and another judge's on all.")  # fmt: skip
@click.option("--sample", "n_sample", type=whole_number(0, 400), default=0, metavar="K",
              help="With an LLM as judge: K scenarios, drawn at random, for the judges in --reference to score; you here, if you are one.")  # fmt: skip
@click.option("--sample-tips", type=whole_number(0, 200), default=0, metavar="T",
              help="With --sample: T tips of each cell, drawn at random. Default: all.")  # fmt: skip
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
    references: str,
    n_sample: int,
    sample_tips: int,
    **engine: Any,
) -> None:
    """Everything in one go: collect, export, score, apply, compare; with --until sure, round after round until it is sure."""
    from pathlib import Path

    folder, file = Path(out), Path(out) / "judge.json"
    check(config, spec, references, n_sample, sample_tips)
    folder.mkdir(parents=True, exist_ok=True)
    failed, names = False, split_list(references)
    while True:
        collected = collect_cells(config, quiet=as_json)
        if not as_json and (collected.planned or config.until == "all"):
            say_collected(collected)
        scored = _judge_pending(config, spec, name, file, repeats, as_json, judge_parallel, engine)
        failed = failed or bool(collected.failed) or bool(scored and scored.failures)
        if config.until == "all" or not _goes_on(config, spec, name, engine, as_json):
            break
    if n_sample and not score_sample(config, names, n_sample, sample_tips, name, folder, engine):
        click.echo(
            "The sample is not complete: this board is without reference judges. The same command goes on from here.",
            err=True,
        )
        failed, names = True, ()
    result = compare_cells(config, out, weights, (), config.seed, references=names)
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
    sys.exit(EXIT_SOME_FAILED if failed else 0)


def _asked(config: Config, spec: str, name: str | None, engine: dict[str, Any]) -> Asked | None:
    """Who is asked by `--judge`."""
    from tipbench.counting.judged import BASELINE, MANUAL, Asked

    if spec == "terminal":
        return Asked(name) if name else Asked(MANUAL)
    return Asked(BASELINE) if spec == BASELINE else asked_judge(config, spec, **engine)


def _judge_pending(
    config: Config,
    spec: str,
    name: str | None,
    file: Path,
    repeats: float,
    quiet: bool,
    parallel: int | None,
    engine: dict[str, Any],
) -> ScoreResult | None:
    """Export what is pending, have it scored, and apply it; None when nothing was."""
    from tipbench.catalog import load_rubric
    from tipbench.judging.validate import write_exchange
    from tipbench.stages import export

    judge_name = None if spec == "terminal" and name is None else name_of_judge(spec, name)
    with store_of(config) as store:
        exported = export.run(
            config.experiment,
            store,
            load_rubric(config.rubric or None),
            judge=judge_name,
            asked=_asked(config, spec, name, engine),
            repeats=repeats,
        )
    if not exported.n_items:
        if not quiet:
            who = judge_name or "a person or an agent"
            click.echo(f"Nothing is pending: {who} has scored all {exported.n_candidates} tips.")
        return None
    # An interrupted run is resumed: a file that was begun for the same export keeps its scores, and another's is kept aside.
    if not put_aside(file, exported.exchange.export_id):
        write_exchange(exported.exchange, file)
    scored = score_file(config, str(file), spec, name, quiet=quiet, judge_parallel=parallel, **engine)
    applied = apply_file(config, str(file))
    if not quiet:
        say_scored(scored)
        say_applied(applied, dry_run=False)
    return scored


def _goes_on(config: Config, spec: str, name: str | None, engine: dict[str, Any], quiet: bool) -> bool:
    """Take the looks that the scores allow, say what they decided, and whether there is another round."""
    from tipbench.catalog import load_rubric
    from tipbench.stages import next as stage

    rubric = load_rubric(config.rubric or None)
    with store_of(config) as store:
        result = stage.run(
            config.experiment,
            store,
            rubric,
            margin=rubric.margin(config.margin),
            asked=_asked(config, spec, name, engine),
        )
    if not quiet:
        # A person who is judging learns how far it is, and nothing of who is in or out before it is over.
        if spec == "terminal" and result.action != "stop":
            click.echo(
                f"{result.experiment}: {result.looks_taken} of at most {result.looks_planned} looks taken; not sure yet."
            )
        else:
            stage.render(result, console())
        if spec == "terminal" and result.action == "stop":
            click.echo("You can stop here: the decision is made.")
        if result.action == "judge":
            click.echo("Not all tips of this round are scored; the same command goes on from here.")
    return result.action == "collect"
