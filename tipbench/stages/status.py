"""Status: what counts of an experiment, what is judged, by whom, and what waits for whom."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tipbench.catalog import Rubric
from tipbench.counting.census import take
from tipbench.counting.judged import Asked
from tipbench.counting.status import Status, status
from tipbench.store import Store


def run(experiment: str, store: Store, rubric: Rubric, asked: Asked | None = None) -> Status:
    """The status under `rubric`, for who was asked (None: anybody but the baseline). Raises InputError for an unknown experiment."""
    return status(experiment, take(store.holdings(store.require_experiment(experiment))), rubric.hash, asked)


def render(result: Status, console: Console) -> None:
    """The counts in a sentence, then by row of the board, then the judges."""
    who = str(Asked(result.asked))
    console.print(
        f"{result.experiment}: {result.cells} cells. {result.counted} count: {result.judged} judged, {result.pending} wait for "
        f"{escape(who)} ({result.pending_candidates} of {result.candidates} tips); {result.failed} failed; "
        f"{result.superseded} superseded; {result.twins} twins."
    )
    table = Table(
        "model", "prompt", "count", "judged", "pending", "failed", "superseded", "twins", box=None, pad_edge=False
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for row in result.rows:
        prompt = f"{row.prompt} ({row.variant})" if row.variant else row.prompt
        counts = (row.counted, row.judged, row.pending, row.failed, row.superseded, row.twins)
        table.add_row(escape(row.model), escape(prompt), *map(str, counts))
    if result.rows:
        console.print(table)
    for judge in result.judges:
        version = f" in version {judge.version[:8]}" if judge.version else ""
        aside = "" if judge.in_force else "; another version has scored since, this one does not count"
        console.print(
            f"Judge {escape(judge.name)} ({judge.kind}){version}: {judge.judged} cells whole, {judge.candidates} tips{aside}."
        )
    if result.other_rubrics:
        hashes = ", ".join(h[:8] for h in result.other_rubrics)
        console.print(f"There are also scores under other rubrics ({hashes}); they are not counted here.")
    for twin in result.twin_runs[:10]:
        console.print(
            f"Twin: run {twin.run_id} of {escape(f'{twin.model} | {twin.prompt} | {twin.scenario}')}; {twin.counted} counts."
        )
