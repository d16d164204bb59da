"""One pod for a stage, whoever starts it: what the tipbench chart says reaches the CronJob and the DAG's pod alike."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiClient, ApiException

from tests.charts.conftest import helm  # noqa: F401 - the charts are rendered with the real helm
from tests.charts.rendering import Object, find, pods, render
from tests.dags.test_bench_collect import plan

pytestmark = [pytest.mark.dags, pytest.mark.charts]
STAGES = {"collect": "collect", "export": "export_for_judge", "judge": "judge", "compare": "compare"}
OPTIONS: dict[str, Any] = {
    "exchange": {"existingClaim": "shared-tips"},
    "catalog": {"configMap": "our-catalog"},
    "tolerations": [{"key": "pool", "operator": "Equal", "value": "second", "effect": "NoSchedule"}],
    "nodeSelector": {"pool": "second"},
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]}}},
    "priorityClassName": "batch-low",
    "runtimeClassName": "gvisor",
    "runAsUser": None,
    "imagePullSecrets": ["one", {"name": "two"}],
    "mlflow": {"existingSecret": "login"},
    "stages": {
        "repository": "registry.example/tips",
        "podLabels": {"team": "tips"},
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        **{stage: {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "TIPBENCH_NUM_CTX", "value": "1"}]} for stage in STAGES},
    },
}  # fmt: skip


class Api:
    """What the operator asks of Kubernetes: the ConfigMap of the release, or an error."""

    def __init__(self, objects: list[Object] | None, status: int = 404) -> None:
        self._objects, self._status = objects, status

    def read_namespaced_config_map(self, name: str, namespace: str) -> Any:
        if self._objects is None:
            raise ApiException(status=self._status, reason="as the test says")
        assert (name, namespace) == ("tipbench-pods", "tipbench")
        return SimpleNamespace(data=find(self._objects, "ConfigMap", name)["data"])


def dag_pod(dag: Any, stage: str, api: Api, monkeypatch: pytest.MonkeyPatch, **environment: str) -> Object:
    """The pod that the DAG starts for a stage, as JSON; its environment names a template, and no image."""
    for name in ("TIPBENCH_IMAGE_REPOSITORY", "TIPBENCH_IMAGE_TAG", "TIPBENCH_MLFLOW_SECRET"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TIPBENCH_POD_TEMPLATE": "tipbench-pods"} | environment).items():
        monkeypatch.setenv(name, value)
    task = dag.get_task(STAGES[stage])
    task = task.unmap(plan(dag)[0]) if stage == "collect" else copy.copy(task)
    task.env_vars = dict(task.env_vars) if isinstance(task.env_vars, dict) else task.env_vars
    task.name = task._set_name(task.name)
    task.__dict__["client"] = api
    task.__dict__["hook"] = SimpleNamespace(
        is_in_cluster=True,
        get_xcom_sidecar_container_image=lambda: None,
        get_xcom_sidecar_container_resources=lambda: None,
        get_xcom_sidecar_container_security_context=lambda: None,
    )
    return ApiClient().sanitize_for_serialization(task.build_pod_request_obj(None))  # type: ignore[no-any-return]


def comparable(pod: Object) -> Object:
    """A pod's spec without what a run adds: arguments, its own variables, and the XCom sidecar with its volume; and without what is
    written as nothing.
    """
    spec = copy.deepcopy(pod["spec"])
    for one in (spec, *spec["containers"]):
        for name in [
            name for name, value in one.items() if value in ([], {}, None) or (name, value) == ("hostNetwork", False)
        ]:
            del one[name]
    spec["containers"] = spec["containers"][:1]
    (container,) = spec["containers"]
    container.pop("args", None)
    container["volumeMounts"] = [m for m in container["volumeMounts"] if m["name"] != "xcom"]
    spec["volumes"] = [v for v in spec["volumes"] if v["name"] != "xcom"]
    own = {"TIPBENCH_RUN", "TIPBENCH_SPOOL", "TIPBENCH_JUDGE", "TIPBENCH_RESULT_FILE"}
    container["env"] = [
        e for e in container["env"] if e["name"] not in own and (e["name"] in ("TIPBENCH_NODE", "TIPBENCH_POD") or not e["name"].startswith("TIPBENCH_"))
    ]  # fmt: skip
    return spec


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "values", [{}, OPTIONS, {"tolerations": OPTIONS["tolerations"]}], ids=["defaults", "all", "one"]
)
def test_the_dags_pod_is_the_cronjobs(
    dag: Any, monkeypatch: pytest.MonkeyPatch, stage: str, values: dict[str, Any]
) -> None:
    objects = render("tipbench", set=values)
    (cronjob,) = [pod for pod in pods(objects) if pod.owner == f"CronJob/tipbench-{stage}"]
    started = dag_pod(dag, stage, Api(objects), monkeypatch)
    assert comparable(started) == comparable({"spec": cronjob.spec})
    labels = started["metadata"]["labels"]
    for name, value in cronjob.labels.items():
        if name not in (
            "tipbench.dev/run",
            "tipbench.dev/experiment",
            "app.kubernetes.io/managed-by",
            "app.kubernetes.io/name",
        ):
            assert labels[name] == value, name


@pytest.mark.parametrize("stage", ["export", "compare"])
@pytest.mark.parametrize("url", ["", "https://other.example/hook"])
def test_a_notice_goes_to_whom_the_chart_names_unless_the_run_says_otherwise(
    dag: Any, monkeypatch: pytest.MonkeyPatch, stage: str, url: str
) -> None:
    objects = render("tipbench", set={"config": {"notify_url": "https://chat.example/hooks/abc"}})
    task = dag.get_task(STAGES[stage])
    given = task.env_vars if isinstance(task.env_vars, dict) else {v.name: v.value for v in task.env_vars}
    monkeypatch.setattr(task, "env_vars", given | {"TIPBENCH_NOTIFY_URL": url})
    env = dag_pod(dag, stage, Api(objects), monkeypatch)["spec"]["containers"][0]["env"]
    (told,) = [e for e in env if e["name"] == "TIPBENCH_NOTIFY_URL"]
    secret = {"secretKeyRef": {"name": "tipbench-notify", "key": "TIPBENCH_NOTIFY_URL"}}
    assert told.get("value") == (url or None) and told.get("valueFrom") == (None if url else secret)


def test_a_parameter_wins_over_an_extra_variable_of_the_chart(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env = dag_pod(dag, "collect", Api(render("tipbench", set=OPTIONS)), monkeypatch)["spec"]["containers"][0]["env"]
    assert [e["value"] for e in env if e["name"] == "TIPBENCH_NUM_CTX"] == ["2048"]
    assert len({e["name"] for e in env}) == len(env)


def test_the_sidecar_is_as_restricted_as_the_stage_and_needs_no_image_of_its_own(
    dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, sidecar = dag_pod(dag, "export", Api(render("tipbench", set=OPTIONS)), monkeypatch)["spec"]["containers"]
    assert sidecar["image"] == stage["image"] and sidecar["securityContext"] == stage["securityContext"]
    assert sidecar["resources"]["limits"]["memory"]


def test_an_image_and_secrets_of_this_airflow_come_on_top(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = dag_pod(
        dag,
        "judge",
        Api(render("tipbench", set=OPTIONS)),
        monkeypatch,
        TIPBENCH_IMAGE_REPOSITORY="registry.other/tips",
        TIPBENCH_IMAGE_PULL_SECRETS="two,three",
        TIPBENCH_MLFLOW_SECRET="login",
        TIPBENCH_JUDGE_SECRET="openai",
    )
    (container,) = pod["spec"]["containers"]
    assert container["image"].startswith("registry.other/tips/judge:")
    assert [s["name"] for s in pod["spec"]["imagePullSecrets"]] == ["one", "two", "three"]
    assert [s["secretRef"]["name"] for s in container["envFrom"] if "secretRef" in s] == ["login", "openai"]


def test_without_the_configmap_the_variables_say_it(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in 0.2.0: an Airflow of one's own, or a tipbench release that has no templates yet."""
    for api, template in ((Api(None, 404), "tipbench-pods"), (Api(None, 500), "")):
        pod = dag_pod(
            dag,
            "compare",
            api,
            monkeypatch,
            TIPBENCH_POD_TEMPLATE=template,
            TIPBENCH_EXCHANGE_CLAIM="mine",
            TIPBENCH_CATALOG_CONFIG_MAP="texts",
            TIPBENCH_STAGE_SERVICE_ACCOUNT="me",
            TIPBENCH_CONFIG_MAP="settings",
        )
        volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
        assert volumes["exchange"]["persistentVolumeClaim"]["claimName"] == "mine"
        assert volumes["catalog"]["configMap"]["name"] == "texts"
        assert pod["spec"]["serviceAccountName"] == "me"
        assert pod["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"] == "settings"
        assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "768Mi"


def test_a_template_that_may_not_be_read_is_no_reason_to_guess(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"--resource=configmaps --resource-name=tipbench-pods"):
        dag_pod(dag, "export", Api(None, 403), monkeypatch)
    with pytest.raises(ApiException):
        dag_pod(dag, "export", Api(None, 503), monkeypatch)
    broken = copy.deepcopy(render("tipbench"))
    find(broken, "ConfigMap", "tipbench-pods")["data"]["export.json"] = "{"
    with pytest.raises(AirflowFailException, match="has no pod for the stage export"):
        dag_pod(dag, "export", Api(broken), monkeypatch)


def test_templates_hold_nothing_of_a_run() -> None:
    for text in find(render("tipbench"), "ConfigMap", "tipbench-pods")["data"].values():
        (container,) = json.loads(text)["spec"]["containers"]
        assert "args" not in container and "TIPBENCH_RUN" not in {e["name"] for e in container["env"]}
