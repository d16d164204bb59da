"""A marker in everything that can hold a secret: what a chart makes has it in Secrets, and nowhere else."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.charts.options import OPTIONS, Values
from tests.charts.rendering import CASES, CHARTS, NAMES, NAMESPACE, Failed, Object, name_of, render

pytestmark = pytest.mark.charts
MARK = "zqMARKERqz"
MARKED = f"https://ada:{MARK}@tools.example.com/hooks/{MARK}"
TOKEN = f"https://{MARK}@tools.example.com"
"""A token alone, as some services take it before the @."""
SECRET = {"config.notify_url"}
"""Values that are secrets themselves. All others name a Secret, or must not have one in them."""
ALL_ON = [(chart, values) for chart, sets in OPTIONS.items() for values in sets.values()]


def texts(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every text below some values."""
    if isinstance(values, dict | list):
        for key, one in values.items() if isinstance(values, dict) else enumerate(values):
            yield from texts(one, (*path, key))
    elif isinstance(values, str):
        yield path


def planted(values: Values, path: tuple[Any, ...], text: str) -> Values:
    """The values with a text at a path."""
    changed = copy.deepcopy(values)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = text
    return changed


def places(chart: str) -> list[tuple[Values, tuple[Any, ...]]]:
    """Every text among the values of a chart: those that there are, and those that its options bring."""
    found: dict[str, tuple[Values, tuple[Any, ...]]] = {}
    for values in (yaml.safe_load((CHARTS / chart / "values.yaml").read_text()), *OPTIONS[chart].values()):
        for path in texts(values):
            found.setdefault(".".join(map(str, path)), (values, path))
    return list(found.values())


def holders(objects: list[Object]) -> list[str]:
    """The objects that have the marker in them, in clear or as a Secret writes it."""
    codes = [base64.b64encode(text.encode()).decode() for text in (MARKED, TOKEN)]
    return [name_of(one) for one in objects if any(code in json.dumps(one) for code in (MARK, *codes))]


@pytest.mark.parametrize(("chart", "url"), [*((chart, MARKED) for chart in NAMES), ("mlflow", TOKEN)])
def test_credentials_in_a_value_are_refused_or_kept_in_a_secret(chart: str, url: str) -> None:
    """Wherever a text may stand."""
    refused = 0
    for values, path in places(chart):
        named = ".".join(map(str, path))
        try:
            objects = render(chart, set=planted(values, path, url))
        except Failed as error:
            refused += 1
            assert str(path[0]) in str(error), error
            continue
        assert named in SECRET, f"{named} stands in {holders(objects)}"
        assert holders(objects) == ["Secret/tipbench-notify"]
    assert refused


def test_the_refusal_names_the_value_and_what_to_do_and_does_not_repeat_it() -> None:
    values = {
        "mlflow": {"url": MARKED},
        "stages": {"collect": {"extraEnv": [{"name": "HTTPS_PROXY", "value": MARKED}]}},
    }
    with pytest.raises(
        Failed, match=r"mlflow.url, stages.collect.extraEnv\[0\].value: .*put it into a Secret"
    ) as failed:
        render("tipbench", set=values)
    assert MARK not in str(failed.value)
    by_reference = {"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}
    assert render("tipbench", set={"stages": {"collect": {"extraEnv": [by_reference]}}})


@pytest.mark.parametrize(
    "text", ["https://host/path?mail=a@b.c", "see https://wiki.example, or ask ada@example.com", "ada@example.com"]
)
def test_an_at_sign_elsewhere_is_no_password(text: str) -> None:
    assert render("tipbench", set={"stages": {"podAnnotations": {"contact": text}}})


def said(chart: str, values: Values, file: str | None = None) -> tuple[str, list[Object]]:
    """What `helm install` shows a person besides the objects (NOTES.txt), and the objects."""
    command = [
        "helm",
        "install",
        chart,
        str(CHARTS / chart),
        "--namespace",
        NAMESPACE,
        "--dry-run=client",
        "-o",
        "json",
    ]
    command += ["--values", str(CHARTS / chart / file)] if file else []
    done = subprocess.run(
        [*command, "--values", "-"], input=json.dumps(values), capture_output=True, text=True, check=True
    )
    release = json.loads(done.stdout)
    hooks = [hook["manifest"] for hook in release.get("hooks") or []]
    objects = [one for text in (release["manifest"], *hooks) for one in yaml.load_all(text, yaml.CSafeLoader) if one]
    return str(release["info"]["notes"]), objects


GENERATED = [(c, f, s) for c, f, s in CASES] + [(chart, None, values) for chart, values in ALL_ON]


@pytest.mark.parametrize(("chart", "file", "values"), GENERATED, ids=[str(n) for n in range(len(GENERATED))])
def test_what_a_secret_holds_stands_nowhere_else(chart: str, file: str | None, values: Values) -> None:
    """Generated passwords, tokens and keys, and what was given as a value."""
    notes, objects = said(chart, values, file)
    held = {
        base64.b64decode(value).decode()
        for one in objects
        if one["kind"] == "Secret"
        for key, value in one.get("data", {}).items()
        if not key.lower().endswith("username")
    }
    rest = notes + json.dumps([one for one in objects if one["kind"] != "Secret"])
    assert all(len(secret) >= 16 for secret in held), "short enough to stand somewhere by chance"
    assert not [secret for secret in held if secret in rest]
