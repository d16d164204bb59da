"""Text from any server that speaks OpenAI's chat API: llama.cpp's, vLLM, LM Studio, a provider's.

Such servers differ in what they take. A request begins with everything that is wanted; what a server refuses is left out
step by step, remembered for the session and said once, so that every later request is right at once.
"""

from __future__ import annotations

import email.utils
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

import httpx

from tipbench.engines.base import (
    BrokenAnswer,
    EmptyAnswer,
    EngineInfo,
    EngineUnreachable,
    Generation,
    GenerationError,
    Message,
    ModelFacts,
    ModelMissing,
    Options,
    Resident,
    TimedOut,
    Token,
    tokens_of,
)
from tipbench.engines.thoughts import answer_in
from tipbench.errors import InputError
from tipbench.net.address import read_address
from tipbench.net.clients import ERRORS, open_client, read_out, words_of
from tipbench.net.secret import Secret, from_environment, hide
from tipbench.patience import Away, Busy, Patience

ENGINE_KEY = "TIPBENCH_ENGINE_API_KEY"
"""Environment variable with the key for `engine_url`; the judge's has its own, so that neither is sent to the other's server."""
LONGEST_ANSWER = 6400
"""Tokens up to which an answer that was cut off is given more room: hidden thoughts count, too."""

_GIVEN_UP = ("", "maxLength in a JSON schema", "a JSON schema", "response_format")
"""What is given up by going to a level of `_Dialect.format`."""
_OUT_OF_MONEY = ("insufficient_quota", "billing_hard_limit", "insufficient_balance", "billing_not_active")
_log = logging.getLogger("tipbench")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """How long to wait and how often to try. Times in seconds."""

    connect: float = 10.0
    first_chunk: float = 600.0
    between_chunks: float = 60.0
    unreachable: float = 60.0
    """How long a server that does not listen, or answers 5xx, is tried again."""
    end_of_stream: float = 1.0
    """From the last event to the end of the stream; a connection that is not done by then is not used again."""
    busy: float = 900.0
    """How long one request is held back by 429, waits that the server asks for included."""
    attempts: int = 3
    """Answers asked for when they come broken or empty."""


@dataclass(frozen=True)
class _Dialect:
    """What this server takes, as far as it has been found out."""

    limit_field: str = "max_tokens"
    format: int = 0
    """0: JSON schema; 1: the same without maxLength; 2: any JSON object; 3: nothing, the prompt alone asks for JSON."""
    without: frozenset[str] = frozenset()
    room: int = 1
    """Factor on the answer's most tokens."""


class _Refused(Exception):
    """The server does not take the request as it is."""

    def __init__(self, words: str, param: str) -> None:
        self.words, self.param = words, param
        super().__init__(words)


class OpenAIEngine:
    """One server, one connection pool; safe to use from many threads.

    `url` is the base that `/chat/completions` follows, as a rule ending in `/v1`. `who` and `option` name the server and the
    setting in messages; `parameters` maps model -> parameter count where the server does not tell.
    """

    def __init__(
        self,
        url: str,
        *,
        key: Secret | None = None,
        stream: bool = True,
        parameters: Mapping[str, int] | None = None,
        limits: Limits | None = None,
        who: str = "the server",
        option: str = "--engine-url",
        connections: int = 64,
    ) -> None:
        """Raises InputError for an address, a key, a certificate or a proxy that cannot be used."""
        self._limits = limits or Limits()
        self.shown = read_address(url, option)
        self._who, self._option = f"{who} {self.shown}", option
        self._stream = stream
        self._parameters = dict(parameters or {})
        self._client = open_client(
            self.shown,
            name=who,
            option=option,
            timeout=httpx.Timeout(self._limits.first_chunk, connect=self._limits.connect),
            connections=connections,
            token=key,
        )
        self._patience = Patience(self._who, self._limits.unreachable)
        self._lock = threading.Lock()
        self._dialect = _Dialect()
        self._understood = False
        self._not_before = 0.0
        self._seen: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Release the connections."""
        self._client.close()

    # -- facts ---------------------------------------------------------------------------------

    def info(self) -> EngineInfo:
        """Version, where the server tells it (vLLM at /version, llama.cpp at /props)."""
        self._listed()
        root = self.shown.removesuffix("/v1")
        for path, field in (("/version", "version"), ("/props", "build_info")):
            try:
                body = self._client.get(root + path, timeout=self._limits.connect).json()
            except (*ERRORS, ValueError, RecursionError):
                continue
            if isinstance(body, dict) and isinstance(body.get(field), str):
                return EngineInfo("openai", body[field], str(self.shown))
        return EngineInfo("openai", None, str(self.shown))

    def models(self) -> Sequence[ModelFacts]:
        """Every model that the server lists."""
        return [self._facts(name, entry) for name, entry in self._listed().items()]

    def describe(self, model: str) -> ModelFacts:
        """Facts about one model, as far as the server tells; raises ModelMissing with the names that it does list."""
        listed = self._seen or self._listed()
        if model not in listed:
            listed = self._listed()
        if model not in listed:
            names = ", ".join(listed) or "none"
            raise ModelMissing(f"{self._who} does not have {model}; it lists: {names}")
        return self._facts(model, listed[model])

    def _facts(self, name: str, entry: Mapping[str, Any]) -> ModelFacts:
        meta = entry["meta"] if isinstance(entry.get("meta"), dict) else {}
        size, told = _count(meta.get("size")), _count(meta.get("n_params"))
        # No such server tells a digest. What it does tell of the model keeps one row of a board apart from another.
        stable = {"id": name, "root": entry.get("root"), "size": size, "parameters": told, "vocab": meta.get("n_vocab")}
        quantization = meta.get("ftype") or entry.get("quantization")
        return ModelFacts(
            name=name,
            digest="stated-" + sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:57],
            parameters=told or self._parameters.get(name),
            quantization=quantization if isinstance(quantization, str) else None,
            size_bytes=size,
            context_length=_count(meta.get("n_ctx_train")) or _count(entry.get("max_model_len")),
        )

    def _listed(self) -> dict[str, dict[str, Any]]:
        def once() -> httpx.Response:
            return self._checked(self._send(lambda: self._client.get("/models")))

        try:
            # Some servers list a bare array.
            body = self._reach(once).json()
            entries = body if isinstance(body, list) else body["data"]
            self._seen = {str(e["id"]): e for e in entries}
            self._client.has_answered = True
        except _Refused as error:
            raise self._no(error.words) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise EngineUnreachable(
                f"{self._who} does not answer like an OpenAI endpoint (GET {self.shown}/models); check {self._option}"
            ) from error
        return self._seen

    # -- generating ----------------------------------------------------------------------------

    def generate(
        self,
        model: str,
        messages: Sequence[Message],
        options: Options,
        seed: int,
        schema: Mapping[str, object] | None = None,
    ) -> Generation:
        """One answer from `/chat/completions`; what the server does not take is left out and remembered.

        `num_ctx`, `num_thread` and `keep_alive` are the server's own business here. Raises a GenerationError, EngineUnreachable, or
        InputError (the key, the quota, or a request that the server takes in no form; in the server's own words).
        """
        sent = 0
        failure: GenerationError | None = None
        tries = 0
        while tries < self._limits.attempts:
            with self._lock:
                dialect = self._dialect
            body = self._body(dialect, model, messages, options, seed, schema)

            def once(body: Mapping[str, object] = body) -> Generation:
                nonlocal sent
                sent += 1
                return self._chat(model, body)

            try:
                answer = replace(self._reach(once), attempts=sent)
            except _Refused as error:
                if not self._concede(dialect, body, error):
                    raise self._no(error.words) from error
                continue
            except (BrokenAnswer, EmptyAnswer) as error:
                failure = error
                tries += 1
                continue
            self._understood = True
            try:
                return replace(answer, text=answer_in(model, answer.text))
            except EmptyAnswer as error:
                # Thoughts come first, hidden or in a tag: was it cut off before it began?
                if answer.done_reason != "length" or not self._widen(dialect, options):
                    failure = error
                    tries += 1
        raise failure or BrokenAnswer(f"{model}: no answer")

    def _body(
        self,
        dialect: _Dialect,
        model: str,
        messages: Sequence[Message],
        options: Options,
        seed: int,
        schema: Mapping[str, object] | None,
    ) -> dict[str, object]:
        body: dict[str, object] = {
            "model": model,
            "messages": list(messages),
            "temperature": options.temperature,
            "seed": seed,
            dialect.limit_field: options.num_predict * dialect.room,
        }
        if self._stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if options.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": min(options.top_logprobs, 20)}
        if schema is not None and dialect.format < 2:
            bound = schema if dialect.format == 0 else _unbounded(schema)
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "scores", "strict": True, "schema": bound},
            }
        elif schema is not None and dialect.format == 2:
            body["response_format"] = {"type": "json_object"}
        gone = dialect.without | ({"top_logprobs"} if "logprobs" in dialect.without else set())
        return {name: value for name, value in body.items() if name not in gone}

    def _concede(self, used: _Dialect, body: Mapping[str, object], error: _Refused) -> bool:
        """Give up what the server refused, or, when it does not say what, the next thing that can be spared."""
        with self._lock:
            if self._dialect != used:
                return True  # Another thread was told the same; the request goes out as it is known now.
            words = f"{error.param} {error.words}".lower()
            spare = ("logprobs", "stream_options", "seed", "temperature")
            field = next((f for f in spare if re.search(rf"\b(?:top_)?{f}\b", words)), None)
            formed = "response_format" in body
            if used.limit_field in words and used.limit_field in body and field is None:
                return self._give_up(replace(used, limit_field=_other(used.limit_field)), used.limit_field, used)
            if field is not None and field in body:
                return self._give_up(replace(used, without=used.without | {field}), field, used)
            about_format = ("response_format", "schema", "maxlength", "max_length", "grammar", "structured", "json")
            if formed and any(word in words for word in about_format):
                return self._give_up(replace(used, format=used.format + 1), _GIVEN_UP[used.format + 1], used)
            if self._understood:
                return False
            # It does not say what it minds, and it has not taken any request yet.
            for one in spare:
                if one in body:
                    return self._give_up(replace(used, without=used.without | {one}), one, used)
            if formed:
                return self._give_up(replace(used, format=used.format + 1), _GIVEN_UP[used.format + 1], used)
            return self._give_up(replace(used, limit_field=_other(used.limit_field)), used.limit_field, used)

    def _give_up(self, new: _Dialect, what: str, old: _Dialect) -> bool:
        # A server may mind both names of the same field: then neither has a way out.
        if new.limit_field != old.limit_field and old.limit_field == "max_completion_tokens":
            return False
        self._dialect = new
        instead = f"; {new.limit_field} it is" if new.limit_field != old.limit_field else "; going on without it"
        _log.warning("%s does not take %s%s", self._who, what, instead)
        return True

    def _widen(self, used: _Dialect, options: Options) -> bool:
        """More room for an answer that was cut off, up to LONGEST_ANSWER; False when that is reached."""
        with self._lock:
            if self._dialect.room != used.room:
                return True
            if options.num_predict * used.room * 4 > LONGEST_ANSWER:
                return False
            self._dialect = replace(self._dialect, room=used.room * 4)
            _log.warning(
                "%s was cut off after %d tokens (hidden thoughts count); asking for up to %d",
                self._who,
                options.num_predict * used.room,
                options.num_predict * used.room * 4,
            )
            return True

    def _chat(self, model: str, body: Mapping[str, object]) -> Generation:
        timeout: dict[str, float | None] = {
            "connect": self._limits.connect,
            "read": self._limits.first_chunk,
            "write": 60.0,
            "pool": None,
        }
        began = time.perf_counter()
        request = self._client.build_request("POST", "/chat/completions", json=body, extensions={"timeout": timeout})
        response = self._send(lambda: self._client.send(request, stream=True))
        try:
            if response.status_code != 200 or "event-stream" not in response.headers.get("content-type", ""):
                response.read()
                self._checked(response, model)
                answer = _whole(model, response, time.perf_counter() - began)
            else:
                timeout["read"] = self._limits.between_chunks
                answer = self._streamed(model, response, began)
            self._client.has_answered = True
            return answer
        except httpx.ReadTimeout as error:
            raise TimedOut(f"{model}: nothing came from {self.shown} within {timeout['read']:g} s") from error
        except ERRORS as error:
            raise BrokenAnswer(f"{model}: {self.shown}: {self._client.explain(error)}") from error
        finally:
            response.close()

    def _streamed(self, model: str, response: httpx.Response, began: float) -> Generation:
        text: list[str] = []
        tokens: list[Token] = []
        first: float | None = None
        reason: str | None = None
        timings: Mapping[str, Any] = {}
        usage: Mapping[str, Any] = {}
        for chunk in _events(model, response, self._limits.end_of_stream):
            if chunk.get("error"):
                raise BrokenAnswer(f"{model}: {self.shown} said: {_said(chunk)[0]}")
            timings = _object(chunk.get("timings")) or timings
            usage = _object(chunk.get("usage")) or usage
            choices = chunk.get("choices")
            for choice in choices if isinstance(choices, list) else ():
                piece = _text(_object(_object(choice).get("delta")).get("content"), model)
                if piece:
                    first = first if first is not None else time.perf_counter() - began
                    text.append(piece)
                    tokens += tokens_of(_object(choice.get("logprobs")).get("content"))
                reason = choice.get("finish_reason") or reason
        if reason is None and not text:
            raise BrokenAnswer(f"{model}: the stream from {self.shown} ended before any answer")
        answer = _generation("".join(text), reason, first, time.perf_counter() - began, timings, usage)
        return replace(answer, tokens=tuple(tokens))

    # -- memory --------------------------------------------------------------------------------

    def resident(self) -> Sequence[Resident]:
        """Nothing: such servers do not tell what they hold."""
        return ()

    def unload(self, model: str) -> None:
        """Nothing: what such a server holds is its own business."""

    # -- calls ---------------------------------------------------------------------------------

    def _send(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        while (pause := self._not_before - time.monotonic()) > 0:
            time.sleep(min(pause, 1.0))
        try:
            return send()
        except httpx.ReadTimeout as error:
            raise TimedOut(f"nothing came from {self.shown} within {self._limits.first_chunk:g} s") from error
        except ERRORS as error:
            words = self._client.explain(error)
            if self._client.lasting(error):
                raise EngineUnreachable(f"{self._who} cannot be reached: {words}") from error
            raise Away(words) from error

    def _checked(self, response: httpx.Response, model: str | None = None) -> httpx.Response:
        """The answer, when it is one; what another status means, as an exception."""
        status = response.status_code
        if response.is_success:
            return response
        words, code, param = _said(_body_of(response))
        words = hide(words) or words_of(response) or response.reason_phrase
        own = "json" in response.headers.get("content-type", "")
        if away := self._client.foreign(response, own=own):
            if status in (403, 407):
                raise EngineUnreachable(f"{self._who} cannot be reached: {away}")
            raise Away(away)
        if elsewhere := self._client.redirect(response):
            raise InputError(f"{self._who}: {elsewhere}")
        if status == 402 or (status in (429, 403) and any(mark in f"{code} {words}" for mark in _OUT_OF_MONEY)):
            raise InputError(f"{self._who} says ({status}): {words}")
        if status == 429 or (status == 503 and "retry-after" in response.headers):
            wait = _retry_after(response)
            if wait is not None and wait > self._limits.busy:
                raise EngineUnreachable(
                    f"{self._who} asks to wait {wait:.0f} s ({words}); the same command goes on later"
                )
            if wait is not None:
                with self._lock:
                    self._not_before = max(self._not_before, time.monotonic() + wait)
            raise Busy(f"HTTP {status}: {words}", wait)
        if status in (408, 409, 425) or status >= 500:
            raise Away(f"HTTP {status}: {words}")
        if status in (401, 403):
            variable = ENGINE_KEY if self._option == "--engine-url" else "OPENAI_API_KEY"
            raise InputError(f"{self._who} answered {status}: {words} Set {variable}.")
        lowered = words.lower()
        if (
            model is not None
            and "model" in lowered
            and re.search(r"not found|does not exist|not exist|unknown model", lowered)
        ):
            raise ModelMissing(f"{self._who} does not have {model}: {words}")
        if status == 404 or status == 405:
            raise InputError(f"{self._who} answered {status}: {words}; is {self._option} right? It often ends in /v1")
        if "context_length" in code or "context length" in lowered or "context size" in lowered:
            raise _TooLong(f"{model}: {words}")
        if "content_filter" in code or "content_policy" in code:
            raise _Declined(f"{model}: {words}")
        raise _Refused(words, param)

    def _no(self, words: str) -> InputError:
        return InputError(f"{self._who} refuses the request: {words}")

    def _reach(self, call: Callable[[], _T]) -> _T:
        """`call`, tried again while nobody listens or the server asks to wait, each within its limit."""
        try:
            return self._patience.ask(
                call,
                busy_s=self._limits.busy,
                first_s=0.5,
                most_s=15,
                # What the server asked for every thread waits for before its next request.
                asked_for=lambda wait_s: 0.001 if wait_s > 0 else 0.0,
            )
        except Away as error:
            raise EngineUnreachable(
                f"{self._who} cannot be reached ({error}); tried for {self._limits.unreachable:g} s. "
                f"Is {self._option} right? The same command goes on."
            ) from error
        except Busy as error:
            raise EngineUnreachable(
                f"{self._who} kept asking to wait for {self._limits.busy:g} s ({error}); the same command goes on later"
            ) from error


class _TooLong(GenerationError):
    """The question does not fit the model's context."""

    reason = "TooLong"


class _Declined(GenerationError):
    """The provider's filter, or the model, will not answer this one."""

    reason = "Declined"


def engine_key() -> Secret:
    """The key for `engine_url`, from the environment; empty where there is none."""
    return from_environment(ENGINE_KEY)


def _other(field: str) -> str:
    return "max_completion_tokens" if field == "max_tokens" else "max_tokens"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait: Retry-After in seconds or as a date (RFC 9110), or retry-after-ms."""
    if re.fullmatch(r"\d+(\.\d+)?", response.headers.get("retry-after-ms", "")):
        return float(response.headers["retry-after-ms"]) / 1000
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max((email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def _unbounded(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without the keywords that not every server's grammar knows."""
    return {
        key: _unbounded(value) if isinstance(value, Mapping) else value
        for key, value in schema.items()
        if key != "maxLength"
    }


def _body_of(response: httpx.Response) -> Mapping[str, Any]:
    try:
        return _object(response.json())
    except (ValueError, RecursionError):
        return {}


def _said(body: Mapping[str, Any]) -> tuple[str, str, str]:
    """(words, code, field) of an error: `{"error": {"message", "code", "type", "param"}}` and what is like it."""
    error = body.get("error", body.get("detail", body.get("message", "")))
    if isinstance(error, Mapping):
        code = f"{error.get('code') or ''} {error.get('type') or ''}"
        return " ".join(str(error.get("message") or error).split())[:500], code, str(error.get("param") or "")
    code = f"{body.get('code') or ''} {body.get('type') or ''}"
    shown = error if isinstance(error, str) else json.dumps(error)
    return " ".join(shown.split())[:500] if error else "", code, str(body.get("param") or "")


def _events(model: str, response: httpx.Response, end_s: float) -> Iterator[dict[str, Any]]:
    """The objects of a stream of server-sent events, which ends within `end_s` seconds of its last one."""
    lines = response.iter_lines()
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return read_out(lines, response, end_s)
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BrokenAnswer(f"{model}: a chunk that is not JSON: {data[:200]}") from error
        if not isinstance(chunk, dict):
            raise BrokenAnswer(f"{model}: a chunk that is no object: {data[:200]}")
        yield chunk


def _whole(model: str, response: httpx.Response, wall_s: float) -> Generation:
    """An answer that came in one piece."""
    body = _body_of(response)
    try:
        choice = body["choices"][0]
        message = choice["message"]
        content = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise BrokenAnswer(f"{response.url.host} did not answer like an OpenAI endpoint") from error
    if message.get("refusal"):
        raise _Declined(f"{model} declined: {str(message['refusal'])[:300]}")
    if choice.get("finish_reason") == "content_filter":
        raise _Declined(f"{model}: the provider's filter held the answer back")
    text = _text(content, model)
    answer = _generation(
        text, choice.get("finish_reason"), None, wall_s, _object(body.get("timings")), _object(body.get("usage"))
    )
    return replace(answer, tokens=tuple(tokens_of(_object(choice.get("logprobs")).get("content"))))


def _text(content: object, model: str) -> str:
    """Text of a message: a string, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "".join(str(part.get("text") or "") for part in content if part.get("type") in ("text", "output_text"))
    raise BrokenAnswer(f"{model}: an answer without text in it")


def _generation(
    text: str,
    reason: object,
    first: float | None,
    wall_s: float,
    timings: Mapping[str, Any],
    usage: Mapping[str, Any],
) -> Generation:
    """One Generation; times only where the server gives them (llama.cpp does, in milliseconds)."""

    def seconds(name: str) -> float | None:
        value = timings.get(name)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
        return value / 1000 if fits and value is not None else None

    prompt_s, output_s = seconds("prompt_ms"), seconds("predicted_ms")
    return Generation(
        text=text,
        done_reason=str(reason) if reason else None,
        ttft_s=first,
        total_s=None if prompt_s is None or output_s is None else prompt_s + output_s,
        load_s=None,
        prompt_tokens=_count(usage.get("prompt_tokens")) or _count(timings.get("prompt_n")),
        prompt_s=prompt_s,
        output_tokens=_count(usage.get("completion_tokens")) or _count(timings.get("predicted_n")),
        output_s=output_s,
        wall_s=wall_s,
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
