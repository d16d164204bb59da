"""Text from an Ollama server over its own API, streamed, with every limit named and every failure typed."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx
import tenacity

from tipbench.engines.base import (
    BrokenAnswer,
    EmptyAnswer,
    EngineInfo,
    EngineUnreachable,
    Fence,
    Generation,
    GenerationError,
    Message,
    ModelBroken,
    ModelFacts,
    ModelMissing,
    Options,
    OutOfMemory,
    PullFailed,
    QueueFull,
    Resident,
    TimedOut,
    Token,
    Unsuitable,
    estimated_tokens,
    tokens_of,
)
from tipbench.engines.gguf import kv_bytes_per_token
from tipbench.engines.thoughts import answer_in
from tipbench.errors import TipbenchError
from tipbench.memory.need import Tensor, shape_of
from tipbench.model_names import parameters_stated, read_name, same_model
from tipbench.net.address import read_address
from tipbench.net.clients import ERRORS, json_object, open_client, read_out, words_of
from tipbench.net.secret import from_environment, hide
from tipbench.patience import Away, Busy, Patience

_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """How long to wait and how often to try. Times in seconds."""

    connect: float = 5.0
    first_chunk: float = 600.0
    """From the request to the first chunk: the model's load and the prompt are in it."""
    between_chunks: float = 60.0
    """From one chunk to the next; an answer may take any time as a whole."""
    unreachable: float = 60.0
    """How long a server that refuses connections is tried again."""
    queue_full: float = 120.0
    """How long a server that answers 503 is asked again."""
    attempts: int = 3
    """Answers asked for when they come broken, empty or with an error."""
    unload: float = 60.0
    """How long a model may take to leave memory."""
    pull: float = 120.0
    """How long a pull that makes no headway is tried again; Ollama goes on where it stopped."""
    end_of_stream: float = 1.0
    """From the last chunk to the end of the stream; a connection that is not done by then is not used again."""


class _Transient(Exception):
    """Worth another try; `failure` is what it is if it stays."""

    def __init__(self, failure: GenerationError) -> None:
        self.failure = failure
        super().__init__(str(failure))


class _NoThinking(Exception):
    """The server refused the field `think` for this model."""


class _TooLong(Exception):
    """The server refused to answer with the whole prompt in its context."""


class OllamaEngine:
    """One server, one connection pool; safe to use from many threads."""

    def __init__(
        self, url: str, *, limits: Limits | None = None, connections: int = 64, fence: Fence | None = None
    ) -> None:
        """`fence` is asked before every request, retries too, and with every chunk of an answer.

        Raises InputError for an address, a key (OLLAMA_API_KEY), a certificate or a proxy that cannot be used.
        """
        self._limits = limits or Limits()
        self._fence = fence
        self._shown = read_address(url, "--ollama-url")
        self._client = open_client(
            self._shown,
            name="Ollama",
            option="--ollama-url",
            timeout=httpx.Timeout(self._limits.between_chunks, connect=self._limits.connect),
            connections=connections,
            token=from_environment("OLLAMA_API_KEY"),
        )
        if fence is not None:
            self._client.event_hooks = {"request": [lambda request: fence.before_request()]}
        self._patience = Patience(f"Ollama at {self._shown}", self._limits.unreachable)
        self._lock = threading.Lock()
        self._cannot_think: set[str] = set()
        self._too_long: set[str] = set()

    def close(self) -> None:
        """Release the connections."""
        self._client.close()

    # -- facts ---------------------------------------------------------------------------------

    def info(self) -> EngineInfo:
        """The server's version."""
        version = self._get("/api/version").get("version")
        return EngineInfo("ollama", str(version) if version else None, str(self._shown))

    def models(self) -> Sequence[ModelFacts]:
        """Every model the server lists. One that is broken, or cannot write tips, says so in its `problem`."""
        found = []
        for entry in self._tags():
            try:
                found.append(self._facts(entry))
            except (ModelBroken, ModelMissing, Unsuitable) as error:
                found.append(_unknown(entry, str(error)))
        return found

    def describe(self, model: str) -> ModelFacts:
        """Facts about one model, in whatever spelling Ollama takes for it.

        Raises ModelMissing; Unsuitable and ModelBroken for one that is there and cannot be used; EngineUnreachable.
        """
        wanted = read_name(model)
        if not wanted.valid:
            raise ModelMissing(
                f"{model!r} is no name of a model: it is [HOST/][NAMESPACE/]MODEL[:TAG], like qwen2.5:0.5b"
            )
        if wanted.cloud:
            raise Unsuitable(_cloudy(model, "its tag says so"))
        for entry in self._tags():
            if same_model(str(entry.get("name")), model):
                return replace(self._facts(entry), name=model)
        raise _missing(model)

    def _tags(self) -> list[dict[str, Any]]:
        models = self._get("/api/tags").get("models")
        return [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []

    def _facts(self, entry: Mapping[str, Any]) -> ModelFacts:
        name = str(entry.get("name"))
        remote = entry.get("remote_host") or entry.get("remote_model")
        if remote or read_name(name).cloud:
            raise Unsuitable(_cloudy(name, f"Ollama hands it on to {remote}" if remote else "its tag says so"))
        try:
            shown = self._post("/api/show", {"model": name}, name)
        except ModelMissing as error:
            raise ModelBroken(_unopened(name, "404: it says that there is no such model")) from error
        _check_suitable(name, shown)
        info, details = _object(shown.get("model_info")), _object(shown.get("details"))
        prefix = str(info.get("general.architecture", ""))
        kv_heads = f"{prefix}.attention.head_count_kv"
        if kv_heads in info and not info[kv_heads]:
            # Ollama leaves every array out of its short answer, and some models state their KV heads layer by layer.
            verbose = self._post("/api/show", {"model": name, "verbose": True}, name)
            info = {**info, kv_heads: _object(verbose.get("model_info")).get(kv_heads) or None}
        stated = _count(info.get("general.parameter_count"))
        return ModelFacts(
            name=name,
            digest=str(entry.get("digest", "")),
            parameters=stated or parameters_stated(str(details.get("parameter_size", ""))),
            quantization=details.get("quantization_level") or None,
            size_bytes=_count(entry.get("size")),
            n_layers=_count(info.get(f"{prefix}.block_count")),
            kv_bytes_per_token=kv_bytes_per_token(info),
            context_length=_count(info.get(f"{prefix}.context_length")),
            family=details.get("family") or prefix or None,
            shape=shape_of(info, _tensors(shown.get("tensors")), _count(entry.get("size"))),
        )

    # -- generating ----------------------------------------------------------------------------

    def generate(
        self,
        model: str,
        messages: Sequence[Message],
        options: Options,
        seed: int,
        schema: Mapping[str, object] | None = None,
    ) -> Generation:
        """One answer from `/api/chat`. Transient faults are tried again within `Limits`.

        `attempts` of the answer counts every request that it took, the refused and the queued ones too.
        """
        settings: dict[str, object] = {
            "temperature": options.temperature,
            "seed": seed,
            "num_predict": options.num_predict,
            "num_ctx": options.num_ctx,
        }
        if options.num_thread is not None:
            settings["num_thread"] = options.num_thread
        body: dict[str, object] = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "options": settings,
            # A bare number in quotes is no duration to Ollama.
            "keep_alive": int(options.keep_alive)
            if re.fullmatch(r"-?[0-9]+", options.keep_alive)
            else options.keep_alive,
        }
        if schema is not None:
            body["format"] = schema
        expected = estimated_tokens(messages)
        if 2 * expected > options.num_ctx:
            # It might not fit: better to be told than to have Ollama leave the examples out without a word.
            body["truncate"] = False
        if options.top_logprobs:
            # Since 0.12.11; an older server does not know the fields and leaves them alone.
            body |= {"logprobs": True, "top_logprobs": options.top_logprobs}
        sent = 0

        def once() -> Generation:
            nonlocal sent
            sent += 1
            answer = self._chat(model, body)
            told = answer.prompt_tokens
            fewer = expected > options.num_ctx and told is not None and told < 0.7 * expected
            return replace(answer, prompt_cut=answer.prompt_cut or fewer)

        tries = 0
        failure: GenerationError | None = None
        while tries < self._limits.attempts:
            tries += 1
            try:
                return replace(self._reach(once), attempts=sent)
            except TimedOut as error:
                # The wait was long already; one more try, no further.
                tries = max(tries, self._limits.attempts - 1)
                failure = error
            except (EmptyAnswer, _Transient) as error:
                failure = error.failure if isinstance(error, _Transient) else error
                time.sleep(min(0.25 * 2**tries, 5.0) if tries < self._limits.attempts else 0)
        raise failure or BrokenAnswer(f"{model}: no answer")

    def _chat(self, model: str, body: Mapping[str, object]) -> Generation:
        """One try, with `think: false` where the model knows the word, and with as much of the prompt as fits."""
        prompt = f"{model}\n{body['options']}\n{body['messages']}"
        with self._lock:
            plain = model in self._cannot_think
            cut = prompt in self._too_long
        shorter = {name: value for name, value in body.items() if name != "truncate"}
        try:
            answer = self._think_not(model, shorter if cut else body, plain)
        except _TooLong:
            cut = True
            with self._lock:
                self._too_long.add(prompt)
            answer = self._think_not(model, shorter, plain)
        return replace(answer, prompt_cut=True) if cut else answer

    def _think_not(self, model: str, body: Mapping[str, object], plain: bool) -> Generation:
        try:
            return self._stream(model, body if plain else {**body, "think": False})
        except _NoThinking:
            with self._lock:
                self._cannot_think.add(model)
            return self._stream(model, body)

    def _stream(self, model: str, body: Mapping[str, object]) -> Generation:
        timeout: dict[str, float | None] = {
            "connect": self._limits.connect,
            "read": self._limits.first_chunk,
            "write": 60.0,
            "pool": None,
        }
        request = self._client.build_request("POST", "/api/chat", json=body, extensions={"timeout": timeout})
        began = time.perf_counter()
        try:
            response = self._client.send(request, stream=True)
            try:
                if response.status_code != 200:
                    response.read()
                    self._refuse(model, response, body)
                # Headers come with the first chunk; from here on silence is short or a fault.
                timeout["read"] = self._limits.between_chunks
                answer = self._read(model, body, response, began)
                self._client.has_answered = True
                return answer
            finally:
                response.close()
        except httpx.ReadTimeout as error:
            waited = timeout["read"]
            raise TimedOut(f"{model}: no chunk from {self._shown} within {waited:g} s") from error
        except ERRORS as error:
            words = self._client.explain(error)
            if self._client.lasting(error):
                raise EngineUnreachable(f"Ollama at {self._shown} cannot be reached: {words}") from error
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError):
                raise Away(words) from error
            raise _Transient(BrokenAnswer(f"{model}: {self._shown}: {words}")) from error

    def _read(
        self,
        model: str,
        body: Mapping[str, object],
        response: httpx.Response,
        began: float,
    ) -> Generation:
        text: list[str] = []
        tokens: list[Token] = []
        first: float | None = None
        thought = False
        chunks = _lines(model, response)
        for chunk in chunks:
            if self._fence is not None:
                self._fence.in_flight()
            if "error" in chunk:
                words = str(chunk["error"])
                if "truncate" in body and "context" in words.lower() and "exceed" in words.lower():
                    raise _TooLong
                raise _failure(model, words)
            message = chunk.get("message") or {}
            piece = message.get("content") or "" if isinstance(message, dict) else None
            if not isinstance(piece, str):
                raise _Transient(BrokenAnswer(f"{model}: a chunk without text in it: {_short(chunk)}"))
            thought = thought or bool(message.get("thinking"))
            if piece and first is None:
                first = time.perf_counter() - began
            text.append(piece)
            if piece:
                tokens += tokens_of(chunk.get("logprobs"))
            if chunk.get("done") is True:
                answer = _generation(model, "".join(text), chunk, first, time.perf_counter() - began, thought)
                answer = replace(answer, tokens=tuple(tokens))
                with suppress(_Transient):
                    read_out(chunks, response, self._limits.end_of_stream)
                return answer
        raise _Transient(BrokenAnswer(f"{model}: the answer ended without its last chunk"))

    def _refuse(self, model: str, response: httpx.Response, body: Mapping[str, object]) -> None:
        """Raise what an answer other than 200 means."""
        self._check_way(response)
        words = words_of(response)
        if response.status_code == 503:
            raise Busy("503, its queue is full", _retry_after(response))
        if response.status_code == 404:
            raise (
                _missing(model)
                if _no_such_model(words)
                else BrokenAnswer(f"{model}: {self._shown} answered 404: {words}; is that Ollama's address?")
            )
        if response.status_code == 400 and "think" in body and "think" in words.lower():
            raise _NoThinking
        if (
            "truncate" in body
            and "context" in words.lower()
            and ("exceed" in words.lower() or "length" in words.lower())
        ):
            raise _TooLong
        if response.status_code == 400 and "does not support" in words.lower():
            raise Unsuitable(f"{model} cannot write text; Ollama said: {words}")
        if response.status_code >= 500 or response.status_code in (408, 429):
            raise _failure(model, words)
        raise BrokenAnswer(f"{model}: {self._shown} answered {response.status_code}: {words}")

    # -- memory --------------------------------------------------------------------------------

    def resident(self) -> Sequence[Resident]:
        """What `/api/ps` lists."""
        models = self._get("/api/ps").get("models")
        entries = [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []
        return [Resident(str(m.get("name")), m["size"] if isinstance(m.get("size"), int) else None) for m in entries]

    def unload(self, model: str) -> None:
        """Ask for the model to be freed, and wait until `/api/ps` no longer lists it."""
        if not self._holds(model):
            return
        self._post("/api/generate", {"model": model, "keep_alive": 0, "stream": False}, model)
        deadline = time.monotonic() + self._limits.unload
        pause = 0.01
        while self._holds(model):
            if time.monotonic() > deadline:
                raise TipbenchError(
                    f"{model} is still in memory {self._limits.unload:g} s after Ollama was asked to free it; "
                    f"free it by hand (ollama stop {model}) before another model is measured"
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.5)

    def _holds(self, model: str) -> bool:
        return any(same_model(r.name, model) for r in self.resident())

    def pull(self, model: str, on_progress: Callable[[str], None] = lambda status: None) -> None:
        """Have the server fetch the model. A pull that the network cuts is tried again while it makes headway, and `Limits.pull` longer.

        Raises ModelMissing when the library does not have it, Unsuitable for one that would run in somebody's cloud, PullFailed when
        the library cannot be reached, EngineUnreachable when Ollama cannot.
        """
        if read_name(model).cloud:
            raise Unsuitable(_cloudy(model, "its tag says so"))
        moved = time.monotonic()
        got = 0

        def seen(chunk: Mapping[str, Any]) -> None:
            nonlocal moved, got
            done = chunk.get("completed")
            if isinstance(done, int) and done > got:
                moved, got = time.monotonic(), done
            on_progress(str(chunk.get("status", "")))

        def give_up(state: tenacity.RetryCallState) -> bool:
            return time.monotonic() - moved + state.upcoming_sleep >= self._limits.pull

        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((PullFailed, EngineUnreachable)),
            wait=tenacity.wait_exponential(multiplier=0.5, max=20) + tenacity.wait_random(0, 0.5),
            stop=give_up,
            before_sleep=lambda state: on_progress("the network failed; trying again"),
            reraise=True,
        ):
            with attempt:
                self._pull(model, seen)

    def _pull(self, model: str, seen: Callable[[Mapping[str, Any]], None]) -> None:
        timeout = httpx.Timeout(self._limits.first_chunk, connect=self._limits.connect)
        try:
            with self._client.stream("POST", "/api/pull", json={"model": model}, timeout=timeout) as response:
                if response.status_code != 200:
                    response.read()
                    self._check_way(response)
                    raise _not_pulled(model, words_of(response))
                for chunk in _lines(model, response):
                    if "error" in chunk:
                        raise _not_pulled(model, _short(str(chunk["error"])))
                    seen(chunk)
        except (Away, _Transient) as error:
            raise PullFailed(f"{model} could not be pulled now: {error}") from error
        except ERRORS as error:
            raise EngineUnreachable(
                f"Ollama at {self._shown} went away while pulling {model}: {self._client.explain(error)}"
            ) from error

    # -- calls ---------------------------------------------------------------------------------

    def _get(self, path: str) -> dict[str, Any]:
        return self._json(lambda: self._client.get(path))

    def _post(self, path: str, body: Mapping[str, object], model: str) -> dict[str, Any]:
        timeout = httpx.Timeout(self._limits.first_chunk, connect=self._limits.connect)
        return self._json(lambda: self._client.post(path, json=body, timeout=timeout), model)

    def _json(self, send: Callable[[], httpx.Response], model: str | None = None) -> dict[str, Any]:
        """The object that a short call answers with. Raises ModelBroken when the trouble is with `model` alone."""
        tries = 0

        def once() -> httpx.Response:
            nonlocal tries
            tries += 1
            try:
                response = send()
            except ERRORS as error:
                words = self._client.explain(error)
                if self._client.lasting(error):
                    raise EngineUnreachable(f"Ollama at {self._shown} cannot be reached: {words}") from error
                if isinstance(error, httpx.DecodingError):
                    raise EngineUnreachable(
                        f"{self._shown} does not answer like Ollama ({words}); check --ollama-url"
                    ) from error
                raise Away(words) from error
            self._check_way(response)
            if response.status_code == 503:
                raise Busy("503, its queue is full", _retry_after(response))
            lasting = model is not None and response.status_code == 500 and tries >= self._limits.attempts
            if response.status_code >= 500 and not lasting:
                raise Away(f"HTTP {response.status_code}: {words_of(response)}")
            return response

        response = self._reach(once)
        if response.status_code == 404 and model is not None and _no_such_model(words_of(response)):
            raise _missing(model)
        own = isinstance((json_object(response) or {}).get("error"), str)
        if model is not None and own and response.status_code >= 400 and response.status_code not in (401, 403, 405):
            # One model's trouble is not the server's: the others go on.
            raise ModelBroken(_unopened(model, f"{response.status_code}: {words_of(response)}"))
        body = json_object(response)
        if response.status_code in (401, 403):
            raise EngineUnreachable(
                f"Ollama at {self._shown} answered {response.status_code}: {words_of(response)}. Whoever guards it wants to know "
                "who asks: set OLLAMA_API_KEY (sent as a bearer token), or write http://USER:PASSWORD@HOST"
            )
        if not response.is_success or body is None:
            raise EngineUnreachable(
                f"{self._shown} does not answer like Ollama (HTTP {response.status_code} for {response.url.path}: "
                f"{words_of(response)}); check --ollama-url"
            )
        self._client.has_answered = True
        return body

    def _check_way(self, response: httpx.Response) -> None:
        """Raise what an answer means that is not Ollama's own: a proxy's, or a redirect."""
        own = isinstance((json_object(response) or {}).get("error"), str)
        away = self._client.foreign(response, own=own)
        if away and response.status_code in (403, 407):
            raise EngineUnreachable(f"Ollama at {self._shown} cannot be reached: {away}")
        if away:
            raise Away(away)
        elsewhere = self._client.redirect(response)
        if elsewhere:
            raise EngineUnreachable(f"Ollama at {self._shown}: {elsewhere}")

    def _reach(self, call: Callable[[], _T]) -> _T:
        """`call`, tried again while nobody listens or the queue is full, each within its limit."""
        try:
            return self._patience.ask(call, busy_s=self._limits.queue_full, first_s=0.25, most_s=8)
        except Away as error:
            raise EngineUnreachable(
                f"Ollama at {self._shown} cannot be reached ({error}); tried for {self._limits.unreachable:g} s. "
                "Start it (ollama serve), or name another with --ollama-url."
            ) from error
        except Busy as error:
            raise QueueFull(
                f"Ollama at {self._shown} kept answering 503 (queue full) for {self._limits.queue_full:g} s"
            ) from error


def _lines(model: str, response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The objects of a newline-delimited JSON stream."""
    for line in response.iter_lines():
        if not line.strip():
            continue
        try:
            chunk = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _Transient(BrokenAnswer(f"{model}: a chunk that is not JSON: {_short(line)}")) from error
        if not isinstance(chunk, dict):
            raise _Transient(BrokenAnswer(f"{model}: a chunk that is no object: {_short(line)}"))
        yield chunk


def _unknown(entry: Mapping[str, Any], problem: str) -> ModelFacts:
    """What a list alone tells of a model."""
    details = _object(entry.get("details"))
    return ModelFacts(
        name=str(entry.get("name")),
        digest=str(entry.get("digest", "")),
        parameters=parameters_stated(str(details.get("parameter_size", ""))),
        quantization=details.get("quantization_level") or None,
        size_bytes=_count(entry.get("size")),
        family=details.get("family") or None,
        problem=problem,
    )


def _check_suitable(name: str, shown: Mapping[str, Any]) -> None:
    """Raise Unsuitable for a model that is there and cannot write tips, by what `/api/show` says of it."""
    remote = shown.get("remote_host") or shown.get("remote_model")
    if remote:
        raise Unsuitable(_cloudy(name, f"Ollama hands it on to {remote}"))
    info, able = _object(shown.get("model_info")), shown.get("capabilities")
    kind, architecture = str(info.get("general.type", "")), str(info.get("general.architecture", ""))
    if kind in ("adapter", "mmproj") or architecture == "clip":
        what = "an adapter" if kind == "adapter" else "a vision projector"
        raise Unsuitable(f"{name} is {what}, which writes nothing without its base model; create a model of both")
    if isinstance(able, list) and able and "completion" not in able:
        raise Unsuitable(f"{name} cannot write text; all that it can do: {', '.join(map(str, able))}")
    if not isinstance(able, list) and f"{architecture}.pooling_type" in info:
        # Servers before 0.6.4 do not speak of capabilities.
        raise Unsuitable(f"{name} makes embeddings only; it cannot write text")


def _unopened(model: str, why: str) -> str:
    return f"Ollama lists {model}, but cannot open it ({why}); pull it again, or remove it: ollama rm {model}"


def _cloudy(model: str, why: str) -> str:
    return (
        f"{model} runs in somebody's cloud, not on this server ({hide(why)}); tipbench sends scenarios to no other machine than "
        "the one that --ollama-url names, and what runs elsewhere has no memory to measure"
    )


def _not_pulled(model: str, words: str) -> GenerationError:
    """The library does not have it, or could not be asked."""
    lowered = words.lower()
    if (
        "does not exist" in lowered
        or "not found" in lowered
        or "invalid model name" in lowered
        or "requires a newer version" in lowered
    ):
        return ModelMissing(f"{model} cannot be pulled: {words}")
    if "unauthorized" in lowered or "status 401" in lowered or "status 403" in lowered:
        return ModelMissing(f"{model} cannot be pulled: {words}")
    return PullFailed(f"{model} could not be pulled now: {words}; the same command tries it again")


def _generation(
    model: str, text: str, last: Mapping[str, Any], first: float | None, wall_s: float, thought: bool
) -> Generation:
    text = answer_in(model, text, thought)

    def figure(key: str) -> int | float | None:
        value = last.get(key)
        if value is None:
            return None
        # Far beyond any duration in nanoseconds: what JSON lets through as NaN, infinity or 400 digits.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
            raise _Transient(BrokenAnswer(f"{model}: {key} is no number: {_short(value)}"))
        return value

    def seconds(key: str) -> float | None:
        value = figure(key)
        return None if value is None else value / 1e9

    def count(key: str) -> int | None:
        value = figure(key)
        return None if value is None else int(value)

    return Generation(
        text=text,
        done_reason=str(last["done_reason"]) if last.get("done_reason") else None,
        ttft_s=first,
        total_s=seconds("total_duration"),
        load_s=seconds("load_duration"),
        prompt_tokens=count("prompt_eval_count"),
        prompt_s=seconds("prompt_eval_duration"),
        output_tokens=count("eval_count"),
        output_s=seconds("eval_duration"),
        wall_s=wall_s,
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tensors(value: object) -> list[Tensor]:
    """What `/api/show` says of the tensors; none when one of them is not described as it should be."""
    found = []
    for entry in value if isinstance(value, list) else []:
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(_count(n) for n in shape) or not shape:
            return []
        found.append(Tensor(str(entry.get("name")), str(entry.get("type")), tuple(shape)))
    return found


def _count(value: object) -> int | None:
    """A whole number above zero; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _no_such_model(words: str) -> bool:
    """Does a 404 speak of the model? The same status with `404 page not found` means that the path is wrong."""
    return "model" in words and ("not found" in words or "try pulling" in words)


def _failure(model: str, words: str) -> Exception:
    """What an error message of Ollama's means: out of memory for good, anything else worth another try."""
    lowered = words.lower()
    if "more system memory" in lowered or "out of memory" in lowered or "signal: killed" in lowered:
        return OutOfMemory(f"{model} does not fit in memory; Ollama said: {words}.")
    return _Transient(BrokenAnswer(f"{model}: Ollama said: {words}"))


def _missing(model: str) -> ModelMissing:
    return ModelMissing(f"Ollama does not have {model}; run: ollama pull {model} (or collect with --pull)")


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return min(float(value), 30.0) if value.isdecimal() else None


def _short(value: object) -> str:
    text = " ".join(hide(value if isinstance(value, str) else json.dumps(value)).split())
    return text if len(text) <= 300 else text[:297] + "..."
