"""Whose turn a tip is, and what is known of the scores while they are being read and written."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipbench.api import service as service_module
from tipbench.api.handout import Entry, Shown, counts, entries, in_turn, lacks, still_open
from tipbench.api.service import Service
from tipbench.api.settings import Settings
from tipbench.api.web import Metrics
from tipbench.config import Config
from tipbench.store.records import CellRecord, Holdings, Run, ScoreRecord

pytestmark = pytest.mark.unit
RUBRIC = "r" * 64
CRITERIA = ("relevance", "actionability", "tone")


def record(judge: str, *indices: int, repeats: tuple[int, ...] = (), rubric: str = RUBRIC) -> ScoreRecord:
    scores = dict.fromkeys(indices, (3, 3, 3))
    return ScoreRecord(judge, "human", rubric, CRITERIA, scores, dict.fromkeys(repeats, (2, 2, 2)))


def scored(n: int, records: tuple[ScoreRecord, ...], run_id: str = "a") -> CellRecord:
    """A finished cell with `n` candidates."""
    run = Run(run_id, "FINISHED", "", 0, 0, {"model": run_id}, {}, {})
    return CellRecord(run, run_id, run_id, "p", "s", n, n, None, records)


def key(*rows: tuple[str, int, bool], rubric: str = RUBRIC) -> dict[str, Any]:
    items = {f"item-{n}": [run, i, again, "a situation", f"tip {run} {i}"] for n, (run, i, again) in enumerate(rows)}
    return {"export_id": "e" * 16, "rubric_hash": rubric, "items": items}


def found(cells: dict[str, CellRecord], *rows: tuple[str, int, bool], judge: str = "ada") -> list[Entry]:
    return entries(key(*rows), cells, RUBRIC, judge)


def places(of: list[Entry]) -> list[tuple[str, int, bool]]:
    return [(e.run_id, e.index, e.repeat) for e in of]


def test_an_entry_knows_the_judges_own_scores_first_and_second_and_whether_anybody_scored_it() -> None:
    cells = {"a": scored(2, (record("ada", 0, repeats=(0,)), record("bob", 1), record("cy", 0, rubric="other")))}
    first, other, again = found(cells, ("a", 0, False), ("a", 1, False), ("a", 0, True), ("gone", 0, False))
    assert (first.own, other.own, again.own) == ((3, 3, 3), None, (2, 2, 2))
    assert first.scored and other.scored and again.scored
    [unscored] = entries(key(("a", 0, False)), cells, "another rubric", "ada")
    assert unscored.own is None and not unscored.scored


def test_what_is_open_depends_on_the_scope_and_a_repeat_on_its_first_showing() -> None:
    cells = {"a": scored(3, (record("ada", 0), record("bob", 1)))}
    all_of_it = found(cells, *(("a", i, again) for again in (False, True) for i in range(3)))
    assert places(still_open(all_of_it, "pending")) == [("a", 2, False), ("a", 0, True)]
    assert places(still_open(all_of_it, "all")) == [("a", 1, False), ("a", 2, False), ("a", 0, True)]


def test_what_nobody_has_scored_or_looks_at_comes_first() -> None:
    cells = {"a": scored(4, (record("bob", 0),))}
    shown = Shown()
    shown.show("bob", ("a", 1))
    shown.show("ada", ("a", 3))
    turn = in_turn(found(cells, *(("a", i, False) for i in range(4))), "ada", shown)
    assert places(turn) == [("a", 2, False), ("a", 3, False), ("a", 1, False), ("a", 0, False)]


def test_a_repeat_waits_for_those_that_others_have_scored() -> None:
    cells = {"a": scored(4, (record("ada", 0), record("bob", 0, 1, 2, 3)))}
    rows = [("a", i, False) for i in range(3)] + [("a", 0, True), ("a", 3, False)]
    assert places(in_turn(still_open(found(cells, *rows), "all"), "ada", Shown())) == rows[1:]


@settings(deadline=None)
@given(data=st.data(), n_tips=st.integers(1, 6), scope=st.sampled_from(["pending", "all"]))
def test_judging_never_moves_the_total(data: st.DataObject, n_tips: int, scope: Literal["pending", "all"]) -> None:
    """Whoever scores what, in whatever order: the total stands, every tip is somebody's, and what is left ends at nothing."""
    repeats = data.draw(st.sets(st.integers(0, n_tips - 1)))
    rows = [("a", i, False) for i in range(n_tips)] + [("a", i, True) for i in sorted(repeats)]
    own: dict[int, tuple[int, ...]] = {}
    again: dict[int, tuple[int, ...]] = {}
    others: set[int] = set()

    def now() -> tuple[list[Entry], Any]:
        mine = ScoreRecord("ada", "human", RUBRIC, CRITERIA, dict(own), dict(again))
        cells = {"a": scored(n_tips, (mine, record("bob", *others)))}
        there = found(cells, *rows)
        return there, counts(there, cells, RUBRIC, "ada", scope)

    for _ in range(3 * n_tips):
        there, count = now()
        assert count.total == n_tips + len(repeats)
        assert count.done == len(own) + len(again) and count.pending == n_tips - len(own.keys() | others)
        assert 0 <= count.left <= count.total - count.done
        assert scope == "pending" or count.left == count.total - count.done
        open_now = still_open(there, scope)
        assert len(open_now) <= count.left and (count.left == 0) == (not open_now)
        if open_now and data.draw(st.booleans()):
            (again if open_now[0].repeat else own)[open_now[0].index] = (3, 3, 3)
        else:
            others.add(data.draw(st.integers(0, n_tips - 1)))


def test_what_a_judge_scored_in_an_earlier_file_stays_counted() -> None:
    """The newest file holds what was open when it was made: two tips came later than the one that ada had scored."""
    cells = {"a": scored(1, (record("ada", 0, repeats=(0,)),)), "b": scored(2, (), "b")}
    there = found(cells, ("b", 0, False), ("b", 1, False), ("b", 1, True))
    count = counts(there, cells, RUBRIC, "ada", "pending")
    assert (count.total, count.done, count.left, count.pending) == (5, 2, 3, 2)


def test_a_file_lacks_what_came_later_but_not_what_the_judge_has_scored() -> None:
    cells = {"a": scored(2, (record("ada", 1),))}
    assert not lacks(key(("a", 0, False)), cells, RUBRIC, "ada")
    assert lacks(key(("a", 0, False)), cells, RUBRIC, "bob")
    assert lacks(key(("a", 0, False)), cells | {"b": scored(1, (), "b")}, RUBRIC, "ada")
    assert lacks(key(("a", 0, False), rubric="other"), cells, RUBRIC, "ada")


@dataclass
class Slow:
    """A store whose reading takes as long as the test wants; every look finds that something has changed."""

    cells_now: dict[str, CellRecord] = field(default_factory=dict)
    reads: int = 0
    looks: int = 0
    hold: threading.Event = field(default_factory=threading.Event)
    reading: threading.Event = field(default_factory=threading.Event)

    def state(self, experiment_id: str) -> str:
        self.looks += 1
        return str(self.looks)

    def holdings(self, experiment_id: str) -> Holdings:
        seen = tuple(self.cells_now.values())
        self.reads += 1
        self.reading.set()
        assert self.hold.wait(10)
        return Holdings(experiment_id, seen, ())

    def notes(self, experiment_id: str, prefix: str) -> dict[str, str]:
        return {}


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Even an instant read counts as slow, and no state of the experiment is believed."""
    monkeypatch.setattr(service_module, "SLOW_S", -1.0)
    monkeypatch.setattr(service_module, "WORTH", 1e9)
    monkeypatch.setattr(service_module, "STATE_S", 0.0)
    store = Slow({"a": scored(1, ()), "b": scored(1, (), "b")})
    store.hold.set()
    return store


def serving(store: Slow) -> Service:
    settings = Settings(config=Config(mlflow_url="http://localhost:5000"), state_dir=Path("state"))
    return Service(settings, cast(Any, store), cast(Any, None), Metrics())


def scored_by(cells: Any) -> dict[str, list[str]]:
    return {run_id: [r.judge for r in cell.scores] for run_id, cell in cells.items()}


def test_own_scores_are_known_without_reading_a_slow_experiment_again(slow: Slow) -> None:
    async def judge() -> None:
        service = serving(slow)
        assert scored_by((await service.known("1", judging=True)).cells) == {"a": [], "b": []}
        slow.cells_now["a"] = scored(1, (record("ada", 0),))
        await service.saved("1", [slow.cells_now["a"]])
        slow.cells_now["b"] = scored(1, (record("bob", 0),), "b")  # by another way: seen when it is read anew
        assert scored_by((await service.known("1", judging=True)).cells) == {"a": ["ada"], "b": []}
        assert slow.reads == 1
        service.rescored("1")
        assert scored_by((await service.known("1", judging=True)).cells) == {"a": ["ada"], "b": ["bob"]}
        assert slow.reads == 2

    asyncio.run(judge())


def test_a_score_saved_while_the_experiment_is_being_read_is_not_forgotten(slow: Slow) -> None:
    async def judge() -> None:
        service = serving(slow)
        slow.hold.clear()
        reading = asyncio.create_task(service.known("1", judging=True))
        assert await asyncio.to_thread(slow.reading.wait, 10)
        slow.cells_now["a"] = scored(1, (record("ada", 0),))
        await service.saved("1", [slow.cells_now["a"]])
        slow.hold.set()
        assert scored_by((await reading).cells) == {"a": ["ada"], "b": []}
        assert scored_by((await service.known("1", judging=True)).cells) == {"a": ["ada"], "b": []} and slow.reads == 1

    asyncio.run(judge())


def test_an_experiment_that_is_quick_to_read_is_always_read_as_it_is(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "SLOW_S", 60.0)

    async def judge() -> None:
        service = serving(slow)
        await service.known("1", judging=True)
        slow.cells_now["b"] = scored(1, (record("bob", 0),), "b")
        assert scored_by((await service.known("1", judging=True)).cells)["b"] == ["bob"]

    asyncio.run(judge())
