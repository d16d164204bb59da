"""The RAM policy, as pure functions: may this model run here, and if not, why not, with both numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tipbench.quantities import size

RUNTIME_OVERHEAD = 160 * 1024**2
"""Bytes that Ollama takes beyond weights and KV cache: server, runner and compute buffers.

Measured with Ollama 0.17.4 and a 135M model: 75 MiB server + 50 MiB runner; larger models have larger compute buffers.
"""

_SIZE_IN_TAG = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")


@dataclass(frozen=True)
class Verdict:
    """May the model run? `reason` says why not; it is empty when it may."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True)
class MemoryEstimate:
    """What a loaded model will take, in bytes."""

    weights: int
    kv_cache: int
    overhead: int = RUNTIME_OVERHEAD

    @property
    def total(self) -> int:
        """Weights + KV cache + overhead, in bytes."""
        return self.weights + self.kv_cache + self.overhead


def parameters_in_tag(model: str) -> float | None:
    """Parameters that a tag promises, as a count: "llama3.2:3b" -> 3e9, "x:8x7b" -> 56e9; None if it promises none."""
    name, _, tag = model.lower().rpartition(":")
    match = _SIZE_IN_TAG.search(tag if name else model.lower())
    if match is None:
        return None
    experts, number, unit = match.groups()
    return int(experts or 1) * float(number) * (1e9 if unit == "b" else 1e6)


def check_tag(model: str, max_model_b: float) -> Verdict:
    """The verdict before a model is pulled, by what its tag promises; a tag without a size passes."""
    promised = parameters_in_tag(model)
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
            f"{model} does not state its parameter count, so the limit of {max_model_b:g} billion cannot be checked",
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
    """Weights + KV cache of `parallel` slots of `num_ctx` tokens each + overhead; None when the sizes are unknown."""
    if size_bytes is None or kv_bytes_per_token is None:
        return None
    return MemoryEstimate(weights=size_bytes, kv_cache=kv_bytes_per_token * num_ctx * parallel)


def check_memory(model: str, estimate: MemoryEstimate | None, limit: int | None) -> Verdict:
    """The verdict on the estimate against the memory limit in bytes; no limit, no objection."""
    if limit is None:
        return Verdict(True)
    if estimate is None:
        return Verdict(
            False, f"{model} does not state its sizes, so the memory limit of {format_bytes(limit)} cannot be checked"
        )
    if estimate.total > limit:
        return Verdict(
            False,
            f"{model} needs about {format_bytes(estimate.total)} (weights {format_bytes(estimate.weights)}, KV cache "
            f"{format_bytes(estimate.kv_cache)}, overhead {format_bytes(estimate.overhead)}), over the memory limit of "
            f"{format_bytes(limit)}; raise the limit, or lower num_ctx or parallel",
        )
    return Verdict(True)


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
