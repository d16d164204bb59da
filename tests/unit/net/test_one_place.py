"""Clients are made in one place: nobody else reads proxies, certificates and credentials in a way of their own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
PACKAGE = Path(__file__).parents[3] / "tipbench"
ELSEWHERE = {"memory/sidecar.py"}
"""Asks the pod it lives in, over loopback, with no variable read."""


def test_nobody_else_makes_an_http_client() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            if (
                isinstance(called, ast.Attribute)
                and isinstance(called.value, ast.Name)
                and called.value.id in ("httpx", "requests")
                and called.attr in ("Client", "AsyncClient", "get", "post", "put", "request", "stream", "Session")
            ):
                found.add(str(path.relative_to(PACKAGE)))
    assert found <= ELSEWHERE
