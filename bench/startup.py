"""How long `tipbench --help` takes next to a bare Python, and what MLflow's client would have cost every stage.

python -m bench.startup
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 21


def fastest(*commands: list[str]) -> list[float]:
    """The fastest of ROUNDS runs of each command, in seconds; taken in turns, so that noise hits all alike."""
    best = [float("inf")] * len(commands)
    for _ in range(ROUNDS):
        for i, command in enumerate(commands):
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            best[i] = min(best[i], time.perf_counter() - began)
    return best


def imported(code: str) -> tuple[float, float]:
    """Seconds and peak MiB of a Python that runs `code`."""
    began = time.perf_counter()
    script = f"{code}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return time.perf_counter() - began, int(done.stdout) / 1024


def main() -> None:
    tipbench = str(Path(sys.executable).with_name("tipbench"))
    bare, helped = fastest([sys.executable, "-c", "pass"], [tipbench, "--help"])
    print(f"tipbench --help / python -c pass: {helped * 1000:.0f} ms / {bare * 1000:.0f} ms = {helped / bare:.1f}")
    for name, code in (
        ("tipbench's store (httpx)", "import tipbench.store.rest"),
        ("MLflow's client", "from mlflow import MlflowClient; MlflowClient('http://localhost:1')"),
    ):
        seconds, mib = imported(code)
        print(f"importing {name}: {seconds:.2f} s, {mib:.0f} MiB")
    print(f"(this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB)")


if __name__ == "__main__":
    main()
