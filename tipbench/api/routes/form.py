"""What a form needs before a run: the keys and what they may be, the models, the rubric, and how long it would take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query

from tipbench.api.checking import checked, n_scenarios
from tipbench.api.models import (
    Estimate,
    FormSchema,
    ModelEstimate,
    ModelRowBody,
    Models,
    PromptInfo,
    RubricInForce,
    RunRequest,
    ScenarioInfo,
    run_schema,
)
from tipbench.api.problems import documented
from tipbench.api.routes.common import Api
from tipbench.api.service import Digest, plain
from tipbench.catalog import Scenario, available_prompts, load_prompts, load_scenarios
from tipbench.config import KEYS, Config, build
from tipbench.engines import open_engine
from tipbench.engines.ollama import Limits, OllamaEngine
from tipbench.errors import InputError, TipbenchError
from tipbench.judging.exchange import ExchangeRubric
from tipbench.policy import check_tag, parse_bytes
from tipbench.stages import models as models_stage

router = APIRouter(prefix="/api/bench", tags=["collecting"])
ENGINE_LIMITS = Limits(connect=2.0, between_chunks=5.0, unreachable=0.0, queue_full=0.0, attempts=1)


@router.get("/config/schema", responses=documented(401, 502, 503))
async def config_schema(api: Api) -> FormSchema:
    """What POST /api/bench/run takes here, with this server's defaults, and what can be chosen from."""
    defaults = dict(await api.in_back_end(api.back_end.defaults))
    schema = run_schema()
    schema["properties"] = {
        name: {**rules, "default": defaults[name]} for name, rules in schema["properties"].items() if name in defaults
    }
    config = api.settings.config
    scenarios = load_scenarios(config.scenarios or None)
    prompts = [_prompt(name, config, scenarios) for name in available_prompts(config.prompts_dir or None)]
    return FormSchema(
        schema=schema,
        defaults={name: value for name, value in defaults.items() if name in schema["properties"]},
        prompts=tuple(prompts),
        scenarios=tuple(ScenarioInfo(id=s.id, title=s.title) for s in scenarios),
        back_end=api.back_end.name,
    )


def _prompt(name: str, config: Config, scenarios: Sequence[Scenario]) -> PromptInfo:
    """One prompt; a fault in its file is this prompt's alone, and the others can be asked for."""
    try:
        (prompt,) = load_prompts([name], config.prompts_dir or None, scenarios)
    except InputError as error:
        return PromptInfo(name=name, description="", problem=_in_a_line(error))
    return PromptInfo(name=prompt.name, description=prompt.description, problem=None)


def _in_a_line(error: InputError) -> str:
    """`FILE: 1 fault` and the fault below it as `FILE, line 3, user: ...`."""
    return str(error).replace(": 1 fault\n  ", ", ").replace("\n  ", "; ")


@router.get("/models", responses=documented(401, 422))
async def models(
    api: Api,
    models: Annotated[
        str | None, Query(max_length=4000, description="comma-separated tags, beside those installed")
    ] = None,
    max_model_b: Annotated[float | None, Query(gt=0, le=1e6)] = None,
    num_ctx: Annotated[int | None, Query(ge=128, le=1_048_576)] = None,
    parallel: Annotated[int | None, Query(ge=1, le=64)] = None,
    memory_limit: Annotated[str | None, Query(pattern=str(KEYS["memory_limit"].metadata["pattern"]))] = None,
) -> Models:
    """The engine's models with the RAM policy's verdict and the memory each needs; with no engine, what the tags tell."""
    asked = {
        "models": models or None,
        "max_model_b": max_model_b,
        "num_ctx": num_ctx,
        "parallel": parallel,
        "memory_limit": memory_limit,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    built = build(given, "query")
    config = replace(api.settings.config, **{name: getattr(built, name) for name in given})
    problem = None
    try:
        rows = [ModelRowBody(**plain(row)) for row in await api.in_back_end(_model_rows, config)]
    except TipbenchError as error:
        problem, rows = str(error), [_by_tag(config, model) for model in config.model_list]
    return Models(
        available=problem is None,
        problem=problem,
        memory_limit_bytes=parse_bytes(config.memory_limit),
        max_model_b=config.max_model_b,
        models=tuple(rows),
    )


def _model_rows(config: Config) -> list[models_stage.ModelRow]:
    if config.engine == "ollama":
        engine: Any = OllamaEngine(config.ollama_urls[0], limits=ENGINE_LIMITS)
    else:
        engine = open_engine(config)
    try:
        return models_stage.run(config, engine, parse_bytes(config.memory_limit))
    finally:
        engine.close()


def _by_tag(config: Config, model: str) -> ModelRowBody:
    """What a tag alone tells of a model."""
    verdict = check_tag(model, config.max_model_b)
    return ModelRowBody(
        model=model,
        installed=False,
        configured=True,
        parameters=None,
        quantization=None,
        size_bytes=None,
        estimated_memory_bytes=None,
        allowed=verdict.allowed,
        verdict="not known while the engine is away" if verdict.allowed else f"refused: {verdict.reason}",
    )


@router.get("/rubric", responses=documented(401))
async def rubric(api: Api) -> RubricInForce:
    """The rubric that tips are scored by here: its criteria, its scale with an anchor for every score, and the instructions."""
    found = api.rubric()
    return RubricInForce(
        rubric=ExchangeRubric.model_validate(found.judge_view(), strict=False),
        rubric_hash=found.hash,
        instructions=found.instructions,
    )


@router.post("/estimate", responses=documented(401, 403, 413, 422, 502, 503))
async def estimate(body: RunRequest, api: Api) -> Estimate:
    """How long a collection will take, by what earlier ones took for a tip of the same model."""
    _, config = await checked(api, body.root)
    digests = {
        one.name: await api.digest(one.experiment_id)
        for one in sorted(await api.experiments(), key=lambda e: e.last_update_ms or 0)
    }
    tips = len(config.prompt_list) * n_scenarios(api, config) * config.n_tips
    found = []
    for model in config.model_list:
        pace, source = _pace(digests, model, config.experiment)
        seconds = None if pace is None else pace * tips
        found.append(ModelEstimate(model=model, tips=tips, seconds_per_tip=pace, seconds=seconds, measured_on=source))
    known = [one.seconds for one in found if one.seconds is not None]
    return Estimate(
        cells=len(config.model_list) * len(config.prompt_list) * n_scenarios(api, config),
        tips=tips * len(config.model_list),
        seconds=sum(known) if known else None,
        complete=len(known) == len(found),
        models=tuple(found),
    )


def _pace(digests: Mapping[str, Digest], model: str, preferred: str) -> tuple[float | None, str | None]:
    """Median seconds for a tip of the model, and where that is from: the same experiment, else the one that was last."""
    for name in sorted(digests, key=lambda n: (n == preferred, list(digests).index(n)), reverse=True):
        paces = [
            row.wall_s / row.n_candidates
            for row in digests[name].rows
            if row.model == model and row.finished and row.wall_s and row.n_candidates
        ]
        if paces:
            return statistics.median(paces), name
    return None, None
