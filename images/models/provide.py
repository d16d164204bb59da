"""Provide models to Ollama: what the server lacks is created from a file in this image, or pulled from the library.

Environment: OLLAMA_URL (comma-separated, one for each replica), MODELS (comma-separated tags), MAX_MODEL_B (billions of
parameters; a tag that promises more is not pulled). Exit code 1 names what could not be provided, and why.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from tipbench.errors import InputError
from tipbench.model_names import parameters_in_name, read_name, same_model
from tipbench.net.address import Address, read_addresses
from tipbench.net.clients import ERRORS, Client, open_client, words_of
from tipbench.net.secret import from_environment

MODELS = Path("/models")
WAIT_S = 300
"""How long a server that does not answer yet is waited for."""
ATTEMPTS = 5
CHUNK = 1024 * 1024


class Passing(ValueError):
    """Worth another try."""


def main() -> int:
    """One line for each server and model; returns the exit code."""
    carried = yaml.safe_load((MODELS / "models.yaml").read_text())
    wanted = split(os.environ.get("MODELS", ""))
    try:
        limit = number("MAX_MODEL_B", 4.0)
        urls = read_addresses(os.environ.get("OLLAMA_URL") or "http://ollama:11434", "OLLAMA_URL").each
        failures = [failure for url in urls for failure in provide_all(url, wanted, carried, limit)]
    except InputError as error:
        failures = [str(error)]
    for failure in failures:
        print(f"not provided: {failure}", file=sys.stderr)
    return 1 if failures else 0


def provide_all(url: Address, wanted: list[str], carried: dict[str, Any], limit: float) -> list[str]:
    """Provide one server with all models; what could not be provided, and why. Raises InputError (credentials, proxies)."""
    failures = []
    timeout = httpx.Timeout(600, connect=5)
    token = from_environment("OLLAMA_API_KEY")
    with open_client(url, name="Ollama", option="OLLAMA_URL", timeout=timeout, token=token) as server:
        try:
            wait_for(server)
        except ERRORS as error:
            failures.append(f"{url}: no answer for {WAIT_S} s ({server.explain(error)})")
            print(f"{url}: FAILED: no answer for {WAIT_S} s ({server.explain(error)})", flush=True)
            return failures
        for model in wanted:
            recipe = next((carried[name] for name in carried if same_model(name, model)), None)
            try:
                print(f"{url}: {model}: {persist(server, model, recipe, limit)}", flush=True)
            except (*ERRORS, ValueError, OSError) as error:
                words = server.explain(error)
                failures.append(f"{url}: {model}: {words}")
                print(f"{url}: {model}: FAILED: {words}", flush=True)
    return failures


def number(variable: str, default: float) -> float:
    """A variable's number over zero. Raises InputError."""
    text = os.environ.get(variable) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise InputError(f"{variable}={text!r}: write a number over 0, like {default:g}")
    return value


def split(text: str) -> list[str]:
    """`"a, b"` -> `["a", "b"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def wait_for(server: Client) -> None:
    """Return when the server answers; raises the last error after WAIT_S seconds."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            server.get("/api/version", timeout=5).raise_for_status()
            return
        except ERRORS:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def persist(server: Client, model: str, recipe: dict[str, Any] | None, limit: float) -> str:
    """`provide`, tried again while the network fails. Raises the last error."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return provide(server, model, recipe, limit)
        except (Passing, *ERRORS) as error:
            if attempt == ATTEMPTS or (isinstance(error, Exception) and server.lasting(error)):
                raise
            print(f"{server.address}: {model}: {server.explain(error)}; trying again", flush=True)
            time.sleep(min(2.0**attempt, 30))
    raise AssertionError("unreachable: the last attempt returns or raises")


def provide(server: Client, model: str, recipe: dict[str, Any] | None, limit: float) -> str:
    """Make the server have the model; says how. Raises ValueError with the reason when it cannot."""
    recipe = dict(recipe) if recipe else None
    name = read_name(model)
    if not name.valid:
        raise ValueError("is no name of a model: it is [HOST/][NAMESPACE/]MODEL[:TAG]")
    if name.cloud:
        raise ValueError("runs in somebody's cloud; tipbench measures what runs here")
    there = server.get("/api/tags").raise_for_status().json()["models"]
    if any(same_model(one["name"], model) for one in there):
        return "there already"
    if recipe is None:
        promised = parameters_in_name(model)
        if promised is not None and promised > limit * 1e9:
            raise ValueError(
                f"its tag promises {promised / 1e9:g} billion parameters, over the limit of {limit:g}; not pulled"
            )
        last = ask(server, "/api/pull", {"model": model})
        return f"pulled ({last})"
    path = MODELS / recipe.pop("file")
    digest = "sha256:" + sha256(path)
    if server.head(f"/api/blobs/{digest}").status_code != 200:
        server.post(f"/api/blobs/{digest}", content=chunks(path)).raise_for_status()
    last = ask(server, "/api/create", {"model": model, "files": {path.name: digest}, **recipe})
    return f"created from {path.name} ({last})"


def ask(server: Client, path: str, body: dict[str, Any]) -> str:
    """Call a streaming endpoint to its end; returns its last status. Raises ValueError with the server's own words."""
    last = ""
    with server.stream("POST", path, json=body) as response:
        if not response.is_success:
            response.read()
            raise refusal(words_of(response))
        for line in response.iter_lines():
            answer = json.loads(line)
            if "error" in answer:
                raise refusal(str(answer["error"]))
            last = answer.get("status", last)
    return last


def refusal(words: str) -> ValueError:
    """What the library lacks stays away; what the network did may pass."""
    lasting = ("does not exist", "not found", "invalid", "unauthorized", "newer version")
    return ValueError(words) if any(word in words.lower() for word in lasting) else Passing(words)


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
