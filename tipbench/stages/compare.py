"""Compare: from scores to a leaderboard of (model, prompt) cells with honest error bars.

A scenario's score is the mean over judges on one scale of their means over its candidates; a cell's, the mean over its
scenarios, so that a scenario counts once however many candidates it has. With reference judges, the board is what they would
have said of everything (`judging.opinion`). `stats` does the inference, by scenario.
"""

from __future__ import annotations

import json
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast

import numpy as np

from tipbench import __version__
from tipbench.catalog import Rubric
from tipbench.counting.census import Census, Entry, RowInfo, Versions, same_tips, take
from tipbench.counting.judged import Judges
from tipbench.counting.sample import Sample, asked_for
from tipbench.judging.agreement import alpha_by_criterion, is_weak, self_consistency
from tipbench.judging.cautions import few_scenarios, follow_length, of_one_family, unsteady
from tipbench.judging.checks import reasons
from tipbench.judging.opinion import Opinion, Rows, of_judges, of_references, tabulate
from tipbench.judging.ratings import ratings
from tipbench.leaderboard.markdown import to_markdown
from tipbench.leaderboard.model import (
    AgreementSummary,
    Cell,
    CellBias,
    Checks,
    Difference,
    JudgeBias,
    JudgeSummary,
    Leaderboard,
    Nearest,
    Recommended,
    Reference,
    Refusal,
    ReportTip,
    RowBody,
    to_json,
)
from tipbench.leaderboard.options import AS_IT_STANDS, BoardOptions, Prefer, Scores
from tipbench.leaderboard.race import in_rounds
from tipbench.leaderboard.weights import weights_of
from tipbench.leaderboard.words import headline
from tipbench.rounds import record
from tipbench.rounds.standing import advance, stand
from tipbench.rounds.words import next_step
from tipbench.stats import Bias, choose, pareto_front
from tipbench.store import Store
from tipbench.store.memory import measured
from tipbench.store.records import OPTIONS, CellRecord, Collection, Holdings, ScoreRecord

CONFIDENCE = 0.95
REPORT_CELLS = 400
"""Above this many runs the HTML report leaves out the tips themselves."""


@dataclass(frozen=True)
class Ranking:
    """The leaderboard, and what its renderings need besides."""

    leaderboard: Leaderboard
    experiment_id: str
    state: str
    """A hash of all that the leaderboard depends on."""
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


@dataclass
class _Group:
    """All that is known of one row of the board."""

    info: RowInfo
    runs: list[CellRecord] = field(default_factory=list)
    judged: Counter[str] = field(default_factory=Counter)
    """scenario's hash -> candidates that somebody whose scores count has scored"""


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
    warnings = _warnings(cells, census, records, who, judges, options.versions)
    if scores == "expected":
        warnings += _without_expected(records)
    groups = [_group(info, entries, records) for info, entries in board]
    same = same_tips(board)
    warnings += [_same_words(rows) for rows in same]
    opinion = _opinion(board, records, rubric, weighting, options)
    comparison = opinion.comparison
    warnings += opinion.warnings
    twins = {one.key: [other.key for other in rows if other is not one] for rows in same for one in rows}
    rows = [_cell(group, opinion, i, rubric, twins.get(group.info.key, [])) for i, group in enumerate(groups)]
    places = [int(i) for i in comparison.order]
    rows = _with_pareto([rows[i] for i in places])
    warnings += _unlike_memory(rows)
    agreement, summaries = _judges(cells, records, rubric, warnings)
    summaries = _with_biases(summaries, opinion, [groups[i].info for i in range(len(groups))])
    warnings += _cautions(rows, summaries, groups, records)
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
        _state(cells, records, leaderboard, scores),
        tuple(shown) if len(shown) <= REPORT_CELLS else (),
        rubric.file,
    )


def _warnings(
    cells: Sequence[CellRecord],
    census: Census,
    records: Mapping[str, Sequence[ScoreRecord]],
    who: Judges,
    judges: Sequence[str],
    versions: Versions,
) -> list[str]:
    """What a reader must know before trusting the ranking."""
    found = []
    counting = {r.judge: r.kind for rs in records.values() for r in rs}
    if counting and set(counting.values()) == {"baseline"}:
        found.append("The scores are the baseline judge's (text statistics); no person or model has judged these tips.")
    elif not judges and "baseline" in who.kinds.values():
        found.append("The baseline judge's scores are left out, since other judges have scored.")
    if who.other_rubrics:
        hashes = ", ".join(sorted(h[:8] for h in who.other_rubrics))
        found.append(f"There are also scores under other rubrics ({hashes}); they are not counted here.")
    for judge, known in sorted(who.versions.items()):
        used = {r.version for rs in records.values() for r in rs if r.judge == judge}
        left = sorted(v[:8] or "unknown" for v in known - used)
        if used and left:
            found.append(
                f"Judge {judge} has also scored in another version ({', '.join(left)}: another model digest, judge prompt or "
                f"rationale mode); those scores are not pooled with these. --judge {judge}@VERSION counts them instead."
            )
    found += _versions(census, versions)
    if census.twins:
        names = ", ".join(sorted({f"{e.cell.model} | {e.cell.prompt} | {e.cell.scenario}" for e in census.twins})[:3])
        found.append(
            f"{len(census.twins)} cells were collected twice; of each, one counts ({names}"
            f"{', …' if len(census.twins) > 3 else ''}). tipbench status --json names the runs."
        )
    return found


def _versions(census: Census, versions: Versions) -> list[str]:
    """Names the versions that are left out."""
    left: Counter[str] = Counter()
    variants = {(info.row.id, info.stale_columns): info for info in census.rows}
    current = {info.row.id for info in census.rows if info.current}
    for entry in census.superseded:
        if entry.cell.finished and not entry.other:
            stale = entry.row.id in current
            info = variants.get((entry.row.id, stale))
            words = f"scenario {entry.cell.scenario}" if stale else info.variant if info else "older"
            left[f"{entry.cell.model} with {entry.cell.prompt}: {words}"] += 1
    if not left or versions == "all":
        return []
    named = "; ".join(f"{name} ({n})" for name, n in sorted(left.items())[:6])
    more = f"; and {len(left) - 6} more" if len(left) > 6 else ""
    return [
        f"Older versions are left out, {left.total()} cells: {named}{more}. They were collected before the model, prompt or "
        "scenario was changed; compare --versions all shows them as rows of their own."
    ]


def _same_words(rows: Sequence[RowInfo]) -> str:
    names = [f"{r.model} with {r.prompt}" + (f" ({r.variant})" if r.variant else "") for r in rows]
    return (
        f"{', '.join(names[:-1])} and {names[-1]} wrote the same tips, letter for letter: they are one in all but name, and what "
        "looks like a tie between them says nothing."
    )


def _group(info: RowInfo, entries: Sequence[Entry], records: Mapping[str, Sequence[ScoreRecord]]) -> _Group:
    """A row's runs, and how much of them is judged; a row of which nothing was collected is empty."""
    group = _Group(info)
    for entry in entries:
        group.runs.append(entry.cell)
        scored = {index for one in records[entry.run_id] for index in one.scores}
        if scored:
            group.judged[entry.column] += len(scored)
    return group


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


def _without_expected(records: Mapping[str, Sequence[ScoreRecord]]) -> list[str]:
    """Judges whose whole scores stand in, because they gave no expected ones."""
    missing: Counter[str] = Counter()
    for one in (r for rs in records.values() for r in rs):
        missing[one.judge] += len(one.scores.keys() - one.expected.keys())
    left = ", ".join(f"{judge} ({n})" for judge, n in sorted(missing.items()) if n)
    return [f"Whole scores stand in where a judge gave no expected ones: {left}."] if left else []


def _cell(
    group: _Group,
    opinion: Opinion,
    i: int,
    rubric: Rubric,
    same: Sequence[tuple[str, str, str]],
) -> Cell:
    interval, comparison = opinion.cells[i], opinion.comparison
    criteria: dict[str, float | None] = {
        criterion.id: _float(opinion.criteria[i, position]) for position, criterion in enumerate(rubric.criteria)
    }
    info = group.info
    n_expected = max(sum(info.expected.values()), sum(c.n_candidates for c in group.runs if c.finished))
    n_judged = group.judged.total()
    judged = interval.mean is not None
    failures = Counter(c.failure.reason for c in group.runs if c.failure is not None)
    return Cell(
        model=info.model,
        prompt=info.prompt,
        variant=info.variant,
        row=RowBody(
            id=info.row.id,
            current=info.current and not info.stale_columns,
            options=dict(zip(OPTIONS, info.row.options, strict=True)),
            same_tips=tuple(" | ".join(part for part in key if part) for key in same),
        ),
        rank=None if i in opinion.unranked else int(comparison.rank[i]),
        unranked=opinion.unranked.get(i, ""),
        rank_low=_int(comparison.rank_low[i]) if judged else None,
        rank_high=_int(comparison.rank_high[i]) if judged else None,
        composite=interval.mean,
        ci_low=interval.low,
        ci_high=interval.high,
        se=interval.se,
        p_best=_float(comparison.p_best[i]) if judged else None,
        diff_to_best=Difference(
            value=_float(comparison.diff[i]),
            ci_low=_float(comparison.diff_low[i]),
            ci_high=_float(comparison.diff_high[i]),
            p_adjusted=_float(comparison.p_adjusted[i]),
        ),
        tied_with_best=comparison.tied[i] if judged else None,
        n_scenarios=len(group.judged) or sum(c.finished for c in group.runs),
        n_expected=n_expected,
        n_candidates=sum(c.n_candidates for c in group.runs),
        n_judged=n_judged,
        n_failed=sum(failures.values()),
        failures=dict(failures),
        coverage=min(1.0, n_judged / n_expected) if n_expected else 0.0,
        pareto=None,
        checks=_checks(group.runs),
        **_costs(group.runs),
        **cast(dict[str, Any], criteria),
    )


def _costs(runs: Sequence[CellRecord]) -> dict[str, Any]:
    """Speed, memory and length of a group of runs, from their metrics."""
    metrics = [c.run.metrics for c in runs]
    tokens = sum(m.get("output_tokens", 0.0) for m in metrics if m.get("tokens_per_s"))
    seconds = sum(m.get("output_tokens", 0.0) / m["tokens_per_s"] for m in metrics if m.get("tokens_per_s"))
    ttfts = [m["ttft_s"] for m in metrics if "ttft_s" in m]
    memory = measured(c.run for c in runs)
    timed = [(m["wall_s"] - m.get("load_s", 0.0), m["n_candidates"]) for m in metrics if "wall_s" in m]
    words = [(m["mean_words"], m["n_candidates"]) for m in metrics if "mean_words" in m]
    n_timed, n_words = sum(n for _, n in timed), sum(n for _, n in words)
    return {
        "tokens_per_s": tokens / seconds if seconds else None,
        "ttft_s": statistics.median(ttfts) if ttfts else None,
        "seconds_per_tip": sum(s for s, _ in timed) / n_timed if n_timed else None,
        "peak_memory_bytes": memory.size if memory else None,
        "memory_source": memory.source if memory else None,
        "mean_words": sum(w * n for w, n in words) / n_words if n_words else None,
    }


def _unlike_memory(rows: Sequence[Cell]) -> list[str]:
    """A word where some memory figures are measured and others only reported: they do not compare."""
    reported = [row for row in rows if row.memory_source == "reported"]
    if not reported or all(row.memory_source in (None, "reported") for row in rows):
        return []
    names = ", ".join(sorted({row.model for row in reported}))
    return [
        f"The memory of {names} is the engine's own count, that of the other rows is measured and so larger: in memory "
        "they do not compare."
    ]


def _checks(runs: Sequence[CellRecord]) -> Checks:
    names = Checks.model_fields
    return Checks(**{n: int(sum(c.run.metrics.get(f"check_{n}", 0) for c in runs)) for n in names})


def _with_pareto(rows: Sequence[Cell]) -> list[Cell]:
    def column(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([np.nan if getattr(r, name) is None else getattr(r, name) for r in rows], dtype=float)

    front = pareto_front(column("composite"), column("tokens_per_s"), column("peak_memory_bytes"))
    return [
        r.model_copy(update={"pareto": None if r.composite is None else bool(f)})
        for r, f in zip(rows, front, strict=True)
    ]


def _cautions(
    rows: Sequence[Cell],
    summaries: Sequence[JudgeSummary],
    groups: Sequence[_Group],
    records: Mapping[str, Sequence[ScoreRecord]],
) -> list[str]:
    """What should make a reader wary of these scores."""
    judged = [c for c in rows if c.composite is not None]
    found = few_scenarios(max((c.n_scenarios for c in judged), default=0))
    found += of_one_family([(j.name, j.kind) for j in summaries], [c.model for c in judged])
    for judge in summaries:
        runs = [
            (
                run.scenario,
                statistics.fmean(v for s in record.scores.values() for v in s),
                run.run.metrics["mean_words"],
            )
            for group in groups
            for run in group.runs
            if "mean_words" in run.run.metrics
            for record in records[run.run.run_id]
            if record.judge == judge.name and record.scores
        ]
        found += follow_length(judge.name, runs) if judge.kind in ("llm", "agent") else []
    return found


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
            mean=statistics.fmean(v for s in rated.scores[judge].values() for v in s.values())
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


def _state(
    cells: Sequence[CellRecord],
    records: Mapping[str, Sequence[ScoreRecord]],
    leaderboard: Leaderboard,
    scores: Scores,
) -> str:
    """A hash of everything the leaderboard depends on."""
    content = [
        [
            [c.run.run_id, c.run.status, [[r.judge, sorted(r.scores.items())] for r in records[c.run.run_id]]]
            for c in cells
        ],
        [leaderboard.rubric_hash, sorted(leaderboard.weights.items()), leaderboard.seed, __version__, scores],
        [leaderboard.margin, leaderboard.prefer, leaderboard.reference and leaderboard.reference.judges],
        leaderboard.race.model_dump(mode="json") if leaderboard.race else None,
    ]
    return sha256(json.dumps(content).encode()).hexdigest()[:16]


def _float(value: object) -> float | None:
    number = float(value) if isinstance(value, int | float | np.floating) else None
    return None if number is None or np.isnan(number) else number


def _int(value: object) -> int | None:
    number = _float(value)
    return None if number is None else int(number)
