"""What a reader must know before trusting a board, in words."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from tipbench.counting.census import Census, RowInfo, Versions
from tipbench.counting.judged import Judges
from tipbench.judging.cautions import few_scenarios, follow_length, of_one_family
from tipbench.leaderboard.model import Cell, JudgeSummary
from tipbench.leaderboard.rows import Group
from tipbench.store.records import CellRecord, ScoreRecord


def about_what_counts(
    cells: Sequence[CellRecord],
    census: Census,
    records: Mapping[str, Sequence[ScoreRecord]],
    who: Judges,
    judges: Sequence[str],
    versions: Versions,
) -> list[str]:
    """Which scores and cells count and which do not, where a reader might think otherwise."""
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


def same_tips_words(rows: Sequence[RowInfo]) -> str:
    """That these rows are one in all but name."""
    names = [f"{r.model} with {r.prompt}" + (f" ({r.variant})" if r.variant else "") for r in rows]
    return (
        f"{', '.join(names[:-1])} and {names[-1]} wrote the same tips, letter for letter: they are one in all but name, and what "
        "looks like a tie between them says nothing."
    )


def without_expected(records: Mapping[str, Sequence[ScoreRecord]]) -> list[str]:
    """Judges whose whole scores stand in, because they gave no expected ones."""
    missing: Counter[str] = Counter()
    for one in (r for rs in records.values() for r in rs):
        missing[one.judge] += len(one.scores.keys() - one.expected.keys())
    left = ", ".join(f"{judge} ({n})" for judge, n in sorted(missing.items()) if n)
    return [f"Whole scores stand in where a judge gave no expected ones: {left}."] if left else []


def unlike_memory(rows: Sequence[Cell]) -> list[str]:
    """A word where some memory figures are measured and others only reported: they do not compare."""
    reported = [row for row in rows if row.memory_source == "reported"]
    if not reported or all(row.memory_source in (None, "reported") for row in rows):
        return []
    names = ", ".join(sorted({row.model for row in reported}))
    return [
        f"The memory of {names} is the engine's own count, that of the other rows is measured and so larger: in memory "
        "they do not compare."
    ]


def cautions(
    rows: Sequence[Cell],
    summaries: Sequence[JudgeSummary],
    groups: Sequence[Group],
    records: Mapping[str, Sequence[ScoreRecord]],
) -> list[str]:
    """What should make a reader wary of these scores."""
    judged = [c for c in rows if c.composite is not None]
    found = few_scenarios(max((c.n_scenarios for c in judged), default=0))
    found += of_one_family([(j.name, j.kind) for j in summaries], [c.model for c in judged])
    for judge in summaries:
        if judge.kind not in ("llm", "agent"):
            continue
        runs = [
            (
                run.scenario,
                statistics.fmean([v for scores in record.scores.values() for v in scores]),
                run.run.metrics["mean_words"],
            )
            for group in groups
            for run in group.runs
            if "mean_words" in run.run.metrics
            for record in records[run.run.run_id]
            if record.judge == judge.name and record.scores
        ]
        found += follow_length(judge.name, runs)
    return found
