"""Models as people have them on a server: broken ones, other spellings, some that cannot write, some that think aloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tipbench
from tests.fakes.ollama_server import FakeOllama, Fault
from tipbench.collecting.gate import gate
from tipbench.config import Config
from tipbench.engines.base import (
    EmptyAnswer,
    EngineUnreachable,
    GenerationError,
    ModelBroken,
    ModelMissing,
    Options,
    PullFailed,
    Unsuitable,
)
from tipbench.engines.ollama import Limits, OllamaEngine
from tipbench.stages import doctor
from tipbench.stages import models as models_stage

pytestmark = pytest.mark.integration
QUICK = Limits(connect=1, unreachable=1, queue_full=1, attempts=2, first_chunk=5, between_chunks=2, pull=5)
MESSAGES = [{"role": "user", "content": "One tip, please."}]
BROKEN = [
    (500, {"error": "open /models/blobs/sha256-1: no such file or directory"}),
    (404, {"error": "model 'broken:1b' not found"}),
    (400, {"error": "unsupported model format"}),
]
UNSUITABLE = {
    "embed:1b": {"capabilities": ["embedding"]},
    "old-embed:1b": {
        "model_info": {"general.architecture": "bert", "bert.pooling_type": 1, "general.parameter_count": 10}
    },
    "lora:1b": {"model_info": {"general.architecture": "llama", "general.type": "adapter"}},
    "eyes:1b": {"model_info": {"general.architecture": "clip"}, "capabilities": ["vision"]},
    "remote:1b": {"remote_host": "https://ollama.com:443", "remote_model": "big"},
    "big:480b-cloud": {},
}


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


@pytest.mark.parametrize(("status", "body"), BROKEN)
def test_one_broken_model_does_not_take_over(
    fake: FakeOllama, engine: OllamaEngine, status: int, body: Any, tmp_path: Path
) -> None:
    fake.add("broken:1b", 1_000_000_000)
    fake.broken["broken:1b"] = (status, body)
    problems = {facts.name: facts.problem for facts in engine.models()}
    assert problems["small:1b"] == "" and "cannot open it" in problems["broken:1b"]
    with pytest.raises(ModelBroken, match="broken:1b"):
        engine.describe("broken:1b")
    config = Config(models="small:1b,broken:1b", ollama_url=fake.url, mlflow_url=str(tmp_path / "store"))
    rows = {row.model: row for row in models_stage.run(config, engine)}
    assert rows["small:1b"].allowed and not rows["broken:1b"].allowed and "cannot open it" in rows["broken:1b"].verdict
    checks = {check.name: check for check in doctor.run(config).checks}
    assert checks["model small:1b"].status == "ok" and checks["model broken:1b"].status == "failed"
    blocks, refused = gate(config, engine, None, lambda event: None)
    assert not refused and [b.failure and b.failure.reason for b in blocks] == [None, "ModelBroken"]


def test_a_broken_models_cells_fail_and_the_others_are_collected(
    fake: FakeOllama, tipbench: Tipbench, mlflow_url: str, tmp_path: Path
) -> None:
    fake.add("broken:1b", 1_000_000_000)
    fake.broken["broken:1b"] = BROKEN[0]
    fake.add("embed:1b", 1_000_000_000)
    fake.extras["embed:1b"] = UNSUITABLE["embed:1b"]
    done = tipbench(
        "collect", "--models", "broken:1b,embed:1b,small:1b", "--prompts", "v1,v3-few-shot", "--n-scenarios", 1, "--n-tips", 1,
        "--num-ctx", 128, "--experiment", "tip-bench-broken-models", "--ollama-url", fake.url, "--mlflow-url", mlflow_url, "--json",
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert done.returncode == 4 and result["collected"] == 2 and result["failed"] == {"ModelBroken": 2}, done.stderr
    assert list(result["refused"]) == ["embed:1b"] and {request["model"] for request in fake.requests} == {"small:1b"}
    assert "prompt v3-few-shot takes about" in done.stderr


@pytest.mark.parametrize("name", UNSUITABLE)
def test_what_cannot_write_tips_is_refused_before_it_is_asked(
    fake: FakeOllama, engine: OllamaEngine, name: str
) -> None:
    fake.add(name, 1_000_000_000)
    fake.extras[name] = UNSUITABLE[name]
    with pytest.raises(Unsuitable, match=name):
        engine.describe(name)
    assert next(facts.problem for facts in engine.models() if facts.name == name)
    blocks, refused = gate(Config(models=f"{name},small:1b", max_model_b=1000.0), engine, None, lambda event: None)
    assert list(refused) == [name] and [block.model for block in blocks] == ["small:1b"]


def test_a_cloud_model_is_not_even_pulled(fake: FakeOllama, engine: OllamaEngine) -> None:
    fake.library["x:cloud"] = 1
    with pytest.raises(Unsuitable, match="cloud"):
        engine.pull("x:cloud")
    assert "x:cloud" not in fake.models


def test_a_model_that_sees_writes_as_well(fake: FakeOllama, engine: OllamaEngine) -> None:
    fake.extras["small:1b"] = {"capabilities": ["completion", "vision"]}
    assert engine.describe("small:1b").problem == ""


@pytest.mark.parametrize(
    "spelled",
    [
        "SMALL:1B",
        "library/small:1b",
        "registry.ollama.ai/library/Small:1b",
        "https://registry.ollama.ai/library/small:1b",
    ],
)
def test_another_spelling_is_the_same_model(fake: FakeOllama, engine: OllamaEngine, spelled: str) -> None:
    assert engine.describe(spelled).parameters == 1_000_000_000
    engine.generate(spelled, MESSAGES, Options(), 1)
    assert [r.name for r in engine.resident()] == ["small:1b"]
    engine.unload(spelled)
    assert fake.resident == {}
    rows = models_stage.run(Config(models=spelled), engine)
    assert [(row.installed, row.configured) for row in rows] == [(True, True)]


@pytest.mark.parametrize("name", ["a b", "a/b/c/d", "x:", "-x"])
def test_what_is_no_name_is_said_to_be_none(engine: OllamaEngine, name: str) -> None:
    with pytest.raises(ModelMissing, match="is no name of a model"):
        engine.describe(name)


@pytest.mark.parametrize(
    "said", ["<think>zqMARKERqz", "<think>zqMARKERqz</think>", "zqMARKERqz</think>\n", "[THINK]zqMARKERqz"]
)
def test_a_thought_alone_is_no_tip(fake: FakeOllama, engine: OllamaEngine, said: str) -> None:
    fake.always = Fault("says", error=said)
    with pytest.raises(EmptyAnswer, match="thoughts") as caught:
        engine.generate("small:1b", MESSAGES, Options(), 1)
    assert "zqMARKERqz" not in str(caught.value)


def test_a_thought_before_a_tip_is_no_part_of_it(fake: FakeOllama, engine: OllamaEngine) -> None:
    fake.always = Fault("says", error="<thinking>zqMARKERqz</thinking>\n\nSet a timer.")
    assert engine.generate("small:1b", MESSAGES, Options(), 1).text == "Set a timer."


@pytest.mark.parametrize(
    "said",
    [
        None,
        'pull model manifest: Get "https://registry.ollama.ai/v2/": dial tcp: lookup registry.ollama.ai: no such host',
        "max retries exceeded: unexpected EOF",
        "context deadline exceeded",
    ],
)
def test_a_pull_that_the_network_cut_is_tried_again(fake: FakeOllama, engine: OllamaEngine, said: str | None) -> None:
    fake.library["new:1b"] = 1_000_000_000
    fake.pulls.append(said)
    engine.pull("new:1b")
    assert engine.describe("new:1b").parameters == 1_000_000_000
    fake.pulls.extend([said] * 50)
    with pytest.raises((PullFailed, EngineUnreachable)) as caught:
        engine.pull("other:1b")
    assert not isinstance(caught.value, ModelMissing)


def test_what_the_library_lacks_is_missing_at_once(fake: FakeOllama, engine: OllamaEngine) -> None:
    with pytest.raises(ModelMissing, match="file does not exist"):
        engine.pull("nothing:1b")


def test_a_prompt_that_does_not_fit_is_noticed(fake: FakeOllama, engine: OllamaEngine) -> None:
    fake.prompt_tokens = 400
    long = [{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": "y"}, *MESSAGES]
    answers = [engine.generate("small:1b", long, Options(num_ctx=128), seed) for seed in range(2)]
    assert all(answer.prompt_cut for answer in answers)
    # Each time asked with the whole prompt first, then as the server wants it.
    assert [request.get("truncate") for request in fake.requests] == [False, None, False, None]
    fake.prompt_tokens = 100
    assert not engine.generate("small:1b", [*long, *MESSAGES], Options(num_ctx=128), 1).prompt_cut


def test_a_prompt_that_fits_is_sent_as_ever(fake: FakeOllama, engine: OllamaEngine) -> None:
    answer = engine.generate("small:1b", MESSAGES, Options(), 1)
    assert not answer.prompt_cut and "truncate" not in fake.requests[0]


def test_every_failure_of_a_model_is_a_generation_error() -> None:
    assert all(issubclass(kind, GenerationError) for kind in (ModelBroken, Unsuitable, PullFailed))
    assert len({kind.reason for kind in (ModelBroken, Unsuitable, PullFailed, ModelMissing)}) == 4
