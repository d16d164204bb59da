"""Provide models to Ollama: what the server lacks is created from a file in this image, or pulled from the library.

Environment: OLLAMA_URL (comma-separated, one for each replica), MODELS (comma-separated tags), MAX_MODEL_B (billions of
parameters; a tag that promises more is not pulled). Exit code 1 names what could not be provided, and why.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

MODELS = Path("/models")
WAIT_S = 300
"""How long a server that does not answer yet is waited for."""
CHUNK = 1024 * 1024


def main() -> int:
    """One line for each server and model; returns the exit code."""
    carried = yaml.safe_load((MODELS / "models.yaml").read_text())
    wanted = split(os.environ.get("MODELS", ""))
    limit = float(os.environ.get("MAX_MODEL_B") or 4.0)
    failures = []
    for url in split(os.environ.get("OLLAMA_URL", "http://ollama:11434")):
        with httpx.Client(base_url=url, timeout=httpx.Timeout(600, connect=5)) as server:
            try:
                wait_for(server)
            except httpx.HTTPError as error:
                failures.append(f"{url}: no answer for {WAIT_S} s ({error})")
                print(f"{url}: FAILED: no answer for {WAIT_S} s ({error})", flush=True)
                continue
            for model in wanted:
                try:
                    print(f"{url}: {model}: {provide(server, model, carried.get(model), limit)}", flush=True)
                except (httpx.HTTPError, ValueError, OSError) as error:
                    failures.append(f"{url}: {model}: {error}")
                    print(f"{url}: {model}: FAILED: {error}", flush=True)
    for failure in failures:
        print(f"not provided: {failure}", file=sys.stderr)
    return 1 if failures else 0


def split(text: str) -> list[str]:
    """`"a, b"` -> `["a", "b"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def wait_for(server: httpx.Client) -> None:
    """Return when the server answers; raises the last error after WAIT_S seconds."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            server.get("/api/version", timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def provide(server: httpx.Client, model: str, recipe: dict[str, Any] | None, limit: float) -> str:
    """Make the server have the model; says how. Raises ValueError with the reason when it cannot."""
    recipe = dict(recipe) if recipe else None
    there = {m["name"]: m for m in server.get("/api/tags").raise_for_status().json()["models"]}
    name = model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"
    if name in there:
        return "there already"
    if recipe is None:
        promised = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", model.lower().rpartition(":")[2])
        if promised and float(promised[1]) > limit:
            raise ValueError(
                f"its tag promises {promised[1]} billion parameters, over the limit of {limit:g}; not pulled"
            )
        last = ask(server, "/api/pull", {"model": model})
        return f"pulled ({last})"
    path = MODELS / recipe.pop("file")
    digest = "sha256:" + sha256(path)
    if server.head(f"/api/blobs/{digest}").status_code != 200:
        server.post(f"/api/blobs/{digest}", content=chunks(path)).raise_for_status()
    last = ask(server, "/api/create", {"model": model, "files": {path.name: digest}, **recipe})
    return f"created from {path.name} ({last})"


def ask(server: httpx.Client, path: str, body: dict[str, Any]) -> str:
    """Call a streaming endpoint to its end; returns its last status. Raises ValueError with the server's own words."""
    last = ""
    with server.stream("POST", path, json=body) as response:
        for line in response.iter_lines():
            answer = json.loads(line)
            if "error" in answer:
                raise ValueError(answer["error"])
            last = answer.get("status", last)
        response.raise_for_status()
    return last


def sha256(path: Path) -> str:
    """The file's digest, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks(path: Path) -> Iterator[bytes]:
    """The file's content in pieces, so that it is never in memory as a whole."""
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


if __name__ == "__main__":
    sys.exit(main())
