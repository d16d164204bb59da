"""What has to hold for every chart, with every values file: security, limits, labels, selectors, what stays."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.charts.rendering import (
    CASES,
    CHARTS,
    NAMES,
    NAMESPACE,
    ROOT,
    Failed,
    Object,
    env,
    kind,
    matches,
    name_of,
    pods,
    render,
)

pytestmark = pytest.mark.charts

every = pytest.mark.parametrize(
    ("chart", "values_file", "set"),
    CASES,
    ids=[f"{c}-{(f or 'defaults').removesuffix('.yaml')}{'-' + '-'.join(s) if s else ''}" for c, f, s in CASES],
)
each_chart = pytest.mark.parametrize("chart", NAMES)

MAY_TALK_TO_KUBERNETES = {
    "Deployment/airflow-scheduler",
    "Deployment/airflow-triggerer",
    "CronJob/tipbench-collect",
    "CronJob/tipbench-judge",
}
LABELS = {
    *(f"app.kubernetes.io/{name}" for name in ("name", "instance", "version", "managed-by", "component", "part-of")),
    "helm.sh/chart",
}
STABLE_LABELS = LABELS - {"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}


# -- values --------------------------------------------------------------------------------------


@each_chart
def test_lints_strictly(chart: str) -> None:
    command = ["helm", "lint", "--strict", "--quiet", str(CHARTS / chart)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_chart
@pytest.mark.parametrize("where", [(), ("networkPolicy",), ("test", "image"), ("test", "resources")])
def test_a_typo_in_a_value_is_an_error_that_names_it(chart: str, where: tuple[str, ...]) -> None:
    values: dict[str, Any] = {"replicsa": 2}
    for key in reversed(where):
        values = {key: values}
    with pytest.raises(Failed, match="replicsa"):
        render(chart, set=values)


@each_chart
def test_schema_knows_exactly_the_values_there_are(chart: str) -> None:
    """Key by key: what values.yaml has the schema bounds, and the schema has no key that values.yaml does not show."""
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())

    def compare(node: Object, value: Any, path: str) -> None:
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        if "properties" not in node or not isinstance(value, dict):
            return
        free = path.endswith((".requests", ".limits"))
        assert free or node["additionalProperties"] is False, f"{path}: a typo would pass"
        known = set(node["properties"]) - ({"global"} if not path else set())
        assert free or known == set(value), f"{path}: {known ^ set(value)}"
        for key in set(value) & known:
            compare(node["properties"][key], value[key], f"{path}.{key}")

    compare(schema, values, "")


@each_chart
def test_global_values_of_an_umbrella_chart_are_let_through(chart: str) -> None:
    assert render(chart, set={"global": {"anything": True}})


@pytest.mark.parametrize(
    ("chart", "values", "named"),
    [
        ("ollama", {"replicas": 0}, "replicas"),
        ("ollama", {"memory": "4 GB"}, "memory"),
        ("ollama", {"image": {"tag": "latest"}}, "tag"),
        ("ollama", {"models": {"tags": ["a b"]}}, "tags"),
        ("ollama", {"extraEnv": [{"name": "OLLAMA_NUM_PARALLEL", "value": "4"}]}, "extraEnv"),
        ("mlflow", {"resources": {"limits": {"memory": None}}}, "memory"),
        ("mlflow", {"staticPrefix": "mlflow/"}, "staticPrefix"),
        ("mlflow", {"ingress": {"enabled": True}}, "hosts"),
        ("mlflow", {"externalDatabase": {"existingSecret": "own"}}, "postgresql.enabled=false"),
        ("mlflow", {"workers": 2, "postgresql": {"enabled": False}}, "workers=1"),
        ("mlflow", {"service": {"type": "NodePort", "nodePort": 5000}}, "nodePort"),
        ("airflow", {"parallelism": 0}, "parallelism"),
        ("airflow", {"postgresql": {"enabled": False}}, "externalDatabase.existingSecret"),
        ("airflow", {"pool": {"slots": 0}}, "slots"),
        ("tipbench", {"config": {"experiment": "bench"}}, "experiment"),
        ("tipbench", {"config": {"n_tips": 201}}, "n_tips"),
        ("tipbench", {"stages": {"judge": {"with": "me"}}}, "with"),
        ("tipbench", {"policy": {"maxMemory": "lots"}}, "maxMemory"),
    ],
)
def test_a_value_out_of_bounds_is_an_error_that_names_it(chart: str, values: Object, named: str) -> None:
    with pytest.raises(Failed, match=re.escape(named)):
        render(chart, set=values)


def test_readmes_are_what_the_values_say() -> None:
    command = [sys.executable, str(CHARTS / "readme.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@each_chart
def test_version_is_the_package_version(chart: str) -> None:
    """Own images carry the package's version as tag, and the chart's version is the default tag."""
    from tipbench import __version__

    assert yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())["version"] == __version__


@pytest.mark.parametrize(
    ("file", "charts"),
    [("_helpers.tpl", NAMES), ("postgresql.yaml", ("mlflow", "airflow"))],
    ids=["helpers", "postgresql"],
)
def test_shared_templates_are_the_same_in_each_chart(file: str, charts: tuple[str, ...]) -> None:
    assert len({(CHARTS / chart / "templates" / file).read_text() for chart in charts}) == 1


# -- pods ----------------------------------------------------------------------------------------


@every
def test_pods_satisfy_pod_security_restricted(chart: str, values_file: str | None, set: Object) -> None:
    for pod in pods(render(chart, values_file, set)):
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True, pod.owner
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 65532, pod.owner
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, pod.owner
        assert not any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), pod.owner
        assert not any("hostPath" in volume for volume in pod.spec.get("volumes", [])), pod.owner
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }, f"{pod.owner} {container['name']}"
            assert not any("hostPort" in port for port in container.get("ports", [])), pod.owner


@every
def test_every_container_has_a_memory_limit_and_requests(chart: str, values_file: str | None, set: Object) -> None:
    for pod in pods(render(chart, values_file, set)):
        for container in pod.containers:
            resources = container["resources"]
            assert resources["limits"]["memory"], f"{pod.owner} {container['name']}"
            assert {"cpu", "memory"} <= resources["requests"].keys(), f"{pod.owner} {container['name']}"


@every
def test_images_have_a_version(chart: str, values_file: str | None, set: Object) -> None:
    for pod in pods(render(chart, values_file, set)):
        for container in pod.containers:
            repository, _, tag = container["image"].rpartition(":")
            assert repository and tag and tag != "latest", container["image"]
            assert container["imagePullPolicy"] == "IfNotPresent"


@every
def test_only_those_that_talk_to_kubernetes_get_a_token(chart: str, values_file: str | None, set: Object) -> None:
    objects = render(chart, values_file, set)
    for pod in pods(objects):
        wanted = pod.owner in MAY_TALK_TO_KUBERNETES
        assert pod.spec["automountServiceAccountToken"] is wanted, pod.owner
        if wanted:
            assert pod.spec["serviceAccountName"] in {a["metadata"]["name"] for a in kind(objects, "ServiceAccount")}
    for account in kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@every
def test_service_variables_do_not_reach_the_pods(chart: str, values_file: str | None, set: Object) -> None:
    """A Service named mlflow would set MLFLOW_PORT, which `mlflow server` reads."""
    assert all(pod.spec["enableServiceLinks"] is False for pod in pods(render(chart, values_file, set)))


@every
def test_volumes_and_mounts_belong_together(chart: str, values_file: str | None, set: Object) -> None:
    objects = render(chart, values_file, set)
    claims = {
        name_of(one): [c["metadata"]["name"] for c in one["spec"].get("volumeClaimTemplates", [])]
        for one in kind(objects, "StatefulSet")
    }
    for pod in pods(objects):
        there = {volume["name"] for volume in pod.spec.get("volumes", [])} | {*claims.get(pod.owner, [])}
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        assert there == mounted, pod.owner


@every
def test_secrets_reach_containers_by_reference_only(chart: str, values_file: str | None, set: Object) -> None:
    objects = render(chart, values_file, set)
    telling = re.compile(r"PASSWORD$|TOKEN$|SECRET$|SECRET_KEY|FERNET|API_KEY")
    for pod in pods(objects):
        for container in pod.containers:
            for name, value in env(container).items():
                assert not telling.search(name) or isinstance(value, dict), f"{pod.owner}: {name}"
    for config in kind(objects, "ConfigMap"):
        assert not [key for key in config["data"] if telling.search(key) and key not in ("TIPBENCH_MLFLOW_SECRET",)]


@every
def test_what_a_pod_refers_to_is_made_or_given(chart: str, values_file: str | None, set: Object) -> None:
    """Secrets, ConfigMaps and claims that pods name are in the release, or were named in the values."""
    objects = render(chart, values_file, set)
    given = json.dumps(set) + ((CHARTS / chart / values_file).read_text() if values_file else "")
    given += (CHARTS / chart / "values.yaml").read_text()
    made = {name_of(one) for one in objects}
    for pod in pods(objects):
        refs = [
            f"Secret/{e['valueFrom']['secretKeyRef']['name']}"
            for c in pod.containers
            for e in c.get("env", [])
            if "secretKeyRef" in e.get("valueFrom", {})
        ]
        for source in (s for c in pod.containers for s in c.get("envFrom", [])):
            refs += [
                f"{k}/{source[f]['name']}"
                for k, f in (("ConfigMap", "configMapRef"), ("Secret", "secretRef"))
                if f in source
            ]
        for volume in pod.spec.get("volumes", []):
            refs += [f"ConfigMap/{volume['configMap']['name']}"] if "configMap" in volume else []
            refs += [f"Secret/{volume['secret']['secretName']}"] if "secret" in volume else []
            refs += (
                [f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}"]
                if "persistentVolumeClaim" in volume
                else []
            )
        for ref in refs:
            assert ref in made or ref.split("/")[1] in given, f"{pod.owner} needs {ref}"


@every
def test_probes_and_ports_agree(chart: str, values_file: str | None, set: Object) -> None:
    """What runs on has probes, for readiness too if it serves something; a probe by name goes to a port that is there."""
    objects = render(chart, values_file, set)
    for pod in pods(objects):
        if pod.owner.split("/")[0] not in ("Deployment", "StatefulSet"):
            continue
        serves = any(matches({"matchLabels": s["spec"]["selector"]}, pod.labels) for s in kind(objects, "Service"))
        (container,) = pod.spec["containers"]
        names = {port["name"] for port in container.get("ports", [])}
        assert {"startupProbe", "livenessProbe", *(["readinessProbe"] if serves else [])} <= container.keys(), pod.owner
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            action = container.get(probe, {})
            assert "httpGet" not in action or action["httpGet"]["port"] in names, f"{pod.owner}: {probe}"


# -- labels and selectors ------------------------------------------------------------------------


@every
def test_recommended_labels_are_on_every_object_and_pod(chart: str, values_file: str | None, set: Object) -> None:
    objects = render(chart, values_file, set)
    for one in objects:
        assert one["metadata"]["labels"].keys() >= LABELS, name_of(one)
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "tipbench"
        for claim in one.get("spec", {}).get("volumeClaimTemplates", []):
            assert claim["metadata"]["labels"].keys() == STABLE_LABELS, (
                "claim templates cannot change, so no versions on them"
            )
    for pod in pods(objects):
        assert pod.labels.keys() >= LABELS, pod.owner


@every
def test_selectors_choose_their_own_pods_and_no_versions(chart: str, values_file: str | None, set: Object) -> None:
    objects = render(chart, values_file, set)
    by_owner = {pod.owner: pod for pod in pods(objects)}
    for one in kind(objects, "Deployment") + kind(objects, "StatefulSet"):
        selector = one["spec"]["selector"]
        chosen = [owner for owner, pod in by_owner.items() if matches(selector, pod.labels)]
        assert chosen == [name_of(one)]
        assert selector["matchLabels"].keys() <= STABLE_LABELS, "selectors cannot change"


@every
def test_services_lead_to_a_workload_and_a_port_of_it(chart: str, values_file: str | None, set: Object) -> None:
    objects = render(chart, values_file, set)
    for service in kind(objects, "Service"):
        chosen = [pod for pod in pods(objects) if matches({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        assert len(chosen) == 1, name_of(service)
        there = {port["name"] for container in chosen[0].containers for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= there, name_of(service)
    for ingress in kind(objects, "Ingress"):
        services = {s["metadata"]["name"]: {p["port"] for p in s["spec"]["ports"]} for s in kind(objects, "Service")}
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                target = path["backend"]["service"]
                assert target["port"]["number"] in services[target["name"]]


@every
def test_network_policies_choose_pods_and_cover_all(chart: str, values_file: str | None, set: Object) -> None:
    """Every policy chooses a pod, every pod that runs has one, and named ports exist on the pods they are opened on."""
    objects = render(chart, values_file, set)
    policies, all_pods = kind(objects, "NetworkPolicy"), list(pods(objects))
    for policy in policies:
        chosen = [pod for pod in all_pods if matches(policy["spec"]["podSelector"], pod.labels)]
        assert chosen, name_of(policy)
        there = {port["name"] for pod in chosen for c in pod.containers for port in c.get("ports", [])}
        for rule in policy["spec"].get("ingress", []):
            assert {p["port"] for p in rule["ports"] if isinstance(p["port"], str)} <= there, name_of(policy)
    for pod in all_pods:
        if pod.labels["app.kubernetes.io/component"] != "test":
            both = {
                t for p in policies if matches(p["spec"]["podSelector"], pod.labels) for t in p["spec"]["policyTypes"]
            }
            assert both == {"Ingress", "Egress"}, pod.owner


@every
def test_disruption_budgets_leave_room(chart: str, values_file: str | None, set: Object) -> None:
    """A budget on a single replica would keep its node from being drained for ever."""
    objects = render(chart, values_file, set)
    for budget in kind(objects, "PodDisruptionBudget"):
        workload = next(
            one
            for one in kind(objects, "Deployment") + kind(objects, "StatefulSet")
            if matches(budget["spec"]["selector"], one["spec"]["template"]["metadata"]["labels"])
        )
        assert workload["spec"]["replicas"] > 1
        assert budget["spec"]["maxUnavailable"] == 1


# -- what stays, and what changes -----------------------------------------------------------------


@every
def test_volumes_and_generated_secrets_outlive_the_release(chart: str, values_file: str | None, set: Object) -> None:
    objects = render(chart, values_file, set)
    # What was given as a value goes when the value goes.
    given = [one for one in kind(objects, "Secret") if one["metadata"]["name"] == "tipbench-notify"]
    for one in kind(objects, "PersistentVolumeClaim") + [s for s in kind(objects, "Secret") if s not in given]:
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", name_of(one)
    for one in kind(objects, "StatefulSet"):
        assert one["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


@pytest.mark.parametrize(
    ("chart", "existing"),
    [
        (
            "mlflow",
            {
                "auth": {"enabled": True, "existingSecret": "mine", "existingSessionSecret": "mine"},
                "postgresql": {"existingSecret": "mine"},
            },
        ),
        (
            "airflow",
            {
                "admin": {"existingSecret": "mine"},
                "keys": {"existingSecret": "mine"},
                "postgresql": {"existingSecret": "mine"},
            },
        ),
        ("tipbench", {"api": {"existingSecret": "mine"}, "airflow": {"existingSecret": "mine"}}),
    ],
)
def test_existing_secrets_replace_all_generated_ones(chart: str, existing: Object) -> None:
    objects = render(chart, set=existing)
    assert not kind(objects, "Secret")
    names = {
        e["valueFrom"]["secretKeyRef"]["name"]
        for pod in pods(objects)
        for container in pod.containers
        for e in container.get("env", [])
        if "secretKeyRef" in e.get("valueFrom", {})
    }
    assert names == {"mine"}


@pytest.mark.parametrize(
    ("chart", "owner", "change"),
    [
        ("mlflow", "Deployment/mlflow", {"allowedHosts": ["mlflow.example.com"]}),
        ("airflow", "Deployment/airflow-scheduler", {"parallelism": 3}),
        ("airflow", "Deployment/airflow-api-server", {"baseUrl": "https://airflow.example.com"}),
        ("tipbench", "Deployment/tipbench-api", {"config": {"n_tips": 3}}),
    ],
)
def test_a_changed_configuration_restarts_what_reads_it(chart: str, owner: str, change: Object) -> None:
    def checksum(values: Object) -> str:
        (pod,) = [pod for pod in pods(render(chart, set=values)) if pod.owner == owner]
        return pod.annotations["checksum/config"]

    assert checksum({}) != checksum(change)
    assert checksum({}) == checksum({"networkPolicy": {"enabled": False}})


@pytest.mark.parametrize(
    ("chart", "change"),
    [
        ("ollama", {"models": {"tags": ["qwen2.5:0.5b"]}}),
        ("ollama", {"replicas": 2}),
        ("ollama", {"models": {"resources": {"limits": {"memory": "300Mi"}}}}),
        ("airflow", {"pool": {"slots": 3}}),
        ("airflow", {"image": {"tag": "0.2.1"}}),
        ("airflow", {"setup": {"resources": {"limits": {"memory": "900Mi"}}}}),
    ],
)
def test_a_job_that_does_something_else_has_another_name(chart: str, change: Object) -> None:
    """A Job cannot be changed: an upgrade that tried to would fail."""
    (before,), (after,) = kind(render(chart), "Job"), kind(render(chart, set=change), "Job")
    assert before["metadata"]["name"] != after["metadata"]["name"]
    (same,) = kind(render(chart, set={"networkPolicy": {"enabled": False}}), "Job")
    assert same == before


@each_chart
def test_helm_test_goes_through_the_service(chart: str) -> None:
    objects = render(chart, "values-kind.yaml")
    services = {one["metadata"]["name"]: one["spec"]["ports"][0]["port"] for one in kind(objects, "Service")}
    (test,) = [one for one in kind(objects, "Pod") if one["metadata"]["annotations"]["helm.sh/hook"] == "test"]
    (url,) = [value for name, value in env(test["spec"]["containers"][0]).items() if name.endswith("_URL")]
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    assert services[host] == int(port)
    compile(test["spec"]["containers"][0]["args"][0], "test", "exec")


@each_chart
def test_python_in_the_templates_compiles(chart: str) -> None:
    for pod in pods(render(chart, "values-prod.yaml")):
        for container in pod.containers:
            if container.get("command") == ["python3", "-c"]:
                compile(container["args"][0], pod.owner, "exec")


def test_the_how_to_for_an_own_airflow_sets_what_the_chart_sets() -> None:
    """docs/how-to/own-airflow-values.yaml has the DAG's variables as charts/airflow sets them, for an Airflow in a namespace of its own."""
    values = yaml.safe_load((ROOT / "docs" / "how-to" / "own-airflow-values.yaml").read_text())
    given = {e["name"]: e["value"] for e in values["env"]}
    config = next(c for c in kind(render("airflow"), "ConfigMap") if c["metadata"]["name"] == "airflow-config")["data"]
    ours = {key: value for key, value in config.items() if key.startswith(("TIPBENCH_", "AIRFLOW_CONN_"))}
    ours["TIPBENCH_MLFLOW_URL"] = ours["TIPBENCH_MLFLOW_URL"].replace("//mlflow:", f"//mlflow.{NAMESPACE}:")
    for variables in (given, ours):
        connection = json.loads(variables.pop("AIRFLOW_CONN_KUBERNETES_DEFAULT"))
        variables |= {f"connection {key}": str(value) for key, value in connection["extra"].items()}
    assert given == ours
