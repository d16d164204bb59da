"""The RAM policy's gates: which of the models asked for may run, by their real size and by an estimate of their memory."""

from __future__ import annotations

from collections.abc import Callable

from tipbench.collecting.plan import Block
from tipbench.collecting.progress import Event, OnEvent
from tipbench.config import Config
from tipbench.engines.base import Engine, GenerationError, ModelFacts, ModelMissing, Unsuitable
from tipbench.errors import InputError
from tipbench.memory.meter import Reading
from tipbench.policy import Verdict, check_memory, check_parameters, check_tag, need
from tipbench.store.records import Failure

Measured = Callable[[ModelFacts], Reading | None]


def gate(
    config: Config, engine: Engine, limit: int | None, on_event: OnEvent, measured: Measured = lambda facts: None
) -> tuple[list[Block], dict[str, str]]:
    """The models that may run, in the order asked for, and the refused ones with the reason.

    `measured` knows what an earlier run of a model took, under the same options and in the same engine, if there is one.
    """
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
        except Unsuitable as error:
            verdict = Verdict(False, str(error))
        except GenerationError as error:
            failure = Failure(reason=error.reason, message=str(error))
        estimate = None
        if facts is not None:
            # The fact decides; what the tag promised only guards the pull.
            estimate = need(facts, config.num_ctx, config.parallel, config.engine)
            verdict = check_parameters(model, facts.parameters, config.max_model_b)
            if verdict.allowed:
                verdict = check_memory(model, estimate, limit, None if limit is None else measured(facts))
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
