"""Disks that are full or read-only, for real: a sentence that says what to do, no traceback, and nothing that was there is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Tipbench
from tests.fakes.ollama_server import FakeOllama

pytestmark = pytest.mark.integration
FULL, READ_ONLY = "the disk is full; free some space, then run the same command again", "read-only; name another"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("only root may mount a small file system to fill")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    server = FakeOllama().start()
    yield server
    server.stop()


def fill(folder: Path) -> Path:
    """Take the last byte."""
    filler = folder / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 512)
    return filler


def test_a_disk_that_fills_up_or_cannot_be_written_is_said_and_loses_nothing(
    tipbench: Tipbench, fake: FakeOllama, disk: Path, tmp_path: Path
) -> None:
    store = ("--mlflow-url", disk / "store")
    collect = (
        "collect",
        "--ollama-url",
        fake.url,
        "--models",
        "small:1b",
        "--prompts",
        "v1",
        "--n-scenarios",
        2,
        "--n-tips",
        1,
    )
    file = tmp_path / "judge.json"

    def refused(words: str, *command: object) -> None:
        done = tipbench(*command)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr

    tipbench(*collect, *store, "--spool", tmp_path / "spool")
    tipbench("judge", "export", *store, "--out", file)
    filler = fill(disk)
    refused(FULL, *collect, *store, "--seed", 9, "--spool", tmp_path / "spool")
    refused(FULL, "judge", "score", file, "--with", "baseline", "--apply", *store)
    refused(FULL, *collect, "--mlflow-url", tmp_path / "other", "--spool", disk / "spool")
    filler.unlink()
    # What was scored while the store was full is in the file, and goes on from there.
    applied = json.loads(tipbench("judge", "apply", file, *store, "--json").stdout)
    assert applied["new"] == len(json.loads(file.read_text())["items"]) and applied["changed"] == 0

    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused(READ_ONLY, *collect, *store, "--seed", 10, "--spool", tmp_path / "spool")
    refused(READ_ONLY, *collect, "--mlflow-url", disk / "new", "--spool", tmp_path / "spool")
    refused(READ_ONLY, "compare", *store)
    refused(READ_ONLY, "export-scores", *store, "--out", disk / "scores.csv")
    assert json.loads(tipbench("status", *store, "--json").stdout)["counted"] == 2
