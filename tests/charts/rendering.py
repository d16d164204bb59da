"""What the chart tests look at: rendered objects, their pods, and the values that make them."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
NAMES = ("ollama", "mlflow", "airflow", "tipbench")
NAMESPACE = "tipbench"

Object = dict[str, Any]

# Every chart with its defaults and its two environments, and what else changes which objects there are.
CASES: list[tuple[str, str | None, dict[str, Any]]] = [
    *((name, file, {}) for name in NAMES for file in (None, "values-kind.yaml", "values-prod.yaml")),
    ("ollama", None, {"extraLimits": {"nvidia.com/gpu": 1}, "runtimeClassName": "nvidia", "replicas": 2}),
    ("mlflow", None, {"postgresql": {"enabled": False}}),
    ("mlflow", None, {"postgresql": {"enabled": False}, "externalDatabase": {"existingSecret": "own"}}),
    ("mlflow", "values-kind.yaml", {"auth": {"enabled": True}}),
    ("airflow", None, {"postgresql": {"enabled": False}, "externalDatabase": {"existingSecret": "own"}}),
    ("airflow", None, {"logs": {"persistence": {"enabled": False}}}),
    ("tipbench", None, {"api": {"enabled": False}}),
]


class Failed(Exception):
    """helm turned the values down; the message is what it said."""


def render(
    chart: str, values_file: str | None = None, set: dict[str, Any] | None = None, release: str | None = None
) -> list[Object]:
    """The objects that an install of `chart` as release `chart` (or as named) makes, tests included. Raises Failed."""
    return json.loads(_render(chart, values_file, json.dumps(set or {}), release or chart))  # type: ignore[no-any-return]


@functools.cache
def _render(chart: str, values_file: str | None, values: str, release: str) -> str:
    command = ["helm", "template", release, str(CHARTS / chart), "--namespace", NAMESPACE, "--values", "-"]
    if values_file:
        command[-2:-2] = ["--values", str(CHARTS / chart / values_file)]
    done = subprocess.run(command, input=values, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stderr)
    return json.dumps([one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one])


class Pod(NamedTuple):
    """A pod, wherever it stands: `owner` is kind/name of the object it is in."""

    owner: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """All its containers, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(objects: list[Object]) -> Iterator[Pod]:
    """The pods of all workloads: Deployments, StatefulSets, Jobs, CronJobs, and bare ones (the tests)."""
    for one in objects:
        template = {
            "Pod": lambda o: o,
            "CronJob": lambda o: o["spec"]["jobTemplate"]["spec"]["template"],
        }.get(one["kind"], lambda o: o.get("spec", {}).get("template"))(one)
        if isinstance(template, dict) and "containers" in template.get("spec", {}):
            meta = template["metadata"]
            yield Pod(name_of(one), meta["labels"], meta.get("annotations", {}), template["spec"])


def name_of(one: Object) -> str:
    """Kind/name."""
    return f"{one['kind']}/{one['metadata']['name']}"


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (one,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return one


def kind(objects: list[Object], wanted: str) -> list[Object]:
    """All objects of a kind."""
    return [one for one in objects if one["kind"] == wanted]


def env(container: Object) -> dict[str, Any]:
    """A container's own variables by name: a value, or where it comes from."""
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container.get("env", [])}


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Does a label selector choose these labels?"""
    checks = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _: key in labels,
        "DoesNotExist": lambda key, _: key not in labels,
    }
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items()) and all(
        checks[e["operator"]](e["key"], e.get("values")) for e in selector.get("matchExpressions", [])
    )


def quantity(text: str | int) -> float:
    """A Kubernetes quantity in bytes (or units)."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3}
    text = str(text)
    for unit, factor in units.items():
        if text.endswith(unit):
            return float(text[: -len(unit)]) * factor
    return float(text)
