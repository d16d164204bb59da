"""Where text comes from: Ollama or an OpenAI-compatible server over HTTP, or llama.cpp in this process."""

from __future__ import annotations

from tipbench.config import Config
from tipbench.engines.base import Engine, Fence
from tipbench.errors import InputError


def open_engine(config: Config, fence: Fence | None = None, *, patience_s: float | None = None) -> Engine:
    """The engine that the configuration asks for by name; nothing falls back to another one.

    `fence` says whether an Ollama that others use too is ours. Of several Ollama addresses it is the first: every replica has the same
    models. `patience_s` replaces the time, in seconds, for which a server that is away is tried again. Raises InputError when the
    embedded engine's library is not installed.
    """
    if config.engine == "embedded":
        try:
            from tipbench.engines.embedded import EmbeddedEngine
        except ImportError as error:
            raise InputError("--engine embedded needs llama.cpp: pip install 'tipbench[embedded]'") from error
        return EmbeddedEngine(threads=config.num_thread or None)
    if config.engine == "openai":
        from tipbench.engines.openai import OpenAIEngine, engine_key

        return OpenAIEngine(config.engine_url, key=engine_key(), parameters=config.parameter_counts)
    from tipbench.engines.ollama import Limits, OllamaEngine

    if patience_s is None:
        return OllamaEngine(config.ollama_urls[0], fence=fence)
    hurried = Limits(
        unreachable=patience_s, queue_full=patience_s, first_chunk=4 * patience_s, between_chunks=4 * patience_s
    )
    return OllamaEngine(config.ollama_urls[0], limits=hurried, fence=fence)
