"""The API behind proxies: whom it believes, what its names are then, and a path of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.integration.api.conftest import TOKEN, settings_for
from tipbench.api.app import create_app
from tipbench.api.server import Behind
from tipbench.api.settings import from_environment
from tipbench.errors import InputError

pytestmark = pytest.mark.integration
PROXY, STRANGER = "10.0.0.9", "10.9.9.9"


def client(folder: Path, *, peer: str = PROXY, trusted: str = "10.0.0.0/24", root_path: str = "") -> TestClient:
    """A client whose connections come from `peer`."""
    settings = settings_for("http://127.0.0.1:1", folder, root_path=root_path)
    app = Behind(create_app(settings, {"tests": TOKEN}), trusted)
    return TestClient(app, base_url="http://tips.example", client=(peer, 40000), follow_redirects=False)


def log_in(browser: TestClient, path: str = "/api/session", **headers: str) -> int:
    """The status of a panel's login with these headers (underscores are dashes)."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return browser.post(path, json={"token": TOKEN}, headers=sent).status_code


@pytest.mark.parametrize(
    ("forwarded", "origin"),
    [
        ({"X_Forwarded_Host": "tips.example:8443"}, "https://tips.example:8443"),  # nginx: $http_host
        (
            {"X_Forwarded_Host": "tips.example", "X_Forwarded_Port": "8443"},
            "https://tips.example:8443",
        ),  # $host, $server_port
        ({"X_Forwarded_Host": "tips.example, inner"}, "https://tips.example"),  # two proxies
        ({}, "http://tips.example"),
    ],
)
def test_a_proxy_that_is_trusted_says_what_the_browser_calls_it(
    tmp_path: Path, forwarded: dict[str, str], origin: str
) -> None:
    """`proxy_set_header Host $host` drops the port, and the login's Origin has it."""
    assert log_in(client(tmp_path), Host="tips.example", Origin=origin, **forwarded) == 200


def test_from_anybody_else_it_means_nothing(tmp_path: Path) -> None:
    browser = client(tmp_path, peer=STRANGER)
    answer = browser.post(
        "/api/session",
        json={"token": TOKEN},
        headers={"Host": "tips.example", "Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"},
    )
    assert answer.status_code == 403 and "X-Forwarded-Host" in answer.json()["detail"]
    assert "https://evil.example" in answer.json()["detail"]


def test_another_sites_page_stays_one_behind_a_proxy(tmp_path: Path) -> None:
    browser = client(tmp_path)
    assert log_in(browser, Origin="https://evil.example", X_Forwarded_Host="tips.example:8443") == 403
    assert log_in(browser, Origin="https://tips.example:8443", X_Forwarded_Host="tips.example:8443", Sec_Fetch_Site="cross-site") == 403  # fmt: skip


def test_the_browsers_https_and_address_come_from_a_trusted_proxy_only(tmp_path: Path) -> None:
    """A cookie is Secure where the browser came by https, and wrong tokens are counted by the browser's own address."""
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    for peer, secure in ((PROXY, True), (STRANGER, False)):
        cookie = client(tmp_path, peer=peer).post("/api/session", json={"token": TOKEN}, headers=headers)
        assert ("Secure" in cookie.headers["set-cookie"]) is secure, peer
    browser = client(tmp_path)
    for _ in range(12):
        browser.post("/api/session", json={"token": "wrong"}, headers=headers)
    assert log_in(browser, X_Forwarded_For="192.0.2.7") == 429
    assert log_in(browser, X_Forwarded_For="192.0.2.8") == 200, "one browser does not lock the others out"


@pytest.mark.parametrize("asked", ["/tips/bench", ""])
def test_it_lives_under_a_path_whether_the_proxy_takes_it_away_or_not(tmp_path: Path, asked: str) -> None:
    browser = client(tmp_path, root_path="/tips/bench")
    login = browser.post(f"{asked}/api/session", json={"token": TOKEN})
    assert login.status_code == 200 and "Path=/tips/bench/;" in login.headers["set-cookie"]
    assert browser.get(f"{asked}/healthz").status_code == 200
    assert browser.get(f"{asked}/").status_code == 200
    assert browser.get(f"{asked}/style.css").status_code == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert browser.get(f"{asked}/api/bench/me", headers=bearer).json()["name"] == "tests"
    assert browser.get(f"{asked}/openapi.json", headers=bearer).json()["servers"] == [{"url": "/tips/bench"}]


def test_the_path_alone_leads_to_the_panel(tmp_path: Path) -> None:
    """Its links are relative: without the slash they would lead beside it."""
    browser = client(tmp_path, root_path="/tips")
    answer = browser.get("/tips?x=1")
    assert answer.status_code == 308 and answer.headers["location"] == "/tips/?x=1"
    assert browser.get("/tipsy/healthz").status_code == 404


@pytest.mark.parametrize(("given", "path"), [("tips/", "/tips"), ("/a/b", "/a/b"), ("/", ""), ("", "")])
def test_a_path_is_read_however_it_is_written(given: str, path: str) -> None:
    assert from_environment({"TIPBENCH_ROOT_PATH": given}).root_path == path


def test_what_is_no_path_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="TIPBENCH_ROOT_PATH"):
        from_environment({"TIPBENCH_ROOT_PATH": "https://tips.example/tips"})
