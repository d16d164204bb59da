"""Compare: from scores to a leaderboard of (model, prompt) cells with honest error bars.

A scenario's score is the mean over judges on one scale of their means over its candidates; a cell's, the mean over its
scenarios, so that a scenario counts once however many candidates it has. With reference judges, the board is what they would
have said of everything (`judging.opinion`). `stats` does the inference, by scenario.
"""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np

from tipbench import __version__
from tipbench.catalog import Rubric
from tipbench.counting.census import Census, Entry, RowInfo, same_tips, take
from tipbench.counting.judged import Judges
from tipbench.counting.sample import Sample, asked_for
from tipbench.judging.agreement import alpha_by_criterion, is_weak, self_consistency
from tipbench.judging.cautions import unsteady
from tipbench.judging.checks import reasons
from tipbench.judging.opinion import Opinion, Rows, of_judges, of_references, tabulate
from tipbench.judging.ratings import ratings
from tipbench.leaderboard.caveats import (
    about_what_counts,
    cautions,
    same_tips_words,
    unlike_memory,
    without_expected,
)
from tipbench.leaderboard.markdown import to_markdown
from tipbench.leaderboard.model import (
    AgreementSummary,
    Cell,
    CellBias,
    JudgeBias,
    JudgeSummary,
    Leaderboard,
    Nearest,
    Recommended,
    Reference,
    Refusal,
    ReportTip,
    to_json,
)
from tipbench.leaderboard.options import AS_IT_STANDS, BoardOptions, Prefer
from tipbench.leaderboard.race import in_rounds
from tipbench.leaderboard.rows import gather, row_of, with_pareto
from tipbench.leaderboard.weights import weights_of
from tipbench.leaderboard.words import headline
from tipbench.rounds import record
from tipbench.rounds.standing import advance, stand
from tipbench.rounds.words import next_step
from tipbench.stats import Bias, choose
from tipbench.store import Store
from tipbench.store.records import CellRecord, Collection, Holdings, ScoreRecord

CONFIDENCE = 0.95
REPORT_CELLS = 400
"""Above this many runs the HTML report leaves out the tips themselves."""


@dataclass(frozen=True)
class Ranking:
    """The leaderboard, and what its renderings need besides."""

    leaderboard: Leaderboard
    experiment_id: str
    state: str
    """The same for the same board, whenever it is made."""
    shown: tuple[tuple[RowInfo, CellRecord, tuple[ScoreRecord, ...]], ...]
    """The cells whose tips the report shows, with the scores that count; none when there are too many."""
    rubric_file: str = ""
    """Where the rubric was read from; empty for the shipped one."""


@dataclass(frozen=True)
class CompareResult:
    """The leaderboard and its renderings."""

    leaderboard: Leaderboard
    markdown: str
    html: str
    run_id: str
    """The leaderboard's run in MLflow."""


def run(
    experiment: str,
    store: Store,
    rubric: Rubric,
    options: BoardOptions = AS_IT_STANDS,
    *,
    schema: int = 2,
) -> CompareResult:
    """Rank the experiment's cells as `rank` does, render the outcome, and keep it in MLflow.

    Of an experiment in rounds, looks that the scores allow are taken first.
    """
    experiment_id = store.require_experiment(experiment)
    if record.read(store, experiment_id, rubric.hash).members:
        census = take(store.holdings(experiment_id))
        step = next_step(
            experiment, advance(store, experiment_id, census, rubric, margin=rubric.margin(options.margin))
        )
        record.note_next(store, experiment_id, rubric.hash, step.action, step.looks_taken, step.reason)
    ranking = rank(experiment, store, rubric, options)
    leaderboard = ranking.leaderboard
    markdown, html = to_markdown(leaderboard), report(ranking, store)
    best = leaderboard.cells[0].composite if leaderboard.cells else None
    run_id = store.save_leaderboard(
        ranking.experiment_id,
        ranking.state,
        {
            "leaderboard.json": (to_json(leaderboard, schema) + "\n").encode(),
            "leaderboard.md": markdown.encode(),
            "report.html": html.encode(),
        },
        {
            "cells": len(leaderboard.cells),
            "judged": sum(cell.n_judged for cell in leaderboard.cells),
            **({"best_composite": best} if best is not None else {}),
        },
    )
    return CompareResult(leaderboard, markdown, html, run_id)


def report(ranking: Ranking, store: Store) -> str:
    """The HTML report; the tips in it are read from the store."""
    from tipbench.leaderboard.html import to_html  # matplotlib: not for those who only want the numbers

    told = {"--rubric": ranking.rubric_file, "--mlflow-url": store.where}
    hint = "".join(f" {option} {shlex.quote(value)}" for option, value in told.items() if value)
    return to_html(ranking.leaderboard, _tips(store, ranking.shown), hint)


def rank(
    experiment: str,
    store: Store,
    rubric: Rubric,
    options: BoardOptions = AS_IT_STANDS,
) -> Ranking:
    """Rank the experiment's cells; nothing is written. Raises InputError for an unknown experiment, judge or criterion."""
    experiment_id = store.require_experiment(experiment)
    holdings = store.holdings(experiment_id)
    samples = asked_for(store.experiment_tags(experiment_id), rubric.hash) if options.references else []
    return rank_holdings(
        experiment,
        holdings,
        take(holdings),
        rubric,
        options,
        samples=samples,
        race=record.read(store, experiment_id, rubric.hash),
    )


def rank_holdings(
    experiment: str,
    holdings: Holdings,
    census: Census,
    rubric: Rubric,
    options: BoardOptions = AS_IT_STANDS,
    *,
    samples: Sequence[Sample] = (),
    race: record.Race | None = None,
) -> Ranking:
    """Rank what counts of these holdings; nothing is read or written.

    `race` is the record of an experiment in rounds; looks not on record yet are taken, not recorded. Raises InputError for an unknown
    judge or criterion.
    """
    judges, references, scores = options.judges, options.references, options.scores
    board = census.on_board(options.versions)
    cells = [entry.cell for _, entries in board for entry in entries]
    weighting = weights_of(rubric, options.weights)
    who = Judges(cells, rubric.hash)
    counting = who.counting((*references, *judges) if references and judges else judges)
    counting |= who.counting(references) if references else {}
    records = {cell.run.run_id: who.records(cell, counting) for cell in cells}
    warnings = about_what_counts(cells, census, records, who, judges, options.versions)
    if scores == "expected":
        warnings += without_expected(records)
    groups = [gather(info, entries, records) for info, entries in board]
    same = same_tips(board)
    warnings += [same_tips_words(rows) for rows in same]
    opinion = _opinion(board, records, rubric, weighting, options)
    comparison = opinion.comparison
    warnings += opinion.warnings
    twins = {one.key: [other.key for other in rows if other is not one] for rows in same for one in rows}
    rows = [row_of(group, opinion, i, rubric, twins.get(group.info.key, [])) for i, group in enumerate(groups)]
    places = [int(i) for i in comparison.order]
    rows = with_pareto([rows[i] for i in places])
    warnings += unlike_memory(rows)
    agreement, summaries = _judges(cells, records, rubric, warnings)
    summaries = _with_biases(summaries, opinion, [groups[i].info for i in range(len(groups))])
    warnings += cautions(rows, summaries, groups, records)
    margin = rubric.margin(options.margin)
    entries = [entry for _, row in board for entry in row]
    named = opinion.reference.judges if opinion.reference is not None else ()
    drawn = any(one.is_what(named, entries, who) for one in samples)
    if opinion.reference is not None and not drawn:
        warnings.append(
            f"The scores of {', '.join(opinion.reference.judges)} are not a sample drawn at random that is complete; they are taken "
            "for representative. tipbench judge export --sample draws one."
        )
    choice = _choice(rows, [i for i in places if not np.isnan(comparison.mean[i])], opinion, margin, options.prefer)
    leaderboard = Leaderboard(
        experiment=experiment,
        created_at=datetime.now(UTC).replace(microsecond=0),
        rubric_hash=rubric.hash,
        rubric_name=rubric.name,
        scale_min=rubric.scale_min,
        scale_max=rubric.scale_max,
        criteria=tuple(c.id for c in rubric.criteria),
        weights=weighting,
        method=(
            "95% t interval on scenario means; differences paired by scenario, with an all-pairs max-T correction that pays "
            "for the number of cells and for choosing the leader by looking; rank limits count what that shows; P(best) from a "
            "paired bootstrap over scenarios."
            + (
                " Composites and differences are what the reference judges would have said of everything: prediction-powered "
                "inference (PPI++) from their scores on a part and another judge's on all."
                if opinion.reference is not None
                else ""
            )
        ),
        confidence=CONFIDENCE,
        seed=options.seed,
        judges=summaries,
        agreement=agreement,
        reference=_reference(opinion, drawn),
        margin=margin,
        prefer=options.prefer,
        recommended=choice if isinstance(choice, Recommended) else None,
        nearest=choice if isinstance(choice, Nearest) else None,
        warnings=tuple(warnings),
        refused=tuple(Refusal(model=m, reason=r) for m, r in sorted(census.refused.items())),
        receipt=_receipt(holdings.collections),
        cells=tuple(rows),
    )
    if race is not None and race.members:
        leaderboard = in_rounds(leaderboard, stand(census, rubric, race, margin=margin))
    leaderboard = leaderboard.model_copy(update={"headline": headline(leaderboard)})
    shown = [(i, e.cell, tuple(records[e.run_id])) for i, es in board for e in es if e.cell.n_candidates]
    return Ranking(
        leaderboard,
        holdings.experiment_id,
        _state(cells, leaderboard),
        tuple(shown) if len(shown) <= REPORT_CELLS else (),
        rubric.file,
    )


def _opinion(
    board: Sequence[tuple[RowInfo, Sequence[Entry]]],
    records: Mapping[str, Sequence[ScoreRecord]],
    rubric: Rubric,
    weighting: Mapping[str, float],
    options: BoardOptions,
) -> Opinion:
    """Whose opinion the board is, and what it says; cells in the order of the board."""
    columns = sorted({e.column for _, entries in board for e in entries if e.cell.n_candidates})
    rows = Rows(
        [
            [(e.column, e.cell.n_candidates, records[e.run_id]) for e in entries if e.cell.n_candidates]
            for _, entries in board
        ],
        columns,
    )
    criteria = [c.id for c in rubric.criteria]
    table = tabulate(rows, criteria, expected=options.scores == "expected")
    weights = np.array([weighting[c] for c in criteria])
    bounds = (float(rubric.scale_min), float(rubric.scale_max))
    if not options.references:
        return of_judges(table, weights, seed=options.seed, confidence=CONFIDENCE, bounds=bounds)
    named = [name.partition("@")[0] if name not in table.judges else name for name in options.references]
    others = [name.partition("@")[0] if name not in table.judges else name for name in options.judges]
    return of_references(
        table,
        weights,
        named,
        others=[name for name in others if name not in named],
        seed=options.seed,
        confidence=CONFIDENCE,
        bounds=bounds,
    )


def _reference(opinion: Opinion, drawn: bool) -> Reference | None:
    one = opinion.reference
    if one is None:
        return None
    return Reference.model_validate(
        {
            "judges": one.judges,
            "others": one.others,
            "n_scenarios": one.scenarios,
            "n_alone": one.alone,
            "share": one.share,
            "lambda": one.weight,
            "worth": one.worth,
            "drawn": drawn,
        }
    )


def _with_biases(
    summaries: Sequence[JudgeSummary], opinion: Opinion, infos: Sequence[RowInfo]
) -> tuple[JudgeSummary, ...]:
    """The summaries with each judge's bias against the references."""
    found = {one.judge: one.bias for one in opinion.biases}

    def body(bias: Bias) -> JudgeBias:
        return JudgeBias(
            level=bias.level.mean,
            ci_low=bias.level.low,
            ci_high=bias.level.high,
            cells=tuple(
                CellBias(
                    model=info.model,
                    prompt=info.prompt,
                    variant=info.variant,
                    value=interval.mean,
                    ci_low=interval.low,
                    ci_high=interval.high,
                )
                for info, interval in zip(infos, bias.cells, strict=True)
                if interval.mean is not None
            ),
        )

    return tuple(
        one.model_copy(update={"bias": body(found[one.name])}) if one.name in found else one for one in summaries
    )


def _choice(
    rows: Sequence[Cell], tested: Sequence[int], opinion: Opinion, margin: float, prefer: Prefer
) -> Recommended | Nearest | None:
    """The cheapest cell that is good enough, else the cheapest that may be; None where there is no choice.

    `rows` stand in the board's order and `tested` are the cells with a composite, in that order, by their number in the opinion.
    """
    judged = list(rows[: len(tested)])
    if len(judged) < 2:
        return None
    # The tests leave out cells without a composite and keep the order in which the cells came in.
    came = sorted(range(len(tested)), key=lambda place: tested[place])
    cells = [judged[place] for place in came]
    cost = [c.seconds_per_tip if prefer == "speed" else c.peak_memory_bytes for c in cells]
    price = np.array([np.nan if value is None else value for value in cost], dtype=float)
    n_scenarios = max(c.n_scenarios for c in cells)
    if opinion.reference is not None:
        n_scenarios = opinion.reference.scenarios
    found = choose(opinion.comparison.pairs, price, margin, n_scenarios=n_scenarios)
    what = "least time a tip" if prefer == "speed" else "least memory"
    if found.cell is not None:
        cell = cells[found.cell]
        known = f"the {what} of those" if not np.isnan(price[found.cell]) else f"the {what} is not known"
        low = np.delete(opinion.comparison.pairs.low[found.cell], found.cell).min()
        why = (
            f"at most {max(-float(low), 0.0):.2f} points behind any other cell, with {CONFIDENCE:.0%} confidence for all cells at "
            f"once, which is less than the margin of {margin:.2f}; {known}"
        )
        return Recommended(model=cell.model, prompt=cell.prompt, variant=cell.variant, why=why)
    if found.candidate is None:
        return None
    cell = cells[found.candidate]
    kind = "reference scenarios" if opinion.reference is not None else "scenarios"
    why = f"{what} of the cells that may be within {margin:.2f} points of the best; " + (
        f"to tell takes about {found.scenarios} {kind}"
        if found.scenarios is not None
        else "no number of scenarios that can be named would tell"
    )
    return Nearest(model=cell.model, prompt=cell.prompt, variant=cell.variant, scenarios=found.scenarios, why=why)


def _judges(
    cells: Sequence[CellRecord],
    records: Mapping[str, Sequence[ScoreRecord]],
    rubric: Rubric,
    warnings: list[str],
) -> tuple[tuple[AgreementSummary, ...], tuple[JudgeSummary, ...]]:
    """Agreement and judge summaries; weak ones add a warning."""
    rated = ratings(cells, records)
    kinds = {r.judge: r.kind for rs in records.values() for r in rs}
    repeated = self_consistency(rated)
    warnings += unsteady(repeated)
    consistency = {c.judge: c.exact for c in repeated}
    summaries = tuple(
        JudgeSummary(
            name=judge,
            kind=kind,
            n_judged=len(rated.scores.get(judge, {})),
            mean=statistics.fmean([v for s in rated.scores[judge].values() for v in s.values()])
            if rated.scores.get(judge)
            else None,
            self_consistency=consistency.get(judge),
        )
        for judge, kind in sorted(kinds.items())
    )
    if len(kinds) < 2:
        return (), summaries
    alphas = alpha_by_criterion(rated, [c.id for c in rubric.criteria])
    weak = [a for a in alphas if is_weak(a)]
    if weak:
        words = ", ".join(f"{a.criterion} {a.alpha:.2f}" for a in weak if a.alpha is not None)
        warnings.append(
            f"The judges agree weakly (Krippendorff's ordinal alpha below 0.667: {words}); trust the ranking less."
        )
    return tuple(
        AgreementSummary(criterion=a.criterion, alpha=a.alpha, ci_low=a.ci_low, ci_high=a.ci_high) for a in alphas
    ), summaries


def _receipt(collections: Sequence[Collection]) -> dict[str, str]:
    """The receipts of all collections, flattened for reading; where they differ, the latest stands."""
    flat = {"compared with": f"tipbench {__version__}"}
    for collection in collections:
        for name, value in collection.receipt.items():
            flat.update(_flat(name, value))
    return flat


def _flat(name: str, value: object) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {k: v for inner, item in value.items() for k, v in _flat(f"{name}.{inner}", item).items()}
    return {} if value in (None, "", ()) else {name: str(value)}


def _tips(store: Store, shown: Sequence[tuple[RowInfo, CellRecord, Sequence[ScoreRecord]]]) -> list[ReportTip]:
    """The tips of the cells to show, each with its mean scores, for the report's drill-down."""
    tips = []
    for (info, cell, records), result in zip(shown, store.results(cell.run for _, cell, _ in shown), strict=True):
        # 0.2.0 kept no flags beside the tips; all but a leak of the prompt can be told from the texts.
        earlier = reasons([c.text for c in result.candidates], (), [c.done_reason for c in result.candidates])
        for position, candidate in enumerate(result.candidates):
            scored = [
                dict(zip(r.criteria, r.scores[candidate.index], strict=True))
                for r in records
                if candidate.index in r.scores
            ]
            means = {c: statistics.fmean(s[c] for s in scored) for c in scored[0]} if scored else None
            why = candidate.flags if candidate.flags is not None else earlier[position]
            flags = tuple(f"{name.replace('_', ' ')} ({words})" for name, words in why.items())
            tips.append(
                ReportTip(
                    info.model, info.prompt, cell.scenario, candidate.text, means, flags, info.variant, result.situation
                )
            )
    return tips


def _state(cells: Sequence[CellRecord], leaderboard: Leaderboard) -> str:
    """A hash of what the board says, and of the runs whose tips its report shows."""
    runs = [[c.run.run_id, c.run.status] for c in cells]
    said = leaderboard.model_dump_json(exclude={"created_at"})
    return sha256(json.dumps([__version__, runs, said]).encode()).hexdigest()[:16]
