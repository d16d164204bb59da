"""A marker in every secret that tipbench can be told: it reaches those whom it is for, and no output, log, file or record."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import MlflowServer, clean_env, command_line, free_port
from tests.fakes.ollama_server import FakeOllama
from tests.fakes.openai_server import SCORES, FakeOpenAI
from tests.forked import Forked
from tests.integration.net.test_clients import answering
from tests.integration.test_every_option import commands
from tipbench.cli import cli
from tipbench.net.secret import Secret

pytestmark = pytest.mark.integration
MARK = "zqMARKERqz"
EXPERIMENT = "tip-bench-secrets"
HELD = {
    "OLLAMA_API_KEY": f"ollama-{MARK}\n",
    "MLFLOW_TRACKING_TOKEN": f"token-{MARK}\n",
    "MLFLOW_TRACKING_PASSWORD": f"password-{MARK}",
    "MLFLOW_TRACKING_USERNAME": "ada",
    "OPENAI_API_KEY": f"openai-{MARK}\r\n",
    "TIPBENCH_ENGINE_API_KEY": f"engine-{MARK}\n",
    # Nobody listens there: what is said of that has the host alone.
    "TIPBENCH_NOTIFY_URL": f"http://127.0.0.1:9/hooks/{MARK}",
    "TIPBENCH_AIRFLOW_PASSWORD": f"airflow-{MARK}",
    "TIPBENCH_SESSION_SECRET": f"session-{MARK}",
    "HTTPS_PROXY": f"http://me:{MARK}@127.0.0.1:9",
}


def with_password(url: str) -> str:
    return url.replace("://", f"://ada:pass%40{MARK}@")


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    server = FakeOllama().start()
    yield server
    server.stop()


class Runner:
    """Calls commands with every secret set, and looks at all that they say and leave."""

    def __init__(self, folder: Path, forked: Forked) -> None:
        self.folder = folder
        self._forked = forked
        self.calls = 0
        self.called: set[tuple[str, ...]] = set()

    def __call__(self, *arguments: object, code: int | None = 0, **env: str) -> str:
        self.calls += 1
        words = tuple(str(word) for word in arguments[:2])
        self.called |= {words, words[:1]}
        outcome = self.folder / f"outcome-{self.calls}.json"
        variables = (
            clean_env(self.folder) | HELD | {"TIPBENCH_RESULT_FILE": str(outcome), "TIPBENCH_MLFLOW_RETRY_S": "1"} | env
        )
        done = self._forked.run(command_line(*arguments), env=variables, timeout=240, cwd=self.folder)
        said = done.stdout + done.stderr
        assert MARK not in said, said
        assert "Traceback" not in said, said
        assert code is None or done.returncode == code, said
        return said

    def look(self, *folders: Path) -> None:
        """No file that was written has the marker in it, nor in its name."""
        for folder in (self.folder, *folders):
            for path in folder.rglob("*"):
                assert MARK not in str(path)
                if path.is_file():
                    assert MARK.encode() not in path.read_bytes(), path


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    server = FakeOpenAI(
        content="Write down three things.", models=[{"id": "hosted", "meta": {"n_params": 10**9}}]
    ).start()
    yield server
    server.stop()


def test_no_command_shows_or_leaves_a_secret(
    fake: FakeOllama, provider: FakeOpenAI, own_mlflow: MlflowServer, tmp_path: Path, forked: Forked
) -> None:
    """Every command, with every secret; a command that nobody calls here fails the test."""
    folder = tmp_path / "home"
    folder.mkdir()
    run = Runner(folder, forked)
    store = ("--mlflow-url", with_password(own_mlflow.url), "--experiment", EXPERIMENT)
    ollama = ("--ollama-url", with_password(fake.url), "--models", "small:1b")
    small = ("--prompts", "v1", "--n-scenarios", 2, "--n-tips", 1)
    run("collect", *store, *ollama, *small)
    said = run("judge", "export", *store, "--out", "judge.json")
    assert "--mlflow-url" not in said or "USER:PASSWORD@" in said
    run("judge", "score", "judge.json", "--with", "baseline", "--ollama-url", with_password(fake.url))
    run("judge", "apply", "judge.json", "--mlflow-url", with_password(own_mlflow.url))
    run("compare", *store, "--out", "report")
    run("status", *store, "--json")
    run("models", *ollama, "--mlflow-url", with_password(own_mlflow.url))
    run("doctor", *ollama, *store, code=None)
    run("run", *store, *ollama, *small, "--judge", "baseline", "--out", "again")
    run("judge", "agreement", *store, code=None)
    run("export-scores", *store, "--out", "scores.csv")
    run("import", "scores.csv", "--experiment", f"{EXPERIMENT}-back", "--mlflow-url", with_password(own_mlflow.url))
    run("plan", "--from-data", *store, code=None)
    run("next", *store, code=None)
    run("schema", "config")
    hosted = ("--engine", "openai", "--engine-url", with_password(provider.url), "--models", "hosted")
    run("collect", *store, *hosted, *small)
    provider.content = SCORES
    run("judge", "export", *store, "--out", "second.json")
    run("judge", "score", "second.json", "--with", "openai:hosted", "--base-url", with_password(provider.url), "--apply",
        "--mlflow-url", with_password(own_mlflow.url))  # fmt: skip
    told = {head.get("Authorization", "") for head in provider.headers}
    assert any("YWRh" in one for one in told) or any(MARK in one for one in told), (
        "the secrets reached whom they are for"
    )
    every = {path for path, _ in commands(cli)} - {("serve",)}
    assert every <= run.called, "a command that no secret was tried with"
    receipt = (folder / "report" / "leaderboard.json").read_text()
    assert json.loads(receipt) and (folder / "report" / "report.html").exists()
    run.look(own_mlflow.folder)


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 500, 503])
def test_no_failure_shows_a_secret_even_when_the_server_says_it_back(
    status: int, tmp_path: Path, forked: Forked
) -> None:
    run = Runner(tmp_path, forked)
    basic = b64encode(f"ada:pass@{MARK}".encode()).decode()
    echo = json.dumps(
        {
            "error": f"no: Basic {basic}, Bearer openai-{MARK}",
            "message": f"token-{MARK}",
            "detail": f"pass@{MARK} pass%40{MARK}",
        }
    ).encode()
    with answering(status, echo, {"Location": f"https://u:{MARK}@x/"}) as server:
        url = with_password(server.url)
        run("compare", "--mlflow-url", url, code=None)
        run("models", "--ollama-url", url, code=None) if status < 500 else None
        file = tmp_path / "judge.json"
        file.write_text("{}")
        run("judge", "score", file, "--with", "openai:m", "--base-url", url, code=None)
    run.look()


@pytest.mark.parametrize(
    "arguments",
    [
        ("collect", "--ollama-url", f"http://u:{MARK}/x@h"),
        ("collect", "--ollama-url", f"http://u:80/{MARK}@h"),
        ("collect", "--ollama-url", f"u:{MARK}@h:1"),
        ("compare", "--mlflow-url", f"postgresql://u:{MARK}@h/db"),
        ("compare", "--mlflow-url", f"u:{MARK}@h:5000"),
        ("compare", "--mlflow-url", f"http://h/?token={MARK}"),
        ("serve", "--airflow-url", f"http://u:{MARK}@h:99999"),
        ("serve", "--mlflow-url", f"sqlite://u:{MARK}@h"),
        ("doctor", "--ollama-url", f"https://u:{MARK}@127.0.0.1:9", "--mlflow-url", f"http://u:{MARK}@127.0.0.1:9"),
    ],
    ids=lambda value: " ".join(value[:2]),
)
def test_what_is_wrong_with_an_address_is_said_without_its_secrets(
    arguments: tuple[str, ...], tmp_path: Path, forked: Forked
) -> None:
    Runner(tmp_path, forked)(*arguments, code=None)


def test_what_serve_prints_and_its_routes_have_no_secret(
    own_mlflow: MlflowServer, fake: FakeOllama, tmp_path: Path
) -> None:
    port = free_port()
    environment = clean_env(tmp_path) | HELD | {
        "TIPBENCH_MLFLOW_URL": with_password(own_mlflow.url), "TIPBENCH_OLLAMA_URL": with_password(fake.url),
        "TIPBENCH_MLFLOW_PUBLIC_URL": with_password("http://mlflow.example"), "TIPBENCH_STATE_DIR": str(tmp_path / "state"),
        "TIPBENCH_SPOOL": str(tmp_path / "spool"),
    }  # fmt: skip
    log = tmp_path / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command_line("serve", "--port", port), env=environment, stdout=out, stderr=out)
    try:
        token = ""
        for _ in range(600):
            found = re.search(r"Bearer ([\w-]+)", log.read_text())
            if found:
                token = found[1]
            try:
                if token and httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            threading.Event().wait(0.1)
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, timeout=120
        )
        answers = [client.get("/openapi.json")]
        operations = [(path, method) for path, known in answers[0].json()["paths"].items() for method in known]
        assert len(operations) >= 30
        for path, method in operations:
            if "stream" in path or "events" in path:
                continue
            filled = re.sub(r"\{[^}]*\}", EXPERIMENT, path)
            # What is no body of that route, and says a password: it does not come back.
            body = None if method == "get" else {"ollama_url": f"http://u:{MARK}@h:1", "token": MARK}
            answers.append(client.request(method.upper(), filled, json=body))
        answers.append(client.post("/api/bench/run", json={"ollama_url": with_password(fake.url)}))
        assert answers[-1].status_code == 422 and "password" in answers[-1].text
        answers.append(client.post("/api/bench/run", json={"mlflow_url": f"http://u:{MARK}@h:x"}))
        body: dict[str, Any] = {
            "models": "small:1b", "prompts": "v1", "n_scenarios": 1, "n_tips": 1, "experiment": EXPERIMENT, "judge": "baseline",
            "ollama_url": fake.url,
        }  # fmt: skip
        answers.append(client.post("/api/bench/run", json=body))
        assert answers[-1].status_code in (200, 201, 202), answers[-1].text
        for _ in range(600):
            told = client.get(f"/api/bench/dag-runs/{answers[-1].json()['id']}")
            if told.status_code != 200 or told.json()["state"] in ("success", "failed", "cancelled"):
                break
            threading.Event().wait(0.3)
        answers.append(told)
        for answer in answers:
            assert MARK not in answer.text, answer.request.url
            assert MARK not in str(answer.headers)
    finally:
        process.terminate()
        process.wait(30)
    assert MARK not in log.read_text()
    # One file may have it: what a stage of ours is told, which nobody but this user can read.
    for path in tmp_path.rglob("*"):
        if path.is_file() and MARK.encode() in path.read_bytes():
            assert path.name == "config.json" and path.stat().st_mode & 0o077 == 0, path
    assert told.json()["state"] == "success", told.text


def test_settings_show_nothing() -> None:
    from tipbench.api.settings import from_environment

    settings = from_environment(HELD | {"TIPBENCH_AIRFLOW_URL": with_password("http://airflow:8080")})
    assert MARK not in repr(settings) + str(settings) and isinstance(settings.airflow_password, Secret)
