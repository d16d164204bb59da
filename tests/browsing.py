"""Headless Chromium, and what a person does with the panel, wherever it is served from."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import IN_CI

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
# Without the background-networking flags a start-up waits for hosts that a closed network does not have.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The program that CHROMIUM names, or the one on PATH; without any, the test is skipped (in CI: fails)."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        message = "no chromium on PATH (Debian: apt-get install chromium); the variable CHROMIUM may name one"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def wait_saved(page: Page) -> None:
    page.locator("[data-waiting='0']", has_text="Saved").wait_for()


def judge_all(page: Page) -> int:
    """Score every tip with the keyboard: relevance 4, actionability 5, tone 3; returns how many there were."""
    tip, total = 0, 1
    while tip < total:
        tip += 1
        page.locator(".criterion.active h3", has_text="Relevance").wait_for()
        for score in ("4", "5", "3"):
            page.keyboard.press(score)
        counter = page.locator("main").get_by_text(re.compile(rf"^{tip} of \d+ tips?"))
        counter.wait_for()
        total = int(counter.inner_text().split()[2])
        wait_saved(page)
    page.get_by_text("Every tip has a score").wait_for()
    return tip
