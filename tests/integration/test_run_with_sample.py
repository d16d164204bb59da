"""`tipbench run` with an LLM for everything and a person for a sample: what is left is told, and the same command goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.fakes.ollama_server import FakeOllama
from tests.fakes.openai_server import FakeOpenAI
from tipbench.cli import cli

pytestmark = pytest.mark.integration
EXPERIMENT = "tip-bench-run-sample"


def test_the_board_is_the_persons_once_the_sample_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    ollama, openai = FakeOllama().start(), FakeOpenAI().start()
    place = ["--experiment", EXPERIMENT, "--mlflow-url", str(tmp_path / "store")]

    def tipbench(*words: str) -> Result:
        return CliRunner().invoke(cli, [*words])

    def run(*more: str) -> Result:
        small = ("--models", "small:1b", "--prompts", "v1,v2-mentor", "--n-tips", "1", "--out", "report")
        where = ("--ollama-url", ollama.url, "--base-url", openai.url, "--spool", str(tmp_path / "spool"))
        return tipbench("run", *place, *small, *where, "--judge", "openai:m", "--sample", "6", *more)

    try:
        assert run().exit_code == 2  # without a name nobody can be asked
        assert not (tmp_path / "store").exists()
        first = run("--reference", "ann")
        assert first.exit_code == 4, first.output
        assert "ann has 12 tips of the sample left" in first.output and "the opinion of openai:m" in " ".join(
            first.output.split()
        )
        out = str(tmp_path / "sample-ann.json")
        asked = tipbench("judge", "export", *place, "--judge", "ann", "--sample", "6", "--repeats", "0", "--out", out)
        assert asked.exit_code == 0, asked.output
        file = json.loads(Path(out).read_text())
        assert len(file["items"]) == 12
        for number, item in enumerate(file["items"]):
            item["scores"] = {c: 2 + (number + k) % 3 for k, c in enumerate(item["scores"])}
        file["judge"] = {"name": "ann", "kind": "human"}
        Path(out).write_text(json.dumps(file))
        assert tipbench("judge", "apply", out, "--mlflow-url", str(tmp_path / "store")).exit_code == 0
        written = len(openai.requests)
        again = run("--reference", "ann")
        assert again.exit_code == 0, again.output
        assert "what ann would say" in " ".join(again.output.split()) and len(openai.requests) == written
        board = json.loads((tmp_path / "report" / "leaderboard.json").read_text())
        assert board["reference"]["judges"] == ["ann"] and board["reference"]["drawn"]
    finally:
        ollama.stop()
        openai.stop()
