"""values-prod.yaml of all four charts together, in a namespace of their own: logins, Secrets that were there before, two replicas of the API, two
Ollamas, an S3 server, ingresses. What a kind node has no room for is cut in tests/e2e/production.

Every secret has a marker in it, and nothing that a person with `kubectl get` or `kubectl logs` sees has the marker.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.charts.rendering import NAMES, Object
from tests.e2e.conftest import CONTEXT, SMALL, kubectl_of, port_forward, until
from tipbench import __version__

pytestmark = [pytest.mark.e2e, pytest.mark.production, pytest.mark.timeout(1200)]
PROD = "tipbench-prod"
HERE = Path(__file__).parent
MARK = "zqMARKERqz"
BESIDE = f"tipbench/beside:{__version__}"
TOKEN = f"admin-token-{MARK}"
LOGIN = ("ada", f"mlflow-{MARK}")
GATE = f"gate-{MARK}"
SECRETS = {
    "prod-mlflow": {"MLFLOW_TRACKING_USERNAME": LOGIN[0], "MLFLOW_TRACKING_PASSWORD": LOGIN[1]},
    "prod-gate": {"MLFLOW_TRACKING_TOKEN": GATE},
    "prod-session": {"secret-key": f"session-{MARK}"},
    "prod-database": {"password": f"database-{MARK}"},
    "prod-s3": {"AWS_ACCESS_KEY_ID": f"AKIA{MARK}", "AWS_SECRET_ACCESS_KEY": f"s3-{MARK}"},
    "prod-airflow": {"username": "ada", "password": f"airflow-{MARK}"},
    "prod-keys": {
        "fernet-key": base64.urlsafe_b64encode(f"fernet-{MARK}".ljust(32, "-").encode()).decode(),
        "jwt-secret": f"jwt-{MARK}".ljust(64, "-"),
        "api-secret-key": f"api-{MARK}",
    },
    "prod-tokens": {"ann": TOKEN, "session-secret": f"cookies-{MARK}".ljust(64, "-")},
    "prod-ollama": {"OLLAMA_API_KEY": f"ollama-{MARK}"},
    "prod-notify": {"TIPBENCH_NOTIFY_URL": f"http://gate:9000/hooks/{MARK}"},
}


def kubectl(*words: str, check: bool = True, stdin: str | None = None) -> str:
    """kubectl in the namespace of these tests."""
    return kubectl_of(PROD, *words, check=check, stdin=stdin)


def objects(kind: str, selector: str = "") -> list[Object]:
    """Objects of a kind as kubectl's JSON has them."""
    found: list[Object] = json.loads(kubectl("get", kind, "-o", "json", *(["-l", selector] if selector else [])))[
        "items"
    ]
    return found


def apply(*objects: Object) -> None:
    """Make these objects."""
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def beside(name: str, script: str, env: list[Object]) -> list[Object]:
    """A server that a company has beside tipbench: its Deployment and its Service, on port 9000."""
    labels = {"app.kubernetes.io/name": name}
    container = {
        "name": name,
        "image": BESIDE,
        "command": ["python3", f"/{script}.py"],
        "env": env,
        "ports": [{"containerPort": 9000}],
        "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "384Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
    pod = {
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    meta = {"name": name, "labels": labels}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    service = {"selector": labels, "ports": [{"port": 9000}]}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
    ]


def from_secret(variable: str, secret: str, key: str) -> Object:
    """A variable whose value is kept in a Secret."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


@pytest.fixture(scope="module", autouse=True)
def production() -> Iterator[None]:
    """The four releases with values-prod.yaml, ready, and what they find there; all of it goes afterwards."""
    image = ["--build-arg", f"UV_IMAGE=tipbench/uv:{__version__}", "--tag", BESIDE, str(HERE / "beside")]
    for command in (
        [os.environ.get("DOCKER", "docker"), "build", "--quiet", *image],
        ["kind", "load", "docker-image", "--name", "tipbench", BESIDE],
    ):
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"DOCKER_BUILDKIT": "1"})
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "app.kubernetes.io/part-of": "tipbench"}
    shared = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "shared"}, "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer"}  # fmt: skip
    given = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data} for name, data in SECRETS.items()
    ]  # fmt: skip
    gate = [
        from_secret("TOKEN", "prod-gate", "MLFLOW_TRACKING_TOKEN"),
        from_secret("MLFLOW_TRACKING_USERNAME", "prod-mlflow", "MLFLOW_TRACKING_USERNAME"),
        from_secret("MLFLOW_TRACKING_PASSWORD", "prod-mlflow", "MLFLOW_TRACKING_PASSWORD"),
        {"name": "HOOK", "value": MARK},
    ]
    try:
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PROD, "labels": labels}}, shared)
        apply(
            *given,
            *beside("s3", "s3", [from_secret(key, "prod-s3", key) for key in SECRETS["prod-s3"]]),
            *beside("gate", "gate", gate),
        )
        # The guard rails first, as the how-to has it.
        started = [start(name) for name in ("tipbench", "ollama", "mlflow", "airflow")]
        for name, process in zip(("tipbench", "ollama", "mlflow", "airflow"), started, strict=True):
            said, _ = process.communicate(timeout=900)
            assert process.returncode == 0, f"{name}: {said}\n{kubectl('get', 'pods,events', check=False)}"
        yield
    finally:
        for name in NAMES:
            subprocess.run(
                ["helm", "--kube-context", CONTEXT, "-n", PROD, "uninstall", name], capture_output=True, check=False
            )
        kubectl("delete", "namespace", PROD, "--wait=false", check=False)
        kubectl("delete", "storageclass", "shared", check=False)


def start(name: str) -> subprocess.Popen[str]:
    """Install one release; it waits for the others' parts."""
    chart = f"charts/{name}"
    command = [
        "helm",
        "--kube-context",
        CONTEXT,
        "-n",
        PROD,
        "upgrade",
        "--install",
        name,
        chart,
        "-f",
        f"{chart}/values-prod.yaml",
    ]
    command += ["-f", str(HERE / "production" / f"{name}.yaml"), "--wait", "--wait-for-jobs", "--timeout", "12m"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextlib.contextmanager
def api(target: str = "svc/tipbench-api") -> Iterator[httpx.Client]:
    """The API as the ingress reaches it: by https, for the browser."""
    with port_forward(PROD, target, 8000, "/healthz") as url:
        headers = {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "tipbench.example.com",
            "X-Forwarded-For": "192.0.2.7",
        }
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            yield client


def test_there_is_what_the_values_for_production_say() -> None:
    ready = {d["metadata"]["name"]: d["status"].get("readyReplicas") for d in objects("deployments,statefulsets")}
    assert ready["tipbench-api"] == ready["airflow-api-server"] == ready["ollama"] == 2
    hosts = {i["spec"]["rules"][0]["host"]: i["spec"]["tls"][0]["secretName"] for i in objects("ingresses")}
    assert hosts == {f"{name}.example.com": f"{name}-tls" for name in ("tipbench", "mlflow", "airflow")}
    # No chart made a Secret: all were there before.
    assert {s["metadata"]["name"] for s in objects("secrets") if not s["type"].startswith("helm.sh/")} == SECRETS.keys()
    classes = {c["metadata"]["name"]: c["spec"]["storageClassName"] for c in objects("pvc")}
    assert classes["tipbench-exchange"] == classes["airflow-logs"] == "shared" and "mlflow-data" not in classes


def test_a_session_begun_at_one_replica_goes_on_at_the_other() -> None:
    first, second = [p["metadata"]["name"] for p in objects("pods", "app.kubernetes.io/component=api")]
    with api(f"pod/{first}") as here, api(f"pod/{second}") as there:
        assert here.get("/api/bench/experiments").status_code == 401
        assert here.post("/api/session", json={"token": "wrong"}).status_code == 401
        answer = here.post("/api/session", json={"token": TOKEN}, headers={"Origin": "https://tipbench.example.com"})
        assert answer.status_code == 200 and answer.json()["name"] == "ann"
        cookie = answer.headers["set-cookie"]
        assert "Secure" in cookie and "HttpOnly" in cookie
        asked = there.get("/api/bench/experiments", headers={"Cookie": cookie.split(";")[0]})
        assert asked.status_code == 200


def test_a_small_run_from_the_api_to_the_board_by_logins_and_through_the_bucket() -> None:
    experiment = "tip-bench-production"
    with port_forward(PROD, "svc/mlflow", 5000, "/mlflow/health") as mlflow:
        search = {"url": f"{mlflow}/mlflow/api/2.0/mlflow/experiments/search", "json": {"max_results": 10}}
        assert httpx.post(**search).status_code == 401
        assert httpx.post(**search, auth=LOGIN).status_code == 200
    body = {
        **SMALL,
        "n_scenarios": 1,
        "prompts": "v1",
        "models": "smollm2:135m",
        "experiment": experiment,
        "judge": "baseline",
    }
    with api() as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        until("API, Airflow and MLflow are ready", lambda: client.get("/readyz").json()["ready"], timeout=180)

        def begun() -> str:
            answer = client.post("/api/bench/run", json=body)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

        run = until("the DAG is there", begun, timeout=180)

        def over() -> str:
            state = client.get(f"/api/bench/dag-runs/{run}").raise_for_status().json()["state"]
            return str(state) if state in ("success", "failed") else ""

        assert until("it ends", over, timeout=480) == "success"
        board = client.get(f"/api/bench/leaderboard/{experiment}").raise_for_status().json()
        assert [cell["rank"] for cell in board["cells"]] == [1]
        assert all(cell["coverage"] == 1 for cell in board["cells"])
    kept = in_bucket("print('\\n'.join(o['Key'] for o in found))")
    assert any(key.endswith("/candidates.json") for key in kept.splitlines()), kept
    # The baseline is asked, so nobody else is told that a judge is wanted; the board is told once.
    with port_forward(PROD, "svc/gate", 9000, "/told") as gate:
        assert [notice["event"] for notice in httpx.get(f"{gate}/told").json()] == ["board_ready"]


def test_a_token_opens_what_stands_before_mlflow() -> None:
    """With a token instead of a login, as behind a company's gate; with a wrong one, a stage ends at once and says which variable."""
    for name, secret, code, words in (
        ("by-token", "prod-gate", 0, ""),
        ("by-login", "prod-mlflow", 2, "MLFLOW_TRACKING_TOKEN"),
    ):
        job = json.loads(
            kubectl("create", "job", "--from=cronjob/tipbench-export", name, "--dry-run=client", "-o", "json")
        )
        (container,) = job["spec"]["template"]["spec"]["containers"]
        job["spec"]["backoffLimit"] = 0
        sources = [s for s in container["envFrom"] if s.get("secretRef", {}).get("name") != "prod-mlflow"]
        container["envFrom"] = [*sources, {"secretRef": {"name": secret}}]
        container["args"] = ["status"]
        container["env"] += [{"name": "TIPBENCH_MLFLOW_URL", "value": "http://gate:9000/mlflow"}, {"name": "TIPBENCH_EXPERIMENT", "value": "tip-bench-production"}, {"name": "TIPBENCH_MLFLOW_RETRY_S", "value": "5"}]  # fmt: skip
        kubectl("apply", "-f", "-", stdin=json.dumps(job))

        def ended(name: str = name) -> list[Any]:
            pods = objects("pods", f"batch.kubernetes.io/job-name={name}")
            return [s["state"]["terminated"] for p in pods for s in p["status"].get("containerStatuses", []) if "terminated" in s["state"]]  # fmt: skip

        (state,) = until(f"{name} ends", ended, timeout=120)
        log = kubectl("logs", f"job/{name}")
        assert (state["exitCode"] == 0) is (code == 0), log
        assert words in log


def in_bucket(code: str) -> str:
    """What a few lines of Python say of the objects in MLflow's bucket; `found` lists them, `read` has the bytes of one."""
    begin = (
        "import boto3; s3 = boto3.client('s3', endpoint_url='http://127.0.0.1:9000', region_name='us-east-1'); found = s3.list_objects_v2(Bucket='tipbench').get('Contents', []); "
        "read = lambda o: s3.get_object(Bucket='tipbench', Key=o['Key'])['Body'].read()\n"
    )
    return kubectl("exec", "deploy/s3", "--", "python3", "-c", begin + code)


def test_no_secret_stands_where_people_look() -> None:
    """In no object but Secrets, no event, no log of any container, none of Airflow's task logs, no file of the stages and no artifact.

    Last in this file: it looks at what the others left.
    """
    kinds = "pods,deployments,statefulsets,jobs,cronjobs,configmaps,services,ingresses,networkpolicies,events,leases,pvc,roles,serviceaccounts"
    for kind in kinds.split(","):
        for one in objects(kind):
            # This test's own gate has the address of its webhook in plain.
            own = one["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "gate"
            assert own or MARK not in json.dumps(one), f"{kind} {one['metadata']['name']}"
    logged = 0
    for pod in objects("pods"):
        name = pod["metadata"]["name"]
        text = kubectl("logs", name, "--all-containers", "--tail=-1", check=False)
        logged += bool(text)
        assert MARK not in text or name.startswith("gate-"), name
    assert logged > 10
    for target, folder in (("deploy/airflow-scheduler", "/opt/airflow/logs"), ("deploy/tipbench-api", "/exchange")):
        look = f"import pathlib; files = [p for p in pathlib.Path('{folder}').rglob('*') if p.is_file()]; print(len(files), [str(p) for p in files if b'{MARK}' in p.read_bytes()])"  # fmt: skip
        count, _, found = kubectl("exec", target, "--", "python3", "-c", look).strip().splitlines()[-1].partition(" ")
        assert int(count) > 0 and found == "[]", (target, found)
    assert in_bucket(f"print(len(found) > 5, [o['Key'] for o in found if b'{MARK}' in read(o)])").strip() == "True []"
