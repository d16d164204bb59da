"""A real API server on a real store, filled with experiments."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from tests.conftest import free_port
from tests.integration.api.laptop import Laptop, an_ollama
from tipbench.api.app import create_app
from tipbench.api.settings import Settings, from_environment
from tipbench.catalog import load_scenarios
from tipbench.store import Store, open_store
from tipbench.store.records import Candidate, CellResult, Failure, PlannedCell

TOKEN = "a-token-for-tests"
CRITERIA = ("relevance", "actionability", "tone")


class Server:
    """The app under uvicorn in a thread, and a client that has the token."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_config=None, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self.client = self.session(bearer=TOKEN)

    def session(self, bearer: str | None = None) -> httpx.Client:
        """A client of its own, with a cookie jar of its own."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def start(self) -> None:
        """Serve, and return once it does."""
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started:
            assert self._thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop as a signal would."""
        self.client.close()
        self._server.should_exit = True
        self._thread.join(40)


def settings_for(store_url: str, folder: Path, **changes: Any) -> Settings:
    """Settings that wait for nothing long."""
    keys = {name: changes.pop(name) for name in list(changes) if name.isupper()}
    environment = {
        "TIPBENCH_MLFLOW_URL": store_url,
        "TIPBENCH_STATE_DIR": str(folder / f"state-{free_port()}"),
        "TIPBENCH_SPOOL": str(folder / "spool"),
        "TIPBENCH_OLLAMA_URL": f"http://127.0.0.1:{free_port()}",
        **{f"TIPBENCH_{name}": value for name, value in keys.items()},
    }
    return replace(from_environment(environment), **{"retry_s": 0.5, **changes})


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(store_url, MODELS="a:1b", read_s=1)`: a server; capitals are TIPBENCH_ variables, others are settings."""
    with ExitStack() as stack:

        def start(store_url: str, *, tokens: dict[str, str] | None = None, **changes: Any) -> Server:
            settings = settings_for(store_url, tmp_path, **changes)
            known = None if settings.tokens_dir else {"tests": TOKEN} if tokens is None else tokens
            server = Server(create_app(settings, known))
            server.start()
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="module")
def shared(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server on a real MLflow, for tests that keep apart by experiment names."""
    folder = tmp_path_factory.mktemp("api")
    server = Server(create_app(settings_for(mlflow_server.url, folder), {"tests": TOKEN}))
    server.start()
    yield server
    server.stop()


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """The store, for filling it."""
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def fill(
    url: str,
    experiment: str,
    *,
    models: Sequence[str] = ("small:1b", "tiny:1b"),
    prompts: Sequence[str] = ("v1",),
    n_scenarios: int = 3,
    n_tips: int = 2,
    failed: Sequence[str] = (),
    words: str = "",
) -> None:
    """Save cells as a collection would; those of the models in `failed` have failed. Again with other models adds to them."""
    with opened(url) as store:
        experiment_id = store.ensure_experiment(experiment)
        known = {cell.cell_id: cell.run for cell in store.cell_runs(experiment_id)}
        scenarios = load_scenarios()[:n_scenarios]
        plan = [
            PlannedCell(f"{experiment}/{m}/{p}/{s.id}", m, p, s.id, n_tips)
            for m in models
            for p in prompts
            for s in scenarios
        ]
        parent = store.begin_collection(experiment_id, "-".join(models), plan, {}, {})
        situation = {s.id: s.situation for s in scenarios}
        now = int(time.time() * 1000)
        for number, cell in enumerate(plan):
            candidates = tuple(
                Candidate(
                    index=i,
                    seed=i,
                    text=f"Tip {i} of {cell.scenario}: begin with one small step now. {words}{number}",
                    done_reason="stop",
                    ttft_s=0.1,
                    load_s=0.0,
                    prompt_tokens=50,
                    prompt_s=0.1,
                    output_tokens=20,
                    output_s=0.5 + len(cell.model) / 100,
                    total_s=0.7,
                    wall_s=0.7,
                    attempts=1,
                )
                for i in range(n_tips)
            )
            bad = cell.model in failed
            result = CellResult(
                cell_id=cell.cell_id,
                collection_id="-".join(models),
                model=cell.model,
                prompt=cell.prompt,
                scenario=cell.scenario,
                situation=situation[cell.scenario],
                n_tips=n_tips,
                params={"temperature": "0.7", "seed": "0", "num_predict": "160", "num_ctx": "2048"},
                tags={},
                candidates=() if bad else candidates,
                flags={},
                resident_bytes=100_000_000 * len(cell.model),
                failure=Failure(reason="OutOfMemory", message="it did not fit") if bad else None,
                started_ms=now - 1000,
                ended_ms=now + number,
            )
            store.save_cell(experiment_id, parent.run_id, result, known.get(cell.cell_id))
        store.end_collection(parent, "FINISHED", {})


Scoring = Callable[[dict[str, Any]], dict[str, int]]


def scores_for(item: dict[str, Any], shift: int = 0) -> dict[str, int]:
    """Scores that differ between tips and are the same for the same tip."""
    base = sum(map(ord, item["tip"]))
    return {c: 1 + (base + n + shift) % 5 for n, c in enumerate(CRITERIA)}


def put_scores(
    client: httpx.Client, experiment: str, item: dict[str, Any], by: str, *, shift: int = 0, **changes: object
) -> httpx.Response:
    """Score one item, as the panel does; `changes` replaces parts of the body."""
    body = {
        "export_id": item["export_id"],
        "judge": {"name": by, "kind": "human"},
        "scores": scores_for(item, shift),
        **changes,
    }
    return client.put(f"/api/bench/judging/{experiment}/items/{item['id']}", json=body)


def judge_all(client: httpx.Client, experiment: str, judge: str, *, scope: str = "pending", shift: int = 0) -> int:
    """Score until nothing is handed out any more, as the panel does; how many items it took."""
    count = 0
    while True:
        answer = client.get(
            f"/api/bench/judging/{experiment}/next", params={"judge": judge, "limit": 12, "scope": scope}
        )
        assert answer.status_code == 200, answer.text
        if not answer.json()["items"]:
            return count
        for item in answer.json()["items"]:
            put = put_scores(client, experiment, item, judge, shift=shift)
            assert put.status_code == 200, put.text
            count += 1


def apply_file(
    client: httpx.Client, experiment: str, judge: str, *, kind: str = "human", scores: Scoring = scores_for
) -> int:
    """The same scores in one file, which takes some seconds of a core less; how many items it had."""
    file = client.get(f"/api/bench/judging/{experiment}/export", params={"judge": judge}).json()
    for item in file["items"]:
        item["scores"] = scores(item)
    file["judge"] = {"name": judge, "kind": kind}
    answer = client.post(f"/api/bench/judging/{experiment}/apply", json=file)
    assert answer.status_code == 200, answer.text
    return len(file["items"])


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem details of an answer that has this status."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status and body["instance"].startswith("urn:uuid:") and body["title"]
    return body


@pytest.fixture
def quick(tmp_path: Path, mlflow_url: str) -> Iterator[Laptop]:
    """A laptop whose Ollama answers at once."""
    with an_ollama() as fake:
        laptop = Laptop(tmp_path, fake, mlflow_url)
        yield laptop
        laptop.end()
