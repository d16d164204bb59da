"""The report's two figures as inline SVG: composites with their intervals, and quality against what it costs."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tipbench.leaderboard import words
from tipbench.leaderboard.model import Cell, Leaderboard

INK = "#010203"
"""A colour that no palette has; it becomes `currentColor`, so that the figure follows the page's light or dark theme."""
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8f7bd6")
"""Okabe and Ito's colours, which people with any colour vision can tell apart; markers tell models apart as well."""
MARKERS = "osD^vPX"
MOST_LABELS = 100
"""Points with their rank beside them; of more, only the Pareto front has it. Finding a free place takes time in their square."""
MOST_ROWS = 100
"""Rows of the forest plot; of more cells it has the best."""
LEGEND_COLUMNS = 4
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def forest_plot(board: Leaderboard) -> str:
    """Composite and interval of the judged cells, best on top; empty when nothing is judged."""
    judged = [(c, c.composite) for c in board.cells if c.composite is not None]
    if not judged:
        return ""
    cells = judged[:MOST_ROWS]
    which = f"{len(cells)} cells" if len(cells) == len(judged) else f"the best {len(cells)} of {len(judged)} cells"
    colors = _colors(board)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for y, (cell, composite) in enumerate(cells):
            color, marker = colors[cell.model]
            tied = cell.rank == 1 or cell.tied_with_best
            if tied:
                axes.axhspan(y - 0.5, y + 0.5, color="#009e73", alpha=0.10, linewidth=0)
            if cell.ci_low is not None and cell.ci_high is not None:
                axes.plot([cell.ci_low, cell.ci_high], [y, y], color=color, linewidth=2, solid_capstyle="butt")
            face = color if tied else "none"
            axes.plot([composite], [y], marker=marker, color=color, markerfacecolor=face, markersize=8, linestyle="")
        axes.axvline(cells[0][1], color=INK, linewidth=0.8, linestyle=":", alpha=0.6)
        axes.set_xlim(board.scale_min, board.scale_max)
        axes.set_xticks(_ticks(board.scale_min, board.scale_max))
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.set_yticks(
            range(len(cells)), [f"{c.rank}  {_short(c.model)}  {_short(words.prompt(c))}" for c, _ in cells]
        )
        axes.tick_params(axis="y", length=0)
        part = "" if len(cells) == len(judged) else f"; {which}"
        axes.set_xlabel(
            f"composite, {board.scale_min} to {board.scale_max}, with {board.confidence:.0%} interval{part}"
        )
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)

    height = 1.0 + 0.38 * len(cells)
    return _svg(draw, (8.0, height), "forest", f"Composite score with interval of {which}, best on top")


def race_plot(board: Leaderboard) -> str:
    """Composite and interval of every cell over the looks of a race; empty for an experiment without rounds."""
    if board.race is None or not board.race.steps:
        return ""
    steps = board.race.steps
    colors = _colors(board)
    names = list(dict.fromkeys((c.model, c.prompt) for step in steps for c in step.cells))
    out = {(c.model, c.prompt) for c in board.cells if c.dropped_at}
    width = 0.6 * min((b.n_scenarios - a.n_scenarios for a, b in pairwise(steps)), default=steps[0].n_scenarios)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, name in enumerate(names):
            shift = (i - (len(names) - 1) / 2) * width / max(len(names), 2)
            points = [(s.n_scenarios + shift, c) for s in steps for c in s.cells if (c.model, c.prompt) == name]
            color, marker = colors.get(name[0], (INK, "o"))
            face = "none" if name in out else color
            axes.plot([x for x, _ in points], [c.composite for _, c in points], color=color, linewidth=1, alpha=0.6)
            for x, c in points:
                if c.ci_low is not None and c.ci_high is not None:
                    axes.plot([x, x], [c.ci_low, c.ci_high], color=color, linewidth=1.5, alpha=0.6)
                axes.plot(
                    [x], [c.composite], marker=marker, color=color, markerfacecolor=face, markersize=6, linestyle=""
                )
            x, last = points[-1]
            axes.annotate(
                f"{_short(name[0], 16)} {_short(name[1], 12)}",
                (x, last.composite),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.set_xticks([s.n_scenarios for s in steps])
        axes.set_xlim(steps[0].n_scenarios - width, steps[-1].n_scenarios * 1.15 + width)
        axes.set_ylim(board.scale_min, board.scale_max)
        axes.set_xlabel("scenarios seen")
        axes.set_ylabel("composite")
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)

    return _svg(
        draw, (8.0, 4.2), "race", f"Composite score with interval of {len(names)} cells over {len(steps)} looks"
    )


def tradeoff_plots(board: Leaderboard, *, narrow: bool = False) -> str:
    """Quality against tokens per second and against memory, side by side or, for a narrow page, one above the other.

    Empty when no cost is known.
    """
    panels: list[tuple[str, Callable[[Cell], float | None], bool]] = [
        ("tokens per second (right is faster)", lambda c: c.tokens_per_s, True),
        (
            "peak memory in MiB (left is smaller)",
            lambda c: None if c.peak_memory_bytes is None else c.peak_memory_bytes / 2**20,
            False,
        ),
    ]
    judged = [c for c in board.cells if c.composite is not None]
    panels = [p for p in panels if any(p[1](c) is not None for c in judged)]
    if not panels:
        return ""
    colors = _colors(board)

    def draw(figure: Figure) -> None:
        shape = (len(panels), 1) if narrow else (1, len(panels))
        axes = figure.subplots(*shape, sharey=True, squeeze=False).ravel()
        shown = []
        for one, (label, cost, more_is_better) in zip(axes, panels, strict=True):
            points = [(c, float(x), float(c.composite or 0)) for c in judged if (x := cost(c)) is not None]
            _scatter(one, points, colors, more_is_better)
            shown.append((one, points))
            one.set_xlabel(label)
            one.grid(color=INK, alpha=0.12, linewidth=0.6)
        for one in axes if narrow else axes[:1]:
            one.set_ylabel("composite")
        handles = [
            mpl.lines.Line2D([], [], color=color, marker=marker, linestyle="", label=_short(model, 40))
            for model, (color, marker) in colors.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), frameon=False)
        # Where a label fits is known once everything else has its place, and no label moves it again.
        _lay_out(figure)
        for one, points in shown:
            _number(one, points if len(points) <= MOST_LABELS else [p for p in points if p[0].pareto])

    columns = 1 if narrow else LEGEND_COLUMNS
    legend = 0.22 * -(-len(colors) // columns)
    size = (4.0, 3.0 * len(panels) + legend) if narrow else (8.6 if len(panels) == 2 else 5.2, 3.6 + legend)
    return _svg(
        draw, size, "tradeoff", "Composite score against tokens per second and against peak memory; numbers are ranks"
    )


def _scatter(
    axes: Any, points: Sequence[tuple[Cell, float, float]], colors: dict[str, tuple[str, str]], more_is_better: bool
) -> None:
    """The points, and the step line that no other point of this panel beats."""
    xs = [x for _, x, _ in points]
    span = (max(xs) - min(xs)) or max(abs(xs[0]) * 0.2, 1.0)
    axes.set_xlim(max(min(xs) - 0.12 * span, 0), max(xs) + 0.15 * span)
    ys = [y for *_, y in points]
    gap = max(max(ys) - min(ys), 0.4)
    axes.set_ylim(min(ys) - 0.18 * gap, max(ys) + 0.2 * gap)
    front = sorted((x, y) for _, x, y in points if not any(_beats(o, (x, y), more_is_better) for _, *o in points))
    step = "steps-post" if not more_is_better else "steps-pre"
    axes.plot(*zip(*front, strict=True), color=INK, linewidth=1, linestyle="--", alpha=0.5, drawstyle=step, zorder=1)
    alike: dict[tuple[str, bool | None], list[tuple[float, float]]] = defaultdict(list)
    for cell, x, y in points:
        alike[cell.model, cell.pareto].append((x, y))
    for (model, on_front), places in alike.items():
        color, marker = colors[model]
        face = color if on_front else "none"
        style = {"marker": marker, "color": color, "markerfacecolor": face, "markersize": 8, "linestyle": ""}
        axes.plot(*zip(*places, strict=True), **style, zorder=3)


def _number(axes: Any, points: Sequence[tuple[Cell, float, float]]) -> None:
    """Each point's rank beside it."""
    for (cell, x, y), offset in zip(points, _offsets(axes, [(x, y) for _, x, y in points]), strict=True):
        axes.annotate(
            str(cell.rank), (x, y), xytext=offset, textcoords="offset points", ha="center", va="center", fontsize=9
        )


def _beats(other: Sequence[float], point: tuple[float, float], more_is_better: bool) -> bool:
    sign = 1 if more_is_better else -1
    gain_x, gain_y = sign * (other[0] - point[0]), other[1] - point[1]
    return gain_x >= 0 and gain_y >= 0 and (gain_x > 0 or gain_y > 0)


def _offsets(axes: Any, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """For each point, the place around it (in typographic points) that is farthest from other points and labels; of a figure laid out."""
    scale = 72 / axes.figure.dpi
    here = np.array([axes.transData.transform(p) for p in points]) * scale
    ring = [
        (0, 11),
        (11, 0),
        (0, -11),
        (-11, 0),
        (9, 9),
        (-9, 9),
        (9, -9),
        (-9, -9),
        (0, 20),
        (20, 0),
        (0, -20),
        (-20, 0),
    ]
    taken = [tuple(p) for p in here]
    chosen: list[tuple[float, float]] = []
    for point in here:
        others = [t for t in taken if t != tuple(point)]

        def room(offset: tuple[int, int], point: Any = point, others: list[Any] = others) -> float:
            spot = point + np.array(offset)
            # A label 12 points away from everything is free; nearer to its own point is better.
            nearest = min((float(np.hypot(*(spot - np.array(o)))) for o in others), default=99.0)
            return min(nearest, 12.0) - 0.05 * float(np.hypot(*offset))

        best = max(ring, key=room)
        chosen.append(best)
        taken.append(tuple(point + np.array(best)))
    return chosen


def _colors(board: Leaderboard) -> dict[str, tuple[str, str]]:
    """model -> (colour, marker), in the order of the ranking; repeats only after seven models of each."""
    models = list(dict.fromkeys(c.model for c in board.cells))
    return {
        m: (PALETTE[i % len(PALETTE)], MARKERS[(i + i // len(PALETTE)) % len(MARKERS)]) for i, m in enumerate(models)
    }


def _ticks(low: int, high: int, most: int = 10) -> range:
    """Evenly spaced scores with both ends of the scale: every one where there are few, else every 2nd, 5th, 10th."""
    span = high - low
    step = next((one for one in (1, 2, 5, 10, 20, 25, 50) if span % one == 0 and span // one <= most), span)
    return range(low, high + 1, step)


def _short(text: str, limit: int = 28) -> str:
    """A name that fits beside the plot; matplotlib's own markup is kept from seeing a dollar sign in it."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.replace("$", r"\$")


def _lay_out(figure: Figure) -> None:
    """Give everything its place, for good."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine("none")


def _svg(draw: Callable[[Figure], None], size: tuple[float, float], salt: str, label: str) -> str:
    """The figure as an `<svg>` element that scales to its container; the same data give the same text."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Ids would meet those of the page's other figure.
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{salt}-", svg)
    svg = svg.replace(INK, "currentColor")
    opening = re.sub(r'\s(?:width|height)="[^"]*"', "", svg[: svg.index(">")])
    return f'{opening} role="img" aria-label="{escape(label)}"{svg[svg.index(">") :]}'
