"""Leaderboards of many shapes, for tests of how they are shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tipbench.leaderboard.model import AgreementSummary, Cell, Checks, Difference, JudgeSummary, Leaderboard, Refusal


def cell(rank: int, composite: float | None, *, tied: bool | None = True, **more: Any) -> Cell:
    """A cell with plausible figures."""
    half = 0.3
    judged = composite is not None
    fields: dict[str, Any] = {
        "model": f"model{rank}:1b",
        "prompt": "v1",
        "rank": rank,
        "rank_low": max(1, rank - 1) if judged else None,
        "rank_high": rank + 1 if judged else None,
        "composite": composite,
        "ci_low": composite - half if composite is not None else None,
        "ci_high": composite + half if composite is not None else None,
        "se": 0.13 if judged else None,
        "p_best": 0.5 / rank if judged else None,
        "diff_to_best": Difference(
            value=(0.0 if rank == 1 else -0.1 * rank) if judged else None,
            ci_low=-0.5 if judged else None,
            ci_high=0.3 if judged else None,
            p_adjusted=(1.0 if rank == 1 else 0.4 if tied else 0.0004) if judged else None,
        ),
        "tied_with_best": tied if judged else None,
        "n_scenarios": 8,
        "n_expected": 40,
        "n_candidates": 40,
        "n_judged": 40 if judged else 0,
        "n_failed": 0,
        "coverage": 1.0 if judged else 0.0,
        "tokens_per_s": 100.0 - 7 * rank,
        "ttft_s": 0.085,
        "seconds_per_tip": 0.8,
        "peak_memory_bytes": (400 + 300 * (rank % 3)) * 2**20,
        "mean_words": 31.0,
        "pareto": rank < 3 if judged else None,
        "checks": Checks(too_long=rank),
        "relevance": composite,
        "actionability": composite,
        "tone": composite,
    }
    return Cell(**(fields | more))


def board(*cells: Cell, **more: Any) -> Leaderboard:
    """A leaderboard of these cells."""
    fields: dict[str, Any] = {
        "experiment": "tip-bench-sample",
        "created_at": datetime(2026, 3, 4, 5, 6, tzinfo=UTC),
        "rubric_hash": "ab" * 32,
        "rubric_name": "short-tips",
        "scale_min": 1,
        "scale_max": 5,
        "criteria": ("relevance", "actionability", "tone"),
        "weights": {"relevance": 0.5, "actionability": 0.25, "tone": 0.25},
        "method": "A method in one sentence.",
        "seed": 0,
        "judges": (JudgeSummary(name="ann", kind="human", n_judged=80, mean=3.4, self_consistency=0.8),),
        "cells": cells,
    }
    return Leaderboard(**(fields | more))


def typical() -> Leaderboard:
    """Twelve cells of four models: a leader, ties, some behind, one without a judgement, failures and a refusal."""
    cells = []
    for rank in range(1, 13):
        composite = None if rank == 12 else 4.4 - 0.22 * rank
        model = ("qwen2.5:0.5b", "gemma3:1b", "llama3.2:3b", "qwen2.5:1.5b")[rank % 4]
        prompt = ("v1", "v2-mentor", "v3-few-shot")[rank % 3]
        failed = {"n_failed": 2, "failures": {"OOMKilled": 1, "TimedOut": 1}, "coverage": 0.75} if rank == 5 else {}
        cells.append(cell(rank, composite, tied=rank < 4, model=model, prompt=prompt, **failed))
    return board(
        *cells,
        warnings=(
            "The judges agree weakly (Krippendorff's ordinal alpha below 0.667: tone 0.41); trust the ranking less.",
        ),
        agreement=(AgreementSummary(criterion="tone", alpha=0.41, ci_low=0.2, ci_high=0.6),),
        refused=(
            Refusal(model="gemma3:4b", reason="gemma3:4b has 4.30 billion parameters, over the limit of 4 billion"),
        ),
        receipt={"engine.name": "ollama", "node": "n"},
    )
