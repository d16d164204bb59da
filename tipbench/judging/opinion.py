"""Whose opinion a board is: from the judges' scores of every tip to cells compared on one scale.

Without references, the judges' scores are put on one scale (`stats.effects`). With references, the board is what they would
have said of everything, from their scores on a part and another judge's on all (`stats.ppi`). Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tipbench.errors import InputError
from tipbench.stats import (
    MIN_REFERENCE_SCENARIOS,
    MIN_SHARED_SCENARIOS,
    Bias,
    Comparison,
    Interval,
    TooFewReferences,
    bias,
    compare_judged,
    estimate,
    scenario_interval,
    within_scenario,
)
from tipbench.store.records import ScoreRecord

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """Every judge's scores of every tip."""

    judges: tuple[str, ...]
    kinds: tuple[str, ...]
    scores: FloatArray
    """(J judges, C cells, S scenarios, T tips, K criteria), NaN for what was not scored"""
    tips: npt.NDArray[np.intp]
    """Tips there are, scored or not, (C, S)."""

    @property
    def has(self) -> BoolArray:
        """Which tips each judge has scored, (J, C, S, T)."""
        return np.asarray(~np.isnan(self.scores).any(axis=-1))


@dataclass(frozen=True)
class JudgeBias:
    """Another judge's bias against the references."""

    judge: str
    bias: Bias


@dataclass(frozen=True)
class ReferenceUse:
    """What the references gave to the board."""

    judges: tuple[str, ...]
    others: tuple[str, ...]
    """Whose scores stand in where the references have not scored; empty where nobody's do."""
    scenarios: int
    alone: int
    """Scenarios that only the others scored."""
    share: float
    """Of the tips of the cells that are compared, those with a reference's score."""
    weight: float
    """λ"""
    worth: float | None


@dataclass(frozen=True)
class Opinion:
    """Cells compared, and whose opinion that is; cells in the order in which they came."""

    cells: tuple[Interval, ...]
    comparison: Comparison
    criteria: FloatArray
    """Mean of each criterion, (C, K)."""
    unranked: Mapping[int, str]
    """cell -> why it has no rank though somebody judged it"""
    judges: tuple[str, ...]
    """Whose scores count."""
    reference: ReferenceUse | None = None
    biases: tuple[JudgeBias, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """What the table is made of: for each cell, its column, number of tips and records, run by run."""

    runs: Sequence[Sequence[tuple[str, int, Sequence[ScoreRecord]]]]
    columns: Sequence[str] = field(default=())


def tabulate(rows: Rows, criteria: Sequence[str], *, expected: bool = False) -> Table:
    """The table of these runs. With `expected`, means of a judge's score distributions stand in for its whole scores."""
    kinds = {r.judge: r.kind for cell in rows.runs for _, _, records in cell for r in records}
    judges = tuple(sorted(kinds))
    row_of = {judge: i for i, judge in enumerate(judges)}
    column_of = {column: i for i, column in enumerate(rows.columns)}
    most = max((n for cell in rows.runs for _, n, _ in cell), default=0)
    shape = (len(judges), len(rows.runs), len(rows.columns), most)
    scores = np.full((*shape, len(criteria)), np.nan)
    tips = np.zeros(shape[1:3], dtype=np.intp)
    for c, cell in enumerate(rows.runs):
        for column, n, records in cell:
            s = column_of[column]
            tips[c, s] = max(tips[c, s], n)
            for record in records:
                place = [record.criteria.index(name) for name in criteria]
                for index, whole in record.scores.items():
                    given = record.expected.get(index, whole) if expected else whole
                    scores[row_of[record.judge], c, s, index] = [given[i] for i in place]
    return Table(judges, tuple(kinds[judge] for judge in judges), scores, tips)


def of_judges(
    table: Table, weights: FloatArray, *, seed: int, confidence: float, bounds: tuple[float, float]
) -> Opinion:
    """The board that all these judges give; weights (K,) sum to 1."""
    composite = table.scores @ weights
    found = compare_judged(composite, seed=seed, confidence=confidence)
    has = table.has
    scale = found.scale
    cells = tuple(scenario_interval(row, confidence, bounds) for row in found.means)
    criteria = _criteria(table, scale.means)
    judged = has.any(axis=(0, 2, 3))
    unranked = {
        int(c): "scored only by judges who cannot be put on one scale with the others"
        for c in np.flatnonzero(judged & ~scale.cells)
    }
    warnings = []
    for one in found.left_out:
        name = table.judges[one.judge]
        why = (
            f"shares tips with the other judges in {one.scenarios} scenarios, and it takes {MIN_SHARED_SCENARIOS} to know how "
            "lenient it is"
            if one.reason == "shares too little"
            else f"uses the scale in another way than the others (its scores of the same tips spread {one.ratio:.2f} times as "
            "far), so that what it gives to some cells cannot be compared with what others give to other cells"
        )
        warnings.append(f"Judge {name} is left out: it {why}.")
    left = {one.judge for one in found.left_out}
    unused = [
        f"{name} ({int((has[j] & ~scale.used[j]).sum())} of {int(has[j].sum())} scores)"
        for j, name in enumerate(table.judges)
        if j not in left and (has[j] & ~scale.used[j]).any()
    ]
    if unused:
        warnings.append(
            "Scores of some cells only are not averaged with those of judges who scored all of a scenario's cells, since leniency "
            f"would colour the ranking; not counted: {', '.join(unused)}."
        )
    if scale.connected:
        lenient = scale.leniency(composite)
        named = ", ".join(
            f"{name} {value:+.2f}" for name, value in zip(table.judges, lenient, strict=True) if not np.isnan(value)
        )
        warnings.append(
            "The judges scored different cells. How lenient each one is was estimated from the tips that they share and taken off "
            f"({named} points); the error of that is in the intervals."
        )
    counting = tuple(name for j, name in enumerate(table.judges) if scale.used[j].any())
    return Opinion(cells, found.comparison, criteria, unranked, counting, warnings=tuple(warnings))


def _criteria(table: Table, means: object) -> FloatArray:
    assert callable(means)
    result = np.full((table.scores.shape[1], table.scores.shape[-1]), np.nan)
    for k in range(result.shape[1]):
        by_scenario = means(table.scores[..., k])
        known = ~np.isnan(by_scenario).all(axis=1)
        result[known, k] = np.nanmean(by_scenario[known], axis=1)
    return result


def of_references(
    table: Table,
    weights: FloatArray,
    references: Sequence[str],
    *,
    others: Sequence[str] = (),
    seed: int,
    confidence: float,
    bounds: tuple[float, float],
) -> Opinion:
    """The board that the references would give; `others` names whose scores stand in where they have not scored.

    By default those are the other judges that have scored every tip of the cells compared, the baseline never among them.
    Raises InputError when the references scored fewer than `MIN_REFERENCE_SCENARIOS` scenarios.
    """
    composite = table.scores @ weights
    has = table.has
    chosen = [table.judges.index(name) for name in references if name in table.judges]
    is_reference = np.isin(np.arange(len(table.judges)), chosen)
    used = within_scenario(has & is_reference[:, None, None, None])
    compared: BoolArray = np.asarray(used.any(axis=(0, 3)).sum(axis=1) >= MIN_REFERENCE_SCENARIOS)
    # A scenario of which the references scored few of the cells is no reference scenario: its other cells would lose theirs.
    there: BoolArray = np.asarray(used.any(axis=(0, 3)))
    enough: BoolArray = np.asarray(there[compared].sum(axis=0) * 2 >= (table.tips[compared] > 0).sum(axis=0))
    used &= enough[None, None, :, None]
    stand_in, short = _others(table, chosen, compared, others)
    f = _tip_means(composite, stand_in) if stand_in else np.full(composite.shape[1:], np.nan)
    if stand_in:
        used &= ~np.isnan(f)
    shared_tips = np.broadcast_to(f, used.shape)
    y, shared = _by_judge(composite, used), _by_judge(shared_tips, used)
    everything = _tip_average(f)
    try:
        found = estimate(y, shared, everything, seed=seed, confidence=confidence, bounds=bounds)
    except TooFewReferences as error:
        names = ", ".join(references)
        raise InputError(
            f"--reference: {names} scored {error.n} scenarios of the cells, and it takes {MIN_REFERENCE_SCENARIOS} to say how "
            f"far another judge can be trusted; tipbench judge export --sample {max(8, MIN_REFERENCE_SCENARIOS)} makes a file "
            "with a sample to score"
        ) from error
    criteria = np.full((len(y), table.scores.shape[-1]), np.nan)
    for k in range(criteria.shape[1]):
        fk = _tip_means(table.scores[..., k], stand_in) if stand_in else f
        criteria[:, k] = _rectified(
            _by_judge(table.scores[..., k], used),
            _by_judge(np.broadcast_to(fk, used.shape), used),
            _tip_average(fk),
            found.weight,
            found.estimated,
        )
    counts = (~np.isnan(y)).sum(axis=1)
    judged = has.any(axis=(0, 2, 3))
    unranked = {int(c): _why_unranked(references, int(counts[c])) for c in np.flatnonzero(judged & ~found.estimated)}
    biases = []
    for j, name in enumerate(table.judges):
        if j in chosen or (table.kinds[j] == "baseline" and name not in others):
            continue
        both = used & has[j]
        own = np.broadcast_to(composite[j], used.shape)
        if both.any(axis=(0, 1, 3)).sum() >= 2:
            biases.append(
                JudgeBias(name, bias(_by_judge(composite, both), _by_judge(own, both), confidence=confidence))
            )
    warnings = []
    if not stand_in:
        warnings.append(
            "No other judge has scored everything, so the board is the references' scores alone"
            + (f" ({', '.join(short)}; --judge NAME takes one all the same)." if short else ".")
        )
    elif not found.n_other:
        warnings.append("The references have scored every scenario, so that no other judge's scores are needed.")
    n_tips = int(table.tips[found.estimated].sum())
    with_reference = int(np.asarray(used.any(axis=0))[found.estimated].sum())
    return Opinion(
        found.cells,
        found.comparison,
        criteria,
        unranked,
        tuple(dict.fromkeys([*(table.judges[j] for j in chosen), *(table.judges[j] for j in stand_in)])),
        ReferenceUse(
            judges=tuple(table.judges[j] for j in chosen),
            others=tuple(table.judges[j] for j in stand_in),
            scenarios=found.n_reference,
            alone=found.n_other,
            share=with_reference / n_tips if n_tips else 0.0,
            weight=found.weight,
            worth=found.worth,
        ),
        tuple(biases),
        tuple(warnings),
    )


def _others(
    table: Table, references: Sequence[int], compared: BoolArray, named: Sequence[str]
) -> tuple[list[int], list[str]]:
    """The judges that stand in, and those that nearly could, in words."""
    if named:
        return [table.judges.index(name) for name in named if name in table.judges], []
    has = table.has
    wanted = int(table.tips[compared].sum())
    found, short = [], []
    for j, name in enumerate(table.judges):
        if j in references or table.kinds[j] == "baseline":
            continue
        missing = wanted - int(has[j][compared].sum())
        if missing == 0:
            found.append(j)
        else:
            short.append(f"{name} lacks {missing} of {wanted} tips")
    return found, short


def _tip_means(scores: FloatArray, judges: Sequence[int]) -> FloatArray:
    """Mean over these judges of tips that all of them scored, (C, S, T)."""
    return np.asarray(scores[list(judges)].mean(axis=0))


def _tip_average(f: FloatArray) -> FloatArray:
    """Scenario means (C, S) over the tips that are known."""
    known = ~np.isnan(f)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, f, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def _by_judge(scores: FloatArray, used: BoolArray) -> FloatArray:
    """Scenario means (C, S): each judge's mean over the tips it scored, then the mean over judges."""
    count = used.sum(axis=3)
    own = np.where(used, scores, 0.0).sum(axis=3) / np.maximum(count, 1)
    judges = (count > 0).sum(axis=0)
    return np.where(judges > 0, own.sum(axis=0) / np.maximum(judges, 1), np.nan)


def _rectified(
    y: FloatArray, shared: FloatArray, everything: FloatArray, weight: float, cells: BoolArray
) -> FloatArray:
    """Each cell's estimate with this weight, (C,), as `stats.estimate` makes it for the composite."""
    result = np.full(len(y), np.nan)
    reference = (~np.isnan(y[cells])).any(axis=0)
    for c in np.flatnonzero(cells):
        alone = everything[c][~reference]
        w = weight if (~np.isnan(alone)).any() else 0.0
        result[c] = np.nanmean(y[c] - w * shared[c] if w else y[c]) + (w * np.nanmean(alone) if w else 0.0)
    return result


def _why_unranked(references: Sequence[str], n: int) -> str:
    names = ", ".join(references)
    if not n:
        return f"never scored by {names}"
    return f"scored by {names} in {n} scenario{'s' * (n > 1)} only; it takes {MIN_REFERENCE_SCENARIOS}"
