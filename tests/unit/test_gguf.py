"""Reading GGUF headers: made here byte by byte, so that every kind of value and every fault is seen."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tipbench.engines.gguf import kv_bytes_per_token, read_header
from tipbench.errors import InputError

pytestmark = pytest.mark.unit


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def gguf(*keys: bytes, tensors: tuple[tuple[int, ...], ...] = (), version: int = 3) -> bytes:
    described = b"".join(
        text(f"t{i}")
        + struct.pack("<I", len(shape))
        + struct.pack(f"<{len(shape)}Q", *shape)
        + struct.pack("<IQ", 0, 0)
        for i, shape in enumerate(tensors)
    )
    return b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + described


def test_metadata_and_the_sum_of_all_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    strings = struct.pack("<IQ", 8, 2) + text("a") + text("bc")
    path.write_bytes(
        gguf(
            key("general.architecture", 8, text("llama")),
            key("general.file_type", 4, struct.pack("<I", 15)),
            key("list", 9, strings),
            key("flag", 7, b"\x01"),
            key("f", 6, struct.pack("<f", 0.5)),
            tensors=((4, 8), (10,)),
        )
    )
    header = read_header(path)
    assert header.architecture == "llama" and header.quantization == "Q4_K_M"
    assert header.metadata["list"] == ["a", "bc"] and header.metadata["flag"] is True and header.metadata["f"] == 0.5
    assert header.parameters == 42


def test_a_stated_parameter_count_is_taken_at_its_word(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(key("general.parameter_count", 10, struct.pack("<Q", 7)), tensors=((2,),)))
    assert read_header(path).parameters == 7


@pytest.mark.parametrize(
    "data", [b"", b"GGML" + bytes(40), gguf(version=1), gguf(key("k", 99, b"")), gguf(key("k", 8, text("v")))[:-1]]
)
def test_what_is_no_gguf_is_an_input_error_with_the_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"m\.gguf"):
        read_header(path)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (
            {"block_count": 30, "attention.head_count": 9, "attention.head_count_kv": 3, "embedding_length": 576},
            30 * 3 * 128 * 2,
        ),
        ({"block_count": 2, "attention.head_count": 8, "embedding_length": 64}, 2 * 8 * 16 * 2),
        (
            {
                "block_count": 2,
                "attention.head_count_kv": [1, 2],
                "attention.key_length": 4,
                "attention.value_length": 6,
            },
            3 * 10 * 2,
        ),
        ({"block_count": 2}, None),
        ({}, None),
    ],
)
def test_the_cache_per_token_follows_from_layers_heads_and_widths(
    metadata: dict[str, object], expected: int | None
) -> None:
    full = {"general.architecture": "x"} | {f"x.{k}": v for k, v in metadata.items()}
    assert kv_bytes_per_token(full) == expected
