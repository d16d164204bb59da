"""LLM judges: a chat model scores one tip at a time, with the rubric's anchors before it and its answer bound to a schema."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import httpx
import tenacity
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from tipbench.catalog import JudgePrompt
from tipbench.engines.base import Engine, EngineUnreachable, GenerationError, ModelMissing, Options
from tipbench.errors import InputError, UnreachableError
from tipbench.judging.exchange import ExchangeRubric, JudgeIdentity
from tipbench.judging.fill import Judgment, JudgmentError
from tipbench.net.address import read_address
from tipbench.net.clients import ERRORS, open_client, words_of
from tipbench.net.secret import from_environment

ATTEMPTS = 3
"""Answers asked for, each with another seed, before a tip stays unscored."""
MAX_TOKENS = 400
NUM_CTX = 4096
CONNECT_S, READ_S, RETRY_S = 10.0, 180.0, 60.0
MAX_RATIONALE = 2000


class Chat(Protocol):
    """One question to a chat model."""

    @property
    def details(self) -> Mapping[str, str]:
        """What identifies the model in the receipt: digest, endpoint."""

    def ask(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, object], temperature: float, seed: int
    ) -> str:
        """The model's answer; raises JudgmentError (this one failed) or UnreachableError (nobody is there)."""

    def close(self) -> None:
        """Free the model or the connection."""


class EngineChat:
    """A judge on one of tipbench's own engines."""

    def __init__(self, engine: Engine, model: str) -> None:
        """Raises InputError when the engine does not have the model."""
        self._engine = engine
        self._model = model
        try:
            facts = engine.describe(model)
        except ModelMissing as error:
            raise InputError(f"judge: {error}") from error
        self.details: Mapping[str, str] = {"model": model, "digest": facts.digest, "engine": engine.info().name}

    def ask(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, object], temperature: float, seed: int
    ) -> str:
        """One answer, bound to the schema by the engine."""
        options = Options(temperature=temperature, num_predict=MAX_TOKENS, num_ctx=NUM_CTX, keep_alive="5m")
        try:
            return self._engine.generate(self._model, messages, options, seed, schema).text
        except EngineUnreachable:
            raise
        except GenerationError as error:
            raise JudgmentError(error.reason, str(error)) from error

    def close(self) -> None:
        """Leave nothing in memory."""
        try:
            self._engine.unload(self._model)
        finally:
            self._engine.close()


class _TransientError(Exception):
    """Worth another try."""


class OpenAIChat:
    """A judge behind an OpenAI-compatible endpoint (`POST {base}/chat/completions`). The key comes from OPENAI_API_KEY."""

    def __init__(self, base_url: str, model: str, *, retry_s: float = RETRY_S) -> None:
        """Raises InputError for an address, a key, a certificate or a proxy that cannot be used."""
        self._model = model
        self._retry_s = retry_s
        self._shown = read_address(base_url, "--base-url")
        self._client = open_client(
            self._shown,
            name="the judge's endpoint",
            option="--base-url",
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            token=from_environment("OPENAI_API_KEY"),
        )
        self.details: Mapping[str, str] = {"model": model, "endpoint": self._shown}

    def ask(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, object], temperature: float, seed: int
    ) -> str:
        """One answer, bound to the schema by the server."""
        body = {
            "model": self._model,
            "messages": list(messages),
            "temperature": temperature,
            "seed": seed,
            "max_tokens": MAX_TOKENS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "scores", "strict": True, "schema": schema},
            },
        }
        try:
            for attempt in tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_TransientError),
                wait=tenacity.wait_exponential(multiplier=0.5, max=15) + tenacity.wait_random(0, 0.5),
                stop=tenacity.stop_after_delay(self._retry_s),
                reraise=True,
            ):
                with attempt:
                    return self._once(body)
        except _TransientError as error:
            raise UnreachableError(
                f"the judge's endpoint {self._shown} cannot be reached ({error}); tried for {self._retry_s:g} s. What was scored is "
                "in the file; the same command goes on."
            ) from error
        raise AssertionError("unreachable: Retrying either returns or raises")

    def _once(self, body: Mapping[str, object]) -> str:
        try:
            response = self._client.post("/chat/completions", json=body)
        except ERRORS as error:
            words = self._client.explain(error)
            if self._client.lasting(error):
                raise UnreachableError(f"the judge's endpoint {self._shown} cannot be reached: {words}") from error
            raise _TransientError(words) from error
        proxy_says = self._client.foreign(
            response, own=response.headers.get("content-type", "").startswith("application/json")
        )
        if proxy_says and response.status_code in (403, 407):
            raise UnreachableError(f"the judge's endpoint {self._shown} cannot be reached: {proxy_says}")
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise _TransientError(proxy_says or f"HTTP {response.status_code}")
        if not response.is_success:
            elsewhere = self._client.redirect(response)
            hint = " Set OPENAI_API_KEY." if response.status_code in (401, 403) else ""
            raise InputError(
                f"the judge's endpoint {self._shown}: {elsewhere}"
                if elsewhere
                else f"the judge's endpoint {self._shown} answered {response.status_code}: {words_of(response)}{hint}"
            )
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise JudgmentError("BrokenAnswer", f"{self._shown} did not answer like an OpenAI endpoint") from error
        if not isinstance(content, str) or not content.strip():
            raise JudgmentError("EmptyAnswer", f"{self._model} answered without any text")
        return content

    def close(self) -> None:
        """Release the connection."""
        self._client.close()


class LLMJudge:
    """Scores by a chat model: `passes` answers a tip with different seeds, the median of each criterion counts.

    The median of an even number of passes that falls between two scores is rounded to the even one.
    """

    def __init__(self, name: str, chat: Chat, prompt: JudgePrompt, passes: int = 1) -> None:
        self._chat = chat
        self._prompt = prompt
        self._passes = passes
        details = {
            **chat.details,
            "prompt": f"{prompt.name} {prompt.hash[:12]}",
            "passes": str(passes),
            "temperature": f"{prompt.temperature:g}",
        }
        self.identity = JudgeIdentity(name=name, kind="llm", details=details)

    def score(self, rubric: ExchangeRubric, scenario: str, tip: str) -> Judgment:
        """The median over the passes; raises JudgmentError when a pass fails for good."""
        messages = self._prompt.messages(rubric.model_dump(mode="json"), scenario, tip)
        answer_model = _answer_model(rubric)
        schema = answer_schema(rubric)
        answers = [self._pass(messages, schema, answer_model, p) for p in range(self._passes)]
        scores = {c.id: round(statistics.median(a[c.id] for a in answers)) for c in rubric.criteria}
        rationale = str(answers[0]["rationale"]).strip()
        if self._passes > 1:
            spread = ", ".join(f"{c.id} {'/'.join(str(a[c.id]) for a in answers)}" for c in rubric.criteria)
            rationale = f"{rationale[: MAX_RATIONALE - 300]} [passes: {spread[:280]}]"
        return Judgment(scores, rationale[:MAX_RATIONALE] or None)

    def _pass(
        self,
        messages: Sequence[Mapping[str, str]],
        schema: Mapping[str, object],
        answer_model: type[BaseModel],
        number: int,
    ) -> dict[str, Any]:
        last: JudgmentError | None = None
        for attempt in range(ATTEMPTS):
            try:
                text = self._chat.ask(messages, schema, self._prompt.temperature, seed=number * ATTEMPTS + attempt)
                return answer_model.model_validate_json(_unfenced(text)).model_dump()
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                where = ".".join(map(str, fault["loc"])) or "the answer"
                last = JudgmentError("BrokenAnswer", f"{where}: {fault['msg']}")
            except JudgmentError as error:
                last = error
        raise last or JudgmentError("BrokenAnswer", "no answer")

    def close(self) -> None:
        """Free the model or the connection."""
        self._chat.close()


def answer_schema(rubric: ExchangeRubric) -> dict[str, object]:
    """JSON schema of one answer: a rationale first, so that the scores follow from it, then one integer a criterion."""
    scale = list(range(rubric.scale_min, rubric.scale_max + 1))
    scores = {c.id: {"type": "integer", "enum": scale} for c in rubric.criteria}
    return {
        "type": "object",
        "properties": {"rationale": {"type": "string", "maxLength": 300}, **scores},
        "required": ["rationale", *scores],
        "additionalProperties": False,
    }


def _answer_model(rubric: ExchangeRubric) -> type[BaseModel]:
    """The same as a model, since not every server keeps its word about schemas."""
    fields: dict[str, Any] = {c.id: (int, Field(ge=rubric.scale_min, le=rubric.scale_max)) for c in rubric.criteria}
    return create_model("Answer", __config__=ConfigDict(extra="ignore"), rationale=(str, ""), **fields)


def _unfenced(text: str) -> str:
    """JSON without the Markdown fence that some models put around it."""
    text = text.strip()
    if text.startswith("```"):
        text = text.split("\n", 1)[-1].rsplit("```", 1)[0]
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text
