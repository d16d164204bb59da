"""A GGUF file from a shape: a made-up vocabulary, and random blocks whose weights have the spread of a trained model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType

from .shapes import Shape, Tensor

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_SCALES: dict[GGMLQuantizationType, tuple[tuple[int, float], ...]] = {
    GGMLQuantizationType.Q5_0: ((0, 9.2),),
    GGMLQuantizationType.Q5_1: ((0, 9.2),),
    GGMLQuantizationType.Q8_0: ((0, 73.9),),
    GGMLQuantizationType.Q4_K: ((0, 200.0), (2, 200.0 / 7.5)),
    GGMLQuantizationType.Q5_K: ((0, 400.0), (2, 400.0 / 15.5)),
    GGMLQuantizationType.Q6_K: ((208, 1370.0),),
}
"""Where a block keeps its f16 scales, and the spread that random contents have under a scale of 1."""
_CHUNK = 1 << 24
END, SPACE = "<|end|>", "\u2581"


def write(shape: Shape, name: str, path: Path, seed: int = 0) -> None:
    """Write `path`. The file is valid for llama.cpp and Ollama; the text that the model writes is noise."""
    random = np.random.default_rng(seed)
    writer = GGUFWriter(path, shape.architecture)
    writer.add_name(name)
    writer.add_type("model")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M if shape.quantised else LlamaFileType.MOSTLY_F16)
    for key, value in shape.metadata().items():
        many = isinstance(value, list)
        add = writer.add_array if many else writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{shape.architecture}.{key}", value)
    _vocabulary(writer, shape, seed)
    tensors = list(shape.tensors())
    writer.add_uint64("general.parameter_count", sum(t.elements for t in tensors))
    for tensor in tensors:
        _, row_bytes = _row(tensor)
        # The writer wants numpy's order, and the bytes of a row for what is quantised.
        raw = tensor.type != GGMLQuantizationType.F32
        dims = (*reversed(tensor.shape[1:]), row_bytes if raw else tensor.shape[0])
        dtype = np.dtype(np.uint8 if raw else np.float32)
        writer.add_tensor_info(tensor.name, dims, dtype, tensor.nbytes, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    file = writer.fout[0]  # type: ignore[index]
    for tensor in tensors:
        writer.write_padding(file, file.tell())
        _contents(file, tensor, random)
        writer.write_padding(file, tensor.nbytes)
    writer.close()


def _row(tensor: Tensor) -> tuple[int, int]:
    """Blocks and bytes of a row."""
    per_block, block_bytes = GGML_QUANT_SIZES[tensor.type]
    blocks = tensor.shape[0] // per_block
    return blocks, blocks * block_bytes


def _contents(file: Any, tensor: Tensor, random: np.random.Generator) -> None:
    if tensor.type == GGMLQuantizationType.F32:
        # A norm or a rotation's factors are ones, a router is random.
        ones = len(tensor.shape) == 1
        values = np.ones(tensor.elements) if ones else random.normal(0, tensor.shape[0] ** -0.5, tensor.elements)
        file.write((values * (0 if tensor.name.endswith(".bias") else 1)).astype("<f4").tobytes())
        return
    left = tensor.nbytes
    _, block_bytes = GGML_QUANT_SIZES[tensor.type]
    chunk = _CHUNK // block_bytes * block_bytes
    while left:
        size = min(chunk, left)
        file.write(_blocks(tensor, size, random).tobytes())
        left -= size


def _blocks(tensor: Tensor, size: int, random: np.random.Generator) -> _Bytes:
    """`size` bytes of valid blocks. A row's products with a vector of ones stay near 1, so no layer overflows."""
    spread = tensor.shape[0] ** -0.5
    if tensor.type == GGMLQuantizationType.F16:
        return (random.standard_normal(size // 2, dtype=np.float32) * spread).astype("<f2").view(np.uint8)
    _, block_bytes = GGML_QUANT_SIZES[tensor.type]
    blocks = np.frombuffer(random.bytes(size), np.uint8).reshape(-1, block_bytes).copy()
    for offset, own in _SCALES[tensor.type]:
        blocks[:, offset : offset + 2] = np.array([spread / own], "<f2").view(np.uint8)
    if tensor.type == GGMLQuantizationType.Q5_1:
        blocks[:, 2:4] = np.array([-15.5 * spread / 9.2], "<f2").view(np.uint8)
    return blocks


# -- the vocabulary ------------------------------------------------------------------------------


def _vocabulary(writer: GGUFWriter, shape: Shape, seed: int) -> None:
    random = np.random.default_rng([seed, 1])
    if shape.tokenizer == "bpe":
        tokens, merges = _byte_pairs(shape, random)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(shape.pre_tokenizer)
        writer.add_token_merges(merges)
        kinds = [TokenType.CONTROL if t.startswith("<|") else TokenType.NORMAL for t in tokens]
        end = tokens.index(END)
        writer.add_bos_token_id(end)
    else:
        tokens, kinds = _pieces(shape, random)
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
        end = 1
        writer.add_bos_token_id(2)
        writer.add_unk_token_id(3)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_eos_token_id(end)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}\n{% endfor %}")


def _byte_letters() -> list[str]:
    """The 256 characters that stand for bytes in a byte-pair vocabulary (as in GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def _words(wanted: int, space: str, random: np.random.Generator) -> list[tuple[str, str]]:
    """The two parts of each made-up token: every pair and triple of letters, then chains of these, most of 4 to 12.

    Common text is cut into threes, where a trained vocabulary would know words: a prompt has more tokens, not fewer.
    """
    plain = [*(chr(c) for c in range(97, 123)), space]
    parts = [(a, b) for a in plain for b in plain]
    pairs = [a + b for a, b in parts]
    parts += [(pair, c) for pair in pairs for c in plain]
    words = [a + b for a, b in parts]
    there = set(words)
    while len(parts) < wanted:
        for first, second in random.integers(0, 1 << 30, (4096, 2)).tolist():
            left, right = words[first % len(words)], words[second % min(len(words), 20412)]
            if len(left) + len(right) <= 12 and left + right not in there:
                there.add(left + right)
                words.append(left + right)
                parts.append((left, right))
    return parts[:wanted]


def _byte_pairs(shape: Shape, random: np.random.Generator) -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-pair vocabulary; merges beyond one a token never apply, and take their room."""
    special = min(293, shape.vocabulary // 100)
    parts = _words(shape.vocabulary - special - 256, "Ġ", random)
    tokens = [*_byte_letters(), *(a + b for a, b in parts)]
    merges = [f"{a} {b}" for a, b in parts][: shape.merges]
    known = set(merges)
    while len(merges) < shape.merges:
        first, second = random.integers(0, len(tokens), 2).tolist()
        pair = f"{tokens[first]} {tokens[second]}"
        if pair not in known:
            known.add(pair)
            merges.append(pair)
    return [*tokens, END, *(f"<|special_{i}|>" for i in range(special - 1))], merges


def _pieces(shape: Shape, random: np.random.Generator) -> tuple[list[str], list[int]]:
    """A SentencePiece vocabulary: specials, the bytes, single characters, then pieces of letters."""
    # llama.cpp looks for these four by name where the model's name has phi3 in it (llama-vocab.cpp).
    tokens = ["<|endoftext|>", "</s>", "<s>", "<unk>", *(f"<0x{b:02X}>" for b in range(256))]
    kinds = [TokenType.CONTROL] * 3 + [TokenType.UNKNOWN] + [TokenType.BYTE] * 256
    pieces = [*(chr(c) for c in range(33, 127)), SPACE, "\n"]
    pieces += [a + b for a, b in _words(shape.vocabulary - len(tokens) - len(pieces), SPACE, random)]
    return [*tokens, *pieces], [*kinds, *([TokenType.NORMAL] * len(pieces))]
