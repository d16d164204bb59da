"""Write a GGUF file with the shape of a published model and random weights, for Ollama and llama.cpp to load.

    python -m tests.models --shape qwen2.5:0.5b --out qwen.gguf
    ollama create qwen2.5:0.5b -f <(echo FROM ./qwen.gguf)

The same seed writes the same file. Needs the package gguf (`make install`); `--list` prints the shapes and their sizes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .shapes import SHAPES
from .writing import write


def main() -> int:
    """Write one file, or list what there is."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", metavar="NAME", help=f"one of {', '.join(SHAPES)}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file to write; its folder is made")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the vocabulary (default 0)")
    parser.add_argument("--list", action="store_true", help="the shapes: parameters and bytes of the tensors")
    arguments = parser.parse_args()
    if arguments.list:
        for name, shape in SHAPES.items():
            tensors = list(shape.tensors())
            print(f"{name}\t{sum(t.elements for t in tensors)}\t{sum(t.nbytes for t in tensors)}")
        return 0
    if not arguments.shape or arguments.out is None:
        parser.error("--shape and --out are needed, or --list")
    if arguments.shape not in SHAPES:
        parser.error(f"no shape {arguments.shape!r}; there are {', '.join(SHAPES)}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write(SHAPES[arguments.shape], arguments.shape, arguments.out, arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
