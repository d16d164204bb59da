"""The sample that people score in `tipbench run`: drawn, handed out here where a person is, and looked after until it is complete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tipbench.cli.exchange_files import put_aside
from tipbench.cli.judging import apply_file, say_applied, say_scored, score_file
from tipbench.cli.printing import me, typed, where
from tipbench.cli.services import store_of, tell_once
from tipbench.config import Config
from tipbench.errors import InputError
from tipbench.pipeline import faults

if TYPE_CHECKING:
    from tipbench.catalog import Rubric
    from tipbench.stages.export import ExportResult
    from tipbench.store import Store

FLAGS = {"sample": "--sample", "sample_tips": "--sample-tips", "reference": "--reference"}
MODES = {"terminal": "manual", "baseline": "baseline"}


def check(config: Config, spec: str, references: str, n_sample: int, tips: int) -> None:
    """Raises InputError for options that do not go together, before anything is collected."""
    asked = {"judge": MODES.get(spec, "llm"), "judge_model": spec, "until": config.until, "reference": references}
    for name, words in faults({**asked, "sample": n_sample, "sample_tips": tips}).items():
        raise InputError(f"{FLAGS[name]}: {words}")


def score_sample(
    config: Config,
    references: tuple[str, ...],
    n_sample: int,
    tips: int,
    name: str | None,
    folder: Path,
    engine: dict[str, Any],
) -> bool:
    """Have the sample scored by whoever of the references is at this terminal. Is it complete by all of them now?

    `name` is who is here; with one reference, that one. What nobody here can score is told with the commands that do it; the
    same `tipbench run` goes on from there.
    """
    from tipbench.catalog import load_rubric
    from tipbench.counting import marks
    from tipbench.counting.judged import MANUAL, Asked
    from tipbench.judging.validate import write_exchange
    from tipbench.notice import judge_wanted

    rubric, file = load_rubric(config.rubric or None), folder / "sample.json"
    here = name or (references[0] if len(references) == 1 else "")
    with store_of(config) as store:
        asked = _export(config, store, rubric, Asked(MANUAL), None, n_sample, tips)
        if asked.n_items:
            tell_once(
                config, store, asked.exchange.export_id,
                lambda: judge_wanted(config.experiment, asked.n_items - asked.n_repeats, asked.n_cells, str(file)),
            )  # fmt: skip
        mine = _export(config, store, rubric, Asked(here), here, n_sample, tips) if here in references else None
    if mine is not None and mine.n_items and sys.stdin.isatty() and sys.stdout.isatty():
        if not put_aside(file, mine.exchange.export_id):
            write_exchange(mine.exchange, file)
        click.echo(f"The sample: {mine.n_items} tips for {here}, drawn at random.")
        say_scored(score_file(config, str(file), "terminal", here, quiet=False, judge_parallel=None, **engine))
        say_applied(apply_file(config, str(file)), dry_run=False)
    with store_of(config) as store:
        experiment_id = store.require_experiment(config.experiment)
        left = {one: marks.sample_left(store, experiment_id, rubric.hash, [one]) for one in references}
    for one, n in left.items():
        if n is None or n > 0:
            out = typed(str(folder / f"sample-{one}.json"))
            click.echo(
                f"{one} has {n} tips of the sample left: {me()} judge export --experiment {config.experiment} --judge {one} --sample "
                f"{n_sample}{f' --tips {tips}' if tips else ''} --out {out}{where(config, 'rubric')}, then {me()} judge score {out} "
                f"--as {one} --apply{where(config)}; or score it in the panel.",
                err=True,
            )
    return all(n == 0 for n in left.values())


def _export(
    config: Config, store: Store, rubric: Rubric, asked: Any, judge: str | None, n_sample: int, tips: int
) -> ExportResult:
    from tipbench.stages import export

    return export.run(config.experiment, store, rubric, judge=judge, asked=asked, n_sample=n_sample, sample_tips=tips)
