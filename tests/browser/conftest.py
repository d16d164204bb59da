"""A real browser in front of a real `tipbench serve`, whose store the real stages filled with the embedded model."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.browsing import DESKTOP, PHONE, SCREENSHOTS, chromium
from tests.conftest import MlflowServer, clean_env, command_line, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Request

MODEL = "smollm2:135m"
FILLED = "tip-bench-filled"
TOKEN = "a-token-for-the-browser-tests"


@dataclass(frozen=True)
class Panel:
    """The running server."""

    url: str
    log: Path
    folder: Path
    """Where it keeps its tokens and what it is doing."""
    store: str
    """Where it keeps its results."""

    def get(self, path: str) -> httpx.Response:
        """A request of a machine, with its bearer token."""
        return httpx.get(f"{self.url}/api/{path}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)


def run_to_the_end(panel: Panel, **config: object) -> str:
    """Start a collection over the API, wait until it is over; returns the run's id."""
    deadline = time.monotonic() + 400
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while True:
        answer = httpx.post(f"{panel.url}/api/bench/run", json=config, headers=headers, timeout=60)
        if answer.status_code != 409 or time.monotonic() > deadline:  # another test's collection is under way
            break
        time.sleep(1)
    assert answer.status_code == 202, answer.text
    found = str(answer.json()["id"])
    while (run := panel.get(f"bench/dag-runs/{found}").json())["ended_at"] is None:
        assert time.monotonic() < deadline, run
        time.sleep(0.5)
    assert run["state"] == "success", run
    return found


def environment(folder: Path, store: str) -> dict[str, str]:
    """`tipbench` on the embedded engine, with its results in `store` and everything else that it keeps in `folder`."""
    return clean_env(folder) | {
        "TIPBENCH_ENGINE": "embedded",
        "TIPBENCH_MODELS": MODEL,
        "TIPBENCH_NUM_CTX": "1024",
        "TIPBENCH_NUM_PREDICT": "12",
        # Its threads spin: two of them beside another worker's tests are twenty times as slow as one.
        "TIPBENCH_NUM_THREAD": "1",
        "TIPBENCH_MLFLOW_URL": store,
        "TIPBENCH_SPOOL": str(folder / "spool"),
        "TIPBENCH_STATE_DIR": str(folder / "state"),
    }


@contextlib.contextmanager
def serving(folder: Path, env: dict[str, str]) -> Iterator[Panel]:
    """A `tipbench serve` process on a free port, answering."""
    port, log = free_port(), folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tipbench", "serve", "--port", str(port)], env=env, stdout=output, stderr=output
        )
    try:
        panel = Panel(f"http://127.0.0.1:{port}", log, folder, env["TIPBENCH_MLFLOW_URL"])
        deadline = time.monotonic() + 180
        while True:
            try:
                httpx.get(panel.url + "/healthz", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
                time.sleep(0.2)
        yield panel
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def panel_store(tmp_path_factory: pytest.TempPathFactory, empty_db: Path) -> Iterator[str]:
    """An MLflow server with nothing but these tests' experiments. A folder would cost every stage of every run MLflow's imports."""
    server = MlflowServer(tmp_path_factory.mktemp("panel-mlflow"), empty_db)
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def panel(tmp_path_factory: pytest.TempPathFactory, panel_store: str) -> Iterator[Panel]:
    """A server with a token of ours, and one experiment that is collected, judged (baseline) and ranked."""
    folder = tmp_path_factory.mktemp("panel")
    (folder / "tokens").mkdir()
    (folder / "tokens" / "browser").write_text(TOKEN)
    env = environment(folder, panel_store) | {"TIPBENCH_TOKENS_DIR": str(folder / "tokens")}
    filling = command_line("run", "--experiment", FILLED, "--n-scenarios", 2, "--n-tips", 2, "--out", folder / "report")
    done = subprocess.run(filling, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with serving(folder, env) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: as long as it is open, Playwright's event loop runs in this thread, and no test may start one of its own."""
    with chromium() as launched:
        yield launched


Visit = Callable[..., "Page"]
QUIET_MS = 100
"""A page that has asked for nothing for so long will ask for nothing more."""
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember a failure, so that `visit` takes a picture of it."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


class Visitor:
    """A person with a browser in front of the panel.

    When a test ends (`check`), no page may have asked another host for anything, broken the content-security-policy, or thrown an error.
    """

    def __init__(self, browser: Browser, panel: Panel) -> None:
        self._browser, self._panel = browser, panel
        self._contexts: list[BrowserContext] = []
        self._faults: list[str] = []

    def open(
        self,
        where: str = "",
        *,
        log_in: bool = True,
        judge: str = "",
        theme: str = "light",
        phone: bool = False,
        styled_by_a_tool: bool = False,
    ) -> Page:
        """A fresh page at `where`, logged in, as far as nothing else is said."""
        url, faults = self._panel.url, self._faults
        stored = [{"name": "tipbench.judge", "value": judge}] if judge else []
        context = self._browser.new_context(
            # axe-core sets styles on elements that it looks at, which is its doing and not the page's.
            bypass_csp=styled_by_a_tool,
            viewport=PHONE if phone else DESKTOP,
            color_scheme="dark" if theme == "dark" else "light",
            reduced_motion="reduce",
            storage_state={"cookies": [], "origins": [{"origin": url, "localStorage": stored}]},
        )
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: request.url.startswith(url) or faults.append(f"asked {request.url}"))
        page.on("pageerror", lambda error: faults.append(f"threw {error}"))
        page.on("console", lambda message: "Content Security Policy" in message.text and faults.append(message.text))
        if log_in:
            answer = context.request.post(f"{url}/api/session", data={"token": TOKEN})
            assert answer.ok, answer.text()
        page.goto(f"{url}/{where}")
        page.locator("main h1").first.wait_for()
        return page

    def check(self, name: str, failed: bool) -> None:
        """Say what was wrong with the pages; of a test that failed, leave pictures."""
        if failed:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            for number, context in enumerate(self._contexts):
                context.pages[0].screenshot(path=SCREENSHOTS / f"failed-{name}-{number}.png")
        faults = self._faults[:]
        self._faults.clear()
        assert not faults, faults

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def visit(browser: Browser, panel: Panel, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """`visit("#/collect")`: a fresh, logged-in page there (`Visitor.open`)."""
    visitor = Visitor(browser, panel)
    yield visitor.open
    try:
        visitor.check(request.node.name, request.node.stash.get(FAILED, False))
    finally:
        visitor.close()


class Walker(Visitor):
    """A visitor who stays, with one window for every look of the panel."""

    def __init__(self, browser: Browser, panel: Panel) -> None:
        super().__init__(browser, panel)
        self._windows: dict[str, Page] = {}
        self._under_way: set[Request] = set()

    def walk(self, where: str, **look: Any) -> Page:
        """The window of this look, at another place, with everything there that is to come."""
        page = self._windows.get(repr(look))
        if page is None:
            page = self._windows[repr(look)] = self.open(where, **look)
            page.wait_for_load_state("networkidle")
            page.on("request", lambda request: self._under_way.add(request))
            page.on("requestfinished", lambda request: self._under_way.discard(request))
            page.on("requestfailed", lambda request: self._under_way.discard(request))
        else:
            # The panel's own listener was there first: when this one is called, the old page is gone.
            page.evaluate(
                "to => new Promise((gone) => { addEventListener('hashchange', gone, { once: true }); location.hash = to; })",
                where,
            )
            page.locator("main h1").first.wait_for()
        page.wait_for_selector(".loading", state="detached")
        quiet = 0
        while quiet < QUIET_MS:
            page.wait_for_timeout(20)
            quiet = 0 if self._under_way else quiet + 20
        return page


@pytest.fixture(scope="module")
def walker(browser: Browser, panel: Panel) -> Iterator[Walker]:
    """For `walk`."""
    walking = Walker(browser, panel)
    yield walking
    walking.close()


@pytest.fixture
def walk(walker: Walker, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """As `visit`, for what only looks: the same person goes from page to page, as people do, and need not load the panel anew each time."""
    yield walker.walk
    walker.check(request.node.name, request.node.stash.get(FAILED, False))


@pytest.fixture
def shot() -> Callable[[Page, str], None]:
    """`shot(page, "leaderboard-dark")`: the whole page as a picture in build/screenshots."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> None:
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    return take
