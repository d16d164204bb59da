"""What each chart does: the memory policy, hosts and prefix, pool and connection, guard rails and stages."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendering import CHARTS, NAMES, Failed, Object, Pod, env, find, kind, matches, pods, quantity, render
from tipbench.config import json_schema
from tipbench.memory.sidecar import PORT as SIDECAR_PORT
from tipbench.quantities import memory

pytestmark = pytest.mark.charts


def pod_of(objects: list[Object], owner: str) -> Pod:
    """The pod of the object kind/name."""
    (pod,) = [pod for pod in pods(objects) if pod.owner == owner]
    return pod


def job_pod(objects: list[Object]) -> Pod:
    """The pod of the only Job."""
    (pod,) = [pod for pod in pods(objects) if pod.owner.startswith("Job/")]
    return pod


# -- ollama --------------------------------------------------------------------------------------


@pytest.mark.parametrize("values_file", [None, "values-kind.yaml", "values-prod.yaml"])
def test_ollama_holds_one_model_and_its_memory_is_its_limit(values_file: str | None) -> None:
    (server,) = pod_of(render("ollama", values_file), "StatefulSet/ollama").spec["containers"]
    assert server["resources"]["requests"]["memory"] == server["resources"]["limits"]["memory"]
    policy = {
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_NUM_PARALLEL": "1",
        "LLAMA_ARG_CACHE_RAM": "0",
        "OLLAMA_NO_CLOUD": "1",
        # Else a server is 150 MiB larger after a few loads, and the limit is what the first one takes.
        "MALLOC_ARENA_MAX": "1",
    }
    assert policy.items() <= env(server).items()


def test_ollama_keeps_everything_it_writes_on_its_volume() -> None:
    (server,) = pod_of(render("ollama"), "StatefulSet/ollama").spec["containers"]
    paths = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
    assert env(server)["HOME"] == paths["data"]
    assert env(server)["OLLAMA_MODELS"].startswith(paths["data"] + "/")


def test_ollama_replicas_have_an_address_each_and_all_get_the_models() -> None:
    objects = render("ollama", set={"replicas": 2})
    assert find(objects, "StatefulSet", "ollama")["spec"]["serviceName"] == "ollama-headless"
    assert find(objects, "Service", "ollama-headless")["spec"]["clusterIP"] == "None"
    urls = env(job_pod(objects).containers[0])["OLLAMA_URL"]
    assert urls == "http://ollama-0.ollama-headless:11434,http://ollama-1.ollama-headless:11434"
    assert urls == config_of(render("tipbench", set={"ollama": {"replicas": 2}}))["TIPBENCH_OLLAMA_URL"]
    airflow = find(render("airflow", set={"ollama": {"replicas": 2}}), "ConfigMap", "airflow-config")
    assert urls == airflow["data"]["TIPBENCH_OLLAMA_URL"]


def needs() -> dict[str, dict[str, list[int]]]:
    return json.loads((CHARTS / "ollama" / "files" / "memory.json").read_text())  # type: ignore[no-any-return]


def memory_of_ollama(values: Object) -> str:
    (server,) = pod_of(render("ollama", set=values), "StatefulSet/ollama").spec["containers"]
    return str(server["resources"]["limits"]["memory"])


@pytest.mark.parametrize("num_ctx", [512, 1024, 1500, 8192, 32768, 1_000_000])
@pytest.mark.parametrize("tags", [["qwen2.5:0.5b"], ["gemma3:1b", "qwen2.5:1.5b"], ["qwen2.5:0.5b", "llama3.2:3b"]])
def test_ollama_without_a_memory_gets_what_its_largest_model_needs(tags: list[str], num_ctx: int) -> None:
    def need(tag: str) -> int:
        known = {int(context): sums[0] for context, sums in needs()[tag].items()}
        return known[min([c for c in known if c >= num_ctx], default=max(known))]

    assert memory_of_ollama({"models": {"tags": tags, "numCtx": num_ctx}}) == f"{max(map(need, tags))}Mi"


def test_ollama_refuses_a_memory_that_cannot_hold_the_largest_model_with_the_sum() -> None:
    total, weights, cache, buffers, overhead = needs()["llama3.2:3b"]["2048"]
    assert memory_of_ollama({"memory": f"{total}Mi"}) == f"{total}Mi"
    words = f"llama3.2:3b.*2048 it needs {total}Mi .weights {weights} . KV cache {cache} . buffers {buffers} . overhead {overhead} MiB"
    for too_little in (f"{total - 1}Mi", "1Gi", "1500M", "2.2Gi"):
        with pytest.raises(Failed, match=words):
            render("ollama", set={"memory": too_little})


def test_ollama_knows_models_of_ones_own_by_their_value_only() -> None:
    own = {"tags": ["my:7b", "qwen2.5:0.5b"]}
    with pytest.raises(Failed, match="my:7b"):
        render("ollama", set={"models": own})
    assert memory_of_ollama({"memory": "1Gi", "models": own}) == "1Gi"
    assert memory_of_ollama({"models": {**own, "memory": {"my:7b": "5.5Gi"}}}) == "5632Mi"
    with pytest.raises(Failed, match="cannot hold my:7b"):
        render("ollama", set={"memory": "5Gi", "models": {**own, "memory": {"my:7b": "5.5Gi"}}})


@pytest.mark.parametrize(
    "text", ["4000000k", "1.5Gi", "2e9", "2.5E9", "2E+9", "0.5Gi", ".75Gi", "3.Gi", "512Mi", "1500000000000m", "2000000000", "1T", "0.001Pi"]
)  # fmt: skip
def test_ollama_reads_quantities_as_kubernetes_and_tipbench_do(text: str) -> None:
    values = {"models": {"tags": ["mine:7b"], "memory": {"mine:7b": text}}}
    (server, *_) = pod_of(render("ollama", set=values), "StatefulSet/ollama").spec["containers"]
    assert server["resources"]["limits"]["memory"] == f"{math.ceil(memory(text) / 2**20)}Mi"
    assert render("tipbench", set={"policy": {"maxMemory": text}, "config": {"memory_limit": text}})


@pytest.mark.parametrize(
    "text", ["", "0", "0Gi", "-1Gi", "4 GB", "4GB", "1e", "Gi", ".", "1ki", "NaN", "1e999", "１Gi"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(Failed, match="maxMemory"):
        render("tipbench", set={"policy": {"maxMemory": text}})


def test_ollamas_table_is_what_the_policys_rule_says() -> None:
    done = subprocess.run(
        [sys.executable, str(CHARTS / "memory.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_ollamas_meter_sees_the_servers_processes_and_has_no_other_right() -> None:
    pod = pod_of(render("ollama"), "StatefulSet/ollama")
    (meter,) = pod.spec["initContainers"]
    assert pod.spec["shareProcessNamespace"] is True and meter["restartPolicy"] == "Always"
    assert pod.spec["automountServiceAccountToken"] is False and "volumeMounts" not in meter
    assert meter["ports"] == [{"name": "memory", "containerPort": SIDECAR_PORT}]
    without = pod_of(render("ollama", set={"memoryMeter": {"enabled": False}}), "StatefulSet/ollama").spec
    assert "initContainers" not in without and "shareProcessNamespace" not in without


def test_ollama_on_a_gpu_node() -> None:
    gpu = {
        "extraLimits": {"nvidia.com/gpu": 1},
        "runtimeClassName": "nvidia",
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }
    pod = pod_of(render("ollama", set=gpu), "StatefulSet/ollama")
    resources = pod.spec["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == 1
    assert pod.spec["runtimeClassName"] == "nvidia"
    assert pod.spec["nodeSelector"] == {"gpu": "yes"}
    assert pod.spec["tolerations"] == gpu["tolerations"]


def test_ollama_models_are_provided_by_a_job_that_helm_waits_for() -> None:
    objects = render("ollama", "values-kind.yaml")
    (job,) = kind(objects, "Job")
    assert "annotations" not in job["metadata"], "a hook would run after --wait, and hide its logs"
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert env(job_pod(objects).containers[0])["MODELS"] == "smollm2:135m,smollm2:135m-brief"
    assert not kind(render("ollama", set={"memory": "1Gi", "models": {"tags": []}}), "Job")


# -- mlflow --------------------------------------------------------------------------------------


def mlflow_config(**values: Any) -> dict[str, str]:
    return find(render("mlflow", set=values), "ConfigMap", "mlflow")["data"]  # type: ignore[no-any-return]


def test_mlflow_answers_to_its_names_with_and_without_port_and_to_no_others() -> None:
    hosts = mlflow_config()["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    names = ["mlflow", "mlflow.tipbench", "mlflow.tipbench.svc", "mlflow.tipbench.svc.cluster.local"]
    assert {f"{name}{port}" for name in names for port in ("", ":5000")} | {
        f"{name}{port}" for name in ("localhost", "127.0.0.1") for port in ("", ":*")
    } == set(hosts)


def test_mlflow_behind_an_ingress_lets_its_own_pages_write() -> None:
    config = mlflow_config(ingress={"enabled": True, "hosts": ["mlflow.example.com"]}, allowedHosts=["10.1.2.3:5000"])
    assert {"mlflow.example.com", "10.1.2.3:5000"} <= set(config["MLFLOW_SERVER_ALLOWED_HOSTS"].split(","))
    assert "https://mlflow.example.com" in config["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")


@pytest.mark.parametrize("prefix", ["/mlflow", "/tools/mlflow", ""])
def test_mlflow_probes_and_tests_follow_the_prefix(prefix: str) -> None:
    objects = render("mlflow", set={"staticPrefix": prefix})
    (server,) = pod_of(objects, "Deployment/mlflow").spec["containers"]
    assert [arg for arg in server["args"] if "prefix" in arg] == ([f"--static-prefix={prefix}"] if prefix else [])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["path"] == f"{prefix}/health"
    assert env(pod_of(objects, "Pod/mlflow-test-api").containers[0])["MLFLOW_URL"] == f"http://mlflow:5000{prefix}"


def test_mlflow_runs_one_worker_without_the_job_executor() -> None:
    objects = render("mlflow", "values-kind.yaml")
    (server,) = pod_of(objects, "Deployment/mlflow").spec["containers"]
    assert "--workers=1" in server["args"]
    assert find(objects, "ConfigMap", "mlflow")["data"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert find(objects, "Deployment", "mlflow")["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("values", "uri"),
    [
        ({}, "postgresql+psycopg://mlflow:$(POSTGRES_PASSWORD)@mlflow-postgresql:5432/mlflow"),
        ({"postgresql": {"enabled": False}}, "sqlite:////data/mlflow.db"),
        (
            {"postgresql": {"enabled": False}, "externalDatabase": {"existingSecret": "own"}},
            {"secretKeyRef": {"name": "own", "key": "uri"}},
        ),
    ],
    ids=["postgresql", "sqlite", "external"],
)
def test_mlflow_upgrades_the_database_it_serves_from(values: Object, uri: Any) -> None:
    objects = render("mlflow", set=values)
    pod = pod_of(objects, "Deployment/mlflow")
    upgrade, server = pod.spec["initContainers"][0], pod.spec["containers"][0]
    assert upgrade["args"] == ["db", "upgrade", "$(MLFLOW_BACKEND_STORE_URI)"]
    assert env(upgrade)["MLFLOW_BACKEND_STORE_URI"] == env(server)["MLFLOW_BACKEND_STORE_URI"] == uri
    assert bool(kind(objects, "StatefulSet")) is (not values)


def test_mlflow_artifacts_go_to_the_volume_or_to_the_bucket() -> None:
    assert mlflow_config()["MLFLOW_ARTIFACTS_DESTINATION"] == "/data/artifacts"
    s3 = {"bucket": "tips", "prefix": "runs", "endpoint": "https://s3.example.com", "existingSecret": "keys"}
    objects = render("mlflow", set={"artifacts": {"s3": s3}})
    config = find(objects, "ConfigMap", "mlflow")["data"]
    assert config["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://tips/runs"
    assert config["MLFLOW_S3_ENDPOINT_URL"] == "https://s3.example.com"
    assert not kind(objects, "PersistentVolumeClaim")
    (server,) = pod_of(objects, "Deployment/mlflow").spec["containers"]
    assert {"secretRef": {"name": "keys"}} in server["envFrom"]
    on_sqlite = render("mlflow", set={"artifacts": {"s3": s3}, "postgresql": {"enabled": False}})
    assert kind(on_sqlite, "PersistentVolumeClaim"), "SQLite still needs its volume"


def test_mlflow_login_secret_is_what_clients_take_as_their_environment() -> None:
    """The key that signs forms is kept apart: stages get the whole Secret."""
    objects = render("mlflow", set={"auth": {"enabled": True}})
    secret = find(objects, "Secret", "mlflow-auth")
    assert secret["data"].keys() == {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    (server,) = pod_of(objects, "Deployment/mlflow").spec["containers"]
    assert "--app-name=basic-auth" in server["args"]
    assert {"MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"} <= env(server).keys()
    for chart, owner in (("airflow", "Deployment/airflow-triggerer"), ("tipbench", "CronJob/tipbench-export")):
        client = pod_of(render(chart, set={"mlflow": {"existingSecret": "mlflow-auth"}}), owner).spec["containers"][0]
        assert {"secretRef": {"name": "mlflow-auth"}} in client["envFrom"]


# -- airflow -------------------------------------------------------------------------------------

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")


def airflow_config(**values: Any) -> dict[str, str]:
    return find(render("airflow", set=values), "ConfigMap", "airflow-config")["data"]  # type: ignore[no-any-return]


def test_airflow_pods_share_one_configuration_and_wait_for_the_migration() -> None:
    objects = render("airflow")
    for component in COMPONENTS:
        pod = pod_of(objects, f"Deployment/airflow-{component}")
        (main,) = pod.spec["containers"]
        assert main["args"] == [component]
        assert pod.spec["initContainers"][0]["command"] == ["python3", "/chart/db.py", "migrated"]
        assert {"configMapRef": {"name": "airflow-config"}} in main["envFrom"]
        keys = {"AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY"}
        assert all(env(main)[key]["secretKeyRef"]["name"] == "airflow-keys" for key in keys)
        assert {"/tmp", "/opt/airflow/logs"} <= {mount["mountPath"] for mount in main["volumeMounts"]}


def test_airflow_processes_are_asked_for_signs_of_life_without_starting_airflow() -> None:
    objects = render("airflow")
    probes = {c: pod_of(objects, f"Deployment/airflow-{c}").spec["containers"][0]["livenessProbe"] for c in COMPONENTS}
    assert probes["api-server"]["httpGet"]["path"] == "/api/v2/version"
    assert probes["scheduler"]["httpGet"]["path"] == "/health"
    assert airflow_config()["AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK"] == "True"
    for component, job in (("dag-processor", "DagProcessorJob"), ("triggerer", "TriggererJob")):
        assert probes[component]["exec"]["command"] == ["python3", "/chart/db.py", "alive", job, "60"]


@pytest.mark.parametrize(
    ("values", "slots"), [({}, "1"), ({"ollama": {"replicas": 2}}, "2"), ({"pool": {"slots": 5}}, "5")]
)
def test_airflow_pool_has_a_slot_for_each_ollama_replica_and_counts_waiting_tasks(values: Object, slots: str) -> None:
    job = job_pod(render("airflow", set=values))
    migrate, pool = job.spec["initContainers"][-1], job.spec["containers"][0]
    assert migrate["args"] == ["db", "migrate"]
    assert pool["args"][:4] == ["pools", "set", "ollama", slots]
    assert "--include-deferred" in pool["args"]


def test_airflow_kubernetes_connection_makes_a_sidecar_that_the_namespace_admits() -> None:
    connection = json.loads(airflow_config()["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    extra = connection["extra"]
    assert (connection["conn_type"], extra["in_cluster"], extra["namespace"]) == ("kubernetes", True, "tipbench")
    assert re.fullmatch(r"tipbench/export:\d+\.\d+\.\d+", extra["xcom_sidecar_container_image"])
    assert json.loads(extra["xcom_sidecar_container_resources"])["limits"]["memory"]
    security = json.loads(extra["xcom_sidecar_container_security_context"])
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["runAsNonRoot"] is security["readOnlyRootFilesystem"] is not security["allowPrivilegeEscalation"]


def test_airflow_password_is_copied_to_where_the_api_server_may_write() -> None:
    objects = render("airflow")
    pod = pod_of(objects, "Deployment/airflow-api-server")
    (main,) = pod.spec["containers"]
    path = env(main)["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
    (copy,) = [c for c in pod.spec["initContainers"] if c["name"] == "passwords"]
    assert path in copy["args"][0]
    for container in (copy, main):
        assert path.startswith(tuple(mount["mountPath"] + "/" for mount in container["volumeMounts"]))
    assert find(objects, "Secret", "airflow-admin")["data"].keys() == {"username", "password"}


def test_airflow_may_do_in_its_namespace_what_the_operator_needs_and_no_more() -> None:
    objects = render("airflow")
    assert not kind(objects, "ClusterRole")
    rules = {(group, res): set(rule["verbs"]) for rule in find(objects, "Role", "airflow")["rules"] for group in rule["apiGroups"] for res in rule["resources"]}  # fmt: skip
    assert rules == {
        ("", "pods"): {"create", "get", "list", "watch", "patch", "delete"},
        ("", "pods/log"): {"get"},
        ("", "pods/exec"): {"create", "get"},
        ("", "configmaps"): {"get"},
        ("", "events"): {"list", "watch"},
        ("events.k8s.io", "events"): {"list", "watch"},
    }


def test_airflow_may_read_the_pods_template_and_no_other_configmap() -> None:
    (rule,) = [r for r in find(render("airflow", set={"tipbench": {"release": "tips"}}), "Role", "airflow")["rules"] if "configmaps" in r["resources"]]  # fmt: skip
    assert rule["resourceNames"] == ["tips-pods"]


def test_airflow_names_images_only_where_it_is_told_to() -> None:
    """What the stages are, the tipbench release says; who named them here before still has them."""
    assert not {"TIPBENCH_IMAGE_REPOSITORY", "TIPBENCH_IMAGE_TAG"} & airflow_config().keys()
    config = airflow_config(stages={"repository": "registry.example/tips"})
    assert config["TIPBENCH_IMAGE_REPOSITORY"] == "registry.example/tips"
    assert re.fullmatch(r"\d+\.\d+\.\d+", config["TIPBENCH_IMAGE_TAG"])


def test_airflow_asks_for_what_kind_has_only_there() -> None:
    assert "TIPBENCH_MODELS" not in airflow_config()
    tags = yaml.safe_load((CHARTS / "ollama" / "values-kind.yaml").read_text())["models"]["tags"]
    on_kind = find(render("airflow", "values-kind.yaml"), "ConfigMap", "airflow-config")["data"]
    assert (
        on_kind["TIPBENCH_MODELS"]
        == ",".join(tags)
        == config_of(render("tipbench", "values-kind.yaml"))["TIPBENCH_MODELS"]
    )


def test_airflow_names_what_the_tipbench_chart_makes() -> None:
    config, made = airflow_config(), {o["metadata"]["name"] for o in render("tipbench")}
    for key in (
        "TIPBENCH_POD_TEMPLATE",
        "TIPBENCH_CONFIG_MAP",
        "TIPBENCH_EXCHANGE_CLAIM",
        "TIPBENCH_STAGE_SERVICE_ACCOUNT",
    ):
        assert config[key] in made
    assert config["TIPBENCH_MLFLOW_URL"] == config_of(render("tipbench"))["TIPBENCH_MLFLOW_URL"]


def test_airflow_replaces_its_pods_one_at_a_time_without_room_for_two() -> None:
    for one in kind(render("airflow", "values-prod.yaml"), "Deployment"):
        assert one["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_airflow_database_script_finds_the_newest_migration(tmp_path: Path) -> None:
    """Annotated, quoted either way, merged: the revision that no other has as the one before."""
    versions = tmp_path / "airflow" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "airflow" / "__init__.py").write_text("raise SystemExit('Airflow must not be imported')")
    (tmp_path / "psycopg.py").write_text("class Error(Exception): pass")
    (versions / "__init__.py").write_text("")
    (versions / "0001_a.py").write_text('revision = "aaa"\ndown_revision = None\n')
    (versions / "0002_b.py").write_text("revision: str = 'bbb'\ndown_revision: str | None = 'aaa'\n")
    (versions / "0003_c.py").write_text('revision = "ccc"\ndown_revision = ("aaa", "bbb")\n')
    script = "import runpy, sys; print(runpy.run_path(sys.argv[1])['expected_revision']())"
    command = [sys.executable, "-c", script, str(CHARTS / "airflow" / "files" / "db.py")]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "ccc", done.stderr


# -- tipbench ------------------------------------------------------------------------------------


def config_of(objects: list[Object]) -> dict[str, str]:
    return find(objects, "ConfigMap", "tipbench-config")["data"]  # type: ignore[no-any-return]


def test_configuration_keys_are_tipbenchs_own_with_the_same_bounds() -> None:
    schema = json.loads((CHARTS / "tipbench" / "values.schema.json").read_text())["properties"]["config"]["properties"]
    ours = json_schema()["properties"]
    for key, rule in schema.items():
        theirs = ours[key]
        types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        assert theirs["type"] in types, key
        for bound in ("minimum", "exclusiveMinimum", "maximum", "enum"):
            assert rule.get(bound) == theirs.get(bound), f"{key}: {bound}"
        if "pattern" in rule:
            assert rule["pattern"].removeprefix("^$|") == theirs["pattern"], key


def test_configuration_leaves_out_what_is_empty_and_writes_numbers_as_they_are() -> None:
    config = config_of(render("tipbench"))
    assert config == {
        "TIPBENCH_ENGINE": "ollama",
        "TIPBENCH_EXPERIMENT": "tip-bench-auto",
        "TIPBENCH_LEASE_NAMESPACE": "tipbench",
        "TIPBENCH_MEMORY_LIMIT": "4Gi",
        "TIPBENCH_MLFLOW_URL": "http://mlflow:5000/mlflow",
        "TIPBENCH_NUM_THREAD": "2",
        "TIPBENCH_OLLAMA_URL": "http://ollama-0.ollama-headless:11434",
    }
    given = {
        "num_ctx": 1048576,
        "temperature": 0.0,
        "n_scenarios": 0,
        "pull": False,
        "max_model_b": 4.0,
        "models": "a:1b,b:2b",
    }
    config = config_of(render("tipbench", set={"config": given}))
    assert {key: config[f"TIPBENCH_{key.upper()}"] for key in given} == {
        "num_ctx": "1048576",
        "temperature": "0",
        "n_scenarios": "0",
        "pull": "false",
        "max_model_b": "4",
        "models": "a:1b,b:2b",
    }


@pytest.mark.parametrize("environment", ["kind", "prod"])
def test_stages_know_the_limits_of_the_ollama_they_use(environment: str) -> None:
    """tipbench cannot read the other release: the two values files have to agree."""
    file = f"values-{environment}.yaml"
    (server,) = pod_of(render("ollama", file), "StatefulSet/ollama").spec["containers"]
    config = config_of(render("tipbench", file))
    assert config["TIPBENCH_MEMORY_LIMIT"] == server["resources"]["limits"]["memory"]
    assert config["TIPBENCH_NUM_THREAD"] == server["resources"]["limits"]["cpu"]
    replicas = find(render("ollama", file), "StatefulSet", "ollama")["spec"]["replicas"]
    assert len(config["TIPBENCH_OLLAMA_URL"].split(",")) == replicas
    assert env(pod_of(render("airflow", file), "Pod/airflow-test-api").containers[0])["SLOTS"] == str(replicas)


def test_stages_are_suspended_cronjobs_with_the_command_lines_of_the_package() -> None:
    folder = "/exchange/$(TIPBENCH_EXPERIMENT)"
    args = {
        "collect": ["collect"],
        "export": ["judge", "export", "--out", f"{folder}/judge.json", "--aside"],
        "judge": ["judge", "score", f"{folder}/judge.json", "--with", "$(TIPBENCH_JUDGE)", "--apply"],
        "compare": ["compare", "--out", f"{folder}/report"],
    }
    objects = render("tipbench")
    assert {one["metadata"]["name"] for one in kind(objects, "CronJob")} == {f"tipbench-{stage}" for stage in args}
    for stage, expected in args.items():
        job = find(objects, "CronJob", f"tipbench-{stage}")["spec"]
        assert job["suspend"] is True
        pod = pod_of(objects, f"CronJob/tipbench-{stage}")
        assert pod.labels["tipbench.dev/stage"] == stage
        assert pod.labels["tipbench.dev/experiment"] == "tip-bench-auto"
        (container,) = pod.containers
        assert container["args"] == expected
        assert container["image"].startswith(f"tipbench/{stage}:")
        assert {"configMapRef": {"name": "tipbench-config"}} in container["envFrom"]
        assert (
            env(container)["TIPBENCH_RUN"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
        )
        failing = job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]
        assert failing["onExitCodes"]["values"] == [2, 3, 4], "what another try would not change"
    assert env(pod_of(objects, "CronJob/tipbench-collect").containers[0])["TIPBENCH_SPOOL"] == "/exchange/spool/cronjob"
    assert env(pod_of(objects, "CronJob/tipbench-judge").containers[0])["TIPBENCH_JUDGE"] == "baseline"


def sources(pod: Pod) -> set[str]:
    """The Secrets that become a pod's variables as a whole."""
    return {s["secretRef"]["name"] for s in pod.containers[0]["envFrom"] if "secretRef" in s}


def test_whoever_speaks_to_ollama_has_its_key_and_the_judge_knows_its_slots() -> None:
    objects = render("tipbench", set={"ollama": {"existingSecret": "key", "slots": 4}})
    holders = {pod.owner for pod in pods(objects) if "envFrom" in pod.containers[0] and "key" in sources(pod)}
    assert holders == {"Deployment/tipbench-api", *(f"CronJob/tipbench-{s}" for s in ("collect", "export", "judge"))}
    slots = {pod.owner for pod in pods(objects) if env(pod.containers[0]).get("OLLAMA_NUM_PARALLEL") == "4"}
    assert slots == {"CronJob/tipbench-judge"}
    (server,) = pod_of(render("ollama"), "StatefulSet/ollama").spec["containers"]
    judge = pod_of(render("tipbench"), "CronJob/tipbench-judge").containers[0]
    assert env(judge)["OLLAMA_NUM_PARALLEL"] == env(server)["OLLAMA_NUM_PARALLEL"]


def test_the_engines_key_goes_to_the_collecting_pod_alone() -> None:
    objects = render("tipbench", set={"stages": {"collect": {"existingSecret": "vllm"}}})
    assert [p.owner for p in pods(objects) if "envFrom" in p.containers[0] and "vllm" in sources(p)] == ["CronJob/tipbench-collect"]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "named"),
    [({"config": {"notify_url": "https://chat.example/hooks/abc"}}, "tipbench-notify"), ({"notify": {"existingSecret": "mine"}}, "mine")],
)  # fmt: skip
def test_a_notices_address_is_kept_in_a_secret_for_those_who_send_it(values: Object, named: str) -> None:
    objects = render("tipbench", set=values)
    reference = {"secretKeyRef": {"name": named, "key": "TIPBENCH_NOTIFY_URL"}}
    senders = {p.owner for p in pods(objects) if env(p.containers[0]).get("TIPBENCH_NOTIFY_URL") == reference}
    assert senders == {"CronJob/tipbench-export", "CronJob/tipbench-compare"}
    assert "TIPBENCH_NOTIFY_URL" not in config_of(objects)
    policy = find(objects, "NetworkPolicy", "tipbench-notify")["spec"]
    for sender in senders:
        assert matches(policy["podSelector"], pod_of(objects, sender).labels)
    made = [o for o in kind(objects, "Secret") if "TIPBENCH_NOTIFY_URL" in o["data"]]
    assert [o["metadata"]["name"] for o in made] == (["tipbench-notify"] if named != "mine" else [])
    nobody = render("tipbench")
    assert not [o for o in nobody if o["metadata"]["name"] == "tipbench-notify"]


@pytest.mark.parametrize(
    ("stages", "asked"),
    [
        ({}, []),
        ({"judge": {"with": "ollama:llama3.2:3b"}}, ["--for", "ollama:llama3.2:3b"]),
        ({"judge": {"with": "openai:small"}}, ["--for", "openai:small"]),
        ({"export": {"for": "manual"}, "judge": {"with": "openai:small"}}, ["--for", "manual"]),
        ({"export": {"for": "baseline"}}, ["--for", "baseline"]),
    ],
)
def test_the_export_is_for_the_judge_that_is_asked(stages: Object, asked: list[str]) -> None:
    args = pod_of(render("tipbench", set={"stages": stages}), "CronJob/tipbench-export").containers[0]["args"]
    assert args[args.index("--aside") + 1 :] == asked


def test_stage_account_may_read_pods_and_hold_leases_and_no_more() -> None:
    rules = {(group, res): set(rule["verbs"]) for rule in find(render("tipbench"), "Role", "tipbench-stage")["rules"] for group in rule["apiGroups"] for res in rule["resources"]}  # fmt: skip
    assert rules == {
        ("", "pods"): {"get", "list"},
        ("coordination.k8s.io", "leases"): {"get", "create", "update", "delete"},
    }


def test_policy_turns_away_pods_of_its_own_namespace_by_name_and_says_what_to_do() -> None:
    objects = render("tipbench", set={"policy": {"maxMemory": "3Gi"}})
    (policy,) = kind(objects, "ValidatingAdmissionPolicy")
    (binding,) = kind(objects, "ValidatingAdmissionPolicyBinding")
    spec = policy["spec"]
    assert policy["metadata"]["name"].startswith("tipbench-"), (
        "it belongs to the cluster: two installs must not collide"
    )
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    assert spec["failurePolicy"] == "Fail"
    assert spec["matchConstraints"]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "tipbench"}}
    assert "excludeResourceRules" not in spec["matchConstraints"]
    assert "matchConditions" not in spec
    variables = {v["name"]: v["expression"] for v in spec["variables"]}
    assert "object.spec.containers" in variables["containers"]
    assert "object.spec.initContainers" in variables["containers"]
    assert "isGreaterThan(quantity('3Gi'))" in variables["oversized"]
    assert [v["expression"] for v in spec["validations"]] == [
        "size(variables.unlimited) == 0",
        "size(variables.oversized) == 0",
    ]
    for validation in spec["validations"]:
        assert "variables.pod" in validation["messageExpression"]
        assert "set resources.limits.memory to at most 3Gi" in validation["messageExpression"]


def test_limit_range_hides_no_missing_memory_limit() -> None:
    """Kubernetes takes a container's max as its default limit, and gives it before policies look."""
    (limits,) = kind(render("tipbench"), "LimitRange")
    for item in limits["spec"]["limits"]:
        if item["type"] != "PersistentVolumeClaim":
            assert "memory" not in {**item.get("max", {}), **item.get("default", {})}


@pytest.mark.parametrize("environment", ["kind", "prod"])
def test_guard_rails_admit_all_four_releases(environment: str) -> None:
    """All pods at once, with set-up and test pods, one stage of each kind and a second Ollama, within quota and policy."""
    file = f"values-{environment}.yaml"
    objects = {name: render(name, file) for name in NAMES}
    most = quantity(yaml.safe_load((CHARTS / "tipbench" / file).read_text())["policy"]["maxMemory"])
    total = {"limits.memory": 0.0, "requests.memory": 0.0, "pods": 0.0, "requests.storage": 0.0}
    for pod, replicas in ((p, r) for o in objects.values() for p, r in with_replicas(o)):
        for what in ("limits", "requests"):
            sizes = [quantity(c["resources"][what]["memory"]) for c in pod.spec["containers"]]
            first = [quantity(c["resources"][what]["memory"]) for c in pod.spec.get("initContainers", [])]
            assert max(sizes + first) <= most, pod.owner
            total[f"{what}.memory"] += replicas * max(sum(sizes), *first, 0)
        total["pods"] += replicas
    claims = [c for o in objects.values() for c in kind(o, "PersistentVolumeClaim")]
    templates = [(c, s["spec"]["replicas"]) for o in objects.values() for s in kind(o, "StatefulSet") for c in s["spec"]["volumeClaimTemplates"]]  # fmt: skip
    for claim, replicas in [*((c, 1) for c in claims), *templates]:
        size = quantity(claim["spec"]["resources"]["requests"]["storage"])
        assert size <= quantity(max_storage(objects["tipbench"])), claim["metadata"]["name"]
        total["requests.storage"] += replicas * size
    (quota,) = kind(objects["tipbench"], "ResourceQuota")
    (ollama,) = pod_of(objects["ollama"], "StatefulSet/ollama").spec["containers"]
    spare = quantity(ollama["resources"]["limits"]["memory"])
    for what, used in total.items():
        assert used + (spare if what.endswith(".memory") else 0) <= quantity(quota["spec"]["hard"][what]), what


def with_replicas(objects: list[Object]) -> list[tuple[Pod, int]]:
    """Each pod with how many of it there are."""
    replicas = {f"{o['kind']}/{o['metadata']['name']}": o["spec"].get("replicas", 1) for o in objects if "spec" in o}
    return [(pod, replicas[pod.owner]) for pod in pods(objects)]


def max_storage(objects: list[Object]) -> str:
    """The largest volume that the LimitRange admits."""
    (limits,) = kind(objects, "LimitRange")
    return next(i["max"]["storage"] for i in limits["spec"]["limits"] if i["type"] == "PersistentVolumeClaim")  # type: ignore[no-any-return]


def test_api_tells_its_life_from_what_it_depends_on() -> None:
    """With Airflow down the panel has to be there to say so: readiness must not follow /readyz."""
    (api,) = pod_of(render("tipbench"), "Deployment/tipbench-api").containers
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert api[probe]["httpGet"]["path"] == "/healthz"


def test_api_gets_airflows_login_and_every_admin_token() -> None:
    objects = render("tipbench")
    pod = pod_of(objects, "Deployment/tipbench-api")
    (api,) = pod.containers
    login = {f"TIPBENCH_AIRFLOW_{name.upper()}": {"secretKeyRef": {"name": "airflow-admin", "key": name}} for name in ("username", "password")}  # fmt: skip
    assert login.items() <= env(api).items()
    (tokens,) = [mount for mount in api["volumeMounts"] if mount["name"] == "tokens"]
    assert env(api)["TIPBENCH_TOKENS_DIR"] == tokens["mountPath"]
    (volume,) = [volume for volume in pod.spec["volumes"] if volume["name"] == "tokens"]
    assert volume["secret"]["secretName"] == "tipbench-admin"
    assert find(objects, "Secret", "tipbench-admin")["data"].keys() == {"token", "session-secret"}
    without = pod_of(render("tipbench", set={"airflow": {"existingSecret": ""}}), "Deployment/tipbench-api")
    assert not login.keys() & env(without.containers[0]).keys()


@pytest.mark.parametrize(
    ("values", "trusted"),
    [
        ({}, None),
        ({"ingress": {"enabled": True, "hosts": ["a.example"]}}, "*"),
        ({"ingress": {"enabled": True, "hosts": ["a.example"]}, "api": {"trustedProxies": "10.0.0.0/8"}}, "10.0.0.0/8"),
        ({"api": {"trustedProxies": "192.0.2.1"}}, "192.0.2.1"),
    ],
)
def test_api_believes_the_proxies_that_it_is_told(values: Object, trusted: str | None) -> None:
    (api,) = pod_of(render("tipbench", set=values), "Deployment/tipbench-api").containers
    assert env(api).get("FORWARDED_ALLOW_IPS") == trusted


def test_api_under_a_path_is_reached_there() -> None:
    values = {"ingress": {"enabled": True, "hosts": ["a.example"]}, "api": {"rootPath": "/tools/tips"}}
    objects = render("tipbench", set=values)
    (api,) = pod_of(objects, "Deployment/tipbench-api").containers
    assert env(api)["TIPBENCH_ROOT_PATH"] == "/tools/tips"
    (ingress,) = kind(objects, "Ingress")
    assert ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/tools/tips"


def test_a_judged_file_gets_through_the_ingress() -> None:
    """What the API takes, nginx has to let through; a user's own annotations are added to it."""
    from tipbench.api.web import APPLY_LIMIT

    values = {"ingress": {"enabled": True, "hosts": ["a.example"], "annotations": {"mine": "yes"}}}
    (ingress,) = kind(render("tipbench", set=values), "Ingress")
    assert ingress["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/proxy-body-size": "32m", "mine": "yes"}
    assert APPLY_LIMIT == 32 * 1024**2


# -- network policies ------------------------------------------------------------------------------


def egress(chart: str, policy: str, **values: Any) -> list[Object]:
    """The egress rules of a policy."""
    return find(render(chart, set=values), "NetworkPolicy", policy)["spec"]["egress"]  # type: ignore[no-any-return]


def ports(rules: list[Object]) -> set[int]:
    """Every port that some rule opens."""
    return {port["port"] for rule in rules for port in rule.get("ports", [])}


def test_dns_is_reached_where_it_listens_on_openshift_too() -> None:
    for chart in NAMES:
        for policy in kind(render(chart), "NetworkPolicy"):
            rules = policy["spec"].get("egress", [])
            assert (53 in ports(rules)) is (5353 in ports(rules)), policy["metadata"]["name"]


def test_models_are_pulled_through_a_forward_proxy_too() -> None:
    assert {443, 3128} <= ports(egress("ollama", "ollama"))
    assert not {443, 3128} & ports(egress("ollama", "ollama", networkPolicy={"allowPull": False}))
    more = [{"ports": [{"port": 9999}]}]
    assert 9999 in ports(egress("ollama", "ollama", networkPolicy={"allowPull": False, "extraEgress": more}))


@pytest.mark.parametrize(("chart", "policy"), [("tipbench", "tipbench-lease"), ("airflow", "airflow-kubernetes")])
def test_the_kubernetes_api_is_reached_at_its_addresses_where_they_are_named(chart: str, policy: str) -> None:
    (rule,) = egress(chart, policy)
    assert ports([rule]) == {443, 6443} and "to" not in rule
    named = {"kubernetesApiPorts": [6443], "kubernetesApiCidrs": ["172.18.0.2/32"]}
    (rule,) = egress(chart, policy, networkPolicy=named)
    assert ports([rule]) == {6443} and rule["to"] == [{"ipBlock": {"cidr": "172.18.0.2/32"}}]


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("", 443), ("https://s3.example.com", 443), ("http://s3.example.com", 80), ("http://minio.storage:9000", 9000)],
)
def test_mlflow_reaches_its_bucket_at_the_endpoints_port(endpoint: str, port: int) -> None:
    rules = egress("mlflow", "mlflow", artifacts={"s3": {"bucket": "tips", "endpoint": endpoint}})
    assert port in ports(rules)


def test_api_can_be_left_out() -> None:
    objects = render("tipbench", set={"api": {"enabled": False}})
    assert not [one for one in objects if one["metadata"]["labels"]["app.kubernetes.io/component"] in ("api", "test")]
    assert kind(objects, "CronJob")


# -- flows between the charts ---------------------------------------------------------------------

FLOWS = [
    ("tipbench", "CronJob/tipbench-collect", "ollama", "StatefulSet/ollama", True),
    ("tipbench", "CronJob/tipbench-judge", "ollama", "StatefulSet/ollama", True),
    ("tipbench", "CronJob/tipbench-collect", "mlflow", "Deployment/mlflow", True),
    ("tipbench", "CronJob/tipbench-compare", "mlflow", "Deployment/mlflow", True),
    ("tipbench", "Deployment/tipbench-api", "mlflow", "Deployment/mlflow", True),
    ("tipbench", "Deployment/tipbench-api", "airflow", "Deployment/airflow-api-server", True),
    ("airflow", "Deployment/airflow-triggerer", "mlflow", "Deployment/mlflow", True),
    ("airflow", "Deployment/airflow-scheduler", "airflow", "StatefulSet/airflow-postgresql", True),
    ("airflow", "Deployment/airflow-scheduler", "airflow", "Deployment/airflow-api-server", True),
    ("airflow", "Job/airflow-setup", "airflow", "StatefulSet/airflow-postgresql", True),
    ("mlflow", "Deployment/mlflow", "mlflow", "StatefulSet/mlflow-postgresql", True),
    ("ollama", "Job/ollama-models", "ollama", "StatefulSet/ollama", True),
    ("tipbench", "CronJob/tipbench-compare", "airflow", "Deployment/airflow-api-server", False),
    ("tipbench", "CronJob/tipbench-export", "ollama", "StatefulSet/ollama", True),
    ("tipbench", "CronJob/tipbench-compare", "ollama", "StatefulSet/ollama", False),
    ("tipbench", "Deployment/tipbench-api", "mlflow", "StatefulSet/mlflow-postgresql", False),
    ("airflow", "Deployment/airflow-scheduler", "mlflow", "StatefulSet/mlflow-postgresql", False),
    ("mlflow", "Deployment/mlflow", "airflow", "StatefulSet/airflow-postgresql", False),
    ("mlflow", "Deployment/mlflow", "tipbench", "Deployment/tipbench-api", False),
    ("ollama", "StatefulSet/ollama", "mlflow", "Deployment/mlflow", False),
]


@pytest.mark.parametrize(("source_chart", "source", "target_chart", "target", "open_"), FLOWS, ids=[f"{f[1].split('/')[1]}-{f[3].split('/')[1]}" for f in FLOWS])  # fmt: skip
def test_network_policies_open_the_flows_of_the_design_and_no_others(
    source_chart: str, source: str, target_chart: str, target: str, open_: bool
) -> None:
    objects = {name: render(name) for name in NAMES}
    sender = next(p for p in pods(objects[source_chart]) if p.owner.startswith(source))
    receiver = next(p for p in pods(objects[target_chart]) if p.owner.startswith(target))
    ports = [port for container in receiver.spec["containers"] for port in container["ports"]]
    policies = [policy["spec"] for o in objects.values() for policy in kind(o, "NetworkPolicy")]

    def lets(direction: str, here: Pod, peer: Pod) -> bool:
        """Is a port of the receiver open between the two, as far as the policies of `here` go?"""
        mine = [p for p in policies if direction in p["policyTypes"] and matches(p["podSelector"], here.labels)]
        key = {"Ingress": "from", "Egress": "to"}[direction]
        return not mine or any(
            (key not in rule or any(matches(one["podSelector"], peer.labels) for one in rule[key]))
            and (
                "ports" not in rule
                or any(p["port"] in (q["name"], q["containerPort"]) for p in rule["ports"] for q in ports)
            )
            for policy in mine
            for rule in policy.get(direction.lower(), [])
        )

    assert (lets("Egress", sender, receiver) and lets("Ingress", receiver, sender)) is open_
