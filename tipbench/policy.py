"""The RAM policy, as pure functions: may this model run here, and if not, why not, with both numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from tipbench.memory.meter import Reading
from tipbench.memory.need import MemoryEstimate, ModelShape, Setting, estimate, largest_context
from tipbench.model_names import parameters_in_name
from tipbench.quantities import size

RUNTIME_OVERHEAD = 160 * 1024**2
"""Bytes counted beyond weights and KV cache for a model of which no more than these is known."""


_SWITCHED_OFF = frozenset({"0", "f", "F", "false", "False", "FALSE"})
"""What Ollama reads as no (Go's ParseBool); every other word turns the switch on (`BoolWithDefault`, envconfig/config.go)."""


class Facts(Protocol):
    """What is asked of a model's facts here (see `ModelFacts`)."""

    @property
    def size_bytes(self) -> int | None:
        """The file's size."""

    @property
    def kv_bytes_per_token(self) -> int | None:
        """Of an f16 cache."""

    @property
    def shape(self) -> ModelShape | None:
        """What the need is worked out from."""


@dataclass(frozen=True)
class Verdict:
    """May the model run? `reason` says why not; it is empty when it may."""

    allowed: bool
    reason: str = ""


def check_tag(model: str, max_model_b: float) -> Verdict:
    """The verdict before a model is pulled, by what its tag promises; a tag without a size passes."""
    promised = parameters_in_name(model)
    if promised is not None and promised > max_model_b * 1e9:
        return Verdict(
            False, f"{model} promises {promised / 1e9:g} billion parameters, over the limit of {max_model_b:g}"
        )
    return Verdict(True)


def check_parameters(model: str, parameters: int | None, max_model_b: float) -> Verdict:
    """The verdict on the fact: `general.parameter_count` against the limit in billions."""
    if parameters is None:
        return Verdict(
            False,
            f"{model} does not state its parameter count, so the limit of {max_model_b:g} billion cannot be checked"
            " (--parameters MODEL=1.5b states it, for engine openai)",
        )
    if parameters > max_model_b * 1e9:
        return Verdict(
            False,
            f"{model} has {parameters / 1e9:.2f} billion parameters ({parameters:,}), over the limit of {max_model_b:g} billion",
        )
    return Verdict(True)


def estimate_memory(
    size_bytes: int | None, kv_bytes_per_token: int | None, num_ctx: int, parallel: int = 1
) -> MemoryEstimate | None:
    """Weights + KV cache of `parallel` slots of `num_ctx` tokens each + overhead; None when the sizes are unknown.

    For a model whose shape is not known; `need` is the better one.
    """
    if size_bytes is None or kv_bytes_per_token is None:
        return None
    return MemoryEstimate(size_bytes, kv_bytes_per_token * num_ctx * parallel, overhead=RUNTIME_OVERHEAD)


def need(facts: Facts, num_ctx: int, parallel: int = 1, engine: str = "ollama") -> MemoryEstimate | None:
    """What a model will take in memory under these options; None when too little is known of it."""
    if facts.shape is None:
        return estimate_memory(facts.size_bytes, facts.kv_bytes_per_token, num_ctx, parallel)
    return estimate(facts.shape, _setting(num_ctx, parallel, engine))


def fits(facts: Facts, limit: int, parallel: int = 1, engine: str = "ollama") -> int | None:
    """The largest `num_ctx` with which the model fits into `limit` bytes, 0 for none; None when too little is known of it."""
    if facts.shape is None:
        return None
    return largest_context(facts.shape, limit, _setting(0, parallel, engine))


def _setting(num_ctx: int, parallel: int, engine: str) -> Setting:
    """How the engine runs a model. What the server was told (its cache's type, flash attention) is in variables of Ollama's own."""
    embedded = engine == "embedded"
    cache, flash = (
        os.environ.get(name, "").strip().strip("\"'") for name in ("OLLAMA_KV_CACHE_TYPE", "OLLAMA_FLASH_ATTENTION")
    )
    return Setting(
        num_ctx,
        parallel,
        cache_type=cache.lower() or "f16",
        flash_attention=flash not in _SWITCHED_OFF if flash else None,
        loader="embedded" if embedded else None,
    )


def check_memory(
    model: str, estimate: MemoryEstimate | None, limit: int | None, measured: Reading | None = None
) -> Verdict:
    """The verdict on the memory needed against the limit in bytes; no limit, no objection.

    `measured` is what an earlier run of the same model, options and engine took: the fact comes before the estimate.
    """
    if limit is None:
        return Verdict(True)
    advice = f"over the memory limit of {format_bytes(limit)}; raise the limit, or lower num_ctx or parallel"
    if measured is not None:
        if measured.size <= limit:
            return Verdict(True)
        return Verdict(
            False,
            f"{model} took {format_bytes(measured.size)} in an earlier run (measured: {measured.source}), {advice}",
        )
    if estimate is None:
        return Verdict(
            False, f"{model} does not state its sizes, so the memory limit of {format_bytes(limit)} cannot be checked"
        )
    if estimate.total > limit:
        return Verdict(False, f"{model} needs about {spelled_out(estimate)}, {advice}")
    return Verdict(True)


def spelled_out(estimate: MemoryEstimate) -> str:
    """The sum, term by term."""
    terms = {
        "weights": estimate.weights,
        "KV cache": estimate.kv_cache,
        "compute buffers": estimate.compute,
        "overhead": estimate.overhead,
    }
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in terms.items() if size)
    return f"{format_bytes(estimate.total)} ({parts})"


def parse_bytes(text: str) -> int | None:
    """`"2Gi"` -> 2147483648, as Kubernetes writes quantities; empty text -> None. Raises ValueError on anything else."""
    return size(text) if text.strip() else None


def format_bytes(count: int) -> str:
    """`2147483648` -> `"2.0 GiB"`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
