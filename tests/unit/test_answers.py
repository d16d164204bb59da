"""What is read from a chat model's answer, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_validate import exchange
from tipbench.engines.base import Token
from tipbench.judging.answers import expected_scores, read_answer
from tipbench.judging.fill import JudgmentError

pytestmark = pytest.mark.unit

RUBRIC = exchange(1).rubric
PLAIN = '{"rationale": "It has a step.", "relevance": 4, "actionability": 3, "tone": 5}'
WANTED = {"relevance": 4, "actionability": 3, "tone": 5}


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f"```json\n{PLAIN}\n```",
        f"Here you are:\n```\n{PLAIN}\n```\nI hope this helps {{you}}.",
        f"<think>Maybe {{relevance: 2}} or {json.dumps({**WANTED, 'tone': 1})}?</think>\n{PLAIN}",
        f"The user {{tired}} wants rest {{\"relevance\": 2}}.</think>{PLAIN}",
        f'The set {{1, 2}} of options; first {{"relevance": 1}}, no. {PLAIN}',
        '{"Relevance": 4, "ACTIONABILITY": 3, "Tone": 5}',
        '{"relevance_score": 4, "actionability score": "3", "tone": 5.0}',
        '{"relevance": "4/5", "actionability": "3 / 5", "tone": "5 out of 5"}',
        '{"scores": {"relevance": 4, "actionability": 3, "tone": 5}, "rationale": "x"}',
        '{"Scores": {"Relevance": {"score": 4, "reason": "x"}, "actionability": {"score": "3/5"}, "tone": 5}}',
        '{"scores": [{"criterion": "relevance", "score": 4}, {"name": "Actionability", "score": 3}, {"id": "tone", "score": 5}]}',
        '{"relevance": 4, "actionability": 3, "tone": 5,}',
        PLAIN + "\n" + PLAIN,
        # A judge may quote the mark of a thought from the tip.
        json.dumps({"rationale": "the tip begins with <think> and says little", **WANTED}),
        json.dumps({"rationale": "</think> stands in it, {and} <unused94>", **WANTED}),
        f"<think>hm {{}} </think>{json.dumps({'rationale': 'a <think> is left', **WANTED})}",
        f'{{"rationale": "a <think> is left"}} no, wait</think>{PLAIN}',
    ],
)  # fmt: skip
def test_scores_whose_meaning_is_sure_are_read(text: str) -> None:
    assert read_answer(text, RUBRIC).scores == WANTED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON object"),
        ("I would say 4, 3 and 5.", "no JSON object"),
        ('{"relevance": 4, "actionability": 3}', "tone: no score"),
        ('{"relevance": 4, "actionability": 3, "tone": "8/10"}', "another scale"),
        ('{"relevance": 4, "actionability": 3, "tone": 4.5}', "no whole number"),
        ('{"relevance": 4, "actionability": 3, "tone": "4-5"}', "no whole number"),
        ('{"relevance": 4, "actionability": 3, "tone": true}', "no whole number"),
        ('{"relevance": 4, "actionability": 3, "tone": null}', "no whole number"),
        ('{"relevance": 4, "actionability": 3, "tone": 0}', "outside the scale"),
        ('{"relevance": 4, "actionability": 3, "tone": NaN}', "no whole number"),
        ('{"relevance": 4, "actionability": 3, "tone": 5, "Tone": 4}', "different scores"),
        (PLAIN + ' or {"relevance": 1, "actionability": 3, "tone": 5}', "sets of scores that differ"),
        ("<think>so long {", "do not end"),
        (f"<think>{PLAIN}", "do not end"),
        (PLAIN[:-3], "no JSON object"),
    ],
)
def test_scores_that_are_not_sure_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(JudgmentError, match=words) as caught:
        read_answer(text, RUBRIC)
    assert caught.value.reason == "BrokenAnswer"


@settings(deadline=None)
@given(st.text(alphabet='{}[]",:0123456789 \n\\abtonerlvc/<>think', max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        answer = read_answer(text, RUBRIC)
    except JudgmentError:
        return
    assert set(answer.scores) == set(WANTED) and all(s in range(1, 6) for s in answer.scores.values())


@settings(deadline=None)
@given(
    st.fixed_dictionaries({c: st.integers(1, 5) for c in WANTED}),
    st.one_of(
        st.text(max_size=60), st.sampled_from(["<think>", "a </think> b", "<UNUSED94>", "[THINK] {", "<thought>}"])
    ),
    st.sampled_from(["{}", "```json\n{}\n```", "Well.\n{}\nDone.", "<think>{{ hm }}</think>{}"]),
)
def test_any_scores_come_back_whatever_is_said_beside_them(scores: dict[str, int], words: str, frame: str) -> None:
    body = json.dumps({"rationale": words, **scores})
    text = frame.replace("{}", "\0").replace("{{", "{").replace("}}", "}").replace("\0", body)
    answer = read_answer(text, RUBRIC)
    assert answer.scores == scores
    for criterion, (start, end) in answer.spans.items():
        assert text[start:end] == str(scores[criterion])


def tokens(text: str, at: dict[str, dict[str, float]]) -> list[Token]:
    """One token a character; `at` gives what stood at a criterion's digit (token -> probability)."""
    spans = read_answer(text, RUBRIC).spans
    places = {start: at[c] for c, (start, _) in spans.items() if c in at}
    found = []
    for i, letter in enumerate(text):
        top = places.get(i, {letter: 1.0})
        found.append(Token(letter, tuple((t, math.log(p)) for t, p in top.items())))
    return found


def test_expected_scores_are_the_mean_over_the_scores_that_might_have_stood_there() -> None:
    at = {
        "relevance": {"4": 0.5, "3": 0.25, '"': 0.25},
        "actionability": {"3": 0.8, " 3": 0.1, "2": 0.1},
        "tone": {"5": 1.0},
    }
    answer = read_answer(PLAIN, RUBRIC)
    expected = expected_scores(tokens(PLAIN, at), answer, RUBRIC)
    assert expected is not None
    assert expected == pytest.approx({"relevance": 11 / 3, "actionability": 2.9, "tone": 5.0})


def test_without_probabilities_there_is_no_expected_score() -> None:
    answer = read_answer(PLAIN, RUBRIC)
    assert expected_scores((), answer, RUBRIC) is None
    assert expected_scores([Token(c, ()) for c in PLAIN], answer, RUBRIC) is None
    assert expected_scores([Token("x", (("x", -0.1),))], answer, RUBRIC) is None


def test_a_scale_whose_scores_take_two_digits_has_no_expected_score() -> None:
    wide: Any = RUBRIC.model_copy(update={"scale_max": 10})
    answer = read_answer(PLAIN, wide)
    assert expected_scores(tokens(PLAIN, {}), answer, wide) is None
