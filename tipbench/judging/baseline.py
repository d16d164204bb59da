"""The baseline judge: text statistics with published formulas. It tells whether a pipeline works, not which tip is good.

Every score starts from countable facts about the tip and the scenario; `score` lists them in the rationale.
Criteria other than relevance, actionability and tone get the rounded mean of those three.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tipbench.judging.exchange import ExchangeRubric, JudgeIdentity
from tipbench.judging.fill import Judgment

_STOP = frozenset(
    "about after again also because been before being could does doing done each ever every from have having here into just "
    "know like make makes more most much need needs never only other over really same should some such take than that them "
    "then there these they thing things this those time very want wants were what when where which while will with would "
    "your yours".split()
)
_IMPERATIVES = frozenset(
    "add allow answer ask begin block boil book break breathe bring buy call check choose chop close collect cook count cut "
    "decide do drain drink drop eat empty fill find finish fry get give go grab heat hide invite keep leave let lie light list "
    "listen log look mark mix move mute name note offer open pack pause pick place plan plant play pour practise practice "
    "prepare press pull put read recall record remove repeat reply rest ride run save say schedule scramble send set share "
    "shift show shut sit skip sleep slow snip soak speak spend split stand start stay step stir stop stretch switch take talk "
    "tell test text think touch track transfer trim try turn use wait walk warm wash water wear whisper wipe work write".split()
)
_WHEN = re.compile(
    r"\b(?:\d+|one|two|three|four|five|ten|fifteen|twenty|thirty|half|now|today|tonight|tomorrow|morning|evening|minutes?|"
    r"seconds?|hours?|times?|first|before|until|once)\b",
    re.IGNORECASE,
)
_VAGUE = re.compile(
    r"\b(?:make sure|it(?:'s| is) important|try to|consider|a great way|be mindful|focus on|various|overall|in general|"
    r"stay (?:positive|motivated)|remember that|it can be)\b",
    re.IGNORECASE,
)
_COPIED = 8
"""Words in a row from the scenario that count as copying it."""


class BaselineJudge:
    """Deterministic scores from text statistics."""

    @property
    def identity(self) -> JudgeIdentity:
        """Always the same name, so that its scores can be told from every other judge's."""
        return JudgeIdentity(name="baseline", kind="baseline", details={"method": "text statistics"})

    def score(self, rubric: ExchangeRubric, scenario: str, tip: str) -> Judgment:
        """Scores on a 1-5 scale, mapped linearly onto the rubric's own."""
        facts: list[str] = []
        known: dict[str, Callable[[], int]] = {
            "relevance": lambda: _relevance(scenario, tip, facts),
            "actionability": lambda: _actionability(scenario, tip, facts),
            "tone": lambda: _tone(tip, facts),
        }
        points = {name: rate() if tip.strip() else 1 for name, rate in known.items()}
        mean = round(sum(points.values()) / len(points))
        span = rubric.scale_max - rubric.scale_min
        scores = {c.id: rubric.scale_min + round((points.get(c.id, mean) - 1) / 4 * span) for c in rubric.criteria}
        return Judgment(scores, "Text statistics: " + ("; ".join(facts) or "no text") + ".")


def _relevance(scenario: str, tip: str, facts: list[str]) -> int:
    """1 + content words shared with the scenario, at most 5; two points less for a tip that copies the scenario."""
    shared = _stems(scenario) & _stems(tip)
    facts.append(f"{len(shared)} words shared with the scenario")
    points = 1 + min(len(shared), 4)
    if _runs(scenario) & _runs(tip):
        facts.append("copies the scenario")
        points -= 2
    return _clamp(points)


def _actionability(scenario: str, tip: str, facts: list[str]) -> int:
    """2, +1 each for a sentence that begins with an imperative, for a time or number, for a thing from the scenario; -1 for
    vague phrases and for having no imperative in more than 30 words."""
    sentences = [s.split() for s in re.split(r"[.!?;:\n]+|, (?:then|and) ", tip) if s.split()]
    starts = [re.sub(r"\W", "", s[0].lower()) for s in sentences]
    imperative = any(word in _IMPERATIVES for word in starts)
    timed, vague = bool(_WHEN.search(tip)), len(_VAGUE.findall(tip))
    facts.append(
        f"{'an' if imperative else 'no'} imperative, {'a' if timed else 'no'} time or number, {vague} vague phrases"
    )
    points = 2 + imperative + timed + bool(_stems(scenario) & _stems(tip) and imperative) - min(vague, 2)
    return _clamp(points - (not imperative and len(tip.split()) > 30))


def _tone(tip: str, facts: list[str]) -> int:
    """3, +1 for speaking to "you", +1 for 10-40 words; -1 each for more than one exclamation mark or shouting, for speaking of
    itself, for lists or markup, and for more than 60 words."""
    words = tip.split()
    you = bool(re.search(r"\byou(?:r|rs|'\w+)?\b", tip, re.IGNORECASE))
    loud = tip.count("!") > 1 or bool(re.search(r"\b[A-Z]{4,}\b", tip))
    itself = bool(re.search(r"\b(?:I|I'\w+|my|me)\b", tip))
    markup = bool(re.search(r"^\s*(?:[-*#]|\d+[.)])\s|\*\*", tip, re.MULTILINE))
    facts.append(
        f"{len(words)} words"
        + ", says you" * you
        + ", loud" * loud
        + ", speaks of itself" * itself
        + ", markup" * markup
    )
    return _clamp(3 + you + (10 <= len(words) <= 40) - loud - itself - markup - (len(words) > 60))


def _clamp(points: int) -> int:
    return max(1, min(5, points))


def _stems(text: str) -> set[str]:
    """Content words, cut to five letters so that inflections meet."""
    return {word[:5] for word in re.findall(r"[a-zà-ÿ]{4,}", text.lower()) if word not in _STOP}


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[i : i + _COPIED]) for i in range(len(words) - _COPIED + 1)}
