"""bench_collect: collect tips, hand them to a judge, wait for the scores, compare.

Every stage is a container image that a KubernetesPodOperator runs. This file imports nothing of tipbench and drops into any
Airflow 3 that has the cncf-kubernetes provider; what differs between clusters comes from environment variables:

| variable | default | |
|---|---|---|
| TIPBENCH_NAMESPACE | tipbench | where the pods run |
| TIPBENCH_IMAGE_REPOSITORY, TIPBENCH_IMAGE_TAG | tipbench, 0.2.0 | `<repository>/<stage>:<tag>` |
| TIPBENCH_IMAGE_PULL_SECRETS | | comma-separated |
| TIPBENCH_OLLAMA_URL, TIPBENCH_MLFLOW_URL | localhost | defaults of the two parameters |
| TIPBENCH_CONFIG_MAP | tipbench-config | settings of the cluster that no parameter names |
| TIPBENCH_EXCHANGE_CLAIM | tipbench-exchange | volume for exchange files and journals |
| TIPBENCH_CATALOG_CONFIG_MAP | tipbench-catalog | scenarios, prompts and a rubric of one's own, at /catalog; need not be there |
| TIPBENCH_STAGE_SERVICE_ACCOUNT | tipbench-stage | may hold leases and look at pods |
| TIPBENCH_POOL | ollama | pool with a slot for each Ollama replica, created with include_deferred |
| TIPBENCH_MLFLOW_SECRET, TIPBENCH_JUDGE_SECRET | | Secrets with MLflow's credentials, and with OPENAI_API_KEY |
"""

from __future__ import annotations

import json
import os
import re
import time
from datetime import timedelta
from typing import Any

import httpx
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG, BaseSensorOperator, Param, TriggerRule, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from kubernetes.client import models as k8s

VERSION = "0.2.0"
DOC = """### Which small model, with which prompt?

`collect` has every (model, prompt) write tips for every scenario, one pod a model. `export_for_judge` writes the blind exchange
file and pushes its path. A judge scores it: with `judge = manual` the run waits, holding no worker slot, until the applied scores leave
nothing pending. `compare` then writes the leaderboard to MLflow.

A stopped or failed run loses nothing: clear the failed task, and it resumes."""

USAGE, ALL_REFUSED = 2, 3
"""Exit codes of tipbench's that no other try mends: bad input; the RAM policy refused every model."""
NO_RETRY = {"ModelMissing", "OOMKilled"}
"""Reasons that another try does not mend."""
URL = r"https?://[^\s/,]+(/[^\s,]*)?"


def setting(name: str, default: str) -> str:
    """A variable of this Airflow's environment; empty counts as not set."""
    return os.environ.get(f"TIPBENCH_{name}") or default


NAMESPACE = setting("NAMESPACE", "tipbench")
EXCHANGE = "/exchange"

PARAMS = {
    "models": Param(
        "qwen2.5:0.5b,qwen2.5:1.5b,gemma3:1b,llama3.2:3b",
        type="string",
        minLength=1,
        pattern=r"^[^\s{}]+(\s*,\s*[^\s{},]+)*$",
        description="Comma-separated model tags, as Ollama names them.",
    ),
    "prompts": Param(
        "v1,v2-mentor,v3-few-shot",
        type="string",
        minLength=1,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\s*,\s*[A-Za-z0-9][A-Za-z0-9._-]*)*$",
        description="Comma-separated prompt versions.",
    ),
    "n_tips": Param(5, type="integer", minimum=1, maximum=200, description="Candidates per scenario."),
    "n_scenarios": Param(
        0, type="integer", minimum=0, maximum=1_000_000, description="Use only the first N scenarios; 0 means all."
    ),
    "temperature": Param(0.7, type="number", minimum=0, maximum=2, description="Sampling temperature."),
    "experiment": Param(
        "tip-bench-auto",
        type="string",
        pattern=r"^tip-bench-[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="MLflow experiment; its name starts with tip-bench-.",
    ),
    "max_model_b": Param(
        4.0,
        type="number",
        exclusiveMinimum=0,
        maximum=1_000_000,
        description="Refuse models with more parameters than this, in billions.",
    ),
    "ollama_url": Param(
        setting("OLLAMA_URL", "http://localhost:11434"),
        type="string",
        pattern=f"^{URL}(,{URL})*$",
        description="Where Ollama listens. Replicas may stand here, comma-separated; a collection takes one that is free.",
    ),
    "mlflow_url": Param(
        setting("MLFLOW_URL", os.environ.get("MLFLOW_TRACKING_URI") or "http://localhost:5000"),
        type="string",
        pattern=f"^{URL}$",
        description="MLflow server, path prefix included.",
    ),
    "judge": Param(
        "manual",
        type="string",
        enum=["manual", "llm", "baseline", "skip"],
        description="manual: wait for applied scores. llm, baseline: a judge pod. skip: compare what is judged already.",
    ),
    "judge_model": Param(
        "",
        type="string",
        pattern=r"^((ollama|openai):\S{1,70})?$",
        description="For judge = llm: ollama:MODEL or openai:MODEL.",
    ),
    "judge_timeout_hours": Param(
        168.0, type="number", exclusiveMinimum=0, maximum=8760, description="How long to wait for a manual judge."
    ),
    "seed": Param(
        0,
        type="integer",
        minimum=0,
        maximum=2**31 - 1000,
        description="Candidate i of every cell is generated with seed + i.",
    ),
    "num_predict": Param(160, type="integer", minimum=1, maximum=8192, description="Most tokens in one tip."),
    "num_ctx": Param(
        2048,
        type="integer",
        minimum=128,
        maximum=1_048_576,
        description="Context length in tokens; the KV cache grows with it.",
    ),
    "keep_alive": Param(
        "60s",
        type="string",
        pattern=r"^(0|[1-9][0-9]*(ms|s|m|h)?)$",
        description="How long the engine holds a model between requests; 0 frees it after every request.",
    ),
    "pull": Param(
        False, type="boolean", description="Pull models that Ollama does not have yet, if the policy allows them."
    ),
    "collect_memory": Param(
        "256Mi",
        type="string",
        pattern=r"^[0-9]+[KMG]i(\s*,\s*[^\s,=]+=[0-9]+[KMG]i)*$",
        description="Memory of a collect pod; for one model another: 256Mi,llama3.2:3b=512Mi.",
    ),
}

STAGE_KEYS = (
    *("models", "prompts", "n_tips", "n_scenarios", "temperature", "experiment", "max_model_b", "ollama_url", "mlflow_url"),
    *("seed", "num_predict", "num_ctx", "keep_alive", "pull"),
)  # fmt: skip
"""Parameters that a stage reads as TIPBENCH_* variables."""


def label(text: str) -> str:
    """`text` as the value of a Kubernetes label: at most 63 letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def split(text: str) -> list[str]:
    """`"a, b,a"` -> `["a", "b"]`."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def memory_of(model: str, text: str) -> str:
    """The memory of a model's collect pod, by the parameter `collect_memory`."""
    default, *others = split(text)
    return dict(part.rsplit("=", 1) for part in others).get(model, default)


def pod_labels(stage: str, experiment: str, run: str, model: str = "") -> dict[str, str]:
    """What `kubectl get pods -l` finds a stage's pod by."""
    labels = {
        "app.kubernetes.io/name": f"tipbench-{stage}",
        "app.kubernetes.io/part-of": "tipbench",
        "app.kubernetes.io/component": "stage",
        "app.kubernetes.io/managed-by": "airflow",
        "tipbench.dev/stage": stage,
        "tipbench.dev/experiment": experiment,
        "tipbench.dev/run": run,
    }
    return labels | ({"tipbench.dev/model": model} if model else {})


class StagePod(KubernetesPodOperator):
    """A stage's pod: restricted, with limits, and with the reason when it fails.

    The stage leaves its outcome as JSON in the termination message; what the kernel or the kubelet did to the pod stands in
    its status, which has to be read before the pod is deleted.
    """

    def build_pod_request_obj(self, context: Any = None, **kwargs: Any) -> k8s.V1Pod:
        if isinstance(self.container_resources, dict):
            self.container_resources = k8s.V1ResourceRequirements(**self.container_resources)
        pod = super().build_pod_request_obj(context, **kwargs)
        # A Service called mlflow would otherwise put variables of its own among MLflow's settings.
        pod.spec.enable_service_links = False
        for container in pod.spec.containers:
            container.security_context = CONTAINER_SECURITY
            if container.name != self.base_container_name:  # the XCom sidecar
                container.image = self.image
                container.resources = resources("32Mi")
        return pod

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None) -> None:
        try:
            super().cleanup(pod=pod, remote_pod=remote_pod, xcom_result=xcom_result, context=context)
        except AirflowSkipException:
            words, *_ = explain(remote_pod)
            self.log.warning(words)
            raise AirflowSkipException(words) from None
        except AirflowException:
            words, outcome, killed = explain(remote_pod)
            self.log.error(words)
            if killed and context is not None:
                self.tell_mlflow(context, killed, words)
            if outcome.get("exit_code") == USAGE or (outcome.get("failed") and set(outcome["failed"]) <= NO_RETRY):
                raise AirflowFailException(words) from None
            raise AirflowException(words) from None

    def tell_mlflow(self, context: Any, reason: str, words: str) -> None:
        """Note on the collection's run what it died of, since a killed process cannot; a run that it had no time for is made."""
        if self.task_id != "collect":
            return
        model, run_label, params = self.labels["tipbench.dev/model"], label(context["run_id"]), context["params"]
        mine = f"tags.`tipbench.kind` = 'collection' AND tags.`tipbench.run` = '{run_label}' AND attributes.status = 'RUNNING'"
        tags = {"tipbench.failure": reason, "tipbench.failure_message": words}
        try:
            with Mlflow(params["mlflow_url"]) as mlflow:
                experiment = mlflow.experiment(params["experiment"]) or mlflow.create(params["experiment"])
                found = [run for run in mlflow.runs(experiment, mine) if label(tag_of(run, "tipbench.models")) == model]
                if not found:
                    about = {"tipbench.kind": "collection", "tipbench.run": run_label, "tipbench.models": model}
                    found = [mlflow.start(experiment, f"collection of {model}", about)]
                for run in found:
                    mlflow.end(run["info"]["run_id"], "KILLED", tags)
        except httpx.HTTPError as error:
            self.log.warning("MLflow could not be told: %s", error)


class ExportPod(StagePod):
    """Pushes the exchange file's path as the task's XCom, and the counts under keys of their own."""

    def execute(self, context: Any) -> Any:
        if context["ti"].xcom_pull(task_ids="plan") is None:
            raise AirflowFailException("nothing was planned; the log of the task plan says why")
        result = super().execute(context)
        for key in ("items", "repeats", "cells", "candidates"):
            context["ti"].xcom_push(key=key, value=result[key])
        return result["file"]


class ScoresSensor(BaseSensorOperator):
    """Waits, holding no worker slot, until no finished cell of the experiment is without scores."""

    def execute(self, context: Any) -> Any:
        hours = context["params"]["judge_timeout_hours"]
        self.timeout = hours * 3600
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            raise AirflowSensorTimeout(
                f"No judge had scored everything within {hours:g} hours (judge_timeout_hours). Apply the scores "
                "(tipbench judge apply FILE, or the panel) and clear this task; then the run goes on."
            ) from None

    def poke(self, context: Any) -> bool:
        params = context["params"]
        pending = "tags.`tipbench.kind` = 'cell' AND tags.judge_pending = 'true'"
        try:
            with Mlflow(params["mlflow_url"]) as mlflow:
                experiment = mlflow.experiment(params["experiment"])
                left = len(mlflow.runs(experiment, pending)) if experiment else None
        except httpx.HTTPError as error:
            self.log.warning("MLflow cannot be asked (%s); trying again in %s s", error, self.poke_interval)
            return False
        if left is None:
            # It was there when the file was exported. An unjudged run must not pass because nothing is there to be judged.
            raise AirflowFailException(f"experiment {params['experiment']} is gone from {params['mlflow_url']}")
        path = context["ti"].xcom_pull(task_ids="export_for_judge")
        self.log.info("%s cells of %s wait for scores (exchange file: %s)", left, params["experiment"], path)
        return left == 0


def explain(pod: Any) -> tuple[str, dict[str, Any], str]:
    """Why a stage's pod failed: in words, as the stage's own outcome, and the reason if something killed it from outside."""
    status = pod.status
    ended = next(
        (s.state.terminated for s in status.container_statuses or [] if s.name == "base" and s.state.terminated), None
    )
    name = pod.metadata.name
    if ended is None:
        reason = status.reason or "no reason given"
        return f"Pod {name} ended as {status.phase}: {reason}. {status.message or ''}".strip(), {}, status.reason or ""
    try:
        outcome = json.loads(ended.message or "")
    except ValueError:
        outcome = {}
    if ended.reason == "OOMKilled" or status.reason == "Evicted":
        base = next(c for c in pod.spec.containers if c.name == "base")
        reason = status.reason or ended.reason
        limit = (base.resources.limits or {}).get("memory", "none") if base.resources else "none"
        words = (
            f"Pod {name} was ended with {reason} (exit code {ended.exit_code}): it needed more than its memory limit of {limit}. "
            "Raise it with collect_memory; a retry resumes where it stopped."
        )
        return words, outcome, reason
    if not isinstance(outcome, dict) or "exit_code" not in outcome:
        words = f"Pod {name} ended with exit code {ended.exit_code}: {(ended.message or ended.reason or '').strip()}"
        told = {"exit_code": ended.exit_code}
        return words, told, f"Signal{ended.exit_code - 128}" if ended.exit_code > 128 else ""
    words = "\n".join(outcome.get("why") or []) or outcome.get("error") or f"exit code {ended.exit_code}"
    return words, outcome, ""


class Mlflow:
    """The few calls of MLflow's REST API that the DAG itself makes; credentials come from MLflow's own variables."""

    def __init__(self, url: str) -> None:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
        self._client = httpx.Client(base_url=url.rstrip("/") + "/api/2.0/mlflow", auth=auth, timeout=30)

    def __enter__(self) -> Mlflow:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        return self._client.post(path, json=body).raise_for_status().json()

    def experiment(self, name: str) -> str | None:
        """The id of an experiment; None when there is none of that name."""
        found = self._client.get("/experiments/get-by-name", params={"experiment_name": name})
        if found.status_code == 404:
            return None
        return found.raise_for_status().json()["experiment"]["experiment_id"]

    def create(self, name: str) -> str:
        """Make an experiment; returns its id."""
        return self._post("/experiments/create", name=name)["experiment_id"]

    def runs(self, experiment: str, condition: str) -> list[dict[str, Any]]:
        """All runs of an experiment that match."""
        runs: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            page = self._post("/runs/search", experiment_ids=[experiment], filter=condition, max_results=1000, **more)
            runs += page.get("runs", [])
            if not page.get("next_page_token"):
                return runs
            more = {"page_token": page["next_page_token"]}

    def start(self, experiment: str, name: str, tags: dict[str, str]) -> dict[str, Any]:
        """A new run."""
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        now = int(time.time() * 1000)
        return self._post("/runs/create", experiment_id=experiment, run_name=name, start_time=now, tags=pairs)["run"]

    def end(self, run_id: str, status: str, tags: dict[str, str]) -> None:
        """Close a run, with tags."""
        for key, value in tags.items():
            self._post("/runs/set-tag", run_id=run_id, key=key, value=value)
        self._post("/runs/update", run_id=run_id, status=status, end_time=int(time.time() * 1000))


def tag_of(run: dict[str, Any], key: str) -> str:
    """A run's tag, or nothing."""
    return next((t["value"] for t in run["data"].get("tags", []) if t["key"] == key), "")


# -- pods ----------------------------------------------------------------------------------------

CONTAINER_SECURITY = k8s.V1SecurityContext(
    allow_privilege_escalation=False,
    read_only_root_filesystem=True,
    run_as_non_root=True,
    capabilities=k8s.V1Capabilities(drop=["ALL"]),
    seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
)
POD_SECURITY = k8s.V1PodSecurityContext(
    run_as_non_root=True,
    run_as_user=65532,
    run_as_group=65532,
    fs_group=65532,
    fs_group_change_policy="OnRootMismatch",
    seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
)


def amounts(memory: str) -> dict[str, dict[str, str]]:
    """Memory limit and request alike, so that the node can keep the promise; little CPU, since Ollama does the work."""
    return {"requests": {"cpu": "20m", "memory": memory}, "limits": {"cpu": "1", "memory": memory}}


def resources(memory: str) -> k8s.V1ResourceRequirements:
    """The same for a task that is not mapped: what is mapped over has to be plain data."""
    return k8s.V1ResourceRequirements(**amounts(memory))


def env_of(names: tuple[str, ...], **others: str) -> dict[str, str]:
    """Parameters as TIPBENCH_* variables, and others as they are."""
    return {f"TIPBENCH_{name.upper()}": f"{{{{ params.{name} }}}}" for name in names} | others


def common(stage: str) -> dict[str, Any]:
    """What all stages' pods have alike."""
    sources = [
        k8s.V1EnvFromSource(
            config_map_ref=k8s.V1ConfigMapEnvSource(setting("CONFIG_MAP", "tipbench-config"), optional=True)
        )
    ]
    for name in ("MLFLOW_SECRET", *(("JUDGE_SECRET",) if stage == "judge" else ())):
        if setting(name, ""):
            sources.append(k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(setting(name, ""), optional=True)))
    catalog = k8s.V1ConfigMapVolumeSource(name=setting("CATALOG_CONFIG_MAP", "tipbench-catalog"), optional=True)
    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=setting("EXCHANGE_CLAIM", "tipbench-exchange"))
    return {
        "name": f"tipbench-{stage}",
        "namespace": NAMESPACE,
        "image": f"{setting('IMAGE_REPOSITORY', 'tipbench')}/{stage}:{setting('IMAGE_TAG', VERSION)}",
        "image_pull_policy": "IfNotPresent",
        "image_pull_secrets": [k8s.V1LocalObjectReference(name) for name in split(setting("IMAGE_PULL_SECRETS", ""))],
        "env_from": sources,
        "pod_runtime_info_envs": [
            k8s.V1EnvVar("TIPBENCH_NODE", value_from=k8s.V1EnvVarSource(field_ref=k8s.V1ObjectFieldSelector(field_path="spec.nodeName")))
        ],
        "service_account_name": setting("STAGE_SERVICE_ACCOUNT", "tipbench-stage"),
        # Only a stage that uses Ollama talks to the Kubernetes API, for its lease.
        "automount_service_account_token": stage in ("collect", "judge"),
        "security_context": POD_SECURITY,
        "volumes": [
            k8s.V1Volume(name="exchange", persistent_volume_claim=claim),
            k8s.V1Volume(name="catalog", config_map=catalog),
            k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="256Mi")),
        ],
        "volume_mounts": [
            k8s.V1VolumeMount(name="exchange", mount_path=EXCHANGE),
            k8s.V1VolumeMount(name="catalog", mount_path="/catalog", read_only=True),
            k8s.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108 - inside the pod
        ],
        "startup_timeout_seconds": 600,
        "termination_message_policy": "FallbackToLogsOnError",
        "on_finish_action": "delete_pod",
        "log_pod_spec_on_failure": False,
        "log_events_on_failure": True,
        "container_name_log_prefix_enabled": False,
        # Deferred, a pod outlives the scheduler that started it, and holds no worker slot while it runs.
        # Short stages are not worth it.
        "deferrable": stage in ("collect", "judge"),
        "logging_interval": 10,
        # A worker's process lingers for a heartbeat interval (5 s) after it deferred; a trigger that fires in that time is taken
        # for a task that was changed from outside, and costs a try.
        "startup_check_interval_seconds": 8,
        "poll_interval": 8,
    }  # fmt: skip


with DAG(
    dag_id="bench_collect",
    description="Collect tips from small models, have them judged, rank models and prompts.",
    doc_md=DOC,
    schedule=None,
    catchup=False,
    tags=["tipbench"],
    params=PARAMS,
    render_template_as_native_obj=False,
    user_defined_filters={"label": label},
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=20),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=5),
    },
) as dag:
    RUN = "{{ run_id | label }}"
    LABELS = {"experiment": "{{ params.experiment | label }}", "run": RUN}
    FOLDER = f"{EXCHANGE}/{{{{ params.experiment }}}}/{RUN}"
    RESULT = {"TIPBENCH_RESULT_FILE": "/dev/termination-log", "TIPBENCH_RUN": RUN}

    @task(retries=0)
    def plan(params: Any = None, run_id: Any = None) -> list[dict[str, Any]]:
        """One collect pod a model. What no schema can say of the parameters is checked here, before anything runs."""
        models, run = split(params["models"]), label(run_id)
        if params["judge"] == "llm" and not params["judge_model"]:
            raise AirflowFailException("judge = llm needs judge_model, e.g. ollama:qwen2.5:1.5b or openai:MODEL")
        shared = {f"TIPBENCH_{key.upper()}": str(params[key]) for key in STAGE_KEYS if key != "models"}
        pods = []
        for model in models:
            memory = memory_of(model, params["collect_memory"])
            env = {
                **shared,
                **RESULT,
                "TIPBENCH_RUN": run,
                "TIPBENCH_MODELS": model,
                "TIPBENCH_SPOOL": f"{EXCHANGE}/spool/{label(model)}",
            }
            pods.append(
                {
                    "env_vars": env,
                    "labels": pod_labels("collect", label(params["experiment"]), run, label(model)),
                    "container_resources": amounts(memory),
                }
            )
        return pods

    planned = plan()
    collect = StagePod.partial(
        task_id="collect",
        arguments=["collect"],
        pool=setting("POOL", "ollama"),
        skip_on_exit_code=ALL_REFUSED,
        map_index_template="{{ task.labels['tipbench.dev/model'] }}",
        **common("collect"),
    ).expand_kwargs(planned)

    export_for_judge = ExportPod(
        task_id="export_for_judge",
        arguments=[
            *("judge", "export", "--out", f"{FOLDER}/judge.json", "--aside", "--expect", "{{ params.models }}"),
        ],
        env_vars=env_of(("experiment", "mlflow_url"), TIPBENCH_RESULT_FILE="/airflow/xcom/return.json", TIPBENCH_RUN=RUN),
        labels=pod_labels("export", **LABELS),
        container_resources=resources("512Mi"),
        do_xcom_push=True,
        # A model that failed or was refused does not keep the others from being judged; export fails when there is nothing of any.
        trigger_rule=TriggerRule.ALL_DONE,
        **common("export"),
    )  # fmt: skip

    @task.branch
    def pick_judge(params: Any = None) -> str:
        """Where the scores come from."""
        return {"manual": "await_scores", "skip": "compare"}.get(params["judge"], "judge")

    judge = StagePod(
        task_id="judge",
        arguments=[
            *("judge", "score", "{{ ti.xcom_pull('export_for_judge') }}", "--apply"),
            *("--with", "{{ 'baseline' if params.judge == 'baseline' else params.judge_model }}"),
        ],
        env_vars=env_of(("mlflow_url", "ollama_url"), **RESULT),
        labels=pod_labels("judge", **LABELS),
        container_resources=resources("512Mi"),
        pool=setting("POOL", "ollama"),
        **common("judge"),
    )

    await_scores = ScoresSensor(task_id="await_scores", mode="reschedule", poke_interval=15)

    compare = StagePod(
        task_id="compare",
        arguments=["compare", "--out", f"{FOLDER}/report"],
        env_vars=env_of(("experiment", "mlflow_url"), **RESULT),
        labels=pod_labels("compare", **LABELS),
        container_resources=resources("768Mi"),
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        **common("compare"),
    )

    choice = pick_judge()
    collect >> export_for_judge >> choice >> [judge, await_scores, compare]
    [judge, await_scores] >> compare
