"""How Ollama reads the name of a model, and what sizes stand in names and tags. The one reader of both.

Standard library only and nothing of tipbench: the models image carries a copy of this file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

REGISTRY, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
"""What a name that leaves them out means."""
LONGEST_HOST, LONGEST_PART = 350, 80
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_SPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d{1,4})x)?(\d{1,6}(?:\.\d{1,6})?)([mbt])(?![a-z0-9])")
_SCALE = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


@dataclass(frozen=True)
class ModelName:
    """`[host/][namespace/]model[:tag]` with the parts that were left out filled in, as they were written."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes two spellings one model: Ollama compares every part without case."""
        return (self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower())

    @property
    def valid(self) -> bool:
        """Would Ollama take it?"""
        parts = (
            (self.host, _HOST, LONGEST_HOST),
            (self.namespace, _SPACE, LONGEST_PART),
            (self.model, _PART, LONGEST_PART),
            (self.tag, _PART, LONGEST_PART),
        )
        return all(len(text) <= longest and rule.fullmatch(text) for text, rule, longest in parts)

    @property
    def cloud(self) -> bool:
        """Does the tag say that the model runs on somebody else's machine (`:cloud`, `:480b-cloud`)?"""
        tag = self.tag.lower()
        return tag == "cloud" or tag.endswith("-cloud")

    def __str__(self) -> str:
        """As Ollama lists it: without what is the default, but always with the tag."""
        short = f"{self.model}:{self.tag}"
        if self.host.lower() != REGISTRY:
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace.lower() == NAMESPACE else f"{self.namespace}/{short}"


def read_name(text: str) -> ModelName:
    """A name with its defaults filled in; whether Ollama would take it is `valid`. `https://` before a host is no part of it."""
    rest, tag = text.strip(), TAG
    if rest.rfind(":") > rest.rfind("/"):
        rest, _, tag = rest.rpartition(":")
    rest, slash, model = rest.rpartition("/")
    namespace, host = NAMESPACE, REGISTRY
    if slash:
        rest, slash, namespace = rest.rpartition("/")
        if slash:
            host = rest.rpartition("://")[2]
    return ModelName(host, namespace, model, tag)


def same_model(one: str, other: str) -> bool:
    """Do two spellings name one model: `Qwen2.5:0.5B` and `registry.ollama.ai/library/qwen2.5:0.5b`?"""
    return one == other or _identity(one) == _identity(other)


def each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names in order, of several spellings of one model the first."""
    first: dict[tuple[str, ...], str] = {}
    for name in names:
        first.setdefault(_identity(name), name)
    return tuple(first.values())


def _identity(text: str) -> tuple[str, ...]:
    """What two spellings of one model share; a file of the embedded engine is its path, to the letter."""
    if text.startswith(("/", ".", "~")) or (text.lower().endswith(".gguf") and ":" not in text):
        return (text,)
    return read_name(text).key


def parameters_in_name(text: str) -> float | None:
    """Parameters that a name promises, as a count: `llama3.2:3b` -> 3e9, `x:8x7b` -> 56e9,
    `hf.co/me/Llama-3.2-3B-GGUF:Q4_K_M` -> 3e9; None if it promises none.

    The tag is asked first, then the model's own name: there, too, people write sizes.
    """
    name = read_name(text)
    for part in (name.tag.lower(), name.model.lower()):
        match = _SIZE.search(part)
        if match:
            experts, number, unit = match.groups()
            return int(experts or 1) * float(number) * _SCALE[unit]
    return None


def parameters_stated(text: str) -> int | None:
    """`"134.52M"` -> 134520000, as Ollama writes sizes in `details.parameter_size`; None for anything else."""
    try:
        return round(float(text[:-1]) * _SCALE[text[-1:].lower()])
    except (KeyError, ValueError, OverflowError):
        return None
