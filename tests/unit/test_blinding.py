"""Blinding: opaque, shuffled, repeatable with the secret and unguessable without it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipbench.judging.blinding import MASK, blind, export_id, mask_names

pytestmark = pytest.mark.unit
CANDIDATES = [(f"run{r}", i) for r in range(20) for i in range(5)]


def test_the_same_secret_and_seed_give_the_same_file() -> None:
    first = blind(CANDIDATES, "s", seed=1, salt="", repeats=0.05)
    assert first == blind(list(reversed(CANDIDATES)), "s", seed=1, salt="", repeats=0.05)
    for other in (
        blind(CANDIDATES, "t", seed=1, salt="", repeats=0.05),
        blind(CANDIDATES, "s", seed=2, salt="", repeats=0.05),
        blind(CANDIDATES, "s", seed=1, salt="ann", repeats=0.05),
    ):
        assert {b.item_id for b in other}.isdisjoint(b.item_id for b in first)
        assert [(b.run_id, b.index) for b in other] != [(b.run_id, b.index) for b in first]


def test_every_candidate_is_there_once_and_repeats_come_in_the_second_half() -> None:
    items = blind(CANDIDATES, "s", seed=0, salt="", repeats=0.1)
    firsts = [(b.run_id, b.index) for b in items if not b.repeat]
    again = [(b.run_id, b.index) for b in items if b.repeat]
    assert sorted(firsts) == sorted(CANDIDATES) and len(again) == 10
    assert len({b.item_id for b in items}) == len(items)
    for repeat in again:
        shown = [n for n, b in enumerate(items) if (b.run_id, b.index) == repeat]
        assert len(shown) == 2 and shown[0] < 50 <= shown[1]


def test_no_repeats_when_none_are_wanted_and_few_items_are_fine() -> None:
    assert len(blind(CANDIDATES, "s", seed=0, salt="", repeats=0.0)) == 100
    assert len(blind(CANDIDATES[:1], "s", seed=0, salt="", repeats=0.05)) == 2
    assert blind([], "s", seed=0, salt="", repeats=0.05) == ()


def test_an_export_id_stands_for_items_and_rubric() -> None:
    items = blind(CANDIDATES, "s", seed=0, salt="", repeats=0)
    assert export_id("s", items, "r") == export_id("s", items, "r")
    assert len({export_id("s", items, "r"), export_id("s", items, "q"), export_id("s", items[1:], "r")}) == 3


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("I am Qwen, made by a company.", f"I am {MASK}, made by a company."),
        ("As Qwen2.5 I think", f"As {MASK} I think"),
        ("qwen2.5:0.5b says hi", f"{MASK} says hi"),
        ("Gemma-3 here", f"{MASK} here"),
        ("Prompt v2-mentor told me", f"Prompt {MASK} told me"),
        ("Call a gemmologist about v12 engines", "Call a gemmologist about v12 engines"),
        ("Drink water now.", "Drink water now."),
    ],
)
def test_names_of_models_and_prompts_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert mask_names(text, ["qwen2.5:0.5b", "gemma3:1b"], ["v1", "v2-mentor"]) == masked


FALCON = ["falcon:7b", "short-tips:latest", "granite3.3:2b", "qwen2.5:0.5b"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("I am Falcon, how can I help?", f"I am {MASK}, how can I help?"),
        ("Falcon here! Drink water.", f"{MASK} here! Drink water."),
        ("falcon-7b thinks", f"{MASK} thinks"),
        ("Falcon 7B says", f"{MASK} says"),
        ("GRANITE3.3 says", f"{MASK} says"),
        ("i'm qwen", f"i'm {MASK}"),
        ("QWEN knows", f"{MASK} knows"),
        ("The prompt short says so.", f"The prompt {MASK} says so."),
        ("Prompt v1 says so.", f"Prompt {MASK} says so."),
    ],
)
def test_a_name_that_could_be_a_word_is_masked_where_it_is_a_name(text: str, masked: str) -> None:
    assert mask_names(text, FALCON, ["v1", "short", "v2-mentor"]) == masked


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            "short brief calm mentor step focus plan granite falcon command tips v1 v2 step-by-step top-5".split()
        ),
        min_size=1,
    ),
    st.sampled_from(
        [
            "Keep it {}.",
            "It is {} and sweet.",
            "I am {} of time.",
            "Take the {} way, as {} as you can.",
            "A {} walk here helps.",
            "{}",
        ]
    ),
)
def test_ordinary_words_stay_whatever_prompts_and_models_are_called(words: list[str], sentence: str) -> None:
    text = " ".join(sentence.format(word, word) for word in words)
    models = [f"{word}:latest" for word in words if word != "top-5"] + ["falcon:7b", "granite3.3:8b"]
    assert mask_names(text, models, words) == text


def test_what_the_scenario_says_is_no_leak() -> None:
    situation = "Gemma, 43, lives with a llama called Qwen."
    assert (
        mask_names("Gemma, feed Qwen first.", ["gemma3:1b", "qwen2.5:0.5b"], [], situation) == "Gemma, feed Qwen first."
    )
    assert MASK in mask_names("I am gemma3.", ["gemma3:1b"], [], situation)
