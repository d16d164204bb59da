"""A model's thoughts are no part of its answer, wherever it writes them down: told apart here, whatever the spelling.

`think: false` keeps most models from it, and Ollama takes the thoughts of those it knows into a field of their own. The others
write them into the text, where they would be judged as the tip, and give the model away.
"""

from __future__ import annotations

import re

from tipbench.engines.base import EmptyAnswer

_WORDS = r"(?:think|thinking|thought|thoughts|reasoning|reflection|seed:think|scratchpad)"
_PAIRS = (
    (rf"<\s*{_WORDS}\b[^<>\n]{{0,80}}>", rf"<\s*/\s*{_WORDS}\s*>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    ("◁think▷", "◁/think▷"),
    (r"<\|\s*begin_of_thought\s*\|>", r"<\|\s*end_of_thought\s*\|>"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"<\|channel\|>\s*(?:analysis|commentary)\b", r"<\|channel\|>\s*final\b[^<]{0,40}(?:<\|message\|>)?"),
    (r"<unused94>", r"<unused95>"),
)
_OPEN = re.compile("|".join(f"(?P<o{i}>{begin})" for i, (begin, _) in enumerate(_PAIRS)), re.IGNORECASE)
_CLOSE = [re.compile(end, re.IGNORECASE) for _, end in _PAIRS]
_ANY_CLOSE = re.compile("|".join(f"(?:{end})" for _, end in _PAIRS), re.IGNORECASE)
_MARKS = re.compile(
    r"<\|(?:message|end|return|start|begin_of_solution|end_of_solution|START_RESPONSE|END_RESPONSE)\|>(?:assistant\b)?|"
    r"</?\s*(?:answer|response|solution|final_answer)\s*>",
    re.IGNORECASE,
)


def answer_in(model: str, text: str, thought: bool = False) -> str:
    """What a model said, without its thoughts; `thought` tells that the server put some aside. Raises EmptyAnswer when nothing is left."""
    answer, unfinished = without_thoughts(text)
    if answer.strip():
        return answer
    spent = ": it spent its tokens on thoughts, though it was told not to think" if thought or answer != text else ""
    more = "; give it more of them (--num-predict), or take a model that does not think" if unfinished else ""
    raise EmptyAnswer(f"{model} answered without any text{spent}{more}")


def without_thoughts(text: str) -> tuple[str, bool]:
    """The answer alone, and whether a thought was begun and never ended (all that follows its beginning is taken for it).

    An end without a beginning ends a thought, too: some chat templates write the beginning themselves. Text that has no thought
    in it comes back as it was, to the letter.
    """
    kept, unfinished = _kept(text)
    if kept == [(0, len(text))] and not unfinished:
        return text, False
    return _MARKS.sub("", "".join(text[start:end] for start, end in kept)).strip(), unfinished


def blanked(text: str) -> tuple[str, bool]:
    """The text with blanks in place of thoughts, so that the answer keeps its positions; and whether a thought never ended."""
    kept, unfinished = _kept(text)
    shown = [" "] * len(text)
    for start, end in kept:
        shown[start:end] = text[start:end]
    return "".join(shown), unfinished


def next_thought(text: str, at: int) -> tuple[int, int] | None:
    """(start, end) of the first thought that is begun from `at` on, or of an end without a beginning; None where there is neither."""
    found = _first_mark(text, at)
    if found is None:
        return None
    mark, begins = found
    return mark.start(), (_end_of(text, mark) or len(text)) if begins else mark.end()


def masked(text: str) -> str:
    """The text, as long as it was, with blanks in place of the marks of thoughts; what is said between them stays."""
    return _ANY_CLOSE.sub(lambda mark: " " * len(mark[0]), _OPEN.sub(lambda mark: " " * len(mark[0]), text))


def _kept(text: str) -> tuple[list[tuple[int, int]], bool]:
    """(start, end) of what is no thought, in order, and whether a thought was begun and never ended."""
    kept: list[tuple[int, int]] = []
    place = 0
    while (found := _first_mark(text, place)) is not None:
        mark, begins = found
        if not begins:
            # Ended without a beginning: what came before was thought, from the start of the text.
            kept, place = [], mark.end()
            continue
        kept.append((place, mark.start()))
        close = _end_of(text, mark)
        if close is None:
            return kept, True
        place = close
    return [*kept, (place, len(text))], False


def _first_mark(text: str, at: int) -> tuple[re.Match[str], bool] | None:
    """The first mark of a thought from `at` on, and whether it begins one."""
    begin, end = _OPEN.search(text, at), _ANY_CLOSE.search(text, at)
    if end is not None and (begin is None or end.start() < begin.start()):
        return end, False
    return (begin, True) if begin is not None else None


def _end_of(text: str, begin: re.Match[str]) -> int | None:
    """Where the thought that `begin` opens is over, thoughts inside it included; None when it never is."""
    kind = next(i for i in range(len(_PAIRS)) if begin.group(f"o{i}") is not None)
    opens, closes = re.compile(_PAIRS[kind][0], re.IGNORECASE), _CLOSE[kind]
    depth, place = 1, begin.end()
    while depth:
        close = closes.search(text, place)
        if close is None:
            # Only a thought inside it was ended: the last end that there is counts.
            return place if place > begin.end() and depth else None
        again = opens.search(text, place)
        if again is not None and again.start() < close.start() and kind != 5:
            depth, place = depth + 1, again.end()
            continue
        depth, place = depth - 1, close.end()
    return place
