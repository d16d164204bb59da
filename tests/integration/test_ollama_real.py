"""The Ollama engine and the collect stage against a real Ollama server with a real model."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Tipbench
from tests.integration.conftest import OllamaServer, smollm2
from tests.llama_server import llama_server
from tipbench.engines import gguf
from tipbench.engines.base import ModelMissing, Options
from tipbench.engines.gguf import read_header
from tipbench.engines.measuring import open_meter
from tipbench.engines.ollama import OllamaEngine
from tipbench.store import open_store
from tipbench.store.memory import reading

pytestmark = [pytest.mark.integration, pytest.mark.ollama]
MESSAGES = [{"role": "user", "content": "Give me one short tip for better sleep."}]


@pytest.fixture
def engine(ollama: OllamaServer) -> Iterator[OllamaEngine]:
    opened = OllamaEngine(ollama.url)
    yield opened
    for resident in opened.resident():
        opened.unload(resident.name)
    opened.close()


def test_facts_are_those_of_the_real_model(engine: OllamaEngine) -> None:
    facts = engine.describe("smollm2:135m")
    assert facts.parameters == 134_515_008
    assert facts.quantization == "Q4_1" and facts.n_layers == 30 and len(facts.digest) == 64
    # 30 layers x 3 KV heads x (64 + 64) wide x 2 bytes
    assert facts.kv_bytes_per_token == 23_040
    assert {m.name for m in engine.models()} >= {"smollm2:135m", "smollm2:135m-brief"}
    with pytest.raises(ModelMissing):
        engine.describe("smollm2:9b")


def layered_gguf(kv_heads: list[int], **more: int) -> bytes:
    """A GGUF file of one small tensor whose header states the KV heads layer by layer, and `more` numbers of its architecture."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    numbers = {"block_count": len(kv_heads), "embedding_length": 64, "attention.head_count": 4, "context_length": 512}
    numbers |= more
    tokens = ["<s>", "</s>", *(f"t{i}" for i in range(30))]
    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        *(text(f"llama.{k}") + struct.pack("<II", 4, v) for k, v in numbers.items()),
        text("llama.attention.head_count_kv") + struct.pack(f"<IIQ{len(kv_heads)}I", 9, 4, len(kv_heads), *kv_heads),
        text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("llama"),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(text(t) for t in tokens),
    ]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, len(tokens), 0, 0)
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys) + tensor
    return header + bytes(-len(header) % 32 + 64 * len(tokens) * 4)


def test_kv_heads_stated_layer_by_layer_are_counted(engine: OllamaEngine, ollama: OllamaServer, tmp_path: Path) -> None:
    path = tmp_path / "layered.gguf"
    path.write_bytes(layered_gguf([1, 2, 3, 1]))
    ollama.create("layered:1m", f"FROM {path}\n")
    try:
        # 7 KV heads over all layers x (16 + 16) wide x 2 bytes
        assert engine.describe("layered:1m").kv_bytes_per_token == 448
    finally:
        httpx.request("DELETE", ollama.url + "/api/delete", json={"model": "layered:1m"}).raise_for_status()


def test_an_answer_comes_with_what_it_cost(engine: OllamaEngine) -> None:
    first = engine.generate("smollm2:135m", MESSAGES, Options(num_predict=30), seed=3)
    again = engine.generate("smollm2:135m", MESSAGES, Options(num_predict=30), seed=3)
    other = engine.generate("smollm2:135m", MESSAGES, Options(num_predict=30), seed=4)
    assert first.text and first.text == again.text != other.text
    assert first.output_tokens and first.prompt_tokens and (first.tokens_per_s or 0) > 1
    assert first.ttft_s and first.total_s and first.ttft_s < first.wall_s
    assert (first.load_s or 0) > (again.load_s or 0)


def test_a_schema_binds_the_answer(engine: OllamaEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "enum": [1, 2, 3, 4, 5]}},
        "required": ["score"],
    }
    answer = engine.generate("smollm2:135m", MESSAGES, Options(num_predict=60), seed=1, schema=schema)
    assert json.loads(answer.text)["score"] in range(1, 6)


def test_unloading_leaves_nothing_in_memory(engine: OllamaEngine, ollama: OllamaServer) -> None:
    engine.generate("smollm2:135m", MESSAGES, Options(num_predict=5), seed=1)
    (resident,) = engine.resident()
    assert resident.name == "smollm2:135m" and (resident.size_bytes or 0) > 90_000_000
    engine.unload("smollm2:135m")
    assert ollama.resident() == []


def test_collect_loads_each_model_once_and_never_holds_two(
    tipbench: Tipbench, ollama: OllamaServer, tmp_path: Path
) -> None:
    seen: list[list[str]] = []
    stop = threading.Event()

    def poll() -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                seen.append([m["name"] for m in client.get(ollama.url + "/api/ps").json()["models"]])
                time.sleep(0.1)

    before = ollama.loads()
    watcher = threading.Thread(target=poll)
    watcher.start()
    done = tipbench(
        "collect", "--models", "smollm2:135m,smollm2:135m-brief", "--n-scenarios", 2, "--n-tips", 2, "--num-predict", 8,
        "--ollama-url", ollama.url, "--mlflow-url", tmp_path / "store", "--json",
    )  # fmt: skip
    stop.set()
    watcher.join()
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["collected"] == result["planned"] == 12 and result["generations"] == 24
    with contextlib.closing(open_store(str(tmp_path / "store"))) as store:
        figures = [reading(cell.run) for cell in store.cells(store.require_experiment("tip-bench-auto"))]
    assert all(f is not None and f.source == "processes" and f.size > 150 * 1024**2 for f in figures), figures
    assert ollama.loads() - before == 2
    assert max(len(names) for names in seen) == 1
    assert {n for names in seen for n in names} == {"smollm2:135m", "smollm2:135m-brief"}
    assert ollama.resident() == []


def test_keep_alive_0_frees_the_model_after_every_request(
    tipbench: Tipbench, ollama: OllamaServer, tmp_path: Path
) -> None:
    before = ollama.loads()
    done = tipbench(
        "collect", "--models", "smollm2:135m", "--prompts", "v1", "--n-scenarios", 2, "--n-tips", 2, "--num-predict", 10,
        "--keep-alive", 0, "--ollama-url", ollama.url, "--mlflow-url", tmp_path / "store", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ollama.loads() - before == 4
    assert ollama.resident() == []


def test_models_lists_what_the_server_has(tipbench: Tipbench, ollama: OllamaServer) -> None:
    done = tipbench("models", "--ollama-url", ollama.url, "--max-model-b", "0.1", "--json")
    rows = {row["model"]: row for row in json.loads(done.stdout)}
    assert rows["smollm2:135m"]["parameters"] == 134_515_008
    assert not rows["smollm2:135m"]["allowed"] and "0.1" in rows["smollm2:135m"]["verdict"]
    assert not rows["qwen2.5:0.5b"]["installed"]


def test_the_estimate_is_near_what_the_servers_processes_take(
    engine: OllamaEngine, tipbench: Tipbench, ollama: OllamaServer
) -> None:
    long = [{"role": "user", "content": "Write a short tip. " * 150}]
    with open_meter(engine).watching() as meter:
        answer = engine.generate("smollm2:135m", long, Options(num_predict=5, num_ctx=2048), seed=1)
        meter.look()
        reading = meter.peak()
    (resident,) = engine.resident()
    assert answer.prompt_tokens is not None and answer.prompt_tokens >= 512
    assert reading is not None and reading.source == "processes" and reading.size > 1.3 * (resident.size_bytes or 0)
    command = ("models", "--ollama-url", ollama.url, "--num-ctx", 2048, "--fits", "1Gi", "--json")
    rows = json.loads(tipbench(*command).stdout)
    row = next(r for r in rows if r["model"] == "smollm2:135m")
    # A model this small is mostly overhead, and what two processes share varies.
    assert 1.0 <= row["estimated_memory_bytes"] / reading.size < 1.2
    assert row["max_num_ctx"] == 8192, "what it was trained for, though more would fit"


def with_more_parameters(source: Path, target: Path, n_more: int, elements: int) -> None:
    """A copy of a GGUF file whose header describes `n_more` tensors more; Ollama counts parameters over tensors.

    They are of the type IQ1_S (50 bytes for 256 weights) and all lie over the same bytes, so the file does not grow.
    """
    with source.open("rb") as file:
        file.seek(8)
        n_tensors, n_keys = struct.unpack("<QQ", file.read(16))
        for _ in range(n_keys):
            gguf._string(file)
            gguf._value(file, gguf._scalar(file, "<I"))
        for _ in range(n_tensors):
            gguf._tensor(file)
        end = file.tell()
        file.seek(0)
        head = file.read(end)
        file.seek(-(-end // 32) * 32)
        weights = file.read()
    iq1_s = 19
    extra = b"".join(
        struct.pack("<Q", 7) + f"extra.{i}".encode() + struct.pack("<IQIQ", 1, elements, iq1_s, 0)
        for i in range(n_more)
    )
    described = head[:8] + struct.pack("<Q", n_tensors + n_more) + head[16:] + extra
    target.write_bytes(described + bytes(-len(described) % 32) + weights)


def test_a_model_over_the_limit_is_refused_by_the_count_that_the_server_states(
    tipbench: Tipbench, ollama: OllamaServer, tmp_path: Path
) -> None:
    big = tmp_path / "big.gguf"
    with_more_parameters(smollm2(), big, 9, 462_822_400)
    assert read_header(big).parameters == 134_515_008 + 9 * 462_822_400 == 4_299_916_608
    # Its tag promises nothing, so only the fact can give it away.
    ollama.create("harmless:latest", f"FROM {big}\n")
    before = ollama.loads()
    done = tipbench(
        "collect", "--models", "harmless,smollm2:135m", "--prompts", "v1", "--n-scenarios", 1, "--n-tips", 1, "--num-predict", 5,
        "--ollama-url", ollama.url, "--mlflow-url", tmp_path / "store", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "harmless has 4.30 billion parameters (4,299,916,608), over the limit of 4 billion" in done.stderr
    assert json.loads(done.stdout)["collected"] == 1 and list(json.loads(done.stdout)["refused"]) == ["harmless"]
    assert ollama.loads() - before == 1
    alone = tipbench("collect", "--models", "harmless", "--ollama-url", ollama.url, "--mlflow-url", tmp_path / "store")
    assert alone.returncode == 3


def test_a_board_of_llama_cpps_own_server_beside_ollama(
    tipbench: Tipbench, ollama: OllamaServer, tmp_path: Path
) -> None:
    store = ("--mlflow-url", tmp_path / "store")
    common = ("--prompts", "v1", "--n-scenarios", 2, "--n-tips", 1, "--num-predict", 24, "--num-ctx", 1024, *store)
    experiment = ("--experiment", "tip-bench-engines")
    with llama_server() as url:
        there = json.loads(tipbench("models", "--engine", "openai", "--engine-url", url, "--json").stdout)
        name = there[0]["model"]
        first = tipbench("collect", "--engine", "openai", "--engine-url", url, "--models", name, *common, *experiment)
        assert first.returncode == 0, first.stderr
    second = tipbench("collect", "--models", "smollm2:135m", "--ollama-url", ollama.url, *common, *experiment)
    assert second.returncode == 0, second.stderr
    file = tmp_path / "judge.json"
    for words in (
        ("export", *experiment, "--out", file, *store),
        ("score", file, "--with", "baseline", "--apply", *store),
    ):
        done = tipbench("judge", *words)
        assert done.returncode == 0, done.stderr
    board = json.loads(tipbench("compare", *experiment, *store, "--out", tmp_path / "report", "--json").stdout)
    cells = {cell["model"]: cell for cell in board["cells"]}
    assert set(cells) == {name, "smollm2:135m"}
    # The same file of weights, told by two servers: each with its own engine and its own speed, and no row pooled.
    assert all(cell["n_scenarios"] == 2 and cell["tokens_per_s"] > 0 for cell in cells.values())
