"""Score a sample by keyboard and see the board become one's own; a race while one judges; a chain of runs shown as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.browser.conftest import TOKEN, Panel, Visit, environment, serving
from tests.integration.api.conftest import apply_file, fill, opened
from tipbench.catalog import load_rubric, load_scenarios
from tipbench.counting.census import take
from tipbench.rounds import record

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
Shot = Callable[["Page", str], None]
SAMPLED, RACE = "tip-bench-sampled", "tip-bench-raced"
SCENARIOS = 8


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory, panel_store: str) -> Iterator[Panel]:
    """Two experiments that nobody has to collect: one that an agent has scored whole, and one in rounds."""
    folder = tmp_path_factory.mktemp("sampled")
    (folder / "tokens").mkdir()
    (folder / "tokens" / "browser").write_text(TOKEN)
    fill(panel_store, SAMPLED, models=("one:1b", "two:1b"), n_scenarios=SCENARIOS, n_tips=2)
    fill(panel_store, RACE, models=("good:1b", "bad:1b"), n_scenarios=4, n_tips=1)
    with opened(panel_store) as store:
        found = store.require_experiment(RACE)
        rows = take(store.holdings(found)).rows
        members = [record.Member(row=r.row.id, model=r.model, prompt=r.prompt) for r in rows]
        names = [s.id for s in load_scenarios()[:4]]
        record.enter(store, found, load_rubric().hash, scenarios=names, members=members, block=2, seed=0)
    with serving(folder, environment(folder, panel_store) | {"TIPBENCH_TOKENS_DIR": str(folder / "tokens")}) as server:
        _score_all(server, SAMPLED, "robot")
        yield server


def _score_all(panel: Panel, experiment: str, judge: str, lenient: int = 0) -> None:
    """Apply a file of this judge, an agent, for the whole experiment: from 2 to 4 by the tip's text, and so many points more lenient."""

    def scores(item: dict[str, Any]) -> dict[str, int]:
        text = sum(map(ord, item["tip"]))
        return {c: 2 + (text + k) % 3 + lenient for k, c in enumerate(item["scores"])}

    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=panel.url, headers=headers, timeout=60) as client:
        apply_file(client, experiment, judge, kind="agent", scores=scores)


@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_choosing_a_sample_says_which_difference_it_would_detect(
    panel: Panel, visit: Visit, shot: Shot, phone: bool
) -> None:
    def said(scenarios: int, tips: int) -> dict[str, Any]:
        answer = panel.get(f"bench/judging/{SAMPLED}/sample/plan?scenarios={scenarios}&tips={tips}")
        body: dict[str, Any] = answer.json()
        return body

    page = visit(f"#/judge/{SAMPLED}?scope=sample", phone=phone)
    first = said(8, 2)
    page.get_by_text(f"{first['n_tips']} tips to score.").wait_for()
    page.get_by_text(first["words"]).wait_for()
    assert "80% chance" in first["words"] and f"{first['difference']:.2f} points behind" in first["words"]
    page.get_by_label("Scenarios").fill("6")
    fewer = said(6, 2)
    assert fewer["difference"] > first["difference"]
    page.get_by_text(fewer["words"]).wait_for()
    shot(page, f"sample-detects{'-phone' if phone else ''}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # What cannot be drawn is not answered with an old figure.
    page.get_by_label("Scenarios").fill("9")
    page.get_by_text("tips to score").wait_for(state="detached")
    # On the judge's own page it is worked out once the part is unfolded.
    page.evaluate("localStorage.setItem('tipbench.judge', 'ada')")
    page.goto(f"{panel.url}/#/judge/{SAMPLED}?scope=all")
    page.locator("summary", has_text="Score a sample").click()
    page.get_by_text(first["words"]).wait_for()


def test_a_cells_page_has_the_figures_of_the_board_that_led_there(panel: Panel, visit: Visit, shot: Shot) -> None:
    experiment = "tip-bench-opinions"
    fill(panel.store, experiment, models=("one:1b", "two:1b"), n_scenarios=6, n_tips=3)
    _score_all(panel, experiment, "robot")
    _score_all(panel, experiment, "ann", lenient=1)
    place = f"bench/leaderboard/{experiment}"
    theirs = panel.get(f"{place}?reference=ann").json()["cells"]
    plain = {c["model"]: c for c in panel.get(place).json()["cells"]}
    assert all(f"{c['composite']:.2f}" != f"{plain[c['model']]['composite']:.2f}" for c in theirs)

    def composite(page: Page) -> str:
        figure = page.locator(".stats > div", has=page.get_by_text("Composite", exact=True))
        return figure.locator("dd").inner_text().splitlines()[0]

    page = visit(f"#/leaderboard/{experiment}?reference=ann")
    page.get_by_role("table", name="Ranking").or_(page.locator("[aria-labelledby=ranking] table")).first.wait_for()
    page.locator("[aria-labelledby=ranking] a.celllink", has_text=theirs[1]["model"]).first.click()
    page.get_by_text("Figures by reference: ann.").wait_for()
    assert composite(page).startswith(f"{theirs[1]['composite']:.2f}")
    shot(page, "cell-reference")
    page.locator("main").get_by_role("link", name=experiment).click()
    page.get_by_text(re.compile("That is what ann would say")).wait_for()
    assert page.url.endswith(f"#/leaderboard/{experiment}?reference=ann")
    # The older versions' board is by the same references.
    page.get_by_role("link", name="Older versions").click()
    page.get_by_text("Only what counts now").wait_for()
    assert page.get_by_label("ann").is_checked() and "versions=all" in page.url
    # Without references, and with some that the API refuses, the page says so and has the plain figures.
    page = visit(f"#/cell/{experiment}?model={theirs[1]['model']}&prompt=v1")
    assert composite(page).startswith(f"{plain[theirs[1]['model']]['composite']:.2f}")
    assert not page.get_by_text("Figures by reference").count()
    page = visit(f"#/cell/{experiment}?model={theirs[1]['model']}&prompt=v1&reference=nobody")
    page.locator(".notice", has_text="The figures are without reference judges").wait_for()
    assert composite(page).startswith(f"{plain[theirs[1]['model']]['composite']:.2f}")


def test_a_person_scores_a_sample_by_keyboard_and_the_board_becomes_theirs(
    panel: Panel, visit: Visit, shot: Shot
) -> None:
    page = visit(f"#/leaderboard/{SAMPLED}", judge="ada")
    page.get_by_text("That is the opinion of robot.").wait_for()
    page.get_by_role("link", name="Score a sample").click()
    page.get_by_label("Scenarios").fill("5")
    page.keyboard.press("Enter")
    page.locator(".error", has_text=re.compile("greater than or equal to 6|at least 6")).wait_for()
    page.get_by_label("Scenarios").fill("6")
    page.get_by_label("Tips of each cell").fill("1")
    shot(page, "sample-draw")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"0 of \d+ tips of the sample scored by you")).wait_for()
    shot(page, "sample-judge")
    total = int(page.get_by_text(re.compile(r"^0 of \d+ tips of the sample")).inner_text().split()[2])
    for number in range(1, total + 1):
        page.locator(".criterion.active h3", has_text="Relevance").wait_for()
        # Now and then another score, or there would be no spread.
        for score in ("3", "2" if number % 3 == 1 else "4", "4" if number % 2 else "3"):
            page.keyboard.press(score)
        page.get_by_text(re.compile(rf"^{number} of {total} tips of the sample")).wait_for()
    page.get_by_text("You have scored the sample").wait_for()
    assert total >= 12
    page.get_by_role("link", name="See your leaderboard").click()
    page.get_by_text(re.compile("That is what ada would say")).wait_for()
    assert page.get_by_label("ada").is_checked()
    page.get_by_role("heading", name=re.compile(r"robot: [+−]\d\.\d\d points")).wait_for()
    beyond = page.get_by_role("region", name="Bias of robot").get_by_role("row")
    assert beyond.count() == 3 and " to " in beyond.nth(1).inner_text()
    figures = page.locator(".stats", has_text="References").first.inner_text()
    assert "on a sample drawn at random" in figures and "6 scenarios" in figures and "λ = " in figures
    shot(page, "leaderboard-reference")
    board = panel.get(f"bench/leaderboard/{SAMPLED}?reference=ada").json()
    assert page.locator(".headline").inner_text() == board["headline"]
    # Nobody's opinion is anybody's by default.
    page.get_by_label("ada").uncheck()
    page.get_by_text("That is the opinion of").wait_for()
    assert "reference" not in page.url


def test_references_that_the_api_refuses_are_said_and_the_board_stays(visit: Visit) -> None:
    page = visit(f"#/leaderboard/{SAMPLED}?reference=nobody")
    page.locator(".notice", has_text="The board is without reference judges").wait_for()
    page.get_by_text("That is the opinion of").wait_for()


def test_a_judge_learns_how_far_the_race_is_and_when_to_stop_but_not_who_leads(
    panel: Panel, visit: Visit, shot: Shot
) -> None:
    client = httpx.Client(base_url=panel.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
    with opened(panel.store) as store:
        cells = store.cells(store.require_experiment(RACE))
        results = store.results([cell.run for cell in cells])
        good = {c.text for cell, r in zip(cells, results, strict=True) for c in r.candidates if cell.model == "good:1b"}
    page = visit(f"#/judge/{RACE}", judge="ada")
    page.get_by_text(re.compile("Round 1 of at most 2: 0 of 4 tips")).wait_for()
    stop = page.get_by_text("You can stop here: the decision is made")
    for _ in range(12):
        page.locator(".criterion.active").or_(stop).first.wait_for()
        if stop.is_visible() or not page.locator("blockquote.tip").count():
            break
        tip = page.locator("blockquote.tip").inner_text()
        for score in ("5", "5", "4") if tip in good else ("1", "1", "2"):
            page.keyboard.press(score)
        page.locator("blockquote.tip", has_text=tip).wait_for(state="detached")
    stop.wait_for()
    words = page.locator("main").inner_text()
    assert "good:1b" not in words and "bad:1b" not in words
    shot(page, "race-stop")
    state = client.get(f"/api/bench/judging/{RACE}/next", params={"judge": "ada"}).json()["race"]
    assert state["over"]
    page.goto(f"{panel.url}/#/leaderboard/{RACE}")
    page.get_by_role("heading", name="The race").wait_for()
    page.get_by_role("img", name=re.compile("over the looks")).wait_for()
    shot(page, "leaderboard-race")


def _run(number: int, state: str, **more: Any) -> dict[str, Any]:
    first = "api-chain"
    ids = {n: first if n == 1 else f"{first}__round_{n}" for n in (1, 2)}
    return {
        "id": ids[number],
        "experiment": RACE,
        "state": state,
        "config": {"until": "sure", "models": "one:1b", "prompts": "v1"},
        "chain": first,
        "round": number,
        "judge": "manual",
        "tasks": [],
        "chain_runs": [
            {"id": ids[1], "round": 1, "state": "success"},
            {"id": ids[2], "round": 2, "state": "waiting"},
        ],
        "race": {"round": 2, "rounds": 6, "looks_taken": 1, "tips": 16, "judged": 4, "over": False},
        **dict.fromkeys(
            ("started_by", "queued_at", "ended_at", "airflow_url", "mlflow_url", "progress", "reason", "degraded")
        ),
        "started_at": "2026-11-24T20:50:00Z",
        **more,
    }


def test_a_chain_is_one_with_links_and_is_cancelled_as_one(visit: Visit, shot: Shot) -> None:
    """The API's part is in tests/integration/api; here its answers are made."""
    page = visit("#/")
    second = _run(2, "waiting")
    first = _run(1, "success", ended_at="2026-11-24T21:50:00Z")
    cancelled: list[str] = []

    def answer(route: Any) -> None:
        url = route.request.url
        if url.endswith("/events"):
            return route.abort()
        if url.endswith("/cancel"):
            cancelled.append(url.split("/")[-2])
            for one in (first, second):
                one["chain_runs"][1]["state"] = "cancelled"
        return route.fulfill(json=second if "__round_2" in url else first)

    page.route("**/api/bench/dag-runs/**", answer)
    page.evaluate("location.hash = '#/run/api-chain__round_2'")
    page.get_by_text("Round 2 of at most 6 · 4 of 16 tips judged").wait_for()
    shot(page, "run-chain")
    page.get_by_role("link", name="Round 1").click()
    page.get_by_text("The chain goes on with round 2").wait_for()
    page.get_by_role("button", name="Cancel the chain").click()
    page.locator("dialog").get_by_role("button", name="Cancel the chain").click()
    page.locator("#cancel").wait_for(state="detached")
    assert cancelled == ["api-chain"]
