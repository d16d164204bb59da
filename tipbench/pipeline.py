"""The pipeline, once: which stages a run has, how each is called, who is asked to judge, and when a run goes on.

`tipbench run` walks it in one process, `tipbench serve` with a process for each stage, the DAG with a pod for each. The DAG's file has to drop in
anywhere and imports nothing of this; a test holds its calls to these.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from tipbench.errors import EXIT_SOME_FAILED

SMALLEST_SAMPLE = 6
"""Scenarios that reference judges have to score before anything can be estimated (`stats.ppi.MIN_REFERENCE_SCENARIOS`)."""
ROUND = "__round_"
"""Before a round's number in the id of a chain's run."""


class Step(StrEnum):
    """One step of a run, by the name that it has as a task of the DAG."""

    COLLECT = "collect"
    EXPORT = "export_for_judge"
    SAMPLE = "export_sample"
    JUDGE = "judge"
    AWAIT = "await_scores"
    AWAIT_SAMPLE = "await_sample"
    COMPARE = "compare"


WAITS = frozenset({Step.AWAIT, Step.AWAIT_SAMPLE})
"""Steps in which nothing runs: people or agents score."""


def steps(judge: str, sample: int = 0) -> list[Step]:
    """The steps of a run by its parameters `judge` (manual, llm, baseline or skip) and `sample`, in an order in which each can be taken."""
    if judge == "llm" and sample:
        return [Step.COLLECT, Step.EXPORT, Step.SAMPLE, Step.JUDGE, Step.AWAIT_SAMPLE, Step.COMPARE]
    scoring = {"manual": [Step.AWAIT], "skip": []}.get(judge, [Step.JUDGE])
    return [Step.COLLECT, Step.EXPORT, *scoring, Step.COMPARE]


def faults(config: Mapping[str, Any]) -> dict[str, str]:
    """What no key by itself can say of a run's parameters: key -> what is wrong with it. The DAG's `plan` says the same."""
    found = {}
    judge = config.get("judge")
    if judge == "llm" and not config.get("judge_model"):
        found["judge_model"] = "is needed with judge = llm, e.g. ollama:qwen2.5:1.5b or openai:MODEL"
    sample = int(config.get("sample") or 0)
    if sample and judge != "llm":
        found["sample"] = "is for judge = llm: the LLM scores everything, and people the sample"
    elif sample and config.get("until") == "sure":
        found["sample"] = (
            "is drawn from all scenarios, and until = sure collects them round by round; ask for one of the two"
        )
    elif sample and sample < SMALLEST_SAMPLE:
        found["sample"] = (
            f"{sample} scenarios are too few; it takes {SMALLEST_SAMPLE} to tell how far the LLM can be trusted"
        )
    if sample and not str(config.get("reference") or "").strip(" ,"):
        found["reference"] = "is needed with sample: the names under which people score it"
    if config.get("sample_tips") and not sample:
        found["sample_tips"] = "needs sample: how many scenarios"
    return found


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
        Step.SAMPLE: [
            *("judge", "export", "--out", f"{folder}/sample.json", "--aside", "--for", "manual"),
            *("--sample", str(config.get("sample", 0)), "--tips", str(config.get("sample_tips", 0))),
        ],
        Step.JUDGE: ["judge", "score", file, "--apply", "--with", judge_spec(config)],
        Step.COMPARE: ["compare", "--out", f"{folder}/report", "--reference", str(config.get("reference", ""))],
    }[step]


def goes_on(step: Step, code: int) -> bool:
    """Does a run go on after a step that ended with this exit code?

    What was done in part is done: cells that failed and tips that could not be scored are counted by what follows.
    """
    return code == 0 or (code == EXIT_SOME_FAILED and step in (Step.COLLECT, Step.JUDGE))


def round_id(run_id: str, number: int) -> str:
    """The id of a chain's run for a round: the first run's, and from the second round on its number."""
    first = chain_of(run_id)[0]
    return first if number <= 1 else f"{first}{ROUND}{number}"


def chain_of(run_id: str) -> tuple[str, int]:
    """The first run of the chain that a run is in, and the run's round, from 1."""
    first, mark, number = run_id.rpartition(ROUND)
    return (first, int(number)) if mark and number.isdecimal() else (run_id, 1)
