"""Filling an exchange file: one protocol for every judge, several tips at once, resumed where it stopped.

Every answer is noted down beside the file before the next tip is taken up, so that a kill loses only what was in flight; the file
itself is saved, whole or not at all, every few seconds.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from tipbench.errors import InputError, TipbenchError
from tipbench.judging.exchange import Exchange, ExchangeItem, ExchangeRubric, JudgeIdentity
from tipbench.judging.validate import item_dict, scored, with_items, write_exchange

SAVE_EVERY_S = 5.0
VERSION_KEYS = ("digest", "judge_prompt", "rationale", "passes")
"""Details that make a judge of the same name another judge; two of them in one file could not be told apart."""


class JudgmentError(TipbenchError):
    """A judge could not score one tip; `reason` is a short word for the summary."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class Judgment:
    """The scores of one tip: criterion id -> score on the rubric's scale; `expected` are means beside them, where known."""

    scores: Mapping[str, int]
    rationale: str | None = None
    expected: Mapping[str, float] | None = None


class Judge(Protocol):
    """Anything that scores tips by itself. It sees what is in the exchange file, and nothing else."""

    @property
    def identity(self) -> JudgeIdentity:
        """Who it is; scores are filed under its name."""

    def score(self, rubric: ExchangeRubric, scenario: str, tip: str) -> Judgment:
        """The scores of one tip; raises JudgmentError when this one cannot be judged. Called from several threads at once."""


@dataclass(frozen=True)
class FillResult:
    """What became of a file; counts are items."""

    judge: str
    scored: int
    left: int
    failures: Mapping[str, int] = field(default_factory=dict)
    """reason -> items"""
    why: Mapping[str, str] = field(default_factory=dict)
    """reason -> the first item's message"""


def begin(exchange: Exchange, name: str, source: str, details: Mapping[str, str] | None = None) -> None:
    """Refuse a file that another judge began: two judges' scores in one file could not be told apart.

    A judge of the same name with another model digest, prompt or way of answering is another judge, too.
    """
    if exchange.judge is None:
        return
    if exchange.judge.name != name:
        raise InputError(
            f"{source} was begun by judge {exchange.judge.name}, not {name}; export another file for "
            f"{name} (tipbench judge export --judge {name} ...)"
        )
    old = exchange.judge.details
    changed = [k for k in VERSION_KEYS if details and k in details and k in old and details[k] != old[k]]
    if changed and any(score is not None for item in exchange.items for score in item.scores.values()):
        words = ", ".join(f"{k} {old[k][:12]}, now {details[k][:12]}" for k in changed if details)
        raise InputError(
            f"{source} was begun by {name} in another version ({words}); go on as it was begun, or export another file"
        )


def fill(
    exchange: Exchange,
    judge: Judge,
    path: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    parallel: int = 1,
) -> FillResult:
    """Have `judge` score every item of the file that is not complete, `parallel` of them at once.

    Items of a scenario follow each other, so that a server can keep the beginning of the question. An item that the judge fails on
    stays open and is counted. When anything (Ctrl-C, a service that is away) ends the work early, what was answered is in the file; after
    a kill it is in the notes beside the file, and the next call takes it from there.
    """
    begin(exchange, judge.identity.name, str(path), judge.identity.details)
    notes = _Notes(path, exchange, judge.identity)
    items = notes.merged(exchange.items)
    todo = _by_scenario(items)
    done = len(items) - len(todo)
    on_progress(done, len(items))
    failures: Counter[str] = Counter()
    why: dict[str, str] = {}
    crew = _Crew(judge, exchange.rubric, items, todo, notes, parallel)
    saved_at, unsaved = time.monotonic(), notes.any

    def save() -> None:
        write_exchange(with_items(exchange, judge.identity, items), path)
        notes.clear()

    try:
        crew.start()
        for number in range(1, len(todo) + 1):
            i, outcome = crew.next()
            if isinstance(outcome, JudgmentError):
                failures[outcome.reason] += 1
                why.setdefault(outcome.reason, str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                items[i] = outcome
            unsaved = True
            on_progress(done + number, len(items))
            if time.monotonic() - saved_at > SAVE_EVERY_S and number < len(todo):
                with notes.lock:
                    crew.drain(items)
                    save()
                saved_at = time.monotonic()
    finally:
        crew.stop()
        with notes.lock:
            notes.close()
            crew.drain(items)
            if unsaved or crew.drained or exchange.judge != judge.identity:
                save()
    left = sum(not item.complete for item in items)
    return FillResult(judge.identity.name, len(todo) - left, left, dict(failures), why)


def _by_scenario(items: Sequence[ExchangeItem]) -> list[int]:
    """Positions of the open items, those of a scenario together, scenarios as they first appear."""
    first: dict[str, int] = {}
    for i, item in enumerate(items):
        first.setdefault(item.scenario, i)
    return sorted((i for i, item in enumerate(items) if not item.complete), key=lambda i: (first[items[i].scenario], i))


class _Crew:
    """The threads that ask. They are daemons: an interrupt does not wait for answers that nobody will read."""

    def __init__(
        self,
        judge: Judge,
        rubric: ExchangeRubric,
        items: Sequence[ExchangeItem],
        todo: Sequence[int],
        notes: _Notes,
        parallel: int,
    ) -> None:
        self._judge, self._rubric, self._notes = judge, rubric, notes
        self._work: queue.SimpleQueue[tuple[int, ExchangeItem]] = queue.SimpleQueue()
        for i in todo:
            self._work.put((i, items[i]))
        self._out: queue.Queue[tuple[int, ExchangeItem | BaseException]] = queue.Queue()
        self._early: list[tuple[int, ExchangeItem | BaseException]] = []
        self._stopping = threading.Event()
        self.drained = False
        self._threads = [
            threading.Thread(target=self._run, daemon=True, name=f"judge-{n}")
            for n in range(min(max(parallel, 1), max(len(todo), 1)))
        ]

    def start(self) -> None:
        """Set to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take up no other item; what is in flight is given up."""
        self._stopping.set()

    def next(self) -> tuple[int, ExchangeItem | BaseException]:
        """The next outcome, in the order in which they come; waits in short steps, so that an interrupt is heard."""
        if self._early:
            return self._early.pop(0)
        while True:
            try:
                return self._out.get(timeout=1.0)
            except queue.Empty:
                continue

    def drain(self, items: list[ExchangeItem]) -> None:
        """Put what has come in, but was not yet taken, into `items`; `next` still gives it out afterwards."""
        while True:
            try:
                one = self._out.get_nowait()
            except queue.Empty:
                break
            self._early.append(one)
        for i, outcome in self._early:
            if isinstance(outcome, ExchangeItem):
                items[i], self.drained = outcome, True

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                i, item = self._work.get_nowait()
            except queue.Empty:
                return
            outcome: ExchangeItem | BaseException
            try:
                found = self._judge.score(self._rubric, item.scenario, item.tip)
                at = datetime.now(UTC).replace(microsecond=0)
                outcome = scored(item, found.scores, found.rationale, at, found.expected)
            except BaseException as error:  # whatever it was, the main thread is to hear of it
                outcome = error
            with self._notes.lock:
                if isinstance(outcome, ExchangeItem):
                    self._notes.add(outcome)
                self._out.put((i, outcome))
            if isinstance(outcome, BaseException) and not isinstance(outcome, JudgmentError):
                self._stopping.set()
                return


class _Notes:
    """Answers that the file does not have yet: one line each in a file beside it, written before the next tip is taken up."""

    def __init__(self, path: Path, exchange: Exchange, judge: JudgeIdentity) -> None:
        self._path = path.with_name(f".{path.name}.notes")
        self._head = {"export_id": exchange.export_id, "judge": judge.model_dump(mode="json")}
        self.lock = threading.RLock()
        self._open = True
        self._found = self._read()
        self.any = bool(self._found)

    def merged(self, items: Sequence[ExchangeItem]) -> list[ExchangeItem]:
        """The items, the open ones filled from the notes that an earlier call left."""
        merged = []
        for item in items:
            noted = self._found.get(item.id)
            fits = noted is not None and not item.complete and (noted.tip, noted.scenario) == (item.tip, item.scenario)
            merged.append(noted if fits and noted is not None else item)
        return merged

    def add(self, item: ExchangeItem) -> None:
        """Note an answer down; it is with the system when this returns, so that a killed process does not lose it."""
        if not self._open:
            return
        line = json.dumps({**self._head, "item": item_dict(item)}, ensure_ascii=False) + "\n"
        try:
            with self._path.open("ab") as file:
                file.write(line.encode())
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error

    def clear(self) -> None:
        """The file has them now."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Take no more: what comes later was given up."""
        self._open = False

    def _read(self) -> dict[str, ExchangeItem]:
        """Complete lines of this very export and judge; a last line that was cut off is no answer."""
        found = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return {}
        for line in lines:
            try:
                body = json.loads(line)
                if {k: body.get(k) for k in self._head} != self._head:
                    continue
                item = ExchangeItem.model_validate_json(json.dumps(body["item"]))
            except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
                continue
            found[item.id] = item
        return found
