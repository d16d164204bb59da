"""The shapes of published models: every tensor's name, size and type as in the file that Ollama's library serves (Q4_K_M).

Sizes are those of each model's published config.json; the types follow the rule that llama.cpp's and Ollama's quantisers
apply for Q4_K_M (`getTensorNewType` in Ollama's server/quantization.go).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

F32, Q4, Q5, Q6, Q8 = (
    GGMLQuantizationType.F32,
    GGMLQuantizationType.Q4_K,
    GGMLQuantizationType.Q5_K,
    GGMLQuantizationType.Q6_K,
    GGMLQuantizationType.Q8_0,
)
_ALTUP = 4
"""Copies of the residual that gemma3n carries along."""
_FALLBACK = {Q4: GGMLQuantizationType.Q5_0, Q5: GGMLQuantizationType.Q5_1, Q6: Q8}
"""What is taken when a row is no multiple of 256 elements long."""


@dataclass(frozen=True)
class Tensor:
    """One tensor; `shape` in GGUF's order: the length of a row first."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType

    @property
    def elements(self) -> int:
        """Parameters in it."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        per_block, block_bytes = GGML_QUANT_SIZES[self.type]
        return self.elements // per_block * block_bytes


@dataclass(frozen=True)
class Shape:
    """A model's dimensions."""

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    context: int
    tokenizer: Literal["bpe", "spm"] = "bpe"
    pre_tokenizer: str = "qwen2"
    merges: int = 0
    """Merges of a byte-pair tokenizer."""
    head_width: int = 0
    """Of a key and of a value; 0: width / heads."""
    tied: bool = True
    """Does the output share the token embedding's weights?"""
    bias: bool = False
    """Have query, key and value a bias?"""
    query_key_norms: bool = False
    post_norms: bool = False
    fused: bool = False
    """One tensor for query, key and value, and one for gate and up."""
    experts: int = 0
    experts_used: int = 0
    rope_factors: Literal["", "freqs", "long-short"] = ""
    window: int = 0
    """Tokens that a layer with a sliding window looks back; 0: no such layers."""
    per_layer: int = 0
    """Width of the embedding that each layer has of its own (gemma3n); 0: none."""
    shared_layers: int = 0
    """The last layers, which read the cache of earlier ones."""
    rope_base: float = 10000.0
    quantised: bool = True
    """False: every matrix is stored as F16."""

    @property
    def key_length(self) -> int:
        """Width of one key."""
        return self.head_width or self.width // self.heads

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor, in the order in which they stand in the file."""
        down = value = 0
        for name, shape in self._names():
            kind = F32
            if len(shape) > 1 and name.endswith(".weight") and "ffn_gate_inp" not in name:
                kind = self._type(name, shape, down if "ffn_down" in name else value)
            down += "ffn_down" in name
            value += "attn_v.weight" in name
            yield Tensor(name, shape, kind)

    def _type(self, name: str, shape: tuple[int, ...], index: int) -> GGMLQuantizationType:
        if not self.quantised:
            return GGMLQuantizationType.F16
        if name == "per_layer_token_embd.weight":
            return GGMLQuantizationType.F16
        wanted = Q4
        if name in ("output.weight", "token_embd.weight"):
            # Without an output of its own the embedding is the output; Ollama's qwen3 files have both alike.
            if name == "output.weight" or self.tied or self.architecture == "qwen3":
                wanted = Q6
        elif ("attn_v.weight" in name or "ffn_down" in name) and _more_bits(index, self.layers):
            wanted = Q6
        elif "attn_qkv" in name:
            wanted = Q5
        if shape[0] % 32:
            return GGMLQuantizationType.F16
        return wanted if shape[0] % 256 == 0 else _FALLBACK[wanted]

    def _names(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        width, query, keys = self.width, self.heads * self.key_length, self.kv_heads * self.key_length
        yield "token_embd.weight", (width, self.vocabulary)
        if not self.tied:
            yield "output.weight", (width, self.vocabulary)
        yield "output_norm.weight", (width,)
        if self.rope_factors == "freqs":
            yield "rope_freqs.weight", (self.key_length // 2,)
        elif self.rope_factors == "long-short":
            yield "rope_factors_long.weight", (self.key_length // 2,)
            yield "rope_factors_short.weight", (self.key_length // 2,)
        if self.per_layer:
            yield "altup_proj.weight", (width, width, _ALTUP - 1)
            yield "altup_unembd_proj.weight", (width, width, _ALTUP - 1)
            yield "per_layer_token_embd.weight", (self.per_layer * self.layers, self.vocabulary)
            yield "per_layer_model_proj.weight", (width, self.per_layer * self.layers)
            yield "per_layer_proj_norm.weight", (self.per_layer,)
        for layer in range(self.layers):
            for name, shape in self._layer(width, query, keys):
                yield f"blk.{layer}.{name}", shape

    def _layer(self, width: int, query: int, keys: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "attn_norm.weight", (width,)
        yield "ffn_norm.weight", (width,)
        if self.post_norms:
            yield "post_attention_norm.weight", (width,)
            yield "post_ffw_norm.weight", (width,)
        if self.per_layer:
            yield from self._layer_of_gemma3n(width)
        if self.query_key_norms:
            yield "attn_q_norm.weight", (self.key_length,)
            yield "attn_k_norm.weight", (self.key_length,)
        if self.fused:
            yield "attn_qkv.weight", (width, query + 2 * keys)
        else:
            for part, size in (("q", query), ("k", keys), ("v", keys)):
                yield f"attn_{part}.weight", (width, size)
                if self.bias:
                    yield f"attn_{part}.bias", (size,)
        yield "attn_output.weight", (query, width)
        if self.experts:
            yield "ffn_gate_inp.weight", (width, self.experts)
            yield "ffn_gate_exps.weight", (width, self.feed_forward, self.experts)
            yield "ffn_up_exps.weight", (width, self.feed_forward, self.experts)
            yield "ffn_down_exps.weight", (self.feed_forward, width, self.experts)
            return
        if self.fused:
            yield "ffn_up.weight", (width, 2 * self.feed_forward)
        else:
            yield "ffn_gate.weight", (width, self.feed_forward)
            yield "ffn_up.weight", (width, self.feed_forward)
        yield "ffn_down.weight", (self.feed_forward, width)

    def _layer_of_gemma3n(self, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """What its layers have beside attention and feed-forward (Ollama's model/models/gemma3n/model_text.go)."""
        yield "altup_correct_scale.weight", (width,)
        yield "altup_correct_coef.weight", (_ALTUP, _ALTUP)
        yield "altup_predict_coef.weight", (_ALTUP, _ALTUP * _ALTUP)
        yield "altup_router.weight", (width, _ALTUP)
        yield "altup_router_norm.weight", (width,)
        yield "laurel_l.weight", (width, 64)
        yield "laurel_r.weight", (64, width)
        yield "laurel_post_norm.weight", (width,)
        yield "inp_gate.weight", (width, self.per_layer)
        yield "proj.weight", (self.per_layer, width)
        yield "post_norm.weight", (width,)

    def metadata(self) -> dict[str, Any]:
        """The architecture's own keys, without its name in front."""
        facts: dict[str, Any] = {
            "block_count": self.layers,
            "context_length": self.context,
            "embedding_length": self.width,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.freq_base": self.rope_base,
            "rope.dimension_count": self.key_length,
        }
        if self.head_width:
            facts |= {"attention.key_length": self.head_width, "attention.value_length": self.head_width}
        if self.window:
            facts["attention.sliding_window"] = self.window
        if self.experts:
            facts |= {"expert_count": self.experts, "expert_used_count": self.experts_used}
        if self.architecture == "granitemoe":
            facts |= {
                "attention.scale": self.key_length**-1.0,
                "embedding_scale": 12.0,
                "residual_scale": 0.22,
                "logit_scale": 6.0,
            }
        if self.per_layer:
            facts |= {
                "altup.active_idx": 0,
                "altup.num_inputs": _ALTUP,
                "embedding_length_per_layer_input": self.per_layer,
                "attention.shared_kv_layers": self.shared_layers,
                "attention.sliding_window_pattern": [(i + 1) % 5 != 0 for i in range(self.layers)],
                "activation_sparsity_scale": [1.6448536 if i < 10 else 0.0 for i in range(self.layers)],
            }
        if self.rope_factors == "long-short":
            facts |= {"rope.scaling.original_context_length": 4096, "rope.scaling.attn_factor": 1.19}
        return facts

    def tokens(self) -> dict[str, Any]:
        """What tells the kind of the vocabulary, as Ollama's `/api/show` has it: without the lists."""
        if self.tokenizer == "spm":
            return {"tokenizer.ggml.model": "llama"}
        return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": self.pre_tokenizer}


def _more_bits(index: int, layers: int) -> bool:
    """Does the index-th of these tensors get Q6_K?"""
    return index < layers // 8 or index >= 7 * layers // 8 or (index - layers // 8) % 3 == 2


_QWEN = Shape("qwen2", 24, 896, 14, 2, 4864, 151936, 32768, merges=151387, bias=True, rope_base=1e6)
_LLAMA3 = Shape(
    "llama", 28, 3072, 24, 8, 8192, 128256, 131072,
    pre_tokenizer="llama-bpe", merges=280147, head_width=128, rope_factors="freqs", rope_base=5e5,
)  # fmt: skip
_QWEN3 = Shape(
    "qwen3",
    28,
    1024,
    16,
    8,
    3072,
    151936,
    40960,
    merges=151387,
    head_width=128,
    tied=False,
    query_key_norms=True,
    rope_base=1e6,
)
_SMOLLM2 = Shape("llama", 30, 576, 9, 3, 1536, 49152, 8192, pre_tokenizer="smollm", merges=48900, rope_base=1e5)

SHAPES: dict[str, Shape] = {
    "qwen2.5:0.5b": _QWEN,
    "qwen2.5:1.5b": replace(_QWEN, layers=28, width=1536, heads=12, feed_forward=8960),
    "gemma3:1b": Shape(
        "gemma3", 26, 1152, 4, 1, 6912, 262144, 32768,
        tokenizer="spm", head_width=256, query_key_norms=True, post_norms=True, window=512, rope_base=1e6,
    ),
    "llama3.2:3b": _LLAMA3,
    "llama3.2:1b": replace(_LLAMA3, layers=16, width=2048, heads=32, head_width=64),
    "qwen3:0.6b": _QWEN3,
    "qwen3:1.7b": replace(_QWEN3, width=2048, feed_forward=6144),
    "phi3:mini": Shape(
        "phi3", 32, 3072, 32, 32, 8192, 32064, 131072,
        tokenizer="spm", tied=False, fused=True, rope_factors="long-short",
    ),
    "phi4-mini": Shape(
        "phi3", 32, 3072, 24, 8, 8192, 200064, 131072,
        pre_tokenizer="gpt-4o", merges=199742, fused=True, rope_factors="long-short",
    ),
    "gemma2:2b": Shape(
        "gemma2", 26, 2304, 8, 4, 9216, 256000, 8192, tokenizer="spm", head_width=256, post_norms=True, window=4096,
    ),
    "gemma3n:e2b": Shape(
        "gemma3n", 30, 2048, 8, 2, 8192, 262400, 32768, tokenizer="spm", head_width=256, query_key_norms=True,
        post_norms=True, window=512, per_layer=256, shared_layers=10, rope_base=1e6,
    ),
    "granite3.1-moe:1b": Shape(
        "granitemoe", 24, 1024, 16, 8, 512, 49155, 131072,
        pre_tokenizer="refact", merges=48891, experts=32, experts_used=8, rope_base=1.5e6,
    ),
    "smollm2:135m": _SMOLLM2,
    "smollm2:360m": replace(_SMOLLM2, layers=32, width=960, heads=15, kv_heads=5, feed_forward=2560),
}  # fmt: skip
"""By the tag that the model has in Ollama's library."""
