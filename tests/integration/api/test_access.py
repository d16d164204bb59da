"""Who may call: every route asks, sessions end when they should, guessing is slow, and nothing odd gets through."""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute
from itsdangerous import URLSafeTimedSerializer

from tests.integration.api.conftest import TOKEN, Serve, Server, problem
from tipbench.api import auth as auth_module
from tipbench.api.auth import COOKIE, FREE_FAILURES, PUBLIC

pytestmark = pytest.mark.integration


def _routes(server: Server) -> list[tuple[str, str]]:
    return sorted(
        (method, route.path)
        for route in server.app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
        if (method, route.path) not in PUBLIC
    )


def _filled(path: str) -> str:
    values = {"experiment": "tip-bench-x", "run_id": "api-1", "item_id": "0" * 16, "plot": "forest"}
    return path.format(**values)


@pytest.mark.parametrize(
    "header",
    [None, "Bearer wrong", "Bearer", "Basic YTpi", f"bearer{TOKEN}", "Bearer " + "x" * 5000, f"Token {TOKEN}"],
    ids=["none", "wrong", "empty", "basic", "no-space", "huge", "scheme"],
)
def test_every_route_but_the_public_ones_answers_401(
    shared: Server, monkeypatch: pytest.MonkeyPatch, header: str | None
) -> None:
    monkeypatch.setattr(auth_module, "LATE_S", 0.0)
    routes = _routes(shared)
    assert len(routes) > 20
    headers = {"Authorization": header} if header else {}
    with shared.session() as stranger:
        for method, path in routes:
            answer = stranger.request(method, _filled(path), headers=headers, json={})
            assert problem(answer, 401)["title"] == "Who are you?", (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")


def test_what_is_public_is_a_short_list(shared: Server) -> None:
    assert sorted(PUBLIC) == [("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/api/session")]
    with shared.session() as stranger:
        assert stranger.get("/healthz").json()["status"] == "ok"
        assert stranger.get("/readyz").status_code == 200
        assert stranger.get("/").status_code in (200, 404)  # the panel's files, which hold nothing secret


def test_a_session_logs_in_changes_things_with_its_csrf_token_and_logs_out(shared: Server) -> None:
    with shared.session() as browser:
        me = browser.post("/api/session", json={"token": TOKEN})
        assert me.status_code == 200 and me.json()["method"] == "session"
        cookie = me.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie and "Max-Age=3600" in cookie
        assert TOKEN not in cookie
        assert browser.get("/api/bench/me").json()["csrf_token"] == me.json()["csrf_token"]
        assert "X-CSRF-Token" in problem(browser.delete("/api/session"), 403)["detail"]
        problem(browser.post("/api/bench/estimate", json={}, headers={"X-CSRF-Token": "wrong"}), 403)
        right = {"X-CSRF-Token": me.json()["csrf_token"]}
        assert browser.post("/api/bench/estimate", json={}, headers=right).status_code == 200
        kept = browser.cookies[COOKIE]
        assert browser.delete("/api/session", headers=right).status_code == 204
        assert COOKIE not in browser.cookies
        replayed = browser.get("/api/bench/me", headers={"Cookie": f"{COOKIE}={kept}"})
        assert "over" in problem(replayed, 401)["detail"]


def test_a_cookie_that_was_changed_or_made_elsewhere_is_refused(shared: Server) -> None:
    with shared.session() as browser:
        browser.post("/api/session", json={"token": TOKEN})
        good = browser.cookies[COOKIE]
    body, _, rest = good.partition(".")
    forged = URLSafeTimedSerializer("another secret", salt="tipbench.session").dumps({"name": "tests"})
    for bad in (good[:-2], good + "x", body[:-3] + "AAA." + rest, forged, "", "x" * 3000, "a.b.c"):
        with shared.session() as browser:
            problem(browser.get("/api/bench/me", headers={"Cookie": f"{COOKIE}={bad}"}), 401)


def test_a_session_ends_when_it_was_not_used_for_long_and_after_its_longest_time(
    shared: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared.session() as browser:
        browser.post("/api/session", json={"token": TOKEN})
        assert browser.get("/api/bench/me").status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(auth_module, "IDLE_S", -1)
            assert "expired" in problem(browser.get("/api/bench/me"), 401)["detail"]
        with monkeypatch.context() as patch:
            patch.setattr(auth_module, "LONGEST_S", -1)
            problem(browser.get("/api/bench/me"), 401)


def test_a_session_that_is_used_gets_a_new_cookie_and_its_old_one_dies_with_it(
    shared: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_module, "RENEW_S", -1)
    with shared.session() as browser:
        me = browser.post("/api/session", json={"token": TOKEN}).json()
        first = browser.cookies[COOKIE]
        renewed = browser.get("/api/bench/me")
        assert COOKIE in renewed.headers["set-cookie"]
        browser.delete("/api/session", headers={"X-CSRF-Token": me["csrf_token"]})
        problem(browser.get("/api/bench/me", headers={"Cookie": f"{COOKIE}={first}"}), 401)


def test_a_token_that_is_taken_away_is_revoked_with_its_sessions(
    serve: Serve, mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_module, "READ_AGAIN_S", 0.0)
    folder = tmp_path / "tokens"
    folder.mkdir()
    (folder / "ci").write_text("token-of-ci\n")
    (folder / "ada").write_text("token-of-ada")
    (folder / "session-secret").write_text("no token")
    server = serve(mlflow_url, TOKENS_DIR=str(folder))
    with server.session(bearer="token-of-ci") as machine, server.session() as browser:
        assert machine.get("/api/bench/me").json()["name"] == "ci"
        assert browser.post("/api/session", json={"token": "token-of-ada"}).json()["name"] == "ada"
        problem(server.session(bearer="no token").get("/api/bench/me"), 401)
        (folder / "ada").write_text("another")
        problem(browser.get("/api/bench/me"), 401)
        (folder / "ci").unlink()
        problem(machine.get("/api/bench/me"), 401)


def test_a_code_logs_in_once(serve: Serve, mlflow_url: str) -> None:
    server = serve(mlflow_url)
    code = server.app.state.auth.tokens.once()
    with server.session() as browser:
        assert browser.post("/api/session", json={"token": code}).status_code == 200
        problem(browser.post("/api/session", json={"token": code}), 401)
        problem(server.session(bearer=code).get("/api/bench/me"), 401)


def test_guessing_is_slowed_down_and_sessions_go_on_meanwhile(serve: Serve, mlflow_url: str) -> None:
    server = serve(mlflow_url)
    with server.session() as browser, server.session() as guesser:
        browser.post("/api/session", json={"token": TOKEN})
        for n in range(FREE_FAILURES):
            problem(guesser.post("/api/session", json={"token": f"guess {n}"}), 401)
        slowed = guesser.post("/api/session", json={"token": TOKEN})
        problem(slowed, 429)
        assert int(slowed.headers["retry-after"]) >= 1
        assert browser.get("/api/bench/me").status_code == 200
        assert server.client.get("/api/bench/me").status_code == 200


def test_wrong_bearer_tokens_are_answered_late_and_right_ones_are_not(serve: Serve, mlflow_url: str) -> None:
    server = serve(mlflow_url)
    with server.session(bearer="wrong") as guesser:
        for _ in range(FREE_FAILURES):
            problem(guesser.get("/api/bench/me"), 401)
        began = time.monotonic()
        problem(guesser.get("/api/bench/me"), 401)
        assert time.monotonic() - began > auth_module.LATE_S * 0.9
        with ThreadPoolExecutor(80) as pool:
            answers = list(
                pool.map(lambda _: httpx.get(server.url + "/metrics", headers={"Authorization": "x"}), range(80))
            )
        assert {a.status_code for a in answers} <= {401, 429}
        began = time.monotonic()
        assert server.client.get("/api/bench/me").status_code == 200
        assert time.monotonic() - began < auth_module.LATE_S


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_change_that_another_sites_page_asks_for_is_refused(shared: Server, headers: dict[str, str]) -> None:
    problem(shared.client.post("/api/bench/estimate", json={}, headers=headers), 403)
    with shared.session() as browser:
        problem(browser.post("/api/session", json={"token": TOKEN}, headers=headers), 403)


def test_the_person_behind_a_proxys_token_is_named(serve: Serve, mlflow_url: str) -> None:
    server = serve(mlflow_url, USER_HEADER="X-Forwarded-Email")
    me = server.client.get("/api/bench/me", headers={"X-Forwarded-Email": "ada@example.org"}).json()
    assert me["name"] == "tests" and me["user"] == "ada@example.org"
    plain = serve(mlflow_url)
    assert plain.client.get("/api/bench/me", headers={"X-Forwarded-Email": "ada@example.org"}).json()["user"] is None


def test_every_change_leaves_an_audit_line_without_a_secret(shared: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tipbench.audit"), shared.session() as browser:
        browser.post("/api/session", json={"token": TOKEN})
        browser.post("/api/session", json={"token": "wrong"})
        shared.client.post("/api/bench/dag-runs/api-none/cancel")
        # A line is written when the answer is out; the server's thread may be a moment behind.
        deadline = time.monotonic() + 10
        while sum(r.name == "tipbench.audit" for r in caplog.records) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    lines = [json.loads(r.message) for r in caplog.records if r.name == "tipbench.audit"]
    assert [(x["action"], x["status"], x["actor"]) for x in lines] == [
        ("POST /api/session", 200, "tests"),
        ("POST /api/session", 401, None),
        ("POST /api/bench/dag-runs/{run_id}/cancel", 404, "tests"),
    ]
    assert lines[2]["target"] == {"run_id": "api-none"} and lines[2]["client"] == "127.0.0.1"
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/bench/me", "/api/nothing", "/docs"])
def test_every_answer_has_the_security_headers(shared: Server, path: str) -> None:
    headers = shared.client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["x-request-id"]


def test_behind_https_the_cookie_is_for_https_only(serve: Serve, mlflow_url: str) -> None:
    server = serve(mlflow_url)
    answer = server.session().post("/api/session", json={"token": TOKEN}, headers={"X-Forwarded-Proto": "https"})
    assert "; Secure" in answer.headers["set-cookie"]
    assert "strict-transport-security" in answer.headers
