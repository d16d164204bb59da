"""What a person does in the panel, from logging in to reading the leaderboard, in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import FILLED, MODEL, TOKEN, Panel, Visit, environment, run_to_the_end, serving
from tests.browsing import judge_all, wait_saved

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
Shot = Callable[["Page", str], None]
CRITERIA = ("relevance", "actionability", "tone")


def start(page: Page, experiment: str, *, judge: str = "manual", scenarios: int = 2, tips: int = 1) -> None:
    """Fill the form for a few cells; the caller presses the button."""
    page.get_by_label("Experiment", exact=True).fill(experiment)
    page.locator(f"[name=models][value='{MODEL}']").check()
    page.locator("[name=prompts][value='v3-few-shot']").uncheck()
    page.get_by_label("Scenarios").select_option(str(scenarios))
    page.get_by_label("Tips per scenario").fill(str(tips))
    page.locator(f"[name=judge][value={judge}]").check()


def active(page: Page) -> Locator:
    return page.locator(".criterion.active h3")


# -- the whole way ---------------------------------------------------------------------------------


def test_from_login_to_the_leaderboard(panel: Panel, visit: Visit, shot: Shot) -> None:
    """Log in, collect with the embedded model, watch it, judge every tip with the keyboard, read the ranking, log out."""
    page = visit("", log_in=False)
    page.get_by_label("Admin token").fill("not the token")
    page.keyboard.press("Enter")
    page.get_by_text("This token is not known here").wait_for()
    page.get_by_label("Admin token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Experiments").wait_for()

    page.get_by_role("link", name="Run collection").first.click()
    start(page, "tip-bench-person")
    page.get_by_text("4 tips").first.wait_for()
    shot(page, "collect")
    # Two clicks are one run.
    page.get_by_role("button", name="Start collection").dblclick()
    page.get_by_role("heading", name="tip-bench-person").wait_for()
    shot(page, "run-collecting")
    page.get_by_text("The tips are ready to be judged").wait_for(timeout=300_000)
    shot(page, "run-waiting")
    runs = panel.get("bench/dag-runs?experiment=tip-bench-person").json()
    assert [run["state"] for run in runs["dag_runs"]] == ["waiting"]

    page.get_by_role("link", name="Judge the tips").click()
    page.get_by_label("Your name as judge").fill("ada lovelace")
    page.keyboard.press("Enter")
    page.get_by_text("has no blanks").wait_for()
    page.get_by_label("Your name as judge").fill("ada")
    page.keyboard.press("Enter")
    page.get_by_text("0 of").wait_for()
    assert MODEL not in page.locator("main").inner_text(), "the judge must not see who wrote a tip"
    shot(page, "judge")
    # Four tips, and as many hidden repeats as come: they are not announced.
    assert judge_all(page) >= 4
    shot(page, "judge-done")

    page.get_by_role("link", name="See the leaderboard").click()
    page.get_by_role("heading", name="tip-bench-person").wait_for()
    page.get_by_role("row", name=re.compile("v1")).first.wait_for()
    assert page.get_by_role("heading", name="Ranking").is_visible()
    page.get_by_role("img", name=re.compile("Composite against tokens per second")).wait_for()
    page.get_by_role("link", name=re.compile("v2-mentor")).first.click()
    page.get_by_role("heading", name=f"{MODEL} with v2-mentor").wait_for()
    assert page.locator(".tipcard").count() == 2
    assert "relevance 4" in page.locator(".scores").first.inner_text()
    shot(page, "cell")

    # The waiting run goes on by itself when everything has a score.
    page.goto(f"{panel.url}/#/run/{runs['dag_runs'][0]['id']}")
    page.locator("h1 .pill", has_text="done").wait_for(timeout=120_000)
    shot(page, "run-done")

    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    page.goto(panel.url + "/#/experiments-of-nobody")
    page.get_by_role("heading", name="Log in").wait_for()


def test_after_login_one_is_where_one_wanted_to_be(visit: Visit) -> None:
    page = visit(f"#/leaderboard/{FILLED}", log_in=False)
    page.get_by_text("Log in to go on where you were").wait_for()
    page.get_by_label("Admin token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=FILLED).wait_for()
    assert TOKEN not in page.evaluate("JSON.stringify([location.href, document.cookie, {...localStorage}])")


def test_the_link_that_serve_prints_logs_in_once(tmp_path: Path, browser: Browser, shot: Shot) -> None:
    with serving(tmp_path, environment(tmp_path, str(tmp_path / "store"))) as laptop:
        link = re.search(rf"{laptop.url}/#/login\?token=\S+", laptop.log.read_text())
        assert link is not None, laptop.log.read_text()
        page = browser.new_context().new_page()
        page.goto(link[0])
        page.get_by_text("No experiment yet").wait_for()
        assert "token" not in page.url
        shot(page, "experiments-none")
        stranger = browser.new_context().new_page()
        stranger.goto(link[0])
        stranger.get_by_text("The link was used already").wait_for()
        page.context.close()
        stranger.context.close()


# -- collecting ------------------------------------------------------------------------------------


def test_faults_are_said_at_their_fields(visit: Visit, shot: Shot) -> None:
    page = visit("#/collect")
    page.locator(f"[name=models][value='{MODEL}']").wait_for()
    page.get_by_label("Experiment", exact=True).fill("my experiment")
    page.get_by_label("Tips per scenario").fill("0")
    page.get_by_label("Temperature").fill("")
    page.get_by_role("button", name="Start collection").click()
    page.locator(".notice", has_text="3 fields need another value").wait_for()
    for label in ("Experiment", "Tips per scenario", "Temperature"):
        control = page.get_by_label(label, exact=True)
        assert control.get_attribute("aria-invalid") == "true"
        described = control.get_attribute("aria-describedby").split()  # type: ignore[union-attr]
        assert any(page.locator(f"#{one}.error").count() and page.locator(f"#{one}").inner_text() for one in described)
    assert page.evaluate("document.activeElement.name") == "experiment", "the first field at fault has the focus"
    shot(page, "collect-faults")
    page.get_by_label("Tips per scenario").fill("2")
    page.locator("[name=n_tips]:not([aria-invalid])").wait_for()


def test_a_model_over_the_limit_is_refused_with_both_numbers(visit: Visit) -> None:
    page = visit("#/collect")
    page.get_by_label("Add a model by its tag").fill("llama3.1:8b")
    page.keyboard.press("Enter")
    page.get_by_text("promises 8 billion parameters, over the limit of 4").wait_for()
    assert page.locator("[name=models][value='llama3.1:8b']").is_disabled()


def test_an_answer_that_comes_late_does_not_undo_a_newer_one(visit: Visit) -> None:
    page = visit("")
    held: list[Route] = []
    page.route("**/api/bench/models?*", lambda route: route.fallback() if held else held.append(route))
    page.get_by_role("link", name="Run collection").first.click()
    page.get_by_label("Add a model by its tag").fill("llama3.1:8b")
    page.keyboard.press("Enter")
    refusal = page.get_by_text("promises 8 billion parameters, over the limit of 4")
    refusal.wait_for()
    with page.expect_response(held[0].request.url):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert refusal.is_visible()


def test_a_run_can_be_cancelled(visit: Visit, shot: Shot) -> None:
    page = visit("#/collect")
    start(page, "tip-bench-cancelled", scenarios=0, tips=5)
    page.get_by_role("button", name="Start collection").click()
    page.get_by_role("button", name="Cancel run").click()
    dialog = page.get_by_role("dialog")
    shot(page, "run-cancel")
    page.route("**/cancel", lambda route: refuse(route, "Airflow at http://airflow:8080 does not answer."))
    dialog.get_by_role("button", name="Cancel run").click()
    page.get_by_role("alert").get_by_text("Airflow at http://airflow:8080 does not answer.").wait_for()
    page.unroute("**/cancel")
    page.get_by_role("button", name="Cancel run").click()
    dialog.get_by_role("button", name="Cancel run").click()
    page.locator("h1 .pill", has_text="cancelled").wait_for(timeout=60_000)
    page.get_by_role("link", name="Run again").click()
    page.get_by_role("heading", name="Run collection").wait_for()
    assert page.get_by_label("Experiment", exact=True).input_value() == "tip-bench-cancelled"
    assert page.get_by_label("Tips per scenario").input_value() == "5"


def test_a_start_that_would_collect_nothing_is_not_offered(visit: Visit) -> None:
    page = visit("#/collect")
    page.locator(f"[name=models][value='{MODEL}']:checked").wait_for()
    begin = page.get_by_role("button", name="Start collection")
    assert begin.is_enabled()
    page.locator(f"[name=models][value='{MODEL}']").uncheck()
    page.get_by_text("Choose at least one model").wait_for()
    assert begin.is_disabled()
    page.get_by_label("Add a model by its tag").fill("gone:1b")
    page.keyboard.press("Enter")
    page.get_by_text("None of the chosen models is there").wait_for()
    assert begin.is_disabled()
    page.locator(f"[name=models][value='{MODEL}']").check()
    page.get_by_text("gone:1b is not there. The run goes on without.").wait_for()
    assert begin.is_enabled()


def test_without_the_live_stream_the_page_asks_again(visit: Visit) -> None:
    page = visit("#/collect")
    page.route("**/events", lambda route: route.abort())
    start(page, "tip-bench-polled", judge="baseline", scenarios=1)
    page.get_by_role("button", name="Start collection").click()
    page.locator("h1 .pill", has_text="done").wait_for(timeout=200_000)


# -- judging ---------------------------------------------------------------------------------------


def test_undo_arrows_and_coming_back(panel: Panel, visit: Visit) -> None:
    """A second opinion on an experiment that the baseline judge has scored: undo, look back, leave, resume."""
    page = visit(f"#/judge/{FILLED}?scope=all", judge="grace")
    page.get_by_text("0 of").wait_for()
    first = page.locator(".tip").inner_text()
    assert active(page).inner_text() == "Relevance"
    page.keyboard.press("2")
    assert active(page).inner_text() == "Actionability"
    page.keyboard.press("u")
    assert active(page).inner_text() == "Relevance"
    assert page.locator("[aria-pressed=true]").count() == 0
    page.keyboard.press("ArrowDown")
    page.keyboard.press("5")
    page.keyboard.press("9")  # no such score
    assert page.locator("[data-criterion=actionability] [aria-pressed=true]").inner_text().startswith("5")

    # Half a score survives leaving the page.
    page.reload()
    page.locator("[data-criterion=actionability] [aria-pressed=true]").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("3")
    page.locator(".tip").filter(has_not_text=first).wait_for()
    wait_saved(page)

    # Back to it, another score, and on: the API has the newer one.
    page.keyboard.press("ArrowLeft")
    assert page.locator(".tip").inner_text() == first
    page.keyboard.press("ArrowUp")
    page.keyboard.press("4")
    wait_saved(page)
    found = [score for one in scores_by(panel, "grace") for score in [one["scores"]]]
    assert found == [{"relevance": 4, "actionability": 5, "tone": 3}]

    # Another visit goes on with the next tip, and still knows the last one.
    page.reload()
    page.get_by_text("1 of").wait_for()
    assert page.locator(".tip").inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert page.locator(".tip").inner_text() == first


def scores_by(panel: Panel, judge: str) -> list[dict[str, Any]]:
    """Every score that `judge` gave in the filled experiment."""
    prompts = ("v1", "v2-mentor", "v3-few-shot")
    pages = [panel.get(f"bench/tips/{FILLED}?model={MODEL}&prompt={prompt}").json() for prompt in prompts]
    tips = [tip for page in pages for group in page["groups"] for tip in group["tips"]]
    return [score for tip in tips for score in tip["scores"] if score["judge"] == judge]


def test_scores_wait_for_an_api_that_is_away(panel: Panel, visit: Visit) -> None:
    page = visit(f"#/judge/{FILLED}?scope=all", judge="hedy")
    page.get_by_text("0 of").wait_for()
    page.route("**/items/**", lambda route: route.abort())
    for score in "123":
        page.keyboard.press(score)
    page.get_by_text("Not saved yet").wait_for()
    # The tab is closed and opened again: what was scored is sent now.
    page.unroute("**/items/**")
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("about:blank")
    page.goto(f"{panel.url}/#/judge/{FILLED}?scope=all")
    wait_saved(page)
    deadline = time.monotonic() + 10
    while not scores_by(panel, "hedy") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [one["scores"] for one in scores_by(panel, "hedy")] == [{"relevance": 1, "actionability": 2, "tone": 3}]


def test_a_question_mark_shows_the_keys_and_words_go_with_the_scores(visit: Visit) -> None:
    from playwright.sync_api import expect

    page = visit(f"#/judge/{FILLED}?scope=all", judge="rosa")
    page.get_by_text("0 of").wait_for()
    total = page.get_by_text(re.compile(r"^0 of \d+ tips")).inner_text().split()[2]
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    keys.get_by_text("undo the last score").wait_for()
    page.keyboard.press("4")  # not a score while the dialog is open
    page.keyboard.press("Escape")
    keys.wait_for(state="detached")
    assert page.locator("[aria-pressed=true]").count() == 0

    page.keyboard.press("r")
    page.keyboard.type("5 words, and none of them helps?")  # neither scores nor opens anything
    page.keyboard.press("Escape")
    assert page.locator("[aria-pressed=true]").count() == 0
    with page.expect_request(lambda request: request.method == "PUT") as put:
        for score in "121":
            page.keyboard.press(score)
    sent = put.value.post_data_json
    assert sent["rationale"] == "5 words, and none of them helps?" and sent["scores"]["actionability"] == 2
    assert put.value.response().status == 200  # type: ignore[union-attr]
    page.get_by_text(f"1 of {total} tips scored by you").wait_for()
    # The next tip, which comes a moment later, has words of its own.
    expect(page.locator("#rationale")).to_have_value("")


def test_a_file_goes_out_to_an_agent_and_comes_back(visit: Visit, tmp_path: Path) -> None:
    page = visit(f"#/judge/{FILLED}?scope=all", judge="agent-x")
    page.get_by_text("Judge with an agent, or offline").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the file").click()
    file = tmp_path / "judge.json"
    download.value.save_as(file)
    exchange = json.loads(file.read_text())
    exchange["judge"] = {"name": "agent-x", "kind": "agent"}
    for item in exchange["items"]:
        item["scores"] = dict.fromkeys(CRITERIA, 6)
    file.write_text(json.dumps(exchange))
    page.get_by_label("Apply a scored file").set_input_files(file)
    page.locator(".notice.bad", has_text="Nothing was written").wait_for()
    page.get_by_text("/items/0/scores/relevance").wait_for()
    for item in exchange["items"]:
        item["scores"] = dict.fromkeys(CRITERIA, 4)
    file.write_text(json.dumps(exchange))
    page.get_by_label("Apply a scored file").set_input_files(file)
    page.locator(".notice.good", has_text=f"{len(exchange['items'])} new scores").wait_for()


def test_a_tip_is_text_whatever_it_says(visit: Visit) -> None:
    evil = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script> {{7*7}}"

    def spoil(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["items"][0]["tip"] = evil
        route.fulfill(response=answer, body=json.dumps(body))

    page = visit("", judge="iris")
    page.route("**/next?**", spoil)
    page.evaluate(f"location.hash = '#/judge/{FILLED}?scope=all'")
    page.locator(".tip").wait_for()
    assert page.locator(".tip").inner_text() == evil
    assert page.locator(".tip *").count() == 0
    assert page.title() != "broken"


# -- what counts -----------------------------------------------------------------------------------


def test_the_status_says_what_is_judged_by_whom_and_what_waits(visit: Visit) -> None:
    page = visit(f"#/leaderboard/{FILLED}")
    page.get_by_role("navigation", name=FILLED).get_by_role("link", name="Status").click()
    page.locator("[data-count=counted] dd", has_text="12 tips").wait_for()
    # The baseline has scored everything, and stands for nobody.
    assert page.get_by_role("row", name=re.compile("^baseline")).inner_text().split()[-2:] == ["6", "12"]
    page.get_by_label("Judged by").select_option("baseline")
    page.locator("[data-count=judged] dd", has_text="6").wait_for()
    assert page.locator("[data-count=pending] dd").inner_text() == "0"


def test_the_same_names_with_other_options_are_rows_of_their_own(panel: Panel, visit: Visit) -> None:
    experiment = "tip-bench-warm-and-cold"
    for temperature in (0.1, 1.2):
        run_to_the_end(
            panel,
            experiment=experiment,
            models=MODEL,
            prompts="v1",
            n_scenarios=1,
            n_tips=1,
            temperature=temperature,
            judge="baseline",
        )
    page = visit(f"#/leaderboard/{experiment}")
    rows = page.get_by_role("region", name="Ranking").locator("tbody tr").filter(has_text=MODEL)
    rows.first.wait_for()
    said = rows.all_inner_texts()
    assert len(said) == 2 and sorted("0.1" in one for one in said) == sorted("1.2" in one for one in said) == [
        False,
        True,
    ]
    tips = set()
    for n in range(2):
        page.goto(f"{panel.url}/#/leaderboard/{experiment}")
        rows.nth(n).get_by_role("link").click()
        page.locator(".tipcard blockquote").wait_for()
        assert page.locator(".tipcard").count() == 1
        tips.add(page.locator(".tipcard blockquote").inner_text())
    assert len(tips) == 2, "each row leads to what it wrote"


# -- when something is in the way ------------------------------------------------------------------


def refuse(route: Route, reason: str) -> None:
    """Answer as the API does when something behind it is away."""
    body = {"type": "urn:x", "title": "Away", "status": 503, "detail": reason, "instance": "urn:x", "errors": []}
    route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(body))


def test_a_list_that_cannot_be_renewed_says_so(visit: Visit) -> None:
    page = visit("")
    page.get_by_role("link", name=FILLED).first.wait_for()
    page.route("**/bench/experiments", lambda route: refuse(route, "MLflow at http://mlflow:5000 does not answer."))
    page.get_by_text("This may be out of date").wait_for()
    page.unroute("**/bench/experiments")
    page.get_by_text("This may be out of date").wait_for(state="detached")


def test_what_cannot_be_shown_says_what_to_do(panel: Panel, visit: Visit, shot: Shot) -> None:
    page = visit("#/leaderboard/tip-bench-nobody-knows")
    page.get_by_text("tip-bench-nobody-knows").first.wait_for()
    page.get_by_role("link", name="Experiments").first.wait_for()
    page.goto(f"{panel.url}/#/nowhere")
    page.get_by_text("There is no such page").first.wait_for()

    reason = "MLflow at http://mlflow:5000 does not answer."
    page.route("**/leaderboard/**", lambda route: refuse(route, reason))
    page.goto(f"{panel.url}/#/leaderboard/{FILLED}")
    page.get_by_text(reason).wait_for()
    shot(page, "away")
    page.unroute("**/leaderboard/**")
    page.get_by_role("heading", name="Ranking").wait_for()  # by itself


def test_an_expired_session_leads_to_the_login_and_back(visit: Visit) -> None:
    page = visit(f"#/leaderboard/{FILLED}")
    page.context.clear_cookies()
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Compare").click()
    page.get_by_text("Log in to go on where you were").wait_for()
    page.get_by_label("Admin token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Compare two experiments").wait_for()


def test_logging_out_ends_the_session_even_after_another_login(panel: Panel, visit: Visit) -> None:
    """The page's CSRF token is an older session's by then; it fetches the new one."""
    page = visit("")
    assert page.context.request.post(f"{panel.url}/api/session", data={"token": TOKEN}).ok
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    assert page.context.request.get(f"{panel.url}/api/session").status == 401


def test_the_theme_is_remembered(visit: Visit) -> None:
    page = visit("")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Use the dark theme").click()
    dark = page.evaluate(ground)
    page.reload()
    page.get_by_role("button", name="Use the light theme").wait_for()
    assert page.evaluate(ground) == dark != light


def test_a_table_is_checked_then_imported(visit: Visit, tmp_path: Path) -> None:
    head = "model,prompt,scenario,text,judge,judge_kind,relevance,actionability,tone"
    rows = [f"m{m},p,s{s},Tip {m} {s}.,ann,human,{2 + 2 * m},3,4" for m in range(2) for s in range(3)]
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("\n".join([head, *rows]))
    bad.write_text("\n".join([head, rows[0].replace(",4", ",9")]))
    page = visit("")
    page.get_by_role("link", name="Import").click()
    page.get_by_label("Experiment").fill("tip-bench-imported")
    page.get_by_label("Table").set_input_files(bad)
    page.get_by_role("button", name="Import").click()
    page.get_by_text("line 2, tone: '9' is outside the scale of 1 to 5").wait_for()
    page.get_by_label("Table").set_input_files(good)
    page.get_by_role("button", name="Check only").click()
    page.get_by_text("It would bring").wait_for()
    page.get_by_role("button", name="Import").click()
    page.get_by_role("link", name="See the leaderboard").click()
    page.get_by_role("heading", name="tip-bench-imported").wait_for()
    page.get_by_role("link", name="Download Scores").wait_for()
