"""From the runs of a row to its line on the board: what was said of it, how it stands, and what it costs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from tipbench.catalog import Rubric
from tipbench.counting.census import Entry, RowInfo
from tipbench.judging.opinion import Opinion
from tipbench.leaderboard.model import Cell, Checks, Difference, RowBody
from tipbench.stats import pareto_front
from tipbench.store.memory import measured
from tipbench.store.records import OPTIONS, CellRecord, ScoreRecord


@dataclass
class Group:
    """All that is known of one row of the board."""

    info: RowInfo
    runs: list[CellRecord] = field(default_factory=list)
    judged: Counter[str] = field(default_factory=Counter)
    """scenario's hash -> candidates that somebody whose scores count has scored"""


def gather(info: RowInfo, entries: Sequence[Entry], records: Mapping[str, Sequence[ScoreRecord]]) -> Group:
    """A row's runs, and how much of them is judged; a row of which nothing was collected is empty."""
    group = Group(info)
    for entry in entries:
        group.runs.append(entry.cell)
        scored = {index for one in records[entry.run_id] for index in one.scores}
        if scored:
            group.judged[entry.column] += len(scored)
    return group


def row_of(
    group: Group,
    opinion: Opinion,
    i: int,
    rubric: Rubric,
    same: Sequence[tuple[str, str, str]],
) -> Cell:
    """The line of the group that has the number `i` in the opinion; `same` are the keys of rows that wrote the same tips."""
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


CHECKS = {name: f"check_{name}" for name in Checks.model_fields}
"""check -> the metric that counts the tips that it finds fault with"""


def _checks(runs: Sequence[CellRecord]) -> Checks:
    metrics = [c.run.metrics for c in runs]
    return Checks(**{name: int(sum(m.get(key, 0) for m in metrics)) for name, key in CHECKS.items()})


def with_pareto(rows: Sequence[Cell]) -> list[Cell]:
    """The rows, each with whether it is on the Pareto front of composite, speed and memory; None without a composite."""

    def column(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([np.nan if getattr(r, name) is None else getattr(r, name) for r in rows], dtype=float)

    front = pareto_front(column("composite"), column("tokens_per_s"), column("peak_memory_bytes"))
    return [
        r.model_copy(update={"pareto": None if r.composite is None else bool(f)})
        for r, f in zip(rows, front, strict=True)
    ]


def _float(value: object) -> float | None:
    number = float(value) if isinstance(value, int | float | np.floating) else None
    return None if number is None or np.isnan(number) else number


def _int(value: object) -> int | None:
    number = _float(value)
    return None if number is None else int(number)
