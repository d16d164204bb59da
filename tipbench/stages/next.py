"""Next: take every look that the scores allow, and say what an experiment in rounds needs next, or why it stops."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from tipbench.catalog import Rubric
from tipbench.counting.census import take
from tipbench.counting.judged import Asked
from tipbench.rounds import record
from tipbench.rounds.standing import advance
from tipbench.rounds.words import Next, next_step
from tipbench.store import Store


def run(
    experiment: str,
    store: Store,
    rubric: Rubric,
    *,
    margin: float = 0.0,
    asked: Asked | None = None,
    take_back: str = "",
    by: str = "",
    reason: str = "",
) -> Next:
    """What comes next; looks that were not recorded yet are. Only the store is needed.

    `take_back` names a dropped cell (`model|prompt`) that is to be in again, `by` and `reason` say by whom and why.
    Raises InputError when the experiment, its rounds or that cell is not there.
    """
    experiment_id = store.require_experiment(experiment)
    census = take(store.holdings(experiment_id))
    if take_back:
        advance(store, experiment_id, census, rubric, margin=margin, asked=asked)
        record.take_back(store, experiment_id, rubric.hash, take_back, by=by, reason=reason)
    result = next_step(experiment, advance(store, experiment_id, census, rubric, margin=margin, asked=asked))
    record.note_next(store, experiment_id, rubric.hash, result.action, result.looks_taken, result.reason)
    return result


def render(result: Next, console: Console) -> None:
    """The answer, the cells and the scenarios."""
    console.print(escape(f"{result.experiment}: {result.reason}."))
    if result.action != "stop":
        console.print(escape(f"  scenarios: {', '.join(result.scenarios)}"))
        for cell in result.cells:
            todo = [f"{len(cell.collect)} to write"] * bool(cell.collect) + [f"{len(cell.judge)} to judge"] * bool(
                cell.judge
            )
            console.print(escape(f"  {cell.model} | {cell.prompt}: {', '.join(todo) or 'done'}"))
    for out in result.dropped:
        console.print(escape(f"  out since look {out.look}: {out.model} | {out.prompt}, {out.why}"))
