"""Judges and rounds on the cluster: an LLM for everything and a person for a sample; a chain of runs that outlives the scheduler; a race in the panel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.browsing import SCREENSHOTS
from tests.e2e.conftest import API, Airflow, Mlflow, assert_complete, kubectl, opened_panel, run_of, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
TWO = "smollm2:135m,smollm2:135m-brief"
RACE = {"models": TWO, "prompts": "v1", "n_tips": 1, "num_predict": 32, "until": "sure", "block": 2, "n_scenarios": 4}
"""At most two rounds of four tips."""


def chain_of(api: httpx.Client, run: str) -> list[dict[str, Any]]:
    """The runs of a chain, by round."""
    return run_of(api, run)["chain_runs"]


def score(page: Page, total: int, says: str) -> None:
    """Score `total` tips with the keyboard, not all alike; `says` is the line that counts, with `{}` for how many."""
    for number in range(1, total + 1):
        page.locator(".criterion.active h3", has_text="Relevance").wait_for()
        for key in ("3", "2" if number % 3 == 1 else "4", "4" if number % 2 else "3"):
            page.keyboard.press(key)
        page.get_by_text(re.compile(says.format(number))).first.wait_for()


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
    page.get_by_text("0 of 12 tips of the sample").first.wait_for()
    page.screenshot(path=SCREENSHOTS / "kind-sample.png", full_page=True)
    score(page, 12, "^{} of 12 tips of the sample")
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
    score(page, 4, "^(Round 1 of at most 2: )?{} of 4 tips|Every tip has a score")

    second = f"{run}__round_2"
    until("the second round waits for ann", lambda: [one["state"] for one in chain_of(api, run)] == ["success", "waiting"],
          timeout=480)  # fmt: skip
    page.goto(f"{API}/#/run/{run}")
    page.get_by_text("The chain goes on with round 2").wait_for()
    page.get_by_role("link", name="Round 2").click()
    page.get_by_text(re.compile(r"Round 2 of at most 2 · \d of 8 tips judged")).wait_for()
    page.screenshot(path=SCREENSHOTS / "kind-round-2.png", full_page=True)
    page.get_by_role("link", name="Judge the tips").click()
    page.get_by_text(re.compile("Round 2 of at most 2")).first.wait_for()
    score(page, 4, "{} of 4 tips|Every tip has a score|You can stop here")
    assert airflow.end(second) == "success"
    assert [one["state"] for one in chain_of(api, run)] == ["success", "success"]
    assert_complete(mlflow.cells(experiment), models=2, scenarios=4, prompts=1, tips=1)
    board = api.get(f"/leaderboard/{experiment}").raise_for_status().json()
    assert [(j["name"], j["kind"]) for j in board["judges"]] == [("ann", "human")] and board["race"]["stop"] is not None
