"""What export, apply and compare cost per cell as an experiment grows, on a real MLflow server; and each stage's peak memory.

    python -m bench.scale --cells 100,1000,10000

A cell is one (model, prompt, scenario) with its candidates: one MLflow run. Times are per cell and relative to the smallest size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import MlflowServer, clean_env, command_line
from tipbench.catalog import load_scenarios
from tipbench.store import open_store
from tipbench.store.records import Candidate, CellResult, PlannedCell

SCENARIOS = load_scenarios()


def fill(url: str, experiment: str, n_cells: int) -> None:
    """Put `n_cells` finished cells into MLflow, as collect would."""
    store = open_store(url)
    experiment_id = store.ensure_experiment(experiment)
    cells = [_cell(n) for n in range(n_cells)]
    plan = [PlannedCell(c.cell_id, c.model, c.prompt, c.scenario, c.n_tips) for c in cells]
    parent = store.begin_collection(experiment_id, "scale", plan, {}, {})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda cell: store.save_cell(experiment_id, parent.run_id, cell, None), cells))
    store.end_collection(parent, "FINISHED", {})
    store.close()


def _cell(number: int) -> CellResult:
    scenario = SCENARIOS[number % len(SCENARIOS)]
    group = number // len(SCENARIOS)
    candidates = tuple(
        Candidate(
            index=i, seed=i, text=f"Take step {number * 7 + i} now, and write it down before you go on with the day.",
            done_reason="stop", ttft_s=0.1, load_s=0.0, prompt_tokens=99, prompt_s=0.1, output_tokens=25, output_s=0.5,
            total_s=0.6, wall_s=0.6, attempts=1,
        )
        for i in range(2)
    )  # fmt: skip
    return CellResult(
        cell_id=f"{number:032x}", collection_id="scale", model=f"model-{group // 3}:1b", prompt=f"prompt-{group % 3}",
        scenario=scenario.id, situation=scenario.situation, n_tips=2, params={"seed": "0"}, tags={}, candidates=candidates,
        flags={}, resident_bytes=5 * 10**8, failure=None, started_ms=number, ended_ms=number + 1,
    )  # fmt: skip


def stage(*arguments: object, home: Path) -> tuple[float, float]:
    """Seconds and peak MiB of one tipbench command."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command_line(*arguments), env=clean_env(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        assert process.stderr is not None
        raise RuntimeError(process.stderr.read().decode())
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="100,1000,10000")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mlflow = MlflowServer(folder / "mlflow")
        mlflow.start()
        first: dict[str, float] = {}
        for n_cells in map(int, arguments.cells.split(",")):
            experiment, file = f"tip-bench-scale-{n_cells}", folder / f"{n_cells}.json"
            began = time.perf_counter()
            fill(mlflow.url, experiment, n_cells)
            print(f"{n_cells} cells written in {time.perf_counter() - began:.0f} s", flush=True)
            where = ("--mlflow-url", mlflow.url)
            steps = {
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
