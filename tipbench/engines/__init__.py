"""Where text comes from: Ollama or an OpenAI-compatible server over HTTP, or llama.cpp in this process."""

from __future__ import annotations

from tipbench.config import Config
from tipbench.engines.base import Engine
from tipbench.errors import InputError


def open_engine(config: Config) -> Engine:
    """The engine that the configuration asks for by name; nothing falls back to another one.

    Of several Ollama addresses it is the first: every replica has the same models. Raises InputError when the embedded engine's library is not installed.
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
    from tipbench.engines.ollama import OllamaEngine

    return OllamaEngine(config.ollama_urls[0])
