"""What is printed can be typed: every "Next: …" is run as it stands, in the folder where it was printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest

from tests.conftest import clean_env, command_line
from tests.forked import Forked

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


class Shell:
    """Somebody in a folder, without tipbench on PATH."""

    def __init__(self, folder: Path, forked: Forked) -> None:
        self.folder = folder
        self._forked = forked
        self.env = clean_env(folder) | {"PATH": "/usr/bin:/bin"}

    def runs(self, *words: object, code: int = 0) -> str:
        done = self._forked.run(command_line(*words), cwd=self.folder, env=self.env, timeout=900)
        assert done.returncode == code, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def types(self, line: str) -> str:
        done = subprocess.run(
            line, shell=True, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def suggested(output: str, command: str) -> str:
    """The suggested command, up to the words that follow it in the sentence or to the end of its line."""
    program = re.escape(str(Path(sys.executable).with_name("tipbench")))
    match = re.search(rf"{program} {command}[^;,\n]*", output)
    assert match, output
    return match[0].strip().removesuffix(".")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, forked: Forked) -> Shell:
    """A folder with a space in its name, a collection in a store folder, and a rubric of one's own."""
    folder = tmp_path_factory.mktemp("steps") / "my tips"
    folder.mkdir()
    text = (resources.files("tipbench.catalog") / "rubric.yaml").read_text(encoding="utf-8")
    (folder / "my rubric.yaml").write_text(text.replace("It is rude", "It is very rude"), encoding="utf-8")
    shell = Shell(folder, forked)
    shell.runs(
        "collect", "--engine", "embedded", "--models", "smollm2:135m", "--prompts", "v1,v2-mentor", "--n-scenarios", 2,
        "--n-tips", 1, "--num-predict", 80, "--num-ctx", 512, "--num-thread", 1, "--experiment", "tip-bench-x", "--mlflow-url", "the store",
    )  # fmt: skip
    return shell


def test_a_chain_of_next_steps_goes_from_export_to_the_leaderboard(shell: Shell) -> None:
    place = ("--experiment", "tip-bench-x", "--mlflow-url", "the store", "--rubric", "my rubric.yaml")
    exported = shell.runs("judge", "export", *place, "--out", "the file.json")
    score = suggested(exported, "judge score")
    scored = shell.types(f"{score} --with baseline")
    applied = shell.types(suggested(scored, "judge apply"))
    assert "--rubric 'my rubric.yaml'" in applied
    board = shell.types(suggested(applied, "compare"))
    assert "leads with" in board or "tied" in board
    report = (shell.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "--mlflow-url" in report and "the store" in report and "my rubric.yaml" in report
    situation = json.loads((shell.folder / "the file.json").read_text(encoding="utf-8"))["items"][0]["scenario"]
    assert situation.split(".")[0].replace("'", "&#39;") in report
    again = shell.runs("judge", "export", *place, "--out", "more.json", "--judge", "baseline")
    assert "For a second opinion" in again
    shell.types(suggested(again, "judge export").replace("NAME", "ann"))
    shell.types(suggested(shell.runs("judge", "apply", "the file.json", "--mlflow-url", "the store"), "compare"))


def test_every_fault_of_a_file_is_listed_in_one_round(shell: Shell) -> None:
    shell.runs("judge", "export", "--experiment", "tip-bench-x", "--mlflow-url", "the store", "--out", "x.json")
    body = json.loads((shell.folder / "x.json").read_text(encoding="utf-8"))
    body["items"][0]["tip"] += " And smile."
    body["items"][0]["scores"]["tone"] = 9
    body["items"][1]["scenario"] = "Another one."
    body["items"][1]["scors"] = {}
    body["items"][2]["id"] = "0" * 16
    (shell.folder / "x.json").write_text(json.dumps(body), encoding="utf-8")
    said = shell.runs("judge", "apply", "x.json", "--mlflow-url", "the store", code=2)
    for words in (
        "/items/0/tip: was changed since the export",
        "/items/0/scores/tone: 9 is outside the scale",
        "/items/1/scenario: was changed since the export",
        "/items/1/scors: unknown field; did you mean scores?",
        f"/items/2/id: {'0' * 16} was not in the exported file",
        "/judge: is missing",
        "6 faults, nothing was applied",
    ):
        assert words in said, said


def test_a_weight_that_is_not_named_is_said_to_be_none(shell: Shell) -> None:
    place = ("--experiment", "tip-bench-x", "--mlflow-url", "the store")
    shell.runs("judge", "export", *place, "--out", "y.json")
    shell.runs("judge", "score", "y.json", "--with", "baseline", "--apply", "--mlflow-url", "the store")
    said = shell.runs("compare", *place, "--weights", "relevance=1")
    assert "Without actionability and tone (weight 0): " in said
    assert "relevance alone; actionability and tone count nothing (weight 0)" in said
    assert "weight 0" not in shell.runs("compare", *place)


def test_doctor_names_the_experiment_that_is_meant_and_answers_soon(shell: Shell) -> None:
    said = shell.runs("doctor", "--engine", "embedded", "--models", "smollm2:135m", "--mlflow-url", "the store")
    assert "1 experiment (tip-bench-x); without --experiment, collect makes tip-bench-auto" in " ".join(said.split())
    began = time.monotonic()
    shell.runs("doctor", "--ollama-url", "http://127.0.0.1:9", "--mlflow-url", "http://127.0.0.1:9", code=5)
    assert time.monotonic() - began < 45  # three refused services at 5 s each, on a machine that may be busy
