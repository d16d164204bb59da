"""Progress for whoever watches: a bar with an ETA on a terminal, one plain line per cell in a pod's log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tipbench.stages.collect import Event

LINE_EVERY_S = 10.0
"""Without a terminal, a bar becomes one line this often."""


@contextlib.contextmanager
def reporter(quiet: bool) -> Iterator[Callable[[Event], None]]:
    """What to call with the events of a collection. Everything goes to standard error, results stay alone on output."""
    if quiet:
        yield _failures_only
    elif sys.stderr.isatty():
        with _bar("collecting") as (console_print, move):
            yield lambda event: _on_terminal(event, console_print, move)
    else:
        yield _plain


@contextlib.contextmanager
def bar(quiet: bool, label: str) -> Iterator[Callable[[int, int], None]]:
    """What to call with (done, total) while something countable goes on."""
    if quiet:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with _bar(label) as (_, move):
            yield move
    else:
        last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            if done == total or time.monotonic() - last >= LINE_EVERY_S:
                last = time.monotonic()
                click.echo(f"{label}: {done} of {total}", err=True)

        yield line


@contextlib.contextmanager
def _bar(label: str) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """A rich bar; yields a way to print above it and a way to move it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield (
            lambda text: console.print(escape(text)),
            lambda done, total: progress.update(task, completed=done, total=total),
        )


def _on_terminal(event: Event, console_print: Callable[[str], None], move: Callable[[int, int], None]) -> None:
    if event.total:
        move(event.done, event.total)
    if event.kind in ("refused", "failed", "note", "warning"):
        console_print(_prefix(event) + event.message)


def _plain(event: Event) -> None:
    if event.kind == "saved":
        return
    counter = f"[{event.done}/{event.total}] " if event.kind in ("cell", "failed") else ""
    click.echo(counter + _prefix(event) + event.message, err=True)


def _failures_only(event: Event) -> None:
    if event.kind in ("refused", "failed", "warning"):
        click.echo(_prefix(event) + event.message, err=True)


def _prefix(event: Event) -> str:
    return "warning: " if event.kind == "warning" else ""
