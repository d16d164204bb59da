"""What version 0.2.0 kept of scores: the current ones in tags of the cells, which MLflow cuts at 8,000 characters, and every
change in the `changes.json` of judgments. Here both become scores as the log holds them; nothing of 0.2.0's is rewritten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tipbench.store.records import Heading, Judge, Run, Score, judge_version

SCORES = "tipbench.scores."

Judgments = Callable[[], Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]]
"""Reads the old judgments, oldest first: what was applied (exchange.json) and what it changed (changes.json)."""


def legacy_scores(runs: Iterable[Run], judgments: Judgments) -> list[tuple[Heading, Score]]:
    """The scores in the tags of cells' runs. A tag that MLflow has cut is made up for from the old judgments' changes.

    The judgments are read only where the tags do not say enough: for cut ones, and for the version of an LLM judge.
    """
    found: list[tuple[Heading, Score]] = []
    cut: set[str] = set()
    for run in runs:
        for tag, value in run.tags.items():
            if not tag.startswith(SCORES):
                continue
            try:
                found += _from_tag(run.run_id, json.loads(value))
            except ValueError:
                cut.add(run.run_id)
    if not cut and not any(heading.judge.kind == "llm" for heading, _ in found):
        return found
    history = judgments()
    versions = _versions(history)
    found = [
        (_with_version(heading, versions.get((heading.judge.name, score.run_id, score.index), "")), score)
        for heading, score in found
        if score.run_id not in cut
    ]
    return found + [entry for entry in _replayed(history) if entry[1].run_id in cut]


def _from_tag(run_id: str, raw: Mapping[str, Any]) -> list[tuple[Heading, Score]]:
    heading = Heading(Judge(raw["judge"], raw["kind"]), raw["rubric"], tuple(raw["criteria"]))
    return [
        (heading, Score(run_id, int(index), repeat, tuple(scores), 0))
        for repeat, key in ((False, "scores"), (True, "repeats"))
        for index, scores in raw[key].items()
    ]


def _versions(
    history: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]],
) -> dict[tuple[str, str, int], str]:
    """(judge, run id, candidate) -> the version of the judge that scored it last."""
    found = {}
    for exchange, changes in history:
        judge = exchange.get("judge") or {}
        version = judge_version(str(judge.get("kind", "")), judge.get("details") or {})
        for change in changes:
            found[str(change["judge"]), str(change["run_id"]), int(change["candidate"])] = version
    return found


def _with_version(heading: Heading, version: str) -> Heading:
    judge = heading.judge
    if judge.kind != "llm" or not version:
        return heading
    return Heading(Judge(judge.name, judge.kind, version), heading.rubric_hash, heading.criteria, heading.details)


def _replayed(
    history: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]],
) -> list[tuple[Heading, Score]]:
    """Every change that was ever applied, oldest first."""
    found = []
    for exchange, changes in history:
        identity = exchange.get("judge") or {}
        details = identity.get("details") or {}
        kind = identity.get("kind", "human")
        judge = Judge(str(identity.get("name", "?")), kind, judge_version(kind, details))
        by_criteria: dict[tuple[str, ...], Heading] = {}
        for change in changes:
            criteria = tuple(change["criteria"])
            heading = by_criteria.setdefault(
                criteria, Heading(judge, str(exchange.get("rubric_hash", "")), criteria, details)
            )
            at = datetime.fromisoformat(change["applied_at"]).timestamp() * 1000
            found.append(
                (
                    heading,
                    Score(
                        str(change["run_id"]),
                        int(change["candidate"]),
                        bool(change["repeat"]),
                        tuple(change["new"]),
                        int(at),
                        rationale=change.get("rationale"),
                        reason=str(change.get("reason") or ""),
                        item=str(change.get("item") or ""),
                    ),
                )
            )
    return found
