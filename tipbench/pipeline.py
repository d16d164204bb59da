"""The pipeline, once: which stages a run has, how each is called, who is asked to judge, and when a run goes on.

`tipbench run` walks it in one process, `tipbench serve` with a process for each stage, the DAG with a pod for each. The DAG's file has to drop in
anywhere and imports nothing of this; a test holds its calls to these.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from tipbench.errors import EXIT_SOME_FAILED


class Step(StrEnum):
    """One step of a run, by the name that it has as a task of the DAG."""

    COLLECT = "collect"
    EXPORT = "export_for_judge"
    JUDGE = "judge"
    AWAIT = "await_scores"
    COMPARE = "compare"


def steps(judge: str) -> list[Step]:
    """The steps of a run by its parameter `judge`: manual, llm, baseline or skip."""
    scoring = {"manual": [Step.AWAIT], "skip": []}.get(judge, [Step.JUDGE])
    return [Step.COLLECT, Step.EXPORT, *scoring, Step.COMPARE]


def judge_spec(config: Mapping[str, Any]) -> str:
    """The judge that a pod is: `baseline`, or the LLM of `judge_model`."""
    return "baseline" if config["judge"] == "baseline" else str(config["judge_model"])


def asked_for(config: Mapping[str, Any]) -> str:
    """Who is asked to judge, as `tipbench judge export --for` takes it."""
    judge = str(config["judge"])
    return {"manual": "manual", "skip": "anyone"}.get(judge) or judge_spec(config)


def arguments(step: Step, config: Mapping[str, Any], folder: str) -> list[str]:
    """What `tipbench` is called with for a step; `folder` is the run's own. All else comes from the configuration."""
    file = f"{folder}/judge.json"
    return {
        Step.COLLECT: ["collect"],
        Step.EXPORT: [
            *("judge", "export", "--out", file, "--aside", "--for", asked_for(config)),
            *("--expect", str(config["models"])),
        ],
        Step.JUDGE: ["judge", "score", file, "--apply", "--with", judge_spec(config)],
        Step.COMPARE: ["compare", "--out", f"{folder}/report"],
    }[step]


def goes_on(step: Step, code: int) -> bool:
    """Does a run go on after a step that ended with this exit code?

    What was done in part is done: cells that failed and tips that could not be scored are counted by what follows.
    """
    return code == 0 or (code == EXIT_SOME_FAILED and step in (Step.COLLECT, Step.JUDGE))
