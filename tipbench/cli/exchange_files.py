"""Exchange files on disk: scores that somebody has begun are not overwritten by accident."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tipbench.errors import InputError

if TYPE_CHECKING:
    from tipbench.judging.exchange import ExchangeItem


def guard_scores(path: Path, force: bool) -> None:
    """A file in which somebody has already scored is in nobody's way: without `force`, raises InputError."""
    if not force and _begun(path) is not None:
        raise InputError(
            f"{path} already holds scores; apply it first (tipbench judge apply {path}), or use --force, which keeps it under "
            "another name"
        )


def _begun(path: Path, whatever_it_is: bool = False) -> str | None:
    """The export's id of the file at `path` when somebody has scored in it.

    Raises InputError when what is there cannot be read as an exchange file; `whatever_it_is` takes that for somebody's work, too.
    """
    from tipbench.judging.validate import read_exchange

    if not path.exists():
        return None
    try:
        old = read_exchange(path)
    except InputError as error:
        if whatever_it_is:
            return "unread"
        raise InputError(
            f"{path} exists and is no exchange file that can be read; name another, or use --force"
        ) from error
    return old.export_id if any(_touched(item) for item in old.items) else None


def _touched(item: ExchangeItem) -> bool:
    return item.rationale is not None or any(score is not None for score in item.scores.values())


def put_aside(path: Path, export_id: str, *, even_ours: bool = False) -> bool:
    """Give another export's scored file a name of its own. True when the file is this very export, begun: it stays.

    With `even_ours`, that one is put aside as well. Nothing that a judge wrote is ever overwritten.
    """
    old = _begun(path, whatever_it_is=even_ours)
    if old is None:
        return False
    if old == export_id and not even_ours:
        return True
    for number in itertools.count(1):
        aside = path.with_name(f"{path.stem}-{old}{'' if number == 1 else f'-{number}'}{path.suffix}")
        try:
            # A link is made or refused in one step, so that no other file is replaced.
            os.link(path, aside)
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            if aside.exists():
                continue
            path.rename(aside)
            return False
        path.unlink()
        return False
    raise AssertionError("there is always another number")
