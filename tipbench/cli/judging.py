"""`tipbench judge`: export, score, apply, agreement."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from tipbench.cli.exchange_files import guard_scores, put_aside
from tipbench.cli.options import (
    config_options,
    json_option,
    judge_identity_options,
    parallel_option,
    repeats_option,
    whole_number,
)
from tipbench.cli.printing import console, me, print_json, rubric_for, typed, where
from tipbench.cli.root import InOrder
from tipbench.cli.services import claimed, store_of, tell_once
from tipbench.config import Config, split_list
from tipbench.errors import EXIT_SOME_FAILED, InputError
from tipbench.outcome import leave

if TYPE_CHECKING:
    from tipbench.counting.judged import Asked
    from tipbench.stages.apply import ApplyResult
    from tipbench.stages.score import ScoreResult


@click.group(cls=InOrder)
def judge() -> None:
    """Hand candidates to a judge, and take the scores back."""


@judge.command(
    "export",
    short_help="Write the blind exchange file for a judge.",
    epilog="\b\nExample:\n  tipbench judge export --experiment tip-bench-auto --out judge.json",
)
@config_options("experiment", "mlflow_url", "rubric", "ollama_url", "notify_url")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The exchange file to write.")
@click.option("--judge", "judge_name", help="Export what this judge has not scored yet. Default: what nobody has.")
@click.option("--for", "asked_for", metavar="WHO",
              help="Export what waits for WHO: manual (a person or an agent), llm, baseline, a judge's name, or an LLM judge as "
              "ollama:MODEL, in the version that it has now. Default: anybody but the baseline, or --judge.")  # fmt: skip
@judge_identity_options
@click.option(
    "--seed",
    type=whole_number(-(2**31), 2**31 - 1),
    default=0,
    show_default=True,
    help="Another seed shuffles in another order.",
)
@repeats_option
@click.option("--force", is_flag=True, help="Replace a file that already holds scores.")
@click.option("--aside", is_flag=True, help="Keep a file that already holds scores under another name, and go on.")
@click.option("--expect", "expected", multiple=True, metavar="MODELS",
              help="Fail when none of these models (comma-separated) has anything to judge.")  # fmt: skip
@click.option("--sample", "n_sample", type=whole_number(0, 400), default=0, metavar="K",
              help="Only K scenarios, drawn at random by --seed: what reference judges score (compare --reference). Asking again "
              "gives what is left of it.")  # fmt: skip
@click.option("--tips", "sample_tips", type=whole_number(0, 200), default=0, metavar="T",
              help="With --sample: T tips of each cell, drawn at random. Default: all.")  # fmt: skip
@json_option
def judge_export(
    config: Config,
    out: str,
    judge_name: str | None,
    asked_for: str | None,
    seed: int,
    repeats: float,
    force: bool,
    aside: bool,
    expected: tuple[str, ...],
    n_sample: int,
    sample_tips: int,
    as_json: bool,
    **engine: Any,
) -> None:
    """Write the blind exchange file: everything a judge needs, nothing that tells models or prompts apart."""
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.counting.judged import ANYONE, BASELINE, LLM
    from tipbench.judging.validate import write_exchange
    from tipbench.notice import judge_wanted
    from tipbench.stages import export

    if sample_tips and not n_sample:
        raise InputError("--tips needs --sample K")
    if not aside:
        guard_scores(Path(out), force)
    asked = asked_judge(config, asked_for, **engine)
    rubric = load_rubric(config.rubric or None)
    with store_of(config) as store:
        result = export.run(
            config.experiment,
            store,
            rubric,
            judge=judge_name,
            asked=asked,
            seed=seed,
            repeats=repeats,
            expect=split_list(",".join(expected)),
            n_sample=n_sample,
            sample_tips=sample_tips,
        )
        wanted = result.n_items - result.n_repeats
        if wanted and (asked is None or asked.who not in (LLM, BASELINE, ANYONE)) and not _is_program(asked_for):
            tell_once(
                config,
                store,
                result.exchange.export_id,
                lambda: judge_wanted(config.experiment, wanted, result.n_cells, out),
            )
    if not put_aside(Path(out), result.exchange.export_id, even_ours=force):
        write_exchange(result.exchange, Path(out))
    summary = {
        "file": out,
        "items": result.n_items,
        "repeats": result.n_repeats,
        "cells": result.n_cells,
        "candidates": result.n_candidates,
        "rubric": rubric.hash,
        "pending": result.n_items - result.n_repeats,
    }
    leave("export", 0, summary)
    if as_json:
        print_json(summary)
    elif result.n_items:
        click.echo(f"{out}: {result.n_items} tips to score ({result.n_repeats} of them shown twice).")
        name = f" --as {judge_name}" if judge_name else ""
        click.echo(
            f"Next: {me()} judge score {typed(out)}{name}{where(config)}, or hand the file to an agent; "
            f"then {me()} judge apply {typed(out)}{where(config)}"
        )
    else:
        click.echo(f"{out}: nothing is pending, all {result.n_candidates} candidates have scores.")
        click.echo(
            f"For a second opinion: {me()} judge export --judge NAME --experiment {config.experiment} --out {typed(out)}"
            f"{where(config, 'rubric')}"
        )


@judge.command(
    "score",
    short_help="Fill the scores in: you in the terminal, or a named judge.",
    epilog="\b\nExamples:\n  tipbench judge score judge.json\n  tipbench judge score judge.json --with ollama:qwen2.5:7b --passes 3",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--with", "spec", default="terminal", show_default=True,
              help="terminal, baseline, ollama:MODEL, openai:MODEL or embedded:MODEL.")  # fmt: skip
@click.option("--as", "name", help="Your name as judge in the terminal. Default: your login name.")
@click.option("--apply", "and_apply", is_flag=True, help="Write the scores to MLflow right away.")
@judge_identity_options
@parallel_option("--parallel")
@config_options("mlflow_url", "ollama_url", "num_thread", "memory_limit")
@json_option
def judge_score(
    config: Config, file: str, spec: str, name: str | None, and_apply: bool, as_json: bool, **engine: Any
) -> None:
    """Fill the scores in: you in the terminal, or a judge that is named. Stop and resume at will."""
    result = score_file(config, file, spec, name, quiet=as_json, **engine)
    applied = apply_file(config, file) if and_apply else None
    if as_json:
        print_json({"scored": result, "applied": applied} if applied else result)
    else:
        say_scored(result)
        if applied:
            say_applied(applied, dry_run=False)
        elif result.scored or not result.left:
            click.echo(f"Next: {me()} judge apply {typed(file)}{where(config)}")
    code = EXIT_SOME_FAILED if result.failures else 0
    counts = {"judge": result.judge, "scored": result.scored, "left": result.left, "failed": result.failures}
    leave("judge", code, counts | ({"pending_cells": applied.pending_cells} if applied else {}))
    sys.exit(code)


@judge.command(
    "apply",
    short_help="Check a scored file, and write its scores to MLflow.",
    epilog="\b\nExample:\n  tipbench judge apply judge.json --dry-run",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@click.option("--reason", default="", help="Why scores changed; kept in their history.")
@config_options("mlflow_url")
@json_option
def judge_apply(config: Config, file: str, dry_run: bool, reason: str, as_json: bool) -> None:
    """Check a scored file as a whole, and write its scores to MLflow. Twice changes nothing."""
    result = apply_file(config, file, dry_run=dry_run, reason=reason)
    if as_json:
        print_json(result)
    else:
        say_applied(result, dry_run)
        if not dry_run:
            with_rubric = rubric_for(result.rubric_file, result.rubric_hash)
            click.echo(
                f"Next: {me()} compare --experiment {result.experiment} --out report/{with_rubric}{where(config)}"
            )


@judge.command(
    "agreement",
    short_help="How far the judges agree, and with themselves.",
    epilog="\b\nExample:\n  tipbench judge agreement --experiment tip-bench-auto",
)
@config_options("experiment", "mlflow_url", "rubric")
@json_option
def judge_agreement(config: Config, as_json: bool) -> None:
    """How far the judges agree: alpha per criterion, kappa per pair, leniency, self-consistency."""
    from tipbench.catalog import load_rubric
    from tipbench.stages import agreement

    with store_of(config) as store:
        result = agreement.run(config.experiment, store, load_rubric(config.rubric or None))
    if as_json:
        print_json(result)
    else:
        agreement.render(result, console())


def score_file(
    config: Config,
    file: str,
    spec: str,
    name: str | None,
    *,
    quiet: bool,
    base_url: str,
    passes: int,
    judge_prompt: str | None,
    judge_parallel: int | None,
    rationale: Any,
) -> ScoreResult:
    from pathlib import Path

    from tipbench.policy import parse_bytes
    from tipbench.progress import bar
    from tipbench.stages import score as stage

    if spec == "terminal":
        return stage.in_terminal(Path(file), name or login_name(), console())
    with (
        claimed(dataclasses.replace(config, engine=spec.partition(":")[0])) as (ours, held),
        bar(quiet, "scoring") as on_progress,
    ):
        settings = stage.JudgeSettings(
            ollama_url=ours.ollama_url,
            base_url=base_url,
            passes=passes,
            judge_prompt=judge_prompt,
            parallel=judge_parallel,
            rationale=rationale,
            num_thread=ours.num_thread,
            memory_limit=parse_bytes(ours.memory_limit) or (held.memory_limit() if held else None),
        )
        return stage.run(Path(file), spec, settings, on_progress=on_progress, held=held)


def apply_file(config: Config, file: str, *, dry_run: bool = False, reason: str = "") -> ApplyResult:
    from pathlib import Path

    from tipbench.judging.validate import look_into
    from tipbench.stages import apply as stage

    reading = look_into(Path(file))
    with store_of(config) as store:
        return stage.run(reading, store, source=file, reason=reason, dry_run=dry_run)


def _is_program(text: str | None) -> bool:
    """Is the judge that `--for` names a model, which needs no notice?"""
    return (text or "").partition(":")[0] in ("ollama", "openai", "embedded")


def asked_judge(config: Config, text: str | None, **engine: Any) -> Asked | None:
    """Who is meant by `--for`; an LLM judge is asked in the version that it has now, which its server tells."""
    from tipbench.counting.judged import Asked
    from tipbench.stages import export
    from tipbench.stages import score as stage
    from tipbench.store.records import judge_version

    if not text:
        return None
    if not _is_program(text):
        return export.asked_by(text)
    identity = stage.identity_of(text, stage.JudgeSettings(ollama_url=config.ollama_urls[0], **engine))
    return Asked(identity.name, judge_version(identity.kind, identity.details))


def name_of_judge(spec: str, name: str | None) -> str:
    """The name under which a judge's scores will be filed."""
    return (name or login_name()) if spec == "terminal" else spec


def login_name() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "me"


def say_scored(result: ScoreResult) -> None:
    click.echo(f"{result.file}: {result.scored} tips scored by {result.judge}, {result.left} left.")
    for reason, count in result.failures.items():
        about = result.why.get(reason, "")
        click.echo(f"  {count} tips could not be scored: {reason}{f' ({about})' if about else ''}")


def say_applied(result: ApplyResult, dry_run: bool) -> None:
    verb = "would write" if dry_run else "wrote"
    click.echo(
        f"{result.experiment}: {verb} {result.new} new and {result.changed} changed scores by {result.judge or 'nobody'}; "
        f"{result.unchanged} unchanged, {result.unscored} unscored; {result.pending_cells} cells still pending."
    )
