"""What collect, export, apply and compare cost per cell as an experiment grows, on a real MLflow server; and each one's peak memory.

    python -m bench.scale --cells 100,1000,10000

A cell is one (model, prompt, scenario) with its two candidates: one MLflow run. The candidates come from an instant fake of Ollama. Times are per
cell and relative to the smallest size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import MlflowServer, clean_env, command_line

PER_MODEL = 24
"""Cells of one model: 3 prompts x 8 scenarios."""


SMALL = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""
"""Starts a command from a small process: the system counts what a process's starter took as that process's own peak."""


def stage(*arguments: object, home: Path) -> tuple[float, float]:
    """Seconds and peak MiB of one tipbench command. Raises RuntimeError with its words when it fails."""
    began = time.perf_counter()
    command = [sys.executable, "-S", "-c", SMALL, *command_line(*arguments)]
    done = subprocess.run(command, env=clean_env(home), capture_output=True, text=True, check=True)
    code, peak = map(int, done.stdout.split())
    if code:
        raise RuntimeError(done.stderr[-2000:])
    return time.perf_counter() - began, peak / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="100,1000,10000")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mlflow = MlflowServer(folder / "mlflow")
        mlflow.start()
        first: dict[str, float] = {}
        for wanted in map(int, arguments.cells.split(",")):
            models = [f"m{i}:1b" for i in range(max(1, round(wanted / PER_MODEL)))]
            n_cells = len(models) * PER_MODEL
            fake = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.ollama_server", *(f"--model={m}" for m in models)],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert fake.stdout is not None
            url = fake.stdout.readline().strip()
            experiment, file = f"tip-bench-scale-{n_cells}", folder / f"{n_cells}.json"
            print(f"{n_cells} cells", flush=True)
            where = ("--mlflow-url", mlflow.url)
            steps = {
                "collect": (
                    "collect",
                    "--models",
                    ",".join(models),
                    "--n-tips",
                    2,
                    "--experiment",
                    experiment,
                    "--ollama-url",
                    url,
                    *where,
                ),
                "export": ("judge", "export", "--experiment", experiment, "--out", file, *where),
                "apply": ("judge", "apply", file, *where),
                "compare": ("compare", "--experiment", experiment, "--out", folder / "report", *where),
            }
            for name, command in steps.items():
                if name == "apply":
                    score(file)
                seconds, mib = stage(*command, home=folder)
                per_cell = seconds / n_cells
                first.setdefault(name, per_cell)
                ratio = per_cell / first[name]
                print(
                    f"  {name:8} {seconds:7.1f} s  {per_cell * 1000:6.2f} ms a cell  {ratio:5.2f} x the smallest  {mib:5.0f} MiB",
                    flush=True,
                )
            fake.kill()
        mlflow.stop()


def score(file: Path) -> None:
    """Fill an exchange file in, as an agent would."""
    body = json.loads(file.read_text())
    body["judge"] = {"name": "bench", "kind": "agent"}
    for n, item in enumerate(body["items"]):
        item["scores"] = {c: 1 + (n * 7 + k) % 5 for k, c in enumerate(item["scores"])}
    file.write_text(json.dumps(body))


if __name__ == "__main__":
    main()
