"""The RAM policy's gates: which of the models asked for may run, by their real size and by an estimate of their memory."""

from __future__ import annotations

from tipbench.collecting.plan import Block
from tipbench.collecting.progress import Event, OnEvent
from tipbench.config import Config
from tipbench.engines.base import Engine, GenerationError, ModelFacts, ModelMissing
from tipbench.errors import InputError
from tipbench.policy import check_memory, check_parameters, check_tag, estimate_memory
from tipbench.store.records import Failure


def gate(config: Config, engine: Engine, limit: int | None, on_event: OnEvent) -> tuple[list[Block], dict[str, str]]:
    """The models that may run, in the order asked for, and the refused ones with the reason."""
    blocks, refused = [], {}
    for model in config.model_list:
        facts, failure = None, None
        verdict = check_tag(model, config.max_model_b)
        try:
            facts = engine.describe(model)
        except ModelMissing as error:
            if verdict.allowed and config.pull:
                facts, failure = _pull(engine, model, on_event)
            else:
                failure = Failure(reason=error.reason, message=str(error))
        except GenerationError as error:
            failure = Failure(reason=error.reason, message=str(error))
        estimate = None
        if facts is not None:
            # The fact decides; what the tag promised only guards the pull.
            estimate = estimate_memory(facts.size_bytes, facts.kv_bytes_per_token, config.num_ctx, config.parallel)
            verdict = check_parameters(model, facts.parameters, config.max_model_b)
            if verdict.allowed:
                verdict = check_memory(model, estimate, limit)
        if verdict.allowed:
            blocks.append(Block(model, facts, estimate, failure))
        else:
            refused[model] = verdict.reason
            on_event(Event("refused", f"refused: {verdict.reason}"))
    return blocks, refused


def _pull(engine: Engine, model: str, on_event: OnEvent) -> tuple[ModelFacts | None, Failure | None]:
    pull = getattr(engine, "pull", None)
    if pull is None:
        raise InputError("--pull needs the Ollama engine")
    on_event(Event("note", f"pulling {model}"))
    try:
        pull(model)
        return engine.describe(model), None
    except GenerationError as error:
        return None, Failure(reason=error.reason, message=str(error))
