"""The leaderboard as Markdown, for a pull request or a wiki."""

from __future__ import annotations

from tipbench.leaderboard import words
from tipbench.leaderboard.model import Leaderboard


def to_markdown(board: Leaderboard) -> str:
    """Headline, table, notes and method in GitHub's Markdown."""
    lines = [f"# {_escape(board.experiment)}", "", f"**{_escape(words.headline(board))}**", ""]
    if board.cells:
        titles = ["rank", "model", "prompt", "composite", "95% CI", "difference", "p", "verdict", "P(best)"]
        titles += [*board.criteria, "judged", "tok/s", "first token", "memory", "flags"]
        text_columns = {"model", "prompt", "verdict", "flags"}
        lines.append(_row(titles))
        lines.append("|" + "|".join(":--" if t in text_columns else "--:" for t in titles) + "|")
        for cell in board.cells:
            lines.append(
                _row(
                    [
                        words.rank(cell),
                        cell.model,
                        words.prompt(cell),
                        words.number(cell.composite),
                        words.interval(cell.ci_low, cell.ci_high),
                        words.difference(cell),
                        "" if cell.rank == 1 else words.p_value(cell.diff_to_best.p_adjusted),
                        words.verdict(cell),
                        words.chance(cell.p_best),
                        *(words.number(words.criterion(cell, c)) for c in board.criteria),
                        f"{words.percent(cell.coverage)} of {cell.n_expected}",
                        words.number(cell.tokens_per_s, 0),
                        words.seconds(cell.ttft_s),
                        words.memory(cell.peak_memory_bytes, cell.memory_source),
                        words.flags(cell),
                    ]
                )
            )
        lines.append("")
    notes = words.notes(board)
    lines += [f"- {_escape(note)}" for note in notes] + ([""] if notes else [])
    weights = ", ".join(f"{_escape(c)} {w:.0%}" for c, w in board.weights.items())
    lines += [
        f"Scores from {board.scale_min} to {board.scale_max}; weights: {weights}. {_escape(board.method)}",
        "",
        f"Rubric {_escape(board.rubric_name)} (`{board.rubric_hash[:12]}`), seed {board.seed}, {board.created_at:%Y-%m-%d %H:%M} UTC.",
    ]
    return "\n".join(lines) + "\n"


def _row(fields: list[str]) -> str:
    return "| " + " | ".join(_escape(field) for field in fields) + " |"


def _escape(text: str) -> str:
    """Text that stays text in a table cell: no pipes, no markup, no HTML, no line breaks."""
    text = " ".join(text.split())
    for mark in "\\`*_[]|":
        text = text.replace(mark, "\\" + mark)
    return text.replace("<", "&lt;").replace(">", "&gt;")
