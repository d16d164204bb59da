"""Renders the charts with the real helm. Without it these tests are left out, and with CI=true they fail."""

from __future__ import annotations

import os
import shutil

import pytest

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


@pytest.fixture(scope="session", autouse=True)
def helm() -> None:
    """helm is on PATH."""
    if shutil.which("helm") is None:
        reason = "helm is not on PATH; see https://helm.sh/docs/intro/install/"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)
