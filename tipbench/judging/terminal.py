"""A person as judge, in the terminal: one tip at a time, single keys, saved after every tip, resumed where it stopped.

The screen is drawn whole and never scrolls: the criterion with its anchors and the keys always stand below, and a text that is
too long for what is left is read page by page. It is drawn anew when the terminal changes its size.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import click
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from tipbench.errors import InputError
from tipbench.judging.exchange import Exchange, ExchangeItem, JudgeIdentity, RubricCriterion
from tipbench.judging.fill import FillResult, begin
from tipbench.judging.validate import scored, with_items, write_exchange

KEYS = "[b]u[/b] undo  [b]s[/b] skip  [b]r[/b] rationale  [b]?[/b] help  [b]q[/b] save and quit"
HELP = """Score the tip as the user of the scenario would see it; the anchors say what each score means.
A digit gives the score and moves on to the next criterion, then to the next tip.

  u      take the last score back (again and again, across tips)
  s      leave this tip open and go on
  r      note why, in one line; it is saved with the scores
  space  the next page of a long text; the arrows move it line by line
  q      save and quit; the same command goes on from here

Ctrl-C saves too, a tip that is half scored included."""
LEAST_TEXT = 6
"""Lines that the scenario and the tip get at least; anchors are shortened before they get less."""
MOVES = {"\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down", "\x1b[5~": "back", "\x1b[6~": " "}
ENDS = ("\r", "\n", "q")


@dataclass
class _Session:
    """Where the judge is: the queue of items that were open, and what has been given for the one at hand."""

    items: list[ExchangeItem]
    queue: list[int]
    criteria: tuple[RubricCriterion, ...]
    at: int = 0
    rationale: str | None = None
    given: tuple[int, ...] = ()
    top: int = 0
    """The first line of the text that is shown."""
    note: str = ""
    """What is wrong with the last key."""
    writing: bool = False
    """True while the person writes a rationale."""
    shown: int = 1
    length: int = 1
    """Lines of the text that fit, and lines that it has; set by whoever draws."""

    @property
    def over(self) -> bool:
        """True after the last item."""
        return self.at >= len(self.queue)

    @property
    def item(self) -> ExchangeItem:
        """The one at hand."""
        return self.items[self.queue[self.at]]

    def go(self, at: int) -> None:
        """To another item, with what was given for it before."""
        self.at, self.top, self.note, self.given, self.rationale = at, 0, "", (), None
        if not self.over:
            scores = [self.item.scores.get(c.id) for c in self.criteria]
            known = scores.index(None) if None in scores else len(scores)
            self.given = tuple(score for score in scores[:known] if score is not None)
            self.rationale = self.item.rationale

    def scroll(self, move: str) -> None:
        """Another part of a text that does not fit; after the last page comes the first."""
        last = max(self.length - self.shown, 0)
        page = max(self.shown - 1, 1)
        if move == " ":
            self.top = 0 if self.top >= last else self.top + page
        else:
            self.top += {"up": -1, "down": 1, "back": -page}[move]
        self.top = min(max(self.top, 0), last)

    def keep(self) -> None:
        """Put what was given for the item at hand into it: a half-scored tip stays open, and is lost to nobody."""
        if self.over or self.item.complete:
            return
        given = dict(zip((c.id for c in self.criteria), self.given, strict=False))
        scores = {c.id: given.get(c.id) for c in self.criteria}
        changed = self.item.model_copy(update={"scores": scores, "rationale": self.rationale})
        self.items[self.queue[self.at]] = changed


def judge_in_terminal(
    exchange: Exchange,
    path: Path,
    identity: JudgeIdentity,
    console: Console,
    getchar: Callable[[], str] = click.getchar,
) -> FillResult:
    """Let a person score every open item of the file; saves after each.

    Raises InputError when there is no terminal, or when another judge began the file; KeyboardInterrupt after Ctrl-C, when
    everything is saved.
    """
    if not sys.stdin.isatty() or not console.is_terminal:
        raise InputError("scoring by hand needs a terminal; use --with baseline, ollama:MODEL or openai:MODEL instead")
    begin(exchange, identity.name, str(path))
    items = list(exchange.items)
    open_before = sum(not i.complete for i in items)
    queue = [n for n, item in enumerate(items) if not item.complete]
    session = _Session(items, queue, exchange.rubric.criteria)
    session.go(0)
    low, high = exchange.rubric.scale_min, exchange.rubric.scale_max

    def save() -> None:
        session.keep()
        write_exchange(with_items(exchange, identity, session.items), path)

    try:
        if queue:
            with _redrawn(console, session) as draw:
                _work(session, console, _one_by_one(getchar), draw, save, low, high)
    except EOFError:
        pass
    finally:
        save()
    console.print()
    left = sum(not i.complete for i in session.items)
    return FillResult(identity.name, max(open_before - left, 0), left)


def _work(
    session: _Session,
    console: Console,
    key: Callable[[], str],
    draw: Callable[[], None],
    save: Callable[[], None],
    low: int,
    high: int,
) -> None:
    """Key by key, until the person ends it."""
    while True:
        draw()
        if session.over:
            # The last key may have been the wrong one: the end is a key of its own.
            pressed = key()
            if pressed in ENDS:
                return
            if pressed == "u":
                _undo(session)
            continue
        pressed = _ask(session, key, draw, low, high)
        if pressed == "q":
            return
        if pressed == "u":
            _undo(session)
        elif pressed == "s":
            session.keep()
            session.go(session.at + 1)
        elif pressed == "r":
            session.rationale = _why(console, session)
        elif pressed == "?":
            _help(console)
            key()
        else:
            session.given = (*session.given, int(pressed))
            if len(session.given) == len(session.criteria):
                _complete(session)
                save()


def _one_by_one(getchar: Callable[[], str]) -> Callable[[], str]:
    """Keys typed quickly arrive together; an arrow or function key arrives as several characters that mean one thing."""
    waiting: list[str] = []

    def key() -> str:
        while not waiting:
            typed = getchar()
            if not typed:
                raise EOFError
            for one in re.findall(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Za-z])?|.", typed, re.DOTALL):
                waiting.append(MOVES.get(one, "\x1b") if one.startswith("\x1b") else one)
        pressed = waiting.pop(0)
        if pressed == "\x03":
            raise KeyboardInterrupt
        if pressed == "\x04":
            raise EOFError
        return pressed if len(pressed) > 1 else pressed.lower()

    return key


def _ask(session: _Session, key: Callable[[], str], draw: Callable[[], None], low: int, high: int) -> str:
    """A valid key. On a scale with two-digit scores, Enter ends the number."""
    typed = ""
    while True:
        pressed = key()
        session.note = ""
        if pressed in ("u", "s", "r", "q", "?"):
            return pressed
        if pressed in (" ", "up", "down", "back"):
            session.scroll(pressed)
            draw()
            continue
        if pressed.isdecimal() and pressed.isascii():
            typed += pressed
            if high <= 9 or int(typed) * 10 > high:
                if low <= int(typed) <= high:
                    return typed
                typed = ""
        elif pressed in ("\r", "\n") and typed and low <= int(typed) <= high:
            return typed
        else:
            typed = ""
        session.note = f"{typed}_ (Enter ends the number)" if typed else f"{low} to {high}, or u s r ? q"
        draw()


def _complete(session: _Session) -> None:
    scores = dict(zip((c.id for c in session.criteria), session.given, strict=True))
    n = session.queue[session.at]
    session.items[n] = scored(session.items[n], scores, session.rationale, datetime.now(UTC).replace(microsecond=0))
    session.go(session.at + 1)


def _undo(session: _Session) -> None:
    """One step back: the last score of this tip, else the last score of the tip before."""
    if session.given and not session.over:
        session.given = session.given[:-1]
        return
    if session.at == 0:
        session.note = "there is nothing to take back"
        return
    session.keep()
    session.go(session.at - 1)
    if session.item.complete:
        session.given = session.given[:-1]
        n = session.queue[session.at]
        blank = {**session.item.scores, session.criteria[-1].id: None}
        session.items[n] = session.item.model_copy(update={"scores": blank, "scored_at": None})


# -- the screen ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _redrawn(console: Console, session: _Session) -> Iterator[Callable[[], None]]:
    """What draws the screen now; meanwhile it is also drawn whenever the terminal changes its size, and a hang-up is an interrupt."""

    drawing = again = False

    def draw() -> None:
        nonlocal drawing, again
        again = True
        while again and not drawing:
            again, drawing = False, True
            try:
                _put(console, _frame(console, session))
            finally:
                drawing = False

    def resized(signum: int, frame: FrameType | None) -> None:
        if not session.writing:
            draw()

    def hung_up(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield draw
        return
    before = {
        number: signal.signal(number, does) for number, does in ((signal.SIGWINCH, resized), (signal.SIGHUP, hung_up))
    }
    try:
        yield draw
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _put(console: Console, lines: list[str]) -> None:
    """The lines on an empty screen, in one write; a terminal that waits for a key does not return the carriage by itself."""
    console.file.write("\x1b[H\x1b[2J" + "\r\n".join(lines))
    console.file.flush()


def _lines(console: Console, what: RenderableType, width: int) -> list[str]:
    """Something of rich's as lines of text with colours."""
    with console.capture() as captured:
        console.print(what, width=width)
    return captured.get().removesuffix("\n").split("\n")


def _frame(console: Console, session: _Session) -> list[str]:
    """The screen, at most as many lines as the terminal has: where one is, the text, and what is asked."""
    width, height = max(console.size.width, 20), max(console.size.height, 8)
    done, total = sum(i.complete for i in session.items), len(session.items)
    if session.over:
        left = total - done
        words = f"{done} of {total} tips are scored" + (f"; {left} are left open" if left else "")
        return _lines(
            console,
            Text.from_markup(f"[bold]{words}.[/bold]\n\n  [b]u[/b] takes the last score back, [b]Enter[/b] ends  "),
            width,
        )
    item, now = session.item, session.criteria[len(session.given)]
    head = f"[bold]tip {session.queue[session.at] + 1} of {total}[/bold]  [dim]{done} scored, {total - done} open[/dim]"
    scenario = _lines(console, Padding(Text(item.scenario, style="dim"), (0, 2)), width)
    tip = _lines(
        console,
        Panel(Text(item.tip) if item.tip else Text("(no text)", style="dim"), border_style="cyan", padding=(0, 1)),
        width,
    )
    text = [*scenario, *tip]
    for most in (9, 2, 1):
        below = _asked(console, session, now, width, most)
        if height - 1 - len(below) >= min(LEAST_TEXT, len(text)):
            break
    room = max(height - 1 - len(below), 3)
    session.length, session.shown = len(text), min(room, len(text))
    if len(text) > room:
        session.shown = room - 1
        session.top = min(session.top, len(text) - session.shown)
        under = len(text) - session.top - session.shown
        more = f"{under} more lines below: space" if under else "that was all of it; space goes back to its beginning"
        text = [
            *text[session.top : session.top + session.shown],
            *_lines(console, Text(f"  … {more}", style="yellow", no_wrap=True), width)[:1],
        ]
    else:
        session.top = 0
    return [*_lines(console, Text.from_markup(head, overflow="ellipsis"), width)[:1], *text, *below][:height]


def _asked(console: Console, session: _Session, now: RubricCriterion, width: int, most: int) -> list[str]:
    """What was given, what is asked for with its anchors (at most so many lines each), and the keys."""
    found: list[str] = []
    given = [f"{escape(c.name)} [bold]{s}[/bold]" for c, s in zip(session.criteria, session.given, strict=False)]
    if session.rationale:
        given.append(f"[dim]why: {escape(session.rationale)}[/dim]")
    if given:
        found += _lines(console, Text.from_markup("  " + "   ".join(given), overflow="ellipsis"), width)[: min(most, 2)]
    found += _lines(console, Text.from_markup(f"[bold]{escape(now.name)}[/bold]: {escape(now.question)}"), width)[
        : min(most, 3)
    ]
    digits = max(len(str(anchor.score)) for anchor in now.anchors)
    for anchor in now.anchors:
        wrapped = list(Text(anchor.text).wrap(console, max(width - digits - 4, 10)))
        if len(wrapped) > most:
            wrapped[most - 1].append("…" if len(wrapped[most - 1]) < width - digits - 3 else "")
        for number, line in enumerate(wrapped[:most]):
            score = f"[bold]{anchor.score:>{digits}}[/bold]" if number == 0 else " " * digits
            found += _lines(console, Text.assemble(Text.from_markup(f" {score}  "), line), width)[:1]
    note = f"  [yellow]{escape(session.note)}[/yellow]" if session.note else f"  [dim]{KEYS}[/dim]"
    found += _lines(console, Text.from_markup(note, overflow="ellipsis"), width)[:1]
    return found


def _help(console: Console) -> None:
    lines = _lines(console, Panel(HELP, title="keys", border_style="dim"), max(console.size.width, 20))
    _put(console, [*lines[: max(console.size.height - 1, 4)], "  any key goes on"])


def _why(console: Console, session: _Session) -> str | None:
    """A line from the person; an empty one leaves what was there."""
    if session.rationale:
        console.file.write(f"\r\n  now: {session.rationale[:200]}")
    console.file.write("\r\n  Why? ")
    console.file.flush()
    session.writing = True
    try:
        return input().strip()[:2000] or session.rationale
    except EOFError:
        return session.rationale
    finally:
        session.writing = False
