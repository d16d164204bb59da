"""Agreement: how far the judges of an experiment agree, with each other and with themselves."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tipbench.catalog import Rubric
from tipbench.counting.census import take
from tipbench.counting.judged import Judges
from tipbench.judging.agreement import (
    Alpha,
    Consistency,
    Kappa,
    Leniency,
    Replacement,
    alpha_by_criterion,
    is_weak,
    leniency,
    may_replace,
    pairwise_kappa,
    self_consistency,
)
from tipbench.judging.ratings import ratings
from tipbench.store import Store


@dataclass(frozen=True)
class AgreementResult:
    """Every measure of agreement; empty tuples where it takes two judges, or repeats, and there are none."""

    experiment: str
    judges: tuple[str, ...]
    alpha: tuple[Alpha, ...]
    kappa: tuple[Kappa, ...]
    leniency: tuple[Leniency, ...]
    consistency: tuple[Consistency, ...]
    replacement: tuple[Replacement, ...] = ()
    """Of each judge that is no person and each criterion: may it replace the people?"""


def run(experiment: str, store: Store, rubric: Rubric) -> AgreementResult:
    """All judges who scored under `rubric`, the baseline judge included. Raises InputError for an unknown experiment."""
    census = take(store.holdings(store.require_experiment(experiment)))
    cells = [entry.cell for entry in census.counted]
    who = Judges(cells, rubric.hash)
    records = {c.run.run_id: [r for r in c.scores if who.is_in_force(r)] for c in cells}
    rated = ratings(cells, records)
    judges = tuple(sorted(rated.scores))
    criteria = [c.id for c in rubric.criteria]
    several = len(judges) > 1
    return AgreementResult(
        experiment=experiment,
        judges=judges,
        alpha=tuple(alpha_by_criterion(rated, criteria)) if several else (),
        kappa=tuple(pairwise_kappa(rated, criteria)) if several else (),
        leniency=tuple(leniency(rated, criteria)) if several else (),
        consistency=tuple(self_consistency(rated)),
        replacement=tuple(
            may_replace(
                rated,
                criteria,
                [j for j in judges if who.kinds[j] == "human"],
                [j for j in judges if who.kinds[j] in ("llm", "agent")],
            )
        ),
    )


def render(result: AgreementResult, console: Console) -> None:
    """Tables with a sentence on how to read each."""
    if not result.judges:
        console.print(f"{result.experiment}: nobody has scored under this rubric yet.")
        return
    console.print(f"{result.experiment}: judged by {escape(', '.join(result.judges))}")
    if len(result.judges) < 2:
        console.print("Agreement needs a second judge: tipbench judge export --judge NAME ...")
    else:
        _alphas(result, console)
        _kappas(result, console)
        _leniency(result, console)
    _consistency(result, console)
    _replacement(result, console)


def _replacement(result: AgreementResult, console: Console) -> None:
    if not result.replacement:
        return
    told = [one for one in result.replacement if not one.test.refused]
    console.print(
        "\nMay a judge replace people? The alternative annotator test (arXiv 2501.10970), with scenarios as clusters."
    )
    for reason in dict.fromkeys(one.test.refused for one in result.replacement if one.test.refused):
        console.print(f"It cannot be told: {reason}.")
    if told:
        table = _table("judge", "criterion", "preferred to", "as near as a person", "people", "")
        for one in told:
            test = one.test
            verdict = "may replace people" if test.passes else "may not"
            table.add_row(
                escape(one.judge),
                escape(one.criterion),
                f"{test.winning_rate or 0:.0%}",
                f"{test.advantage or 0:.0%}",
                str(test.people),
                verdict,
            )
        console.print(table)


def _table(*titles: str) -> Table:
    table = Table(*titles, box=None, pad_edge=False, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _alphas(result: AgreementResult, console: Console) -> None:
    table = _table("criterion", "alpha", "95% CI", "candidates", "")
    for a in result.alpha:
        interval = f"{_number(a.ci_low)} to {_number(a.ci_high)}" if a.ci_low is not None else "-"
        verdict = "weak" if is_weak(a) else "" if a.alpha is not None else "cannot be known: no variation"
        table.add_row(escape(a.criterion), _number(a.alpha), interval, str(a.n_units), verdict)
    console.print("\nKrippendorff's ordinal alpha: 1 is agreement, 0 is chance; below 0.667 it is weak.")
    console.print(table)


def _kappas(result: AgreementResult, console: Console) -> None:
    table = _table("judges", "criterion", "kappa", "candidates")
    for k in result.kappa:
        table.add_row(escape(f"{k.judge_a} / {k.judge_b}"), k.criterion, _number(k.kappa), str(k.n))
    console.print("\nQuadratic-weighted kappa per pair of judges.")
    console.print(table)


def _leniency(result: AgreementResult, console: Console) -> None:
    table = _table("judge", "mean difference", "candidates")
    for one in result.leniency:
        shown = "-" if one.mean_difference is None else f"{one.mean_difference:+.2f}"
        table.add_row(escape(one.judge), shown, str(one.n))
    console.print("\nLeniency: a judge's scores minus the others' on the same candidates, in points of the scale.")
    console.print(table)


def _consistency(result: AgreementResult, console: Console) -> None:
    if not result.consistency:
        return
    table = _table("judge", "scored alike", "mean difference", "scores repeated")
    for c in result.consistency:
        exact = "-" if c.exact is None else f"{c.exact:.0%}"
        table.add_row(escape(c.judge), exact, _number(c.mean_abs_difference), str(c.n))
    console.print("\nSelf-consistency: tips that were shown twice without saying so.")
    console.print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
