"""Automatic checks on candidates, and the baseline judge's formulas."""

from __future__ import annotations

import json

import pytest

from tipbench.catalog import load_prompts, load_rubric, load_scenarios
from tipbench.judging.baseline import BaselineJudge
from tipbench.judging.checks import check, clean
from tipbench.judging.exchange import ExchangeRubric

pytestmark = pytest.mark.unit
SCENARIO = load_scenarios()[1]
(FEW_SHOT,) = load_prompts(["v3-few-shot"])
MESSAGES = FEW_SHOT.messages(SCENARIO)
GOOD = "Lay the phone face down, and write the three points of your presentation on paper; then close your eyes."


def flags(text: str, reason: str = "stop") -> set[str]:
    (found,) = check([text], MESSAGES, [reason])
    return {name for name, value in vars(found).items() if value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, set()),
        ("", {"empty"}),
        ("  \n", {"empty"}),
        ("I'm sorry, but I can't help with that.", {"refusal"}),
        ("As an AI, I would suggest water.", {"refusal"}),
        ("Sorry seems to be the hardest word; call her now.", set()),
        (" ".join(["word"] * 61), {"too_long"}),
        ("Put the bottle between you and your keyboard, and take three sips now.", {"prompt_leak"}),
        (f"{SCENARIO.situation[:120]}", set()),
    ],
)
def test_a_candidate_is_flagged_for_what_it_is(text: str, expected: set[str]) -> None:
    assert flags(text) == expected


def test_an_answer_that_hit_the_token_limit_is_truncated() -> None:
    assert flags("Breathe in", "length") == {"truncated"}


def test_the_second_of_two_near_duplicates_is_flagged() -> None:
    found = check(
        [GOOD, GOOD.upper() + "!", "Drink a glass of water before you lie down again."], MESSAGES, ["stop"] * 3
    )
    assert [f.near_duplicate for f in found] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [('  "Drink water."\n', "Drink water."), ("“Drink.”", "Drink."), ('"Drink," she said, "now."', '"Drink," she said, "now."'),
     ("Don't", "Don't"), ("", ""), ('"', '"')],
)  # fmt: skip
def test_cleaning_takes_white_space_and_one_pair_of_quotes_and_nothing_else(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


RUBRIC = ExchangeRubric.model_validate_json(json.dumps(load_rubric().judge_view()))


def test_the_baseline_judge_tells_a_concrete_tip_from_a_vague_and_an_empty_one() -> None:
    judge = BaselineJudge()
    good = judge.score(RUBRIC, SCENARIO.situation, GOOD).scores
    vague = judge.score(
        RUBRIC, SCENARIO.situation, "It is important to stay positive. Consider various approaches!! WOW GREAT"
    ).scores
    empty = judge.score(RUBRIC, SCENARIO.situation, "").scores
    assert all(good[c] > vague[c] for c in good)
    assert set(empty.values()) == {1}
    assert judge.score(RUBRIC, SCENARIO.situation, GOOD).scores == good
    assert judge.identity.kind == "baseline"


def test_the_baseline_judge_stays_on_another_rubrics_scale() -> None:
    rubric = RUBRIC.model_copy(update={"scale_min": 0, "scale_max": 10, "criteria": RUBRIC.criteria[:1]})
    scores = BaselineJudge().score(rubric, SCENARIO.situation, GOOD).scores
    assert set(scores) == {"relevance"} and 0 <= scores["relevance"] <= 10
