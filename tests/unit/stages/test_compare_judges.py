"""Boards of several judges: whose opinion they are, what they estimate, and which cell they say to take."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tipbench.catalog import load_rubric
from tipbench.counting.census import take
from tipbench.errors import InputError
from tipbench.leaderboard import words
from tipbench.leaderboard.model import Leaderboard, to_json
from tipbench.leaderboard.options import BoardOptions
from tipbench.stages.compare import rank_holdings
from tipbench.store.records import CellRecord, Holdings, JudgeKind, Run, ScoreRecord

pytestmark = pytest.mark.unit

RUBRIC = load_rubric(None)
CRITERIA = tuple(c.id for c in RUBRIC.criteria)
Score = Callable[[int, int, int], float | None]
"""(cell, scenario, tip) -> a score of all criteria, or None"""


def holdings(n_cells: int, n_scenarios: int, n_tips: int, judges: Mapping[tuple[str, JudgeKind], Score]) -> Holdings:
    """What a store would hold of these judges' scores; the later a cell, the less memory it takes."""
    cells = []
    for c in range(n_cells):
        for s in range(n_scenarios):
            records = []
            for (judge, kind), score in judges.items():
                given = {t: v for t in range(n_tips) if (v := score(c, s, t)) is not None}
                whole = {t: (int(np.clip(np.rint(v), 1, 5)),) * len(CRITERIA) for t, v in given.items()}
                if whole:
                    records.append(ScoreRecord(judge, kind, RUBRIC.hash, CRITERIA, whole))
            params = {"model_digest": f"sha256:{c}", "prompt_hash": "p", "scenario_hash": f"h{s}", "temperature": "0.7"}
            metrics = {"peak_memory_bytes": float(1000 - c) * 2**20, "wall_s": 1.0, "n_candidates": float(n_tips)}
            run = Run(f"run-{c}-{s}", "FINISHED", "", 0, 1, params, metrics, {})
            cells.append(
                CellRecord(run, f"{c}-{s}", f"model{c}", "v1", f"s{s:02}", n_tips, n_tips, None, tuple(records))
            )
    return Holdings("1", tuple(cells), ())


def rank(held: Holdings, **options: Any) -> Leaderboard:
    return rank_holdings("tip-bench-x", held, take(held), RUBRIC, BoardOptions(**options)).leaderboard


def world(
    n_cells: int, n_scenarios: int, n_tips: int, seed: int, behind: Mapping[int, float] | None = None
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    there = 3.4 + 0.4 * rng.standard_normal((1, n_scenarios, 1)) + 0.3 * rng.standard_normal((n_cells, n_scenarios, 1))
    for cell, points in (behind or {}).items():
        there[cell] -= points
    return np.asarray(there + 0.6 * rng.standard_normal((n_cells, n_scenarios, n_tips)))


def scored(there: np.ndarray, seed: int, lenient: float = 0.0, lean: Mapping[int, float] | None = None) -> Score:
    x = there + lenient + 0.4 * np.random.default_rng([seed, 99]).standard_normal(there.shape)
    for cell, points in (lean or {}).items():
        x[cell] += points
    return lambda c, s, t: float(x[c, s, t])


def part(
    score: Score, *, scenarios: int | None = None, cells: tuple[int, ...] | None = None, tips: int | None = None
) -> Score:
    def some(c: int, s: int, t: int) -> float | None:
        if (scenarios is not None and s >= scenarios) or (cells is not None and c not in cells):
            return None
        return None if tips is not None and t >= tips else score(c, s, t)

    return some


@pytest.mark.parametrize(
    "seed", range(1, 7)
)  # with seed 0 the complete judge alone finds a difference: one draw in 20 may
def test_a_second_more_lenient_judge_of_one_model_leaves_two_equal_models_tied(seed: int) -> None:
    there = world(2, 8, 5, seed)
    judges = {("anna", "human"): scored(there, 1), ("ben", "human"): part(scored(there, 2, lenient=1.0), cells=(0,))}
    board = rank(holdings(2, 8, 5, judges))
    alone = rank(holdings(2, 8, 5, judges), judges=("anna",))
    assert [c.diff_to_best for c in board.cells] == [c.diff_to_best for c in alone.cells]
    assert [c.tied_with_best for c in board.cells] == [True, True]
    assert "statistically tied" in board.headline
    assert any("ben (40 of 40 scores)" in w for w in board.warnings)


def test_references_on_a_part_undo_the_bias_of_the_judge_of_all() -> None:
    """The LLM prefers model3, which people find worst; people scored 12 of 30 scenarios."""
    there = world(4, 30, 3, 1, behind={3: 0.9})
    judges = {
        ("anna", "human"): part(scored(there, 1), scenarios=12),
        ("robot", "llm"): scored(there, 2, lenient=0.5, lean={3: 1.6}),
    }
    held = holdings(4, 30, 3, judges)
    alone = rank(held, judges=("robot",))
    assert alone.cells[0].model == "model3" and alone.reference is None
    board = rank(held, references=("anna",))
    assert board.cells[-1].model == "model3" and board.cells[-1].tied_with_best is False
    assert board.reference is not None
    one = board.reference
    assert (one.judges, one.others, one.n_scenarios, one.n_alone) == (("anna",), ("robot",), 12, 18)
    assert one.share == pytest.approx(12 / 30) and 0 < one.weight < 1 and one.worth is not None and one.worth > 12
    robot = next(j for j in board.judges if j.name == "robot")
    assert robot.bias is not None and robot.bias.level is not None and robot.bias.level > 0.5
    worst = next(c for c in robot.bias.cells if c.model == "model3")
    assert worst.ci_low is not None and worst.ci_low > 0.5
    assert "what anna would say, from the scores on 12 scenarios and those of robot on all" in board.headline
    assert any("taken for representative" in w for w in board.warnings)
    assert json.loads(to_json(board))["reference"]["lambda"] == pytest.approx(one.weight)


def test_the_composite_is_the_mean_of_the_criteria_as_without_references() -> None:
    there = world(3, 20, 2, 3)
    judges = {("anna", "human"): part(scored(there, 1), scenarios=8), ("robot", "llm"): scored(there, 2)}
    for cell in rank(holdings(3, 20, 2, judges), references=("anna",)).cells:
        extra = cell.__pydantic_extra__ or {}
        assert np.mean([extra[c] for c in CRITERIA]) == pytest.approx(cell.composite)


def test_cells_that_the_references_never_scored_stand_below_without_a_rank_and_say_why() -> None:
    there = world(4, 20, 2, 5)
    judges = {
        ("anna", "human"): part(scored(there, 1), scenarios=8, cells=(0, 1, 2)),
        ("robot", "llm"): scored(there, 2),
    }
    board = rank(holdings(4, 20, 2, judges), references=("anna",))
    last = board.cells[-1]
    assert (last.model, last.rank, last.unranked, last.composite) == ("model3", None, "never scored by anna", None)
    assert {c.rank for c in board.cells[:3]} == {1, 2, 3}
    assert any("No rank for model3 with v1: never scored by anna" in n for n in words.notes(board))
    old = json.loads(to_json(board, schema=1))
    assert old["schema"] == "tipbench.leaderboard/1" and old["cells"][-1]["rank"] == 4
    assert not {"reference", "recommended", "nearest", "margin", "prefer"} & old.keys()


def test_fewer_than_six_reference_scenarios_are_refused_in_words() -> None:
    there = world(3, 20, 2, 5)
    judges = {("anna", "human"): part(scored(there, 1), scenarios=5), ("robot", "llm"): scored(there, 2)}
    with pytest.raises(InputError, match=r"anna scored 5 scenarios .* takes 6 .*--sample"):
        rank(holdings(3, 20, 2, judges), references=("anna",))


def test_a_reference_that_nobody_knows_is_refused() -> None:
    there = world(2, 8, 2, 5)
    with pytest.raises(InputError, match="no scores by zoe"):
        rank(holdings(2, 8, 2, {("anna", "human"): scored(there, 1)}), references=("zoe",))


def test_a_judge_who_lacks_some_tips_stands_in_only_when_named_and_the_baseline_never_unasked() -> None:
    there = world(3, 20, 2, 6)
    judges = {
        ("anna", "human"): part(scored(there, 1), scenarios=10),
        ("robot", "llm"): part(scored(there, 2), scenarios=19),
        ("baseline", "baseline"): scored(there, 3),
    }
    held = holdings(3, 20, 2, judges)
    board = rank(held, references=("anna",))
    assert board.reference is not None and (board.reference.others, board.reference.weight) == ((), 0)
    assert any("robot lacks 6 of 120 tips" in w for w in board.warnings)
    for name in ("robot", "baseline"):
        named = rank(held, references=("anna",), judges=(name,)).reference
        assert named is not None and named.others == (name,) and named.weight > 0


def test_without_references_the_headline_says_whose_opinion_it_is() -> None:
    there = world(2, 8, 2, 7)
    board = rank(holdings(2, 8, 2, {("anna", "human"): scored(there, 1), ("robot", "llm"): scored(there, 2)}))
    assert "That is the opinion of anna and robot." in board.headline


def test_the_smallest_good_enough_cell_is_recommended_by_memory_and_never_one_shown_worse() -> None:
    there = world(3, 40, 5, 8, behind={2: 1.0})
    board = rank(holdings(3, 40, 5, {("anna", "human"): scored(there, 1)}))
    assert board.margin == pytest.approx(0.3)
    assert board.recommended is not None and board.recommended.model in ("model0", "model1")
    assert f"Take {board.recommended.model} with v1" in board.headline
    strict = rank(holdings(3, 40, 5, {("anna", "human"): scored(there, 1)}), margin=0.01)
    assert strict.recommended is None and strict.nearest is not None and strict.nearest.model == "model1"
    assert "No cell is surely within 0.01 points of the best yet" in strict.headline


def test_few_scenarios_and_kinship_are_warned_of() -> None:
    there = world(2, 4, 2, 9)
    board = rank(holdings(2, 4, 2, {("model-judge:7b", "llm"): scored(there, 1)}))
    assert any("Only 4 scenarios were judged" in w for w in board.warnings)
    assert any("same family as model0, model1" in w for w in board.warnings)


def test_the_same_board_has_the_same_state_and_every_other_one_another() -> None:
    there = world(2, 6, 2, 1)
    held = holdings(2, 6, 2, {("anna", "human"): scored(there, 1), ("robot", "llm"): scored(there, 2)})

    def with_expected(value: float) -> Holdings:
        first, *rest = held.cells
        records = tuple(replace(r, expected={0: (value,) * len(CRITERIA)}) for r in first.scores)
        return replace(held, cells=(replace(first, scores=records), *rest))

    def state(found: Holdings, **options: Any) -> str:
        return rank_holdings("tip-bench-x", found, take(found), RUBRIC, BoardOptions(**options)).state

    boards = [
        (held, {}),
        (held, {"judges": ("anna",)}),
        (held, {"weights": {"tone": 1.0}}),
        (held, {"margin": 0.9}),
        (held, {"prefer": "speed"}),
        (holdings(2, 6, 2, {("anna", "human"): scored(there, 3)}), {}),
        (with_expected(2.5), {"scores": "expected"}),
        (with_expected(2.75), {"scores": "expected"}),
    ]
    states = [state(found, **options) for found, options in boards]
    assert len(set(states)) == len(states)
    assert states == [state(found, **options) for found, options in boards]
    assert state(with_expected(2.5)) == state(with_expected(2.75)) == states[0]
