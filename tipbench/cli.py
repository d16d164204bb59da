"""The command line: parse, call a stage, print. Stages are imported when their command runs, so that --help is quick."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from tipbench import __version__
from tipbench.config import ENV_PREFIX, KEYS, Config, build, split_list, type_of
from tipbench.errors import EXIT_SOME_FAILED, EXIT_UNREACHABLE, InputError, TipbenchError
from tipbench.outcome import leave

if TYPE_CHECKING:
    from tipbench.engines.base import Engine, Witness
    from tipbench.judging.exchange import Exchange
    from tipbench.stages.apply import ApplyResult
    from tipbench.stages.collect import CollectResult
    from tipbench.stages.compare import CompareResult
    from tipbench.stages.score import ScoreResult
    from tipbench.store import Store

EXIT_INTERRUPTED = 130

EXIT_CODES = """\b
Exit codes:
  0  done
  2  usage, or a bad input file
  3  the RAM policy refused every model
  4  finished, but some cells failed (all the rest is saved)
  5  a service cannot be reached
  130  interrupted; the same command resumes"""


class _InOrder(click.Group):
    """Lists its commands in the order in which one uses them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class _Group(_InOrder):
    """Turns tipbench's errors into a message and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TipbenchError as error:
            click.echo(f"Error: {error}", err=True)
            for note in getattr(error, "__notes__", ()):
                if " " in note:
                    click.echo(f"  {note}", err=True)
            leave(ctx.invoked_subcommand or "", error.exit_code, {}, str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("\nInterrupted. What was finished is saved; the same command resumes.", err=True)
            leave(ctx.invoked_subcommand or "", EXIT_INTERRUPTED, {}, "interrupted")
            ctx.exit(EXIT_INTERRUPTED)


# -- options -------------------------------------------------------------------------------------


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
    text = rules["help"] + (f"  [default: {default}]" if default not in ("", False) else "")
    if type_of(name) is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, envvar=ENV_PREFIX + name.upper(), help=text)
    metavar = {str: "TEXT", int: "N", float: "X"}[type_of(name)]
    if rules.get("choices"):
        metavar = "|".join(rules["choices"])
    return click.option(
        flag, name, type=type_of(name), default=None, metavar=metavar, envvar=ENV_PREFIX + name.upper(), help=text
    )


def _config(given: dict[str, Any], config_file: str | None) -> Config:
    """Options and environment over --config over defaults, checked by the one definition."""
    values: dict[str, Any] = {}
    if config_file:
        values = _read_mapping(config_file)
        build(values, config_file)
    explicit = {name: value for name, value in given.items() if value is not None}
    return build(_with_folder(values | explicit), "options")


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


def _read_mapping(path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML or JSON: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: needs keys and values at the top, not a {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def _apply_options(*options: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[Callable[..., Any]], Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
judge_engine_options = _apply_options(
    click.option("--ollama-url", envvar="TIPBENCH_OLLAMA_URL", default="http://localhost:11434", show_default=True,
                 help="Where Ollama listens, for --with ollama:MODEL."),
    click.option("--base-url", envvar="TIPBENCH_JUDGE_BASE_URL", default="https://api.openai.com/v1",
                 show_default=True, help="OpenAI-compatible endpoint, for openai:MODEL; the key comes from OPENAI_API_KEY."),
    click.option("--passes", type=click.IntRange(1, 99), default=1, show_default=True,
                 help="An LLM judge scores every tip this often; the median counts."),
    click.option("--judge-prompt", type=click.Path(exists=True, dir_okay=False),
                 help="YAML file with the LLM judge's prompt instead of the shipped one."),
)  # fmt: skip
weights_option = click.option(
    "--weights", metavar="C=W,...", help="Weights of the criteria, e.g. relevance=2,actionability=1,tone=1."
)
repeats_option = click.option(
    "--repeats", default="5%", show_default=True, help="Share of tips shown twice, to measure self-consistency."
)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES
    + "\n\n\b\nExample:\n  tipbench run --models qwen2.5:0.5b,gemma3:1b --judge terminal --out report/",
)
@click.version_option(__version__, prog_name="tipbench")
def cli() -> None:
    """Which small language model, with which prompt? Collect tips, have them judged blind, rank the cells."""


# -- stages --------------------------------------------------------------------------------------


@cli.command(epilog="\b\nExample:\n  tipbench collect --models qwen2.5:0.5b,gemma3:1b --n-scenarios 2 --n-tips 3")
@config_options()
@json_option
def collect(config: Config, as_json: bool) -> None:
    """Have every (model, prompt) write tips for every scenario."""
    result = _collect(config, quiet=as_json)
    if as_json:
        _print_json(result)
    else:
        _say_collected(result)
    code = EXIT_SOME_FAILED if result.failed else 0
    counts = {"planned": result.planned, "skipped": result.skipped, "collected": result.collected}
    why = [str(one) for one in result.why]
    leave("collect", code, {**counts, "failed": result.failed, "why": why, "refused": result.refused})
    sys.exit(code)


@cli.group(cls=_InOrder)
def judge() -> None:
    """Hand candidates to a judge, and take the scores back."""


@judge.command(
    "export",
    short_help="Write the blind exchange file for a judge.",
    epilog="\b\nExample:\n  tipbench judge export --experiment tip-bench-auto --out judge.json",
)
@config_options("experiment", "mlflow_url", "rubric")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The exchange file to write.")
@click.option("--judge", "judge_name", help="Export what this judge has not scored yet. Default: what nobody has.")
@click.option("--seed", default=0, show_default=True, help="Another seed shuffles in another order.")
@repeats_option
@click.option("--force", is_flag=True, help="Replace a file that already holds scores.")
@click.option("--aside", is_flag=True, help="Keep a file that already holds scores under another name, and go on.")
@click.option("--expect", "expected", default="", metavar="MODELS",
              help="Fail when none of these models (comma-separated) has anything to judge.")  # fmt: skip
@json_option
def judge_export(
    config: Config,
    out: str,
    judge_name: str | None,
    seed: int,
    repeats: str,
    force: bool,
    aside: bool,
    expected: str,
    as_json: bool,
) -> None:
    """Write the blind exchange file: everything a judge needs, nothing that tells models or prompts apart."""
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.judging.validate import write_exchange
    from tipbench.stages import export

    if not aside:
        _guard_scores(Path(out), force)
    with _store(config) as store:
        result = export.run(
            config.experiment,
            store,
            load_rubric(config.rubric or None),
            judge=judge_name,
            seed=seed,
            repeats=_share(repeats),
            expect=split_list(expected),
        )
    if not (aside and _put_aside(Path(out), result.exchange.export_id)):
        write_exchange(result.exchange, Path(out))
    summary = {
        "file": out,
        "items": result.n_items,
        "repeats": result.n_repeats,
        "cells": result.n_cells,
        "candidates": result.n_candidates,
    }
    leave("export", 0, summary)
    if as_json:
        _print_json(summary)
    elif result.n_items:
        click.echo(f"{out}: {result.n_items} tips to score ({result.n_repeats} of them shown twice).")
        name = f" --as {judge_name}" if judge_name else ""
        click.echo(
            f"Next: {_me()} judge score {out}{name}, or hand the file to an agent; "
            f"then {_me()} judge apply {out}{_where(config)}"
        )
    else:
        click.echo(f"{out}: nothing is pending, all {result.n_candidates} candidates have scores.")
        click.echo(
            f"For a second opinion: {_me()} judge export --judge NAME --experiment {config.experiment} --out {out}{_where(config)}"
        )


def _guard_scores(path: Any, force: bool) -> None:
    """A file in which somebody has already scored is not overwritten by accident."""
    if not force and _begun(path) is not None:
        raise InputError(f"{path} already holds scores; apply it first (tipbench judge apply {path}), or use --force")


def _begun(path: Any) -> Exchange | None:
    """The file at `path` when somebody has scored in it. Raises InputError when what is there is no exchange file."""
    from tipbench.judging.validate import read_exchange

    if not path.exists():
        return None
    try:
        old = read_exchange(path)
    except InputError as error:
        raise InputError(f"{path} exists and is no exchange file; name another, or use --force") from error
    return old if any(score is not None for item in old.items for score in item.scores.values()) else None


def _put_aside(path: Any, export_id: str) -> bool:
    """Give another export's scored file a name of its own. True when the file is this very export, begun: it stays."""
    old = _begun(path)
    if old is None or old.export_id == export_id:
        return old is not None
    path.rename(path.with_name(f"{path.stem}-{old.export_id}{path.suffix}"))
    return False


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
@judge_engine_options
@config_options("mlflow_url")
@json_option
def judge_score(
    config: Config, file: str, spec: str, name: str | None, and_apply: bool, as_json: bool, **engine: Any
) -> None:
    """Fill the scores in: you in the terminal, or a judge that is named. Stop and resume at will."""
    result = _score(file, spec, name, quiet=as_json, **engine)
    applied = _apply(config, file) if and_apply else None
    if as_json:
        _print_json({"scored": result, "applied": applied} if applied else result)
    else:
        _say_scored(result)
        if applied:
            _say_applied(applied, dry_run=False)
        elif result.scored or not result.left:
            click.echo(f"Next: {_me()} judge apply {file}{_where(config)}")
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
    result = _apply(config, file, dry_run=dry_run, reason=reason)
    if as_json:
        _print_json(result)
    else:
        _say_applied(result, dry_run)
        if not dry_run:
            click.echo(f"Next: {_me()} compare --experiment {result.experiment} --out report/{_where(config)}")


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

    with _store(config) as store:
        result = agreement.run(config.experiment, store, load_rubric(config.rubric or None))
    if as_json:
        _print_json(result)
    else:
        agreement.render(result, _console())


@cli.command(
    short_help="Rank the cells: the leaderboard with error bars.",
    epilog="\b\nExample:\n  tipbench compare --experiment tip-bench-auto --out report/",
)
@config_options("experiment", "mlflow_url", "rubric")
@click.option(
    "--out", type=click.Path(file_okay=False), help="Folder for leaderboard.json, leaderboard.md and report.html."
)
@weights_option
@click.option("--judge", "judges", multiple=True, help="Count only this judge's scores; may be repeated.")
@click.option("--seed", default=0, show_default=True, help="Seed of the bootstrap.")
@json_option
def compare(
    config: Config, out: str | None, weights: str | None, judges: tuple[str, ...], seed: int, as_json: bool
) -> None:
    """Rank the (model, prompt) cells: the leaderboard with error bars, here, in files and in MLflow."""
    result = _compare(config, out, weights, judges, seed)
    if as_json:
        click.echo(result.leaderboard.model_dump_json(by_alias=True, indent=2))
    else:
        _show_leaderboard(result, out)
    leave("compare", 0, {"cells": len(result.leaderboard.cells), "run_id": result.run_id})


@cli.command(epilog="\b\nExample:\n  tipbench run --models qwen2.5:0.5b --judge baseline --out report/")
@config_options()
@click.option("--judge", "spec", default="baseline", show_default=True,
              help="terminal, baseline, ollama:MODEL, openai:MODEL or embedded:MODEL.")  # fmt: skip
@click.option("--as", "name", help="Your name as judge in the terminal.")
@click.option("--out", default="report", show_default=True, type=click.Path(file_okay=False),
              help="Folder for judge.json and the report.")  # fmt: skip
@click.option("--base-url", envvar="TIPBENCH_JUDGE_BASE_URL", default="https://api.openai.com/v1", show_default=True,
              help="OpenAI-compatible endpoint, for openai:MODEL.")  # fmt: skip
@click.option("--passes", type=click.IntRange(1, 99), default=1, show_default=True, help="Passes of an LLM judge.")
@click.option("--judge-prompt", type=click.Path(exists=True, dir_okay=False), help="Prompt file of an LLM judge.")
@repeats_option
@weights_option
@json_option
def run(
    config: Config,
    spec: str,
    name: str | None,
    out: str,
    repeats: str,
    weights: str | None,
    as_json: bool,
    **engine: Any,
) -> None:
    """Everything in one go: collect, export, score, apply, compare."""
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.judging.validate import read_exchange, write_exchange
    from tipbench.stages import export

    folder, file = Path(out), Path(out) / "judge.json"
    folder.mkdir(parents=True, exist_ok=True)
    collected = _collect(config, quiet=as_json)
    if not as_json:
        _say_collected(collected)
    with _store(config) as store:
        judge_name = None if spec == "terminal" and name is None else _judge_name(spec, name)
        exported = export.run(
            config.experiment, store, load_rubric(config.rubric or None), judge=judge_name, repeats=_share(repeats)
        )
    scored = None
    if exported.n_items:
        # An interrupted run is resumed: a file that was begun for the same export keeps its scores.
        if not (file.exists() and _same_export(read_exchange, file, exported.exchange.export_id)):
            write_exchange(exported.exchange, file)
        scored = _score(str(file), spec, name, quiet=as_json, ollama_url=config.ollama_url, **engine)
        applied = _apply(config, str(file))
        if not as_json:
            _say_scored(scored)
            _say_applied(applied, dry_run=False)
    elif not as_json:
        click.echo(f"Nothing is pending: {judge_name or 'somebody'} has scored all {exported.n_candidates} tips.")
    result = _compare(config, out, weights, (), config.seed)
    if as_json:
        click.echo(result.leaderboard.model_dump_json(by_alias=True, indent=2))
    else:
        _show_leaderboard(result, out)
        click.echo(f"  the judge's file     {file}")
        if spec == "baseline":
            click.echo(
                f"These scores are the baseline judge's (text statistics). To judge for real: {_me()} judge export "
                f"--experiment {config.experiment} --judge YOU --out mine.json{_where(config)}"
            )
    sys.exit(EXIT_SOME_FAILED if collected.failed or (scored and scored.failures) else 0)


def _same_export(read: Callable[[Any], Any], file: Any, export_id: str) -> bool:
    try:
        return bool(read(file).export_id == export_id)
    except InputError:
        return False


# -- looking -------------------------------------------------------------------------------------


@cli.command(
    short_help="What the engine has, and what the policy says.",
    epilog="\b\nExample:\n  tipbench models --memory-limit 2Gi",
)
@config_options(
    "models", "engine", "ollama_url", "mlflow_url", "max_model_b", "num_ctx", "parallel", "memory_limit", "num_thread"
)
@json_option
def models(config: Config, as_json: bool) -> None:
    """What the engine has: parameters, quantisation, size, estimated memory, and the policy's verdict."""
    from tipbench.stages import models as stage

    with _engine(config) as engine:
        result = stage.run(config, engine)
    if as_json:
        _print_json(result)
    else:
        stage.render(result, _console())


@cli.command(
    short_help="How small a difference a design could detect.",
    epilog="\b\nExample:\n  tipbench plan --n-scenarios 8 --n-tips 5 --judges 2",
)
@config_options("models", "prompts", "n_tips", "n_scenarios", "experiment", "mlflow_url", "scenarios", "rubric")
@click.option("--judges", default=1, show_default=True, type=click.IntRange(1), help="Judges who score every tip.")
@click.option("--power", default=0.8, show_default=True, type=click.FloatRange(0.01, 0.999),
              help="Chance of detecting a difference of the size that is printed.")  # fmt: skip
@click.option("--from-data", is_flag=True, help="Take the spreads from --experiment instead of assumed ones.")
@json_option
def plan(config: Config, judges: int, power: float, from_data: bool, as_json: bool) -> None:
    """The smallest difference between two cells that this design could detect."""
    from tipbench.stages import plan as stage

    store = _store(config) if from_data else None
    result = stage.run(config, judges=judges, power=power, store=store)
    if as_json:
        _print_json(result)
    else:
        stage.render(result, _console())


@cli.command(epilog="\b\nExample:\n  tipbench doctor --mlflow-url http://localhost:5000")
@config_options()
@json_option
def doctor(config: Config, as_json: bool) -> None:
    """Is everything reachable and sane, and what to do if not."""
    from tipbench.stages import doctor as stage

    result = stage.run(config)
    if as_json:
        _print_json(result)
    else:
        stage.render(result, _console())
    sys.exit(EXIT_UNREACHABLE if result.unreachable else 2 if result.failed else 0)


@cli.command(epilog="\b\nExample:\n  tipbench schema exchange > exchange.schema.json")
@click.argument("name", type=click.Choice(["config", "exchange", "leaderboard", "cell"]))
def schema(name: str) -> None:
    """Print the JSON schema of what crosses tipbench's borders."""
    import json

    from tipbench.stages.schemas import schema_of

    click.echo(json.dumps(schema_of(name), indent=2))


# -- serving -------------------------------------------------------------------------------------


@cli.command(
    short_help="The panel and the admin API, in a browser.",
    epilog="\b\nExample:\n  tipbench serve --mlflow-url http://localhost:5000",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--mlflow-url", envvar="TIPBENCH_MLFLOW_URL",
              help="MLflow server, or a folder. Default: $MLFLOW_TRACKING_URI, else a folder in the user's state folder.")  # fmt: skip
@click.option("--airflow-url", envvar="TIPBENCH_AIRFLOW_URL",
              help="Have this Airflow run collections. Default: this machine does.")  # fmt: skip
def serve(host: str, port: int, mlflow_url: str | None, airflow_url: str | None) -> None:
    """The panel and the admin API in a browser; on a laptop, prints a URL that logs in."""
    try:
        from tipbench.api import server
    except ImportError as error:
        raise InputError(f"serving needs more packages ({error.name}): pip install 'tipbench[api]'") from error
    server.serve(host, port, airflow_url=airflow_url, mlflow_url=mlflow_url)


# -- calling the stages --------------------------------------------------------------------------


def _store(config: Config) -> Any:
    """The store, to be used in a `with`."""
    from tipbench.store import open_store

    return contextlib.closing(open_store(config.store_url))


def _engine(config: Config) -> Any:
    """The engine, to be used in a `with`."""
    from tipbench.engines import open_engine

    return contextlib.closing(open_engine(config))


def _collect(config: Config, quiet: bool) -> CollectResult:
    from tipbench.progress import reporter
    from tipbench.stages import collect as stage

    engine: Engine
    store: Store
    with (
        _claimed(config) as (config, witness),
        _engine(config) as engine,
        _store(config) as store,
        reporter(quiet) as on_event,
    ):
        return stage.run(config, engine, store, on_event, witness)


@contextlib.contextmanager
def _claimed(config: Config) -> Iterator[tuple[Config, Witness | None]]:
    """The configuration with one Ollama of our own; in a cluster a Lease says whose it is."""
    namespace = os.environ.get("TIPBENCH_LEASE_NAMESPACE")
    if config.engine != "ollama":
        yield config, None
        return
    if not namespace:
        if len(config.ollama_urls) > 1:
            raise InputError(
                f"ollama_url names {len(config.ollama_urls)} servers; only in a cluster can they be shared out "
                "(TIPBENCH_LEASE_NAMESPACE). Name one."
            )
        yield config, None
        return
    from tipbench.cluster import Cluster, pod_name

    with Cluster(namespace).claim(config.ollama_urls, pod_name(), lambda words: click.echo(words, err=True)) as replica:
        yield dataclasses.replace(config, ollama_url=replica.url), replica


def _score(
    file: str,
    spec: str,
    name: str | None,
    *,
    quiet: bool,
    ollama_url: str,
    base_url: str,
    passes: int,
    judge_prompt: str | None,
) -> ScoreResult:
    from pathlib import Path

    from tipbench.progress import bar
    from tipbench.stages import score as stage

    if spec == "terminal":
        return stage.in_terminal(Path(file), name or _login(), _console())
    with (
        _claimed(Config(engine=spec.partition(":")[0], ollama_url=ollama_url)) as (claimed, _),
        bar(quiet, "scoring") as on_progress,
    ):
        return stage.run(
            Path(file),
            spec,
            ollama_url=claimed.ollama_url,
            base_url=base_url,
            passes=passes,
            judge_prompt=judge_prompt,
            on_progress=on_progress,
        )


def _apply(config: Config, file: str, *, dry_run: bool = False, reason: str = "") -> ApplyResult:
    from pathlib import Path

    from tipbench.judging.validate import read_exchange
    from tipbench.stages import apply as stage

    exchange = read_exchange(Path(file))
    with _store(config) as store:
        return stage.run(exchange, store, source=file, reason=reason, dry_run=dry_run)


def _compare(config: Config, out: str | None, weights: str | None, judges: tuple[str, ...], seed: int) -> CompareResult:
    from pathlib import Path

    from tipbench.catalog import load_rubric
    from tipbench.stages import compare as stage

    with _store(config) as store:
        result = stage.run(
            config.experiment,
            store,
            load_rubric(config.rubric or None),
            weights=_parse_weights(weights),
            judges=judges,
            seed=seed,
        )
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "leaderboard.json").write_text(
            result.leaderboard.model_dump_json(by_alias=True, indent=2) + "\n", encoding="utf-8"
        )
        (folder / "leaderboard.md").write_text(result.markdown, encoding="utf-8")
        (folder / "report.html").write_text(result.html, encoding="utf-8")
    return result


def _parse_weights(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        return {name.strip(): float(weight) for name, weight in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise InputError(f"--weights {text!r}: write it like relevance=2,actionability=1,tone=1") from error


def _share(text: str) -> float:
    """`"5%"` or `"0.05"` -> 0.05."""
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise InputError(f"--repeats {text!r}: write it like 5% or 0.05") from error
    if not 0 <= value <= 1:
        raise InputError(f"--repeats {text!r}: must be between 0% and 100%")
    return value


def _judge_name(spec: str, name: str | None) -> str:
    """The name under which a judge's scores will be filed."""
    return (name or _login()) if spec == "terminal" else spec


def _login() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "me"


# -- printing ------------------------------------------------------------------------------------


def _me() -> str:
    """How to call tipbench from here: by its name when that is on PATH, else the way this process was called."""
    import shutil

    called = sys.argv[0]
    found = os.path.basename(called) != "tipbench" or shutil.which("tipbench") == os.path.abspath(called)
    return "tipbench" if found else called


def _where(config: Config) -> str:
    """` --mlflow-url ...` for a command that is suggested, when this one was told and the environment does not say."""
    told = config.mlflow_url and config.mlflow_url != os.environ.get(ENV_PREFIX + "MLFLOW_URL")
    return f" --mlflow-url {config.mlflow_url}" if told else ""


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def _print_json(value: Any) -> None:
    import json

    def plain(one: Any) -> Any:
        return dataclasses.asdict(one) if dataclasses.is_dataclass(one) and not isinstance(one, type) else str(one)

    click.echo(json.dumps(value, indent=2, default=plain))


def _say_collected(result: CollectResult) -> None:
    click.echo(
        f"{result.experiment}: {result.planned} cells, {result.skipped} were there before, {result.collected} collected, "
        f"{sum(result.failed.values())} failed, in {result.wall_s:.0f} s."
    )
    for one in result.why:
        click.echo(f"  {one}")
    for warning in result.warnings:
        click.echo(f"  warning: {warning}")


def _say_scored(result: ScoreResult) -> None:
    click.echo(f"{result.file}: {result.scored} tips scored by {result.judge}, {result.left} left.")
    for reason, count in result.failures.items():
        click.echo(f"  {count} tips could not be scored: {reason}")


def _say_applied(result: ApplyResult, dry_run: bool) -> None:
    verb = "would write" if dry_run else "wrote"
    click.echo(
        f"{result.experiment}: {verb} {result.new} new and {result.changed} changed scores by {result.judge or 'nobody'}; "
        f"{result.unchanged} unchanged, {result.unscored} unscored; {result.pending_cells} cells still pending."
    )


def _show_leaderboard(result: CompareResult, out: str | None) -> None:
    from tipbench.leaderboard.terminal import render

    render(result.leaderboard, _console())
    if out is not None:
        click.echo(f"  leaderboard (JSON)   {os.path.join(out, 'leaderboard.json')}")
        click.echo(f"  report (HTML)        {os.path.join(out, 'report.html')}")
