"""How near collecting comes to the model's own time on a real Ollama, and what the ways to use it cost.

    python -m bench.speed            # 2 models x 2 prompts x 4 scenarios x 3 tips, as often as there are settings

Every figure is a ratio within this run. Needs `ollama` on PATH; starts a server of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.conftest import MlflowServer
from tests.integration.conftest import OllamaServer, start_ollama
from tipbench.config import Config, build
from tipbench.engines.ollama import OllamaEngine
from tipbench.stages import collect
from tipbench.store import open_store

DESIGN = {
    "models": "smollm2:135m,smollm2:135m-brief",
    "prompts": "v1,v2-mentor",
    "n_scenarios": 4,
    "n_tips": 3,
    "num_predict": 80,
    "num_ctx": 1024,
}


def once(
    server: OllamaServer, store_url: str, folder: Path, name: str, **more: object
) -> tuple[float, collect.CollectResult, int]:
    """Wall seconds, the result, and how often the server loaded a model."""
    config: Config = build(
        DESIGN | {"experiment": f"tip-bench-speed-{name}", "ollama_url": server.url, "spool": str(folder / name)} | more
    )
    loads = server.loads()
    engine, store = OllamaEngine(server.url), open_store(store_url)
    began = time.perf_counter()
    result = collect.run(config, engine, store)
    wall = time.perf_counter() - began
    engine.close()
    store.close()
    return wall, result, server.loads() - loads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", type=int, default=2, help="slots for the parallel run")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mlflow = MlflowServer(folder / "mlflow")
        mlflow.start()
        server = start_ollama(folder)
        for attempt in range(arguments.rounds):
            wall, result, loads = once(server, mlflow.url, folder, f"held{attempt}")
            print(
                f"model held for its block: {wall:.1f} s wall / {result.engine_s:.1f} s of Ollama's own = {wall / result.engine_s:.3f}; "
                f"{result.generations} generations, {loads} loads",
                flush=True,
            )
        freed, _, freed_loads = once(server, mlflow.url, folder, "freed", keep_alive="0")
        print(
            f"keep_alive 0 on every request: {freed:.1f} s, {freed_loads} loads = {freed / wall:.2f} x as long",
            flush=True,
        )
        server.process.terminate()
        server.process.wait()
        slots = arguments.parallel
        (folder / "parallel").mkdir()
        server = start_ollama(folder / "parallel", parallel=slots)
        together, _, loads = once(server, mlflow.url, folder, "together", parallel=slots)
        print(f"--parallel {slots}: {together:.1f} s, {loads} loads = {together / wall:.2f} x as long", flush=True)
        server.process.terminate()
        server.process.wait()
        mlflow.stop()


if __name__ == "__main__":
    main()
