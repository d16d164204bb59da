"""Blinding: opaque, shuffled, repeatable with the secret and unguessable without it."""

from __future__ import annotations

import pytest

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
