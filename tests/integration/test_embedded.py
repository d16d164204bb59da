"""The embedded engine with the real model, and the whole pipeline on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Tipbench
from tests.integration.conftest import smollm2
from tipbench.engines.base import BrokenAnswer, ModelMissing, Options
from tipbench.engines.embedded import EmbeddedEngine, free_cores
from tipbench.engines.gguf import read_header
from tipbench.errors import InputError

pytestmark = pytest.mark.integration
MODEL = "smollm2:135m"
MESSAGES = [{"role": "user", "content": "Give me one short tip for better sleep."}]


@pytest.fixture(scope="module")
def engine() -> Iterator[EmbeddedEngine]:
    opened = EmbeddedEngine({"twin:135m": smollm2()})
    yield opened
    opened.close()


def test_facts_come_from_the_files_header(engine: EmbeddedEngine) -> None:
    facts = engine.describe(MODEL)
    assert facts.parameters == 134_515_008 and facts.quantization == "Q4_1"
    assert facts.size_bytes == smollm2().stat().st_size and facts.kv_bytes_per_token == 23_040
    assert facts.n_layers == 30 and len(facts.digest) == 64


def test_a_seed_repeats_and_the_cost_is_measured(engine: EmbeddedEngine) -> None:
    options = Options(num_predict=20, num_ctx=512)
    first = engine.generate(MODEL, MESSAGES, options, seed=5)
    again = engine.generate(MODEL, MESSAGES, options, seed=5)
    other = engine.generate(MODEL, MESSAGES, options, seed=6)
    assert first.text == again.text != other.text
    assert first.load_s and first.load_s > 0 == again.load_s
    assert first.output_tokens == 20 and first.done_reason == "length" and (first.tokens_per_s or 0) > 1
    assert first.ttft_s is not None and 0 < first.ttft_s < first.wall_s
    (resident,) = engine.resident()
    assert resident.name == MODEL and (resident.size_bytes or 0) > 50_000_000


def test_another_model_takes_the_place_of_the_first(engine: EmbeddedEngine) -> None:
    options = Options(num_predict=3, num_ctx=512)
    for model in (MODEL, "twin:135m"):
        engine.generate(model, MESSAGES, options, seed=1)
        assert [r.name for r in engine.resident()] == [model]
    engine.unload("twin:135m")
    assert engine.resident() == []


def test_keep_alive_0_frees_the_model_after_the_answer(engine: EmbeddedEngine) -> None:
    engine.generate(MODEL, MESSAGES, Options(num_predict=3, num_ctx=512, keep_alive="0"), seed=1)
    assert engine.resident() == []


def test_a_schema_binds_the_answer(engine: EmbeddedEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "enum": [1, 2, 3, 4, 5]}},
        "required": ["score"],
    }
    answer = engine.generate(MODEL, MESSAGES, Options(num_predict=40, num_ctx=512), seed=1, schema=schema)
    assert json.loads(answer.text)["score"] in range(1, 6)


def test_threads_are_the_cores_that_others_leave_free() -> None:
    cores = len(os.sched_getaffinity(0))
    assert 1 <= free_cores() <= cores
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * cores)]
    try:
        time.sleep(0.3)
        assert free_cores() == 1
    finally:
        for process in busy:
            process.kill()


def test_what_is_not_there_or_no_model_is_named(engine: EmbeddedEngine, tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"qwen2\.5:0\.5b: the embedded engine has"):
        engine.describe("qwen2.5:0.5b")
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"not a model")
    with pytest.raises(BrokenAnswer, match="not a GGUF file"):
        engine.describe(str(fake))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(smollm2().read_bytes()[:500])
    with pytest.raises(InputError, match="broken or cut off"):
        read_header(cut)


def test_the_pipeline_in_one_go(tipbench: Tipbench, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = tipbench(
        "run", "--engine", "embedded", "--models", MODEL, "--prompts", "v1,v2-mentor", "--n-scenarios", 2, "--n-tips", 2,
        "--num-predict", 20, "--num-ctx", 1024, "--experiment", "tip-bench-go", "--mlflow-url", tmp_path / "store", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "baseline judge's (text statistics)" in done.stdout and str(out / "report.html") in done.stdout
    board = json.loads((out / "leaderboard.json").read_text())
    assert [c["n_judged"] for c in board["cells"]] == [4, 4]
    assert all(c["tokens_per_s"] > 0 and c["peak_memory_bytes"] > 50_000_000 for c in board["cells"])
    assert {c["memory_source"] for c in board["cells"]} == {"own process"} and "(own process)" in done.stdout
    again = tipbench(
        "run", "--engine", "embedded", "--models", MODEL, "--prompts", "v1,v2-mentor", "--n-scenarios", 2, "--n-tips", 2,
        "--num-predict", 20, "--num-ctx", 1024, "--experiment", "tip-bench-go", "--mlflow-url", tmp_path / "store", "--out", out,
    )  # fmt: skip
    assert again.returncode == 0 and "0 collected" in again.stdout and "Nothing is pending" in again.stdout
    assert len(json.loads((out / "judge.json").read_text())["items"]) == 9


def test_the_policy_holds_for_the_embedded_engine_too(tipbench: Tipbench, tmp_path: Path) -> None:
    done = tipbench(
        "collect", "--engine", "embedded", "--models", MODEL, "--max-model-b", "0.1", "--mlflow-url", tmp_path / "store"
    )
    assert done.returncode == 3 and "134,515,008" in done.stderr
