"""How many generations a second tipbench itself can drive: against an instant local server, and a real MLflow.

python -m bench.throughput
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import MlflowServer, clean_env, command_line


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mlflow = MlflowServer(folder / "mlflow")
        mlflow.start()
        fake = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.ollama_server"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert fake.stdout is not None
        url = fake.stdout.readline().strip()
        rates = {}
        for parallel in (1, 16):
            command = command_line(
                "collect", "--models", "small:1b", "--n-tips", 100, "--experiment", f"tip-bench-rate-{parallel}", "--parallel",
                parallel, "--ollama-url", url, "--mlflow-url", mlflow.url, "--json",
            )  # fmt: skip
            began = time.perf_counter()
            done = subprocess.run(command, env=clean_env(folder), capture_output=True, text=True, check=True)
            wall = time.perf_counter() - began
            result = json.loads(done.stdout)
            rates[parallel] = result["generations"] / result["wall_s"]
            print(
                f"--parallel {parallel}: {result['generations']} generations in {result['wall_s']:.1f} s "
                f"({wall:.1f} s with start-up) = {rates[parallel]:.0f} a second",
                flush=True,
            )
        print(f"16 slots / 1: {rates[16] / rates[1]:.2f}")
        fake.kill()
        mlflow.stop()


if __name__ == "__main__":
    main()
