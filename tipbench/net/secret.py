"""Tokens and passwords that show nothing of themselves, and words of others without the secrets that are known here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn

from tipbench.errors import InputError

MASK = "***"
SHORTEST = 6
"""Characters from which a secret is looked for in foreign words; a shorter one would tear ordinary words apart."""

_HOLDERS = ("TOKEN", "PASSWORD", "API_KEY", "SECRET", "SECRET_KEY", "ACCESS_KEY")
"""How the names of variables end that hold secrets, whoever's."""

_known: set[str] = set()


class Secret:
    """One secret. `str`, `repr`, format, JSON and pickle show nothing; `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str, what: str) -> None:
        """White space and line breaks around the value are no part of it: files and pipes put them there.

        `what` names the secret in messages. Raises InputError for a value with a control character in it, without showing it.
        """
        text = value.strip()
        if has_control(text):
            raise InputError(
                f"{what} has a line break or another control character in it (its value is not shown); "
                "take it out: a secret is one line"
            )
        self._value = text
        remember(text)

    def reveal(self) -> str:
        """The value, for the one place that sends it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __str__(self) -> str:
        return MASK if self._value else ""

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


def has_control(text: str) -> bool:
    """Is there a line break, a tab, or another control character in it?"""
    return any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)


def from_environment(name: str, environ: Mapping[str, str] = os.environ) -> Secret:
    """The secret in a variable; an empty one where the variable is not set. Raises InputError (see `Secret`)."""
    return Secret(environ.get(name, ""), name)


def bearer(secret: Secret, what: str) -> dict[str, str]:
    """The header that carries a token; nothing for an empty one. Raises InputError for what no header can hold."""
    if not secret:
        return {}
    if not secret.reveal().isascii() or " " in secret.reveal():
        raise InputError(f"{what} holds a space or a character that no HTTP header can carry (its value is not shown)")
    return {"Authorization": f"Bearer {secret.reveal()}"}


def remember(value: str) -> None:
    """Let `hide` know a secret."""
    if len(value) >= SHORTEST:
        _known.add(value)


def hide(words: str) -> str:
    """The words with every secret that this process has read taken out: a server may send back what it was sent."""
    held = {value.strip() for name, value in os.environ.items() if name.upper().endswith(_HOLDERS)}
    for value in sorted(_known | {value for value in held if len(value) >= SHORTEST}, key=len, reverse=True):
        words = words.replace(value, MASK)
    return words
