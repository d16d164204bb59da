"""A person as judge, in the terminal: one tip at a time, single keys, saved after every tip, resumed where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table

from tipbench.errors import InputError
from tipbench.judging.exchange import Exchange, ExchangeItem, JudgeIdentity, RubricCriterion
from tipbench.judging.fill import FillResult, begin
from tipbench.judging.validate import scored, with_items, write_exchange

KEYS = "[b]u[/b] undo  [b]s[/b] skip  [b]r[/b] rationale  [b]?[/b] help  [b]q[/b] save and quit"
HELP = """Score the tip as the user of the scenario would see it; the anchors say what each score means.
A digit gives the score and moves on to the next criterion, then to the next tip.

  u  take the last score back (again and again, across tips)
  s  leave this tip open and go on
  r  note why, in one line; it is saved with the scores
  q  save and quit; the same command goes on from here"""


@dataclass
class _Session:
    """Where the judge is: the queue of open items, and what has been given for the one at hand."""

    items: list[ExchangeItem]
    queue: list[int]
    at: int = 0
    rationale: str | None = None
    given: tuple[int, ...] = ()


def judge_in_terminal(
    exchange: Exchange,
    path: Path,
    identity: JudgeIdentity,
    console: Console,
    getchar: Callable[[], str] = click.getchar,
) -> FillResult:
    """Let a person score every open item of the file; saves after each.

    Raises InputError when there is no terminal, or when another judge began the file.
    """
    if not sys.stdin.isatty() or not console.is_terminal:
        raise InputError("scoring by hand needs a terminal; use --with baseline, ollama:MODEL or openai:MODEL instead")
    begin(exchange, identity.name, str(path))
    items = list(exchange.items)
    open_before = sum(not i.complete for i in items)
    session = _Session(items, [n for n, item in enumerate(items) if not item.complete])
    criteria = exchange.rubric.criteria
    low, high = exchange.rubric.scale_min, exchange.rubric.scale_max
    getchar = _one_by_one(getchar)

    def save() -> None:
        write_exchange(with_items(exchange, identity, session.items), path)

    try:
        while session.at < len(session.queue):
            _show(console, session, criteria)
            key = _ask_score(console, getchar, low, high)
            if key == "q":
                break
            if key == "u":
                _undo(session, criteria)
            elif key == "s":
                session.at, session.given, session.rationale = session.at + 1, (), None
            elif key == "r":
                session.rationale = console.input("  Why? ").strip()[:2000] or None
            elif key == "?":
                console.print(Panel(HELP, title="keys", border_style="dim"))
                console.print("  [dim]any key goes on[/dim]")
                getchar()
            else:
                session.given = (*session.given, int(key))
                if len(session.given) == len(criteria):
                    _complete(session, criteria)
                    save()
    except (KeyboardInterrupt, EOFError):
        console.print()
    save()
    left = sum(not i.complete for i in session.items)
    return FillResult(identity.name, max(open_before - left, 0), left)


def _one_by_one(getchar: Callable[[], str]) -> Callable[[], str]:
    """Keys typed quickly arrive together; an arrow or function key arrives as several characters that mean one thing."""
    waiting: list[str] = []

    def key() -> str:
        while not waiting:
            typed = getchar()
            waiting.extend(["\x1b"] if typed.startswith("\x1b") else typed)
        return waiting.pop(0)

    return key


def _ask_score(console: Console, getchar: Callable[[], str], low: int, high: int) -> str:
    """A valid key. On a scale with two-digit scores, Enter ends the number."""
    typed = ""
    while True:
        key = getchar()
        if key in ("\x03", "\x04"):
            raise KeyboardInterrupt
        if key.lower() in ("u", "s", "r", "q", "?"):
            return key.lower()
        if key.isdecimal() and key.isascii():
            typed += key
            if high <= 9 or int(typed) * 10 > high:
                if low <= int(typed) <= high:
                    return typed
                typed = ""
        elif key in ("\r", "\n") and typed and low <= int(typed) <= high:
            return typed
        else:
            typed = ""
        if not typed:
            console.print(f"  [yellow]{low} to {high}, or u s r ? q[/yellow]")


def _complete(session: _Session, criteria: tuple[RubricCriterion, ...]) -> None:
    n = session.queue[session.at]
    scores = dict(zip((c.id for c in criteria), session.given, strict=True))
    rationale = session.rationale or session.items[n].rationale
    session.items[n] = scored(session.items[n], scores, rationale, datetime.now(UTC).replace(microsecond=0))
    session.at, session.given, session.rationale = session.at + 1, (), None


def _undo(session: _Session, criteria: tuple[RubricCriterion, ...]) -> None:
    """One step back: the last score of this tip, else the last score of the tip before."""
    if session.given:
        session.given = session.given[:-1]
        return
    if session.at == 0:
        return
    session.at -= 1
    n = session.queue[session.at]
    item = session.items[n]
    if item.complete:
        session.given = tuple(item.scores[c.id] or 0 for c in criteria)[:-1]
        session.rationale = item.rationale
        blank = dict.fromkeys(item.scores, None)
        session.items[n] = item.model_copy(update={"scores": blank, "scored_at": None})


def _show(console: Console, session: _Session, criteria: tuple[RubricCriterion, ...]) -> None:
    """The item at hand and the anchors of the criterion that is asked for; fits 80 columns by 24 lines."""
    console.clear()
    item = session.items[session.queue[session.at]]
    done = sum(i.complete for i in session.items)
    now = criteria[len(session.given)]
    console.print(
        f"[bold]tip {session.at + 1} of {len(session.queue)}[/bold]  [dim]{done} of {len(session.items)} scored[/dim]"
    )
    console.print(Padding(escape(item.scenario), (0, 2)), style="dim")
    console.print(Panel(escape(item.tip) or "[dim](no text)[/dim]", border_style="cyan", padding=(0, 1)))
    shown = [f"{c.name} [bold]{s}[/bold]" for c, s in zip(criteria, session.given, strict=False)]
    if session.rationale:
        shown.append(f"[dim]why: {escape(session.rationale)}[/dim]")
    if shown:
        console.print("  " + "   ".join(shown))
    console.print(f"[bold]{escape(now.name)}[/bold]: {escape(now.question)}")
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=True)
    for anchor in now.anchors:
        table.add_row(f"[bold]{anchor.score}[/bold]", escape(anchor.text))
    console.print(table)
    console.print(f"  {KEYS}", style="dim")
