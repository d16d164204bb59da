"""Score: fill an exchange file, by a person in the terminal or by a judge that is named."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tipbench.catalog import load_judge_prompt
from tipbench.config import Config
from tipbench.engines import open_engine
from tipbench.engines.base import EngineUnreachable, Held
from tipbench.errors import InputError
from tipbench.judging.baseline import BaselineJudge
from tipbench.judging.exchange import JudgeIdentity, identify
from tipbench.judging.fill import FillResult, Judge, begin, fill
from tipbench.judging.llm import EngineChat, LLMJudge, OpenAIChat
from tipbench.judging.terminal import judge_in_terminal
from tipbench.judging.validate import read_exchange

SPECS = "terminal, baseline, ollama:MODEL, openai:MODEL or embedded:MODEL"


@dataclass(frozen=True)
class ScoreResult:
    """What became of the file; counts are items."""

    file: str
    judge: str
    scored: int
    left: int
    failures: Mapping[str, int]
    """reason -> items that could not be scored"""


def run(
    path: Path,
    spec: str,
    *,
    ollama_url: str,
    base_url: str,
    passes: int = 1,
    judge_prompt: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    held: Held | None = None,
) -> ScoreResult:
    """Have the judge that `spec` names score every open item of the file. `held` says whether the judge's Ollama is ours, and what it
    died of.

    Raises InputError (the file, the spec, a judge that does not fit the file) and UnreachableError (the judge's service is
    away); what was scored until then is in the file.
    """
    exchange = read_exchange(path)
    begin(exchange, spec, str(path))
    began = int(time.time() * 1000)
    with _judge(spec, ollama_url, base_url, passes, judge_prompt, held) as judge:
        try:
            return _result(path, fill(exchange, judge, path, on_progress))
        except EngineUnreachable as error:
            if held is not None and (death := held.killed(began)):
                raise EngineUnreachable(f"{error}. {death}") from error
            raise


def identity_of(
    spec: str, *, ollama_url: str, base_url: str, passes: int = 1, judge_prompt: str | None = None
) -> JudgeIdentity:
    """Who the judge that `spec` names is now, model digest and judge prompt included. Raises InputError and UnreachableError."""
    with _judge(spec, ollama_url, base_url, passes, judge_prompt) as judge:
        return judge.identity


def in_terminal(path: Path, name: str, console: Console) -> ScoreResult:
    """Let the person at the terminal, known as `name`, score the file. Raises InputError."""
    identity = identify(name, "human", "--as")
    return _result(path, judge_in_terminal(read_exchange(path), path, identity, console))


def _result(path: Path, filled: FillResult) -> ScoreResult:
    return ScoreResult(str(path), filled.judge, filled.scored, filled.left, filled.failures)


@contextlib.contextmanager
def _judge(
    spec: str, ollama_url: str, base_url: str, passes: int, judge_prompt: str | None, held: Held | None = None
) -> Iterator[Judge]:
    kind, _, model = spec.partition(":")
    if spec == "baseline":
        yield BaselineJudge()
        return
    if kind not in ("ollama", "openai", "embedded") or not model:
        raise InputError(f"judge {spec!r} is not known; use {SPECS}")
    identify(spec, "llm", "judge")
    prompt = load_judge_prompt(judge_prompt)
    if kind == "openai":
        chat: OpenAIChat | EngineChat = OpenAIChat(base_url, model)
    else:
        chat = EngineChat(open_engine(Config(engine=kind, ollama_url=ollama_url), held), model)
    with contextlib.closing(LLMJudge(spec, chat, prompt, passes)) as judge:
        yield judge
