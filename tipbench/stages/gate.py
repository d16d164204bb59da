"""Gate: is a change worse than what was there? The cells of one experiment against the same cells of another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from tipbench.catalog import Rubric
from tipbench.counting.census import Entry, RowInfo, take
from tipbench.counting.judged import Judges
from tipbench.errors import InputError
from tipbench.leaderboard.gate import FailOn, Gate, GateCell, Standing
from tipbench.leaderboard.weights import weights_of
from tipbench.stats.against import FEWEST, against
from tipbench.store import Store
from tipbench.store.records import ScoreRecord

CONFIDENCE = 0.95

RowKey = tuple[str, str, str]
Means = Mapping[RowKey, Mapping[tuple[str, str], float]]
"""row -> (column, judge) -> weighted mean over the row's candidates there"""


def run(
    experiment: str,
    baseline: str,
    store: Store,
    rubric: Rubric,
    *,
    fail_on: FailOn | None = None,
    margin: float,
    weights: Mapping[str, float] | None = None,
    judges: Sequence[str] = (),
    scores: Literal["whole", "expected"] = "whole",
) -> Gate:
    """Compare every row that both experiments have by name, scenario by scenario, under the same rubric and judges.

    Raises InputError for an unknown experiment or judge, and when nothing can be compared: no row, no judge or no scenario in common.
    """
    if not math.isfinite(margin) or margin <= 0:
        raise InputError(f"--margin {margin:g}: must be above 0, on the rubric's scale")
    weighting = weights_of(rubric, weights)
    vector = [weighting[c.id] for c in rubric.criteria]
    here = _Side(experiment, store, rubric, judges)
    there = _Side(baseline, store, rubric, judges)
    shared = {j: v for j, v in here.counting.items() if there.counting.get(j) == v}
    if not shared:
        raise InputError(
            f"no judge has scored both {experiment} and {baseline} under rubric {rubric.name}",
            (f"{experiment}: {here.shown}", f"{baseline}: {there.shown}"),
        )
    ours, theirs = here.means(shared, vector, scores), there.means(shared, vector, scores)
    common = [info for info in here.rows if info.key in theirs and info.key in ours]
    if not common:
        raise InputError(
            f"{experiment} and {baseline} have no (model, prompt) in common that these judges scored",
            (f"{experiment}: {_names(here.rows)}", f"{baseline}: {_names(there.rows)}"),
        )
    columns = sorted({c for info in common for c, _ in ours[info.key].keys() & theirs[info.key].keys()})
    if not columns:
        raise InputError(
            f"{experiment} and {baseline} have no scenario in common that a judge scored in both; a scenario is the same when its "
            "id, title and situation are"
        )
    matrices = [_matrix(info.key, columns, ours, theirs) for info in common]
    found = against(np.array([now - before for now, before in matrices]), confidence=CONFIDENCE)
    cells = tuple(
        _cell(info, now, before, float(found.diff[i]), float(found.low[i]), float(found.high[i]), fail_on, margin)
        for i, (info, (now, before)) in enumerate(zip(common, matrices, strict=True))
    )
    keys = {info.key for info in common}
    return Gate(
        experiment=experiment,
        against=baseline,
        created_at=datetime.now(UTC).replace(microsecond=0),
        rubric_hash=rubric.hash,
        judges=tuple(sorted(shared)),
        fail_on=fail_on,
        margin=margin,
        confidence=CONFIDENCE,
        failed=any(cell.fails for cell in cells),
        cells=cells,
        only_here=tuple(_name(i) for i in here.rows if i.key not in keys),
        only_in_baseline=tuple(_name(i) for i in there.rows if i.key not in keys),
        warnings=tuple(_warnings(here, there, shared, rubric)),
    )


class _Side:
    """One of the two experiments: its rows, and whose scores count there."""

    def __init__(self, experiment: str, store: Store, rubric: Rubric, judges: Sequence[str]) -> None:
        self.experiment = experiment
        self._board = take(store.holdings(store.require_experiment(experiment))).on_board()
        self.rows = [info for info, _ in self._board]
        self.judges = Judges((e.cell for _, entries in self._board for e in entries), rubric.hash)
        self.counting = self.judges.counting(judges)

    @property
    def shown(self) -> str:
        """Who scored here."""
        return ", ".join(f"{j}@{v[:8]}" if v else j for j, v in sorted(self.counting.items())) or "nobody"

    def means(self, counting: Mapping[str, str], vector: Sequence[float], scores: str) -> Means:
        """Weighted means of what these judges gave; rows without any are left out."""
        found = {}
        for info, entries in self._board:
            if means := self._row(entries, counting, vector, scores):
                found[info.key] = means
        return found

    def _row(
        self, entries: Sequence[Entry], counting: Mapping[str, str], vector: Sequence[float], wanted: str
    ) -> dict[tuple[str, str], float]:
        scores: dict[tuple[str, str], list[float]] = defaultdict(list)
        for entry in entries:
            record: ScoreRecord
            for record in self.judges.records(entry.cell, counting):
                for index, whole in record.scores.items():
                    one = record.expected.get(index, whole) if wanted == "expected" else whole
                    scores[entry.column, record.judge].append(sum(w * s for w, s in zip(vector, one, strict=True)))
        return {place: sum(values) / len(values) for place, values in scores.items() if values}


def _matrix(
    key: RowKey, columns: Sequence[str], ours: Means, theirs: Means
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """(now, before) by scenario, each the mean over the judges who scored both there; NaN where nobody did."""
    now, before = np.full(len(columns), np.nan), np.full(len(columns), np.nan)
    both = ours[key].keys() & theirs[key].keys()
    for i, column in enumerate(columns):
        places = [place for place in both if place[0] == column]
        if places:
            now[i] = sum(ours[key][p] for p in places) / len(places)
            before[i] = sum(theirs[key][p] for p in places) / len(places)
    return now, before


def _cell(
    info: RowInfo,
    now: np.ndarray[tuple[int], np.dtype[np.float64]],
    before: np.ndarray[tuple[int], np.dtype[np.float64]],
    difference: float,
    low: float,
    high: float,
    fail_on: FailOn | None,
    margin: float,
) -> GateCell:
    n = int((~np.isnan(now)).sum())
    standing: Standing
    if math.isnan(low):
        standing = "too few scenarios" if n < FEWEST else "open"
    elif high < 0:
        standing = "worse"
    elif low > 0:
        standing = "better"
    else:
        standing = "within margin" if low > -margin else "open"
    # A loss that is shown, but shown to be smaller than the margin as well, is one that the user said does not matter.
    within = not math.isnan(low) and low > -margin
    fails = standing == "worse" if fail_on == "worse" else fail_on is not None and not within
    return GateCell(
        model=info.model,
        prompt=info.prompt,
        variant=info.variant,
        n_scenarios=n,
        composite=float(np.nanmean(now)) if n else None,
        baseline=float(np.nanmean(before)) if n else None,
        difference=difference if n else None,
        low=None if math.isnan(low) else low,
        high=None if math.isnan(high) else high,
        standing=standing,
        fails=fails,
    )


def _warnings(here: _Side, there: _Side, shared: Mapping[str, str], rubric: Rubric) -> list[str]:
    found = []
    for side, other in ((here, there), (there, here)):
        left = sorted(j for j in side.counting if j not in shared)
        versions = [j for j in left if j in other.counting]
        missing = [j for j in left if j not in other.counting]
        if versions and side is here:
            found.append(
                f"Left out, since they scored the two in different versions (model digest, judge prompt or rationale mode): {', '.join(versions)}."
            )
        if missing:
            found.append(f"Left out, since they scored {side.experiment} alone: {', '.join(missing)}.")
    if {here.judges.kinds.get(j) for j in shared} == {"baseline"}:
        found.append("The scores are the baseline judge's (text statistics); no person or model has judged these tips.")
    return found


def _name(info: RowInfo) -> str:
    return f"{info.model} with {info.prompt}" + (f" ({info.variant})" if info.variant else "")


def _names(rows: Sequence[RowInfo]) -> str:
    return ", ".join(_name(info) for info in rows[:8]) + (" and more" if len(rows) > 8 else "") or "none"
