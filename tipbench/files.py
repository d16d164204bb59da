"""Files on the user's disk: read whatever encoding an editor leaves, write whole or not at all, and say what a disk says.

What can go wrong with a disk (it is full, read-only, on a network without locks) becomes an InputError with a sentence, and
what stood in a file before still stands there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from tipbench.errors import BusyError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_TEXT = 64 * 1024**2
"""Bytes of a file of scenarios, prompts or keys; more is no such file."""

_WORDS = {
    errno.ENOSPC: "the disk is full; free some space, then run the same command again",
    errno.EDQUOT: "your share of the disk (quota) is used up; free some space, then run the same command again",
    errno.EROFS: "the file system is read-only; name another place",
    errno.EACCES: "permission denied; name another place, or change its permissions",
    errno.EPERM: "permission denied; name another place, or change its permissions",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EFBIG: "the file is larger than this disk takes",
    errno.EIO: "the disk reports an error (EIO)",
    errno.ESTALE: "the network file system lost the file (ESTALE); run the same command again",
}
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def why(error: OSError) -> str:
    """What went wrong with a file and what to do, without the file's name."""
    return _WORDS.get(error.errno or 0) or error.strerror or "it cannot be used"


@contextlib.contextmanager
def explained(what: object, done: str = "cannot be written") -> Iterator[None]:
    """InputError `WHAT: DONE (why)` in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {done} ({why(error)})") from error


# -- reading -------------------------------------------------------------------------------------


def decode(data: bytes) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32, with line ends as `\\n`. ValueError names the first byte that is no text.

    UTF-16 and UTF-32 are told by their byte order mark, which Windows' editors write, or by the zero bytes of plain ASCII.
    """
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
        raise ValueError(
            f"not {name} text (byte {error.start}: 0x{data[error.start]:02x}); save it as UTF-8"
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _encoding(data: bytes) -> str:
    if data.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "utf-32"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if len(data) >= 4 and len(data) % 2 == 0:
        if data[1] == data[3] == 0 and data[0] and data[2]:
            return "utf-16-le"
        if data[0] == data[2] == 0 and data[1] and data[3]:
            return "utf-16-be"
    return "utf-8-sig"


def read_text(path: Any) -> str:
    """The text of a file that a person wrote; `path` is a Path or a resource of a package. Raises InputError."""
    with explained(path, "cannot be read"):
        data: bytes = path.read_bytes()
    if len(data) > LARGEST_TEXT:
        raise InputError(f"{path}: {len(data):,} bytes are too many for such a file (at most {LARGEST_TEXT:,})")
    try:
        return decode(data)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


# -- writing -------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write to that becomes `path` when all went well, and goes when not; folders on the way are made. `durable` waits until the
    disk has it.

    Raises InputError that says what the disk says; what stood at `path` before is untouched then.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def write_whole(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write the file, whole or not at all, as `writing` does. Raises InputError."""
    with writing(path, durable=durable) as file:
        file.write(content)


def append_line(path: Path, line: bytes) -> None:
    """Add one line; when the disk cannot take it all, none of it stays. Raises InputError.

    A line that a kill has torn before is ended first, so that it spoils no other.
    """
    with explained(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        torn = b""
        if before:
            with path.open("rb") as look:
                look.seek(before - 1)
                torn = b"" if look.read(1) == b"\n" else b"\n"
        content = memoryview(torn + line + b"\n")
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def writable(folder: Path, what: str, remedy: str) -> None:
    """Make `folder` and try a file in it. InputError `WHAT FOLDER cannot be written (why); REMEDY`."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"tipbench")
        probe.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        raise InputError(f"{what} {folder} cannot be written ({why(error)}); {remedy}") from error


# -- locks ---------------------------------------------------------------------------------------


def lock(file: IO[bytes], busy: str, where: object, remedy: str) -> None:
    """Hold an open file's lock until it is closed, or until this process ends, however it ends.

    Raises BusyError with the words `busy` when another process holds it, and InputError when its file system has no locks.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(busy) from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BusyError(busy) from error
        reason = (
            "its file system has no locks, as some network file systems" if error.errno in _NO_LOCKS else why(error)
        )
        raise InputError(f"{where} cannot be held for this process alone ({reason}); {remedy}") from error
