"""How a leaderboard's figures are written, and its answer in words: one wording for terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence

from tipbench.leaderboard.model import Cell, JudgeBias, Leaderboard, Nearest, Race, Recommended, Reference

UNKNOWN = "–"


def number(value: float | None, digits: int = 2) -> str:
    """`3.14`; a dash for what cannot be known."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """`87%`; 0% and 100% only for none and all, `<1%` and `>99%` next to them."""
    if value is None:
        return UNKNOWN
    if 0.99 < value < 1:
        return ">99%"
    return "<1%" if 0 < value < 0.01 else f"{value:.0%}"


def chance(value: float | None) -> str:
    """A probability estimated from draws: `87%`, and never certain, `>99%` and `<1%` at the ends."""
    if value is None:
        return UNKNOWN
    return ">99%" if value > 0.99 else "<1%" if value < 0.01 else f"{value:.0%}"


def p_value(value: float | None) -> str:
    """`0.034`; `<0.001` for what is smaller."""
    if value is None:
        return UNKNOWN
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def memory(count: int | None, source: str | None = None) -> str:
    """Bytes as MiB or GiB; a figure that the engine only reports is marked."""
    if count is None:
        return UNKNOWN
    mib = count / 1024**2
    return (f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB") + (" reported" if source == "reported" else "")


MEMORY_SOURCES = {
    "processes": "what the server's processes took on this machine",
    "sidecar": "what the server's processes took, read in its pod",
    "own process": "what this process grew by",
    "reported": "the engine's own count of weights and cache, where its processes take more",
}


def memory_sources(board: Leaderboard) -> str:
    """Where the memory figures come from, in a sentence; empty when there are none."""
    found = sorted({cell.memory_source for cell in board.cells if cell.memory_source}, key=list(MEMORY_SOURCES).index)
    return "Memory: " + "; ".join(f"{MEMORY_SOURCES[one]} ({one})" for one in found) + "." if found else ""


def seconds(value: float | None) -> str:
    """`85 ms` or `1.3 s`."""
    if value is None:
        return UNKNOWN
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """`3.1 to 3.9`; a dash when a bound is unknown."""
    return UNKNOWN if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def rank(cell: Cell) -> str:
    """`2 (1-4)`: the rank and its 95% interval."""
    if cell.composite is None or cell.rank is None:
        return UNKNOWN
    return f"{cell.rank}" if cell.rank_low is None else f"{cell.rank} ({cell.rank_low}-{cell.rank_high})"


def difference(cell: Cell) -> str:
    """The difference to the leader, signed; empty for the leader."""
    if cell.rank == 1 or cell.diff_to_best.value is None:
        return "" if cell.composite is not None else UNKNOWN
    return f"{cell.diff_to_best.value:+.2f}"


def verdict(cell: Cell) -> str:
    """`leads`, `tied` or `behind`; a dash for what cannot be tested."""
    if cell.composite is None:
        return "not ranked" if cell.unranked else "not judged"
    if cell.rank == 1:
        return "leads"
    if cell.dropped_at is not None:
        return f"out at look {cell.dropped_at}"
    return UNKNOWN if cell.tied_with_best is None else "tied" if cell.tied_with_best else "behind"


def criterion(cell: Cell, name: str) -> float | None:
    """A criterion's mean: the leaderboard keeps them as keys of their own."""
    value = (cell.__pydantic_extra__ or {}).get(name)
    return None if value is None else float(value)


def flags(cell: Cell) -> str:
    """`2 too long, 1 empty`; a dash when no check flagged anything."""
    found = [f"{count} {name.replace('_', ' ')}" for name, count in cell.checks.model_dump().items() if count]
    return ", ".join(found) or UNKNOWN


def name(cell: Cell) -> str:
    """`gemma3:1b with v1`, and what tells it from another row of these names."""
    return f"{cell.model} with {cell.prompt}" + (f" ({cell.variant})" if cell.variant else "")


def prompt(cell: Cell) -> str:
    """`v1`, and what tells the row from another one of these names."""
    return f"{cell.prompt} ({cell.variant})" if cell.variant else cell.prompt


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def unweighted(board: Leaderboard) -> list[str]:
    """The criteria that count nothing."""
    return [c for c in board.criteria if not board.weights.get(c)]


def weighting(board: Leaderboard) -> str:
    """What the composite is made of: `weighted mean of relevance 67% and tone 33%; actionability counts nothing`."""
    weights = {c: w for c, w in board.weights.items() if w}
    if len({round(w, 9) for w in weights.values()}) <= 1:
        words = f"mean of {listed(list(weights))}" if len(weights) > 1 else f"{listed(list(weights))} alone"
    else:
        words = f"weighted mean of {listed([f'{c} {w:.0%}' for c, w in weights.items()])}"
    left = unweighted(board)
    return words + (f"; {listed(left)} count{'s' * (len(left) == 1)} nothing (weight 0)" if left else "")


def headline(board: Leaderboard) -> str:
    """The answer, no surer than the data: who leads and what was tested, whose opinion that is, and which cell to take."""
    return " ".join(part for part in (_headline(board), whose(board), advice(board)) if part)


def _headline(board: Leaderboard) -> str:
    left = unweighted(board)
    if left and any(c.composite is not None for c in board.cells):
        return f"Without {listed(left)} (weight 0): {_leads(board)}"
    return _leads(board)


def whose(board: Leaderboard) -> str:
    """Whose opinion the board is, in a sentence; empty where nothing is judged."""
    if all(c.composite is None for c in board.cells):
        return ""
    if board.reference is None:
        names = [j.name for j in board.judges if j.n_judged]
        return f"That is the opinion of {listed(names)}." if names else ""
    one = board.reference
    words = f"That is what {listed(one.judges)} would say, from {'their' if len(one.judges) > 1 else 'the'} scores on "
    words += f"{one.n_scenarios} scenarios"
    if one.others and one.n_alone:
        words += f" and those of {listed(one.others)} on all"
    return words + "."


def advice(board: Leaderboard) -> str:
    """Which cell to take, in a sentence; empty where there is nothing to choose from."""
    cost = "memory" if board.prefer == "memory" else "time"
    if board.recommended is not None:
        one = board.recommended
        return f"Take {_named(one)}: {one.why}."
    if board.nearest is not None:
        near = board.nearest
        takes = (
            f"about {near.scenarios} scenarios" if near.scenarios is not None else "more scenarios than can be named"
        )
        return (
            f"No cell is surely within {number(board.margin)} points of the best yet; the one with the least {cost} that may be is "
            f"{_named(near)}, and to tell takes {takes}."
        )
    return ""


def _named(one: Recommended | Nearest) -> str:
    return f"{one.model} with {one.prompt}" + (f" ({one.variant})" if one.variant else "")


def _leads(board: Leaderboard) -> str:
    """Who leads, in a sentence: it claims what was tested, and says what was not."""
    judged = [c for c in board.cells if c.composite is not None]
    if not board.cells:
        return "Nothing has been collected yet."
    if not judged:
        return "Nothing has been judged yet, so there is no ranking."
    best = judged[0]
    lead = f"{name(best)} leads with {number(best.composite)} of {board.scale_max}"
    others = judged[1:]
    if not others:
        return f"Only one cell was judged: {name(best)}, {number(best.composite)} of {board.scale_max}."
    tied = sum(c.tied_with_best is True for c in others)
    behind = sum(c.tied_with_best is False for c in others)
    unknown = len(others) - tied - behind
    if unknown == len(others):
        return f"{lead}, but with fewer than two scenarios in common nothing can be said about chance."
    if board.race is not None and board.race.stop == "within margin" and tied:
        return f"{lead}; {tied} other{'s are' if tied > 1 else ' is'} shown to be equal to it within {board.race.margin:g} points."
    if behind == len(others):
        return f"{lead}, ahead of all others by more than chance."
    if tied == len(others):
        return f"No clear winner: {lead}, and every other cell is statistically tied with it."
    parts = [f"{tied} other{'s are' if tied > 1 else ' is'} statistically tied with it"] if tied else []
    parts += [f"{behind} clearly behind"] if behind else []
    parts += (
        [f"{unknown} {'have' if unknown > 1 else 'has'} too few scenarios in common with it to be tested"]
        if unknown
        else []
    )
    return f"{lead}; {', '.join(parts)}."


def race(one: Race) -> str:
    """How far a race in rounds is, and what it cost."""
    looks = f"In rounds, {one.looks_taken} of at most {one.looks_planned} looks, {percent(one.work)} of the full work"
    return f"{looks}; {one.reason}."


def only_baseline(board: Leaderboard) -> bool:
    """True when no person and no model has judged."""
    return bool(board.judges) and all(j.kind == "baseline" for j in board.judges)


def notes(board: Leaderboard) -> list[str]:
    """What a reader must know besides the table: warnings, judges, refused models, failures."""
    found = [f"Warning: {warning}" for warning in board.warnings]
    if board.race is not None:
        found.append(race(board.race))
        found += [f"Out at look {c.dropped_at}: {name(c)}, {c.dropped_why}." for c in board.cells if c.dropped_at]
    for judge in board.judges:
        words = f"Judge {judge.name} ({judge.kind}): {judge.n_judged} tips, mean score {number(judge.mean)}"
        if judge.self_consistency is not None:
            words += f", {percent(judge.self_consistency)} of repeated scores alike"
        found.append(words + ".")
        if judge.bias is not None and judge.bias.level is not None:
            found.append(_bias(judge.name, judge.bias))
    if board.reference is not None:
        found.append(_reference(board.reference))
    found += [f"No rank for {name(cell)}: {cell.unranked}." for cell in board.cells if cell.unranked]
    for one in board.agreement:
        if one.alpha is not None:
            found.append(
                f"Agreement on {one.criterion}: Krippendorff's alpha {number(one.alpha)} ({interval(one.ci_low, one.ci_high)})."
            )
    sources = memory_sources(board)
    found += [sources] if sources else []
    found += [f"Refused: {refusal.reason}." for refusal in board.refused]
    for cell in board.cells:
        if cell.n_failed:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(cell.failures.items()))
            found.append(f"Failed: {cell.n_failed} scenario{'s' * (cell.n_failed > 1)} of {name(cell)} ({reasons}).")
    return found


def _bias(judge: str, bias: JudgeBias) -> str:
    level = bias.level or 0.0
    words = (
        f"Judge {judge} scores the same tips {abs(level):.2f} points {'higher' if level > 0 else 'lower'} than the references"
        f"{f' ({interval(bias.ci_low, bias.ci_high)})' if bias.ci_low is not None else ''}"
    )
    sure = [c for c in bias.cells if c.ci_low is not None and c.ci_high is not None and c.ci_low * c.ci_high > 0]
    if not sure:
        return words + "; beyond that it favours no cell by more than chance."
    named = ", ".join(
        f"{c.model} with {c.prompt} {c.value:+.2f} ({interval(c.ci_low, c.ci_high)})"
        for c in sure
        if c.value is not None
    )
    return f"{words}; beyond that, by more than chance: {named}."


def _reference(one: Reference) -> str:
    words = (
        f"References {listed(one.judges)}: {one.n_scenarios} scenarios, {percent(one.share)} of the tips; "
        f"other scores count with λ = {number(one.weight)}"
    )
    if one.worth is not None and one.weight > 0:
        words += f", which makes them worth {number(one.worth, 1)} scenarios scored by the references"
    return words + "."
