"""Every page, in both themes and on a phone: no serious fault by axe-core, no sideways scrolling, usable by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import FILLED, MODEL, Panel, Visit, run_to_the_end

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PAGES = {
    "experiments": "#/",
    "collect": "#/collect",
    "leaderboard": f"#/leaderboard/{FILLED}",
    "cell": f"#/cell/{FILLED}?model={MODEL}&prompt=v1",
    "judge": f"#/judge/{FILLED}?scope=all",
    "judge-name": f"#/judge/{FILLED}?rename",
    "judge-sample": f"#/judge/{FILLED}?scope=sample",
    "judge-done": f"#/judge/{FILLED}",
    "status": f"#/status/{FILLED}",
    "compare": f"#/compare?a={FILLED}&b=tip-bench-second",
    "import": "#/import",
    "run": "#/run/",
    "missing": "#/run/never-was",
    "login": "#/login",
}


@pytest.fixture(scope="module")
def run_id(panel: Panel) -> str:
    """A run that is over; it also makes a second experiment to compare with."""
    return run_to_the_end(
        panel,
        experiment="tip-bench-second",
        models=MODEL,
        prompts="v1,v2-mentor",
        n_scenarios=2,
        n_tips=1,
        judge="baseline",
    )


def place(name: str, run_id: str) -> str:
    return PAGES[name] + (run_id if name == "run" else "")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(
    name: str, theme: str, run_id: str, walk: Visit, shot: Callable[[Page, str], None]
) -> None:
    import axe_playwright_python

    page = walk(place(name, run_id), theme=theme, judge="mary", log_in=name != "login", styled_by_a_tool=True)
    shot(page, f"{name}-{theme}")
    if name == "collect":
        page.get_by_text("More settings").click()
    # A debugger's evaluation, not a script tag: the page's policy stays as strict as it is.
    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
    found: list[dict[str, Any]] = page.evaluate("axe.run().then(result => result.violations)")
    serious = [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:5]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert not serious, "\n".join(serious)


CUT = """[...document.querySelectorAll(".scroll, .figure")].filter((one) => one.scrollWidth > one.clientWidth + 1)
  .map((one) => `${one.className} ${one.getAttribute("aria-labelledby")}: ${one.scrollWidth} of ${one.clientWidth} px`)"""


@pytest.mark.parametrize("phone", [True, False], ids=["phone", "desktop"])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_needs_to_be_scrolled_sideways(
    name: str, phone: bool, run_id: str, walk: Visit, shot: Callable[[Page, str], None]
) -> None:
    """Neither the page nor a table or figure in it; names of models that are longer than these may need it."""
    page = walk(place(name, run_id), phone=phone, judge="mary", log_in=name != "login")
    if phone:
        shot(page, f"{name}-phone")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{width} px wide"  # type: ignore[index]
    assert page.evaluate(CUT) == []
    assert page.locator("h1").count() == 1


def test_the_keyboard_alone_gets_everywhere(visit: Visit, run_id: str) -> None:
    page = visit("#/")
    page.wait_for_load_state("networkidle")
    page.evaluate("document.querySelector('a[href], button, input').focus()")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.locator(".skip").is_visible()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            "(() => { const e = document.activeElement; return [e.textContent.trim(), getComputedStyle(e).outlineStyle]; })()"
        )
        seen.add(tuple(outline))
    reached = {text for text, _ in seen}
    assert any("Judge" in text or "Leaderboard" in text for text in reached)
    assert all(style != "none" for text, style in seen if text in ("Run collection", "Compare", "Log out")), seen
