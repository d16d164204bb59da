"""What tipbench asks of anything that generates text, and the errors it may answer with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tipbench.errors import TipbenchError, UnreachableError
from tipbench.memory.need import ModelShape

Message = Mapping[str, str]
"""One chat turn: `{"role": "system" | "user" | "assistant", "content": text}`."""


@dataclass(frozen=True)
class ModelFacts:
    """What an engine knows of a model before it is loaded. Sizes in bytes; unknown is None."""

    name: str
    digest: str
    parameters: int | None
    """Exact parameter count (`general.parameter_count`), not the rounded figure in the name."""
    quantization: str | None
    size_bytes: int | None
    """Size of the weights on disk."""
    n_layers: int | None = None
    kv_bytes_per_token: int | None = None
    """Bytes of KV cache per token of context: 2 (K, V) x layers x KV heads x head width x 2 (f16)."""
    context_length: int | None = None
    family: str | None = None
    shape: ModelShape | None = None
    """What the memory that it needs is worked out from."""
    problem: str = ""
    """Why it cannot write tips (embeddings only, somebody's cloud), or why its facts cannot be read; empty for a sound model."""


@dataclass(frozen=True)
class Options:
    """How to generate. The options that make a server reload a model stay the same for a whole block."""

    temperature: float = 0.7
    num_predict: int = 160
    """Most tokens in one answer."""
    num_ctx: int = 2048
    num_thread: int | None = None
    """Threads; None leaves it to the engine (which, in a container, counts the host's cores)."""
    parallel: int = 1
    keep_alive: str = "60s"
    """How long the server holds the model after a request, as Ollama spells it; "0" drops it at once."""
    top_logprobs: int = 0
    """Ask for this many of the likeliest tokens at every place of the answer; a server that cannot tell leaves them out."""


@dataclass(frozen=True)
class Token:
    """One token of an answer, and what might have stood in its place."""

    text: str
    top: tuple[tuple[str, float], ...]
    """(token, natural logarithm of its probability), the likeliest ones, this one among them."""


@dataclass(frozen=True)
class Generation:
    """One answer and what it cost. Times in seconds; a figure that the engine does not report is None."""

    text: str
    done_reason: str | None
    ttft_s: float | None
    """From sending the request to the first text, model load included (see `load_s`)."""
    total_s: float | None
    """The engine's own measure of the whole request."""
    load_s: float | None
    prompt_tokens: int | None
    prompt_s: float | None
    output_tokens: int | None
    output_s: float | None
    wall_s: float = 0.0
    """As seen from here, retries left out."""
    attempts: int = 1
    prompt_cut: bool = False
    """The prompt did not fit into `num_ctx`, and the server left out messages from its front: examples, most often."""
    tokens: tuple[Token, ...] = ()
    """The answer token by token, where it was asked for and the engine can tell."""

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens per second of generation (load and prompt left out)."""
        if not self.output_tokens or not self.output_s:
            return None
        return self.output_tokens / self.output_s


@dataclass(frozen=True)
class Resident:
    """A model that the engine holds in memory now; `size_bytes` counts weights, KV cache and buffers."""

    name: str
    size_bytes: int | None


@dataclass(frozen=True)
class EngineInfo:
    """What the reproducibility receipt records about an engine."""

    name: str
    version: str | None
    url: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def tokens_of(entries: object) -> list[Token]:
    """Tokens from a list of `{"token", "logprob", "top_logprobs"}`, as Ollama and OpenAI write it; empty for anything else."""
    found = []
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("token"), str):
            return []
        top: dict[str, float] = {}
        others = entry.get("top_logprobs")
        for one in [entry, *(others if isinstance(others, list) else ())]:
            word, value = (one.get("token"), one.get("logprob")) if isinstance(one, Mapping) else (None, None)
            if isinstance(word, str) and isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                top[word] = float(value)
        found.append(Token(entry["token"], tuple(top.items())))
    return found


class Engine(Protocol):
    """Where text comes from. Methods may be called from several threads at once."""

    def info(self) -> EngineInfo:
        """Name and version; raises `EngineUnreachable`."""

    def models(self) -> Sequence[ModelFacts]:
        """Every model the engine has; raises `EngineUnreachable`."""

    def describe(self, model: str) -> ModelFacts:
        """Facts about one model; raises `ModelMissing`, `EngineUnreachable`."""

    def generate(
        self,
        model: str,
        messages: Sequence[Message],
        options: Options,
        seed: int,
        schema: Mapping[str, object] | None = None,
    ) -> Generation:
        """One answer, retried within the engine's stated limits. `schema` is a JSON schema that constrains it.

        Raises a `GenerationError` (this answer failed) or `EngineUnreachable` (nobody is there).
        """

    def resident(self) -> Sequence[Resident]:
        """What is in memory now."""

    def unload(self, model: str) -> None:
        """Free the model and return when it is gone; a model that is not loaded is no error."""

    def close(self) -> None:
        """Release connections and memory."""


def estimated_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens a chat takes: four characters of prose make one, other scripts up to one a character; a few a turn.

    An estimate, from what tokenizers of small models were seen to do with English; the model's own count comes with its answer.
    """
    plain = sum(sum(c.isascii() for c in m["content"]) for m in messages)
    other = sum(len(m["content"]) for m in messages) - plain
    return round(plain / 4 + other / 1.5) + 5 * len(messages)


class Witness(Protocol):
    """Somebody who can see the machine that the engine runs on."""

    def killed(self, since_ms: int) -> str:
        """How the engine was killed for its memory since then (milliseconds since the epoch), in words; or nothing."""

    def memory_limit(self) -> int | None:
        """The engine's memory limit in bytes, where it can be seen."""


class Fence(Protocol):
    """Whether the engine is ours to use now: what a lease says (`tipbench.cluster`)."""

    def before_request(self) -> None:
        """Return when it is; raises an UnreachableError when it is not any more."""

    def in_flight(self) -> None:
        """Raises an UnreachableError when an answer that is on its way has to be broken off."""


class Held(Witness, Fence, Protocol):
    """An engine that a lease gives to this process alone, and whose machine can be seen."""


class EngineUnreachable(UnreachableError):
    """No answer from the engine after all retries. Exit code 5."""


class GenerationError(TipbenchError):
    """One answer failed for good. `reason` is a stable word for tags and tables."""

    reason = "GenerationError"


class ModelMissing(GenerationError):
    """The engine does not have the model; the message names the command that provides it."""

    reason = "ModelMissing"


class ModelBroken(GenerationError):
    """The engine lists the model, but cannot open it: a file is missing or damaged."""

    reason = "ModelBroken"


class Unsuitable(GenerationError):
    """The model cannot write tips here: it only makes embeddings, is an adapter, or runs in somebody's cloud."""

    reason = "Unsuitable"


class PullFailed(GenerationError):
    """The model could not be fetched now, since the network failed; the library may have it all the same."""

    reason = "PullFailed"


class QueueFull(GenerationError):
    """The server kept answering 503."""

    reason = "QueueFull"


class OutOfMemory(GenerationError):
    """The kernel killed the model's process, or the engine saw that the model cannot fit."""

    reason = "OOMKilled"


class TimedOut(GenerationError):
    """No chunk within the read timeout."""

    reason = "TimedOut"


class BrokenAnswer(GenerationError):
    """An error in mid-stream, or an answer that is not what the protocol promises."""

    reason = "BrokenAnswer"


class EmptyAnswer(GenerationError):
    """The answer held no text (a thinking model may have spent every token on its thoughts)."""

    reason = "EmptyAnswer"
