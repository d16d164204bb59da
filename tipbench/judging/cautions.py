"""What should make a reader wary of a judge: kinship with a model, no memory of its own scores, a taste for length."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from tipbench.judging.agreement import Consistency

FEW_SCENARIOS = 5
"""With fewer scenarios than this, hardly anything can be known."""
POOR_CONSISTENCY = 0.6
"""A judge that gives fewer of its own scores again exactly is said to be unsteady."""
MIN_REPEATS = 10
FOLLOWS_LENGTH = 0.5
"""A correlation of scores with length, within scenarios, from which on it is said."""
MIN_RUNS = 20
_WORD = re.compile(r"[a-z]{3,}")


def family(model: str) -> str:
    """The family that a model's name begins with: `qwen` of qwen2.5:0.5b, `llama` of hf.co/x/Llama-3.2-1B; empty if none."""
    found = _WORD.match(model.lower().rsplit("/", 1)[-1])
    return found.group() if found else ""


def few_scenarios(n_scenarios: int) -> list[str]:
    """Says how little so few scenarios can tell."""
    if not 0 < n_scenarios < FEW_SCENARIOS:
        return []
    return [
        f"Only {n_scenarios} scenario{'s were' if n_scenarios > 1 else ' was'} judged: with fewer than {FEW_SCENARIOS}, ranks and "
        "differences say very little, and another scenario may turn them round."
    ]


def of_one_family(judges: Iterable[tuple[str, str]], models: Iterable[str]) -> list[str]:
    """Judges, as (name, kind), that are programs of the same family as a model that they judge."""
    by_family: dict[str, list[str]] = defaultdict(list)
    for model in dict.fromkeys(models):
        by_family[family(model)].append(model)
    found = []
    for judge, kind in judges:
        if kind not in ("llm", "agent"):
            continue
        kin = [m for word in _WORD.findall(judge.lower()) for m in by_family.get(word, [])]
        if kin:
            found.append(
                f"Judge {judge} is of the same family as {', '.join(dict.fromkeys(kin))}; models tend to favour their own kind."
            )
    return found


def unsteady(consistency: Iterable[Consistency]) -> list[str]:
    """Judges whose hidden repeats say that they do not score alike twice."""
    return [
        f"Judge {one.judge} gave the same score again to only {one.exact:.0%} of {one.n} repeated scores; it is unsteady."
        for one in consistency
        if one.exact is not None and one.n >= MIN_REPEATS and one.exact < POOR_CONSISTENCY
    ]


def follow_length(judge: str, runs: Sequence[tuple[str, float, float]]) -> list[str]:
    """Says it when a judge's scores follow the length of tips: `runs` are (scenario, mean score, mean words)."""
    by_scenario: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for scenario, score, words in runs:
        by_scenario[scenario].append((score, words))
    centred = [np.array(rows) - np.mean(rows, axis=0) for rows in by_scenario.values() if len(rows) > 1]
    if sum(map(len, centred)) < MIN_RUNS:
        return []
    score, words = np.concatenate(centred).T
    size = float(np.sqrt((score**2).sum() * (words**2).sum()))
    r = float((score * words).sum()) / size if size else 0.0
    if abs(r) < FOLLOWS_LENGTH:
        return []
    return [
        f"Judge {judge} scores {'longer' if r > 0 else 'shorter'} tips higher (correlation {r:+.2f} within scenarios); length may be "
        "what it rewards."
    ]
