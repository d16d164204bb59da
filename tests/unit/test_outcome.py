"""The outcome that a stage leaves in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tipbench.errors import InputError
from tipbench.outcome import LONGEST, VARIABLE, leave

pytestmark = pytest.mark.unit


def test_nothing_is_written_unless_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    leave("collect", 0, {"cells": 3})
    assert list(tmp_path.iterdir()) == []


def test_it_holds_stage_code_error_and_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "xcom" / "return.json"
    monkeypatch.setenv(VARIABLE, str(target))
    leave("collect", 4, {"failed": {"OOMKilled": 2}}, "words")
    assert json.loads(target.read_text()) == {
        "stage": "collect",
        "exit_code": 4,
        "error": "words",
        "failed": {"OOMKilled": 2},
    }


def test_a_long_story_is_cut_but_stays_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "log"
    monkeypatch.setenv(VARIABLE, str(target))
    leave("collect", 4, {"why": ["é" * 3000] * 9, "failed": {"TimedOut": 9}}, "x" * 9000)
    assert len(target.read_bytes()) <= LONGEST
    assert json.loads(target.read_text())["failed"] == {"TimedOut": 9}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "under"))
    with pytest.raises(InputError, match="TIPBENCH_RESULT_FILE="):
        leave("collect", 0, {})
