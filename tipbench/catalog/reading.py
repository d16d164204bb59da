"""From a file to a model: every fault with its line and field, all of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from tipbench.documents import Document, kind_of, read_document
from tipbench.quantities import did_you_mean

_Model = TypeVar("_Model", bound=BaseModel)


def load(path: Any, model: type[_Model]) -> tuple[_Model, Document]:
    """A validated model from a YAML or JSON file, and the file's document for later faults. Raises InputError."""
    document = read_document(path)
    faults = list(_repeated_ids(document))
    try:
        loaded = model.model_validate(_tuples(document.value))
    except ValidationError as error:
        # A list of nothing but faulty entries counts as empty to pydantic; its entries' own faults say more.
        details = [d for d in error.errors() if not (d["type"] == "too_short" and d["input"])]
        faults += [_fault(detail, document, model) for detail in details]
        document.refuse(faults)
        raise
    document.refuse(faults)
    return loaded, document


def place(document: Document, field: Sequence[str | int], words: str, template_line: int = 1) -> tuple[int, str]:
    """One fault as (line, "line 12, examples.0.user: what is wrong"); the line is the one in the template where that is known."""
    part = document.find(field)
    line = part.line
    if part.style == "|":
        line += template_line
    elif template_line > 1:
        words = f"{words} (line {template_line} of the text)"
    return line, f"line {line}, {'.'.join(map(str, field))}: {words}"


def _tuples(value: Any) -> Any:
    """Lists as tuples all the way down, since strict models take a list for nothing else."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _fault(detail: Any, document: Document, model: type[BaseModel]) -> tuple[int, str]:
    """One of pydantic's errors as (line, "line 12, scenarios.3.title: what is wrong")."""
    location = [part for part in detail["loc"] if part != "[key]"]
    kind, message, context = detail["type"], detail["msg"].removeprefix("Value error, "), detail.get("ctx", {})
    if kind == "template":
        within = [int(part) if part.isdigit() else part for part in context["within"].split(".") if part]
        return place(document, [*location, *within], message, context["template_line"])
    if kind == "missing":
        message = "is missing"
    elif kind == "extra_forbidden":
        message = f"unknown field{did_you_mean(location[-1], _fields(model, location[:-1]))}"
    elif kind == "string_too_short" or (kind == "string_pattern_mismatch" and context["pattern"] == r"\S"):
        message = "must not be empty"
    elif kind == "too_short":
        message = f"needs at least {context['min_length']}, found {context['actual_length']}"
    elif kind == "string_pattern_mismatch":
        message = f"{kind_of(detail['input'])} must have small letters, digits and . _ - only, at most 63"
    elif kind.endswith("_type") or kind == "model_type":
        quotes = "; put it in quotes" if kind == "string_type" and _scalar(detail["input"]) else ""
        message = f"{message[0].lower()}{message[1:]}, found {kind_of(detail['input'])}{quotes}"
    field = ".".join(map(str, location)) or "(the whole file)"
    line = document.find(location).line
    return line, f"line {line}, {field}: {message}"


def _scalar(value: object) -> bool:
    return value is not None and not isinstance(value, dict | list | tuple | str)


def _fields(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The fields that the model at `location` knows."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        fields: Mapping[str, Any] = getattr(current, "model_fields", {})
        if part not in fields:
            return []
        annotation = fields[part].annotation
        inner = [one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
        current = inner[0] if inner else annotation
    return list(getattr(current, "model_fields", {}))


def _repeated_ids(document: Document) -> Iterator[tuple[int, str]]:
    """Scenarios or criteria with the same id."""
    value = document.value
    for name in ("scenarios", "criteria"):
        entries = value.get(name) if isinstance(value, dict) else None
        first: dict[str, int] = {}
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            one = entry.get("id") if isinstance(entry, dict) else None
            if isinstance(one, str) and one in first:
                line = document.find([name, number, "id"]).line
                yield line, f"line {line}, {name}.{number}.id: {one!r} is also the id of {name}.{first[one]}"
            elif isinstance(one, str):
                first[one] = number
