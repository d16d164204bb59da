"""What is read from the figures that Ollama states about a model."""

from __future__ import annotations

from typing import Any

import pytest

from tipbench.engines.gguf import kv_bytes_per_token
from tipbench.model_names import parameters_stated

pytestmark = pytest.mark.unit

LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 30,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.embedding_length": 576,
}


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("134.52M", 134_520_000),
        ("3.2B", 3_200_000_000),
        ("2K", 2_000),
        ("1.1t", 1_100_000_000_000),
        ("", None),
        ("B", None),
        ("7", None),
        ("7X", None),
        ("big", None),
        ("infB", None),
        ("nanB", None),
    ],
)
def test_a_size_as_ollama_writes_it(text: str, parameters: int | None) -> None:
    assert parameters_stated(text) == parameters


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        # 30 layers x 3 KV heads x (64 + 64) wide x 2 bytes
        ({}, 23_040),
        ({"llama.attention.key_length": 128, "llama.attention.value_length": 128}, 46_080),
        ({"llama.attention.key_length": 192, "llama.attention.value_length": 64}, 46_080),
        # 45 KV heads over all layers, stated one by one
        ({"llama.attention.head_count_kv": [1, 2] * 15}, 11_520),
        ({"llama.attention.head_count_kv": None}, None),
        ({"llama.block_count": None}, None),
        ({"llama.embedding_length": None}, None),
    ],
)
def test_kv_cache_per_token(stated: dict[str, Any], expected: int | None) -> None:
    assert kv_bytes_per_token(LLAMA | stated) == expected


def test_without_grouped_heads_every_head_has_its_cache() -> None:
    plain = {k: v for k, v in LLAMA.items() if k != "llama.attention.head_count_kv"}
    assert kv_bytes_per_token(plain) == 3 * 23_040
