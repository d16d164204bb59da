"""Every chart, with every values file and with every option on, makes objects that Kubernetes would take: its published schemas, strictly.

The same objects go through a server-side dry run on kind in tests/e2e/test_objects.py.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes_validate import utils

from tests.charts.options import OPTIONS, Values
from tests.charts.rendering import CASES, CHARTS, NAMES, Failed, Object, find, kind, name_of, pods, render
from tipbench.cluster import fitted_name

pytestmark = pytest.mark.charts

# It reads its schemas, megabytes of JSON, for every object anew.
utils.schema_contents = functools.cache(utils.schema_contents)

VERSIONS = ("1.30", "1.34")
"""The oldest Kubernetes that the charts name, and the one that the end-to-end tests run."""
ALL_ON = [(chart, None, values) for chart, sets in OPTIONS.items() for values in sets.values()]
IDS = [f"{c}-{(f or 'defaults').removesuffix('.yaml')}{'-' + '-'.join(s) if s else ''}" for c, f, s in CASES] + [
    f"{chart}-{name}" for chart, sets in OPTIONS.items() for name in sets
]


def check(one: Object, version: str) -> None:
    """Raises ValidationError where an object, or the pod inside a template, is not what the schema says, unknown keys included."""
    kubernetes_validate.validate(one, version, strict=True)
    if one["kind"] == "ConfigMap" and one["metadata"]["name"].endswith("-pods"):
        for text in one["data"].values():
            pod = json.loads(text)
            pod["metadata"]["name"] = "stage"
            kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("chart", "values_file", "set"), CASES + ALL_ON, ids=IDS)
def test_objects_are_what_kubernetes_takes(chart: str, values_file: str | None, set: Values, version: str) -> None:
    for one in render(chart, values_file, set):
        try:
            check(one, version)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{name_of(one)}: {error.message} at {list(error.path)}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec: spec.update(imagePullSecrets=["a-string"]), "not of type"),
        (lambda spec: spec["containers"][0].update(imagePullPolcy="Always"), "imagePullPolcy"),
        (lambda spec: spec["containers"][0].pop("name"), "name"),
    ],
)
def test_the_check_would_see_what_no_api_server_takes(change: Any, words: str) -> None:
    job = copy.deepcopy(kind(render("ollama"), "Job")[0])
    change(job["spec"]["template"]["spec"])
    with pytest.raises(kubernetes_validate.ValidationError, match=words):
        check(job, VERSIONS[0])


def leaves(values: Any, path: str = "") -> dict[str, Any]:
    """path -> value of everything that is not a mapping with keys of ours (an annotation's key is not)."""
    if isinstance(values, dict) and values and not any("/" in key for key in values):
        return {
            p: v for key, value in values.items() for p, v in leaves(value, f"{path}.{key}" if path else key).items()
        }
    return {path: values}


@pytest.mark.parametrize("chart", NAMES)
def test_every_option_is_turned_on_somewhere(chart: str) -> None:
    """A value that no set changes is one that no test has seen: a new one goes into tests/charts/options.py."""
    defaults = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    changed = {
        path
        for values in OPTIONS[chart].values()
        for path, value in leaves(values).items()
        if leaves(defaults).get(path, ...) != value
    }
    left = {
        path
        for path, value in leaves(defaults).items()
        if not any(one == path or one.startswith((path + ".", path + "[")) for one in changed)
        # What is on in the defaults is seen there.
        and value is not True
    }
    assert not left


@pytest.mark.parametrize("chart", NAMES)
@pytest.mark.parametrize("secrets", [["one", "two"], [{"name": "one"}, {"name": "two"}], ["one", {"name": "two"}]])
def test_pull_secrets_reach_every_pod_however_they_are_written(chart: str, secrets: list[Any]) -> None:
    objects = render(chart, set={"imagePullSecrets": secrets})
    wanted = [{"name": "one"}, {"name": "two"}]
    assert all(pod.spec["imagePullSecrets"] == wanted for pod in pods(objects))
    if chart == "airflow":
        assert find(objects, "ConfigMap", "airflow-config")["data"]["TIPBENCH_IMAGE_PULL_SECRETS"] == "one,two"
    if chart == "tipbench":
        for text in find(objects, "ConfigMap", "tipbench-pods")["data"].values():
            assert json.loads(text)["spec"]["imagePullSecrets"] == wanted


# -- names ---------------------------------------------------------------------------------------

LONGEST = {"CronJob": 52, "Service": 63, "Job": 63, "StatefulSet": 52}
"""What the API server takes; a StatefulSet's pods carry a label of its name and eleven characters."""


@pytest.mark.parametrize("chart", NAMES)
@pytest.mark.parametrize("length", range(38, 54))
def test_a_long_release_name_makes_names_that_fit_or_is_refused_with_a_sentence(chart: str, length: int) -> None:
    name = "r" * length
    try:
        objects = render(chart, release=name)
    except Failed as error:
        assert re.search(rf"release name \W*{name}\W* has {length} characters; .* use at most \d+", str(error))
        assert length > int(re.search(r"at most (\d+)", str(error))[1])  # type: ignore[index]
        return
    for one in objects:
        assert len(one["metadata"]["name"]) <= LONGEST.get(one["kind"], 253), name_of(one)
        labels = (
            one["metadata"]["labels"] | {"name": one["metadata"]["name"]}
            if one["kind"] == "Job"
            else one["metadata"]["labels"]
        )
        assert all(len(value) <= 63 for value in labels.values()), name_of(one)


@pytest.mark.parametrize("release", ["1st", "a.b", "v1.2"])
def test_a_release_name_that_cannot_name_a_service_is_refused(release: str) -> None:
    for chart in NAMES:
        with pytest.raises(Failed, match="cannot name a Service"):
            render(chart, release=release)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.from_regex(r"\Atip-bench-[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z"))
def test_an_experiment_is_labelled_by_the_rule_of_the_package(experiment: str) -> None:
    """In a CronJob's label, in the DAG's, and in tipbench.cluster: one rule."""
    objects = render("tipbench", set={"config": {"experiment": experiment}})
    labels = {one["metadata"]["labels"]["tipbench.dev/experiment"] for one in kind(objects, "CronJob")}
    assert labels == {fitted_name(experiment)}


# -- services and images ---------------------------------------------------------------------------


@pytest.mark.parametrize("chart", NAMES)
def test_a_port_on_the_nodes_is_named_only_where_there_is_one(chart: str) -> None:
    """The API server turns a ClusterIP with a nodePort away; a values file may set one and a later one the type."""
    for service_type, there in (("ClusterIP", False), ("NodePort", True), ("LoadBalancer", True)):
        objects = render(chart, set={"service": {"type": service_type, "nodePort": 31234}})
        ports = [
            p for s in kind(objects, "Service") if s["spec"].get("type") == service_type for p in s["spec"]["ports"]
        ]
        assert any("nodePort" in port for port in ports) is there


def test_an_image_by_digest_has_no_tag() -> None:
    for chart, sets in OPTIONS.items():
        images = [c["image"] for pod in pods(render(chart, set=sets["all"])) for c in pod.containers]
        assert any("@sha256:" in image for image in images), chart
        assert all(re.fullmatch(r"[^@:]+(:\d+/[^@:]+)?(:[^@:]+|@sha256:[0-9a-f]{64})", image) for image in images), (
            images
        )
