"""How long `tipbench --help` takes next to a bare Python, and what MLflow's client would have cost every stage.

python -m bench.startup
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 21


def fastest(*commands: list[str]) -> list[tuple[float, float]]:
    """Least wall and least CPU seconds in ROUNDS runs of each command; taken in turns, so that noise hits all alike."""
    wall, cpu = [[float("inf")] * len(commands) for _ in range(2)]
    for _ in range(ROUNDS):
        for i, command in enumerate(commands):
            began = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0, command
            wall[i] = min(wall[i], time.perf_counter() - began)
            cpu[i] = min(cpu[i], usage.ru_utime + usage.ru_stime)
    return list(zip(wall, cpu, strict=True))


def imported(code: str) -> tuple[float, float]:
    """Seconds and peak MiB of a Python that runs `code`."""
    began = time.perf_counter()
    script = f"{code}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return time.perf_counter() - began, int(done.stdout) / 1024


def main() -> None:
    tipbench = str(Path(sys.executable).with_name("tipbench"))
    bare, helped = fastest([sys.executable, "-c", "pass"], [tipbench, "--help"])
    for i, what in enumerate(("on the clock", "of CPU time, which a busy machine does not change")):
        ratio = helped[i] / bare[i]
        print(
            f"tipbench --help / python -c pass: {helped[i] * 1000:.0f} ms / {bare[i] * 1000:.0f} ms {what} = {ratio:.1f}"
        )
    for name, code in (
        ("tipbench's store (httpx)", "import tipbench.store.rest"),
        ("MLflow's client", "from mlflow import MlflowClient; MlflowClient('http://localhost:1')"),
    ):
        seconds, mib = imported(code)
        print(f"importing {name}: {seconds:.2f} s, {mib:.0f} MiB")
    print(f"(this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB)")


if __name__ == "__main__":
    main()
