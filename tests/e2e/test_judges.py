"""Judges and rounds on the cluster: an LLM for everything and a person for a sample; a chain of runs that outlives the scheduler; a race in the panel."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.browsing import SCREENSHOTS, wait_saved
from tests.e2e.conftest import (
    API,
    SMALL,
    Airflow,
    Mlflow,
    applied,
    assert_complete,
    collecting,
    kubectl,
    opened_panel,
    restored,
    run_of,
    until,
    upgrade,
)
from tests.fakes.openai_server import SCORES, FakeOpenAI

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
TWO = "smollm2:135m,smollm2:135m-brief"
RACE = {"models": TWO, "prompts": "v1", "n_tips": 1, "num_predict": 32, "until": "sure", "block": 2, "n_scenarios": 4}
"""At most two rounds of four tips."""


def chain_of(api: httpx.Client, run: str) -> list[dict[str, Any]]:
    """The runs of a chain, by round."""
    return run_of(api, run)["chain_runs"]


def host_of_the_cluster() -> str:
    """The address at which this machine is reached from kind's nodes."""
    network = subprocess.run(["docker", "network", "inspect", "kind"], capture_output=True, text=True, check=True)
    gateways = [config.get("Gateway", "") for config in json.loads(network.stdout)[0]["IPAM"]["Config"]]
    return next(address for address in gateways if "." in address)


def score_all(page: Page) -> int:
    """Score every tip that the page hands out with the keyboard, not all alike; returns how many there were."""
    end = page.get_by_text(re.compile(r"^(Every tip has a score|Round \d is scored|You have scored the sample)$")).first
    number = 0
    while True:
        page.locator(".criterion.active h3", has_text="Relevance").or_(end).first.wait_for()
        if end.is_visible():
            wait_saved(page)
            return number
        number += 1
        tip = page.locator("blockquote.tip").inner_text()
        for key in ("3", "2" if number % 3 == 1 else "4", "4" if number % 2 else "3"):
            page.keyboard.press(key)
        page.locator("blockquote.tip", has_text=tip).wait_for(state="detached")


@pytest.mark.concurrent
def test_an_llm_judges_everything_and_a_person_the_sample(
    api: httpx.Client, airflow: Airflow, mlflow: Mlflow, experiment: str, browser: Browser
) -> None:
    conf = {
        "models": TWO,
        "prompts": "v1",
        "n_tips": 1,
        "num_predict": 32,
        "n_scenarios": 6,
        "experiment": experiment,
        "judge": "llm",
        "judge_model": "ollama:smollm2:135m",
        "judge_rationale": "none",
        "sample": 6,
        "sample_tips": 1,
        "reference": "ann",
    }
    short = api.post("/run", json=conf | {"sample": 5})
    assert short.status_code == 422 and short.json()["errors"][0]["pointer"] == "/sample"
    run = api.post("/run", json=conf).raise_for_status().json()["id"]
    until("the sample waits, and the LLM is done", lambda: (t := airflow.tasks(run)).get("judge") == "success"
          and t.get("await_sample") == "up_for_reschedule", timeout=600)  # fmt: skip
    assert_complete(mlflow.cells(experiment), models=2, scenarios=6, prompts=1, tips=1)
    status = api.get(f"/status/{experiment}").raise_for_status().json()
    assert [(judge["kind"], judge["judged"]) for judge in status["judges"]] == [("llm", 12)]
    before = api.get(f"/leaderboard/{experiment}").raise_for_status().json()
    assert before["reference"] is None and "opinion of ollama:smollm2:135m" in before["headline"]

    page = opened_panel(browser)
    page.goto(f"{API}/#/run/{run}")
    page.get_by_role("link", name="Score the sample").click()
    page.get_by_label("Your name as judge").fill("ann")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"0 of \d+ tips of the sample")).first.wait_for()
    page.screenshot(path=SCREENSHOTS / "kind-sample.png", full_page=True)
    assert score_all(page) >= 12
    page.get_by_text("You have scored the sample").wait_for()

    assert airflow.end(run) == "success"
    page.get_by_role("link", name="See your leaderboard").click()
    page.get_by_text(re.compile("That is what ann would say")).wait_for()
    page.screenshot(path=SCREENSHOTS / "kind-reference.png", full_page=True)
    board = api.get(f"/leaderboard/{experiment}", params={"reference": "ann"}).raise_for_status().json()
    assert board["reference"]["judges"] == ["ann"] and board["reference"]["n_scenarios"] == 6
    by_name = {judge["name"].split("@")[0]: judge for judge in board["judges"]}
    assert by_name["ollama:smollm2:135m"]["bias"]["cells"], by_name
    # What the DAG's own board says is the same.
    stored = mlflow.runs(experiment, "tags.`tipbench.kind` = 'leaderboard'")[0]
    assert b'"ann"' in mlflow.artifact(stored, "leaderboard.json")


def test_a_chain_of_rounds_outlives_airflows_scheduler(
    api: httpx.Client, airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    run = api.post("/run", json={**RACE, "judge": "baseline", "experiment": experiment}).raise_for_status().json()["id"]
    airflow.until_task(run, "compare", {"success"}, timeout=480)
    kubectl("delete", "pod", "-l", "app.kubernetes.io/component=scheduler", "--grace-period=0", "--force")

    second = f"{run}__round_2"
    until("the second round is there", lambda: second in [one["id"] for one in chain_of(api, run)], timeout=480)
    assert [airflow.end(one, timeout=600) for one in (run, second)] == ["success", "success"]
    chain = chain_of(api, second)
    assert [(one["id"], one["round"], one["state"]) for one in chain] == [(run, 1, "success"), (second, 2, "success")]
    assert_complete(mlflow.cells(experiment), models=2, scenarios=4, prompts=1, tips=1)
    # The horizon is used up, or the answer was sure: nothing is triggered any more.
    assert airflow.tasks(second)["next_round"] == "skipped"
    board = api.get(f"/leaderboard/{experiment}").raise_for_status().json()
    assert board["race"]["looks_taken"] == 2, board["race"]
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        airflow.state(f"{run}__round_3")


@pytest.mark.concurrent
def test_a_person_judges_round_by_round_in_the_panel(
    api: httpx.Client, airflow: Airflow, mlflow: Mlflow, experiment: str, browser: Browser
) -> None:
    run = api.post("/run", json={**RACE, "experiment": experiment}).raise_for_status().json()["id"]
    page = opened_panel(browser)
    page.goto(f"{API}/#/run/{run}")
    page.get_by_role("link", name="Judge the tips").wait_for(timeout=480_000)
    page.screenshot(path=SCREENSHOTS / "kind-round-1.png", full_page=True)
    page.get_by_role("link", name="Judge the tips").click()
    page.get_by_label("Your name as judge").fill("ann")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile("Round 1 of at most 2: 0 of 4 tips")).wait_for()
    words = page.locator("main").inner_text()
    assert "smollm2" not in words
    assert score_all(page) >= 4

    second = f"{run}__round_2"
    until("the second round waits for ann", lambda: [one["state"] for one in chain_of(api, run)] == ["success", "waiting"],
          timeout=480)  # fmt: skip
    page.goto(f"{API}/#/run/{run}")
    page.get_by_text("The chain goes on with round 2").wait_for()
    page.get_by_role("link", name="Go to round 2").click()
    page.get_by_text(re.compile(r"Round 2 of at most 2 · 0 of 4 tips judged")).wait_for()
    page.screenshot(path=SCREENSHOTS / "kind-round-2.png", full_page=True)
    page.get_by_role("link", name="Judge the tips").click()
    page.get_by_text(re.compile("Round 2 of at most 2: 0 of 4 tips")).wait_for()
    assert score_all(page) >= 4
    assert airflow.end(second) == "success"
    assert [one["state"] for one in chain_of(api, run)] == ["success", "success"]
    assert_complete(mlflow.cells(experiment), models=2, scenarios=4, prompts=1, tips=1)
    board = api.get(f"/leaderboard/{experiment}").raise_for_status().json()
    assert [(j["name"], j["kind"]) for j in board["judges"]] == [("ann", "human")] and board["race"]["stop"] is not None


def test_a_tip_that_the_llm_cannot_score_does_not_keep_the_others_from_being_ranked(
    api: httpx.Client, airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    """The judge is a server beside the cluster, named by a Secret as a provider's is; of one tip it makes nothing."""
    refused: set[str] = set()

    def answer(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        refused.update({asked} if not refused else ())
        return "I would rather not say." if asked in refused else SCORES

    server = FakeOpenAI(content=answer).start(host="0.0.0.0")
    assert server.httpd is not None
    url = f"http://{host_of_the_cluster()}:{server.httpd.server_address[1]}/v1"
    key = {"OPENAI_API_KEY": "sk-a-key-for-tests", "TIPBENCH_JUDGE_BASE_URL": url}
    theirs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "their-judge"}, "stringData": key}
    conf = {"models": TWO, "prompts": "v1", "n_tips": 1, "num_predict": 32, "n_scenarios": 2, "experiment": experiment}
    try:
        with applied(theirs), restored():
            upgrade({"stages": {"judge": {"existingSecret": "their-judge"}}})
            until("the API is back", lambda: api.get("/experiments").status_code == 200)
            body = {**conf, "judge": "llm", "judge_model": "openai:m"}
            run = api.post("/run", json=body).raise_for_status().json()["id"]
            assert airflow.end(run) == "success"
    finally:
        server.stop()
    assert airflow.tasks(run)["judge"] == "success" and "could not be scored" in airflow.log(run, "judge")
    assert {value for one in server.headers for name, value in one.items() if name.lower() == "authorization"} == {
        "Bearer sk-a-key-for-tests"
    }
    status = api.get(f"/status/{experiment}").raise_for_status().json()
    assert (status["cells"], status["counted"], status["judged"]) == (4, 4, 3), status
    board = api.get(f"/leaderboard/{experiment}").raise_for_status().json()
    assert [cell["n_judged"] for cell in board["cells"]].count(0) == 0, board["cells"]


@pytest.mark.concurrent
def test_cells_that_two_collectors_made_are_judged_once(
    api: httpx.Client, airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    """A job by hand and the DAG, each with a journal of its own, at the same time: nothing pends that nobody can judge."""
    job = f"twin-{experiment[-5:]}"
    conf = {**SMALL, "models": "smollm2:135m", "experiment": experiment}
    collecting(job, experiment)
    run = airflow.trigger(**conf)
    airflow.until_task(run, "await_scores", {"up_for_reschedule"}, timeout=480)
    kubectl("wait", "--for=condition=complete", f"job/{job}", "--timeout=300s")
    kubectl("delete", "job", job)
    status = api.get(f"/status/{experiment}").raise_for_status().json()
    assert status["counted"] == status["pending"] == 4 and status["cells"] == 4 + status["twins"], status
    exchange = api.get(f"/judging/{experiment}/export").raise_for_status().json()
    for item in exchange["items"]:
        item["scores"] = {"relevance": 4, "actionability": 2, "tone": 5}
    exchange["judge"] = {"name": "agent-7", "kind": "agent"}
    assert api.post(f"/judging/{experiment}/apply", json=exchange).raise_for_status().json()["pending_cells"] == 0
    assert airflow.end(run) == "success"
    assert {c["tags"]["judge_pending"] for c in mlflow.cells(experiment) if c["status"] == "FINISHED"} == {"false"}
    board = api.get(f"/leaderboard/{experiment}").raise_for_status().json()
    assert [cell["coverage"] for cell in board["cells"]] == [1.0, 1.0]
