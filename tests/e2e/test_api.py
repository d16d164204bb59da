"""The admin API and the panel on the cluster: by requests alone, by an agent with a URL and a token, and by a person in a browser."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.browsing import SCREENSHOTS, judge_all
from tests.e2e.conftest import (
    API,
    SMALL,
    Airflow,
    Mlflow,
    assert_complete,
    kubectl,
    opened_panel,
    run_of,
    secret,
    until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


@pytest.mark.concurrent
def test_by_requests_alone_and_an_agent_with_a_url_and_a_token(
    api: httpx.Client, airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    conf = {**SMALL, "models": "smollm2:135m", "experiment": experiment}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    faulty = api.post("/run", json=conf | {"n_tips": 0}, headers=key)
    assert faulty.status_code == 422 and faulty.json()["errors"][0]["pointer"] == "/n_tips"
    first, again = (api.post("/run", json=conf, headers=key) for _ in range(2))
    assert first.status_code == again.status_code == 202 and first.json()["id"] == again.json()["id"]
    run = first.json()["id"]
    assert [r["id"] for r in api.get("/dag-runs", params={"experiment": experiment}).json()["dag_runs"]] == [run]

    until("it waits for a judge", lambda: run_of(api, run)["state"] == "waiting", timeout=480)
    detail = run_of(api, run)
    assert {t["task"]: t["state"] for t in detail["tasks"]}["await_scores"] == "waiting"
    assert detail["progress"]["finished"] == detail["progress"]["planned"] == 4

    # The agent: the file from its URL, the scored file back to its URL.
    exchange = api.get(f"/judging/{experiment}/export").raise_for_status().json()
    for item in exchange["items"]:
        item["scores"] = {"relevance": 4, "actionability": 2, "tone": 5}
    exchange["judge"] = {"name": "agent-7", "kind": "agent"}
    broken = exchange | {"items": [exchange["items"][0] | {"scores": {"relevance": 9, "actionability": 1, "tone": 1}}]}
    refused = api.post(f"/judging/{experiment}/apply", json=broken)
    assert refused.status_code == 422 and "/items/0/scores/relevance" in refused.text
    applied = api.post(f"/judging/{experiment}/apply", json=exchange).raise_for_status().json()
    assert applied["pending_cells"] == 0

    until("the run goes on by itself", lambda: run_of(api, run)["state"] == "success", timeout=300)
    assert airflow.state(run) == "success"
    board = api.get(f"/leaderboard/{experiment}").raise_for_status()
    assert [c["composite"] for c in board.json()["cells"]] == pytest.approx([11 / 3, 11 / 3])
    assert api.get(f"/leaderboard/{experiment}", headers={"If-None-Match": board.headers["ETag"]}).status_code == 304
    assert_complete(mlflow.cells(experiment), models=1)


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_run_that_is_cancelled_leaves_nothing_behind(
    api: httpx.Client, airflow: Airflow, experiment: str, seconds: float
) -> None:
    """Whatever its task is doing then: on its way from the worker to the triggerer, or watched."""
    conf = {"models": "smollm2:135m", "experiment": experiment, "n_tips": 20}
    run = api.post("/run", json=conf).raise_for_status().json()["id"]
    selector = f"tipbench.dev/experiment={experiment}"
    until("its pod is there", lambda: "pod/" in kubectl("get", "pods", "-l", selector, "-o", "name"), every=0.3)
    time.sleep(seconds)
    answer = api.post(f"/dag-runs/{run}/cancel")
    assert answer.status_code == 202 and answer.json()["state"] == "cancelled", answer.text
    assert api.post(f"/dag-runs/{run}/cancel").status_code == 409
    until("its pod is gone", lambda: "pod/" not in kubectl("get", "pods", "-l", selector, "-o", "name"), timeout=90)
    assert airflow.end(run, timeout=90) == "failed" and run_of(api, run)["state"] == "cancelled"
    assert "pod/" not in kubectl("get", "pods", "-l", selector, "-o", "name")
    until("the replica is free", lambda: not kubectl("get", "leases", "-l", "app.kubernetes.io/part-of=tipbench", "-o",
                                                     "jsonpath={.items[*].spec.holderIdentity}").strip())  # fmt: skip


def test_a_service_that_is_away_is_said_and_comes_back(api: httpx.Client) -> None:
    try:
        kubectl("scale", "deployment/mlflow", "--replicas=0")
        kubectl("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=mlflow,app.kubernetes.io/component=server", "--timeout=90s")  # fmt: skip
        answer = until("a clear answer", lambda: (a := api.get("/experiments")).status_code >= 500 and a, timeout=90)
        assert answer.status_code == 503 and "MLflow" in answer.json()["detail"]
        assert httpx.get(f"{API}/healthz").status_code == 200 and httpx.get(f"{API}/readyz").status_code == 503
    finally:
        kubectl("scale", "deployment/mlflow", "--replicas=1")
    until("it recovers by itself", lambda: api.get("/experiments").status_code == 200, timeout=180)


@pytest.mark.concurrent
def test_from_the_browser_alone(airflow: Airflow, mlflow: Mlflow, experiment: str, browser: Browser) -> None:
    page = opened_panel(browser)
    page.get_by_role("link", name="Run collection").first.click()
    page.get_by_label("Experiment", exact=True).fill(experiment)
    page.locator("[name=models][value='smollm2:135m-brief']").wait_for()  # what Ollama has comes a moment later
    for box in page.locator("[name=models]").all():
        box.set_checked(box.get_attribute("value") in ("smollm2:135m", "smollm2:135m-brief"))
    for prompt in ("v2-mentor", "v3-few-shot"):
        page.locator(f"[name=prompts][value='{prompt}']").uncheck()
    page.get_by_label("Scenarios", exact=True).select_option("2")
    page.get_by_label("Tips per scenario").fill("1")
    page.screenshot(path=SCREENSHOTS / "kind-collect.png", full_page=True)
    page.get_by_role("button", name="Start collection").dblclick()
    page.get_by_role("heading", name=experiment).wait_for()
    page.get_by_text("The tips are ready to be judged").wait_for(timeout=480_000)
    page.screenshot(path=SCREENSHOTS / "kind-run-waiting.png", full_page=True)
    page.get_by_role("link", name="Judge the tips").click()
    page.get_by_label("Your name as judge").fill("ada")
    page.keyboard.press("Enter")
    page.get_by_text("0 of").wait_for()
    judge_all(page)
    page.screenshot(path=SCREENSHOTS / "kind-judge-done.png", full_page=True)

    run = httpx.get(
        f"{API}/api/bench/dag-runs",
        params={"experiment": experiment},
        headers={"Authorization": f"Bearer {secret('tipbench-admin', 'token')}"},
    ).json()["dag_runs"]
    assert len(run) == 1
    assert airflow.end(run[0]["id"]) == "success"
    page.get_by_role("link", name="See the leaderboard").click()
    page.get_by_role("row", name=re.compile("smollm2:135m-brief")).first.wait_for()
    page.locator("figure svg").wait_for()
    page.screenshot(path=SCREENSHOTS / "kind-leaderboard.png", full_page=True)
    assert_complete(mlflow.cells(experiment), models=2, prompts=1, tips=1)
