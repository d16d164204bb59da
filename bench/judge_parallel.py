"""What LLM judges cost: waiting in parallel for an endpoint that takes its time, and overhead on a real Ollama.

python -m bench.judge_parallel                                    # a fake endpoint with 0.5 s latency, 200 tips
python -m bench.judge_parallel --with ollama:smollm2:135m         # a real server, with and without a rationale
python -m bench.judge_parallel --with embedded:smollm2:135m
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import clean_env, command_line
from tests.unit.test_validate import exchange
from tipbench.catalog import load_scenarios
from tipbench.judging.validate import write_exchange

TIPS = (
    "Put the phone in another room and set a timer for ten minutes.",
    "Write the three points that you must say on one card.",
    "Drink a glass of water, then take the first small step.",
    "Be positive and believe in yourself.",
)


def written(path: Path, tips: int) -> None:
    """An exchange file with tips for the shipped scenarios."""
    scenarios = [s.situation for s in load_scenarios()]
    body = exchange(tips)
    items = tuple(
        item.model_copy(update={"scenario": scenarios[n % len(scenarios)], "tip": f"{TIPS[n % len(TIPS)]} ({n})"})
        for n, item in enumerate(body.items)
    )
    write_exchange(body.model_copy(update={"items": items}), path)


def judge(folder: Path, file: Path, *arguments: object) -> tuple[dict[str, float], float]:
    """What `judge score --json` says, and the seconds that the whole command took."""
    began = time.perf_counter()
    command = command_line("judge", "score", file, *arguments, "--json")
    done = subprocess.run(command, env=clean_env(folder), capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found, time.perf_counter() - began


def endpoint(folder: Path, tips: int, latency: float) -> None:
    fake = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.openai_server", "--delay", str(latency)], stdout=subprocess.PIPE, text=True
    )
    assert fake.stdout is not None
    url = fake.stdout.readline().strip()
    try:
        for parallel in (1, 8):
            n = tips if parallel > 1 else min(tips, 20)
            written(folder / "judge.json", n)
            result, whole = judge(
                folder, folder / "judge.json", "--with", "openai:m", "--base-url", url, "--parallel", parallel
            )
            least = n / parallel * latency
            print(
                f"--parallel {parallel}: {n} tips in {result['wall_s']:.2f} s ({whole:.2f} s with start-up); "
                f"/ ({n} / {parallel} x {latency:g} s) = {result['wall_s'] / least:.3f}",
                flush=True,
            )
    finally:
        fake.kill()


def real(folder: Path, spec: str, url: list[str], tips: int, parallel: int) -> None:
    rates = {}
    for rationale in ("before", "after", "none"):
        written(folder / "judge.json", tips)
        command = ["--with", spec, *url, "--parallel", parallel, "--rationale", rationale]
        result, whole = judge(folder, folder / "judge.json", *command)
        rates[rationale] = result["scored"] / result["wall_s"]
        print(
            f"rationale {rationale}: {result['scored']} tips in {result['wall_s']:.2f} s ({whole:.2f} s with start-up) = "
            f"{rates[rationale]:.2f} tips/s; wall / server's own time = {result['wall_s'] / result['engine_s']:.4f}",
            flush=True,
        )
    print(f"none / before: {rates['none'] / rates['before']:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tips", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--with", dest="spec", default="")
    parser.add_argument("--ollama-url", default="")
    parser.add_argument("--base-url", default="")
    parser.add_argument("--parallel", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.spec:
            url = ["--ollama-url", arguments.ollama_url] if arguments.ollama_url else []
            url += ["--base-url", arguments.base_url] if arguments.base_url else []
            real(Path(temporary), arguments.spec, url, arguments.tips or 26, arguments.parallel)
        else:
            endpoint(Path(temporary), arguments.tips or 200, arguments.latency)


if __name__ == "__main__":
    main()
