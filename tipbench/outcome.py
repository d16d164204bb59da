"""What a stage leaves for whatever runs it in a pod: one small JSON object in the file that TIPBENCH_RESULT_FILE names.

A Kubernetes termination message (`/dev/termination-log`) and Airflow's XCom (`/airflow/xcom/return.json`) are such files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tipbench.files import explained

VARIABLE = "TIPBENCH_RESULT_FILE"
LONGEST = 3500
"""Bytes; the kubelet cuts a termination message at 4096, and half an object is none."""


def leave(stage: str, exit_code: int, result: Mapping[str, Any], error: str = "") -> None:
    """Write the outcome where it was asked for; without TIPBENCH_RESULT_FILE nothing happens.

    Raises InputError when the file cannot be written.
    """
    target = os.environ.get(VARIABLE)
    if not target:
        return
    import json  # only where there is something to leave: start-up does not wait for it
    from pathlib import Path

    body = {"stage": stage, "exit_code": exit_code, "error": error, **result}
    shortest = 2000
    while len(content := json.dumps(_clipped(body, shortest)).encode()) > LONGEST and shortest > 20:
        shortest //= 2
    # In place: a termination message is a file that the kubelet mounts, and cannot be renamed over.
    with explained(f"{VARIABLE}={target}"):
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _clipped(value: Any, longest: int) -> Any:
    """The same object with every text cut to `longest` characters."""
    if isinstance(value, str):
        return value if len(value) <= longest else value[: longest - 1] + "…"
    if isinstance(value, Mapping):
        return {str(k): _clipped(v, longest) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clipped(v, longest) for v in value]
    return value
