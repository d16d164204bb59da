"""What the charts render is what an API server takes: every chart, values file and option, and the longest release names, in a dry run."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.charts.options import OPTIONS, Values
from tests.charts.rendering import CASES, NAMES, Object, render
from tests.e2e.conftest import CONTEXT, SMALL, Airflow, Mlflow, applied, kubectl, objects, restored, until, upgrade

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
SCRATCH = "tipbench-dry-run"
TAKEN = {30080, 30500, 30800}
"""Ports on the node that the releases of this cluster hold: nobody else can have them."""
LONGEST = {"ollama": 47, "mlflow": 41, "airflow": 41, "tipbench": 44}
ALL = [(chart, file, values, chart) for chart, file, values in CASES]
ALL += [(chart, None, values, chart) for chart, sets in OPTIONS.items() for values in sets.values()]
ALL += [(chart, None, {}, "r" * longest) for chart, longest in LONGEST.items()]
IDS = [
    f"{c}-{(f or 'defaults').removesuffix('.yaml')}{'-' + '-'.join(sorted(s))[:40] if s else ''}-{len(r)}"
    for c, f, s, r in ALL
]


@pytest.fixture(scope="module", autouse=True)
def scratch() -> Iterator[None]:
    """A namespace as strict as ours, with what bare pods look for before they are let in."""
    classes = [
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "runc"}
        for name in ("gvisor", "nvidia")
    ]
    names = {"tipbench-stage", f"{'r' * LONGEST['tipbench']}-stage"}
    accounts = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SCRATCH}} for name in names]  # fmt: skip
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SCRATCH, "labels": labels}}
    for one in (namespace, *classes, *accounts):
        cluster_wide("apply", "-f", "-", stdin=json.dumps(one))
    until(
        "its default account", lambda: "default" in cluster_wide("-n", SCRATCH, "get", "serviceaccounts", "-o", "name")
    )
    yield
    cluster_wide("delete", "namespace", SCRATCH, "--wait=false")
    cluster_wide("delete", "runtimeclass", "gvisor", "nvidia")


def cluster_wide(*words: str, stdin: str = "") -> str:
    """kubectl without a namespace of its own; raises AssertionError with its words."""
    command = ["kubectl", "--context", CONTEXT, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def prepared(objects: list[Object]) -> list[Object]:
    """The objects for the scratch namespace, and the stages' pods out of their ConfigMap."""
    found = list(objects)
    for one in objects:
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].endswith("-pods"):
            for stage, text in one["data"].items():
                pod = json.loads(text)
                pod["metadata"]["name"] = stage.removesuffix(".json")
                found.append({"apiVersion": "v1", "kind": "Pod", **pod})
        for port in one.get("spec", {}).get("ports", []) if one["kind"] == "Service" else []:
            if port.get("nodePort") in TAKEN:
                del port["nodePort"]
    return found


@pytest.mark.parametrize(("chart", "values_file", "set", "release"), ALL, ids=IDS)
def test_the_api_server_takes_every_object(chart: str, values_file: str | None, set: Values, release: str) -> None:
    items = prepared(render(chart, values_file, set, release))
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    said = cluster_wide("apply", "-n", SCRATCH, "--dry-run=server", "--validate=strict", "-f", "-", stdin=body)
    assert said.count("server dry run") == len(items)


def test_the_dry_run_would_see_what_is_wrong() -> None:
    job = next(one for one in render("ollama") if one["kind"] == "Job")
    job["spec"]["template"]["spec"]["imagePullSecrets"] = ["a-string"]
    with pytest.raises(AssertionError, match="imagePullSecrets"):
        cluster_wide("apply", "-n", SCRATCH, "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(job))


def test_helm_takes_pull_secrets_as_kubernetes_writes_them() -> None:
    """What people type: `--set imagePullSecrets[0].name=x`, and the plain name that the charts took before."""
    for chart in NAMES:
        for given in ("imagePullSecrets[0].name=x", "imagePullSecrets[0]=x"):
            command = ["helm", "--kube-context", CONTEXT, "-n", SCRATCH, "install", f"{chart}-2", f"charts/{chart}", "--dry-run=server"]  # fmt: skip
            command += ["--set", given, "--set", "policy.enabled=false"][: 4 if chart == "tipbench" else 2]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert "- name: x" in done.stdout


# -- what one chart is told, the others' pods know -------------------------------------------------

NO_FIXED_USERS: list[Object] = [
    {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "no-fixed-users"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "objectSelector": {"matchExpressions": [{"key": "tipbench.dev/stage", "operator": "Exists"}]},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ],
            },
            "validations": [
                {
                    "expression": "!has(object.spec.securityContext.runAsUser) && !has(object.spec.securityContext.fsGroup) && "
                    "object.spec.containers.all(c, !has(c.securityContext.runAsUser))",
                    "message": "a fixed user",
                }
            ],
        },
    },
    {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "no-fixed-users"},
        "spec": {"policyName": "no-fixed-users", "validationActions": ["Deny"]},
    },
]
"""As OpenShift has it: the namespace says which user a pod runs as, and a pod that names one is turned away."""


@contextlib.contextmanager
def second_pool() -> Iterator[None]:
    """A pool of nodes of its own: this cluster's one node is it, so only what tolerates its taint is scheduled."""
    node = "tipbench-control-plane"
    try:
        cluster_wide("label", "node", node, "pool=second", "--overwrite")
        cluster_wide("taint", "node", node, "pool=second:NoSchedule", "--overwrite")
        yield
    finally:
        cluster_wide("taint", "node", node, "pool-", "--overwrite")
        cluster_wide("label", "node", node, "pool-")


OURS: Values = {
    "runAsUser": None,
    "nodeSelector": {"pool": "second"},
    "tolerations": [{"key": "pool", "operator": "Equal", "value": "second", "effect": "NoSchedule"}],
    "exchange": {"existingClaim": "shared-tips"},
    "catalog": {"configMap": "our-texts", "scenarios": "scenarios.yaml"},
    "stages": {"podLabels": {"team": "tips"}, "collect": {"extraEnv": [{"name": "SSL_CERT_DIR", "value": "/certs"}]}},
}
"""What somebody with such a cluster, a claim and scenarios of their own tells the tipbench chart, and no other."""
SCENARIOS = """
scenarios:
  - id: ours-1
    title: An empty list
    situation: The user has opened the app for the first time this week and looks at an empty list.
"""


def test_what_the_chart_says_of_a_stages_pod_is_so_for_airflow_and_for_a_job(
    airflow: Airflow, mlflow: Mlflow, experiment: str
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "shared-tips"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    texts = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "our-texts"},
        "data": {"scenarios.yaml": SCENARIOS},
    }
    selector = f"tipbench.dev/experiment={experiment}"
    seen: dict[str, Object] = {}

    def look() -> bool:
        for pod in objects("pods", selector):
            seen[pod["metadata"]["labels"]["tipbench.dev/stage"]] = pod
        return airflow.state(run) in ("success", "failed")

    # The pool goes before the release is as it was: the API's pod then tolerates no taint.
    with applied(claim, texts, *NO_FIXED_USERS), restored(), second_pool():
        upgrade(OURS)
        until("pods that name a user are turned away", lambda: "a fixed user" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(pod_naming_a_user()), check=False))  # fmt: skip
        conf = {**SMALL, "prompts": "v1", "models": "smollm2:135m", "experiment": experiment, "judge": "baseline"}
        run = airflow.trigger(**conf)
        until("it ends", look, timeout=480, every=1)
        assert airflow.state(run) == "success"
        name = f"ours-{experiment[-5:]}"
        kubectl("create", "job", "--from=cronjob/tipbench-export", name)
        # What it exports is for other tests; here the pod is looked at, which a node has taken.
        of_job = f"batch.kubernetes.io/job-name={name}"
        until("its pod is on a node", lambda: [p for p in objects("pods", of_job) if p["spec"].get("nodeName")])
        seen["by hand"] = objects("pods", of_job)[0]
        kubectl("delete", "job", name)
    assert {cell["params"]["scenario"] for cell in mlflow.cells(experiment)} == {"ours-1"}, (
        "the catalog reached the pod"
    )
    assert {"collect", "export", "by hand"} <= seen.keys()
    for stage, pod in seen.items():
        spec = pod["spec"]
        assert spec["nodeSelector"] == {"pool": "second"} and "runAsUser" not in spec["securityContext"], stage
        assert [t for t in spec["tolerations"] if t["key"] == "pool"] == OURS["tolerations"], stage
        volumes = {v["name"]: v for v in spec["volumes"]}
        assert volumes["exchange"]["persistentVolumeClaim"]["claimName"] == "shared-tips", stage
        assert pod["metadata"]["labels"]["team"] == "tips", stage
    assert {"name": "SSL_CERT_DIR", "value": "/certs"} in seen["collect"]["spec"]["containers"][0]["env"]


def pod_naming_a_user() -> Object:
    """A stage's pod that says which user it runs as."""
    (container,) = json.loads(kubectl("get", "configmap", "tipbench-pods", "-o", "jsonpath={.data.export\\.json}"))["spec"]["containers"]  # fmt: skip
    spec = {"containers": [container], "securityContext": {"runAsNonRoot": True, "runAsUser": 1000}, "automountServiceAccountToken": False}  # fmt: skip
    spec["volumes"] = [{"name": name, "emptyDir": {}} for name in ("tmp", "exchange", "catalog")]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "named", "labels": {"tipbench.dev/stage": "export"}}, "spec": spec}  # fmt: skip
