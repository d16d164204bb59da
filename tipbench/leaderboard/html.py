"""The report: one HTML file with everything in it, readable without a network, a server or JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tipbench.leaderboard import words
from tipbench.leaderboard.model import Cell, Leaderboard, ReportTip
from tipbench.leaderboard.plots import forest_plot, race_plot, tradeoff_plots


def to_html(board: Leaderboard, tips: Sequence[ReportTip] = (), hint: str = "") -> str:
    """The leaderboard as a self-contained page. `tips` fills the drill-down of every cell; `hint` are the options that a
    command needs to find this experiment again.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (resources.files(__package__) / "report.html.j2").read_text(encoding="utf-8")
    by_cell: dict[tuple[str, str, str], list[ReportTip]] = {}
    for tip in tips:
        by_cell.setdefault((tip.model, tip.prompt, tip.variant), []).append(tip)
    return environment.from_string(source).render(
        board=board,
        hint=hint,
        words=words,
        # All figures escape every name that goes into them; the template must not escape their markup again.
        forest=Markup(forest_plot(board)),  # noqa: S704
        race=Markup(race_plot(board)),  # noqa: S704
        tradeoff=Markup(tradeoff_plots(board)),  # noqa: S704
        bar=lambda cell: _bar(board, cell),
        tips=lambda cell: by_cell.get((cell.model, cell.prompt, cell.variant), []),
        several=any((c.rank or 0) > 1 for c in board.cells),
    )


def _bar(board: Leaderboard, cell: Cell) -> dict[str, float] | None:
    """Where the interval and the point stand on the scale, in percent of its width."""
    if cell.composite is None:
        return None

    def place(value: float) -> float:
        return round((value - board.scale_min) / (board.scale_max - board.scale_min) * 100, 2)

    low = place(cell.ci_low if cell.ci_low is not None else cell.composite)
    high = place(cell.ci_high if cell.ci_high is not None else cell.composite)
    return {"low": low, "width": round(high - low, 2), "point": place(cell.composite)}
