"""What a model will need in memory, worked out from its description before it is loaded.

    weights + KV cache + compute buffers + what the runner and the server take themselves

Every rule names the source that it follows: Ollama 0.17.4 (github.com/ollama/ollama, paths below are in it) and the llama.cpp
in it. The figures that no source states (marked as measured) come from `bench/memory.py`, which also checks the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

Loader = Literal["ollama", "llama", "embedded"]
"""What loads it: Ollama's own engine, llama.cpp in Ollama's runner, or llama.cpp in this process."""

OLLAMA_ENGINE = frozenset(
    "bert deepseek2 deepseekocr gemma3 gemma3n gptoss gpt-oss llama4 mistral3 mllama nemotron_h nemotron_h_moe nomic-bert olmo3 "
    "qwen25vl qwen3 qwen3moe qwen35 qwen35moe qwen3next qwen3vl qwen3vlmoe glm4moelite glmocr lfm2 lfm2moe".split()
)
"""Architectures that Ollama loads with its own engine (`OllamaEngineRequired`, fs/ggml/ggml.go); the others with llama.cpp."""

FLASH_BY_DEFAULT = frozenset(
    "bert gemma3 glm4moelite glmocr gptoss gpt-oss lfm2 lfm2moe mistral3 nemotron_h nemotron_h_moe olmo3 qwen3 qwen3moe qwen35 "
    "qwen35moe qwen3next qwen3vl qwen3vlmoe".split()
)
"""Where Ollama's own engine uses flash attention unasked (`FlashAttention`, fs/ggml/ggml.go). llama.cpp chooses it by itself
on a CPU (`LLAMA_FLASH_ATTN_TYPE_AUTO`)."""

NO_FLASH = frozenset({"gemma2"})
FLASH_DESPITE_HEADS = frozenset({"qwen35", "qwen35moe", "qwen3next"})
"""Where Ollama does without flash attention whoever asks for it, and where it may though a key's and a value's widths differ
(`SupportsFlashAttention`, fs/ggml/ggml.go)."""

ONE_SLOT = frozenset(
    "mllama qwen3vl qwen3vlmoe qwen35 qwen35moe qwen3next lfm2 lfm2moe nemotron_h nemotron_h_moe".split()
)
"""Architectures that get one slot whatever `OLLAMA_NUM_PARALLEL` says (`load`, server/sched.go)."""

WINDOWS: Mapping[str, tuple[int, int, int]] = {
    "gemma2": (2, 4096, 0),
    "gemma3": (6, 512, 0),
    "gemma3n": (5, 512, 0),
    "gptoss": (2, 128, 4096),
    "gpt-oss": (2, 128, 4096),
    "olmo3": (4, 4096, 0),
    "cohere2": (4, 4096, 0),
    "exaone4": (4, 4096, 0),
}
"""architecture -> (every how many-th layer sees everything, the window where the file states none, tokens that are kept when
they are more than the window). From model/models/*/model*.go and `set_swa_pattern` in llama/llama.cpp/src/llama-model.cpp."""

BLOCKS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "F64": (1, 8), "I8": (1, 1), "I16": (1, 2), "I32": (1, 4), "I64": (1, 8),
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74), "IQ2_S": (256, 82), "IQ3_XXS": (256, 98), "IQ3_S": (256, 110), "IQ1_S": (256, 50),
    "IQ1_M": (256, 56), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136), "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17),
}  # fmt: skip
"""Tensor type -> (elements in a block, bytes of a block), from ggml's ggml-common.h."""

REPACKED = frozenset({"Q4_0", "Q4_K", "IQ4_NL"})
"""Types of which llama.cpp keeps a copy in another order for the CPU's vector units (ggml-cpu/repack.cpp)."""

CACHE_ELEMENT: Mapping[str, float] = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""Bytes of an element of the KV cache by `OLLAMA_KV_CACHE_TYPE`; f16 stands in for every other (`SupportsKVCacheType`, fs/ggml/ggml.go)."""

BATCH = 512
"""Tokens that a prompt is read in at once (`num_batch`, api/types.go)."""
CACHE_PADDING = 256
MASK_ELEMENT: Mapping[Loader, int] = {"ollama": 9, "llama": 6, "embedded": 6}
"""Bytes of the attention mask for one token and one cell: f32 as it is made, f16 as it is used. Ollama's own engine makes it in Go
first (`buildMask`, kvcache/causal.go); its 9 are measured, since part of that is collected again."""
MANIFEST = 64 * 1024**2
"""Most bytes of a model's files that are no weights (vocabulary, template, licence). More is a projector or an adapter, which is
loaded too."""
FILLED = 2048
"""Cells that a prompt fills. llama.cpp's mask, and the scores of all heads without flash attention, are for what is filled;
Ollama's own engine makes the mask of the whole cache when it reserves its buffers (`reserveWorstCaseGraph`, runner.go)."""
TOUCHED = 1.3
"""What a batch takes over the tensors of one layer: copies in the order that a product wants are there side by side. Measured."""
MIB = 1024**2
OVERHEAD: Mapping[Loader, tuple[int, int, int]] = {
    "ollama": (120 * MIB, 40, 0),
    "llama": (56 * MIB, 450, 440),
    "embedded": (12 * MIB, 250, 140),
}
"""Bytes that server and runner take themselves, for each token of the vocabulary and for each of its merges (llama.cpp's runner
and, for its models, the server both hold them; Ollama's own engine less). Measured on a server that has just started, where
llama.cpp's models take (44 MiB, 230, 360); the rest is for what the server holds on to after its second load. After more it holds
on to more, unless glibc has one arena (MALLOC_ARENA_MAX=1, as the ollama chart sets it)."""
LLAMA3_MERGES = 2.19
"""Merges for each token in the vocabulary of Llama 3 (280,147 for 128,256): `/api/show` leaves the list out. Others have about
one a token."""


@dataclass(frozen=True)
class Tensor:
    """One tensor as GGUF and `/api/show` describe it; the length of a row first."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int | None:
        """Bytes; None for a type not known here."""
        block = BLOCKS.get(self.type.upper())
        return None if block is None else -(-prod(self.shape) // block[0]) * block[1]


@dataclass(frozen=True)
class LayerCache:
    """What a layer keeps of a token, in elements of the cache; `window` 0: of every token there is room for."""

    elements: int
    window: int = 0
    kept: int = 0


@dataclass(frozen=True)
class ModelShape:
    """What the memory that a model needs depends on. Sizes in bytes."""

    architecture: str
    weights: int
    """As they stand in the file."""
    embedding: int
    """The token embedding's share, where it serves as the output too; else 0."""
    repacked: int
    """The share of types in `REPACKED`, the embedding left out."""
    vocabulary: int
    width: int
    query: int
    """Heads x head width."""
    keys: int
    """KV heads x head width of a key, at most over the layers."""
    heads: int
    feed_forward: int
    """The width that a token passes in a layer; in a mixture of experts that of all experts used."""
    layers: tuple[LayerCache, ...]
    context: int
    """What it was trained for; 0 where that is not stated."""
    merges: int = 0
    """Of a byte-pair vocabulary."""
    recurrent: int = 0
    """Elements of f32 state that a slot keeps in layers without attention."""
    even_heads: bool = True
    """Are a head's key and value equally wide? Flash attention needs it."""

    @property
    def loader(self) -> Loader:
        """What Ollama loads it with."""
        return "ollama" if self.architecture in OLLAMA_ENGINE else "llama"


@dataclass(frozen=True)
class Setting:
    """How the server runs it."""

    num_ctx: int
    parallel: int = 1
    cache_type: str = "f16"
    """As `OLLAMA_KV_CACHE_TYPE` asks for it; a type that is not in `CACHE_ELEMENT`, or is quantised where there is no flash
    attention, is not granted."""
    flash_attention: bool | None = None
    """As `OLLAMA_FLASH_ATTENTION` asks for it; None: as the server does unasked."""
    loader: Loader | None = None
    """None: as Ollama chooses."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What a loaded model will take, in bytes."""

    weights: int
    kv_cache: int
    compute: int = 0
    """Buffers of a batch, and what the server and its runner take themselves."""
    overhead: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.compute + self.overhead


def shape_of(metadata: Mapping[str, Any], tensors: Sequence[Tensor], file_size: int | None = None) -> ModelShape | None:
    """A model's shape from GGUF metadata (or `/api/show`'s `model_info`) and tensors; None when too little is stated.

    Tensors are the better witness: they say what each layer keeps, where metadata has one figure or an array left out.
    """
    architecture = str(metadata.get("general.architecture", ""))
    own = {key.removeprefix(f"{architecture}."): value for key, value in metadata.items()}
    by_name = {t.name: t for t in tensors}
    embedding = by_name.get("token_embd.weight")
    n_layers = _whole(own.get("block_count"))
    width = _whole(own.get("embedding_length")) or (embedding.shape[0] if embedding else 0)
    heads = _largest(own.get("attention.head_count"))
    if not n_layers or not width:
        return None
    sizes = [t.size for t in tensors]
    counted = sum(size for size in sizes if size is not None)
    weights = counted if tensors and None not in sizes else file_size
    if file_size and weights and not 0 <= file_size - weights <= MANIFEST:
        weights = file_size
    if not weights:
        return None
    tied = embedding is not None and "output.weight" not in by_name
    layers = tuple(_layers(architecture, own, by_name, n_layers, width, heads))
    query = _largest(t.shape[0] for t in tensors if t.name.endswith(".attn_output.weight")) or width
    return ModelShape(
        architecture=architecture,
        weights=weights,
        embedding=(embedding.size or 0) if embedding is not None and tied else 0,
        repacked=sum(
            t.size or 0 for t in tensors if t.type.upper() in REPACKED and len(t.shape) > 1 and t is not embedding
        ),
        vocabulary=embedding.shape[-1] if embedding else _whole(own.get("vocab_size")),
        width=width,
        query=query,
        keys=max((layer.elements for layer in layers), default=0) // 2,
        heads=heads,
        feed_forward=_feed_forward(own, tensors),
        layers=layers,
        context=_whole(own.get("context_length")),
        merges=_merges(metadata, embedding.shape[-1] if embedding else _whole(own.get("vocab_size"))),
        recurrent=_recurrent(own, n_layers, layers),
        even_heads=own.get("attention.key_length") == own.get("attention.value_length"),
    )


def _layers(
    architecture: str, own: Mapping[str, Any], tensors: Mapping[str, Tensor], n_layers: int, width: int, heads: int
) -> Iterable[LayerCache]:
    """What each layer keeps of a token, and how far it looks back."""
    every, default, kept = WINDOWS.get(architecture, (0, 0, 0))
    window = _whole(own.get("attention.sliding_window")) or default
    shared = _whole(own.get("attention.shared_kv_layers"))
    pattern = own.get("attention.sliding_window_pattern")
    for i in range(n_layers):
        elements = _kept_by(i, own, tensors, width, heads)
        local = every and (i + 1) % every
        if isinstance(pattern, list) and len(pattern) == n_layers and every:
            local = bool(pattern[i])
        if shared and i >= n_layers - shared:
            # gemma3n: the last layers read the cache of earlier ones (model/models/gemma3n/model_text.go).
            elements = 0
        yield LayerCache(elements, window if local else 0, kept if local else 0)


def _kept_by(i: int, own: Mapping[str, Any], tensors: Mapping[str, Tensor], width: int, heads: int) -> int:
    """Elements of keys and values of one token in layer i: 0 for a layer without attention."""
    key, value = tensors.get(f"blk.{i}.attn_k.weight"), tensors.get(f"blk.{i}.attn_v.weight")
    if key is not None:
        return key.shape[-1] + (value or key).shape[-1]
    fused, output = tensors.get(f"blk.{i}.attn_qkv.weight"), tensors.get(f"blk.{i}.attn_output.weight")
    if fused is not None and output is not None:
        return fused.shape[-1] - output.shape[0]
    latent = tensors.get(f"blk.{i}.attn_kv_a_mqa.weight")
    if latent is not None:
        # deepseek2: one compressed key for all heads, of which the value is a part (model/models/deepseek2/model.go).
        return latent.shape[-1] + _whole(own.get("attention.kv_lora_rank"))
    if tensors:
        return 0
    stated = own.get("attention.head_count_kv", heads)
    kv_heads = stated[i] if isinstance(stated, list) and i < len(stated) else _largest(stated)
    head_width = width // heads if heads else 0
    key_width = _whole(own.get("attention.key_length")) or head_width
    return int(kv_heads * (key_width + (_whole(own.get("attention.value_length")) or head_width)))


def _feed_forward(own: Mapping[str, Any], tensors: Sequence[Tensor]) -> int:
    """The width of what a token passes between gate, up and down, over all experts that it uses."""
    experts = _whole(own.get("expert_used_count"))
    dense = _largest(t.shape[0] for t in tensors if t.name.endswith("ffn_down.weight"))
    each = _largest(t.shape[0] for t in tensors if t.name.endswith("ffn_down_exps.weight"))
    return max(dense, each * max(experts, 1)) or _largest(own.get("feed_forward_length"))


def _merges(metadata: Mapping[str, Any], vocabulary: int) -> int:
    """How many merges the vocabulary has: as listed, else as vocabularies of its kind have."""
    listed = metadata.get("tokenizer.ggml.merges")
    if isinstance(listed, list) and listed:
        return len(listed)
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        return 0
    return int(vocabulary * (LLAMA3_MERGES if metadata.get("tokenizer.ggml.pre") == "llama-bpe" else 1))


def _recurrent(own: Mapping[str, Any], n_layers: int, layers: Sequence[LayerCache]) -> int:
    """State of layers without attention, as `GraphSize` counts it (fs/ggml/ggml.go)."""
    inner, state = _whole(own.get("ssm.inner_size")), _whole(own.get("ssm.state_size"))
    kernel, groups = _whole(own.get("ssm.conv_kernel")), _whole(own.get("ssm.group_count"))
    each = max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner
    return each * sum(layer.elements == 0 for layer in layers)


def _whole(value: object) -> int:
    """A whole number over 0, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _largest(value: object) -> int:
    """The largest whole number of one or many; 0 for none."""
    many = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return max((_whole(one) for one in many), default=0)


# -- the estimate --------------------------------------------------------------------------------


def kv_cache(shape: ModelShape, setting: Setting) -> int:
    """Bytes of the KV cache of all slots; all of it is touched when it is made.

    `num_ctx` beyond what the model was trained for is not allocated (`NewLlamaServer`, llm/server.go). Ollama's own engine keeps
    window + batch tokens in a layer with a sliding window (`Causal.Init`, kvcache/causal.go), llama.cpp in Ollama's runner
    everything (`swa_full` is its default), the embedded one window + batch a slot (llama-kv-cache-iswa.cpp).
    """
    loader = setting.loader or shape.loader
    context = min(setting.num_ctx, shape.context) if shape.context and loader != "embedded" else setting.num_ctx
    batch = min(BATCH, context)
    slots = _slots(shape, setting, loader)
    element = CACHE_ELEMENT[_cache_type(shape, setting, loader)]
    total = 0.0
    for layer in shape.layers:
        full = slots * _padded(context)
        if not layer.window or loader == "llama":
            cells = full
        elif loader == "ollama":
            kept = max(layer.kept, layer.window + (slots > 1))
            cells = full if kept >= context else _padded(slots * kept + batch)
        else:
            cells = slots * min(_padded(context), _padded(layer.window + batch))
        total += cells * layer.elements * element
    return int(total) + shape.recurrent * 4 * slots


def _slots(shape: ModelShape, setting: Setting, loader: Loader) -> int:
    return 1 if loader != "embedded" and shape.architecture in ONE_SLOT else setting.parallel


def _cache_type(shape: ModelShape, setting: Setting, loader: Loader) -> str:
    """The cache's type that is granted (`NewLlamaServer`, llm/server.go): a quantised one needs flash attention, which for
    llama.cpp's runner has to be asked for by name."""
    if loader == "embedded" or setting.cache_type not in CACHE_ELEMENT:
        return "f16"
    granted = _flash(shape, setting, loader) and (loader == "ollama" or setting.flash_attention is not None)
    return setting.cache_type if granted else "f16"


def _padded(cells: int) -> int:
    return -(-cells // CACHE_PADDING) * CACHE_PADDING


def compute_buffers(shape: ModelShape, setting: Setting) -> int:
    """Bytes of a prompt's batch on its way through the layers, as far as they are touched.

    llama.cpp and Ollama reserve the largest graph there can be and touch what a batch needs of it: residual, norm, query, keys and
    values, gate and up of `BATCH` tokens in f32, the attention mask, the logits; without flash attention the scores of every head.
    Threads keep the activations of a product as 8-bit blocks beside it.
    """
    loader = setting.loader or shape.loader
    context = min(setting.num_ctx, shape.context or setting.num_ctx)
    batch = min(BATCH, context)
    widest = 3 * shape.width + shape.query + 2 * shape.keys + 2 * shape.feed_forward
    blocks = max(shape.feed_forward, shape.width, shape.query) * 34 // 32
    buffers = int(batch * (4 * widest + blocks) * TOUCHED)
    slots = _slots(shape, setting, loader)
    cells = _padded(context) * slots if loader == "ollama" else min(_padded(context), FILLED)
    buffers += batch * cells * MASK_ELEMENT[loader]
    if not _flash(shape, setting, loader):
        buffers += batch * min(cells, FILLED) * shape.heads * 4
    return buffers + shape.vocabulary * 4 * (slots + 2)


def _flash(shape: ModelShape, setting: Setting, loader: Loader) -> bool:
    """Is flash attention used? Where Ollama is not asked, llama.cpp's runner decides by itself, and takes it on a CPU."""
    if loader == "embedded" or (loader == "llama" and setting.flash_attention is None):
        return True
    asked = shape.architecture in FLASH_BY_DEFAULT if setting.flash_attention is None else setting.flash_attention
    able = shape.even_heads or shape.architecture in FLASH_DESPITE_HEADS
    return asked and able and shape.architecture not in NO_FLASH


def _loaded_weights(shape: ModelShape, loader: Loader) -> int:
    """What is in memory of the weights: Ollama's own engine loads an embedding that serves as output twice.

    `createTensor` in ml/backend/ggml/ggml.go makes `token_embd.weight` and `output.weight` of it; llama.cpp takes one for both
    unless the output is repacked (`TENSOR_DUPLICATED`, llama-model.cpp).
    """
    return shape.weights + (shape.embedding if loader == "ollama" else 0)


def estimate(shape: ModelShape, setting: Setting) -> MemoryEstimate:
    """What the model will take under this setting, in bytes: the server's processes together, or what this process grows by."""
    loader = setting.loader or shape.loader
    base, token, merge = OVERHEAD[loader]
    return MemoryEstimate(
        weights=_loaded_weights(shape, loader),
        kv_cache=kv_cache(shape, setting),
        compute=compute_buffers(shape, setting),
        overhead=base + token * shape.vocabulary + merge * shape.merges,
    )


def largest_context(shape: ModelShape, limit: int, setting: Setting, most: int = 1 << 20) -> int:
    """The largest `num_ctx`, a multiple of 256, whose estimate is within `limit` bytes; 0 when not even 256 tokens fit."""
    low, high = 0, (min(shape.context, most) if shape.context else most) // CACHE_PADDING
    while low < high:
        middle = (low + high + 1) // 2
        tried = replace(setting, num_ctx=middle * CACHE_PADDING)
        if estimate(shape, tried).total <= limit:
            low = middle
        else:
            high = middle - 1
    return low * CACHE_PADDING
