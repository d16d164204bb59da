"""A notice is one POST with a text; it is tried again, and never stops anything."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tipbench, free_port
from tipbench.notice import board_ready, judge_wanted, send

pytestmark = pytest.mark.integration


class Hook:
    """A webhook that answers with the given statuses, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.statuses.pop(0) if len(hook.statuses) > 1 else hook.statuses[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.httpd = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.httpd.server_address[1]}/hooks/s3cret"


@pytest.fixture
def hook() -> Iterator[Hook]:
    one = Hook(200)
    yield one
    one.httpd.shutdown()
    one.httpd.server_close()


WANTED = judge_wanted("tip-bench-x", 12, 4, "judge.json")


def test_it_says_what_where_and_how_many(hook: Hook) -> None:
    assert send(hook.url, WANTED) and send(hook.url, board_ready("tip-bench-x", "m with p leads.", 6, 240, "report/"))
    first, second = hook.bodies
    assert first["text"] == "tipbench: 12 tips wait for a judge in tip-bench-x (judge.json)."
    assert (first["event"], first["experiment"], first["counts"]) == (
        "judge_wanted", "tip-bench-x", {"candidates": 12, "cells": 4},
    )  # fmt: skip
    assert second["event"] == "board_ready" and "m with p leads." in second["text"]


@pytest.mark.parametrize(("statuses", "taken", "posts"), [([500, 503, 204], True, 3), ([429, 200], True, 2), ([404], False, 1), ([500], False, 3)])  # fmt: skip
def test_it_is_tried_again_where_that_may_help(
    hook: Hook, statuses: list[int], taken: bool, posts: int, caplog: pytest.LogCaptureFixture
) -> None:
    hook.statuses = statuses
    with caplog.at_level(logging.WARNING, "tipbench"):
        assert send(hook.url, WANTED, wait_s=0.01) is taken
    assert len(hook.bodies) == posts
    assert ("was not taken by 127.0.0.1" in caplog.text) is not taken and "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/x", "http://[::1/x", "nonsense", "http://no-such-host.invalid/x"]
)
def test_an_address_where_nobody_listens_is_a_warning(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tipbench"):
        assert not send(url.format(port=free_port()), WANTED, wait_s=0.01)
    assert "going on" in caplog.text


def test_a_wanted_judge_and_a_new_board_are_told_once(hook: Hook, tipbench: Tipbench, tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("model,prompt,scenario,text,situation\nm,p,s,Drink water.,It is hot.\nn,p,s,Rest.,It is hot.\n")
    common = ["--experiment", "tip-bench-told", "--mlflow-url", tmp_path / "store"]
    assert tipbench("import", table, *common).returncode == 0
    told = {"TIPBENCH_NOTIFY_URL": hook.url}
    for _ in range(2):
        file = tmp_path / "judge.json"
        assert tipbench("judge", "export", "--out", file, "--for", "manual", *common, env=told).returncode == 0
    assert tipbench("judge", "score", file, "--with", "baseline", "--apply", *common[2:]).returncode == 0
    for _ in range(2):
        assert tipbench("compare", *common, env=told).returncode == 0
    assert [b["event"] for b in hook.bodies] == ["judge_wanted", "board_ready"]
    assert hook.bodies[0]["counts"] == {"candidates": 2, "cells": 2}
    for_program = tipbench("judge", "export", "--out", tmp_path / "b.json", "--for", "baseline", *common, env=told)
    assert for_program.returncode == 0 and len(hook.bodies) == 2
    hook.statuses = [500]
    assert tipbench("judge", "export", "--out", tmp_path / "c.json", "--judge", "cy", *common, env=told).returncode == 0
