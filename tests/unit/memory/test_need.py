"""What a model needs: the cache by each loader's own rule, and an estimate that grows with everything it depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from tests.models.shapes import SHAPES
from tests.models.shapes import Shape as Published
from tests.models.writing import write
from tipbench.engines.gguf import TENSOR_TYPES, read_header
from tipbench.memory.need import (
    BLOCKS,
    CACHE_ELEMENT,
    LayerCache,
    ModelShape,
    Setting,
    Tensor,
    estimate,
    kv_cache,
    largest_context,
    shape_of,
)

pytestmark = pytest.mark.unit

MIB = 1024**2


def shape(name: str) -> ModelShape:
    """A published shape, as its file's header describes it."""
    return described(SHAPES[name])


def described(published: Published) -> ModelShape:
    metadata = {f"{published.architecture}.{key}": value for key, value in published.metadata().items()}
    tensors = [Tensor(t.name, t.type.name, t.shape) for t in published.tensors()]
    found = shape_of({"general.architecture": published.architecture, **published.tokens(), **metadata}, tensors)
    assert found is not None
    return found


SIZES = {
    "qwen2.5:0.5b": 397.8e6,
    "qwen2.5:1.5b": 986.1e6,
    "gemma3:1b": 815.3e6,
    "llama3.2:3b": 2019.4e6,
    "qwen3:0.6b": 522.7e6,
    "gemma3n:e2b": 5.6e9,
}
"""Bytes of the files in Ollama's library."""


@pytest.mark.parametrize("name", SIZES)
def test_the_shapes_weigh_what_the_published_files_weigh(name: str) -> None:
    published = SHAPES[name]
    # Vocabulary and merges stand in the file too.
    text = published.vocabulary * (18 if published.tokenizer == "bpe" else 32) + published.merges * 18
    assert sum(t.nbytes for t in published.tensors()) + text == pytest.approx(SIZES[name], rel=0.015)


def test_block_sizes_and_type_numbers_are_ggmls() -> None:
    for number, name in TENSOR_TYPES.items():
        if name in GGMLQuantizationType.__members__:
            kind = GGMLQuantizationType[name]
            assert kind.value == number and BLOCKS[name] == GGML_QUANT_SIZES[kind], name
    assert set(TENSOR_TYPES.values()) <= set(BLOCKS)


def test_a_written_file_is_described_by_its_header_as_by_its_shape(tmp_path: Path) -> None:
    published = replace(SHAPES["smollm2:135m"], layers=2)
    write(published, "small", tmp_path / "m.gguf")
    header = read_header(tmp_path / "m.gguf")
    assert header.parameters == sum(t.elements for t in published.tensors()) and header.quantization == "Q4_K_M"
    found = shape_of(header.metadata, header.tensors)
    assert found is not None and found.merges == published.merges
    assert replace(found, merges=0) == replace(described(published), merges=0)


@pytest.mark.parametrize(
    ("name", "setting", "cells"),
    [
        # layers x elements of a token x cells x 2 bytes
        ("qwen2.5:0.5b", Setting(1024), 24 * 256 * 1024),
        ("qwen2.5:0.5b", Setting(1024, parallel=2), 24 * 256 * 2048),
        ("llama3.2:3b", Setting(32768), 28 * 2048 * 32768),
        ("phi3:mini", Setting(2048), 32 * 6144 * 2048),
        # Beyond what it was trained for nothing is allocated.
        ("qwen2.5:0.5b", Setting(100_000), 24 * 256 * 32768),
        # gemma3: 4 layers see everything, 22 keep the window of 512 and a batch of 512.
        ("gemma3:1b", Setting(8192), 512 * (4 * 8192 + 22 * 1024)),
        ("gemma3:1b", Setting(8192, parallel=2), 512 * (4 * 16384 + 22 * 1792)),
        ("gemma3:1b", Setting(512), 512 * 26 * 512),
        ("gemma3:1b", Setting(8192, loader="embedded"), 512 * (4 * 8192 + 22 * 1024)),
        ("gemma3:1b", Setting(8192, parallel=2, loader="embedded"), 512 * (4 * 16384 + 22 * 2048)),
        # llama.cpp in Ollama's runner keeps everything, window or not.
        ("gemma3:1b", Setting(8192, loader="llama"), 512 * 26 * 8192),
        # Cells come in blocks of 256.
        ("qwen2.5:0.5b", Setting(1000), 24 * 256 * 1024),
    ],
)
def test_the_cache_follows_the_loaders_own_rule(name: str, setting: Setting, cells: int) -> None:
    assert kv_cache(shape(name), setting) == cells * 2


def test_a_quantised_cache_is_smaller_by_its_blocks() -> None:
    model = shape("qwen3:0.6b")
    full = kv_cache(model, Setting(4096))
    assert kv_cache(model, Setting(4096, cache_type="q8_0")) == full * 34 // 64
    assert kv_cache(model, Setting(4096, cache_type="q4_0")) == full * 18 // 64


@pytest.mark.parametrize(
    ("name", "asked", "flash", "granted"),
    [
        # llama.cpp's runner quantises its cache only where flash attention is asked for by name.
        ("qwen2.5:0.5b", "q8_0", None, "f16"),
        ("qwen2.5:0.5b", "q8_0", True, "q8_0"),
        ("qwen2.5:0.5b", "q8_0", False, "f16"),
        # Ollama's own engine uses it for some unasked, and can be told not to.
        ("gemma3:1b", "q4_0", None, "q4_0"),
        ("gemma3:1b", "q4_0", False, "f16"),
        ("gemma3n:e2b", "q8_0", None, "f16"),
        ("gemma3n:e2b", "q8_0", True, "q8_0"),
        # gemma2 never has it.
        ("gemma2:2b", "q8_0", True, "f16"),
        # Types that Ollama does not take.
        ("qwen3:0.6b", "f32", True, "f16"),
        ("qwen3:0.6b", "q5_1", True, "f16"),
    ],
)
def test_the_caches_type_is_the_one_that_ollama_grants(name: str, asked: str, flash: bool | None, granted: str) -> None:
    model = shape(name)
    plain = kv_cache(model, Setting(4096, flash_attention=flash))
    wanted = int(plain * CACHE_ELEMENT[granted] / CACHE_ELEMENT["f16"])
    assert kv_cache(model, Setting(4096, cache_type=asked, flash_attention=flash)) == wanted


def test_heads_with_keys_and_values_of_two_widths_have_no_flash_attention() -> None:
    uneven = replace(shape("qwen3:0.6b"), even_heads=False)
    assert kv_cache(uneven, Setting(4096, cache_type="q8_0")) == kv_cache(uneven, Setting(4096))
    assert estimate(uneven, Setting(4096)).compute > estimate(shape("qwen3:0.6b"), Setting(4096)).compute


def test_some_architectures_get_one_slot_whatever_is_asked_for() -> None:
    model = replace(shape("qwen3:0.6b"), architecture="qwen3vl")
    assert estimate(model, Setting(4096, parallel=4)) == estimate(model, Setting(4096))


def test_an_embedding_that_is_the_output_too_is_loaded_twice_by_ollamas_engine_only() -> None:
    gemma, qwen = shape("gemma3:1b"), shape("qwen2.5:0.5b")
    assert estimate(gemma, Setting(2048)).weights - gemma.weights == 262144 * 1152 // 32 * 34
    assert estimate(qwen, Setting(2048)).weights == qwen.weights
    assert shape("qwen3:0.6b").embedding == 0, "Ollama's qwen3 files have an output of their own"


def test_in_a_mixture_of_experts_all_are_loaded_and_a_token_passes_those_it_uses() -> None:
    model = shape("granite3.1-moe:1b")
    assert model.weights > 780 * MIB and model.feed_forward == 8 * 512


def test_gemma3n_loads_all_its_embeddings_and_twenty_of_thirty_layers_have_a_cache() -> None:
    model = shape("gemma3n:e2b")
    assert model.weights > 5.6e9 and [layer.elements for layer in model.layers] == [1024] * 20 + [0] * 10
    assert sum(layer.window == 0 for layer in model.layers[:20]) == 4


def test_layers_that_share_a_cache_or_have_no_attention_keep_nothing() -> None:
    metadata = {
        "general.architecture": "gemma3n",
        "gemma3n.block_count": 4,
        "gemma3n.embedding_length": 64,
        "gemma3n.attention.head_count": 4,
        "gemma3n.attention.shared_kv_layers": 2,
    }
    tensors = [Tensor("token_embd.weight", "F16", (64, 100))]
    tensors += [Tensor(f"blk.{i}.attn_{kv}.weight", "F16", (64, 32)) for i in range(4) for kv in "kv"]
    gemma3n = shape_of(metadata, tensors)
    assert gemma3n is not None and gemma3n.layers[2:] == (LayerCache(0, 512),) * 2 and gemma3n.layers[0].elements == 64
    hybrid = shape_of(
        metadata | {"gemma3n.attention.shared_kv_layers": 0}, [t for t in tensors if "blk.0" not in t.name]
    )
    assert hybrid is not None and [layer.elements for layer in hybrid.layers] == [0, 64, 64, 64]


def test_without_tensors_metadata_is_enough_and_with_neither_there_is_no_shape() -> None:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": [1, 2],
    }
    found = shape_of(metadata, [], file_size=1000)
    assert found is not None and found.weights == 1000 and [layer.elements for layer in found.layers] == [16, 32]
    assert shape_of(metadata, []) is None and shape_of({}, [], 1000) is None


@given(
    name=st.sampled_from(sorted(SHAPES)),
    context=st.integers(128, 200_000),
    more=st.integers(0, 100_000),
    parallel=st.integers(1, 4),
    cache=st.sampled_from([*sorted(CACHE_ELEMENT), "f32"]),
    flash=st.sampled_from([None, True, False]),
)
def test_more_context_or_slots_never_need_less(
    name: str, context: int, more: int, parallel: int, cache: str, flash: bool | None
) -> None:
    setting = Setting(context, parallel, cache, flash)
    total = estimate(shape(name), setting).total
    assert estimate(shape(name), replace(setting, num_ctx=context + more)).total >= total
    assert estimate(shape(name), replace(setting, parallel=parallel + 1)).total >= total


@given(name=st.sampled_from(sorted(SHAPES)), limit=st.integers(0, 1 << 35), parallel=st.integers(1, 2))
def test_the_largest_context_fits_and_the_next_does_not(name: str, limit: int, parallel: int) -> None:
    model, setting = shape(name), Setting(0, parallel)
    most = largest_context(model, limit, setting)
    if most:
        assert estimate(model, replace(setting, num_ctx=most)).total <= limit and most <= model.context
    if most + 256 <= model.context:
        assert estimate(model, replace(setting, num_ctx=most + 256)).total > limit
