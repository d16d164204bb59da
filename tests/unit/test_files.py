"""Files: read in whatever encoding an editor leaves, written whole or not at all, and a disk's troubles in a sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipbench import files
from tipbench.errors import BusyError, InputError
from tipbench.store.journal import Journal
from tipbench.store.records import Candidate

pytestmark = pytest.mark.unit

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r\ufeff"))


@settings(deadline=None)
@given(TEXT, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]), st.sampled_from(["\n", "\r\n"]))
def test_a_text_reads_the_same_in_every_encoding(text: str, encoding: str, end: str) -> None:
    assert files.decode(text.replace("\n", end).encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told_by_its_zeros(encoding: str) -> None:
    assert files.decode("name: mine\n".encode(encoding)) == "name: mine\n"


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_text_are_refused_in_words(data: bytes) -> None:
    try:
        files.decode(data)
    except ValueError as error:
        assert "save it as UTF-8" in str(error)


DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "quota",
    errno.EROFS: "read-only",
    errno.EACCES: "permission denied",
    errno.EIO: "EIO",
}


def full(number: int) -> Any:
    def write(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize("number", DISK)
def test_a_file_that_cannot_be_written_says_why_and_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "judge.json"
    path.write_text("scores")
    monkeypatch.setattr("os.fsync", full(number))
    with pytest.raises(InputError, match=DISK[number]) as caught:
        files.write_whole(path, b"other", durable=True)
    assert str(path) in str(caught.value)
    monkeypatch.undo()
    assert path.read_text() == "scores" and [p.name for p in tmp_path.iterdir()] == ["judge.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_full_for_real_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("/dev/full")
    with pytest.raises(InputError, match="the disk is full"):
        files.append_line(tmp_path / "x", b"line")


def candidate(index: int) -> Candidate:
    return Candidate(
        index=index, seed=index, text=f"tip {index}", done_reason="stop", ttft_s=None, load_s=None, prompt_tokens=None,
        prompt_s=None, output_tokens=None, output_s=None, total_s=None, wall_s=1.0, attempts=1,
    )  # fmt: skip


def test_a_line_that_a_kill_tore_spoils_no_other(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "store", "tip-bench-x")
    journal.note("cell", candidate(0))
    with (journal.folder / "cell.candidates").open("ab") as file:
        file.write(b'{"index": 1, "se')
    journal.note("cell", candidate(2))
    assert [c.index for c in journal.noted()["cell"]] == [0, 2]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    journal = Journal(str(tmp_path), "store", "tip-bench-x")
    monkeypatch.setattr("fcntl.flock", full(number))
    with pytest.raises(InputError, match=r"no locks.*--spool"):
        journal.hold()


def test_a_folder_that_somebody_holds_is_busy(tmp_path: Path) -> None:
    one, another = (Journal(str(tmp_path), "store", "tip-bench-x") for _ in range(2))
    one.hold()
    with pytest.raises(BusyError, match="another tipbench collect"):
        another.hold()
    one.release()
    another.hold()


@pytest.mark.parametrize("made", ["file", "file/below"])
def test_a_spool_that_is_no_folder_is_named(tmp_path: Path, made: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the spool folder .* cannot be written .*--spool"):
        Journal(str(tmp_path / made), "store", "tip-bench-x")
