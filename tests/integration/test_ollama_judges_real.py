"""An LLM as a judge, on the real Ollama and behind its OpenAI-compatible endpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Tipbench
from tests.integration.conftest import OllamaServer
from tests.integration.test_judges import items

pytestmark = [pytest.mark.integration, pytest.mark.ollama]


@pytest.mark.timeout(1000)
def test_a_real_llm_scores_within_the_schema(file: Path, tipbench: Tipbench, ollama: OllamaServer) -> None:
    done = tipbench(
        "judge",
        "score",
        file,
        "--with",
        "ollama:smollm2:135m",
        "--passes",
        3,
        "--ollama-url",
        ollama.url,
        "--json",
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["judge"], result["scored"], result["left"], result["failures"]) == ("ollama:smollm2:135m", 3, 0, {})
    assert 0 < result["engine_s"] <= result["wall_s"]
    body = json.loads(file.read_text())
    assert body["judge"]["kind"] == "llm" and body["judge"]["details"]["passes"] == "3"
    assert len(body["judge"]["details"]["digest"]) == 64
    for item in body["items"]:
        assert all(1 <= item["expected"][c] <= 5 for c in item["scores"])
        assert all(s in range(1, 6) for s in item["scores"].values()) and "passes: relevance " in item["rationale"]
    assert ollama.resident() == []


def test_a_real_llm_behind_an_openai_endpoint(file: Path, tipbench: Tipbench, ollama: OllamaServer) -> None:
    done = tipbench(
        "judge",
        "score",
        file,
        "--with",
        "openai:smollm2:135m",
        "--base-url",
        ollama.url + "/v1",
        env={"OPENAI_API_KEY": "sk-secret"},
    )
    assert done.returncode == 0, done.stderr
    assert "sk-secret" not in file.read_text() + done.stdout + done.stderr
    assert all(s in range(1, 6) for i in items(file) for s in i["scores"].values())
