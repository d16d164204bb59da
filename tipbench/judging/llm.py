"""LLM judges: a chat model scores one tip at a time, with the rubric's anchors before it and its answer bound to a schema."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from tipbench.catalog import JudgePrompt
from tipbench.engines.base import (
    Engine,
    EngineUnreachable,
    Generation,
    GenerationError,
    ModelFacts,
    ModelMissing,
    Options,
)
from tipbench.errors import InputError
from tipbench.judging.answers import Answer, expected_scores, read_answer
from tipbench.judging.exchange import ExchangeRubric, JudgeIdentity
from tipbench.judging.fill import Judgment, JudgmentError

ATTEMPTS = 3
"""Answers asked for, each with another seed, before a tip stays unscored."""
MAX_TOKENS = 400
NUM_CTX = 4096
MAX_RATIONALE = 2000
TOP_LOGPROBS = 20
"""Likeliest tokens asked for at every place: both Ollama and OpenAI give at most 20."""

Rationale = Literal["before", "after", "none"]
"""Where the judge writes its sentence: before the scores, so that they follow from it; after them; or not at all."""
RATIONALES: tuple[Rationale, ...] = get_args(Rationale)


class Chat(Protocol):
    """One question to a chat model. Methods may be called from several threads at once."""

    @property
    def details(self) -> Mapping[str, str]:
        """What identifies the model in the receipt: digest, endpoint."""

    def ask(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, object], temperature: float, seed: int
    ) -> Generation:
        """The model's answer; raises JudgmentError (this one failed) or UnreachableError (nobody is there)."""

    def close(self) -> None:
        """Free the model or the connection."""


class EngineChat:
    """A judge on one of tipbench's own engines; `engine_s` adds up the seconds that the engine says it took."""

    def __init__(
        self,
        engine: Engine,
        model: str,
        *,
        details: Mapping[str, str],
        parallel: int = 1,
        num_thread: int | None = None,
        top_logprobs: int = TOP_LOGPROBS,
    ) -> None:
        self._engine = engine
        self._model = model
        self._options = Options(
            num_predict=MAX_TOKENS,
            num_ctx=NUM_CTX,
            keep_alive="5m",
            num_thread=num_thread,
            parallel=parallel,
            top_logprobs=top_logprobs,
        )
        self._lock = threading.Lock()
        self.details: Mapping[str, str] = {"model": model, **details}
        self.engine_s = 0.0

    def ask(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, object], temperature: float, seed: int
    ) -> Generation:
        """One answer, bound to the schema by the engine."""
        options = Options(**{**vars(self._options), "temperature": temperature})
        try:
            answer = self._engine.generate(self._model, messages, options, seed, schema)
        except EngineUnreachable:
            raise
        except ModelMissing as error:
            raise InputError(f"judge: {error}") from error
        except GenerationError as error:
            raise JudgmentError(error.reason, str(error)) from error
        with self._lock:
            self.engine_s += answer.total_s or 0.0
        return answer

    def close(self) -> None:
        """Leave nothing in memory."""
        try:
            self._engine.unload(self._model)
        finally:
            self._engine.close()


def judge_facts(engine: Engine, model: str) -> ModelFacts:
    """Facts about the judge's model; raises InputError when the engine does not have it."""
    try:
        return engine.describe(model)
    except ModelMissing as error:
        raise InputError(f"judge: {error}") from error


@dataclass(frozen=True)
class _Pass:
    """One answer, read."""

    answer: Answer
    expected: Mapping[str, float] | None


class LLMJudge:
    """Scores by a chat model: `passes` answers a tip with different seeds, the median of each criterion counts.

    The median of an even number of passes that falls between two scores is rounded to the even one. Where the server tells token
    probabilities, every pass has an expected score, too, and their mean stands beside the whole number. Safe to use from several threads.
    """

    def __init__(
        self, name: str, chat: Chat, prompt: JudgePrompt, passes: int = 1, rationale: Rationale = "before"
    ) -> None:
        self._chat = chat
        self._prompt = prompt
        self._passes = passes
        self._rationale: Rationale = rationale
        details = {
            **chat.details,
            "prompt": f"{prompt.name} {prompt.hash[:12]}",
            "judge_prompt": prompt.hash,
            "rationale": rationale,
            "passes": str(passes),
            "temperature": f"{prompt.temperature:g}",
        }
        self.identity = JudgeIdentity(name=name, kind="llm", details=details)

    def score(self, rubric: ExchangeRubric, scenario: str, tip: str) -> Judgment:
        """The median over the passes; raises JudgmentError when a pass fails for good."""
        messages = self._prompt.messages(rubric.model_dump(mode="json"), scenario, tip, self._rationale)
        schema = answer_schema(rubric, self._rationale)
        passes = [self._pass(messages, schema, rubric, number) for number in range(self._passes)]
        answers = [one.answer for one in passes]
        scores = {c.id: round(statistics.median(a.scores[c.id] for a in answers)) for c in rubric.criteria}
        rationale = answers[0].rationale or ""
        if self._passes > 1:
            spread = ", ".join(f"{c.id} {'/'.join(str(a.scores[c.id]) for a in answers)}" for c in rubric.criteria)
            rationale = f"{rationale[: MAX_RATIONALE - 300]} [passes: {spread[:280]}]".strip()
        told = [one.expected for one in passes if one.expected is not None]
        expected = None
        if len(told) == len(passes):
            expected = {c.id: round(statistics.fmean(one[c.id] for one in told), 4) for c in rubric.criteria}
        return Judgment(scores, rationale[:MAX_RATIONALE] or None, expected)

    def _pass(
        self,
        messages: Sequence[Mapping[str, str]],
        schema: Mapping[str, object],
        rubric: ExchangeRubric,
        number: int,
    ) -> _Pass:
        last: JudgmentError | None = None
        for attempt in range(ATTEMPTS):
            try:
                said = self._chat.ask(messages, schema, self._prompt.temperature, seed=number * ATTEMPTS + attempt)
                answer = read_answer(said.text, rubric)
                return _Pass(answer, expected_scores(said.tokens, answer, rubric))
            except JudgmentError as error:
                last = error
        raise last or JudgmentError("BrokenAnswer", "no answer")

    def close(self) -> None:
        """Free the model or the connection."""
        self._chat.close()


def answer_schema(rubric: ExchangeRubric, rationale: Rationale = "before") -> dict[str, object]:
    """JSON schema of one answer: one integer a criterion, and a short rationale before or after them, or none.

    Servers that build a grammar from it write the fields in this order.
    """
    scale = list(range(rubric.scale_min, rubric.scale_max + 1))
    fields: dict[str, object] = {c.id: {"type": "integer", "enum": scale} for c in rubric.criteria}
    sentence: dict[str, object] = {"rationale": {"type": "string", "maxLength": 300}}
    if rationale == "before":
        fields = sentence | fields
    elif rationale == "after":
        fields = fields | sentence
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
