"""The leaderboard in a terminal: a table that fits, an error bar in every row, and what to make of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tipbench.leaderboard import words
from tipbench.leaderboard.model import Cell, Leaderboard

BAR_WIDTH = 17


@dataclass(frozen=True)
class _Column:
    title: str
    values: list[str]
    right: bool = True
    priority: int = 0
    """Higher ones go first when the terminal is narrow; 0 always stays."""
    short: list[str] | None = None
    """The same in fewer characters, for when the speed or the memory would have to go otherwise."""

    @property
    def width(self) -> int:
        return max(len(self.title), *(len(v) for v in self.values)) if self.values else len(self.title)


def render(board: Leaderboard, console: Console) -> None:
    """Print the leaderboard. On a narrow terminal the least important columns are left out; in a pipe nothing is."""
    plain = not console.is_terminal
    unicode = (console.encoding or "utf-8").lower().startswith("utf")
    console.print()
    console.print(f"{escape(board.experiment)}: {escape(words.headline(board))}", style=None if plain else "bold")
    if board.cells:
        columns = _fit(_columns(board, unicode), 10_000 if plain else console.width)
        console.print()
        if plain:
            _print_plain(columns, console)
        else:
            _print_table(board, columns, console)
        left_out = len(_columns(board, unicode)) - len(columns)
        if left_out:
            console.print(f"({left_out} more columns on a wider terminal, and in the report)", style="dim")
        low, high = board.scale_min, board.scale_max
        console.print()
        console.print(
            f"Composite: {low}-{high}, {escape(words.weighting(board))}, with its {board.confidence:.0%} interval. "
            "Tied: the difference to the leader could be chance.",
            style=None if plain else "dim",
        )
    for note in words.notes(board):
        style = "yellow" if note.startswith(("Warning", "Failed", "Refused")) and not plain else None
        console.print(escape(note), style=style)


def _columns(board: Leaderboard, unicode: bool) -> list[_Column]:
    cells = board.cells
    several = any((c.rank or 0) > 1 for c in cells)
    columns = [
        _Column("rank", [words.rank(c) for c in cells], short=[words.rank(c).split(" ")[0] for c in cells]),
        _Column("model", [c.model for c in cells], right=False),
        _Column("prompt", [words.prompt(c) for c in cells], right=False),
        _Column("composite", [words.number(c.composite) for c in cells]),
        _Column(
            f"{board.scale_min}{' ' * (BAR_WIDTH - 2)}{board.scale_max}",
            [error_bar(c, board.scale_min, board.scale_max, unicode) for c in cells],
            right=False,
            priority=3,
        ),
        _Column(
            "95% CI",
            [words.interval(c.ci_low, c.ci_high) for c in cells],
            short=[words.interval(c.ci_low, c.ci_high).replace(" to ", "–" if unicode else "-") for c in cells],
        ),
    ]
    if several:
        columns += [
            _Column("diff", [words.difference(c) for c in cells], priority=2),
            _Column("p", ["" if c.rank == 1 else words.p_value(c.diff_to_best.p_adjusted) for c in cells], priority=7),
            _Column(
                "",
                [words.verdict(c) for c in cells],
                right=False,
                short=[words.verdict(c) if c.composite is not None else words.UNKNOWN for c in cells],
            ),
            _Column("P(best)", [words.chance(c.p_best) for c in cells], priority=8),
        ]
    for criterion in board.criteria:
        means = [words.number(words.criterion(c, criterion), 1) for c in cells]
        columns.append(_Column(criterion, means, priority=9))
    columns += [
        _Column("judged", [words.percent(c.coverage) for c in cells], priority=6),
        _Column("tok/s", [words.number(c.tokens_per_s, 0) for c in cells], priority=1),
        _Column("first token", [words.seconds(c.ttft_s) for c in cells], priority=5),
        _Column(
            "memory",
            [words.memory(c.peak_memory_bytes, c.memory_source) for c in cells],
            priority=1,
            short=[words.memory(c.peak_memory_bytes) for c in cells],
        ),
        _Column("flags", [words.flags(c) for c in cells], right=False, priority=10),
    ]
    return columns


def _fit(columns: list[_Column], width: int) -> list[_Column]:
    """The columns that fit into `width`: the least important go first, and the last two only once the others are short."""
    kept = list(columns)
    while sum(c.width + 2 for c in kept) > width + 2:
        worst = max(c.priority for c in kept)
        if worst <= 1 and any(c.short for c in kept):
            kept = [replace(c, values=c.short, short=None) if c.short else c for c in kept]
        elif worst:
            kept.remove([c for c in kept if c.priority == worst][-1])
        else:
            break
    return kept


def _print_table(board: Leaderboard, columns: list[_Column], console: Console) -> None:
    # Two spaces between columns and none at the edges: what `_fit` counts with.
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for column in columns:
        table.add_column(
            escape(column.title), justify="right" if column.right else "left", no_wrap=True, overflow="fold"
        )
    for i, cell in enumerate(board.cells):
        # The tied group also says so in words: colour is never the only sign.
        style = (
            "green"
            if cell.rank == 1 and cell.composite is not None
            else "dim"
            if cell.tied_with_best is False
            else None
        )
        table.add_row(*(escape(c.values[i]) for c in columns), style=style)
    console.print(table)


def _print_plain(columns: list[_Column], console: Console) -> None:
    rows = [[c.title for c in columns], *([c.values[i] for c in columns] for i in range(len(columns[0].values)))]
    for row in rows:
        fields = [v.rjust(c.width) if c.right else v.ljust(c.width) for v, c in zip(row, columns, strict=True)]
        console.out("  ".join(fields).rstrip(), highlight=False)


def error_bar(cell: Cell, low: int, high: int, unicode: bool = True) -> str:
    """The composite and its interval drawn on the scale, `BAR_WIDTH` characters wide."""
    if cell.composite is None:
        return " " * BAR_WIDTH
    left, line, right, point = "├─┤●" if unicode else "|-|o"

    def place(value: float) -> int:
        return round((min(max(value, low), high) - low) / (high - low) * (BAR_WIDTH - 1))

    bar = [" "] * BAR_WIDTH
    if cell.ci_low is not None and cell.ci_high is not None:
        start, end = place(cell.ci_low), place(cell.ci_high)
        bar[start : end + 1] = line * (end + 1 - start)
        bar[start], bar[end] = left, right
    bar[place(cell.composite)] = point
    return "".join(bar)
