"""Judging over HTTP: blind, one at a time or as a file, several judges at once, and nothing gets lost."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import (
    CRITERIA,
    Serve,
    Server,
    fill,
    judge_all,
    opened,
    problem,
    put_scores,
    scores_for,
)
from tipbench.store.records import CellRecord

pytestmark = pytest.mark.integration


def _next(server: Server, experiment: str, judge: str, **params: object) -> dict[str, Any]:
    answer = server.client.get(f"/api/bench/judging/{experiment}/next", params={"judge": judge, **params})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def _put(server: Server, experiment: str, item: dict[str, Any], by: str, **changes: object) -> httpx.Response:
    return put_scores(server.client, experiment, item, by, **changes)


def _cells(url: str, experiment: str) -> list[CellRecord]:
    with opened(url) as store:
        return store.cells(store.require_experiment(experiment))


def test_an_item_is_blind_and_its_score_is_in_mlflow_when_it_is_answered(shared: Server, mlflow_url: str) -> None:
    experiment = "tip-bench-one-item"
    fill(mlflow_url, experiment, models=("qwen2.5:0.5b", "gemma3:1b"), prompts=("v1", "v2-mentor"), words="Gemma says ")
    body = _next(shared, experiment, "ada")
    text = json.dumps(body)
    for name in ("qwen2.5", "gemma", "Gemma", "v2-mentor", "run_id"):
        assert name not in text, name
    assert body["progress"] == {"total": 26, "done": 0, "left": 26, "others": 0, "pending": 24}
    [item] = body["items"]
    saved = _put(shared, experiment, item, "ada").json()
    assert saved == {"id": item["id"], "outcome": "new", "cell_pending": True}
    records = [r for cell in _cells(mlflow_url, experiment) for r in cell.scores]
    assert [r.judge for r in records] == ["ada"]
    assert list(records[0].scores.values()) == [tuple(scores_for(item).values())]


def test_the_same_score_again_changes_nothing_and_another_one_keeps_its_history(
    shared: Server, mlflow_url: str
) -> None:
    experiment = "tip-bench-again"
    fill(mlflow_url, experiment)
    [item] = _next(shared, experiment, "ada")["items"]
    assert _put(shared, experiment, item, "ada").json()["outcome"] == "new"
    assert _put(shared, experiment, item, "ada").json()["outcome"] == "unchanged"
    other = dict.fromkeys(CRITERIA, 1)
    assert _put(shared, experiment, item, "ada", scores=other, reason="misread it").json()["outcome"] == "changed"
    with opened(mlflow_url) as store:
        history = store.judgment_history(store.require_experiment(experiment))
    assert [(h["judge"], h["reason"]) for h in history] == [("ada", ""), ("ada", "misread it")]
    assert history[1]["old"] == list(scores_for(item).values())
    [previous] = _next(shared, experiment, "ada")["previous"]
    assert previous["id"] == item["id"] and previous["scores"] == other


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"scores": {"relevance": 6, "actionability": 1, "tone": 1}}, "/scores/relevance"),
        ({"scores": {"relevance": 0, "actionability": 1, "tone": 1}}, "/scores/relevance"),
        ({"scores": {"relevance": 1, "actionability": 1}}, "/scores/tone"),
        ({"scores": {"relevance": 1, "actionability": 1, "tone": 1, "wit": 1}}, "/scores/wit"),
        ({"scores": {"relevance": 1.5, "actionability": 1, "tone": 1}}, "/scores/relevance"),
        ({"scores": {"relevance": "4", "actionability": 1, "tone": 1}}, "/scores/relevance"),
        ({"scores": {"relevance": True, "actionability": 1, "tone": 1}}, "/scores/relevance"),
        ({"judge": {"name": "a'b", "kind": "human"}}, "/judge/name"),
        ({"judge": {"name": "ada", "kind": "robot"}}, "/judge/kind"),
        ({"model": "x"}, "/model"),
    ],
)
def test_a_wrong_score_is_refused_with_its_place(
    shared: Server, mlflow_url: str, changes: dict[str, object], pointer: str
) -> None:
    experiment = "tip-bench-wrong"
    if shared.client.get(f"/api/bench/judging/{experiment}/next", params={"judge": "ada"}).status_code == 404:
        fill(mlflow_url, experiment)
    [item] = _next(shared, experiment, "ada")["items"]
    errors = problem(_put(shared, experiment, item, "ada", **changes), 422)["errors"]
    assert [e["pointer"] for e in errors] == [pointer]
    assert not any(cell.scores for cell in _cells(mlflow_url, experiment))


def test_an_item_that_was_never_issued_is_not_there(shared: Server, mlflow_url: str) -> None:
    experiment = "tip-bench-unknown-item"
    fill(mlflow_url, experiment)
    [item] = _next(shared, experiment, "ada")["items"]
    problem(_put(shared, experiment, {**item, "id": "f" * 16}, "ada"), 404)
    problem(_put(shared, experiment, {**item, "export_id": "f" * 16}, "ada"), 404)


def test_two_judges_share_the_work_and_repeats_measure_each(shared: Server, mlflow_url: str) -> None:
    experiment = "tip-bench-shared"
    fill(mlflow_url, experiment, prompts=("v1", "v2-mentor"), n_scenarios=4, n_tips=3)
    with ThreadPoolExecutor() as pool:
        counts = list(pool.map(lambda judge: judge_all(shared.client, experiment, judge), ["ada", "bob"]))
    cells = _cells(mlflow_url, experiment)
    scored = Counter(r.judge for cell in cells for r in cell.scores for _ in r.scores)
    assert sum(scored.values()) < 48 + 8, "each took about a half"
    assert min(counts) > 10
    assert all(len({i for r in cell.scores for i in r.scores}) == 3 for cell in cells)
    assert all(cell.run.tags["judge_pending"] == "false" for cell in cells)
    assert any(r.repeats for cell in cells for r in cell.scores)
    assert _next(shared, experiment, "cy")["items"] == []
    assert len(_next(shared, experiment, "cy", scope="all", limit=50)["items"]) == 48


def test_a_repeat_of_a_second_opinion_does_not_follow_its_first_showing(shared: Server, mlflow_url: str) -> None:
    experiment = "tip-bench-second-opinion"
    fill(mlflow_url, experiment, models=("small:1b",), n_scenarios=3, n_tips=4)
    judge_all(shared.client, experiment, "ada")
    tips = []
    while items := _next(shared, experiment, "bob", scope="all")["items"]:
        tips.append((items[0]["scenario"], items[0]["tip"]))
        assert _put(shared, experiment, items[0], "bob").status_code == 200
    assert len(tips) == 12 + 1
    [twice] = [tip for tip, times in Counter(tips).items() if times == 2]
    first, again = (n for n, tip in enumerate(tips) if tip == twice)
    assert first < 6 <= again, "in the first half, and again in the second"


def test_scores_saved_at_the_same_moment_are_all_there(shared: Server, mlflow_url: str) -> None:
    """Every item of every judge at once: the tips of a cell share a record, and its pending mark depends on all of them."""
    experiment = "tip-bench-at-once"
    fill(mlflow_url, experiment, models=("small:1b",), n_tips=4)
    judges = ["ada", "bob", "cy"]
    items = {j: _next(shared, experiment, j, scope="all", limit=50)["items"] for j in judges}
    work = [(judge, item) for n in range(12) for judge in judges for item in [items[judge][n]]]
    gate = threading.Barrier(12)

    def save(one: tuple[str, dict[str, Any]]) -> int:
        if one in work[:12]:
            gate.wait(30)
        return _put(shared, experiment, one[1], one[0]).status_code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(save, work)) == {200}
    cells = _cells(mlflow_url, experiment)
    for judge in judges:
        assert sum(len(r.scores) for cell in cells for r in cell.scores if r.judge == judge) == 12
    assert all(cell.run.tags["judge_pending"] == "false" for cell in cells)


def test_judging_resumes_after_a_restart_and_sees_what_was_collected_since(serve: Serve, mlflow_url: str) -> None:
    experiment = "tip-bench-resumed"
    fill(mlflow_url, experiment)
    first = serve(mlflow_url)
    for item in _next(first, experiment, "ada", limit=5)["items"]:
        _put(first, experiment, item, "ada")
    before = _next(first, experiment, "ada")
    first.stop()
    second = serve(mlflow_url)
    after = _next(second, experiment, "ada")
    assert after["progress"] == before["progress"] and after["items"] == before["items"]
    assert len(after["previous"]) == 5
    fill(mlflow_url, experiment, models=("late:1b",))
    # At once; on a machine so busy that reading this takes a second, within ten times that.
    deadline = time.monotonic() + 60
    while _next(second, experiment, "ada")["progress"]["pending"] != 12 - 5 + 6:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    judge_all(second.client, experiment, "ada")
    assert all(cell.run.tags["judge_pending"] == "false" for cell in _cells(mlflow_url, experiment))


def test_an_agent_needs_the_files_url_and_a_token_only(shared: Server, mlflow_url: str) -> None:
    experiment = "tip-bench-agent"
    fill(mlflow_url, experiment)
    url = f"/api/bench/judging/{experiment}"
    exported = shared.client.get(url + "/export", params={"judge": "agent-1"})
    assert experiment in exported.headers["content-disposition"]
    exchange = exported.json()
    assert exchange["schema"] == "tipbench.exchange/1" and len(exchange["items"]) == 13
    exchange["judge"] = {"name": "agent-1", "kind": "agent"}
    for item in exchange["items"]:
        item["scores"] = scores_for(item)
    dry = shared.client.post(url + "/apply", json=exchange, params={"dry_run": True}).json()
    assert dry["new"] == 13 and not any(cell.scores for cell in _cells(mlflow_url, experiment))
    done = shared.client.post(url + "/apply", json=exchange).json()
    assert (done["new"], done["pending_cells"], done["judge"]) == (13, 0, "agent-1")
    again = shared.client.post(url + "/apply", json=exchange).json()
    assert (again["new"], again["unchanged"]) == (0, 13)


def test_a_faulty_file_is_refused_as_a_whole_with_every_fault(shared: Server, mlflow_url: str) -> None:
    experiment = "tip-bench-faulty-file"
    fill(mlflow_url, experiment)
    url = f"/api/bench/judging/{experiment}"
    exchange = shared.client.get(url + "/export").json()
    exchange["judge"] = {"name": "agent-1", "kind": "agent"}
    for item in exchange["items"]:
        item["scores"] = scores_for(item)
    exchange["items"][0]["scores"]["tone"] = 6
    exchange["items"][1]["scores"]["relevance"] = "4"
    errors = problem(shared.client.post(url + "/apply", json=exchange), 422)["errors"]
    assert {e["pointer"] for e in errors} == {"/items/0/scores/tone", "/items/1/scores/relevance"}
    assert not any(cell.scores for cell in _cells(mlflow_url, experiment))
    fenced = "```json\n" + json.dumps(exchange) + "\n```"
    assert "fence" in problem(shared.client.post(url + "/apply", content=fenced), 422)["errors"][0]["detail"]
    exchange["experiment"] = "tip-bench-other-one"
    for item in exchange["items"][:2]:
        item["scores"] = scores_for(item)
    assert problem(shared.client.post(url + "/apply", json=exchange), 422)["errors"][0]["pointer"] == "/experiment"
    fill(mlflow_url, "tip-bench-other-one")
    foreign = problem(shared.client.post("/api/bench/judging/tip-bench-other-one/apply", json=exchange), 422)
    assert foreign["errors"][0]["pointer"] == "/export_id"


def test_another_rubric_makes_the_shown_items_void(serve: Serve, mlflow_url: str, tmp_path: object) -> None:
    from importlib import resources
    from pathlib import Path

    experiment = "tip-bench-rubric"
    fill(mlflow_url, experiment)
    old = serve(mlflow_url)
    [item] = _next(old, experiment, "ada")["items"]
    text = (
        (resources.files("tipbench.catalog") / "rubric.yaml")
        .read_text()
        .replace("is about this user", "fits this user")
    )
    rubric = Path(str(tmp_path)) / "rubric.yaml"
    rubric.write_text(text.replace("name: short-tips", "name: other-tips"))
    new = serve(mlflow_url, RUBRIC=str(rubric))
    problem(_put(new, experiment, item, "ada"), 409)
    body = _next(new, experiment, "ada")
    assert body["rubric"]["name"] == "other-tips" and body["items"][0]["export_id"] != item["export_id"]
