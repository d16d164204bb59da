"""Reading an exchange file back: strict, every fault named with its JSON pointer (RFC 6901), nothing half-accepted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from tipbench.catalog import content_hash
from tipbench.errors import InputError
from tipbench.files import decode, explained, write_whole
from tipbench.judging.exchange import (
    SCHEMA,
    Anchor,
    Exchange,
    ExchangeItem,
    ExchangeRubric,
    JudgeIdentity,
    RubricCriterion,
)
from tipbench.quantities import did_you_mean

MAX_BYTES = 256 * 1024**2
MAX_DEPTH = 64
MAX_FAULTS = 50
"""Faults shown; how many more there are is said in a last line."""


class _Object(dict[str, Any]):
    """A JSON object that remembers the keys that stood in it twice, which JSON allows and nobody means."""

    repeated: tuple[str, ...] = ()


class _NotANumber:
    """NaN or Infinity, which Python's parser takes and JSON does not have."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __repr__(self) -> str:
        return self.word


# -- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """A file as it was read: what is in it, as far as it has a shape, and all that is wrong with it by itself."""

    source: str
    raw: Any
    """What the JSON holds; None when it is no JSON."""
    exchange: Exchange | None
    """The file, when nothing is wrong with it."""
    faults: tuple[str, ...]

    def require(self, more: Iterable[str] = ()) -> Exchange:
        """The file. Raises InputError that lists its own faults and `more`, each once."""
        found = list(dict.fromkeys([*self.faults, *more]))
        if found or self.exchange is None:
            raise refuse(self.source, found)
        return self.exchange


def look_into(path: Path) -> Reading:
    """The exchange file at `path`, faulty or not. Raises InputError when it cannot be read at all."""
    with explained(path, "cannot be read"):
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path}: {size:,} bytes are too many for an exchange file (at most {MAX_BYTES:,})")
        data = path.read_bytes()
    return inspect(data, str(path))


def read_exchange(path: Path) -> Exchange:
    """The exchange file at `path`. Raises InputError that lists every fault."""
    return look_into(path).require()


def parse_exchange(data: bytes, source: str) -> Exchange:
    """The exchange file in `data`; `source` names it in messages. Raises InputError that lists every fault."""
    return inspect(data, source).require()


def inspect(data: bytes, source: str) -> Reading:
    """What is in `data`, and every fault that it has by itself. Raises InputError when it is no JSON."""
    text = _decode(data, source)
    raw = _parse(text, source)
    shape = list(_shape_faults(raw))
    faults = [f"{pointer}: {words}" for pointer, words, _ in shape]
    if any(depth_exceeded for *_, depth_exceeded in shape):
        return Reading(source, None, None, tuple(faults))
    exchange = None
    try:
        exchange = Exchange.model_validate_json(text)
    except ValidationError as error:
        faults += [_schema_fault(detail) for detail in error.errors(include_url=False)]
    faults += _meaning_faults(raw)
    return Reading(source, raw, None if faults else exchange, tuple(dict.fromkeys(faults)))


def refuse(source: str, faults: list[str]) -> InputError:
    """The error that lists the faults, the first MAX_FAULTS of them."""
    shown = faults[:MAX_FAULTS]
    if len(faults) > MAX_FAULTS:
        shown.append(f"and {len(faults) - MAX_FAULTS} more")
    return InputError(f"{source}: {len(faults)} fault{'s' * (len(faults) > 1)}, nothing was applied", tuple(shown))


def _decode(data: bytes, source: str) -> str:
    if not data.strip():
        raise refuse(source, [": the file is empty"])
    try:
        return decode(data)
    except ValueError as error:
        raise refuse(source, [f": {error}"]) from error


def _parse(text: str, source: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_NotANumber)
    except json.JSONDecodeError as error:
        words = f"not JSON (line {error.lineno}, column {error.colno}: {error.msg}){_guess(text)}"
        raise refuse(source, [f": {words}"]) from error
    except RecursionError as error:
        raise refuse(source, [f": nested more than {MAX_DEPTH} deep; this is no exchange file"]) from error
    except ValueError as error:  # Python refuses to turn thousands of digits into an int.
        raise refuse(source, [f": a number is too long to be one ({error})"]) from error


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        found.repeated = tuple(sorted({key for key in keys if keys.count(key) > 1}))
    return found


def _guess(text: str) -> str:
    """What the file may be instead, from its first line."""
    first = text.lstrip().split("\n", 1)[0].strip()
    if first.startswith("```"):
        return "; it is wrapped in a Markdown fence: hand in the JSON alone"
    if first.startswith(("{", "[")):
        return ""
    if first.count(",") >= 2 or first.count(";") >= 2 or "\t" in first:
        return "; it looks like a CSV table: fill in the JSON file that was exported"
    if first.startswith(("---", "schema:")) or first.split(":", 1)[0] in Exchange.model_fields:
        return "; it looks like YAML: fill in the JSON file that was exported"
    if first.startswith("<"):
        return "; it looks like HTML or XML"
    return "; there must be nothing before or after the JSON"


# -- faults --------------------------------------------------------------------------------------


def pointer(parts: Iterable[object]) -> str:
    """A JSON pointer (RFC 6901): ("items", 3, "a/b") -> "/items/3/a~1b"."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _shape_faults(raw: Any) -> Iterable[tuple[str, str, bool]]:
    """Repeated keys, NaN and excessive depth, as (pointer, words, is it depth)."""
    stack: list[tuple[tuple[object, ...], Any]] = [((), raw)]
    while stack:
        path, value = stack.pop()
        if len(path) > MAX_DEPTH:
            yield pointer(path[:4]) + "/...", f"nested more than {MAX_DEPTH} deep; this is no exchange file", True
            return
        if isinstance(value, _NotANumber):
            yield pointer(path), f"{value.word} is no JSON number; scores are whole numbers or null", False
        elif isinstance(value, _Object):
            for key in value.repeated:
                yield pointer((*path, key)), "the key stands twice in its object", False
            stack += [((*path, key), inner) for key, inner in reversed(value.items())]
        elif isinstance(value, list):
            stack += [((*path, index), inner) for index, inner in reversed(list(enumerate(value)))]


def _schema_fault(detail: Any) -> str:
    """One of pydantic's errors in the judge's words."""
    place = pointer(part for part in detail["loc"] if part != "[key]")
    kind, found = detail["type"], _short(detail.get("input"))
    if kind == "json_invalid":
        return f": not JSON: {detail['ctx']['error']}"
    words = {
        "missing": "is missing",
        "extra_forbidden": f"unknown field{_meant(detail['loc']) if kind == 'extra_forbidden' else ''}",
        "int_type": f"must be a whole number or null, found {found}",
        "int_from_float": f"must be a whole number or null, found {found}",
        "string_type": f"must be text, found {found}",
        "dict_type": f"must be an object, found {found}",
        "model_type": f"must be an object, found {found}",
        "tuple_type": f"must be a list, found {found}",
        "string_too_long": f"longer than {detail.get('ctx', {}).get('max_length')} characters",
    }.get(kind, f"{detail['msg'][0].lower()}{detail['msg'][1:]}, found {found}")
    if detail["loc"] == ("schema",) and kind == "literal_error":
        words = f"must be {SCHEMA!r}, found {found}; export again with this version of tipbench"
    return f"{place}: {words}"


def _meant(location: Sequence[str | int]) -> str:
    """The field that an unknown one may have been meant to be."""
    known: Mapping[str, type[BaseModel]] = {"items": ExchangeItem, "judge": JudgeIdentity, "rubric": ExchangeRubric}
    model = known.get(str(location[0]), Exchange) if len(location) > 1 else Exchange
    if "criteria" in location and len(location) > 3:
        model = Anchor if "anchors" in location else RubricCriterion
    return did_you_mean(location[-1], (field.alias or name for name, field in model.model_fields.items()))


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    try:
        shown = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _meaning_faults(raw: Any) -> list[str]:
    """Faults that no schema sees; looks at whatever parts of the file have the right shape."""
    if not isinstance(raw, dict):
        return []
    faults = []
    rubric = raw.get("rubric")
    criteria, low, high = _scale(rubric)
    if isinstance(rubric, dict) and isinstance(raw.get("rubric_hash"), str) and _hash(rubric) != raw["rubric_hash"]:
        faults.append(
            "/rubric_hash: is not the hash of /rubric: one of them was changed since the export, and scores are filed by it"
        )
    scored = False
    first: dict[str, int] = {}
    items = raw.get("items")
    for number, item in enumerate(items if isinstance(items, list) else ()):
        if not isinstance(item, dict):
            continue
        one = item.get("id")
        if isinstance(one, str):
            if one in first:
                faults.append(f"/items/{number}/id: {_short(one)} is also the id of /items/{first[one]}")
            first.setdefault(one, number)
        scores = item.get("scores")
        if not isinstance(scores, dict):
            continue
        place = ("items", number, "scores")
        if criteria:
            faults += [f"{pointer((*place, c))}: is missing" for c in criteria if c not in scores]
            faults += [
                f"{pointer((*place, c))}: the rubric has no such criterion (it has {', '.join(criteria)})"
                for c in scores
                if c not in criteria
            ]
        for criterion, score in scores.items():
            if isinstance(score, int) and not isinstance(score, bool):
                scored = True
                if low is not None and high is not None and not low <= score <= high:
                    faults.append(
                        f"{pointer((*place, criterion))}: {_short(score)} is outside the scale of {low} to {high}"
                    )
        faults += _expected_faults(item, number, criteria, low, high)
    if scored and raw.get("judge") is None:
        faults.append('/judge: is missing; say who scored: {"name": "...", "kind": "human", "agent" or "llm"}')
    return faults


def _expected_faults(
    item: Mapping[str, Any], number: int, criteria: list[str], low: int | None, high: int | None
) -> Iterable[str]:
    """Expected scores stand beside whole ones, for the same criteria and on the same scale."""
    expected = item.get("expected")
    if not isinstance(expected, dict):
        return
    for criterion, value in expected.items():
        place = pointer(("items", number, "expected", criterion))
        if criteria and criterion not in criteria:
            yield f"{place}: the rubric has no such criterion (it has {', '.join(criteria)})"
        elif isinstance(value, int | float) and low is not None and high is not None and not low <= value <= high:
            yield f"{place}: {_short(value)} is outside the scale of {low} to {high}"
    scores = item["scores"]
    missing = [c for c in criteria if c not in expected]
    if missing:
        yield f"{pointer(('items', number, 'expected'))}: has nothing for {', '.join(missing)}"
    if any(scores.get(c) is None for c in criteria):
        yield f"{pointer(('items', number, 'expected'))}: stands beside scores that are not complete"


def _scale(rubric: Any) -> tuple[list[str], int | None, int | None]:
    """Criterion ids and scale of a raw rubric; empty and None where it is not in shape."""
    if not isinstance(rubric, dict):
        return [], None, None
    criteria = rubric.get("criteria")
    ids = (
        [c["id"] for c in criteria if isinstance(c, dict) and isinstance(c.get("id"), str)]
        if isinstance(criteria, list)
        else []
    )
    low, high = rubric.get("scale_min"), rubric.get("scale_max")
    return ids, low if type(low) is int else None, high if type(high) is int else None


def _hash(rubric: Any) -> str:
    try:
        return content_hash(rubric)
    except (TypeError, ValueError):
        return ""


def check_against(
    exchange: Exchange, issued: Mapping[str, tuple[str, str]], rubric_hash: str, export_id: str
) -> list[str]:
    """Faults of a file against what was exported: `issued` maps item id -> (scenario, tip). Missing items are none."""
    return faults_against(exchange.model_dump(mode="json", by_alias=True), issued, rubric_hash, export_id)


def faults_against(raw: Any, issued: Mapping[str, tuple[str, str]], rubric_hash: str, export_id: str) -> list[str]:
    """`check_against` for a file that has faults of its own: what has the right shape is compared, the rest passed over."""
    if not isinstance(raw, dict):
        return []
    faults = []
    if isinstance(raw.get("export_id"), str) and raw["export_id"] != export_id:
        faults.append(f"/export_id: {raw['export_id'][:40]} is not the export {export_id}")
    if isinstance(raw.get("rubric_hash"), str) and raw["rubric_hash"] != rubric_hash:
        faults.append(
            f"/rubric_hash: this file was exported under rubric {rubric_hash[:8]}, not {raw['rubric_hash'][:8]}"
        )
    items = raw.get("items")
    for number, item in enumerate(items if isinstance(items, list) else ()):
        if not isinstance(item, dict) or not isinstance(item.get("id"), str):
            continue
        if item["id"] not in issued:
            faults.append(f"/items/{number}/id: {_short(item['id'])[1:-1]} was not in the exported file")
            continue
        scenario, tip = issued[item["id"]]
        if isinstance(item.get("tip"), str) and item["tip"] != tip:
            faults.append(
                f"/items/{number}/tip: was changed since the export; a score must be for the tip that was written"
            )
        if isinstance(item.get("scenario"), str) and item["scenario"] != scenario:
            faults.append(f"/items/{number}/scenario: was changed since the export")
    return faults


# -- writing -------------------------------------------------------------------------------------


def exchange_bytes(exchange: Exchange) -> bytes:
    """The file's content: keys in a stable order, nulls where a judge shall write."""
    body = exchange.model_dump(mode="json", by_alias=True, exclude={"items"})
    body["items"] = [item_dict(item) for item in exchange.items]
    return to_json(body, indent=2) + b"\n"


def item_dict(item: ExchangeItem) -> dict[str, Any]:
    """An item as it stands in the file: fields that only some judges have are left out while they are empty."""
    body = item.model_dump(mode="json")
    return {key: value for key, value in body.items() if value is not None or key not in ("scored_at", "expected")}


def write_exchange(exchange: Exchange, path: Path) -> None:
    """Write the file, whole or not at all."""
    write_whole(path, exchange_bytes(exchange), durable=True)


def scored(
    item: ExchangeItem,
    scores: Mapping[str, int],
    rationale: str | None,
    at: datetime,
    expected: Mapping[str, float] | None = None,
) -> ExchangeItem:
    """The item with a judge's scores."""
    told = None if expected is None else dict(expected)
    return item.model_copy(update={"scores": dict(scores), "expected": told, "rationale": rationale, "scored_at": at})


def with_items(exchange: Exchange, judge: JudgeIdentity, items: Iterable[ExchangeItem]) -> Exchange:
    """The file with its judge and its items as they stand."""
    return exchange.model_copy(update={"judge": judge, "items": tuple(items)})
