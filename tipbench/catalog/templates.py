"""Templates that users write: Jinja in a sandbox, with limits on time and size, and every failure in words.

A template is data. It cannot reach into the process, loop without end, or fill memory; whatever goes wrong in it is a
TemplateFault that says what, and on which of its lines.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

from tipbench.quantities import did_you_mean

LONGEST_S = 2.0
"""Seconds that one rendering may take; a prompt takes less than a thousandth of that."""
LONGEST_TEXT = 1_000_000
"""Characters of one rendered text, and of a text within a template."""
LARGEST_EXPONENT = 64

SYNTAX = re.compile(r"\{\{|\{%|\{#")
"""Marks of a text that has Jinja in it."""


class TemplateFault(ValueError):
    """A template that cannot be rendered. `line` is the line in the template, from 1."""

    def __init__(self, words: str, line: int = 1) -> None:
        self.line = line
        super().__init__(words)


class _TooMuch(Exception):
    """Past one of the limits."""


@functools.lru_cache(256)
def _compiled(template: str) -> Any:
    """Compiling takes longer than rendering, and a judge's template is rendered for every tip."""
    return _environment().from_string(template)


def render(template: str, **variables: object) -> str:
    """The template with its variables. Raises TemplateFault."""
    known = ", ".join(sorted(variables))
    try:
        compiled = _compiled(template)
        return _limited(compiled, variables)
    except _TooMuch as error:
        raise TemplateFault(f"the template {error}") from error
    except MemoryError as error:
        raise TemplateFault("the template takes more memory than there is") from error
    except RecursionError as error:
        raise TemplateFault("the template calls itself without end", _line(error)) from error
    except Exception as error:
        words = getattr(error, "message", None) or str(error) or type(error).__name__
        hint = did_you_mean(unknown[1], variables) if (unknown := re.match(r"'(\w+)' is undefined", words)) else ""
        raise TemplateFault(
            f"the template cannot be rendered: {words}{hint}; variables: {known}", _line(error)
        ) from error


def _limited(compiled: Any, variables: Mapping[str, object]) -> str:
    """The rendering, watched line by line: the thread that renders is the one that is stopped."""
    until = time.monotonic() + LONGEST_S
    length = 0

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != "<template>":
            return None
        if time.monotonic() > until:
            raise _TooMuch(f"takes longer than {LONGEST_S:g} s; does a loop in it end?")
        return watch

    # `~` is a function in the compiled code's own names.
    compiled.root_render_func.__globals__.update(str_join=_join, markup_join=_join)
    pieces: list[str] = []
    before = sys.gettrace()
    sys.settrace(watch)
    try:
        for piece in compiled.generate(**variables):
            length += len(piece)
            _check_length(length)
            pieces.append(piece)
    finally:
        sys.settrace(before)
    return "".join(pieces)


def _line(error: BaseException) -> int:
    """The template's line on which an error arose; 1 when nothing tells."""
    line = getattr(error, "lineno", None)
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return int(line or 1)


_lock = threading.Lock()


def _environment() -> Any:
    with _lock:
        return _make_environment()


@functools.cache
def _make_environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    class Limited(SandboxedEnvironment):
        """A sandbox whose arithmetic and formatting cannot fill memory either."""

        intercepted_binops = frozenset({"*", "**", "%", "+"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_operation(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
            for one in (*args, *kwargs.values()):
                if isinstance(one, int) and abs(one) > LONGEST_TEXT:
                    raise _TooMuch(f"calls a function with a number over {LONGEST_TEXT:,}")
            text = getattr(obj, "__self__", None)
            if isinstance(text, str):
                _check_method(obj)
                if getattr(obj, "__name__", "") == "replace":
                    _check_replacing(text, args)
                elif getattr(obj, "__name__", "") == "join" and args and isinstance(args[0], list | tuple | str):
                    _check_length(len(text) * len(args[0]) + sum(len(str(one)) for one in args[0]))
            return _checked(super().call(context, obj, *args, **kwargs))

        def wrap_str_format(self, value: Any) -> Any:
            """`"...".format` and `.format_map`, once their text was looked at."""
            _check_method(value)
            return super().wrap_str_format(value)

    environment = Limited(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    for name, function in list(environment.filters.items()):
        environment.filters[name] = _bounded(name, function)
    environment.globals["lipsum"] = _refused("lipsum")
    return environment


def _bounded(name: str, function: Any) -> Any:
    """A filter that cannot make a text of more than a million characters."""

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, str | int | float)]
        wide = any(not isinstance(one, str) and abs(one) > 10_000 for one in given)
        if wide and name in ("center", "indent", "wordwrap", "truncate", "batch", "slice", "round"):
            raise _TooMuch("gives a filter a number over 10,000")
        texts = [one for one in given if isinstance(one, str)]
        if name == "format" and texts:
            _check_format(texts[0])
        if name in ("replace", "indent") and texts:
            _check_replacing(texts[0], texts[1:])
        return _checked(function(*args, **kwargs))

    return bounded


def _refused(name: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> str:
        raise _TooMuch(f"calls {name}(), which says something else each time")

    return refuse


def _checked(value: Any) -> Any:
    if isinstance(value, str):
        _check_length(len(value))
    return value


def _check_length(length: int) -> None:
    if length > LONGEST_TEXT:
        raise _TooMuch(f"makes more than {LONGEST_TEXT:,} characters")


def _check_replacing(text: str, given: Any) -> None:
    """`given` are what is replaced and what with; the longer of them may come in for every character."""
    longest = max((len(one) for one in given if isinstance(one, str)), default=0)
    old = next((one for one in given if isinstance(one, str)), "")
    _check_length(len(text) + (text.count(old) if old else len(text) + 1) * longest)


def _join(parts: Any) -> str:
    """What `~` does, within the limit."""
    texts = [str(one) for one in parts]
    _check_length(sum(map(len, texts)))
    return "".join(texts)


def _check_operation(operator: str, left: Any, right: Any) -> None:
    if operator == "**" and isinstance(right, int | float) and abs(right) > LARGEST_EXPONENT:
        raise _TooMuch(f"raises a number to a power over {LARGEST_EXPONENT}")
    if operator == "*":
        for text, times in ((left, right), (right, left)):
            if isinstance(text, str | list | tuple) and isinstance(times, int) and len(text) * times > LONGEST_TEXT:
                _check_length(LONGEST_TEXT + 1)
    if operator in ("*", "+") and any(isinstance(x, int) and abs(x) > 10**300 for x in (left, right)):
        raise _TooMuch("reckons with numbers of hundreds of digits")
    if operator == "+" and all(isinstance(x, str | list | tuple) for x in (left, right)):
        _check_length(len(left) + len(right))
    if operator == "%" and isinstance(left, str):
        _check_format(left)


def _check_method(value: Any) -> None:
    text = getattr(value, "__self__", None)
    if isinstance(text, str) and getattr(value, "__name__", "") in ("format", "format_map"):
        _check_format(text)


def _check_format(text: str) -> None:
    """A width such as `%999999999d` or `{:>999999999}` in a text that may be a format."""
    if re.search(r"[%{:][^\s{}%]{0,20}?\d{5,}", text):
        raise _TooMuch("formats to a width over 9,999")
