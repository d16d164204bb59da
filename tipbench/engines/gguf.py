"""Facts from the header of a GGUF file, read without loading the model.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 2 and 3, little-endian).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tipbench.errors import InputError
from tipbench.memory.need import Tensor

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip
TENSOR_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""ggml's numbers of tensor types (ggml.h)."""
F16_BYTES = 2


@dataclass(frozen=True)
class GgufHeader:
    """The metadata, the tensors, and the parameter count: as stated, else the sum over all tensors."""

    metadata: dict[str, Any]
    parameters: int
    tensors: tuple[Tensor, ...] = ()

    @property
    def architecture(self) -> str:
        """`general.architecture`, the prefix of the model's own keys."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def quantization(self) -> str | None:
        """The name of `general.file_type`, as Ollama and llama.cpp write it; None for a type not known here."""
        return _FILE_TYPES.get(self.metadata.get("general.file_type", -1))


def read_header(path: Path) -> GgufHeader:
    """The header of `path`; raises InputError when it is no GGUF file, or cut off."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputError(f"{path}: not a GGUF file")
            version = _scalar(file, "<I")
            if version not in (2, 3):
                raise InputError(f"{path}: GGUF version {version}; versions 2 and 3 can be read")
            n_tensors, n_keys = _scalar(file, "<Q"), _scalar(file, "<Q")
            metadata = {_string(file): _value(file, _scalar(file, "<I")) for _ in range(n_keys)}
            tensors = tuple(_tensor(file) for _ in range(n_tensors))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except (EOFError, struct.error, KeyError, MemoryError, OverflowError) as error:
        raise InputError(f"{path}: the GGUF header is broken or cut off") from error
    stated = metadata.get("general.parameter_count")
    counted = sum(math.prod(t.shape) for t in tensors)
    return GgufHeader(metadata, stated if isinstance(stated, int) and stated > 0 else counted, tensors)


def kv_bytes_per_token(metadata: dict[str, Any]) -> int | None:
    """Bytes of an f16 KV cache per token: layers x KV heads x (key + value width) x 2; None when a figure is missing.

    Takes GGUF metadata, or the `model_info` of Ollama's `/api/show`, which has the same keys.
    """
    prefix = str(metadata.get("general.architecture", ""))
    layers, heads = metadata.get(f"{prefix}.block_count"), metadata.get(f"{prefix}.attention.head_count")
    kv_heads = metadata.get(f"{prefix}.attention.head_count_kv", heads)
    width = metadata.get(f"{prefix}.embedding_length")
    if not isinstance(layers, int) or kv_heads is None:
        return None
    key = metadata.get(f"{prefix}.attention.key_length")
    value = metadata.get(f"{prefix}.attention.value_length")
    if key is None or value is None:
        if not isinstance(heads, int) or not isinstance(width, int) or not heads:
            return None
        key, value = key or width // heads, value or width // heads
    # Some architectures state the KV heads layer by layer.
    total_heads = sum(kv_heads) if isinstance(kv_heads, list) else layers * kv_heads
    return int(total_heads * (key + value) * F16_BYTES)


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> str:
    length = _scalar(file, "<Q")
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data.decode("utf-8", errors="replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _scalar(file, _SCALARS[kind])
    inner, count = _scalar(file, "<I"), _scalar(file, "<Q")
    if inner in _SCALARS:
        form = f"<{count}{_SCALARS[inner][1]}"
        return list(struct.unpack(form, file.read(struct.calcsize(form))))
    return [_value(file, inner) for _ in range(count)]


def _tensor(file: BinaryIO) -> Tensor:
    """One tensor's description."""
    name = _string(file)
    n_dimensions = _scalar(file, "<I")
    shape = tuple(_scalar(file, "<Q") for _ in range(n_dimensions))
    kind = _scalar(file, "<I")
    _scalar(file, "<Q")
    return Tensor(name, TENSOR_TYPES.get(kind, str(kind)), shape)
