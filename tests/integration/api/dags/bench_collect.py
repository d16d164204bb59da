"""The shape of the real DAG with tasks that do nothing: same tasks, same states, no cluster."""

from __future__ import annotations

import time
from typing import Any

from airflow.sdk import DAG, BaseSensorOperator, Param, task


class Never(BaseSensorOperator):
    """Waits as the real sensor does, until the timeout says something short."""

    def poke(self, context: Any) -> bool:
        return bool(context["params"]["judge_timeout_hours"] < 1)


with DAG(
    "bench_collect",
    schedule=None,
    catchup=False,
    params={
        "models": Param("a:1b,b:1b", type="string"),
        "prompts": Param("v1", type="string"),
        "n_tips": Param(5, type="integer", minimum=1),
        "experiment": Param("tip-bench-auto", type="string", pattern=r"^tip-bench-.*$"),
        "judge": Param("manual", type="string"),
        "judge_timeout_hours": Param(168.0, type="number", maximum=500),
    },
):

    @task
    def plan(params: Any = None) -> list[str]:
        return [model.strip() for model in params["models"].split(",")]

    @task(map_index_template="{{ model }}")
    def collect(model: str) -> None:
        if model.startswith("bad"):
            raise RuntimeError(f"{model}: the pod was ended with OOMKilled")
        if model.startswith("slow"):
            time.sleep(600)

    @task(trigger_rule="all_done")
    def export_for_judge() -> str:
        return "/exchange/judge.json"

    @task.branch
    def pick_judge(params: Any = None) -> str:
        return {"manual": "await_scores", "skip": "compare"}.get(params["judge"], "judge")

    @task
    def judge() -> None:
        pass

    @task(trigger_rule="none_failed_min_one_success")
    def compare() -> None:
        pass

    await_scores = Never(task_id="await_scores", mode="reschedule", poke_interval=1)
    collected, chosen, judged, compared = collect.expand(model=plan()), pick_judge(), judge(), compare()
    collected >> export_for_judge() >> chosen >> [judged, await_scores, compared]
    [judged, await_scores] >> compared
