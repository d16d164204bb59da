"""Blinding: opaque ids, a shuffled order and masked names, all derived from a secret that stays in MLflow."""

from __future__ import annotations

import hmac
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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


def mask_names(text: str, models: Sequence[str], prompts: Sequence[str]) -> str:
    """`text` with every model's tag, name and family, and every prompt's name, masked.

    Small models do say who they are; a judge who reads it is no longer blind.
    """
    names: set[str] = set()
    for model in models:
        base = model.rsplit("/", 1)[-1]
        name = base.split(":", 1)[0]
        family = re.split(r"[\d._-]", name, maxsplit=1)[0]
        names |= {model, base, name} | ({family} if len(family) >= 4 else set())
    # A family is masked with what is glued to it: "Qwen2.5", "Gemma-3".
    text = _mask(text, names, r"(?:[-.]?\d[\w.]*)?")
    return _mask(text, prompts, "")


def _mask(text: str, names: Iterable[str], tail: str) -> str:
    pattern = "|".join(re.escape(name) for name in sorted(set(names), key=len, reverse=True) if name)
    return re.sub(rf"(?<!\w)(?:{pattern}){tail}(?!\w)", MASK, text, flags=re.IGNORECASE) if pattern else text


def _digest(secret: str, *parts: str) -> str:
    return hmac.new(secret.encode(), "\n".join(parts).encode(), "sha256").hexdigest()
