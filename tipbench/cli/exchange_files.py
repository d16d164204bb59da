"""Exchange files on disk: scores that somebody has begun are not overwritten by accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tipbench.errors import InputError

if TYPE_CHECKING:
    from tipbench.judging.exchange import Exchange


def guard_scores(path: Any, force: bool) -> None:
    """A file in which somebody has already scored is not overwritten by accident."""
    if not force and _begun(path) is not None:
        raise InputError(f"{path} already holds scores; apply it first (tipbench judge apply {path}), or use --force")


def _begun(path: Any) -> Exchange | None:
    """The file at `path` when somebody has scored in it. Raises InputError when what is there is no exchange file."""
    from tipbench.judging.validate import read_exchange

    if not path.exists():
        return None
    try:
        old = read_exchange(path)
    except InputError as error:
        raise InputError(f"{path} exists and is no exchange file; name another, or use --force") from error
    return old if any(score is not None for item in old.items for score in item.scores.values()) else None


def put_aside(path: Any, export_id: str) -> bool:
    """Give another export's scored file a name of its own. True when the file is this very export, begun: it stays."""
    old = _begun(path)
    if old is None or old.export_id == export_id:
        return old is not None
    path.rename(path.with_name(f"{path.stem}-{old.export_id}{path.suffix}"))
    return False


def same_export(read: Callable[[Any], Any], file: Any, export_id: str) -> bool:
    try:
        return bool(read(file).export_id == export_id)
    except InputError:
        return False
