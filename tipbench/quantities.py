"""Numbers, shares, sizes and durations as people write them: one reader for options, variables, files and API bodies.

Every reader takes what was written and gives a number in the named unit, or raises ValueError with a sentence that quotes what
was written and says how to write it. Whoever calls puts the name of the value before it. Standard library only, since
`tipbench --help` needs it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tipbench.errors import InputError

SIZE_PATTERN = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3}|[numkKMGTPE]|[KMGTPE]i)?B?$"
"""A size as Kubernetes writes quantities (resource.Quantity); tipbench also takes `K` for `k` and a `B` at the end."""
DURATION_PATTERN = r"^(0|[1-9][0-9]*(ms|s|m|h)?)$"

_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>[eE][+-]?[0-9]{1,3}|[numkKMGTPE]|[KMGTPE]i)?B?")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>ms|s|m|h)")
_THOUSANDS = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}

SMALLEST_MEMORY = 1024**2
LARGEST_SIZE = 1024**6
"""Bytes; Kubernetes holds quantities of bytes in 63 bits, which is eight times this."""
LONGEST_TEXT = 100
"""Characters; nobody writes a longer number by hand, and Python takes ever longer to read it."""


def shown(value: object) -> str:
    """What was written, quoted, and cut where it goes on and on."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        # Python refuses to write out ints of thousands of digits.
        return f"a number of about {int(math.log10(abs(value))) + 1} digits"
    text = str(value) if isinstance(value, int | float) else repr(value)
    return text if len(text) <= 60 else text[:40] + f"… ({len(text)} characters)"


def whole(value: Any) -> int:
    """A whole number from a number or from text in decimal digits; `3.0` is whole, `3.5` is not."""
    if isinstance(value, str):
        text = value.strip()
        if _WHOLE.fullmatch(text) and len(text) <= LONGEST_TEXT:
            return int(text)
        value = _from_text(value, "a whole number, in digits")
    _refuse_odd(value)
    if value != int(value):
        raise ValueError(f"needs a whole number, not {shown(value)}")
    return int(value)


def number(value: Any) -> float:
    """A finite number from a number or from text such as `0.7` or `1e3`."""
    if isinstance(value, str):
        return _from_text(value, "a number")
    _refuse_odd(value)
    return float(value)


def _from_text(text: str, wanted: str) -> float:
    if not text.strip():
        raise ValueError(f"is empty; it needs {wanted}")
    if not _NUMBER.fullmatch(text.strip()) or len(text) > LONGEST_TEXT:
        raise ValueError(f"needs {wanted}, not {shown(text)}{_comma(text)}")
    value = float(text)
    _refuse_odd(value, text)
    return value


def _refuse_odd(value: Any, written: object = None) -> None:
    """ValueError for what is no number, or none that a computer's arithmetic can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"needs a number, not {shown(value)}")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(f"needs a finite number, not {shown(value if written is None else written)}")


def _comma(text: str) -> str:
    """A hint for those whose keyboards write 0,7."""
    dotted = text.strip().replace(",", ".", 1)
    return f"; write {dotted}" if "," in text and _NUMBER.fullmatch(dotted) else ""


def within(value: float, low: float | None = None, high: float | None = None, *, exclusive: bool = False) -> None:
    """ValueError when `value` is under `low` (or on it, if `exclusive`) or over `high`."""
    if low is not None and (value < low or (exclusive and value == low)):
        raise ValueError(f"{shown(value)} is too small; it must be {'over' if exclusive else 'at least'} {low}")
    if high is not None and value > high:
        raise ValueError(f"{shown(value)} is too large; it must be at most {high}")


def share(text: str) -> float:
    """`5%` or `0.05` -> 0.05."""
    stripped = text.strip()
    try:
        value = _from_text(stripped.removesuffix("%"), "a share") / (100 if stripped.endswith("%") else 1)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is no share; write it like 5% or 0.05") from error
    if not 0 <= value <= 1:
        raise ValueError(f"{shown(text)} must be between 0% and 100%")
    return value


def size(text: str) -> int:
    """Bytes of a size as Kubernetes reads quantities, rounded up: `2Gi`, `1.5Gi`, `4000000k`, `2e9`, `500M`, `1500000000`.

    `n`, `u`, `m`, `k`, `M`, `G`, `T`, `P`, `E` are powers of 1000, `Ki` to `Ei` of 1024; the case counts (`m` is a thousandth). Source:
    the grammar of resource.Quantity in Kubernetes' apimachinery. As in 0.2.0, `K` is `k` and a `B` may follow.
    """
    stripped = text.strip()
    match = _SIZE.fullmatch(stripped) if len(stripped) <= LONGEST_TEXT else None
    if match is None:
        hint = f"; write {stripped[1:]}" if stripped[:1] == "+" and _SIZE.fullmatch(stripped[1:]) else ""
        hint = hint or _unit_hint(stripped)
        raise ValueError(f"{shown(text)} does not fit; write it like 512Mi or 2Gi{hint}")
    unit = match["unit"] or ""
    count = Decimal(match["number"].rstrip(".") if match["number"] != "." else "0")
    if unit[:1] in ("e", "E") and len(unit) > 1 and unit != "Ei":
        exact = count.scaleb(int(unit[1:]))
    elif unit.endswith("i"):
        exact = count * 1024 ** _THOUSANDS[unit[0]]
    else:
        exact = count.scaleb(3 * _THOUSANDS[unit])
    if exact > LARGEST_SIZE:
        raise ValueError(f"{shown(text)} is more than 1 EiB; write it like 512Mi or 2Gi")
    return math.ceil(exact)


def memory(text: str) -> int:
    """`size` of a memory limit: at least 1 MiB, since less is a slip of the pen."""
    count = size(text)
    if count < SMALLEST_MEMORY:
        milli = text.strip().removesuffix("B")
        hint = f"; {milli} is in thousandths of a byte, {milli[:-1]}M in millions" if milli.endswith("m") else ""
        raise ValueError(f"{shown(text)} is too small; it must be at least 1Mi{hint}")
    return count


def _unit_hint(text: str) -> str:
    """What a size with a unit in the wrong case, or with a word for a unit, was meant to be."""
    match = re.fullmatch(r"([0-9]+(?:[.,][0-9]+)?)\s*([A-Za-z]+)", text)
    if match is None:
        return ""
    known = {
        "gi": "Gi",
        "mi": "Mi",
        "ki": "Ki",
        "ti": "Ti",
        "g": "G",
        "t": "T",
        "gb": "G",
        "mb": "M",
        "kb": "k",
        "tb": "T",
    }
    known |= {"gib": "Gi", "mib": "Mi", "kib": "Ki", "tib": "Ti"}
    unit = known.get(match[2].lower())
    return f"; did you mean {match[1].replace(',', '.')}{unit}?" if unit else ""


def duration(text: str) -> float:
    """Seconds of a duration: `0`, `60` (seconds), `500ms`, `60s`, `5m`, `2h`; at most a year."""
    match = re.fullmatch(DURATION_PATTERN, text.strip()) if len(text) <= LONGEST_TEXT else None
    if match is None:
        raise ValueError(f"{shown(text)} does not fit; write it like 60s, 5m or 0")
    digits = re.match(r"[0-9]+", text.strip())
    value = int(digits[0] if digits else 0) * _SECONDS[match[2] or ""]
    if value > 365 * 86400:
        raise ValueError(f"{shown(text)} is more than a year; write it like 60s, 5m or 0")
    return value


def seconds(value: Any, low: float = 0.0, high: float = 86400.0) -> float:
    """A plain number of seconds between `low` and `high`. A unit is refused, with the number of seconds that was meant."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())) and len(value) <= LONGEST_TEXT:
        meant = float(match["number"]) * _SECONDS[match["unit"]]
        raise ValueError(f"{shown(value)} has a unit; it is a number of seconds: write {meant:g}")
    found = _from_text(value, "a number of seconds") if isinstance(value, str) else number(value)
    within(found, low, high)
    return found


def seconds_from(
    environ: Mapping[str, str], name: str, default: float, *, low: float = 0.0, high: float = 86400.0
) -> float:
    """The seconds that the variable `name` says, or `default` when it is not set or empty. InputError names the variable."""
    text = environ.get(name, "")
    if not text.strip():
        return default
    try:
        return seconds(text, low, high)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def did_you_mean(word: object, known: Any) -> str:
    """`"; did you mean models?"` when one of the `known` words is near, else an empty text."""
    import difflib  # for a rare message; start-up does not wait for it

    text, names = str(word), [str(one) for one in known]
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in names}
    near = difflib.get_close_matches(text, names, n=1)
    if not near and (found := plain.get(re.sub(r"[^a-z0-9]", "", text.lower()))):
        near = [found]
    return f"; did you mean {near[0]}?" if near else ""
