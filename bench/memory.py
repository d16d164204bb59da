"""What a loaded model really takes next to the policy's estimate, on a real Ollama: for models of true shape and random weights.

    python -m bench.memory
    python -m bench.memory --shapes qwen3:0.6b,phi3:mini --num-ctx 2048 --parallel 1 --kv-cache-type q8_0

Measured is the largest proportional set size of the server's processes while the model reads a prompt of 512 tokens or more and
writes 8; `ratio` is estimate / measured, and 1.00 to 1.15 is what the estimate promises. Needs `ollama` on PATH, room for one
model's file twice in the temporary folder, and as much memory as the largest line says. `--engine embedded` measures llama.cpp in
a process of its own.

Each row is of a server that has just started: one that has loaded several models holds on to some of what they took. `--loads 6`
measures the sixth load, `--arenas 1` under MALLOC_ARENA_MAX=1, as the ollama chart sets it.

`--first-batch` gives each request up once the figure has not grown for 4 s of the runner's CPU time with the model loaded: all
buffers are touched in the first layer of the first 512 tokens, so that the figure is the same but for the logits, at a small part
of the time. There are as many requests at once as there are slots.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import httpx
import psutil

from tests.integration.conftest import OllamaServer, start_ollama
from tests.models.shapes import SHAPES
from tests.models.writing import write
from tipbench.engines.base import Engine, ModelFacts, Options
from tipbench.engines.measuring import open_meter
from tipbench.engines.ollama import OllamaEngine
from tipbench.memory.need import MemoryEstimate
from tipbench.memory.processes import ProcessGauge
from tipbench.policy import need

CONTRACT = "qwen2.5:0.5b,qwen2.5:1.5b,gemma3:1b,llama3.2:3b"
MIB = 1024**2
SETTLED_S = 4.0
"""CPU seconds of the runner without growth after which a first batch has touched what it touches."""
PROMPT = "hello world " * 110
"""At least 512 tokens in the made-up vocabularies, and few enough for a context of 1024."""
HEAD = "shape               num_ctx slots  measured  estimate  ratio  Ollama says  of measured  weights  cache  buffers  overhead  (MiB)"


def numbers(text: str) -> list[int]:
    """`"1,2"` -> `[1, 2]`."""
    return [int(part) for part in text.split(",")]


def runners_time(server: OllamaServer) -> float:
    """Seconds of CPU time that the server's runners have used."""
    spent = 0.0
    for child in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            spent += times.user + times.system
    return spent


def first_batch(facts: ModelFacts, options: Options, server: OllamaServer) -> int:
    """Bytes at the peak of a prompt's first batch; the runner is ended then, as a request that is given up goes on for long."""
    body = {
        "model": facts.name,
        "messages": [{"role": "user", "content": PROMPT}],
        "options": {"num_ctx": options.num_ctx, "num_predict": 8, "num_thread": options.num_thread},
    }

    refused: list[str] = []

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.post(server.url + "/api/chat", json=body, timeout=600)
            refused.extend([answer.text] * answer.is_error)

    gauge = ProcessGauge(server.url)
    asking = [threading.Thread(target=ask, daemon=True) for _ in range(options.parallel)]
    for one in asking:
        one.start()
    peak, grew = 0, 0.0
    while any(one.is_alive() for one in asking):
        size, spent = gauge.read() or 0, runners_time(server)
        if size > peak + MIB:
            grew = spent
        peak = max(peak, size)
        if peak >= (facts.size_bytes or 0) * 0.9 and spent - grew > SETTLED_S:
            break
        time.sleep(0.3)
    if refused:
        raise SystemExit(f"{facts.name}: Ollama says {refused[0]}")
    return peak


def end_runner(server: OllamaServer, name: str) -> None:
    """Have the server without a model in memory."""
    for child in psutil.Process(server.process.pid).children(recursive=True):
        child.kill()
    httpx.post(server.url + "/api/generate", json={"model": name, "keep_alive": 0}, timeout=60)


def line(
    name: str,
    engine: Engine,
    facts: ModelFacts,
    num_ctx: int,
    parallel: int,
    threads: int | None,
    quick: OllamaServer | None = None,
) -> str:
    """One row: what the processes took, what the policy expects, what the engine itself says. `quick`: the first batch only."""
    expected = need(facts, num_ctx, parallel, "ollama" if isinstance(engine, OllamaEngine) else "embedded")
    assert isinstance(expected, MemoryEstimate)
    options = Options(num_predict=8, num_ctx=num_ctx, parallel=parallel, num_thread=threads)
    if quick is not None and isinstance(engine, OllamaEngine):
        measured, source = first_batch(facts, options, quick), "processes"
        says = sum(r.size_bytes or 0 for r in engine.resident())
        end_runner(quick, facts.name)
    else:
        with open_meter(engine).watching() as meter:
            answer = engine.generate(facts.name, [{"role": "user", "content": PROMPT}], options, seed=0)
            meter.look()
            reading = meter.peak()
        says = sum(r.size_bytes or 0 for r in engine.resident())
        engine.unload(facts.name)
        assert reading is not None and (answer.prompt_tokens or 0) >= 512, (reading, answer.prompt_tokens)
        measured, source = reading.size, reading.source
    parts = (expected.weights, expected.kv_cache, expected.compute, expected.overhead)
    return (
        f"{name:19} {num_ctx:7} {parallel:5} {measured / MIB:9.0f} {expected.total / MIB:9.0f} "
        f"{expected.total / measured:6.3f} {says / MIB:12.0f} {says / measured:12.2f} "
        + " ".join(f"{part / MIB:7.0f}" for part in parts)
        + f"  {source}"
    )


def in_ollama(name: str, file: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """Rows of one shape, each of a server that has just started, or of one that has loaded the model some times before."""
    settings = {"MALLOC_ARENA_MAX": str(arguments.arenas)} if arguments.arenas else {}
    if arguments.kv_cache_type:
        settings |= {
            "OLLAMA_KV_CACHE_TYPE": arguments.kv_cache_type,
            "OLLAMA_FLASH_ATTENTION": arguments.flash_attention,
        }
        # The estimate is told the same way.
        os.environ.update(settings)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        with served(Path(folder), 1, {}) as server:
            server.create(name, f"FROM {file}\n")
        for parallel, num_ctx in product(numbers(arguments.parallel), numbers(arguments.num_ctx)):
            with served(Path(folder), parallel, settings) as server:
                for number in range(arguments.loads - 1):
                    load(server, name, 1024 << number % 3)
                engine = OllamaEngine(server.url)
                quick = server if arguments.first_batch else None
                yield line(name, engine, engine.describe(name), num_ctx, parallel, arguments.num_thread, quick)
                engine.close()


@contextlib.contextmanager
def served(folder: Path, parallel: int, settings: dict[str, str]) -> Iterator[OllamaServer]:
    """A server with what is in the folder, for a while."""
    server = start_ollama(folder, parallel=parallel, bare=True, settings=settings)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


def load(server: OllamaServer, name: str, num_ctx: int) -> None:
    """Have the model in memory and out again."""
    body = {"model": name, "prompt": "", "stream": False, "options": {"num_ctx": num_ctx}}
    httpx.post(server.url + "/api/generate", json=body, timeout=600).raise_for_status()
    httpx.post(server.url + "/api/generate", json={"model": name, "keep_alive": 0}, timeout=60).raise_for_status()
    while psutil.Process(server.process.pid).children():
        time.sleep(0.1)


def embedded(name: str, file: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """Rows of one shape, each in a process of its own: what one model leaves behind would be counted for the next."""
    for parallel in numbers(arguments.parallel):
        for num_ctx in numbers(arguments.num_ctx):
            command = [sys.executable, "-m", "bench.memory", "--one", str(file), "--shapes", name]
            command += [
                "--num-ctx",
                str(num_ctx),
                "--parallel",
                str(parallel),
                "--num-thread",
                str(arguments.num_thread),
            ]
            yield subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=CONTRACT, help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--num-ctx", default="1024,2048,8192,32768")
    parser.add_argument("--parallel", default="1,2")
    parser.add_argument("--engine", choices=("ollama", "embedded"), default="ollama")
    parser.add_argument("--kv-cache-type", default="", help="OLLAMA_KV_CACHE_TYPE of the server and for the estimate")
    parser.add_argument(
        "--flash-attention", default="1", help="OLLAMA_FLASH_ATTENTION with --kv-cache-type (default 1)"
    )
    parser.add_argument(
        "--first-batch", action="store_true", help="stop when the first batch is in memory (Ollama only)"
    )
    parser.add_argument(
        "--loads", type=int, default=1, help="which load of a server's life is measured (default: the first)"
    )
    parser.add_argument("--arenas", type=int, default=0, help="MALLOC_ARENA_MAX of the server; default: not set")
    parser.add_argument("--num-thread", type=int, default=2)
    parser.add_argument("--folder", default=None, help="for models; default: the system's temporary folder")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        from tipbench.engines.embedded import EmbeddedEngine

        engine = EmbeddedEngine({arguments.shapes: Path(arguments.one)})
        facts = engine.describe(arguments.shapes)
        print(
            line(arguments.shapes, engine, facts, int(arguments.num_ctx), int(arguments.parallel), arguments.num_thread)
        )
        return
    print(HEAD, flush=True)
    for name in arguments.shapes.split(","):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            file = Path(folder) / "model.gguf"
            write(SHAPES[name], name, file)
            for row in (in_ollama if arguments.engine == "ollama" else embedded)(name, file, arguments):
                print(row, flush=True)


if __name__ == "__main__":
    main()
