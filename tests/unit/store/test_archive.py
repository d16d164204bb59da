"""Scores and cells read in few requests: logs put together, cells of ended collections in one file, and nothing lost to either."""

from __future__ import annotations

import pytest

from tests.fakes.memory_backend import MemoryBackend, memory_store
from tipbench.store import Store
from tipbench.store import archive as archive_module
from tipbench.store import texts as texts_module
from tipbench.store.cells import PARENT
from tipbench.store.records import Candidate, CellResult, Heading, Judge, PlannedCell, Run, Score, text_hash
from tipbench.store.scores import pack, unpack

pytestmark = pytest.mark.unit
RUBRIC = "ab" * 32
ANN = Heading(Judge("ann", "human"), RUBRIC, ("relevance", "tone"))


def candidate(index: int, text: str = "") -> Candidate:
    return Candidate(
        index=index, seed=index, text=text or f"Tip {index}.", done_reason="stop", ttft_s=0.1, load_s=0.0, prompt_tokens=9,
        prompt_s=0.1, output_tokens=20, output_s=0.5, total_s=0.6, wall_s=0.61, attempts=1,
    )  # fmt: skip


def result(name: str, texts: tuple[str, ...] = ("one", "two"), n_tips: int = 2) -> CellResult:
    return CellResult(
        cell_id=name, collection_id="c", model="m:1b", prompt="p", scenario=name, situation="s", n_tips=n_tips, params={"seed": "0"},
        tags={}, candidates=tuple(candidate(i, t) for i, t in enumerate(texts)), flags={}, resident_bytes=None, failure=None,
        started_ms=1000, ended_ms=2000,
    )  # fmt: skip


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def store(backend: MemoryBackend) -> Store:
    return memory_store(backend)


def collected(store: Store, *names: str, collection: str = "c") -> tuple[str, dict[str, str]]:
    experiment = store.ensure_experiment("tip-bench-x")
    plan = [PlannedCell(name, "m:1b", "p", name, 2) for name in names]
    parent = store.begin_collection(experiment, collection, plan, {}, {})
    runs = {name: store.save_cell(experiment, parent.run_id, result(name), None).run_id for name in names}
    store.end_collection(parent, "FINISHED", {})
    return experiment, runs


def current(store: Store, experiment: str) -> dict[tuple[str, str, int], tuple[int, ...]]:
    return {
        (cell.scenario, record.judge, index): scores
        for cell in store.cells(experiment)
        for record in cell.scores
        for index, scores in record.scores.items()
    }


def test_many_logs_are_put_together_and_what_comes_later_still_counts(
    store: Store, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "MANY_LOGS", 5)
    experiment, runs = collected(store, "a", "b")
    expected = {}
    for number in range(12):
        name, value = "ab"[number % 2], 1 + number % 5
        store.log_scores(experiment, ANN, [Score(runs[name], 0, False, (value, 1), 100 + number)], {}, f"j{number}")
        expected[name, "ann", 0] = (value, 1)
        assert store.compact(experiment) in (True, False)
        assert current(memory_store(backend), experiment) == expected
    own = memory_store(backend)
    for at in range(3):  # one process's log grows after it was put together in part
        own.add_scores(experiment, ANN, [Score(runs["a"], 1, False, (at + 1, 2), 500 + at)])
        memory_store(backend).compact(experiment)
        assert current(memory_store(backend), experiment) == expected | {("a", "ann", 1): (at + 1, 2)}
    kinds = [r.tags["tipbench.kind"] for r in backend.runs.values() if r.run_id not in backend.gone]
    assert kinds.count("archive") == 1 and len(store.judgment_history(experiment)) == 15


def test_two_that_put_together_at_once_say_the_same(
    store: Store, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "MANY_LOGS", 2)
    experiment, runs = collected(store, "a")
    for number in range(4):
        store.log_scores(experiment, ANN, [Score(runs["a"], 0, False, (number + 1, 1), number)], {}, f"j{number}")
    before = current(store, experiment)
    first, second = memory_store(backend), memory_store(backend)
    monkeypatch.setattr(second, "_archive", lambda experiment_id: (None, {}))  # it looked before the first one was done
    assert first.compact(experiment) and second.compact(experiment)
    assert current(memory_store(backend), experiment) == before == {("a", "ann", 0): (4, 1)}


def test_a_log_that_was_cut_off_counts_for_nothing_until_it_is_whole(store: Store, backend: MemoryBackend) -> None:
    experiment, runs = collected(store, "a")
    scores = [Score(runs["a"], i, False, (3, 3), 10) for i in range(2)]
    end = store._end
    store._end = lambda run, count: (_ for _ in ()).throw(ConnectionError())  # type: ignore[method-assign, assignment]
    with pytest.raises(ConnectionError):
        store.log_scores(experiment, ANN, scores, {}, "j")
    assert current(store, experiment) == {}
    store._end = end  # type: ignore[method-assign]
    store.log_scores(experiment, ANN, scores, {}, "j")
    assert len(current(store, experiment)) == 2
    assert sum(r.tags.get("tipbench.kind") == "judgment" for r in backend.runs.values()) == 1


def test_a_score_of_a_text_that_no_longer_stands_there_counts_for_nothing(store: Store) -> None:
    experiment, runs = collected(store, "a")
    store.log_scores(experiment, ANN, [Score(runs["a"], 0, False, (3, 3), 1, text_hash("one"))], {}, "j1")
    store.log_scores(experiment, ANN, [Score(runs["a"], 1, False, (3, 3), 1, text_hash("another"))], {}, "j2")
    assert current(store, experiment) == {("a", "ann", 0): (3, 3)}


def test_the_index_is_read_instead_of_the_search_and_later_changes_are_seen(
    store: Store, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "MANY_CELLS", 2)
    experiment, runs = collected(store, "a", "b", "c")
    assert store.index(experiment) and not store.index(experiment)
    fresh = memory_store(backend)
    monkeypatch.setattr(fresh, "_runs", _without_cells(fresh._runs))
    assert [c.scenario for c in fresh.cells(experiment)] == ["a", "b", "c"]

    parent = store.begin_collection(experiment, "more", [], {}, {})
    known = backend.runs[runs["a"]]
    store.save_cell(experiment, parent.run_id, result("a", ("one", "two", "three"), 3), known)
    store.end_collection(parent, "FINISHED", {})
    backend.delete_run(runs["b"])
    found = {c.scenario: c.n_candidates for c in memory_store(backend).cells(experiment)}
    assert found == {"a": 3, "c": 2}


def _without_cells(original):  # type: ignore[no-untyped-def]
    def runs(experiment_id: str, kind: str, also: str = ""):  # type: ignore[no-untyped-def]
        assert kind != "cell", "cells are in the index"
        return original(experiment_id, kind, also)

    return runs


def test_cells_whose_collection_is_gone_are_still_found(store: Store, backend: MemoryBackend) -> None:
    experiment, _ = collected(store, "a")
    for run in list(backend.runs.values()):
        if run.tags["tipbench.kind"] == "collection":
            backend.delete_run(run.run_id)
    for _ in range(2):
        assert [c.scenario for c in store.cells(experiment)] == ["a"]


def test_any_number_of_criteria_and_any_words_come_back_whole() -> None:
    heading = Heading(Judge("bob", "llm", "v" * 16), RUBRIC, tuple(f"c{i}" for i in range(20)), {"digest": "d"})
    scores = [
        Score("r", i, i % 2 == 1, tuple(range(20)), i, "t", (0.5,) * 20, "line\nand\u2028another “✓”", "why", "item")
        for i in range(600)
    ]
    packed = pack([(heading, score) for score in scores])
    assert list(unpack(packed)) == [(heading, score) for score in scores] and pack(unpack(packed)) == packed


def test_texts_are_read_together_as_long_as_they_still_stand(
    store: Store, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts_module, "MANY_CELLS", 3)
    names = ("a", "b", "c", "d")
    experiment, runs = collected(store, *names)

    def seen() -> dict[str, tuple[str, ...]]:
        found = memory_store(backend).texts(experiment, memory_store(backend).cells(experiment))
        return {name: tuple(found[runs[name]].texts.values()) for name in names}

    expected = dict.fromkeys(names, ("one", "two"))
    assert seen() == expected
    asked: list[str] = []
    get = backend.get_artifact

    def watched(run: Run, path: str) -> bytes | None:
        asked.append(path)
        return get(run, path)

    monkeypatch.setattr(backend, "get_artifact", watched)
    assert seen() == expected and "candidates.json" not in asked
    # A cell that got another candidate is read anew, the others are not.
    known = next(c.run for c in store.cells(experiment) if c.scenario == "b")
    store.save_cell(experiment, known.tags[PARENT], result("b", ("one", "two", "three"), 3), known)
    asked.clear()
    assert seen() == expected | {"b": ("one", "two", "three")}
    assert asked.count("candidates.json") == 1
    # What was put together can be lost: it is made again.
    for run in list(backend.runs.values()):
        if run.tags.get("tipbench.kind") == "texts":
            backend.delete_run(run.run_id)
    assert seen() == expected | {"b": ("one", "two", "three")}
    assert (
        sum(r.tags.get("tipbench.kind") == "texts" for r in backend.runs.values() if r.run_id not in backend.gone) == 1
    )


def test_texts_are_kept_when_a_collection_ends_and_once_only(
    store: Store, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts_module, "MANY_CELLS", 3)
    experiment, _ = collected(store, "a", "b", "c")
    cells = store.cells(experiment)
    assert store.keep_texts(experiment, cells) and not memory_store(backend).keep_texts(experiment, cells)
