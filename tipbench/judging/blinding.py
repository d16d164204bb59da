"""Blinding: opaque ids, a shuffled order and masked names, all derived from a secret that stays in MLflow."""

from __future__ import annotations

import hmac
import random
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

MASK = "█████"


@dataclass(frozen=True)
class Blinded:
    """One item of an exchange file and the candidate behind it; a repeat is a candidate shown a second time."""

    item_id: str
    run_id: str
    index: int
    repeat: bool


def blind(
    candidates: Sequence[tuple[str, int]],
    secret: str,
    *,
    seed: int,
    salt: str,
    repeats: float,
    blocks: Mapping[str, int] | None = None,
) -> tuple[Blinded, ...]:
    """Candidates (run id, index) in a secret order under opaque ids, with `repeats` (a share, 0-1) shown twice.

    The same secret, seed and salt give the same file; without the secret neither ids nor order can be
    computed from run ids. A repeat stands in the second half and its first showing in the first half, so that
    a judge has had time to forget it. `blocks` (run id -> number) puts lower blocks first.
    """
    rng = random.Random(_digest(secret, "order", str(seed), salt))
    order = sorted(candidates)
    rng.shuffle(order)
    if blocks:
        # Block by block, shuffled inside: a judge who stops anywhere leaves whole blocks, and cells that are alike in scenarios.
        order.sort(key=lambda one: blocks.get(one[0], 0))
    items = [Blinded(_digest(secret, salt, str(seed), run, str(i), "first")[:16], run, i, False) for run, i in order]
    half = (len(items) + 1) // 2
    n_repeats = min(half, round(len(items) * repeats + 0.5 - 1e-9)) if repeats > 0 else 0
    for first in rng.sample(items[:half], n_repeats):
        again = _digest(secret, salt, str(seed), first.run_id, str(first.index), "again")[:16]
        items.insert(rng.randint(half, len(items)), Blinded(again, first.run_id, first.index, True))
    return tuple(items)


def export_id(secret: str, items: Sequence[Blinded], rubric_hash: str) -> str:
    """An id for one exchange file: the same items under the same rubric have the same one."""
    return _digest(secret, "export", rubric_hash, *(item.item_id for item in items))[:16]


COINED = frozenset(
    "baichuan chatglm codegemma codellama codestral deepseek devstral exaone gemma glm internlm llama magistral minicpm ministral mistral "
    "mixtral moondream nemotron olmo openthinker phi qwen qwq smollm stablelm tinyllama vicuna".split()
)
"""Families whose names were coined, or are hardly ever written with a capital otherwise. Others (falcon, granite) are words."""

_SELF = (
    r"\b(?:I am|I[’']m|my name is|this is|as|called|named|model|assistant|by|calls? me|the AI|here is|here[’']s|it[’']s|it is)"
    r"[ ,:]+[\"'“‘`]?"
)
_ROLE = r"[\"'”’`]?(?:,? (?:an? |the )?(?:AI|assistant|model|language model|LLM|chatbot)\b| (?:here|speaking)\b)"


def mask_names(text: str, models: Sequence[str], prompts: Sequence[str], situation: str = "") -> str:
    """`text` with the names of models and prompts masked where they are names; ordinary words stay.

    Small models do say who they are, and a judge who reads it is no longer blind. A tag, or a name with a digit in it
    (`qwen2.5:0.5b`, `gemma3`, `v2-mentor`), is no word of any language and is masked wherever it stands. A name that could be a
    word (the family `falcon`, a model or a prompt called `short`) is masked only where it has a capital and the text speaks of it
    as a name ("I am Falcon", "Falcon here"), has the model's own number after it ("falcon-7b"), or follows the word prompt. A
    family that was coined for a model (`Qwen`) is a name whenever it has a capital. What the `situation` says is the scenario's, and stays.
    """
    low = text.lower() if text.isascii() else None
    masks = _masks(tuple(models), tuple(prompts))
    # Nearly no tip has a name in it, and to look for its letters costs a hundredth of what the expressions do.
    if low is not None and not masks.any_needle.search(low):
        return text
    told = {word.lower() for word in re.findall(r"[\w.-]*\w", situation)}
    if not masks.names.isdisjoint(told):
        masks = _masks(tuple(models), tuple(prompts), frozenset(told & masks.names))
    for step in masks.steps:
        if low is None or any(needle in low for needle in step.needles):
            text = step.pattern.sub(step.replacement, text)
    return text


@dataclass(frozen=True)
class _Step:
    """One substitution, and the letters (in lower case) of which a text must have some for it to find anything."""

    pattern: re.Pattern[str]
    replacement: str
    needles: tuple[str, ...]


@dataclass(frozen=True)
class _Masks:
    """What masks the names of some models and prompts."""

    steps: tuple[_Step, ...]
    names: frozenset[str]
    """Every name, in lower case, also those that stay."""
    any_needle: re.Pattern[str]
    """Finds something in a text (in lower case) wherever a step has one of its needles."""


@lru_cache(maxsize=256)
def _masks(models: tuple[str, ...], prompts: tuple[str, ...], told: frozenset[str] = frozenset()) -> _Masks:
    """What masks the names of these models and prompts but for those `told`."""
    names: set[str] = set()
    words: dict[str, set[str]] = {}
    for model in models:
        base = model.rsplit("/", 1)[-1]
        name = base.split(":", 1)[0]
        family = re.split(r"[\d._:-]", name, maxsplit=1)[0]
        names |= {one for one in (model, base) if ":" in one or "/" in one}
        numbers = set(re.findall(r"\d+(?:\.\d+)*", base))
        if re.search(r"\d", name) and len(name) > 2:
            names.add(name)
        else:
            words.setdefault(name, set()).update(numbers)
        if len(family) >= 3:
            words.setdefault(family, set()).update(numbers)
    names |= {prompt for prompt in prompts if re.match(r"v\d+[._-]", prompt, re.IGNORECASE)}
    everything = frozenset(one.lower() for one in (*names, *words))
    steps = list(_masking({name for name in names if name and name.lower() not in told}))
    for word in sorted(words, key=len, reverse=True):
        if word and word.lower() not in told:
            steps += _masking_word(word, words[word])
    for prompt in prompts:
        pattern = rf"(?i)(\bprompt (?:version )?[\"'“‘`]?){re.escape(prompt)}(?![\w-])"
        steps.append(_Step(re.compile(pattern), rf"\g<1>{MASK}", ("prompt",)))
    needles = {needle for step in steps for needle in step.needles}
    # Of nothing, the expression that finds nothing.
    any_needle = re.compile("|".join(map(re.escape, sorted(needles))) or "(?!)")
    return _Masks(tuple(steps), everything, any_needle)


def _masking(names: Collection[str]) -> Iterator[_Step]:
    """Names that are names wherever they stand, with a number that is glued to them."""
    if names:
        pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        whole = re.compile(rf"(?<!\w)(?:{pattern})(?:[-.]?\d[\w.]*)?(?!\w)", re.IGNORECASE)
        yield _Step(whole, MASK, tuple(name.lower() for name in names))


def _masking_word(word: str, numbers: Iterable[str]) -> Iterator[_Step]:
    """A name that could be a word, where it is used as a name; a version that is glued to it goes with it."""
    coined = word.lower() in COINED
    own = "|".join(re.escape(number) for number in sorted(numbers, key=len, reverse=True))
    version = r"v?\d[\w.]*" if coined else rf"v?(?:{own})b?(?!\w)"
    name, start, end = re.escape(word), r"(?<![\w-])", r"(?![\w-])"
    capital = f"(?:{name})" if coined else f"(?:{re.escape(word[:1].upper() + word[1:])}|{re.escape(word.upper())})"
    needles = (word.lower(),)
    if coined or (own and not re.search(r"\d", word)):
        yield _Step(re.compile(rf"{start}{name}[-. ]?{version}", re.IGNORECASE), MASK, needles)
    flags = re.IGNORECASE if coined else 0
    yield _Step(re.compile(rf"((?i:{_SELF})){capital}{end}", flags), rf"\g<1>{MASK}", needles)
    yield _Step(re.compile(rf"{start}{capital}{end}(?=(?i:{_ROLE}))", flags), MASK, needles)
    if coined:
        yield _Step(re.compile(rf"{start}(?=[A-Z])(?i:{name}){end}"), MASK, needles)


def _digest(secret: str, *parts: str) -> str:
    return hmac.new(secret.encode(), "\n".join(parts).encode(), "sha256").hexdigest()
