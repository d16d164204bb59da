"""A sample that people score beside an LLM, and chains of rounds: over HTTP, and in the runs of `tipbench serve`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from tests.fakes.openai_server import FakeOpenAI
from tests.integration.api.conftest import Server, apply_file, fill, judge_all, opened, problem, put_scores
from tests.integration.api.laptop import Laptop, an_ollama
from tests.integration.api.test_local_runs import _start, _until
from tipbench.catalog import load_rubric, load_scenarios
from tipbench.cli import cli
from tipbench.counting.census import take
from tipbench.rounds import record

pytestmark = pytest.mark.integration
CELLS = {"models": ("small:1b", "tiny:1b"), "prompts": ("v1", "v2-mentor")}


def _next(client: httpx.Client, experiment: str, judge: str, **params: object) -> dict[str, Any]:
    answer = client.get(f"/api/bench/judging/{experiment}/next", params={"judge": judge, **params})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


# -- the sample ------------------------------------------------------------------------------------


def test_a_sample_is_drawn_handed_out_and_makes_the_board_the_persons(shared: Server, mlflow_url: str) -> None:
    experiment, client = "tip-bench-sample-panel", shared.client
    fill(mlflow_url, experiment, n_scenarios=8, n_tips=3, **CELLS)  # type: ignore[arg-type]
    apply_file(client, experiment, "robot")
    place = f"/api/bench/judging/{experiment}/sample"
    assert client.get(place).json() == {"n_scenarios": 8, "least": 6, "sample": None}
    params = {"judge": "ada", "scope": "sample"}
    assert (
        "draw one first" in problem(client.get(f"/api/bench/judging/{experiment}/next", params=params), 409)["detail"]
    )
    assert problem(client.post(place, json={"scenarios": 5}), 422)["errors"][0]["pointer"] == "/scenarios"
    assert "from 1 to 8" in problem(client.post(place, json={"scenarios": 9}), 422)["detail"]
    drawn = client.post(place, json={"scenarios": 6, "tips": 1}).json()["sample"]
    assert drawn == {"scenarios": 6, "tips": 1, "seed": 0, "n_tips": 24, "left": {"robot": 0}}

    first = _next(client, experiment, "ada", scope="sample", limit=50)
    assert first["progress"]["done"] == 0 and first["progress"]["left"] >= 24
    assert len({item["scenario"] for item in first["items"]}) == 6
    assert put_scores(client, experiment, first["items"][0], "ada").status_code == 200
    assert client.get(place).json()["sample"]["left"] == {"ada": 23, "robot": 0}
    # Two judges score the same sample: nobody's tips are taken from the other.
    judge_all(client, experiment, "bob", scope="sample", shift=1)
    judge_all(client, experiment, "ada", scope="sample", shift=1)
    assert client.get(place).json()["sample"]["left"] == {"ada": 0, "bob": 0, "robot": 0}
    progress = _next(client, experiment, "ada", scope="sample")["progress"]
    assert (progress["left"], progress["done"]) == (0, progress["total"])

    board = client.get(f"/api/bench/leaderboard/{experiment}", params={"reference": ["ada", "bob"]}).json()
    assert board["reference"]["judges"] == ["ada", "bob"] and board["reference"]["n_scenarios"] == 6
    assert board["reference"]["drawn"] is True and "ada and bob would say" in board["headline"]
    assert next(j for j in board["judges"] if j["name"] == "robot")["bias"]["level"] is not None
    plain = client.get(f"/api/bench/leaderboard/{experiment}/tradeoff.svg")
    theirs = client.get(f"/api/bench/leaderboard/{experiment}/tradeoff.svg", params={"reference": ["ada", "bob"]})
    assert theirs.status_code == 200 and theirs.headers["ETag"] != plain.headers["ETag"]
    # A larger sample holds the smaller one: what is scored stays scored.
    larger = client.post(place, json={"scenarios": 7, "tips": 1}).json()["sample"]
    assert (larger["n_tips"], larger["left"]) == (28, {"ada": 4, "bob": 4, "robot": 0})


def test_the_api_says_of_a_sample_what_plan_says(shared: Server, mlflow_url: str) -> None:
    experiment, client = "tip-bench-sample-plan", shared.client
    fill(mlflow_url, experiment, n_scenarios=8, n_tips=3, **CELLS)  # type: ignore[arg-type]
    place = f"/api/bench/judging/{experiment}/sample/plan"

    def planned(tips: int, *more: str) -> dict[str, Any]:
        design = ["--models", ",".join(CELLS["models"]), "--prompts", ",".join(CELLS["prompts"]), "--n-tips", str(tips)]
        done = CliRunner().invoke(cli, ["plan", *design, "--n-scenarios", "8", "--json", *more])
        assert done.exit_code == 0, done.output
        return dict(next(one for one in json.loads(done.stdout)["references"] if one["n_scenarios"] == 6))

    def said(tips: int) -> tuple[dict[str, Any], dict[str, Any]]:
        body = client.get(place, params={"scenarios": 6, "tips": tips}).json()
        figures = {"n_scenarios": body["scenarios"], "scores": body["n_tips"]}
        return body, figures | {name: body[name] for name in ("alone", "difference")}

    body, figures = said(2)
    assert figures == pytest.approx(planned(2))
    assert (body["spreads"], body["n_cells"], body["n_scenarios"], body["power"]) == ("assumed", 4, 8, 0.8)
    assert f"{body['difference']:.2f} points behind the best" in body["words"]
    assert f"{body['alone']:.2f} points" in body["words"] and body["alone"] > body["difference"]
    # With scores, the spreads are the experiment's own, as with --from-data; 0 tips are all that there are.
    apply_file(client, experiment, "robot")
    from_data = ("--from-data", "--experiment", experiment, "--mlflow-url", mlflow_url)
    body, figures = said(0)
    assert figures == pytest.approx(planned(3, *from_data)) and figures != pytest.approx(planned(3))
    assert body["spreads"] == f"estimated from {experiment}"
    whole = client.get(place, params={"scenarios": 8}).json()
    assert whole["alone"] == whole["difference"] < body["difference"]
    assert "from 1 to 8" in problem(client.get(place, params={"scenarios": 9}), 422)["detail"]
    assert problem(client.get(place, params={"scenarios": 5}), 422)["errors"][0]["pointer"] == "scenarios"
    assert client.get(f"/api/bench/judging/{experiment}/sample").json()["sample"] is None

    lone = "tip-bench-sample-lone"
    fill(mlflow_url, lone, models=("small:1b",), n_scenarios=6, n_tips=1)
    body = client.get(f"/api/bench/judging/{lone}/sample/plan", params={"scenarios": 6}).json()
    assert body["difference"] is None and "two cells" in body["words"]


@pytest.fixture
def openai() -> Iterator[FakeOpenAI]:
    server = FakeOpenAI().start()
    yield server
    server.stop()


def test_a_run_with_an_llm_waits_for_the_sample_and_ranks_by_the_reference(
    tmp_path: Path, mlflow_url: str, openai: FakeOpenAI
) -> None:
    with an_ollama() as ollama:
        laptop = Laptop(tmp_path, ollama, mlflow_url)
        laptop.environment |= {"TIPBENCH_JUDGE_BASE_URL": openai.url, "OPENAI_API_KEY": "none"}
        try:
            client = laptop.start()
            asked = {"judge": "llm", "judge_model": "openai:m", "sample": 6, "sample_tips": 1, "n_scenarios": 7}
            faults = problem(client.post("/api/bench/run", json=asked), 422)["errors"]
            assert [fault["pointer"] for fault in faults] == ["/reference"]
            faults = problem(client.post("/api/bench/run", json=asked | {"judge": "manual"}), 422)["errors"]
            assert "/sample" in [fault["pointer"] for fault in faults]
            config = asked | {"reference": "ada", "judge_parallel": "3", "judge_rationale": "none"}
            run_id = _start(client, **config)
            waiting = _until(
                client, run_id, lambda run: run["state"] == "failed" or _at(run, "await_sample") == "waiting"
            )
            assert waiting["state"] == "waiting" and _at(waiting, "judge") == "success", waiting
            assert openai.most_at_once <= 3 and all(
                "rationale" not in str(body.get("response_format")) for body in openai.requests
            )
            judge_all(client, laptop.experiment, "bob", scope="sample")
            assert client.get(f"/api/bench/dag-runs/{run_id}").json()["state"] == "waiting"
            judge_all(client, laptop.experiment, "ada", scope="sample")
            done = _until(client, run_id, lambda run: run["state"] in ("success", "failed"))
            assert done["state"] == "success", done
            with opened(mlflow_url) as store:
                log = laptop.folder / "state" / "tipbench" / "api" / run_id / "compare.log"
                assert store.find_experiment(laptop.experiment) and "what ada would say" in " ".join(
                    log.read_text().split()
                )
        finally:
            laptop.end()


def _at(run: dict[str, Any], task: str) -> str:
    return str(next(t["state"] for t in run["tasks"] if t["task"] == task))


# -- rounds ----------------------------------------------------------------------------------------


def _race(url: str, experiment: str, block: int) -> dict[str, int]:
    """Begin a race over what is there; scenario's situation -> its block."""
    scenarios = load_scenarios()[:6]
    with opened(url) as store:
        experiment_id = store.require_experiment(experiment)
        census = take(store.holdings(experiment_id))
        members = [record.Member(row=r.row.id, model=r.model, prompt=r.prompt) for r in census.rows]
        names = [s.id for s in scenarios]
        race = record.enter(
            store, experiment_id, load_rubric().hash, scenarios=names, members=members, block=block, seed=0
        )
        return {s.situation: race.block_of(s.id) for s in scenarios}


def test_tips_are_handed_out_block_by_block_and_the_judge_learns_when_it_is_decided(
    shared: Server, mlflow_url: str
) -> None:
    experiment, client = "tip-bench-race-panel", shared.client
    fill(mlflow_url, experiment, models=("good:1b", "bad:1b"), n_scenarios=6, n_tips=2)
    block_of = _race(mlflow_url, experiment, 2)
    with opened(mlflow_url) as store:
        cells = store.cells(store.require_experiment(experiment))
        results = store.results([cell.run for cell in cells])
    good = {c.text for cell, r in zip(cells, results, strict=True) for c in r.candidates if cell.model == "good:1b"}
    seen: list[int] = []
    shown: list[tuple[str, str]] = []
    states: list[dict[str, Any]] = []
    while not states or not states[-1]["over"]:
        # Two at once: whoever asks gets the same block.
        body = _next(client, experiment, "ada", limit=3)
        states.append(body["race"])
        assert "good:1b" not in str(body["race"])
        if not body["items"] or body["race"]["over"]:
            break
        other = _next(client, experiment, "bob", limit=1)["items"]
        for item in [*body["items"], *other][:3]:
            # A hidden repeat comes half a file after its first showing, and so in a later block than its own.
            if (item["scenario"], item["tip"]) not in shown:
                seen.append(block_of[item["scenario"]])
            shown.append((item["scenario"], item["tip"]))
            score = 5 if item["tip"] in good else 1
            scores = dict.fromkeys(("relevance", "actionability", "tone"), score)
            # Scores that are all alike have no spread to test by.
            scores["tone"] = max(1, score - len(shown) % 2)
            assert put_scores(client, experiment, item, "ada", scores=scores).status_code == 200
    first_of = defaultdict(list)
    for place, block in enumerate(seen):
        first_of[block].append(place)
    assert seen == sorted(seen), seen
    assert states[0] == {"round": 1, "rounds": 3, "looks_taken": 0, "tips": 8, "judged": 0, "over": False}
    assert states[-1]["looks_taken"] >= 1 and states[-1]["over"], states[-1]


def test_a_chain_of_rounds_on_this_machine_is_one_and_is_cancelled_as_one(quick: Laptop) -> None:
    client = quick.start()
    config = {"until": "sure", "block": 2, "n_scenarios": 4, "models": "small:1b,other:1b", "prompts": "v1"}
    first = _start(client, **config)
    _until(client, first, lambda run: run["state"] in ("waiting", "failed"))
    assert judge_all(client, quick.experiment, "ada") >= 8
    done = _until(client, first, lambda run: run["state"] in ("success", "failed"))
    second = f"{first}__round_2"
    assert done["state"] == "success" and (done["chain"], done["round"]) == (first, 1)
    assert [(one["id"], one["round"]) for one in done["chain_runs"]] == [(first, 1), (second, 2)]
    waiting = _until(client, second, lambda run: run["state"] in ("waiting", "failed"))
    assert (waiting["chain"], waiting["round"]) == (first, 2)
    assert waiting["race"] == {"round": 2, "rounds": 2, "looks_taken": 1, "tips": 8, "judged": 0, "over": False}
    # The first run is over; cancelling it stops what is under way of its chain.
    assert client.post(f"/api/bench/dag-runs/{first}/cancel").status_code == 202
    assert client.get(f"/api/bench/dag-runs/{second}").json()["state"] == "cancelled"
    problem(client.post(f"/api/bench/dag-runs/{first}/cancel"), 409)
    # The same configuration goes on where the chain stopped.
    again = _start(client, **config)
    _until(client, again, lambda run: run["state"] in ("waiting", "failed"))
    apply_file(client, quick.experiment, "ada")
    ended = _until(client, again, lambda run: run["state"] in ("success", "failed"))
    assert ended["state"] == "success" and ended["race"]["over"], ended
    assert client.get("/api/bench/dag-runs").json()["total"] == 3
