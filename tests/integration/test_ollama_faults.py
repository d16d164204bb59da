"""What the Ollama engine does when things go wrong; the failures come from a fake server, on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import free_port
from tests.fakes.ollama_server import FakeOllama, Fault
from tipbench.engines.base import (
    BrokenAnswer,
    EmptyAnswer,
    EngineUnreachable,
    GenerationError,
    ModelMissing,
    Options,
    OutOfMemory,
    QueueFull,
    TimedOut,
)
from tipbench.engines.ollama import Limits, OllamaEngine

pytestmark = pytest.mark.integration
QUICK = Limits(connect=1, first_chunk=0.6, between_chunks=0.3, unreachable=0.8, queue_full=0.8, unload=1)
MESSAGES = [{"role": "user", "content": "A tip, please."}]


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    server = FakeOllama().start()
    yield server
    server.stop()


@pytest.fixture
def engine(fake: FakeOllama) -> Iterator[OllamaEngine]:
    opened = OllamaEngine(fake.url, limits=QUICK)
    yield opened
    opened.close()


def ask(engine: OllamaEngine, seed: int = 1) -> str:
    return engine.generate("small:1b", MESSAGES, Options(), seed).text


@pytest.mark.parametrize(
    "fault",
    [
        Fault("error_midstream"),
        Fault("garbage"),
        Fault("wrong_types"),
        Fault("nan"),
        Fault("deep"),
        Fault("not_gzip"),
        Fault("truncated"),
        Fault("reset"),
        Fault("empty"),
        Fault("thinking_only"),
        Fault("http", 500, "llama runner process no longer running"),
        Fault("http", 503, "server busy, please try again", retry_after="0"),
        Fault("hang_midstream"),
        Fault("hang"),
    ],
    ids=lambda fault: f"{fault.kind}{fault.status if fault.kind == 'http' else ''}",
)
def test_a_fault_that_passes_costs_a_retry_and_nothing_else(
    fake: FakeOllama, engine: OllamaEngine, fault: Fault
) -> None:
    fake.faults.append(fault)
    answer = engine.generate("small:1b", MESSAGES, Options(), 1)
    assert answer.text == fake.text("small:1b", MESSAGES[0]["content"], 1)
    assert len(fake.requests) == answer.attempts == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("error_midstream"), BrokenAnswer),
        (Fault("garbage"), BrokenAnswer),
        (Fault("wrong_types"), BrokenAnswer),
        (Fault("nan"), BrokenAnswer),
        (Fault("deep"), BrokenAnswer),
        (Fault("not_gzip"), BrokenAnswer),
        (Fault("truncated"), BrokenAnswer),
        (Fault("reset"), BrokenAnswer),
        (Fault("empty"), EmptyAnswer),
        (Fault("thinking_only"), EmptyAnswer),
        (Fault("http", 500, "boom"), BrokenAnswer),
        (Fault("http", 503, "busy"), QueueFull),
        (Fault("http", 400, "invalid option"), BrokenAnswer),
        (Fault("hang_midstream"), TimedOut),
        (Fault("hang"), TimedOut),
        (Fault("http", 500, "llama runner process has terminated: signal: killed"), OutOfMemory),
        (Fault("http", 500, "model requires more system memory (5.2 GiB) than is available"), OutOfMemory),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{value.kind}{value.status}",
)
def test_a_fault_that_stays_is_a_typed_failure(
    fake: FakeOllama, engine: OllamaEngine, fault: Fault, error: type[GenerationError]
) -> None:
    fake.always = fault
    with pytest.raises(error) as caught:
        ask(engine)
    assert "small:1b" in str(caught.value) or error is QueueFull
    if fault.kind == "http" and error is not QueueFull:
        assert fault.error in str(caught.value)


def test_out_of_memory_is_not_tried_again(fake: FakeOllama, engine: OllamaEngine) -> None:
    fake.always = Fault("http", 500, "llama runner process has terminated: signal: killed")
    with pytest.raises(OutOfMemory):
        ask(engine)
    assert len(fake.requests) == 1


def test_a_missing_model_is_named_with_the_command_that_brings_it(engine: OllamaEngine) -> None:
    with pytest.raises(ModelMissing, match=r"ollama pull other:1b"):
        engine.generate("other:1b", MESSAGES, Options(), 1)
    with pytest.raises(ModelMissing, match=r"ollama pull other:1b"):
        engine.describe("other:1b")


def test_a_wrong_path_is_not_taken_for_a_missing_model(fake: FakeOllama) -> None:
    with pytest.raises(BrokenAnswer, match="is that Ollama's address"):
        ask(OllamaEngine(fake.url + "/v1", limits=QUICK))


def test_only_a_model_that_thought_is_said_to_have_thought(fake: FakeOllama, engine: OllamaEngine) -> None:
    fake.always = Fault("thinking_only")
    with pytest.raises(EmptyAnswer, match="thoughts"):
        ask(engine)
    fake.always = Fault("empty")
    with pytest.raises(EmptyAnswer, match=r"without any text$"):
        ask(engine)


def test_answers_share_one_connection(fake: FakeOllama, engine: OllamaEngine) -> None:
    for seed in range(20):
        ask(engine, seed)
    assert fake.connections == 1


def test_an_answer_that_is_complete_is_kept_though_its_stream_never_ends(fake: FakeOllama) -> None:
    fake.faults.append(Fault("hang_at_end"))
    began = time.monotonic()
    answer = OllamaEngine(fake.url, limits=Limits(end_of_stream=0.1)).generate("small:1b", MESSAGES, Options(), 1)
    assert answer.text == fake.text("small:1b", MESSAGES[0]["content"], 1)
    assert len(fake.requests) == answer.attempts == 1
    assert time.monotonic() - began < 20, "it waited for the server, which holds the stream for 30 s"


def test_a_long_queue_takes_nothing_from_the_time_for_a_restart(fake: FakeOllama) -> None:
    port = int(fake.url.rsplit(":", 1)[1])
    fake.faults.extend([Fault("http", 503, "busy", retry_after="1")] * 2)
    engine = OllamaEngine(fake.url, limits=Limits(queue_full=20, unreachable=1.9))

    def restart() -> None:
        while len(fake.requests) < 2:
            time.sleep(0.02)
        time.sleep(0.3)
        fake.stop()
        time.sleep(1.1)
        fake.start(port)

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        # Two seconds in the queue already, more than a server may be away.
        assert engine.generate("small:1b", MESSAGES, Options(), 1).attempts == 4
    finally:
        thread.join()


def test_pulling_reports_progress_and_brings_the_model(fake: FakeOllama, engine: OllamaEngine) -> None:
    fake.library["new:2b"] = 2_000_000_000
    said: list[str] = []
    engine.pull("new:2b", said.append)
    assert said == ["pulling manifest", "success"]
    assert engine.describe("new:2b").parameters == 2_000_000_000
    with pytest.raises(ModelMissing, match=r"nothing:1b cannot be pulled: .*file does not exist"):
        engine.pull("nothing:1b")


def test_kv_heads_stated_layer_by_layer_are_counted(fake: FakeOllama, engine: OllamaEngine) -> None:
    fake.models["small:1b"]["info"]["llama.attention.head_count_kv"] = [1, 3] * 8
    # 32 KV heads over all layers x (64 + 64) wide x 2 bytes
    assert engine.describe("small:1b").kv_bytes_per_token == 8_192


def test_a_bare_number_is_sent_as_a_number(fake: FakeOllama, engine: OllamaEngine) -> None:
    for keep_alive in ("0", "-1", "60", "5m"):
        engine.generate("small:1b", MESSAGES, Options(keep_alive=keep_alive), 1)
    assert [r["keep_alive"] for r in fake.requests] == [0, -1, 60, "5m"]


def test_nobody_there_is_said_after_the_limit() -> None:
    engine = OllamaEngine(f"http://127.0.0.1:{free_port()}", limits=QUICK)
    began = time.monotonic()
    with pytest.raises(EngineUnreachable, match="ollama serve"):
        ask(engine)
    assert time.monotonic() - began < 10


def test_a_server_that_goes_down_and_comes_back_costs_nothing(fake: FakeOllama) -> None:
    engine = OllamaEngine(fake.url, limits=Limits(unreachable=20))
    first = ask(engine)
    port = int(fake.url.rsplit(":", 1)[1])
    fake.stop()
    threading.Timer(0.7, lambda: fake.start(port)).start()
    assert ask(engine) == first


def test_a_server_that_is_not_ollama_is_called_so(mlflow_url: str) -> None:
    with pytest.raises(EngineUnreachable, match="does not answer like Ollama"):
        OllamaEngine(mlflow_url, limits=QUICK).info()


def test_thinking_is_switched_off_where_the_model_knows_it(fake: FakeOllama, engine: OllamaEngine) -> None:
    ask(engine)
    assert fake.requests[0]["think"] is False
    fake.faults.append(Fault("no_think"))
    ask(engine)
    ask(engine)
    # Refused once, repeated without the field, and remembered.
    assert ["think" in r for r in fake.requests] == [True, True, False, False]


def test_options_travel_inside_options(fake: FakeOllama, engine: OllamaEngine) -> None:
    options = Options(temperature=0.3, num_predict=7, num_ctx=512, num_thread=2, keep_alive="0")
    engine.generate("small:1b", MESSAGES, options, 42)
    request = fake.requests[0]
    assert request["options"] == {"temperature": 0.3, "seed": 42, "num_predict": 7, "num_ctx": 512, "num_thread": 2}
    assert request["keep_alive"] == 0 and fake.resident == {}


def test_a_long_answer_is_not_a_hang(fake: FakeOllama) -> None:
    # The wait for the first chunk may be longer than the wait between chunks.
    fake.delay = 0.5
    engine = OllamaEngine(fake.url, limits=Limits(first_chunk=5, between_chunks=0.2))
    assert ask(engine)
    assert len(fake.requests) == 1


def test_unloading_waits_until_the_model_is_gone(fake: FakeOllama, engine: OllamaEngine) -> None:
    ask(engine)
    assert [r.name for r in engine.resident()] == ["small:1b"]
    engine.unload("small:1b")
    assert engine.resident() == []
    engine.unload("small:1b")
