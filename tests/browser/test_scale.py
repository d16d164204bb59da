"""A rubric with another scale: every page takes it from there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.browser.conftest import FILLED, TOKEN, Panel, environment, serving
from tests.browsing import wait_saved

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
LOW, HIGH = 0, 10


@pytest.fixture(scope="module")
def zero(panel: Panel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Panel]:
    """Another server on the same results, whose rubric scores one thing from 0 to 10."""
    folder = tmp_path_factory.mktemp("zero")
    anchors = {score: f"worth {score}" for score in range(LOW, HIGH + 1)}
    criteria = [{"id": "use", "name": "Use", "question": "Is it of use?", "anchors": anchors}]
    rubric = {
        "name": "zero-to-ten",
        "scale_min": LOW,
        "scale_max": HIGH,
        "instructions": "Score.",
        "criteria": criteria,
    }
    (folder / "rubric.yaml").write_text(yaml.safe_dump(rubric))
    env = environment(panel.folder, panel.store) | {
        "TIPBENCH_RUBRIC": str(folder / "rubric.yaml"),
        "TIPBENCH_STATE_DIR": str(folder / "state"),
        "TIPBENCH_TOKENS_DIR": str(panel.folder / "tokens"),
    }
    with serving(folder, env) as server:
        yield server


@pytest.fixture
def page(zero: Panel, browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    assert context.request.post(f"{zero.url}/api/session", data={"token": TOKEN}).ok
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


def test_the_whole_scale_can_be_given_and_is_what_the_pages_say(zero: Panel, page: Page) -> None:
    page.goto(f"{zero.url}/#/judge/{FILLED}")
    page.get_by_text("Score each criterion from 0 to 10 against its anchors").wait_for()
    page.get_by_label("Your name as judge").fill("emmy")
    page.keyboard.press("Enter")
    given = {"0": 0, "10": 10, "7": 7}
    for number, (keys, score) in enumerate(given.items()):
        page.get_by_text(re.compile(rf"^{number} of \d+ tips")).wait_for()
        with page.expect_request(lambda request: request.method == "PUT") as put:
            page.keyboard.type(keys)
        assert put.value.post_data_json["scores"] == {"use": score}
        wait_saved(page)
    page.keyboard.press("ArrowLeft")
    page.get_by_text("7 of 10").wait_for()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.get_by_text("0 of 10").wait_for()
    assert page.locator("[aria-pressed=true]").inner_text().startswith("0")

    page.goto(f"{zero.url}/#/leaderboard/{FILLED}")
    page.get_by_role("heading", name="Ranking").wait_for()
    ticks = page.locator(".scale-ticks span").all_inner_texts()
    assert (ticks[0], ticks[-1]) == ("0", "10") and len(ticks) <= 7
    assert "of 10" in page.locator(".headline").inner_text()
