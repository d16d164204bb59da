"""Writes charts/ollama/files/memory.json: what Ollama needs for each published model, by tipbench's own rule. `--check` only
says whether it is stale.

The chart sizes its pods by that table, and its README shows it. Shapes are those of `tests/models/shapes.py`; a model of your own
gets its figure from `tipbench models --json` (estimated_memory_bytes), and goes into the value `models.memory`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "charts" / "ollama" / "files" / "memory.json"
MODELS = ("qwen2.5:0.5b", "qwen2.5:1.5b", "gemma3:1b", "llama3.2:3b", "qwen3:0.6b", "qwen3:1.7b")
"""Those of the contract, and more whose file in Ollama's library has this shape."""
CONTEXTS = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
MIB = 1024**2


def table() -> dict[str, dict[str, list[int]]]:
    """model -> num_ctx -> MiB: the sum, then its terms (weights, KV cache, compute buffers, overhead), each rounded up.

    One slot and an f16 cache, as the chart runs Ollama.
    """
    sys.path.insert(0, str(ROOT))
    from tests.models.shapes import SHAPES
    from tipbench.memory.need import Setting, Tensor, estimate, shape_of

    found = {}
    for name in MODELS:
        published = SHAPES[name]
        metadata = {f"{published.architecture}.{key}": value for key, value in published.metadata().items()}
        tensors = [Tensor(t.name, t.type.name, t.shape) for t in published.tensors()]
        shape = shape_of({"general.architecture": published.architecture, **published.tokens(), **metadata}, tensors)
        assert shape is not None
        found[name] = {
            str(context): _terms(estimate(shape, Setting(context)))
            for context in CONTEXTS
            if context <= published.context or context == min(c for c in CONTEXTS if c >= published.context)
        }
    return found


def _terms(need: Any) -> list[int]:
    terms = [-(-size // MIB) for size in (need.weights, need.kv_cache, need.compute, need.overhead)]
    return [sum(terms), *terms]


def main(check: bool) -> int:
    """Write the table, or say that it is stale."""
    wanted = "{\n" + ",\n".join(f' "{name}": {json.dumps(row)}' for name, row in table().items()) + "\n}\n"
    if TABLE.exists() and TABLE.read_text() == wanted:
        return 0
    if check:
        sys.stderr.write(
            "stale: charts/ollama/files/memory.json; run: python charts/memory.py && python charts/readme.py\n"
        )
        return 1
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
