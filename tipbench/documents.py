"""YAML and JSON as people write them: the value, the line of each of its parts, and the faults that a parser passes over.

JSON is read as JSON (its escapes, its numbers, its tabs), YAML as YAML. A file is JSON when it parses as JSON, or when it is
called `.json` and does not parse as YAML either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from tipbench.errors import InputError
from tipbench.files import read_text

MOST_PARTS = 200_000
"""Parts of a file; a few YAML aliases can stand for billions."""
DEEPEST = 60


@dataclass
class Part:
    """Where one value stands: its line (from 1), how a text is written, and what is in it."""

    line: int
    style: str = ""
    """For a text in YAML: `|`, `>`, a quote, or empty for a plain one."""
    inside: list[tuple[str, int, Part]] = field(default_factory=list)
    """(key or number, the key's line, the part)"""

    def child(self, key: str | int) -> Part | None:
        """The part under a key or a number, if there is one."""
        return next((part for name, _, part in self.inside if name == str(key)), None)


@dataclass(frozen=True)
class Document:
    """What a file holds. `faults` are (line, words) of keys that stand twice."""

    source: str
    value: Any
    top: Part
    faults: tuple[tuple[int, str], ...]

    def find(self, location: Sequence[str | int]) -> Part:
        """The deepest part of `location` that the file has."""
        part = self.top
        for key in location:
            child = part.child(key)
            if child is None:
                break
            part = child
        return part

    def refuse(self, more: Sequence[tuple[int, str]] = ()) -> None:
        """InputError with all faults in the order of the file, if there are any."""
        found = sorted([*self.faults, *more])
        if found:
            words = tuple(dict.fromkeys(words for _, words in found))
            raise InputError(f"{self.source}: {len(words)} fault{'s' * (len(words) > 1)}", words)

    @property
    def kind(self) -> str:
        """What the value is, in a word."""
        return kind_of(self.value)


def kind_of(value: object) -> str:
    """A value's kind in words, or the value itself where it is short."""
    from tipbench.quantities import shown

    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, tuple | list):
        return "a list"
    return shown(value)


def read_document(path: Any) -> Document:
    """The YAML or JSON file at `path`, a Path or a resource of a package. Raises InputError."""
    return parse_document(read_text(path), str(path))


def parse_document(text: str, source: str) -> Document:
    """The document in `text`; `source` names it in messages. Raises InputError with the line of what cannot be read."""
    problem = None
    if text.lstrip()[:1] in ("{", "[") or source.lower().endswith(".json"):
        try:
            value = json.loads(text, parse_float=_number)
            if isinstance(value, dict | list):
                return Document(source, value, *_checked(_json_parts(text), source))
        except json.JSONDecodeError as error:
            problem = f"line {error.lineno}, column {error.colno}: {error.msg}"
        except RecursionError:
            raise InputError(f"{source}: nested more than {DEEPEST} deep") from None
        except ValueError as error:
            raise InputError(f"{source}: not JSON: a number is too long to be one") from error
    if problem is not None and source.lower().endswith(".json"):
        try:
            return _yaml(text, source)
        except InputError:
            raise InputError(f"{source}: not JSON", (problem,)) from None
    return _yaml(text, source)


# -- YAML ----------------------------------------------------------------------------------------


def _yaml(text: str, source: str) -> Document:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        top, faults = _checked(_yaml_parts(node), source)
        return Document(source, yaml.safe_load(text), top, faults)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"{source}: not YAML or JSON", (f"{where}{error.problem}{_hint(text, error)}",)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(
            f"{source}: not YAML or JSON", (f"line {line}: the character U+{error.character:04X} is not allowed",)
        ) from error
    except RecursionError as error:
        raise InputError(f"{source}: nested more than {DEEPEST} deep") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # A number of thousands of digits, a date such as 2024-13-45.
        raise InputError(f"{source}: not YAML or JSON: {str(error)[:200]}") from error


def _hint(text: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if re.search(r":\s*\{[{%]", line) or (error.problem or "").startswith("found unhashable key"):
        return "; put a value that begins with {{ in quotes, or under a |"
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "; YAML is indented by spaces, not by tabs"
    if re.match(r"\s*[\w-]+:\s.*:\s", line):
        return "; put a value with a colon in it in quotes, or under a |"
    return ""


def _yaml_parts(top: yaml.Node | None) -> Part:
    """The parts of a composed document. Raises InputError when aliases make more of them than a file can hold."""
    left = MOST_PARTS

    def part(node: yaml.Node, depth: int) -> Part:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise RecursionError
        found = Part(node.start_mark.line + 1, node.style or "" if isinstance(node, yaml.ScalarNode) else "")
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found.inside.append((str(key.value), key.start_mark.line + 1, part(value, depth + 1)))
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                found.inside.append((str(number), value.start_mark.line + 1, part(value, depth + 1)))
        return found

    return Part(1) if top is None else part(top, 0)


# -- JSON ----------------------------------------------------------------------------------------


def _number(text: str) -> int | float:
    """JSON has one kind of number: `1e1` is 10."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_MARK = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+|\n')


def _json_parts(text: str) -> Part:
    """The parts of a text that is JSON."""
    line, stack = 1, [Part(1)]
    key: tuple[str, int] | None = None
    pending: tuple[str, int] | None = None
    is_object = [False]
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark == "\n":
            line += 1
            continue
        if mark in "}]":
            stack.pop()
            is_object.pop()
            key = pending = None
        elif mark == ":":
            key, pending = pending, None
        elif mark == ",":
            key = pending = None
        elif mark[0] == '"' and is_object[-1] and key is None:
            pending = (json.loads(mark), line)
        else:
            part, above = Part(line), stack[-1]
            name, at = key if key is not None else (str(len(above.inside)), line)
            above.inside.append((name, at, part))
            if len(stack) > DEEPEST:
                raise RecursionError
            if mark in "{[":
                stack.append(part)
                is_object.append(mark == "{")
                key = pending = None
    return stack[0].inside[0][2]


# -- both ----------------------------------------------------------------------------------------


def _checked(top: Part, source: str) -> tuple[Part, tuple[tuple[int, str], ...]]:
    """The parts, and the keys that stand twice: a parser would silently take the last."""
    faults: list[tuple[int, str]] = []

    def walk(part: Part, path: str) -> None:
        seen: set[str] = set()
        for name, line, inner in part.inside:
            place = f"{path}.{name}".lstrip(".")
            if name in seen:
                faults.append((line, f"line {line}, {place}: the key stands twice"))
            seen.add(name)
            walk(inner, place)

    walk(top, "")
    return top, tuple(faults)
