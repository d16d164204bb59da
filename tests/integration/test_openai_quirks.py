"""Providers differ in what they take and how they answer: each quirk against a server that has it."""

from __future__ import annotations

import email.utils
import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port
from tests.fakes.openai_server import SCORES, FakeOpenAI, Reply, refuses
from tests.unit.test_validate import exchange
from tipbench.engines.base import GenerationError, Options
from tipbench.engines.openai import Limits, OpenAIEngine
from tipbench.errors import InputError, UnreachableError
from tipbench.judging.validate import read_exchange, write_exchange
from tipbench.stages import score
from tipbench.stages.score import JudgeSettings, ScoreResult

pytestmark = pytest.mark.integration


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    server = FakeOpenAI().start()
    yield server
    server.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "judge.json"
    body = exchange(6)
    items = tuple(
        i.model_copy(update={"tip": f"tip {n}", "scenario": f"scenario {n % 2}"}) for n, i in enumerate(body.items)
    )
    write_exchange(body.model_copy(update={"items": items}), path)
    return path


def judged(file: Path, fake: FakeOpenAI, **more: Any) -> ScoreResult:
    settings = {"parallel": 1, **more}
    return score.run(file, "openai:m", JudgeSettings(ollama_url="", base_url=fake.url, **settings))


def scores(file: Path) -> list[dict[str, int | None]]:
    return [dict(i.scores) for i in read_exchange(file).items]


def either(*refusals: Callable[[dict[str, Any]], Reply | None]) -> Callable[[dict[str, Any]], Reply | None]:
    return lambda body: next((r for refuse in refusals if (r := refuse(body)) is not None), None)


def bad(words: str, param: str = "", status: int = 400) -> Reply:
    return Reply(status, {"error": {"message": words, "type": "invalid_request_error", "param": param}})


def mentions_max_length(body: dict[str, Any]) -> Reply | None:
    words = "Invalid schema for response_format 'scores': 'maxLength' is not permitted."
    return bad(words, "response_format") if "maxLength" in json.dumps(body) else None


def only_type(*kinds: str) -> Callable[[dict[str, Any]], Reply | None]:
    def refuse(body: dict[str, Any]) -> Reply | None:
        kind = body.get("response_format", {}).get("type", "")
        return None if kind in ("", *kinds) else bad(f"response_format of type {kind} is not supported")

    return refuse


QUIRKS = {
    "max_completion_tokens": (
        refuses("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        lambda b: b["max_completion_tokens"] == 400 and "max_tokens" not in b,
        1,
    ),
    "temperature": (
        refuses("temperature", "'temperature' does not support 0.2 with this model. Only the default (1) is."),
        lambda b: "temperature" not in b and "seed" in b,
        1,
    ),
    "logprobs": (
        refuses("logprobs", "You are not allowed to request logprobs from this model"),
        lambda b: "logprobs" not in b and "top_logprobs" not in b,
        1,
    ),
    "seed": (refuses("seed", "Unrecognized request argument supplied: seed"), lambda b: "seed" not in b, 1),
    "maxLength": (
        mentions_max_length,
        lambda b: b["response_format"]["type"] == "json_schema" and "maxLength" not in json.dumps(b),
        1,
    ),
    "json_schema": (only_type("json_object"), lambda b: b["response_format"] == {"type": "json_object"}, 2),
    "response_format": (only_type(), lambda b: "response_format" not in b, 3),
    "two at once": (
        either(
            refuses("max_tokens", "Use 'max_completion_tokens' instead of 'max_tokens'."),
            refuses("temperature", "temperature is not supported"),
            mentions_max_length,
        ),
        lambda b: "temperature" not in b and "max_completion_tokens" in b and "maxLength" not in json.dumps(b),
        3,
    ),
    "one that does not say what it minds": (
        lambda b: Reply(422, {"detail": "bad request"}) if "seed" in b else None,
        lambda b: "seed" not in b and "temperature" in b and b["response_format"]["type"] == "json_schema",
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", QUIRKS)
@pytest.mark.parametrize("parallel", [1, 4])
def test_what_a_server_refuses_is_left_out_remembered_and_said_once(
    file: Path, fake: FakeOpenAI, caplog: pytest.LogCaptureFixture, name: str, parallel: int
) -> None:
    fake.refuse, fits, steps = QUIRKS[name]
    with caplog.at_level(logging.WARNING, "tipbench"):
        result = judged(file, fake, parallel=parallel)
    assert (result.scored, result.left) == (6, 0)
    taken = [b for b in fake.requests if fake.refuse(b) is None]
    assert len(taken) == 6 and all(fits(b) for b in taken)
    # Only what was in flight before the first refusal came back is sent in vain.
    assert len(fake.requests) - len(taken) <= steps * parallel
    said = [r.getMessage() for r in caplog.records if "does not take" in r.getMessage()]
    assert len(said) == len(set(said)) == steps


def test_a_request_that_is_taken_in_no_form_is_refused_in_the_servers_words(file: Path, fake: FakeOpenAI) -> None:
    fake.refuse = lambda body: bad("the account is on hold")
    with pytest.raises(InputError, match="the account is on hold") as caught:
        judged(file, fake)
    assert caught.value.exit_code == 2 and len(fake.requests) < 15


def test_a_single_tip_that_a_provider_declines_stays_open_and_the_rest_goes_on(file: Path, fake: FakeOpenAI) -> None:
    def refuse(body: dict[str, Any]) -> Reply | None:
        error = {"message": "flagged", "code": "content_filter"}
        return Reply(400, {"error": error}) if "tip 3" in body["messages"][-1]["content"] else None

    fake.refuse = refuse
    result = judged(file, fake)
    assert (result.scored, result.left, dict(result.failures)) == (5, 1, {"Declined": 1})


def test_no_money_left_is_said_at_once_in_the_providers_words(file: Path, fake: FakeOpenAI) -> None:
    words = "You exceeded your current quota, please check your plan and billing details."
    error = {"message": words, "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}
    fake.refuse = lambda body: Reply(429, {"error": error}, {"Retry-After": "30"})
    began = time.monotonic()
    with pytest.raises(InputError, match="exceeded your current quota"):
        judged(file, fake)
    assert time.monotonic() - began < 5 and len(fake.requests) == 1


@pytest.mark.parametrize("shape", ["seconds", "date", "milliseconds"])
def test_a_429_is_waited_for_as_long_as_it_asks(file: Path, fake: FakeOpenAI, shape: str) -> None:
    at = datetime.now(UTC) + timedelta(seconds=3)
    headers = {
        "seconds": {"Retry-After": "1"},
        "date": {"Retry-After": email.utils.format_datetime(at, usegmt=True)},
        "milliseconds": {"retry-after-ms": "1200"},
    }[shape]
    fake.replies.append(Reply(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, headers))
    result = judged(file, fake, parallel=3)
    assert result.left == 0
    # The others had been sent with it; after the answer nobody asks again before the time is up.
    later = [t for t in fake.times if t - fake.times[0] > 0.3]
    assert later[0] - fake.times[0] >= (0.9 if shape == "date" else 1.0)
    assert len(fake.requests) == 7


def test_a_wait_that_is_too_long_ends_with_what_was_scored(file: Path, fake: FakeOpenAI) -> None:
    def content(body: dict[str, Any]) -> str:
        fake.replies.append(Reply(429, {"error": {"message": "daily limit"}}, {"Retry-After": "40000"}))
        return SCORES

    fake.content = content
    with pytest.raises(UnreachableError, match="asks to wait 40000 s"):
        judged(file, fake)
    assert [s["tone"] for s in scores(file)].count(5) == 1


@pytest.mark.parametrize(
    "content",
    [
        '<think>The anchors {1..5}: {"relevance": 1}</think>' + SCORES,
        f"```json\n{SCORES}\n```",
        '{"scores": {"Relevance": "4/5", "Actionability": "3", "TONE": 5}}',
        [{"type": "text", "text": SCORES}],
    ],
)
def test_odd_answers_are_read(file: Path, fake: FakeOpenAI, content: Any) -> None:
    fake.content = lambda body: content
    assert judged(file, fake).left == 0
    assert scores(file) == [{"relevance": 4, "actionability": 3, "tone": 5}] * 6


def test_an_answer_that_is_not_sure_leaves_the_tip_open_and_says_why(file: Path, fake: FakeOpenAI) -> None:
    fake.content = '{"relevance": 4, "actionability": 3, "tone": "7/10"}'
    result = judged(file, fake)
    assert (result.left, dict(result.failures)) == (6, {"BrokenAnswer": 6})
    assert "tone" in result.why["BrokenAnswer"] and "another scale" in result.why["BrokenAnswer"]
    assert len({b["seed"] for b in fake.requests}) == 3


def test_thoughts_that_use_up_the_tokens_are_given_more_room(file: Path, fake: FakeOpenAI) -> None:
    def content(body: dict[str, Any]) -> str:
        enough = body.get("max_completion_tokens", body.get("max_tokens", 0)) >= 1600
        fake.extra = {"finish_reason": "stop" if enough else "length"}
        return SCORES if enough else ""

    fake.content = content
    assert judged(file, fake).left == 0
    assert [b["max_tokens"] for b in fake.requests] == [400] + [1600] * 6


def test_expected_scores_stand_beside_whole_ones_where_the_server_tells_probabilities(
    file: Path, fake: FakeOpenAI
) -> None:
    text = '{"relevance": 4, "actionability": 3, "tone": 5}'
    entries = [{"token": c, "logprob": 0.0, "top_logprobs": [{"token": c, "logprob": 0.0}]} for c in text]
    at = text.index("4")
    entries[at]["top_logprobs"] = [{"token": "4", "logprob": -0.6931472}, {"token": "2", "logprob": -0.6931472}]
    entries[at]["logprob"] = -0.6931472
    fake.content, fake.extra = text, {"logprobs": {"content": entries}}
    judged(file, fake, rationale="none")
    item = read_exchange(file).items[0]
    assert item.expected == {"relevance": 3.0, "actionability": 3.0, "tone": 5.0} and item.scores["relevance"] == 4
    assert "expected" not in json.dumps(exchange(1).model_dump(mode="json")["items"][0]["scores"])


@pytest.mark.parametrize(("rationale", "order"), [("before", 0), ("after", 3), ("none", None)])
def test_the_rationale_stands_where_it_was_asked_for(
    file: Path, fake: FakeOpenAI, rationale: str, order: int | None
) -> None:
    judged(file, fake, rationale=rationale)
    schema = fake.requests[0]["response_format"]["json_schema"]["schema"]
    fields = list(schema["properties"])
    assert (fields.index("rationale") if "rationale" in fields else None) == order
    assert ('"rationale"' in fake.requests[0]["messages"][-1]["content"]) == (order is not None)
    details = read_exchange(file).judge.details  # type: ignore[union-attr]
    assert details["rationale"] == rationale and len(details["judge_prompt"]) == 64 and details["passes"] == "1"


def test_the_key_is_sent_and_never_shown(file: Path, fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    fake.replies.append(Reply(401, {"error": {"message": "no such key"}}))
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        judged(file, fake)
    assert fake.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(caught.value) + file.read_text()


@pytest.mark.parametrize("url", ["http://[::1/v1", "no-scheme/v1", "http://", "ftp://x/v1"])
def test_an_address_that_is_none_is_bad_input(file: Path, url: str) -> None:
    with pytest.raises(InputError, match="--base-url"):
        score.run(file, "openai:m", JudgeSettings(ollama_url="", base_url=url, parallel=1))


def test_an_endpoint_that_is_not_there_is_exit_5() -> None:
    engine = OpenAIEngine(f"http://127.0.0.1:{free_port()}/v1", limits=Limits(unreachable=0.5))
    with pytest.raises(UnreachableError, match="cannot be reached") as caught:
        engine.generate("m", [{"role": "user", "content": "x"}], Options(), 1)
    assert caught.value.exit_code == 5


def test_a_page_that_is_no_endpoint_is_told(fake: FakeOpenAI) -> None:
    fake.replies.extend([Reply(200, "<html>hello</html>")] * 3)
    engine = OpenAIEngine(fake.url)
    with pytest.raises(GenerationError, match="did not answer like an OpenAI endpoint"):
        engine.generate("m", [{"role": "user", "content": "x"}], Options(), 1)
    with pytest.raises(InputError, match="is --engine-url right"):
        OpenAIEngine(fake.url + "/v2").generate("m", [{"role": "user", "content": "x"}], Options(), 1)
