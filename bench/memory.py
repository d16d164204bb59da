"""What a loaded model really takes next to the policy's estimate, on a real Ollama: by its own account, and by the kernel's.

    python -m bench.memory --num-ctx 1024,4096 --parallel 1,2

Needs `ollama` on PATH and /proc; starts a server of its own for each number of slots.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.integration.conftest import OllamaServer, start_ollama
from tipbench.engines.base import Options
from tipbench.engines.ollama import OllamaEngine
from tipbench.policy import RUNTIME_OVERHEAD, estimate_memory

MODEL = "smollm2:135m"
MIB = 1024**2


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all below it, shared pages counted once (the kernel's Pss)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return own + sum(resident_bytes(int(child)) for path in children for child in path.read_text().split())


def line(server: OllamaServer, num_ctx: int, parallel: int) -> str:
    """One row: the estimate, Ollama's figure and the kernel's, for a context that is filled as far as a tip fills it."""
    engine = OllamaEngine(server.url)
    facts = engine.describe(MODEL)
    estimate = estimate_memory(facts.size_bytes, facts.kv_bytes_per_token, num_ctx, parallel)
    assert estimate is not None
    idle = resident_bytes(server.process.pid)
    options = Options(num_predict=120, num_ctx=num_ctx, parallel=parallel)
    engine.generate(MODEL, [{"role": "user", "content": "Write a short tip. " * 20}], options, seed=0)
    (resident,) = engine.resident()
    real = resident_bytes(server.process.pid)
    engine.unload(MODEL)
    engine.close()
    return (
        f"{num_ctx:7} {parallel:9} {estimate.total / MIB:10.0f} {(estimate.total - RUNTIME_OVERHEAD) / MIB:18.0f} "
        f"{(resident.size_bytes or 0) / MIB:12.0f} {real / MIB:11.0f} {idle / MIB:12.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-ctx", default="1024,4096")
    parser.add_argument("--parallel", default="1,2")
    arguments = parser.parse_args()
    print("num_ctx     slots   estimate   without overhead  Ollama says   processes  before load  (MiB)", flush=True)
    for parallel in map(int, arguments.parallel.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            server = start_ollama(Path(folder), parallel=parallel)
            for num_ctx in map(int, arguments.num_ctx.split(",")):
                print(line(server, num_ctx, parallel), flush=True)
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()
