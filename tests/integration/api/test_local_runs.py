"""`tipbench serve` on a laptop: the same run without Airflow, in processes of its own, with a state that survives restarts.

The engine is the fake, so that a collection can be made to take as long as a test needs; test_embedded runs the real one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import clean_env, free_port
from tests.integration.api.conftest import judge_all, problem
from tests.integration.api.laptop import Laptop, an_ollama

pytestmark = pytest.mark.integration
SMALL = {"prompts": "v1", "n_scenarios": 2, "n_tips": 2}


@pytest.fixture
def at_home(tmp_path: Path) -> Iterator[Laptop]:
    """With its results in a folder. Every process that opens one takes seconds of a core: one test shows that it works."""
    with an_ollama() as fake:
        laptop = Laptop(tmp_path, fake)
        yield laptop
        laptop.end()


@pytest.fixture
def slow(tmp_path: Path, mlflow_url: str) -> Iterator[Laptop]:
    with an_ollama(delay=1.0) as fake:
        laptop = Laptop(tmp_path, fake, mlflow_url)
        yield laptop
        laptop.end()


def _until(client: httpx.Client, run_id: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while True:
        body: dict[str, Any] = client.get(f"/api/bench/dag-runs/{run_id}").json()
        if done(body):
            return body
        assert time.monotonic() < deadline, body
        time.sleep(0.2)


def _start(client: httpx.Client, **changes: Any) -> str:
    answer = client.post("/api/bench/run", json=SMALL | changes)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_a_run_from_the_form_to_the_leaderboard_waiting_for_its_judge_in_between(at_home: Laptop) -> None:
    client = at_home.start()
    code = re.search(r"#/login\?token=([\w-]+)", at_home.log.read_text())
    assert code is not None
    assert httpx.post(at_home.url + "/api/session", json={"token": code[1]}).status_code == 200
    form = client.get("/api/bench/config/schema").json()
    assert form["back_end"] == "local" and form["defaults"]["models"] == "small:1b,other:1b"
    assert [s["id"] for s in form["scenarios"]][:1] == ["first-budget"] and form["prompts"][0]["name"] == "v1"
    assert "rubric" not in form["schema"]["properties"] and "judge" in form["schema"]["properties"]
    run_id = _start(client)
    waiting = _until(client, run_id, lambda run: run["state"] in ("waiting", "failed"))
    assert waiting["state"] == "waiting", waiting
    assert waiting["progress"]["finished"] == waiting["progress"]["pending"] == 4 == waiting["progress"]["planned"]
    assert [t["state"] for t in waiting["tasks"]] == ["success", "success", "waiting", "pending"]
    judge_all(client, at_home.experiment, "ada")
    done = _until(client, run_id, lambda run: run["state"] in ("success", "failed"))
    assert done["state"] == "success" and done["ended_at"] and done["started_by"] == "laptop"
    board = client.get(f"/api/bench/leaderboard/{at_home.experiment}").json()
    assert {c["model"] for c in board["cells"]} == {"small:1b", "other:1b"} and board["judges"][0]["name"] == "ada"
    assert client.get("/api/bench/dag-runs").json()["total"] == 1
    problem(client.post(f"/api/bench/dag-runs/{run_id}/cancel"), 409)


def test_one_faulty_prompt_file_is_named_in_the_form_and_the_others_can_be_asked_for(
    quick: Laptop, tmp_path: Path
) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    sound = "name: {}\ndescription: Ours.\nuser: 'Tip for {{{{ title }}}}: {{{{ situation }}}}'\n"
    (folder / "good.yaml").write_text(sound.format("good"))
    (folder / "broken.yaml").write_text(sound.format("broken").replace(" }}", ""))
    (folder / "blind.yaml").write_text("name: blind\ndescription: x\nuser: the same for all\n")
    (folder / "other.yaml").write_text(sound.format("another"))
    (folder / "bytes.yaml").write_bytes(b"\xff\x00\xfe\x00\x01")
    for ending in ("yaml", "json"):
        (folder / f"twice.{ending}").write_text(sound.format("twice"))
    quick.environment["TIPBENCH_PROMPTS_DIR"] = str(folder)
    client = quick.start()
    answer = client.get("/api/bench/config/schema")
    assert answer.status_code == 200, answer.text
    found = {p["name"]: p["problem"] for p in answer.json()["prompts"]}
    assert found.pop("good") is None
    assert found.keys() == {"broken", "blind", "other", "bytes", "twice"}
    for name, why in found.items():
        assert why and name in why, why
    assert (
        "broken.yaml, line 3, user: " in found["broken"]
        and "the same text" in found["blind"]
        and "another" in found["other"]
    )
    refused = client.post("/api/bench/run", json=SMALL | {"prompts": "good,broken"})
    assert refused.status_code == 422 and "broken" in refused.text
    _start(client, prompts="good", judge="baseline")


def test_the_baseline_judge_needs_nobody_and_a_live_stream_tells_every_change(quick: Laptop) -> None:
    client = quick.start()
    run_id = _start(client, judge="baseline")
    states: list[str] = []
    kinds: list[str] = []
    with client.stream("GET", f"/api/bench/dag-runs/{run_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            elif line.startswith("data: ") and kinds[-1] == "state":
                states.append(json.loads(line.removeprefix("data: "))["state"])
    assert kinds[-1] == "end" and states[-1] == "success" and states[0] in ("queued", "running")
    tasks = client.get(f"/api/bench/dag-runs/{run_id}").json()["tasks"]
    assert [t["task"] for t in tasks] == ["collect", "export_for_judge", "judge", "compare"]
    problem(client.get("/api/bench/dag-runs/api-none/events"), 404)


def test_one_collection_at_a_time_and_the_same_key_starts_one_only(slow: Laptop) -> None:
    client = slow.start()
    ask = {"json": SMALL, "headers": {"Idempotency-Key": "a double click"}}
    first, second = client.post("/api/bench/run", **ask).json(), client.post("/api/bench/run", **ask).json()
    assert first["id"] == second["id"] and (first["created"], second["created"]) == (True, False)
    assert first["id"] in problem(client.post("/api/bench/run", json=SMALL), 409)["detail"]
    other = client.post("/api/bench/run", json=SMALL | {"n_tips": 3}, headers=ask["headers"])
    assert problem(other, 422)["errors"][0]["pointer"] == "Idempotency-Key"
    run = _until(client, first["id"], lambda run: run["progress"] and 0 < run["progress"]["finished"] < 4)
    assert run["progress"]["eta_s"] > 0
    assert client.post(f"/api/bench/dag-runs/{first['id']}/cancel").json()["state"] == "cancelled"


@pytest.mark.parametrize("in_background", [False, True])
def test_a_cancelled_run_stops_tidily_keeps_what_it_has_and_is_resumed_by_the_next(
    slow: Laptop, in_background: bool
) -> None:
    client = slow.start(in_background=in_background)
    run_id = _start(client, n_tips=4)
    _until(client, run_id, lambda run: run["progress"] and run["progress"]["finished"] >= 1)
    cancelled = client.post(f"/api/bench/dag-runs/{run_id}/cancel").json()
    assert cancelled["state"] == "cancelled" and cancelled["reason"] == "cancelled by laptop"
    [log] = slow.folder.rglob(f"{run_id}/collect.log")
    assert "resumes" in log.read_text(), "it was not killed"
    kept = cancelled["progress"]["finished"]
    again = _start(client, n_tips=4, judge="skip")
    assert _until(client, again, lambda run: run["progress"] is not None)["progress"]["finished"] >= kept
    assert _until(client, again, lambda run: run["state"] != "running")["state"] == "success"


def test_what_waited_for_a_judge_goes_on_waiting_after_a_restart(quick: Laptop) -> None:
    client = quick.start()
    run_id = _start(client)
    _until(client, run_id, lambda run: run["state"] == "waiting")
    quick.end()
    client = quick.start()
    assert client.get(f"/api/bench/dag-runs/{run_id}").json()["state"] == "waiting"
    judge_all(client, quick.experiment, "ada")
    assert (
        _until(client, run_id, lambda run: run["state"] != "waiting" and run["state"] != "running")["state"]
        == "success"
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_being_collected_when_the_api_went_is_told_as_interrupted(slow: Laptop, how: signal.Signals) -> None:
    client = slow.start()
    run_id = _start(client, n_tips=8)
    _until(client, run_id, lambda run: run["tasks"][0]["state"] == "running" and run["progress"]["finished"] >= 0)
    time.sleep(3)
    record = json.loads(next((slow.folder / "state" / "tipbench" / "api").glob("api-*.json")).read_text())
    slow.end(how)
    client = slow.start()
    run = client.get(f"/api/bench/dag-runs/{run_id}").json()
    assert run["state"] == "failed" and "goes on where it stopped" in run["reason"]
    with pytest.raises(ProcessLookupError):
        os.kill(record["pid"], 0)
    assert _start(client)  # nothing holds the next one up


def test_a_collection_that_cannot_work_says_why(tmp_path: Path, mlflow_url: str) -> None:
    with an_ollama() as fake:
        fake.add("huge:9b", 9_000_000_000)
        laptop = Laptop(tmp_path, fake, mlflow_url)
        try:
            client = laptop.start()
            run = _until(client, _start(client, models="huge:9b"), lambda run: run["state"] == "failed")
            assert "9.00 billion" in run["reason"] and "limit of 4" in run["reason"]
            assert "9.00 billion" in run["progress"]["models"][0]["refused"]
            mixed = _until(
                client,
                _start(client, models="small:1b,gone:1b", judge="baseline"),
                lambda run: run["state"] in ("success", "failed"),
            )
            # One model's failure does not keep the other from being compared.
            assert mixed["state"] == "success", mixed["reason"]
            assert mixed["tasks"][0]["state"] == "failed" and "gone:1b" in mixed["tasks"][0]["reason"]
            missing = _until(client, _start(client, models="gone:1b"), lambda run: run["state"] == "failed")
            assert "gone:1b" in missing["reason"] and "ollama pull" in missing["reason"]
            found = client.get("/api/bench/models", params={"models": "huge:9b,gone:1b"}).json()
            verdicts = {m["model"]: m["verdict"] for m in found["models"]}
            assert found["available"] and "refused" in verdicts["huge:9b"] and verdicts["gone:1b"] == "not there yet"
            most = {}
            for limit in (None, "100Mi", "1Gi", "2Gi"):
                given = {} if limit is None else {"memory_limit": limit}
                rows = client.get("/api/bench/models", params={"models": "small:1b", **given}).json()["models"]
                most[limit] = next(row["max_num_ctx"] for row in rows if row["model"] == "small:1b")
            assert most[None] is None and most["100Mi"] == 0 and 0 < most["1Gi"] < most["2Gi"]
        finally:
            laptop.end()


def test_models_without_an_engine_are_told_by_their_tags(tmp_path: Path, mlflow_url: str) -> None:
    with an_ollama() as fake:
        laptop = Laptop(tmp_path, fake, mlflow_url)
        fake.stop()
    try:
        client = laptop.start()
        body = client.get("/api/bench/models", params={"models": "a:1b,b:70b", "max_model_b": 4}).json()
        assert body["available"] is False and "Ollama" in body["problem"]
        assert [m["allowed"] for m in body["models"]] == [True, False]
    finally:
        laptop.end()


def test_two_do_not_share_one_folder(quick: Laptop) -> None:
    quick.start()
    done = subprocess.run(
        [sys.executable, "-m", "tipbench", "serve", "--port", str(free_port())],
        env=quick.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and "TIPBENCH_STATE_DIR" in done.stderr


def test_other_machines_are_not_let_in_without_tokens(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tipbench", "serve", "--host", "0.0.0.0"]
    done = subprocess.run(command, env=clean_env(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "TIPBENCH_TOKENS_DIR" in done.stderr
