"""Starting runs and watching them: the form's schema, models, an estimate, the run itself and its live state."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from tipbench.api.auth import LONGEST_S, Auth
from tipbench.api.backends import PipelineRun
from tipbench.api.models import (
    JUDGE_KEYS,
    JUDGE_MODES,
    SERVER_KEYS,
    DagRun,
    DagRunDetail,
    DagRuns,
    Estimate,
    FormSchema,
    ModelEstimate,
    ModelProgress,
    ModelRowBody,
    Models,
    Progress,
    PromptInfo,
    RunRequest,
    RunStarted,
    ScenarioInfo,
    run_schema,
)
from tipbench.api.problems import Problem, documented, invalid, of, response
from tipbench.api.routes.common import NAME, Api, Caller, auth_of
from tipbench.api.service import OPTIONS, Digest, Row, Service, plain
from tipbench.api.web import note
from tipbench.catalog import available_prompts, load_prompts, load_scenarios
from tipbench.config import EXPERIMENT_PATTERN, KEYS, Config, build
from tipbench.engines import open_engine
from tipbench.engines.ollama import Limits, OllamaEngine
from tipbench.errors import InputError, TipbenchError
from tipbench.policy import check_tag, parse_bytes
from tipbench.stages import models as models_stage

router = APIRouter(prefix="/api/bench", tags=["collecting"])
LOOK_EVERY_S, HEARTBEAT_S = 2.0, 15.0
"""How often a live stream looks for news, and how long it is silent at most."""
STREAMS = 100
"""Live streams at once."""
ENGINE_LIMITS = Limits(connect=2.0, between_chunks=5.0, unreachable=0.0, queue_full=0.0, attempts=1)
RunId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.~:+-]{1,250}$", description="a run's id")]


# -- the form ------------------------------------------------------------------------------------


@router.get("/config/schema", responses=documented(401, 502, 503))
async def config_schema(api: Api) -> FormSchema:
    """What POST /api/bench/run takes here, with this server's defaults, and what can be chosen from."""
    defaults = dict(await api.in_back_end(api.back_end.defaults))
    schema = run_schema()
    schema["properties"] = {
        name: {**rules, "default": defaults[name]} for name, rules in schema["properties"].items() if name in defaults
    }
    config = api.settings.config
    prompts = load_prompts(available_prompts(config.prompts_dir or None), config.prompts_dir or None)
    scenarios = load_scenarios(config.scenarios or None)
    return FormSchema(
        schema=schema,
        defaults={name: value for name, value in defaults.items() if name in schema["properties"]},
        prompts=tuple(PromptInfo(name=p.name, description=p.description) for p in prompts),
        scenarios=tuple(ScenarioInfo(id=s.id, title=s.title) for s in scenarios),
        back_end=api.back_end.name,
    )


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
        return models_stage.run(config, engine)
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


# -- checking a configuration --------------------------------------------------------------------


async def checked(api: Service, body: Mapping[str, Any]) -> tuple[dict[str, Any], Config]:
    """The keys that were given, as the CLI checks them, and the whole configuration. Raises 422 with every fault."""
    faults: list[tuple[str, str]] = []
    known = await api.in_back_end(api.back_end.defaults)
    for name in body:
        if name in SERVER_KEYS:
            faults.append((f"/{name}", "names a file on the server; it is set where the API is started"))
        elif name in (*KEYS, *JUDGE_KEYS) and name not in known:
            faults.append((f"/{name}", "is not a run's to choose here; it is set for the whole installation"))
    keys = {name: value for name, value in body.items() if name not in JUDGE_KEYS and name not in SERVER_KEYS}
    judge = {name: value for name, value in body.items() if name in JUDGE_KEYS}
    faults += [fault for name, value in judge.items() for fault in _judge_faults(name, value)]
    if judge.get("judge") == "llm" and not judge.get("judge_model"):
        faults.append(("/judge_model", "is needed with judge = llm, e.g. ollama:qwen2.5:1.5b"))
    config = None
    try:
        config = build(keys, "configuration")
        for name in ("models", "prompts"):
            for one in getattr(config, name[:-1] + "_list"):
                if not re.fullmatch(NAME, one):
                    faults.append((f"/{name}", f"{one!r} is no name of a {name[:-1]}"))
        load_prompts(config.prompt_list, api.settings.config.prompts_dir or None)
    except InputError as error:
        problem = of(error)
        assert isinstance(problem, Problem)
        places = [(f.pointer, f.detail) for f in problem.errors] if config is None else [("/prompts", str(error))]
        faults += places or [("", str(error))]
    if faults or config is None:
        raise invalid(f"configuration: {len(faults)} fault{'s' * (len(faults) > 1)}", *dict.fromkeys(faults))
    settled = {
        **{name: known[name] for name in KEYS if name in known},
        **{name: getattr(config, name) for name in keys},
    }
    whole = replace(api.settings.config, **{name: value for name, value in settled.items() if name in KEYS})
    return {name: getattr(config, name) for name in keys} | judge, whole


def _judge_faults(name: str, value: Any) -> list[tuple[str, str]]:
    """The judge's keys against their rules, in the configuration's words."""
    rules, place = JUDGE_KEYS[name], f"/{name}"
    if rules["type"] == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            return [(place, f"needs a number, not {value!r}")]
        if not 0 < value <= rules["maximum"]:
            return [(place, f"must be over 0 and at most {rules['maximum']}")]
        return []
    if not isinstance(value, str):
        return [(place, f"needs text, not {value!r}")]
    if name == "judge" and value not in JUDGE_MODES:
        return [(place, f"{value!r} is not one of {', '.join(JUDGE_MODES)}")]
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        return [(place, f"{value!r} does not fit {rules['pattern']}")]
    return []


def _n_scenarios(api: Service, config: Config) -> int:
    there = len(load_scenarios(api.settings.config.scenarios or None))
    return min(there, config.n_scenarios) if config.n_scenarios else there


@router.post("/estimate", responses=documented(401, 403, 413, 422, 502, 503))
async def estimate(body: RunRequest, api: Api) -> Estimate:
    """How long a collection will take, by what earlier ones took for a tip of the same model."""
    _, config = await checked(api, body.root)
    digests = {
        one.name: await api.digest(one.experiment_id)
        for one in sorted(await api.experiments(), key=lambda e: e.last_update_ms or 0)
    }
    tips = len(config.prompt_list) * _n_scenarios(api, config) * config.n_tips
    found = []
    for model in config.model_list:
        pace, source = _pace(digests, model, config.experiment)
        seconds = None if pace is None else pace * tips
        found.append(ModelEstimate(model=model, tips=tips, seconds_per_tip=pace, seconds=seconds, measured_on=source))
    known = [one.seconds for one in found if one.seconds is not None]
    return Estimate(
        cells=len(config.model_list) * len(config.prompt_list) * _n_scenarios(api, config),
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


# -- runs ----------------------------------------------------------------------------------------


@router.post("/run", status_code=202, responses=documented(401, 403, 409, 413, 422, 502, 503))
async def start(
    body: RunRequest,
    request: Request,
    response: Response,
    identity: Caller,
    api: Api,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="a repeated request with the same key starts nothing new"),
    ] = None,
) -> RunStarted:
    """Start a collection: a run of the DAG `bench_collect`, or of the same steps on this machine."""
    conf, config = await checked(api, body.root)
    conf = {**conf, "experiment": config.experiment}
    run_id = _run_id(idempotency_key)
    run, created = await api.in_back_end(api.back_end.start, run_id, conf, identity.actor)
    if not created and any(run.config.get(name) != value for name, value in conf.items()):
        raise invalid("This Idempotency-Key has started another configuration", ("Idempotency-Key", "was used before"))
    url = f"{request.scope.get('prefix', '')}/api/bench/dag-runs/{run.id}"
    response.headers["Location"] = url
    note(request, run=run.id, created=created, experiment=config.experiment)
    return RunStarted(id=run.id, created=created, experiment=config.experiment, url=url, airflow_url=run.url)


def _run_id(key: str | None) -> str:
    """From the key alone, so that the back end's own refusal of a second run with one id holds across replicas and restarts."""
    if key is not None:
        return f"api-{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    return f"api-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


@router.get("/dag-runs", responses=documented(401, 422, 502, 503))
async def dag_runs(
    api: Api,
    experiment: Annotated[str | None, Query(pattern=EXPERIMENT_PATTERN)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> DagRuns:
    """The latest runs, newest first."""
    found, total = await api.in_back_end(api.back_end.runs, experiment or "", limit, offset)
    return DagRuns(dag_runs=tuple(DagRun(**_facts(api, run)) for run in found), total=total)


@router.get("/dag-runs/{run_id}", responses=documented(401, 404, 422, 502, 503))
async def dag_run(run_id: RunId, api: Api) -> DagRunDetail:
    """One run: its tasks, its progress and, when it failed, why."""
    return await detail(api, await api.in_back_end(api.back_end.run, run_id))


@router.post("/dag-runs/{run_id}/cancel", status_code=202, responses=documented(401, 403, 404, 409, 422, 502, 503))
async def cancel(run_id: RunId, identity: Caller, api: Api) -> DagRunDetail:
    """Stop a run. What it has collected is kept; the same configuration goes on where it stopped."""
    return await detail(api, await api.in_back_end(api.back_end.cancel, run_id, identity.actor))


@router.get(
    "/dag-runs/{run_id}/events",
    response_model=None,
    responses={
        200: {
            "description": "Server-sent events: `state` (a DagRunDetail) at once and on every change, `problem`, `end`",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(401, 404, 422, 429, 502, 503),
    },
)
async def events(run_id: RunId, request: Request, api: Api) -> StreamingResponse:
    """A run's state as it changes."""
    first = await detail(api, await api.in_back_end(api.back_end.run, run_id))
    if request.app.state.streams >= STREAMS:
        raise Problem(429, f"There are {STREAMS} live streams already.", headers={"Retry-After": "30"})
    return StreamingResponse(
        _stream(run_id, first, request, api), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def _stream(run_id: str, current: DagRunDetail, request: Request, api: Service) -> AsyncIterator[str]:
    state = request.app.state
    auth: Auth = auth_of(request)
    state.streams += 1
    shown, silent_since = "", time.monotonic()
    try:
        while True:
            text = _event("state", current.model_dump_json())
            if text != shown:
                yield text
                shown, silent_since = text, time.monotonic()
            if current.state in ("success", "failed", "cancelled"):
                yield _event("end", "{}")
                return
            if time.monotonic() - silent_since > HEARTBEAT_S:
                yield ": still here\n\n"
                silent_since = time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                auth.identify(request, LONGEST_S)
                current = await detail(api, await api.in_back_end(api.back_end.run, run_id))
            except (TipbenchError, Problem) as error:
                problem = of(error)
                yield _event("problem", bytes(response(problem, request.scope["request_id"]).body).decode())
                shown = ""
                if problem.status_code in (401, 404):
                    yield _event("end", "{}")
                    return
    finally:
        state.streams -= 1


def _event(kind: str, data: str) -> str:
    return f"event: {kind}\ndata: {json.dumps(json.loads(data))}\n\n"


def _facts(api: Service, run: PipelineRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "experiment": str(run.config.get("experiment", "")),
        "state": run.state,
        "started_by": run.started_by,
        "queued_at": run.queued_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "config": dict(run.config),
        "judge": str(run.config.get("judge", "")),
        "airflow_url": run.url,
        "mlflow_url": None,
    }


async def detail(api: Service, run: PipelineRun) -> DagRunDetail:
    """The run as the back end has it, with the progress that MLflow knows; without MLflow, it says so."""
    facts = _facts(api, run)
    progress, degraded = None, None
    try:
        experiment_id = await _existing(api, facts["experiment"])
        if experiment_id is not None:
            facts["mlflow_url"] = api.mlflow_link(experiment_id)
        config = build({k: v for k, v in run.config.items() if k in KEYS and k not in SERVER_KEYS}, "run")
        digest = await api.digest(experiment_id) if experiment_id is not None else Digest("", (), {})
        progress = _progress(config, _n_scenarios(api, config), digest, run)
    except InputError as error:
        degraded = f"The progress cannot be told: {error}"
    except TipbenchError as error:
        degraded = str(error)
    return DagRunDetail(**facts, tasks=tuple(run.tasks), progress=progress, reason=run.reason, degraded=degraded)


async def _existing(api: Service, experiment: str) -> str | None:
    if not re.fullmatch(EXPERIMENT_PATTERN, experiment):
        return None
    try:
        return await api.experiment_id(experiment)
    except Problem as problem:
        if problem.status_code == 404:
            return None
        raise


def _progress(config: Config, n_scenarios: int, digest: Digest, run: PipelineRun) -> Progress:
    """What the store has of the cells that this run is to fill, and when the last one will be there at this pace."""
    options = (repr(config.temperature), str(config.seed), str(config.num_predict), str(config.num_ctx))
    assert len(options) == len(OPTIONS)
    mine = [
        row
        for row in digest.rows
        if row.options == options and row.n_tips == config.n_tips and row.prompt in config.prompt_list
    ]
    planned = len(config.prompt_list) * n_scenarios
    models = []
    for model in config.model_list:
        rows = [row for row in mine if row.model == model]
        failures: dict[str, int] = {}
        for row in rows:
            if not row.finished:
                failures[row.failure] = failures.get(row.failure, 0) + 1
        models.append(
            ModelProgress(
                model=model,
                planned=planned,
                finished=min(planned, sum(row.finished for row in rows)),
                failed=sum(failures.values()),
                failures=failures,
                refused=None if rows else digest.refused.get(model),
            )
        )
    finished, failed = sum(m.finished for m in models), sum(m.failed for m in models)
    total = planned * sum(m.refused is None for m in models)
    return Progress(
        planned=planned * len(models),
        finished=finished,
        failed=failed,
        pending=sum(row.pending for row in mine if row.model in config.model_list),
        eta_s=_eta(run, mine, total - finished - failed),
        models=tuple(models),
    )


def _eta(run: PipelineRun, rows: list[Row], left: int) -> float | None:
    """Seconds left, at the pace of the cells that ended since the run began; None without such a cell."""
    collecting = any(t.task == "collect" and t.state in ("running", "pending") for t in run.tasks)
    if run.over or not collecting or run.started_at is None or left <= 0:
        return None
    began = run.started_at.timestamp()
    ended = [row.ended_ms / 1000 for row in rows if row.ended_ms / 1000 > began]
    if not ended:
        return None
    return max(0.0, (max(ended) - began) / len(ended) * left)
