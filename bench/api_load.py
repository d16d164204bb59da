"""The API under load, on a real MLflow server: many runs, many clients, and judges who save at the same moment.

    python -m bench.api_load --cells 10000 --clients 50

Reads are compared with asking MLflow for the same directly; figures are requests per second and the 95th percentile. Then two judges
save every tip of a small experiment at once, and the store is asked whether anything is missing. Ends with the API's peak memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx

from bench.counting import alone, fill_and_say
from tests.conftest import MlflowServer, clean_env, free_port
from tests.integration.api.conftest import fill, judge_all, opened, put_scores

TOKEN, BIG = "load", "tip-bench-big"
JUDGES = ("ada", "bob")


class Api:
    """`tipbench serve` as a process of its own."""

    def __init__(self, folder: Path, mlflow_url: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        (folder / "tokens").mkdir()
        (folder / "tokens" / "load").write_text(TOKEN)
        env = clean_env(folder) | {"TIPBENCH_MLFLOW_URL": mlflow_url, "TIPBENCH_TOKENS_DIR": str(folder / "tokens")}
        command = [sys.executable, "-m", "tipbench", "serve", "--port", self.url.rsplit(":", 1)[1]]
        with (folder / "serve.log").open("wb") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        while True:
            try:
                httpx.get(self.url + "/healthz")
                return
            except httpx.TransportError:
                time.sleep(0.2)

    def client(self) -> httpx.Client:
        """A client with the token."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=600)

    def memory(self, what: str) -> float:
        """MiB of the process: VmHWM is the peak, VmRSS the present."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(what))) / 1024

    def stop(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(60)


def hammer(
    name: str, make: Callable[[], httpx.Client], ask: Callable[[httpx.Client], httpx.Response], clients: int, each: int
) -> None:
    """`clients` at once, `each` requests in a row from each; prints the rate and the spread."""

    def work(_: int) -> list[float]:
        times = []
        with make() as client:
            for _ in range(each):
                began = time.perf_counter()
                ask(client).raise_for_status()
                times.append(time.perf_counter() - began)
        return times

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = [t for one in pool.map(work, range(clients)) for t in one]
    wall = time.perf_counter() - began
    p95 = statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
    print(
        f"  {name:44} {clients:3} clients  {len(times) / wall:7.1f} requests/s   median {statistics.median(times) * 1000:8.1f} ms"
        f"   p95 {p95 * 1000:8.1f} ms",
        flush=True,
    )


def reads(api: Api, mlflow_url: str, big: str, experiment_id: str, clients: int, each: int) -> None:
    """The API's pages and leaderboards beside MLflow's own answers."""

    def direct() -> httpx.Client:
        return httpx.Client(base_url=mlflow_url, timeout=600)

    def search(limit: int) -> Callable[[httpx.Client], httpx.Response]:
        body = {"experiment_ids": [experiment_id], "max_results": limit, "filter": "tags.`tipbench.kind` = 'cell'"}
        return lambda client: client.post("/api/2.0/mlflow/runs/search", json=body)

    with api.client() as client:
        began = time.perf_counter()
        client.get("/api/bench/experiments").raise_for_status()
        print(f"  list of experiments, cold                    {time.perf_counter() - began:7.2f} s", flush=True)
        began = time.perf_counter()
        client.get(f"/api/bench/leaderboard/{big}").raise_for_status()
        print(f"  leaderboard, computed                        {time.perf_counter() - began:7.2f} s", flush=True)
        etag = client.get(f"/api/bench/leaderboard/{big}").headers["etag"]
    board = f"/api/bench/leaderboard/{big}"
    hammer("leaderboard, cached", api.client, lambda c: c.get(board), clients, each)
    hammer(
        "leaderboard, cached, not modified",
        api.client,
        lambda c: _not_modified(c, board, etag),
        clients,
        each,
    )
    hammer("runs, 50 a page", api.client, lambda c: c.get(f"/api/bench/runs/{big}?limit=50"), clients, each // 4 or 1)
    hammer("MLflow itself, 50 runs", direct, search(50), clients, each // 4 or 1)
    hammer("MLflow itself, 1000 runs (a tenth of the board)", direct, search(1000), min(clients, 4), 2)
    hammer("experiments", api.client, lambda c: c.get("/api/bench/experiments"), clients, each // 4 or 1)


def _not_modified(client: httpx.Client, path: str, etag: str) -> httpx.Response:
    answer = client.get(path, headers={"If-None-Match": etag})
    return httpx.Response(200 if answer.status_code == 304 else 500, request=answer.request)


def judging(api: Api, mlflow_url: str, small: str) -> None:
    """Two judges score every tip at the same moment; then the store is counted."""
    with api.client() as client:
        items = {
            judge: client.get(f"/api/bench/judging/{small}/next?judge={judge}&scope=all&limit=50").json()["items"]
            for judge in JUDGES
        }
    gate = Barrier(len(JUDGES))
    times: list[float] = []

    def work(judge: str) -> None:
        with api.client() as client:
            for item in items[judge]:
                gate.wait()
                began = time.perf_counter()
                put_scores(client, small, item, judge, shift=len(judge)).raise_for_status()
                times.append(time.perf_counter() - began)

    with ThreadPoolExecutor(len(JUDGES)) as pool:
        list(pool.map(work, JUDGES))
    with api.client() as client:
        for judge in JUDGES:
            judge_all(client, small, judge, scope="all")
    with opened(mlflow_url) as store:
        cells = store.cells(store.require_experiment(small))
    lost = sum(cell.n_candidates - len(r.scores) for cell in cells for r in cell.scores)
    pending = sum(cell.run.tags["judge_pending"] == "true" for cell in cells)
    print(
        f"  {len(times)} scores, two at a time: median {statistics.median(times) * 1000:.0f} ms, "
        f"p95 {statistics.quantiles(times, n=20)[-1] * 1000:.0f} ms; lost {lost}, cells still pending {pending}",
        flush=True,
    )


def second_opinion(api: Api, big: str, n_tips: int = 20) -> None:
    """A third judge in the big experiment: the first tip (the judge's file is made for it), then one after the other."""
    times: dict[str, list[float]] = {"next": [], "save": []}
    with api.client() as client:

        def timed(what: str, ask: Callable[[], httpx.Response]) -> httpx.Response:
            began = time.perf_counter()
            answer = ask().raise_for_status()
            times[what].append(time.perf_counter() - began)
            return answer

        def following() -> dict[str, Any]:
            url = f"/api/bench/judging/{big}/next?judge=cy&scope=all"
            return timed("next", lambda: client.get(url)).json()["items"][0]

        def save(item: dict[str, Any]) -> None:
            timed("save", lambda: put_scores(client, big, item, "cy"))

        for _ in range(n_tips):
            save(following())
    first, *rest = times["next"]
    print(
        f"  a second opinion in the big one: first tip after {first:.1f} s; then saved in {statistics.median(times['save']) * 1000:.0f} ms, "
        f"the next one in {statistics.median(rest) * 1000:.0f} ms (medians of {n_tips}; slowest {max(times['save']):.1f} and {max(rest):.1f} s)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--each", type=int, default=20, help="requests in a row from each client")
    parser.add_argument("--mlflow-url", help="a server that has the big experiment already, of bench.counting, say")
    parser.add_argument("--experiment", default=BIG, help="the big experiment")
    arguments = parser.parse_args()
    big = arguments.experiment
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        url = arguments.mlflow_url
        if url is None:
            mlflow = MlflowServer(folder / "mlflow")
            mlflow.start()
            stack.callback(mlflow.stop)
            url = mlflow.url
            # In a process of its own, as everything that is measured.
            alone(fill_and_say, url, big, arguments.cells)
        with opened(url) as store:
            experiment_id = store.require_experiment(big)
        small = f"tip-bench-small-{os.getpid()}"
        fill(url, small, prompts=("v1", "v2-mentor"), n_scenarios=4)
        api = Api(folder, url)
        stack.callback(api.stop)
        print(f"on {os.cpu_count()} cores that the clients, the API and MLflow share", flush=True)
        print(f"  memory before: {api.memory('VmRSS'):.0f} MiB", flush=True)
        reads(api, url, big, experiment_id, arguments.clients, arguments.each)
        judging(api, url, small)
        second_opinion(api, big)
        print(f"  memory: {api.memory('VmRSS'):.0f} MiB, at its peak {api.memory('VmHWM'):.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
