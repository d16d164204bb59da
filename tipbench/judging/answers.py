"""Reading what a chat model answered: the scores where their meaning is sure, a clear refusal where it is not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tipbench.engines.base import Token
from tipbench.engines.thoughts import blanked, masked, next_thought
from tipbench.judging.exchange import ExchangeRubric
from tipbench.judging.fill import JudgmentError

_DECODER = json.JSONDecoder(strict=False)  # a line break inside a string is no doubt
_SPACE = re.compile(r"\s*")
_SCORE = re.compile(r"([+-]?\d+)(?:\.0+)?(?:\s*(?:/|out of|of)\s*(\d+)(?:\.0+)?)?", re.IGNORECASE)
_NESTS = ("scores", "score", "ratings", "rating", "evaluation", "result", "answer", "judgment", "judgement", "criteria")
_REASONS = ("rationale", "reason", "reasoning", "explanation", "justification", "comment")


@dataclass(frozen=True)
class Answer:
    """The scores that a text gives: criterion id -> score, and where in the text each stands."""

    scores: Mapping[str, int]
    rationale: str | None
    spans: Mapping[str, tuple[int, int]]
    """criterion id -> (start, end) of its value in the text that was read"""


class _Value:
    """A JSON value and its place in the text; an object is a list of (key, value), repeated keys and all."""

    def __init__(self, value: Any, start: int, end: int) -> None:
        self.value, self.start, self.end = value, start, end


def read_answer(text: str, rubric: ExchangeRubric) -> Answer:
    """The one complete set of scores in `text`.

    Taken: a JSON object alone, in a fence, or after thoughts (which may have braces in them); keys in any case, by a criterion's id
    or name; scores in an object of their own; 4, "4", "4.0", "4/5". Raises JudgmentError("BrokenAnswer") that says what is not sure:
    nothing complete, two sets that differ, a score off the scale or between two scores.
    """
    shown, unfinished = _without_thoughts(text)
    found: list[Answer] = []
    faults: list[str] = []
    for one in _objects(shown):
        try:
            found.append(_answer(one, rubric))
        except ValueError as error:
            faults.append(str(error))
    if not found:
        if unfinished:
            raise JudgmentError("BrokenAnswer", "the answer is all thoughts, and they do not end")
        words = max(faults, key=len, default="")
        raise JudgmentError("BrokenAnswer", words or f"there is no JSON object in the answer: {_short(text)}")
    if any(dict(one.scores) != dict(found[0].scores) for one in found):
        raise JudgmentError("BrokenAnswer", f"the answer holds {len(found)} sets of scores that differ")
    return found[-1]


def _without_thoughts(text: str) -> tuple[str, bool]:
    """The text with blanks in place of thoughts, and whether one never ended. What stands inside the answer's own JSON is no thought:
    a judge may quote a mark from the tip.
    """
    quoting: list[_Value] = []
    rest, at = text, 0
    while (thought := next_thought(text, at)) is not None:
        start, end = thought
        around = next((one for one in _objects(text, at) if one.end > start), None)
        at = end
        if around is not None and around.start < start:
            quoting.append(around)
            rest = rest[: around.start] + masked(text[around.start : around.end]) + rest[around.end :]
            at = around.end
    shown, unfinished = blanked(rest)
    for one in quoting:
        if shown[one.start] == "{":
            shown = shown[: one.start] + text[one.start : one.end] + shown[one.end :]
    return shown, unfinished


def expected_scores(tokens: Sequence[Token], answer: Answer, rubric: ExchangeRubric) -> dict[str, float] | None:
    """criterion id -> mean of the score under the probabilities of the tokens at its place.

    Probabilities of the scale's scores are made to sum to one; other tokens that might have stood there (a blank, a quote) say nothing of the
    score. None where they cannot be had: no probabilities, a scale with scores of more than one digit, an answer that cannot be
    found in the tokens.
    """
    if not tokens or rubric.scale_max > 9:
        return None
    joined = "".join(token.text for token in tokens)
    try:
        again = read_answer(joined, rubric)
    except JudgmentError:
        return None
    if dict(again.scores) != dict(answer.scores):
        return None
    starts = []
    at = 0
    for token in tokens:
        starts.append(at)
        at += len(token.text)
    expected = {}
    for criterion, (start, end) in again.spans.items():
        digit = re.compile(r"\d").search(joined, start, end)
        if digit is None:
            return None
        place = max(i for i, begin in enumerate(starts) if begin <= digit.start())
        mass: dict[int, float] = {}
        for word, logprob in tokens[place].top:
            bare = word.strip(" \t\n\":'")
            if bare.isdecimal() and rubric.scale_min <= int(bare) <= rubric.scale_max:
                mass[int(bare)] = mass.get(int(bare), 0.0) + math.exp(logprob)
        total = sum(mass.values())
        if total <= 0 or again.scores[criterion] not in mass:
            return None
        expected[criterion] = sum(score * share for score, share in mass.items()) / total
    return expected


def _objects(text: str, start: int = 0) -> Iterator[_Value]:
    """Every outermost JSON object in a text from `start` on; braces that are none are passed over."""
    at = text.find("{", start)
    while at >= 0:
        try:
            value = _value(text, at, 0)
        except (ValueError, IndexError):
            at = text.find("{", at + 1)
            continue
        yield value
        at = text.find("{", value.end)


def _value(text: str, at: int, depth: int) -> _Value:
    """The JSON value that begins at `at`; raises ValueError or IndexError when there is none."""
    if depth > 8:
        raise ValueError("too deep")
    if text[at] in "{[":
        closing = "}" if text[at] == "{" else "]"
        items: list[Any] = []
        here = _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]
        while text[here] != closing:
            if items:
                if text[here] != ",":
                    raise ValueError("no comma")
                here = _SPACE.match(text, here + 1).end()  # type: ignore[union-attr]
                if text[here] == closing:  # a comma too many is no doubt
                    break
            key = ""
            if closing == "}":
                if text[here] != '"':
                    raise ValueError("no key")
                key, here = _DECODER.raw_decode(text, here)
                here = _SPACE.match(text, here).end()  # type: ignore[union-attr]
                if text[here] != ":":
                    raise ValueError("no colon")
                here = _SPACE.match(text, here + 1).end()  # type: ignore[union-attr]
            inner = _value(text, here, depth + 1)
            items.append((key, inner))
            here = _SPACE.match(text, inner.end).end()  # type: ignore[union-attr]
        return _Value(items if closing == "}" else [inner for _, inner in items], at, here + 1)
    value, end = _DECODER.raw_decode(text, at)
    return _Value(value, at, end)


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


def _answer(found: _Value, rubric: ExchangeRubric) -> Answer:
    """The scores of one object; ValueError in words when they are not all there, or not sure."""
    names: dict[str, str] = {}
    for criterion in rubric.criteria:
        for name in (criterion.id, criterion.name):
            names.setdefault(_plain(name), criterion.id)
    values: dict[str, list[_Value]] = {}
    reasons: list[str] = []
    _gather(found, names, values, reasons, 0)
    scores: dict[str, int] = {}
    spans: dict[str, tuple[int, int]] = {}
    for criterion in rubric.criteria:
        given = values.get(criterion.id, [])
        if not given:
            raise ValueError(f"{criterion.id}: no score")
        read = {_score(criterion.id, one.value, rubric) for one in given}
        if len(read) > 1:
            raise ValueError(f"{criterion.id}: stands there {len(given)} times, with different scores")
        scores[criterion.id] = read.pop()
        spans[criterion.id] = (given[-1].start, given[-1].end)
    return Answer(scores, reasons[0].strip() if reasons and reasons[0].strip() else None, spans)


def _gather(
    found: _Value, names: Mapping[str, str], values: dict[str, list[_Value]], reasons: list[str], depth: int
) -> None:
    """Criteria by their id or name, at the top or in an object of their own, in any case."""
    for key, inner in found.value:
        plain = _plain(key)
        criterion = names.get(plain) or names.get(plain.removesuffix("score"))
        if criterion is not None:
            values.setdefault(criterion, []).append(_inner_score(inner))
        elif plain in _REASONS and isinstance(inner.value, str):
            reasons.append(inner.value)
        elif plain in _NESTS and depth < 2:
            if _is_object(inner):
                _gather(inner, names, values, reasons, depth + 1)
            elif isinstance(inner.value, list):
                for entry in inner.value:
                    if isinstance(entry, _Value) and _is_object(entry):
                        _gather_entry(entry, names, values)


def _gather_entry(entry: _Value, names: Mapping[str, str], values: dict[str, list[_Value]]) -> None:
    """One of a list like [{"criterion": "tone", "score": 4}]."""
    fields = {_plain(key): inner for key, inner in entry.value}
    named = [f for f in ("criterion", "id", "name") if f in fields and isinstance(fields[f].value, str)]
    criterion = names.get(_plain(fields[named[0]].value)) if named else None
    if criterion is not None and "score" in fields:
        values.setdefault(criterion, []).append(fields["score"])


def _is_object(found: _Value) -> bool:
    return isinstance(found.value, list) and all(isinstance(item, tuple) for item in found.value) and bool(found.value)


def _inner_score(found: _Value) -> _Value:
    """The score in {"score": 4, "reason": "..."}; anything else as it is."""
    if _is_object(found):
        inner: list[_Value] = [value for key, value in found.value if _plain(key) in ("score", "rating", "value")]
        if len(inner) == 1:
            return inner[0]
    return found


def _score(criterion: str, value: object, rubric: ExchangeRubric) -> int:
    """A value as a score of the scale, or ValueError in words."""
    low, high = rubric.scale_min, rubric.scale_max
    score: int | None = None
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        score = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        score = value
    elif isinstance(value, str):
        match = _SCORE.fullmatch(value.strip())
        if match is not None and len(match[1]) < 20:
            if match[2] is not None and match[2] != str(high):
                raise ValueError(f"{criterion}: {_short(value)} is on another scale than {low} to {high}")
            score = int(match[1])
    if score is None:
        raise ValueError(f"{criterion}: {_short(value)} is no whole number")
    if not low <= score <= high:
        raise ValueError(f"{criterion}: {_short(score)} is outside the scale of {low} to {high}")
    return score


def _short(value: object) -> str:
    if isinstance(value, list):
        return "a list or an object"
    shown = value if isinstance(value, str) else repr(value)
    shown = " ".join(shown.split())
    return repr(shown if len(shown) <= 80 else shown[:77] + "...") if isinstance(value, str) else shown[:80]
