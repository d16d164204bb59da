"""What `kill -9` costs: collecting is killed at random moments, over and over, and then counted.

    python -m bench.kills --kills 20

Prints the generations made in all next to those needed, and what stands in MLflow at the end.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from tests.conftest import MlflowServer, clean_env, command_line
from tests.fakes.ollama_server import FakeOllama
from tipbench.store import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mlflow = MlflowServer(folder / "mlflow")
        mlflow.start()
        fake = FakeOllama(delay=0.05)
        fake.add("other:2b", 2_000_000_000)
        fake.start()
        command = command_line(
            "collect", "--models", "small:1b,other:2b", "--experiment", "tip-bench-kills", "--ollama-url", fake.url,
            "--mlflow-url", mlflow.url, "--json",
        )  # fmt: skip
        killed = 0
        for _ in range(arguments.kills):
            process = subprocess.Popen(
                command, env=clean_env(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(rng.uniform(0.3, 2.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        done = subprocess.run(command, env=clean_env(folder), capture_output=True, text=True, check=True)
        store = open_store(mlflow.url)
        experiment = store.require_experiment("tip-bench-kills")
        runs = list(store._runs(experiment, "cell"))
        made, needed = fake.generations.total(), 48 * 5
        print(f"{killed} kills; {made} generations made / {needed} needed = {made / needed:.3f}")
        print(
            f"cells in MLflow: {len(runs)} of 48, {len({r.tags['tipbench.cell_id'] for r in runs})} distinct, {dict(Counter(r.status for r in runs))}"
        )
        print(f"the last run found {json.loads(done.stdout)['skipped']} cells there")
        fake.stop()
        mlflow.stop()


if __name__ == "__main__":
    main()
