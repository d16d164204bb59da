"""Automatic checks on candidates: cheap, plain and blind to quality, so that a leaderboard shows what a mean hides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

MAX_WORDS = 60
"""Words above which a tip is too long for the place where an app shows it."""
LEAK_WORDS = 8
"""Words in a row, shared with the system text or an example's answer, that count as leakage of the prompt."""
DUPLICATE = 0.9
"""Jaccard similarity of character trigrams from which two candidates of one cell count as near-duplicates."""

_REFUSALS = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:'t|not)|won't|will not) (?:help|assist|provide|give|do)|"
    r"as an ai|as a language model|i do not have the ability)\b",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


@dataclass(frozen=True)
class Flags:
    """What the checks found in one candidate."""

    empty: bool
    refusal: bool
    prompt_leak: bool
    near_duplicate: bool
    too_long: bool
    truncated: bool


NAMES = tuple(field.name for field in fields(Flags))


def clean(text: str) -> str:
    """The text without surrounding white space and without one pair of quotes around all of it; nothing else is touched."""
    text = text.strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1] and text[0] not in text[1:-1]:
        return text[1:-1].strip()
    return text


def check(
    texts: Sequence[str],
    messages: Sequence[Mapping[str, str]],
    done_reasons: Sequence[str | None],
    *,
    max_words: int = MAX_WORDS,
) -> list[Flags]:
    """Flags for the candidates of one cell, in order. `messages` is the chat they answered."""
    return [
        Flags(**{name: name in why for name in NAMES})
        for why in reasons(texts, messages, done_reasons, max_words=max_words)
    ]


def reasons(
    texts: Sequence[str],
    messages: Sequence[Mapping[str, str]],
    done_reasons: Sequence[str | None],
    *,
    max_words: int = MAX_WORDS,
) -> list[dict[str, str]]:
    """For every candidate of one cell, what the checks found: flag -> why, in a few words."""
    # The user's turn is no secret, and a tip may quote the situation.
    secret = _runs(" ".join(m["content"] for m in messages if m["role"] in ("system", "assistant")))
    earlier: list[frozenset[str]] = []
    found = []
    for text, reason in zip(texts, done_reasons, strict=True):
        grams, words, why = _trigrams(text), len(text.split()), dict[str, str]()
        if not text.strip():
            why["empty"] = "no text"
        if refused := _REFUSALS.search(text):
            why["refusal"] = f"says “{refused[0]}”"
        if leaked := _first_run(text, secret):
            why["prompt_leak"] = f"repeats “{leaked}” of the prompt"
        twin = next((n for n, other in enumerate(earlier, 1) if _jaccard(grams, other) >= DUPLICATE), None)
        if twin is not None:
            why["near_duplicate"] = f"almost the same as tip {twin} of this cell"
        if words > max_words:
            why["too_long"] = f"{words} words, over {max_words}"
        if reason == "length":
            why["truncated"] = "cut off at the limit of tokens"
        earlier.append(grams)
        found.append(why)
    return found


def _first_run(text: str, secret: set[tuple[str, ...]]) -> str:
    """The first words in a row that the text has from the secret ones, as one string; empty when there are none."""
    words = _words(text)
    for i in range(len(words) - LEAK_WORDS + 1):
        if tuple(words[i : i + LEAK_WORDS]) in secret:
            end = i + LEAK_WORDS
            while end < len(words) and tuple(words[end - LEAK_WORDS + 1 : end + 1]) in secret:
                end += 1
            return " ".join(words[i : min(end, i + 14)]) + ("…" if end > i + 14 else "")
    return ""


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def _runs(text: str) -> set[tuple[str, ...]]:
    """Every run of LEAK_WORDS words."""
    words = _words(text)
    return {tuple(words[i : i + LEAK_WORDS]) for i in range(len(words) - LEAK_WORDS + 1)}


def _trigrams(text: str) -> frozenset[str]:
    flat = " ".join(_words(text))
    return frozenset(flat[i : i + 3] for i in range(len(flat) - 2))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0
