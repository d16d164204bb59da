"""Requests that nobody means well: too large, malformed, with a path in a name; all get a problem, none a 500."""

from __future__ import annotations

import json

import pytest

from tests.integration.api.conftest import Server, problem

pytestmark = pytest.mark.integration
MIB = 1024**2


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fetc%2fpasswd",
        "tip-bench-a%2f..%2fb",
        "tip-bench-%00",
        "tip-bench-a'%20OR%201=1",
        "tip-bench-a%0aSet-Cookie:x",
        "default",
        "tip-bench-",
        "tip-bench-" + "a" * 300,
        "tip-bench-é",
        "..",
        "tip-bench-..%5c..",
    ],
)
@pytest.mark.parametrize(
    "route", ["runs/{}", "leaderboard/{}", "judging/{}/next?judge=a", "judging/{}/export", "agreement/{}"]
)
def test_a_name_against_the_rule_never_reaches_mlflow(shared: Server, name: str, route: str) -> None:
    answer = shared.client.get("/api/bench/" + route.format(name))
    assert answer.status_code in (404, 422), answer.text
    assert problem(answer, answer.status_code)


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/%2e%2e/app.py", "/..%2fapp.py", "//etc/passwd", "/pages/../../app.py"]
)
def test_no_path_leads_out_of_the_panels_folder(shared: Server, path: str) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", shared.port)
    connection.request("GET", path)  # httpx would tidy the path up
    answer = connection.getresponse()
    assert answer.status == 404, (path, answer.read()[:200])


def test_a_body_of_ten_megabytes_is_refused_whether_its_size_is_stated_or_not(shared: Server) -> None:
    body = b'{"models": "' + b"a" * (10 * MIB) + b'"}'
    headers = {"Content-Type": "application/json"}
    for content in (body, iter([body[:MIB], body[MIB:]])):
        try:
            answer = shared.client.post("/api/bench/run", content=content, headers=headers)
        except Exception as error:  # the server may close while the client still sends
            assert type(error).__name__ in ("WriteError", "RemoteProtocolError", "ReadError"), error
        else:
            assert "1,048,576" in problem(answer, 413)["detail"]
    assert shared.client.get("/healthz").status_code == 200


def test_an_exchange_file_may_be_larger_than_other_bodies(shared: Server) -> None:
    big = json.dumps({"schema": "tipbench.exchange/1", "instructions": "x" * (3 * MIB)})
    answer = shared.client.post("/api/bench/judging/tip-bench-none/apply", content=big)
    problem(answer, 404)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe\x00",
        b'{"models": "\\ud800"}',
        b'{"models": "a\\u0000b"}',
        b'{"n_tips": 1e400}',
        b'{"n_tips": NaN}',
        b'{"n_tips": ' + b"9" * 5000 + b"}",
        b'{"x": ' * 3000 + b"1" + b"}" * 3000,
        b'{"judge": ["manual"]}',
        b'{"judge_timeout_hours": true}',
        b'{"models": ["a", 1]}',
        b'{"models": {}}',
        b'{"experiment": null}',
        b'{"\\ud800": 1}',
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/api/bench/run", "/api/bench/estimate"])
def test_a_malformed_body_is_the_callers_fault(shared: Server, path: str, body: bytes) -> None:
    answer = shared.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), f"{answer.status_code}: {answer.text[:300]}"
    assert problem(answer, answer.status_code)


def test_every_fault_of_a_configuration_is_named_with_its_field(shared: Server) -> None:
    body = {
        "n_tips": 0,
        "temperatur": 0.5,
        "experiment": "other",
        "rubric": "/etc/passwd",
        "judge": "me",
        "judge_timeout_hours": 0,
        "collect_memory": "1Gi",
    }
    found = {e["pointer"]: e["detail"] for e in problem(shared.client.post("/api/bench/run", json=body), 422)["errors"]}
    assert set(found) == {f"/{name}" for name in body}
    assert "at least 1" in found["/n_tips"] and "did you mean temperature" in found["/temperatur"]
    assert "on the server" in found["/rubric"] and "whole installation" in found["/collect_memory"]


def test_a_prompt_that_is_not_there_and_a_judge_without_a_model_are_faults(shared: Server) -> None:
    errors = problem(shared.client.post("/api/bench/run", json={"prompts": "v1,v9"}), 422)["errors"]
    assert errors[0]["pointer"] == "/prompts" and "v9" in errors[0]["detail"]
    errors = problem(shared.client.post("/api/bench/run", json={"judge": "llm"}), 422)["errors"]
    assert errors[0]["pointer"] == "/judge_model"


def test_what_is_not_there_and_what_cannot_be_done_are_problems_too(shared: Server) -> None:
    problem(shared.client.get("/api/bench/nothing"), 404)
    problem(shared.client.get("/nothing.js"), 404)
    problem(shared.client.post("/"), 405)
    wrong = shared.client.put("/api/bench/experiments")
    problem(wrong, 405)
    assert wrong.headers["allow"] == "GET"
    problem(shared.client.get("/api/bench/runs/tip-bench-there-is-none"), 404)
    problem(shared.client.get("/api/bench/dag-runs/api-none"), 404)
    problem(shared.client.get("/api/bench/runs/tip-bench-x", params={"limit": 0}), 422)


def test_an_error_that_nobody_foresaw_tells_nothing_but_its_number(
    shared: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(shared.app.state.service.store, "experiments", broken)
    body = problem(shared.client.get("/api/bench/experiments"), 500)
    assert "secret" not in json.dumps(body)
    assert shared.client.get("/healthz").status_code == 200
