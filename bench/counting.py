"""What it costs to know what counts, as an experiment grows, on a real MLflow server: from a cold start, and after one new score.

    python -m bench.counting --cells 1000,10000

Cells have three candidates, all scored by one judge in one file. Times are seconds, and relative to one page of a thousand runs read from the
same MLflow in the same run.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.scale import stage
from tests.conftest import MlflowServer
from tipbench.catalog import load_rubric, load_scenarios
from tipbench.collecting.plan import scenario_hash
from tipbench.counting.census import take
from tipbench.counting.judged import Asked
from tipbench.counting.status import status
from tipbench.stages import compare, export
from tipbench.store import Store, now_ms, open_store
from tipbench.store.part import KIND
from tipbench.store.records import Candidate, CellResult, Heading, Judge, PlannedCell, Score, text_hash

TIPS = 3
RUBRIC = load_rubric()


def candidate(index: int, cell: int) -> Candidate:
    return Candidate(
        index=index, seed=index, text=f"Tip {index} of cell {cell}: begin with one small step now.", done_reason="stop", ttft_s=0.1,
        load_s=0.0, prompt_tokens=50, prompt_s=0.1, output_tokens=20, output_s=0.5, total_s=0.6, wall_s=0.6, attempts=1,
    )  # fmt: skip


def fill(store: Store, experiment: str, n_cells: int) -> None:
    """An experiment as `collect` and `judge apply` leave it."""
    experiment_id = store.ensure_experiment(experiment)
    scenarios = load_scenarios()
    prompts = [f"p{i}" for i in range(20)]
    per_model = len(prompts) * len(scenarios)
    models = [f"m{i}:1b" for i in range(max(1, n_cells // per_model))]
    plan = [PlannedCell(f"{m}/{p}/{s.id}", m, p, s.id, TIPS) for m in models for p in prompts for s in scenarios]
    hashes = {s.id: scenario_hash(s) for s in scenarios}
    receipt = {
        "models": {m: {"digest": f"digest of {m}"} for m in models},
        "prompts": {p: f"hash of {p}" for p in prompts},
        "scenarios": hashes,
        "config": {"temperature": 0.7, "seed": 0, "num_predict": 160, "num_ctx": 2048, "engine": "ollama"},
    }
    parent = store.begin_collection(experiment_id, "bench", plan, receipt, {})
    now = now_ms()

    def save(numbered: tuple[int, PlannedCell]) -> tuple[str, tuple[Candidate, ...]]:
        number, cell = numbered
        candidates = tuple(candidate(i, number) for i in range(TIPS))
        params = {
            "temperature": "0.7", "seed": "0", "num_predict": "160", "num_ctx": "2048", "engine": "ollama",
            "model_digest": f"digest of {cell.model}", "prompt_hash": f"hash of {cell.prompt}", "scenario_hash": hashes[cell.scenario],
        }  # fmt: skip
        result = CellResult(
            cell_id=cell.cell_id, collection_id="bench", model=cell.model, prompt=cell.prompt, scenario=cell.scenario,
            situation="A situation.", n_tips=TIPS, params=params, tags={}, candidates=candidates, flags={}, resident_bytes=10**9,
            failure=None, started_ms=now, ended_ms=now + number,
        )  # fmt: skip
        return store.save_cell(experiment_id, parent.run_id, result, None).run_id, candidates

    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(save, enumerate(plan)))
    store.end_collection(parent, "FINISHED", {})
    heading = Heading(Judge("bench", "agent"), RUBRIC.hash, tuple(c.id for c in RUBRIC.criteria))
    scores = [
        Score(run_id, c.index, False, tuple(1 + (n * 7 + k + c.index) % 5 for k in range(3)), now, text_hash(c.text))
        for n, (run_id, candidates) in enumerate(saved)
        for c in candidates
    ]
    store.log_scores(experiment_id, heading, scores, {}, "bench")
    store.index(experiment_id)


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="1000,10000")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        server = MlflowServer(Path(temporary) / "mlflow")
        server.start()
        for n_cells in map(int, arguments.cells.split(",")):
            experiment = f"tip-bench-counting-{n_cells}"
            # In processes of their own: a process has the peak of the one that started it, too.
            alone(fill_and_say, server.url, experiment, n_cells)
            processes(server.url, experiment, Path(temporary))
            alone(measure, server.url, experiment)
        server.stop()


def alone(call: Callable[..., None], *arguments: object) -> None:
    """Run it in a process of its own; raises RuntimeError when that fails."""
    process = multiprocessing.get_context("spawn").Process(target=call, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{call.__name__} failed")


def fill_and_say(url: str, experiment: str, n_cells: int) -> None:
    """Fill the experiment, and print how long that took."""
    began = time.perf_counter()
    fill(open_store(url), experiment, n_cells)
    print(f"{n_cells} cells, filled in {time.perf_counter() - began:.0f} s", flush=True)


def measure(url: str, experiment: str) -> None:
    """Print what each question takes, in a process set up as `tipbench` is."""
    importlib.import_module("tipbench.__main__")
    store = open_store(url)
    experiment_id = store.require_experiment(experiment)
    # The first page that a server is asked for takes longer.
    page = statistics.median(
        timed(lambda: store._backend.page(experiment_id, f"tags.`{KIND}` = 'cell'", [], 1000, "")) for _ in range(5)
    )

    def say(what: str, seconds: float) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"  {what:34} {seconds:6.2f} s  {seconds / page:6.2f} x a page of 1000 runs  peak {peak:4.0f} MiB",
            flush=True,
        )

    say("a page of 1000 runs", page)
    cold = open_store(url)
    say("status, cold", timed(lambda: status(experiment, take(cold.holdings(experiment_id)), RUBRIC.hash)))
    say("status again", timed(lambda: status(experiment, take(cold.holdings(experiment_id)), RUBRIC.hash)))
    fresh = open_store(url)
    census = take(fresh.holdings(experiment_id))
    say(
        "a judge's first file",
        timed(lambda: export.from_census(experiment, experiment_id, census, fresh, RUBRIC, "ann", Asked("ann"))),
    )
    say("leaderboard, cold", timed(lambda: compare.rank(experiment, open_store(url), RUBRIC)))
    one = census.counted[0]
    heading = Heading(Judge("bench", "agent"), RUBRIC.hash, tuple(c.id for c in RUBRIC.criteria))
    fresh.add_scores(experiment_id, heading, [Score(one.run_id, 0, False, (5, 5, 5), now_ms())])
    say("leaderboard after one new score", timed(lambda: compare.rank(experiment, fresh, RUBRIC)))


def processes(url: str, experiment: str, home: Path) -> None:
    """Print what each command takes as a process of its own, start-up included: seconds and peak memory."""
    where = ("--experiment", experiment, "--mlflow-url", url)
    commands = {
        "tipbench status": ("status", *where),
        "tipbench judge export --judge ann": ("judge", "export", "--judge", "ann", "--out", home / "ann.json", *where),
        "tipbench compare": ("compare", "--out", home / "board", *where),
    }
    for words, command in commands.items():
        seconds, peak = stage(*command, home=home)
        print(f"  {words:34} {seconds:6.2f} s as a process of its own  peak {peak:4.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
