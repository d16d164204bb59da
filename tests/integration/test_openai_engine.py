"""The engine `openai`: against llama.cpp's own server, and a fake where a server must behave in a certain way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Tipbench
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.llama_server import llama_server
from tipbench.config import Config
from tipbench.engines import open_engine
from tipbench.engines.base import EmptyAnswer, EngineUnreachable, ModelMissing, Options
from tipbench.engines.openai import Limits, OpenAIEngine
from tipbench.policy import check_parameters

pytestmark = pytest.mark.integration

QUESTION = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    server = FakeOpenAI(content="Take one small step now.").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    with llama_server() as url:
        yield url


def test_an_answer_is_streamed_with_the_servers_timings(fake: FakeOpenAI) -> None:
    fake.timings = {"prompt_n": 50, "prompt_ms": 120.0, "predicted_n": 20, "predicted_ms": 400.0}
    answer = OpenAIEngine(fake.url).generate("m", QUESTION, Options(temperature=0.3, num_predict=77), 5)
    assert answer.text == "Take one small step now." and answer.done_reason == "stop"
    assert (answer.prompt_tokens, answer.output_tokens) == (50, 20)
    assert (answer.prompt_s, answer.output_s, answer.total_s) == (0.12, 0.4, 0.52)
    assert answer.tokens_per_s == 50.0 and answer.ttft_s is not None and 0 < answer.ttft_s <= answer.wall_s
    body = fake.requests[0]
    assert (body["stream"], body["temperature"], body["seed"], body["max_tokens"]) == (True, 0.3, 5, 77)


def test_answers_share_one_connection_and_one_that_is_complete_is_kept_though_its_stream_never_ends(
    fake: FakeOpenAI,
) -> None:
    engine = OpenAIEngine(fake.url, limits=Limits(end_of_stream=0.1))
    for seed in range(10):
        engine.generate("m", QUESTION, Options(), seed)
    assert fake.connections == 1
    fake.hang_s = 30
    began = time.monotonic()
    answer = engine.generate("m", QUESTION, Options(), 1)
    assert answer.text == fake.content and time.monotonic() - began < 20, "it waited for the server"
    fake.hang_s = 0
    engine.generate("m", QUESTION, Options(), 1)
    assert fake.connections == 2 and len(fake.requests) == 12


def test_what_a_server_does_not_tell_stays_unknown(fake: FakeOpenAI) -> None:
    answer = OpenAIEngine(fake.url).generate("m", QUESTION, Options(), 1)
    assert (answer.prompt_s, answer.output_s, answer.total_s, answer.load_s) == (None,) * 4


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "said", ["<think>Which model am I?</think>\n\n{}", "I am thinking. </think> {}", "[THINK]hm[/THINK]{}", "◁think▷hm◁/think▷{}", "{}"]
)  # fmt: skip
def test_thoughts_in_the_text_are_no_part_of_the_tip(fake: FakeOpenAI, said: str, stream: bool) -> None:
    fake.content = said.format("Take one small step now.")
    answer = OpenAIEngine(fake.url, stream=stream).generate("m", QUESTION, Options(), 1)
    assert answer.text == "Take one small step now."


def test_thoughts_that_never_end_are_an_empty_answer_that_says_so(fake: FakeOpenAI) -> None:
    fake.content = "<thinking>Which model am I, and how long may I"
    with pytest.raises(EmptyAnswer, match=r"spent its tokens on thoughts.*--num-predict"):
        OpenAIEngine(fake.url).generate("m", QUESTION, Options(), 1)
    assert len(fake.requests) == 3, "asked as often as for any other broken answer"


def test_an_error_in_mid_stream_is_tried_again(fake: FakeOpenAI) -> None:
    from tipbench.engines.base import BrokenAnswer

    fake.replies.append(Reply(200, {"error": {"message": "slot lost"}}))
    assert OpenAIEngine(fake.url).generate("m", QUESTION, Options(), 1).attempts == 2
    fake.replies.extend([Reply(200, {"error": {"message": "slot lost"}})] * 3)
    with pytest.raises(BrokenAnswer):
        OpenAIEngine(fake.url).generate("m", QUESTION, Options(), 1)


def test_the_policy_goes_by_what_the_server_tells_or_the_user(fake: FakeOpenAI) -> None:
    fake.models = [
        {"id": "told", "meta": {"n_params": 134_515_008, "size": 96_576_768, "ftype": "Q4_1"}},
        {"id": "org/silent", "root": "org/silent", "max_model_len": 4096},
        {"id": "other"},
    ]
    engine = open_engine(Config(engine="openai", engine_url=fake.url, parameters="org/silent=1.5b, x=7b"))
    told, silent, other = engine.models()
    assert (told.parameters, told.size_bytes, told.quantization) == (134_515_008, 96_576_768, "Q4_1")
    assert (silent.parameters, silent.context_length) == (1_500_000_000, 4096)
    assert other.parameters is None and not check_parameters("other", other.parameters, 4.0).allowed
    # A digest that no server tells must still keep the rows of a board apart, and stay the same from day to day.
    assert len({told.digest, silent.digest, other.digest}) == 3
    assert engine.describe("told").digest == told.digest


def test_a_model_that_is_not_listed_is_missing_and_the_others_are_named(fake: FakeOpenAI) -> None:
    with pytest.raises(ModelMissing, match="it lists: m"):
        OpenAIEngine(fake.url).describe("n")
    fake.models = [{"id": "n"}]  # loaded in the meantime
    engine = OpenAIEngine(fake.url)
    assert engine.describe("n").name == "n"


def test_an_address_of_something_else_is_told(fake: FakeOpenAI) -> None:
    fake.models = "oops"  # type: ignore[assignment]
    with pytest.raises(EngineUnreachable, match="does not answer like an OpenAI endpoint"):
        OpenAIEngine(fake.url).models()


def test_a_key_of_its_own_is_sent_and_the_judges_is_not(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-judge")
    open_engine(Config(engine="openai", engine_url=fake.url)).generate("m", QUESTION, Options(), 1)
    monkeypatch.setenv("TIPBENCH_ENGINE_API_KEY", "sk-engine")
    open_engine(Config(engine="openai", engine_url=fake.url)).generate("m", QUESTION, Options(), 1)
    assert [h.get("Authorization") for h in fake.headers] == [None, "Bearer sk-engine"]


def test_a_board_beside_the_same_model_in_this_process(llama: str, tipbench: Tipbench, tmp_path: Path) -> None:
    common = ["--prompts", "v1", "--n-tips", 1, "--n-scenarios", 2, "--num-predict", 24, "--num-ctx", 1024]
    common += ["--experiment", "tip-bench-engines", "--mlflow-url", tmp_path / "store", "--json"]
    engine = OpenAIEngine(llama)
    model = engine.models()[0].name
    assert engine.info().version and engine.models()[0].parameters == 134_515_008
    first = tipbench("collect", "--engine", "openai", "--engine-url", llama, "--models", model, *common)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["collected"] == 2
    again = tipbench("collect", "--engine", "openai", "--engine-url", llama, "--models", model, *common)
    assert (json.loads(again.stdout)["skipped"], json.loads(again.stdout)["collected"]) == (2, 0)
    second = tipbench("collect", "--engine", "embedded", "--models", "smollm2:135m", "--num-thread", 1, *common)
    assert second.returncode == 0, second.stderr
    listed = tipbench("models", "--engine", "openai", "--engine-url", llama, "--json")
    assert listed.returncode == 0 and model in listed.stdout
