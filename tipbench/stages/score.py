"""Score: fill an exchange file, by a person in the terminal or by a judge that is named."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from tipbench.catalog import load_judge_prompt
from tipbench.config import Config
from tipbench.engines import open_engine
from tipbench.engines.base import EngineUnreachable, Held
from tipbench.engines.openai import Limits, OpenAIEngine
from tipbench.errors import InputError
from tipbench.judging.baseline import BaselineJudge
from tipbench.judging.exchange import JudgeIdentity, identify
from tipbench.judging.fill import FillResult, Judge, begin, fill
from tipbench.judging.llm import NUM_CTX, EngineChat, LLMJudge, Rationale, judge_facts
from tipbench.judging.terminal import judge_in_terminal
from tipbench.judging.validate import read_exchange
from tipbench.net.secret import from_environment
from tipbench.policy import check_memory, need

SPECS = "terminal, baseline, ollama:MODEL, openai:MODEL or embedded:MODEL"
OPENAI_PARALLEL = 8
"""Questions in flight at once at an OpenAI-compatible endpoint, when nobody says otherwise."""
SLOTS = "OLLAMA_NUM_PARALLEL"
"""How many slots an Ollama server has stands in its environment, and no call of its API tells it. Where the same variable stands in ours,
as on a laptop's shell or in a pod of the charts, it is taken at its word."""


@dataclass(frozen=True)
class ScoreResult:
    """What became of the file; counts are items."""

    file: str
    judge: str
    scored: int
    left: int
    failures: Mapping[str, int]
    """reason -> items that could not be scored"""
    why: Mapping[str, str] = field(default_factory=dict)
    """reason -> what the first of them was about"""
    wall_s: float | None = None
    engine_s: float | None = None
    """The sum of the engine's own durations, where it tells them; with several questions at once it is more than `wall_s`."""


@dataclass(frozen=True)
class JudgeSettings:
    """How a judge that is a model is asked. `parallel` None takes what fits the judge: see `slots`."""

    ollama_url: str
    base_url: str
    passes: int = 1
    judge_prompt: str | None = None
    parallel: int | None = None
    rationale: Rationale = "before"
    num_thread: int = 0
    memory_limit: int | None = None
    """Bytes that a judge on Ollama or in this process must fit in; None, no limit."""


def run(
    path: Path,
    spec: str,
    settings: JudgeSettings,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    held: Held | None = None,
) -> ScoreResult:
    """Have the judge that `spec` names score every open item of the file. `held` says whether the judge's Ollama is ours, and what it
    died of.

    Raises InputError (the file, the spec, a judge that does not fit the file or the memory limit) and UnreachableError (the judge's
    service is away); what was scored until then is in the file.
    """
    exchange = read_exchange(path)
    begin(exchange, spec, str(path))
    parallel = slots(spec) if settings.parallel is None else settings.parallel
    began, began_ms = time.perf_counter(), int(time.time() * 1000)
    with _judge(spec, settings, parallel, held) as (judge, engine_s):
        try:
            filled = fill(exchange, judge, path, on_progress, parallel=parallel)
        except EngineUnreachable as error:
            if held is not None and (death := held.killed(began_ms)):
                raise EngineUnreachable(f"{error}. {death}") from error
            raise
        return _result(path, filled, time.perf_counter() - began, engine_s())


def slots(spec: str) -> int:
    """Questions that a judge takes at once: 8 behind OpenAI's API, as many as Ollama has slots (where that can be known), else 1."""
    kind = spec.partition(":")[0]
    if kind == "openai":
        return OPENAI_PARALLEL
    told = os.environ.get(SLOTS, "")
    return min(int(told), 64) if kind == "ollama" and told.isdecimal() and int(told) > 0 else 1


def identity_of(spec: str, settings: JudgeSettings) -> JudgeIdentity:
    """Who the judge that `spec` names is now, model digest and judge prompt included. Raises InputError and UnreachableError."""
    with _judge(spec, settings, 1) as (judge, _):
        return judge.identity


def in_terminal(path: Path, name: str, console: Console) -> ScoreResult:
    """Let the person at the terminal, known as `name`, score the file. Raises InputError."""
    identity = identify(name, "human", "--as")
    return _result(path, judge_in_terminal(read_exchange(path), path, identity, console))


def _result(path: Path, filled: FillResult, wall_s: float | None = None, engine_s: float | None = None) -> ScoreResult:
    return ScoreResult(
        str(path), filled.judge, filled.scored, filled.left, filled.failures, filled.why, wall_s, engine_s
    )


@contextlib.contextmanager
def _judge(
    spec: str, settings: JudgeSettings, parallel: int, held: Held | None = None
) -> Iterator[tuple[Judge, Callable[[], float | None]]]:
    """The judge, and what tells the seconds that its engine took."""
    kind, _, model = spec.partition(":")
    if spec == "baseline":
        yield BaselineJudge(), lambda: None
        return
    if kind not in ("ollama", "openai", "embedded") or not model:
        raise InputError(f"judge {spec!r} is not known; use {SPECS}")
    identify(spec, "llm", "judge")
    prompt = load_judge_prompt(settings.judge_prompt)
    chat = _openai(model, settings, parallel) if kind == "openai" else _local(kind, model, settings, parallel, held)
    with contextlib.closing(LLMJudge(spec, chat, prompt, settings.passes, settings.rationale)) as judge:
        yield judge, lambda: chat.engine_s or None


def _openai(model: str, settings: JudgeSettings, parallel: int) -> EngineChat:
    """A judge behind an OpenAI-compatible endpoint; the key comes from OPENAI_API_KEY."""
    engine = OpenAIEngine(
        settings.base_url,
        key=from_environment("OPENAI_API_KEY"),
        stream=False,
        # A judge's faulty answer is asked for again with another seed, by the judge.
        limits=Limits(first_chunk=180.0, attempts=1),
        who="the judge's endpoint",
        option="--base-url",
        connections=max(parallel, 1),
    )
    return EngineChat(engine, model, details={"endpoint": str(engine.shown)}, parallel=parallel)


def _local(kind: str, model: str, settings: JudgeSettings, parallel: int, held: Held | None) -> EngineChat:
    """A judge on Ollama or in this process. It may be larger than `max_model_b`, but it must fit the memory."""
    config = Config(
        engine=kind,
        ollama_url=settings.ollama_url,
        num_thread=settings.num_thread,
        num_ctx=NUM_CTX,
        parallel=parallel,
    )
    engine = open_engine(config, held)
    try:
        facts = judge_facts(engine, model)
        estimate = need(facts, config.num_ctx, config.parallel, config.engine)
        verdict = check_memory(model, estimate, settings.memory_limit)
        if not verdict.allowed:
            raise InputError(f"judge: {verdict.reason}")
        details = {"digest": facts.digest, "engine": engine.info().name}
    except BaseException:
        engine.close()
        raise
    return EngineChat(engine, model, details=details, parallel=parallel, num_thread=settings.num_thread or None)
