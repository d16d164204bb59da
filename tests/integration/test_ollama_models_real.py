"""Models as people have them, on the real Ollama server: spellings, a lost blob, embeddings, adapters, prompts too long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.conftest import OllamaServer
from tests.integration.test_ollama_real import layered_gguf
from tipbench.engines.base import ModelBroken, ModelMissing, Options, Unsuitable
from tipbench.engines.ollama import Limits, OllamaEngine
from tipbench.model_names import read_name, same_model

pytestmark = [pytest.mark.integration, pytest.mark.ollama]
MESSAGES = [{"role": "user", "content": "Give me one short tip for better sleep."}]


@pytest.fixture
def engine(ollama: OllamaServer) -> Iterator[OllamaEngine]:
    opened = OllamaEngine(ollama.url, limits=Limits(attempts=2))
    yield opened
    for resident in opened.resident():
        opened.unload(resident.name)
    opened.close()


def knows(ollama: OllamaServer, name: str) -> bool:
    return httpx.post(ollama.url + "/api/show", json={"model": name}).status_code == 200


SPELLINGS = st.tuples(
    st.sampled_from(["", "https://"]),
    st.sampled_from(["", "library/", "registry.ollama.ai/library/", "hf.co/library/", "other/", "a/b/c/"]),
    st.sampled_from(["smollm2", "SmolLM2", "smollm", "-smollm2", "smollm2.", "sm ollm2"]),
    st.sampled_from(["", ":135m", ":135M", ":latest", ":", ":135m-brief", ":135m/x"]),
).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spelled=SPELLINGS)
def test_names_are_read_as_the_server_reads_them(ollama: OllamaServer, spelled: str) -> None:
    listed = [m["name"] for m in httpx.get(ollama.url + "/api/tags").json()["models"]]
    ours = read_name(spelled).valid and any(same_model(spelled, name) for name in listed)
    assert ours == knows(ollama, spelled)


@pytest.mark.parametrize("spelled", ["SMOLLM2:135M", "library/smollm2:135m", "registry.ollama.ai/library/SmolLM2:135m"])
def test_another_spelling_is_described_used_and_freed(engine: OllamaEngine, ollama: OllamaServer, spelled: str) -> None:
    assert engine.describe(spelled).parameters == 134_515_008
    assert engine.generate(spelled, MESSAGES, Options(num_predict=5), 1).text
    assert len(ollama.resident()) == 1
    engine.unload(spelled)
    assert ollama.resident() == []


@pytest.mark.parametrize("host", ["hf.co/me", "me", "localhost:5000/me"])
def test_a_model_from_elsewhere_is_found_by_its_whole_name(
    engine: OllamaEngine, ollama: OllamaServer, host: str
) -> None:
    name = f"{host}/Smol-GGUF:Q4_1"
    copied = httpx.post(ollama.url + "/api/copy", json={"source": "smollm2:135m", "destination": name})
    assert copied.status_code == 200, copied.text
    try:
        assert engine.describe(name.lower()).parameters == engine.describe(name).parameters == 134_515_008
        with pytest.raises(ModelMissing):
            engine.describe("smol-gguf:q4_1")
    finally:
        httpx.request("DELETE", ollama.url + "/api/delete", json={"model": name})


def test_a_lost_blob_is_that_models_trouble_alone(engine: OllamaEngine, ollama: OllamaServer, tmp_path: Path) -> None:
    path = tmp_path / "lost.gguf"
    path.write_bytes(layered_gguf([1, 1]))
    ollama.create("lost:1m", f"FROM {path}\n")
    manifests = Path(ollama.env["OLLAMA_MODELS"]) / "manifests" / "registry.ollama.ai" / "library" / "lost" / "1m"
    layers = json.loads(manifests.read_text())["layers"]
    digest = next(layer["digest"] for layer in layers if layer["mediaType"].endswith("image.model"))
    (Path(ollama.env["OLLAMA_MODELS"]) / "blobs" / digest.replace(":", "-")).unlink()
    try:
        with pytest.raises(ModelBroken, match="lost:1m"):
            engine.describe("lost:1m")
        problems = {facts.name: facts.problem for facts in engine.models()}
        assert problems["smollm2:135m"] == "" and "cannot open" in problems["lost:1m"]
    finally:
        httpx.request("DELETE", ollama.url + "/api/delete", json={"model": "lost:1m"})


def test_a_model_of_embeddings_is_known_before_it_is_asked(
    engine: OllamaEngine, ollama: OllamaServer, tmp_path: Path
) -> None:
    path = tmp_path / "embed.gguf"
    path.write_bytes(layered_gguf([1, 1], pooling_type=1))
    ollama.create("embed:1m", f"FROM {path}\n")
    try:
        with pytest.raises(Unsuitable, match="embed"):
            engine.describe("embed:1m")
        assert ollama.resident() == []
    finally:
        httpx.request("DELETE", ollama.url + "/api/delete", json={"model": "embed:1m"})


def test_a_prompt_that_does_not_fit_is_noticed_by_the_models_own_count(engine: OllamaEngine) -> None:
    example = {
        "role": "user",
        "content": "I cannot sleep, and I am tired all day long. What would you tell me to do about it?",
    }
    long = [
        {"role": "system", "content": "Be short."},
        *[example, {"role": "assistant", "content": "Rest."}] * 8,
        *MESSAGES,
    ]
    cut = engine.generate("smollm2:135m", long, Options(num_predict=5, num_ctx=256), 1)
    assert cut.prompt_cut and cut.prompt_tokens is not None and cut.prompt_tokens <= 256
    whole = engine.generate("smollm2:135m", long, Options(num_predict=5, num_ctx=2048), 1)
    assert not whole.prompt_cut and (whole.prompt_tokens or 0) > 256
