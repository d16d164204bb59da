"""Plan: how small a difference between two cells would a design detect, before anything is spent on it?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from tipbench.catalog import Rubric, load_rubric, load_scenarios
from tipbench.config import Config
from tipbench.counting.census import Census, take
from tipbench.counting.judged import Judges
from tipbench.counting.sample import draw
from tipbench.errors import InputError
from tipbench.stats import (
    LIKENESS_OF_JUDGES,
    SD_INTERACTION,
    SD_JUDGE,
    SD_TIP,
    minimum_detectable_difference,
    variance_components,
    with_another_judge,
)
from tipbench.stats.sequential import make_horizon, race
from tipbench.store import Store


@dataclass(frozen=True)
class Alternative:
    """A design next to the planned one, and what it could detect."""

    change: str
    n_scenarios: int
    n_tips: int
    n_judges: int
    candidates: int
    difference: float | None


@dataclass(frozen=True)
class Expected:
    """What a race is expected to cost where the truth is so; simulated."""

    truth: str
    work: float
    """Tips to write and score, as a share of the full design's."""
    tied: float
    """Cells left at the end."""


@dataclass(frozen=True)
class Rounds:
    """A design in rounds."""

    block: int
    looks: int
    expected: tuple[Expected, ...]
    margin: float
    margin_scenarios: int | None
    """Scenarios after which two truly equal cells are shown to be equal within `margin` with `power`; None without a margin, or when
    ten times the scenarios would not do."""


@dataclass(frozen=True)
class PlanResult:
    """The planned design; differences and spreads in points of the rubric's scale."""

    n_cells: int
    n_scenarios: int
    n_tips: int
    n_judges: int
    candidates: int
    scores: int
    """Scores that the judges must give: candidates x judges."""
    power: float
    sd_interaction: float
    sd_tip: float
    sd_judge: float
    source: str
    """Where the spreads come from."""
    difference: float | None
    """Smallest true difference from the best that is found with `power`; None with fewer than two cells or scenarios."""
    alternatives: tuple[Alternative, ...]
    references: tuple[ReferencePlan, ...] = ()
    """What people's scores of a sample would detect, with another judge's scores on all (compare --reference)."""
    rounds: Rounds | None = None
    """The same design in rounds, for until = sure; None with fewer than two cells or scenarios."""


@dataclass(frozen=True)
class ReferencePlan:
    """Reference judges on a sample of the planned scenarios."""

    n_scenarios: int
    scores: int
    """Tips that each of them scores."""
    alone: float
    """Smallest difference detectable from their scores alone."""
    difference: float
    """The same with another judge's scores on all scenarios."""


REFERENCES = (6, 8, 16, 30)
"""Sizes of samples that a plan looks at, where the design has more scenarios."""
POWER = 0.8
"""The chance of detection that a plan of a sample asks for; `tipbench plan` takes it by default, too."""


@dataclass(frozen=True)
class Spreads:
    """How much scores vary, in points of the rubric's scale, beside the judge's own noise (SD_JUDGE)."""

    interaction: float
    tip: float
    source: str
    """Where they come from."""


ASSUMED = Spreads(SD_INTERACTION, SD_TIP, "assumed")


@dataclass(frozen=True)
class SamplePlan:
    """What one person's scores of a sample of an experiment would detect, beside another judge's of everything."""

    n_cells: int
    n_scenarios: int
    """On the board."""
    tips: int
    """Tips that each person scores."""
    power: float
    spreads: Spreads
    reference: ReferencePlan | None
    """None with one cell: there is no difference to detect."""

    @property
    def words(self) -> str:
        """The answer in sentences."""
        if self.reference is None:
            return NO_DIFFERENCE
        return f"{told_apart(self.reference.difference, self.power)} From your scores alone it would take {self.reference.alone:.2f} points."


NO_DIFFERENCE = "No difference can be tested: that takes at least two cells and two scenarios."


def told_apart(difference: float, power: float) -> str:
    """What a detectable difference, in points, means."""
    return (
        f"A cell that is truly {difference:.2f} points behind the best is told apart from it with {power:.0%} chance; "
        "smaller differences mostly end as ties."
    )


def run(config: Config, *, judges: int, power: float, store: Store | None = None) -> PlanResult:
    """The smallest detectable difference of the configured design.

    With a `store`, the spreads are estimated from the experiment's judged candidates; otherwise they are assumed. Raises
    InputError when the experiment has too few scores to estimate from.
    """
    n_scenarios = len(load_scenarios(config.scenarios or None))
    if config.n_scenarios:
        n_scenarios = min(n_scenarios, config.n_scenarios)
    n_cells = len(config.model_list) * len(config.prompt_list)
    spreads = replace(ASSUMED, source="assumed; --from-data takes them from judged candidates")
    if store is not None:
        spreads = _spreads(config, store)

    def detectable(scenarios: int, tips: int, n_judges: int) -> float | None:
        return _detectable(n_cells, scenarios, tips, n_judges, power, spreads)

    def alternative(change: str, scenarios: int, tips: int, n_judges: int) -> Alternative:
        candidates = n_cells * scenarios * tips
        return Alternative(change, scenarios, tips, n_judges, candidates, detectable(scenarios, tips, n_judges))

    def reference(k: int) -> ReferencePlan | None:
        alone = detectable(k, config.n_tips, judges)
        return _with_another(alone, k, n_scenarios, n_cells * k * config.n_tips)

    candidates = n_cells * n_scenarios * config.n_tips
    return PlanResult(
        n_cells=n_cells,
        n_scenarios=n_scenarios,
        n_tips=config.n_tips,
        n_judges=judges,
        candidates=candidates,
        scores=candidates * judges,
        power=power,
        sd_interaction=spreads.interaction,
        sd_tip=spreads.tip,
        sd_judge=SD_JUDGE,
        source=spreads.source,
        difference=detectable(n_scenarios, config.n_tips, judges),
        alternatives=(
            alternative("twice the scenarios", 2 * n_scenarios, config.n_tips, judges),
            alternative("twice the tips", n_scenarios, 2 * config.n_tips, judges),
            alternative("one more judge", n_scenarios, config.n_tips, judges + 1),
        ),
        references=tuple(found for k in REFERENCES if k < n_scenarios and (found := reference(k)) is not None),
        rounds=(
            _in_rounds(config, n_cells, n_scenarios, _spread(spreads, config.n_tips, judges), power)
            if config.until == "sure" and n_cells > 1 and n_scenarios > 1
            else None
        ),
    )


def sample(experiment: str, census: Census, rubric: Rubric, n_scenarios: int, tips: int, seed: int = 0) -> SamplePlan:
    """What a person's scores of a sample would detect: `n_scenarios` of those on the board, `tips` tips of each cell (0: all).

    The spreads are those of the experiment's scores where there are enough of them, else the assumed ones. Nothing is written.
    Raises InputError when there are fewer scenarios.
    """
    drawn = draw(census, n_scenarios, tips, seed)
    sizes = [n for n in (len(drawn.indices(entry)) for entry in census.counted) if n]
    n_cells, columns = len({e.row for e in census.counted}), len({e.column for e in census.counted})
    spreads = _found(experiment, census, rubric) or ASSUMED
    alone = _detectable(n_cells, n_scenarios, max(1, round(sum(sizes) / max(1, len(sizes)))), 1, POWER, spreads)
    reference = _with_another(alone, n_scenarios, columns, sum(sizes))
    return SamplePlan(n_cells, columns, sum(sizes), POWER, spreads, reference)


def _detectable(n_cells: int, scenarios: int, tips: int, judges: int, power: float, spreads: Spreads) -> float | None:
    """The smallest detectable difference, in points; None where none can be tested."""
    if n_cells < 2 or scenarios < 2:
        return None
    return minimum_detectable_difference(
        scenarios,
        tips,
        n_cells,
        judges,
        power=power,
        sd_interaction=spreads.interaction,
        sd_tip=spreads.tip,
        sd_judge=SD_JUDGE,
    )


def _with_another(alone: float | None, k: int, n_scenarios: int, scores: int) -> ReferencePlan | None:
    """A sample of `k` scenarios, from what its scores detect alone; None where that is."""
    return None if alone is None else ReferencePlan(k, scores, alone, with_another_judge(alone, k, n_scenarios))


def _spread(spreads: Spreads, n_tips: int, judges: int) -> float:
    """The spread of a cell's scenario means around its truth, in points."""
    return float(np.sqrt(spreads.interaction**2 + spreads.tip**2 / n_tips + SD_JUDGE**2 / (n_tips * judges)))


def _in_rounds(config: Config, n_cells: int, n_scenarios: int, sd: float, power: float) -> Rounds:
    """The expected work of a race, simulated for a few truths, and what a choice within the margin takes."""
    rng = np.random.default_rng(0)
    draws = max(50, min(400, 2_000_000 // (n_cells * n_cells * n_scenarios)))
    horizon = make_horizon(n_scenarios, config.block)
    margin = load_rubric(config.rubric or None).margin(config.margin)
    one_ahead = np.zeros((draws, n_cells))
    one_ahead[:, 0] = 1.0
    truths = {
        "one cell a point ahead": one_ahead,
        "cells spread, SD 0.6": 0.6 * rng.standard_normal((draws, n_cells)),
        "cells spread, SD 0.3": 0.3 * rng.standard_normal((draws, n_cells)),
        "all equal": np.zeros((draws, n_cells)),
    }
    expected = []
    for name, truth in truths.items():
        races = race(truth[..., None] + sd * rng.standard_normal((draws, n_cells, n_scenarios)), horizon, margin=margin)
        expected.append(Expected(name, float(races.used.mean() / n_scenarios), float(races.kept.sum(axis=1).mean())))
    enough = _enough_for(margin, config.block, n_scenarios, sd, power)
    return Rounds(config.block, len(horizon.looks), tuple(expected), margin, enough)


def _enough_for(margin: float, block: int, n_scenarios: int, sd: float, power: float) -> int | None:
    """Scenarios after which two equal cells are shown to be within the margin with this power, in whole blocks."""
    rng = np.random.default_rng(1)
    for times in (1, 2, 3, 5, 10):
        n = n_scenarios * times
        horizon = make_horizon(n, max(block, n // 24))
        races = race(sd * rng.standard_normal((300, 2, n)), horizon, margin=margin)
        reached = np.where(races.within, races.used.max(axis=1), np.inf)
        enough = float(np.quantile(reached, power, method="higher"))
        if np.isfinite(enough):
            return int(enough)
    return None


def _spreads(config: Config, store: Store) -> Spreads:
    census = take(store.holdings(store.require_experiment(config.experiment)))
    found = _found(config.experiment, census, load_rubric(config.rubric or None))
    if found is None:
        raise InputError(
            f"{config.experiment} has too few scores to estimate spreads from: it takes two cells, two scenarios and two tips each"
        )
    return found


def _found(experiment: str, census: Census, rubric: Rubric) -> Spreads | None:
    """The spreads of what judges said; None when that is too little."""
    total = sum(rubric.weights.values())
    weights = [rubric.weights[c.id] / total for c in rubric.criteria]
    rows = []
    who = Judges((e.cell for e in census.counted), rubric.hash)
    counting = who.counting()
    for entry in census.counted:
        for record in who.records(entry.cell, counting):
            for scores in record.scores.values():
                composite = sum(w * s for w, s in zip(weights, scores, strict=True))
                rows.append((entry.row, entry.column, composite))
    found = variance_components(rows)
    return None if found is None else Spreads(found.sd_interaction, found.sd_tip, f"estimated from {experiment}")


def render(result: PlanResult, console: Console) -> None:
    """The answer in words, then what would make it smaller."""
    console.print(
        f"{result.n_cells} cells x {result.n_scenarios} scenarios x {result.n_tips} tips = {result.candidates} tips; "
        f"{result.scores} scores per criterion from {result.n_judges} judge{'s' * (result.n_judges > 1)}."
    )
    if result.difference is None:
        console.print(NO_DIFFERENCE)
    else:
        console.print(told_apart(result.difference, result.power))
    table = Table("design", "tips to write", "detectable difference", box=None, pad_edge=False)
    table.columns[1].justify = table.columns[2].justify = "right"
    table.add_row("as planned", str(result.candidates), _points(result.difference))
    for other in result.alternatives:
        table.add_row(other.change, str(other.candidates), _points(other.difference))
    console.print(table)
    if result.rounds is not None:
        _render_rounds(result.rounds, console)
    if result.references:
        sample = Table("scored by people", "tips each", "alone", "with another judge on all", box=None, pad_edge=False)
        for column in sample.columns[1:]:
            column.justify = "right"
        for one in result.references:
            sample.add_row(
                f"{one.n_scenarios} of {result.n_scenarios} scenarios",
                str(one.scores),
                _points(one.alone),
                _points(one.difference),
            )
        console.print(
            "Detectable difference in what people would say, from a sample (judge export --sample, compare --reference); the other "
            f"judge's differences are assumed to correlate by {LIKENESS_OF_JUDGES} with theirs:"
        )
        console.print(sample)
    console.print(
        f"Spreads in points: cell x scenario {result.sd_interaction:.2f}, tips {result.sd_tip:.2f}, "
        f"judge noise {result.sd_judge:.2f} ({result.source})."
    )


def _render_rounds(rounds: Rounds, console: Console) -> None:
    console.print(
        f"In rounds of {rounds.block} scenarios, at most {rounds.looks}, the work to expect beside the full design's:"
    )
    table = Table("if the truth is", "work", "cells left", box=None, pad_edge=False)
    table.columns[1].justify = table.columns[2].justify = "right"
    for one in rounds.expected:
        table.add_row(one.truth, f"{one.work:.0%}", f"{one.tied:.1f}")
    console.print(table)
    if rounds.margin and rounds.margin_scenarios:
        console.print(
            f"Two equal cells are shown to be equal within {rounds.margin:g} points after {rounds.margin_scenarios} scenarios, mostly."
        )
    elif rounds.margin:
        console.print(
            f"Ten times the scenarios would not show two equal cells to be equal within {rounds.margin:g} points."
        )


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
