"""Filling an exchange file: one protocol for every judge, saved as it goes, resumed where it stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tipbench.errors import InputError, TipbenchError
from tipbench.judging.exchange import Exchange, ExchangeRubric, JudgeIdentity
from tipbench.judging.validate import scored, with_items, write_exchange

SAVE_EVERY_S = 5.0


class JudgmentError(TipbenchError):
    """A judge could not score one tip; `reason` is a short word for the summary."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class Judgment:
    """The scores of one tip: criterion id -> score on the rubric's scale."""

    scores: Mapping[str, int]
    rationale: str | None = None


class Judge(Protocol):
    """Anything that scores tips by itself. It sees what is in the exchange file, and nothing else."""

    @property
    def identity(self) -> JudgeIdentity:
        """Who it is; scores are filed under its name."""

    def score(self, rubric: ExchangeRubric, scenario: str, tip: str) -> Judgment:
        """The scores of one tip; raises JudgmentError when this one cannot be judged."""


@dataclass(frozen=True)
class FillResult:
    """What became of a file; counts are items."""

    judge: str
    scored: int
    left: int
    failures: Mapping[str, int] = field(default_factory=dict)
    """reason -> items"""


def begin(exchange: Exchange, name: str, source: str) -> None:
    """Refuse a file that another judge began: two judges' scores in one file could not be told apart."""
    if exchange.judge is not None and exchange.judge.name != name:
        raise InputError(
            f"{source} was begun by judge {exchange.judge.name}, not {name}; export another file for "
            f"{name} (tipbench judge export --judge {name} ...)"
        )


def fill(
    exchange: Exchange, judge: Judge, path: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> FillResult:
    """Have `judge` score every item of the file that is not complete, and save it.

    An item that the judge fails on stays open and is counted. The file is saved every few seconds, at the end, and when
    anything (Ctrl-C, a service that is away) ends the work early.
    """
    begin(exchange, judge.identity.name, str(path))
    items = list(exchange.items)
    todo = [i for i, item in enumerate(items) if not item.complete]
    failures: Counter[str] = Counter()
    done, saved_at = 0, time.monotonic()
    on_progress(len(items) - len(todo), len(items))
    try:
        for number, i in enumerate(todo, start=1):
            try:
                judgment = judge.score(exchange.rubric, items[i].scenario, items[i].tip)
            except JudgmentError as error:
                failures[error.reason] += 1
            else:
                items[i] = scored(
                    items[i], judgment.scores, judgment.rationale, datetime.now(UTC).replace(microsecond=0)
                )
                done += 1
            on_progress(len(items) - len(todo) + number, len(items))
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                write_exchange(with_items(exchange, judge.identity, items), path)
                saved_at = time.monotonic()
    finally:
        write_exchange(with_items(exchange, judge.identity, items), path)
    return FillResult(judge.identity.name, done, sum(not item.complete for item in items), dict(failures))
