"""The RAM policy: refused by the fact, with both numbers in the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tipbench.engines.base import ModelFacts
from tipbench.memory.need import LayerCache, ModelShape, Setting, estimate
from tipbench.model_names import parameters_in_name
from tipbench.policy import (
    RUNTIME_OVERHEAD,
    check_memory,
    check_parameters,
    check_tag,
    estimate_memory,
    format_bytes,
    need,
    parse_bytes,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("tag", "parameters"),
    [
        ("qwen2.5:0.5b", 5e8),
        ("llama3.2:3b", 3e9),
        ("smollm2:135m", 1.35e8),
        ("gemma3:4b-it-q4_K_M", 4e9),
        ("mixtral:8x7b", 56e9),
        ("hf.co/someone/model-7b-gguf:latest", 7e9),
        ("phi4-mini", None),
        ("llama3.2", None),
    ],
)
def test_what_a_tag_promises(tag: str, parameters: float | None) -> None:
    assert parameters_in_name(tag) == parameters


def test_a_tag_over_the_limit_is_refused_before_it_is_pulled() -> None:
    assert not check_tag("llama3.1:8b", 4.0).allowed
    assert "8 billion" in check_tag("llama3.1:8b", 4.0).reason
    assert check_tag("phi4-mini", 4.0).allowed


def test_gemma3_4b_has_more_than_4_billion() -> None:
    verdict = check_parameters("gemma3:4b", 4_299_915_632, 4.0)
    assert not verdict.allowed and "4.30 billion" in verdict.reason and "limit of 4 billion" in verdict.reason


def test_the_limit_itself_is_allowed_and_an_unknown_count_is_not() -> None:
    assert check_parameters("x", 4_000_000_000, 4.0).allowed
    assert not check_parameters("x", 4_000_000_001, 4.0).allowed
    assert not check_parameters("x", None, 4.0).allowed


def test_the_estimate_counts_weights_and_the_cache_of_every_slot() -> None:
    estimate = estimate_memory(1000, 10, num_ctx=50, parallel=3)
    assert estimate is not None and estimate.total == 1000 + 10 * 50 * 3 + RUNTIME_OVERHEAD
    assert estimate_memory(None, 10, 50) is None


@pytest.mark.parametrize(
    ("cache", "flash", "wanted"),
    [
        ("", "", Setting(2048)),
        ("Q8_0", "1", Setting(2048, cache_type="q8_0", flash_attention=True)),
        (" q4_0 ", "", Setting(2048, cache_type="q4_0")),
        ("f32", "FALSE", Setting(2048, cache_type="f32", flash_attention=False)),
        # Ollama takes what it cannot read for a yes.
        ("", "please", Setting(2048, flash_attention=True)),
    ],
)
def test_what_the_server_was_told_is_read_as_ollama_reads_it(
    monkeypatch: pytest.MonkeyPatch, cache: str, flash: str, wanted: Setting
) -> None:
    monkeypatch.setenv("OLLAMA_KV_CACHE_TYPE", cache)
    monkeypatch.setenv("OLLAMA_FLASH_ATTENTION", flash)
    layers = (LayerCache(256),) * 24
    shape = ModelShape("llama", 10**8, 0, 0, 32000, 1024, 1024, 128, 16, 4096, layers, 8192)
    facts = ModelFacts("m", "d", 10**8, None, 10**8, 24, 1, 8192, "llama", shape=shape)
    assert need(facts, 2048) == estimate(shape, wanted)
    assert need(facts, 2048, engine="embedded") == estimate(shape, replace(wanted, loader="embedded"))


def test_a_model_that_does_not_fit_is_refused_with_both_numbers() -> None:
    estimate = estimate_memory(2 * 1024**3, 1024, num_ctx=2048)
    verdict = check_memory("big", estimate, 1024**3)
    assert not verdict.allowed and "2.2 GiB" in verdict.reason and "1.0 GiB" in verdict.reason
    assert check_memory("big", estimate, None).allowed and check_memory("big", estimate, 3 * 1024**3).allowed
    assert not check_memory("big", None, 1024**3).allowed


@pytest.mark.parametrize(
    ("text", "count"),
    [("", None), ("512Mi", 512 * 1024**2), ("2Gi", 2 * 1024**3), ("1.5G", 1_500_000_000), ("123", 123)],
)
def test_sizes_are_read_as_kubernetes_writes_them(text: str, count: int | None) -> None:
    assert parse_bytes(text) == count


def test_a_size_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="512Mi"):
        parse_bytes("two gigs")


def test_sizes_are_shown_in_binary_units() -> None:
    assert [format_bytes(n) for n in (10, 2048, 5 * 1024**2, 3 * 1024**3)] == ["10 B", "2 KiB", "5 MiB", "3.0 GiB"]
