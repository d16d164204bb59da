"""Thoughts inside an answer: never a part of it, whatever the spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tipbench.engines.thoughts import blanked, without_thoughts

pytestmark = pytest.mark.unit
TIP = "Set a timer for ten minutes."
MARK = "zqMARKERqz"
PAIRS = [
    ("<think>", "</think>"),
    ("<THINK>", "</Think>"),
    ("<think >", "</ think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning effort='low'>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]
prose = st.text("abc xyz,.!?\n", max_size=30)


@pytest.mark.parametrize(("begin", "end"), PAIRS)
@given(thought=prose, before=st.sampled_from(["", "\n", "  "]), after=st.sampled_from(["", "\n\n", " "]))
def test_a_finished_thought_is_gone_and_the_tip_stays(
    begin: str, end: str, thought: str, before: str, after: str
) -> None:
    text = f"{before}{begin}{thought}{MARK}{end}{after}{TIP}"
    assert without_thoughts(text) == (TIP, False)


@pytest.mark.parametrize(("begin", "end"), PAIRS)
@given(thought=prose)
def test_an_unfinished_thought_is_no_answer(begin: str, end: str, thought: str) -> None:
    assert without_thoughts(f"{begin}{thought}{MARK}") == ("", True)
    assert without_thoughts(f"{TIP}\n{begin}{thought}{MARK}") == (TIP, True)


@pytest.mark.parametrize(("begin", "end"), PAIRS)
def test_an_end_alone_ends_a_thought_that_the_template_began(begin: str, end: str) -> None:
    assert without_thoughts(f"{MARK} so I say\n{end}\n{TIP}") == (TIP, False)


def test_thoughts_within_thoughts_and_several_of_them() -> None:
    assert without_thoughts(f"<think>{MARK}<think>{MARK}</think>{MARK}</think>{TIP}") == (TIP, False)
    assert without_thoughts(f"<think>{MARK}</think>Set a timer <think>{MARK}</think>now.") == (
        "Set a timer now.",
        False,
    )
    assert without_thoughts("<|begin_of_thought|>x<|end_of_thought|>\n<|begin_of_solution|>Go.<|end_of_solution|>") == (
        "Go.",
        False,
    )


@given(st.text("abc <>/[]THINKthink|.\n", max_size=60))
def test_text_without_a_thought_is_untouched_and_any_text_can_be_read(text: str) -> None:
    answer, unfinished = without_thoughts(text)
    if "think" not in text.lower() and "thought" not in text.lower():
        assert (answer, unfinished) == (text, False)


@pytest.mark.parametrize(
    "text", [" I think so. ", "Think twice: <b>write</b> it down", "1 < 2 > 0", "`<br>` thinking", ""]
)
def test_the_word_alone_is_no_thought(text: str) -> None:
    assert without_thoughts(text) == (text, False)


@given(st.text("ab <>/[]THINKthink|.\n", max_size=80))
def test_what_is_blanked_is_what_is_left_out_and_everything_else_keeps_its_place(text: str) -> None:
    shown, unfinished = blanked(text)
    assert len(shown) == len(text) and all(a in (b, " ") for a, b in zip(shown, text, strict=True))
    answer, same = without_thoughts(text)
    assert same is unfinished and "".join(answer.split()) == "".join(shown.split())


@pytest.mark.parametrize(("begin", "end"), PAIRS)
def test_a_thought_is_blanked_in_place(begin: str, end: str) -> None:
    text = f"{begin}{{1}}{end}{{2}}"
    shown, _ = blanked(text)
    assert shown.strip() == "{2}" and shown.index("{2}") == text.index("{2}")
