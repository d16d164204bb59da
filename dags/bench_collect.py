"""bench_collect: collect tips, hand them to a judge, wait for the scores, compare.

Every stage is a container image that a KubernetesPodOperator runs. This file imports nothing of tipbench and drops into any
Airflow 3 that has the cncf-kubernetes provider; what differs between clusters comes from environment variables:

| variable | default | |
|---|---|---|
| TIPBENCH_NAMESPACE | tipbench | where the pods run |
| TIPBENCH_POD_TEMPLATE | | ConfigMap of the tipbench chart (`<release>-pods`) with the pod of each stage; Airflow must be allowed to `get` it |
| TIPBENCH_POOL | ollama | pool with a slot for each Ollama replica, created with include_deferred |
| TIPBENCH_OLLAMA_URL, TIPBENCH_MLFLOW_URL | localhost | defaults of the two parameters |
| TIPBENCH_MODELS | the contract's four | default of the parameter models |
| TIPBENCH_IMAGE_REPOSITORY, TIPBENCH_IMAGE_TAG | tipbench, 0.3.0 | `<repository>/<stage>:<tag>`; where one is set, it wins over the template |
| TIPBENCH_IMAGE_PULL_SECRETS | | comma-separated; added to the template's |
| TIPBENCH_MLFLOW_SECRET, TIPBENCH_JUDGE_SECRET | | Secrets with MLflow's credentials, and with OPENAI_API_KEY; added to the template's |

Without a template, or where the ConfigMap is not there, these say the rest of the pod; a template wins over them:

| variable | default | |
|---|---|---|
| TIPBENCH_CONFIG_MAP | tipbench-config | settings of the cluster that no parameter names |
| TIPBENCH_EXCHANGE_CLAIM | tipbench-exchange | volume for exchange files and journals |
| TIPBENCH_CATALOG_CONFIG_MAP | tipbench-catalog | scenarios, prompts and a rubric of one's own, at /catalog; need not be there |
| TIPBENCH_STAGE_SERVICE_ACCOUNT | tipbench-stage | may hold leases and look at pods |

The waiting task asks MLflow itself, as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, say.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import re
import ssl
import time
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment

import httpx
from airflow.providers.cncf.kubernetes.backcompat.backwards_compat_converters import convert_env_vars
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, BaseSensorOperator, Param, TriggerRule, task, teardown
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from kubernetes.client import ApiException
from kubernetes.client import models as k8s

VERSION = "0.3.0"
LOG = logging.getLogger("airflow.task")
"""Where a task that is a function writes to its log; the task instance that it is given has no log of its own."""
DOC = """### Which small model, with which prompt?

`collect` has every (model, prompt) write tips for every scenario, one pod a model. `export_for_judge` writes the blind exchange
file and pushes its path. A judge scores it: with `judge = manual` the run waits, holding no worker slot, until the applied scores leave
nothing pending. `compare` then writes the leaderboard to MLflow.

With `until = sure` a run is one round: a block of scenarios for the cells that are still in. `another_round` asks MLflow what `compare`
decided, and triggers the next run with the same parameters, until the answer is sure. The runs of a chain share the first one's id, with
`__round_2`, `__round_3`, … behind it. A chain stops where a run is cancelled, and goes on when that run's task is cleared.

A stopped or failed run loses nothing: clear the failed task, and it resumes. `clear_away` deletes the pods that a run left, whatever it was doing
when it was stopped."""

USAGE, ALL_REFUSED, SOME_FAILED = 2, 3, 4
"""Exit codes of tipbench's that no other try mends: bad input; the RAM policy refused every model; a part could not be done."""
WAITING_MENDS = {408, 425, 429}
"""Statuses under 500 that say: later."""
PENDING = "tipbench.pending.{rubric}.manual"
"""The experiment's tag that says how many cells and candidates no person or agent has scored under a rubric."""
SAMPLED = "tipbench.pending_sample.{rubric}.manual"
"""The experiment's tag that says how many tips the sample for people has, and how many of them each judge has left."""
SMALLEST_SAMPLE = 6
"""Scenarios of a sample, at least: with fewer, nothing can be estimated."""
NEXT = "tipbench.next.{rubric}"
"""The experiment's tag that says what an experiment in rounds needs next under a rubric: JSON with `action` and `looks_taken`."""
ROUND = "__round_"
LINGERS_S = 15.0
"""How long after a run was stopped a worker may still start a pod: it learns of it with its next heartbeat (5 s)."""
SOON_S = 1
"""How often a pod is looked at whose task waits for it and does nothing else, in seconds."""
NO_RETRY = {"ModelMissing", "OOMKilled"}
"""Reasons that another try does not mend."""
URL = r"https?://[^\s/,]+(/[^\s,]*)?"


def setting(name: str, default: str) -> str:
    """A variable of this Airflow's environment; empty counts as not set."""
    return os.environ.get(f"TIPBENCH_{name}") or default


NAMESPACE = setting("NAMESPACE", "tipbench")
EXCHANGE = "/exchange"


def parameter(default: Any, description: str, *stages: str, **schema: Any) -> tuple[Param, tuple[str, ...]]:
    """A parameter, and the stages that read it as TIPBENCH_<NAME>."""
    return Param(default, description=description, **schema), stages


EVERY = ("collect", "export", "judge", "compare")
PARAMETERS = {
    "models": parameter(
        setting("MODELS", "qwen2.5:0.5b,qwen2.5:1.5b,gemma3:1b,llama3.2:3b"),
        "Comma-separated model tags, as Ollama names them.",
        "collect",
        type="string",
        minLength=1,
        pattern=r"^[^\s{}]+(\s*,\s*[^\s{},]+)*$",
    ),
    "prompts": parameter(
        "v1,v2-mentor,v3-few-shot",
        "Comma-separated prompt versions.",
        "collect",
        type="string",
        minLength=1,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\s*,\s*[A-Za-z0-9][A-Za-z0-9._-]*)*$",
    ),
    "n_tips": parameter(5, "Candidates per scenario.", "collect", type="integer", minimum=1, maximum=200),
    "n_scenarios": parameter(
        0,
        "Use only the first N scenarios; 0 means all.",
        "collect",
        type="integer",
        minimum=0,
        maximum=1_000_000,
    ),
    "temperature": parameter(0.7, "Sampling temperature.", "collect", type="number", minimum=0, maximum=2),
    "experiment": parameter(
        "tip-bench-auto",
        "MLflow experiment; its name starts with tip-bench-.",
        "collect",
        "export",
        "compare",
        type="string",
        pattern=r"^tip-bench-[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
    ),
    "max_model_b": parameter(
        4.0,
        "Refuse models with more parameters than this, in billions.",
        "collect",
        type="number",
        exclusiveMinimum=0,
        maximum=1_000_000,
    ),
    "ollama_url": parameter(
        setting("OLLAMA_URL", "http://localhost:11434"),
        "Where Ollama listens. Replicas may stand here, comma-separated; a collection takes one that is free.",
        "collect",
        "export",  # which version of an LLM judge is asked
        "judge",
        type="string",
        pattern=f"^{URL}(,{URL})*$",
    ),
    "mlflow_url": parameter(
        setting("MLFLOW_URL", os.environ.get("MLFLOW_TRACKING_URI") or "http://localhost:5000"),
        "MLflow server, path prefix included.",
        *EVERY,
        type="string",
        pattern=f"^{URL}$",
    ),
    "judge": parameter(
        "manual",
        "manual: wait for applied scores. llm, baseline: a judge pod. skip: compare what is judged already.",
        type="string",
        enum=["manual", "llm", "baseline", "skip"],
    ),
    "judge_model": parameter(
        "", "For judge = llm: ollama:MODEL or openai:MODEL.", type="string", pattern=r"^((ollama|openai):\S{1,70})?$"
    ),
    "judge_parallel": parameter(
        "",
        "For judge = llm: tips in question at once. Empty: 8 for openai, as many as Ollama has slots.",
        "judge",
        type="string",
        pattern=r"^([1-9]|[1-5][0-9]|6[0-4])?$",
    ),
    "judge_rationale": parameter(
        "before",
        "For judge = llm: where it writes its sentence of reason. It is most of the tokens.",
        "export",
        "judge",
        type="string",
        enum=["before", "after", "none"],
    ),
    "judge_timeout_hours": parameter(
        168.0,
        "How long to wait for a manual judge, or for the sample.",
        type="number",
        exclusiveMinimum=0,
        maximum=8760,
    ),
    "reference": parameter(
        "",
        "Names of judges, comma-separated: the board says what they would say of everything, from their scores on a part.",
        type="string",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79}(\s*,\s*[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79})*)?$",
    ),
    "sample": parameter(
        0,
        "For judge = llm: scenarios, drawn at random, that the judges in reference are to score; the run waits for them. 0: none.",
        type="integer",
        minimum=0,
        maximum=400,
    ),
    "sample_tips": parameter(
        0, "With sample: tips of each cell, drawn at random. 0: all.", type="integer", minimum=0, maximum=200
    ),
    "engine": parameter(
        "ollama",
        "Where text comes from: Ollama, or any server with OpenAI's API at engine_url.",
        "collect",
        type="string",
        enum=["ollama", "openai"],
    ),
    "engine_url": parameter(
        "http://localhost:8080/v1",
        "For engine = openai: base URL of the server (vLLM, llama.cpp's).",
        "collect",
        type="string",
        pattern=f"^{URL}$",
    ),
    "parameters": parameter(
        "",
        "Parameter counts that engine_url's server does not tell: MODEL=1.5b, comma-separated.",
        "collect",
        type="string",
    ),
    "notify_url": parameter(
        setting("NOTIFY_URL", ""),
        "Gets one POST with a text when a judge is wanted or the board is ready. Empty: whom the tipbench chart names, if anybody.",
        "export",
        "compare",
        type="string",
        pattern=r"^(https?://\S+)?$",
    ),
    "seed": parameter(
        0,
        "Candidate i of every cell is generated with seed + i.",
        "collect",
        type="integer",
        minimum=0,
        maximum=2**31 - 1000,
    ),
    "num_predict": parameter(160, "Most tokens in one tip.", "collect", type="integer", minimum=1, maximum=8192),
    "num_ctx": parameter(
        2048,
        "Context length in tokens; the KV cache grows with it.",
        "collect",
        type="integer",
        minimum=128,
        maximum=1_048_576,
    ),
    "keep_alive": parameter(
        "60s",
        "How long the engine holds a model between requests; 0 frees it after every request.",
        "collect",
        type="string",
        pattern=r"^(0|[1-9][0-9]*(ms|s|m|h)?)$",
    ),
    "until": parameter(
        "all",
        "all: every scenario for every cell. sure: in rounds, a run each, dropping cells that are shown to be worse, until the answer is sure.",
        "collect",
        type="string",
        enum=["all", "sure"],
    ),
    "block": parameter(
        4, "Scenarios in a round, with until = sure.", "collect", type="integer", minimum=1, maximum=10_000
    ),
    "margin": parameter(
        0.0,
        "Points that do not matter: with until = sure, cells that are shown to be this near to each other end the race. 0 means 7.5 % of the scale's range.",
        "collect",
        "compare",
        type="number",
        minimum=0,
        maximum=100,
    ),
    "cells": parameter(
        "",
        "Only these cells, comma-separated, each as model, bar, prompt; empty means all of models x prompts.",
        "collect",
        type="string",
        pattern=r"^([^\s{},|]+\|[^\s{},|]+(\s*,\s*[^\s{},|]+\|[^\s{},|]+)*)?$",
    ),
    "pull": parameter(
        False, "Pull models that Ollama does not have yet, if the policy allows them.", "collect", type="boolean"
    ),
    "collect_memory": parameter(
        "",
        "Memory of a collect pod, such as 256Mi, and for one model another: 256Mi,llama3.2:3b=512Mi. Empty: as the chart gives it, "
        "256Mi without one.",
        type="string",
        pattern=r"^([0-9]+[KMG]i(\s*,\s*[^\s,=]+=[0-9]+[KMG]i)*)?$",
    ),
}
"""Every parameter of the DAG: what it may be, and who reads it. A new one is one more entry."""


def read_by(stage: str) -> tuple[str, ...]:
    """The parameters that a stage reads."""
    return tuple(name for name, (_, stages) in PARAMETERS.items() if stage in stages)


def label(text: str) -> str:
    """`text` as the value of a Kubernetes label: at most 63 letters, digits, dots, dashes and underscores. Where something had to be
    replaced or cut, a hash of the whole keeps different texts apart. The same rule is in `tipbench.cluster.label` and in the charts.
    """
    kept = re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")
    if kept == text:
        return kept
    return f"{kept[:54].strip('-_.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


def split(text: str) -> list[str]:
    """`"a, b,a"` -> `["a", "b"]`."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def faults(params: dict[str, Any]) -> list[str]:
    """What no schema can say of the parameters. `tipbench.pipeline.faults` says the same."""
    found = []
    if params["judge"] == "llm" and not params["judge_model"]:
        found.append("judge = llm needs judge_model, e.g. ollama:qwen2.5:1.5b or openai:MODEL")
    sample = params["sample"]
    if sample and params["judge"] != "llm":
        found.append("sample is for judge = llm: the LLM scores everything, and people the sample")
    elif sample and params["until"] == "sure":
        found.append(
            "sample is drawn from all scenarios, and until = sure collects them round by round; ask for one of the two"
        )
    elif sample and sample < SMALLEST_SAMPLE:
        found.append(
            f"sample: {sample} scenarios are too few; it takes {SMALLEST_SAMPLE} to tell how far the LLM can be trusted"
        )
    if sample and not split(params["reference"]):
        found.append("sample needs reference: the names under which people score it")
    if params["sample_tips"] and not sample:
        found.append("sample_tips needs sample: how many scenarios")
    return found


def round_id(run_id: str, number: int) -> str:
    """The id of a chain's run for a round: the first run's, and from the second round on its number."""
    first, mark, last = run_id.rpartition(ROUND)
    first = first if mark and last.isdecimal() else run_id
    return first if number <= 1 else f"{first}{ROUND}{number}"


def memory_of(model: str, text: str) -> str:
    """The memory of a model's collect pod, by the parameter `collect_memory`; nothing where it does not say."""
    default, *others = split(text) or [""]
    return dict(part.rsplit("=", 1) for part in others).get(model, default)


def unknown_keys(conf: dict[str, Any]) -> list[str]:
    """A sentence for every key of a run's conf that is no parameter: with a typo the defaults would run for hours."""
    faults = []
    for key in sorted(set(conf) - set(PARAMETERS)):
        near = difflib.get_close_matches(str(key).lower().replace("-", "_"), PARAMETERS, n=1, cutoff=0.5)
        faults.append(f"conf has no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return faults


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
    """A stage's pod: the cluster's template for it, with what this task adds; and the reason when it fails.

    The stage leaves its outcome as JSON in the termination message; what the kernel or the kubelet did to the pod stands in
    its status, which has to be read before the pod is deleted.
    """

    def build_pod_request_obj(self, context: Any = None, **kwargs: Any) -> k8s.V1Pod:
        stage = self.labels["tipbench.dev/stage"]
        template = fitted(self.template(stage, dry_run=kwargs.get("dry_run", False)), stage)
        base = template.spec.containers[0]
        # A parameter that says nothing leaves what the cluster keeps in a Secret (notify_url); any other is this run's.
        kept = {variable.name for variable in base.env or [] if variable.value_from}
        self.env_vars = [
            v for v in convert_env_vars(self.env_vars or []) if v.value or v.value_from or v.name not in kept
        ]
        asked = {variable.name for variable in self.env_vars}
        base.env = [variable for variable in base.env or [] if variable.name not in asked]
        if isinstance(self.container_resources, dict):
            self.container_resources = k8s.V1ResourceRequirements(**self.container_resources)
        self.full_pod_spec = template
        pod = super().build_pod_request_obj(context, **kwargs)
        # What a template forbids reads as "not said" where Airflow merges the two.
        for field in ("enable_service_links", "automount_service_account_token"):
            if getattr(template.spec, field) is False:
                setattr(pod.spec, field, False)
        for container in pod.spec.containers[1:]:
            if container.name not in {c.name for c in template.spec.containers}:  # the XCom sidecar
                container.image, container.image_pull_policy = base.image, base.image_pull_policy
                container.security_context = base.security_context
                container.resources = resources("32Mi")
        return pod

    def template(self, stage: str, dry_run: bool = False) -> k8s.V1Pod:
        """The stage's pod as the tipbench chart has it; without that ConfigMap, as the environment variables have it."""
        name = setting("POD_TEMPLATE", "")
        if not name or dry_run:
            return pod_of_variables(stage)
        try:
            data = self.client.read_namespaced_config_map(name, self.namespace).data or {}
        except ApiException as error:
            if error.status == 404:
                self.log.warning(
                    "No ConfigMap %s in %s: the pod is as this Airflow's variables say", name, self.namespace
                )
                return pod_of_variables(stage)
            if error.status in (401, 403):
                raise AirflowFailException(
                    f"Airflow may not read the ConfigMap {name} in namespace {self.namespace} ({error.status} {error.reason}), which "
                    f"TIPBENCH_POD_TEMPLATE names. Give its service account the right: kubectl -n {self.namespace} create role "
                    f"airflow-templates --verb=get --resource=configmaps --resource-name={name}, and a rolebinding to it."
                ) from error
            raise
        try:
            return PodGenerator.deserialize_model_dict(json.loads(data[f"{stage}.json"]))
        except (KeyError, ValueError) as error:
            raise AirflowFailException(
                f"ConfigMap {name} in namespace {self.namespace} has no pod for the stage {stage} ({stage}.json): {error!r}"
            ) from error

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
                there = mlflow.experiment(params["experiment"])
                experiment = there["experiment_id"] if there else mlflow.create(params["experiment"])
                found = [run for run in mlflow.runs(experiment, mine) if label(tag_of(run, "tipbench.models")) == model]
                if not found:
                    about = {"tipbench.kind": "collection", "tipbench.run": run_label, "tipbench.models": model}
                    found = [mlflow.start(experiment, f"collection of {model}", about)]
                for run in found:
                    mlflow.end(run["info"]["run_id"], "KILLED", tags)
        except (httpx.HTTPError, Refused) as error:
            self.log.warning("MLflow could not be told: %s", error)


class JudgePod(StagePod):
    """A judge that could not score some tips has scored the others: the run goes on with those, as on a laptop."""

    partly = False

    def execute(self, context: Any) -> Any:
        if context["params"]["judge"] == "baseline":
            # It takes a second, and a pod that was deferred is looked at after eight.
            self.deferrable, self.startup_check_interval_seconds = False, SOON_S
        return super().execute(context)

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None) -> None:
        try:
            super().cleanup(pod=pod, remote_pod=remote_pod, xcom_result=xcom_result, context=context)
        except AirflowFailException:
            raise
        except AirflowException as error:
            if explain(remote_pod)[1].get("exit_code") != SOME_FAILED:
                raise
            self.partly = True
            self.log.warning("Some tips could not be scored; what was scored is compared. %s", error)

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> Any:
        try:
            return super().trigger_reentry(context, event)
        except AirflowException:
            # The operator raises what its trigger saw, whatever the clean-up made of it.
            if not self.partly:
                raise
            return None


class ExportPod(StagePod):
    """Pushes the exchange file's path as the task's XCom, and the counts under keys of their own."""

    def execute(self, context: Any) -> Any:
        if context["ti"].xcom_pull(task_ids="plan") is None:
            raise AirflowFailException("nothing was planned; the log of the task plan says why")
        result = super().execute(context)
        for key in ("items", "repeats", "cells", "candidates", "rubric", "pending"):
            if key in result:
                context["ti"].xcom_push(key=key, value=result[key])
        return result["file"]


class ScoresSensor(BaseSensorOperator):
    """Waits, holding no worker slot, until a person or an agent has scored every tip under the rubric of the export."""

    tag = PENDING
    awaited = "everything"
    written_by = "export_for_judge"

    def execute(self, context: Any) -> Any:
        hours = context["params"]["judge_timeout_hours"]
        self.timeout = hours * 3600
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            raise AirflowSensorTimeout(
                f"No judge had scored {self.awaited} within {hours:g} hours (judge_timeout_hours). Apply the scores "
                "(tipbench judge apply FILE, or the panel) and clear this task; then the run goes on."
            ) from None

    def poke(self, context: Any) -> bool:
        params, ti = context["params"], context["ti"]
        rubric = ti.xcom_pull(task_ids="export_for_judge", key="rubric")
        if not rubric:
            raise AirflowFailException(
                "export_for_judge did not say which rubric it exported: its image is older than this DAG. Use images of one version."
            )
        tag = self.tag.format(rubric=rubric[:12])
        try:
            with Mlflow(params["mlflow_url"]) as mlflow:
                experiment = mlflow.experiment(params["experiment"])
        except Refused as error:
            raise error.as_failure() from error
        except httpx.HTTPError as error:
            self.log.warning("MLflow cannot be asked (%s); trying again in %s s", error, self.poke_interval)
            return False
        if experiment is None:
            # It was there when the file was exported. An unjudged run must not pass because nothing is there to be judged.
            raise AirflowFailException(
                f"experiment {params['experiment']} is gone from {plain_url(params['mlflow_url'])}"
            )
        try:
            said = json.loads({t["key"]: t["value"] for t in experiment.get("tags", [])}[tag])
            return self.is_complete(said, context)
        except (KeyError, TypeError, ValueError) as error:
            raise AirflowFailException(
                f"experiment {params['experiment']} does not say what is pending (tag {tag}: {error!r}); clear {self.written_by}, which "
                "writes it anew"
            ) from error

    def is_complete(self, said: dict[str, Any], context: Any) -> bool:
        """Is nothing pending, by what the tag says? KeyError, TypeError and ValueError for a tag that does not say it."""
        cells, candidates = int(said["cells"]), int(said["candidates"])
        self.log.info(
            "%s tips in %s cells of %s wait for scores (exchange file: %s)",
            candidates,
            cells,
            context["params"]["experiment"],
            context["ti"].xcom_pull(task_ids=self.written_by),
        )
        return candidates == 0


class SampleSensor(ScoresSensor):
    """Waits until each judge that `reference` names has scored the whole sample."""

    tag = SAMPLED
    awaited = "the whole sample"
    written_by = "export_sample"

    def is_complete(self, said: dict[str, Any], context: Any) -> bool:
        tips, by = int(said["tips"]), dict(said["by"])
        if not tips:
            raise ValueError("no tip of the sample counts any more")
        left = {name: int(by.get(name, tips)) for name in split(context["params"]["reference"])}
        self.log.info(
            "Of a sample of %s tips of %s are left: %s (exchange file: %s)",
            tips,
            context["params"]["experiment"],
            ", ".join(f"{n} for {name}" for name, n in left.items()),
            context["ti"].xcom_pull(task_ids=self.written_by),
        )
        return not any(left.values())


def delete_pods(client: Any, selector: str) -> list[str]:
    """Delete the pods that a label selector finds in the namespace; returns the names of those that were there."""
    names = []
    for pod in client.list_namespaced_pod(NAMESPACE, label_selector=selector).items:
        names.append(pod.metadata.name)
        try:
            client.delete_namespaced_pod(pod.metadata.name, NAMESPACE)
        except ApiException as error:
            if error.status != 404:
                raise
    return names


def explain(pod: Any) -> tuple[str, dict[str, Any], str]:
    """Why a stage's pod failed: in words, as the stage's own outcome, and the reason if something killed it from outside."""
    status = pod.status
    stage = pod.spec.containers[0]
    ended = next(
        (s.state.terminated for s in status.container_statuses or [] if s.name == stage.name and s.state.terminated),
        None,
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
        reason = status.reason or ended.reason
        limit = (stage.resources.limits or {}).get("memory", "none") if stage.resources else "none"
        words = (
            f"Pod {name} was ended with {reason} (exit code {ended.exit_code}): it needed more than its memory limit of {limit}. "
            f"Raise it with {'collect_memory' if stage.name == 'collect' else f'stages.{stage.name}.resources of the tipbench chart'}; a "
            "retry resumes where it stopped."
        )
        return words, outcome, reason
    if not isinstance(outcome, dict) or "exit_code" not in outcome:
        words = f"Pod {name} ended with exit code {ended.exit_code}: {(ended.message or ended.reason or '').strip()}"
        told = {"exit_code": ended.exit_code}
        return words, told, f"Signal{ended.exit_code - 128}" if ended.exit_code > 128 else ""
    words = "\n".join(outcome.get("why") or []) or outcome.get("error") or f"exit code {ended.exit_code}"
    return words, outcome, ""


class Refused(Exception):
    """An answer of MLflow's that no waiting mends; the message says what to change, `code` is MLflow's own error code.

    `status` is HTTP's. A 404 without a code is not MLflow's: the address is wrong, or what stands before MLflow gives it while MLflow is away.
    """

    def __init__(self, words: str, code: str = "", status: int = 0) -> None:
        super().__init__(words)
        self.code, self.status = code, status

    def as_failure(self) -> AirflowException:
        """The end of the task, or of this try of it where another one may do."""
        may_pass = self.status == 404 and not self.code
        return AirflowException(str(self)) if may_pass else AirflowFailException(str(self))


def plain_url(url: str) -> str:
    """A URL without the credentials that may stand in it."""
    return re.sub(r"(?<=://)\S*@", "", url)


def proxy_of(url: str) -> str | None:
    """The proxy that HTTP_PROXY and the like name for a URL; None for a direct way."""
    parts, proxies = urlsplit(url), getproxies_environment()
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass_environment(host, proxies):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


class Mlflow:
    """The few calls of MLflow's REST API that the DAG itself makes; credentials come from MLflow's own variables.

    Raises httpx.HTTPError for an outage, and Refused for what stays as it is until somebody changes something.
    """

    def __init__(self, url: str) -> None:
        env = {
            name: os.environ.get(f"MLFLOW_TRACKING_{name}", "").strip() for name in ("USERNAME", "PASSWORD", "TOKEN")
        }
        insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true")
        certificate = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or os.environ.get("SSL_CERT_FILE")
        self._url = plain_url(url)
        try:
            self._client = httpx.Client(
                base_url=url.rstrip("/") + "/api/2.0/mlflow",
                # As MLflow's own client has it: a user wins over a token.
                auth=(env["USERNAME"], env["PASSWORD"]) if env["USERNAME"] else None,
                headers={"Authorization": f"Bearer {env['TOKEN']}"} if env["TOKEN"] and not env["USERNAME"] else None,
                verify=ssl.create_default_context(cafile=certificate) if certificate and not insecure else not insecure,
                timeout=30,
                # httpx's own reading of the variables raises on a NO_PROXY that everybody else takes (fe80::/10).
                trust_env=False,
                proxy=proxy_of(url),
            )
        except (ValueError, OSError, ImportError, httpx.InvalidURL) as error:
            raise Refused(f"MLflow at {self._url} cannot be asked: {plain_url(str(error))}") from error

    def __enter__(self) -> Mlflow:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, **kwargs)
        except httpx.ConnectError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                hint = "MLFLOW_TRACKING_SERVER_CERT_PATH names the file with the authority that signed it"
                raise Refused(f"MLflow at {self._url}: its certificate is not trusted ({error}); {hint}") from error
            raise
        except httpx.UnsupportedProtocol as error:
            raise Refused(f"MLflow at {self._url} cannot be asked: {error}") from error
        if answer.status_code in WAITING_MENDS or answer.status_code >= 500:
            answer.raise_for_status()
        if not answer.is_success:
            raise self._refused(answer)
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as error:
            raise Refused(
                f"{self._url} answers, but not as MLflow does: is it the tracking server's address?"
            ) from error
        return found

    def _refused(self, answer: httpx.Response) -> Refused:
        """What is wrong with a request that was refused, and what to do."""
        status = answer.status_code
        hint = {
            401: "Give Airflow's pods MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN "
            "(mlflow.existingSecret of the airflow chart).",
            403: "Either this user may not read the experiment, or the server does not answer to this host name "
            "(allowedHosts of the mlflow chart).",
            404: "Is the path of mlflow_url right (the charts' MLflow lives under /mlflow)?",
        }.get(status, "")
        if answer.has_redirect_location:
            hint = (
                f"It sends on to {plain_url(answer.headers['Location']).split('/api/')[0]}: make that the mlflow_url."
            )
        try:
            said, code = (str(answer.json().get(key, "")) for key in ("message", "error_code"))
        except (ValueError, AttributeError):
            said = code = ""
        words = f"MLflow at {self._url} refused the request ({status}{f': {said[:200]}' if said else ''}). {hint}"
        return Refused(words.strip(), code, status)

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        return self._ask("POST", path, json=body)

    def experiment(self, name: str) -> dict[str, Any] | None:
        """An experiment with its tags; None when there is none of that name, or it was deleted."""
        try:
            found = self._ask("GET", "/experiments/get-by-name", params={"experiment_name": name})["experiment"]
        except Refused as error:
            if error.code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return found if found.get("lifecycle_stage") != "deleted" else None

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


MEMORY = {"collect": "256Mi", "export": "512Mi", "judge": "512Mi", "compare": "768Mi"}
"""Memory of a stage's pod where no chart says it."""


def amounts(memory: str) -> dict[str, dict[str, str]]:
    """Memory limit and request alike, so that the node can keep the promise; little CPU, since Ollama does the work."""
    return {"requests": {"cpu": "20m", "memory": memory}, "limits": {"cpu": "1", "memory": memory}}


def resources(memory: str) -> k8s.V1ResourceRequirements:
    """The same for a task that is not mapped: what is mapped over has to be plain data."""
    return k8s.V1ResourceRequirements(**amounts(memory))


def env_of(stage: str, **others: str) -> dict[str, str]:
    """A stage's parameters as TIPBENCH_* variables, and others as they are."""
    return {f"TIPBENCH_{name.upper()}": f"{{{{ params.{name} }}}}" for name in read_by(stage)} | others


def image_of(stage: str) -> str:
    """The stage's image as this Airflow's variables have it."""
    return f"{setting('IMAGE_REPOSITORY', 'tipbench')}/{stage}:{setting('IMAGE_TAG', VERSION)}"


def pod_of_variables(stage: str) -> k8s.V1Pod:
    """A stage's pod as this Airflow's variables have it, where no chart says it."""
    settings = k8s.V1ConfigMapEnvSource(setting("CONFIG_MAP", "tipbench-config"), optional=True)
    catalog = k8s.V1ConfigMapVolumeSource(name=setting("CATALOG_CONFIG_MAP", "tipbench-catalog"), optional=True)
    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=setting("EXCHANGE_CLAIM", "tipbench-exchange"))
    fields = {"TIPBENCH_NODE": "spec.nodeName", "TIPBENCH_POD": "metadata.name"}
    about = [
        k8s.V1EnvVar(name, value_from=k8s.V1EnvVarSource(field_ref=k8s.V1ObjectFieldSelector(field_path=path)))
        for name, path in fields.items()
    ]
    container = k8s.V1Container(
        name=stage,
        image=image_of(stage),
        image_pull_policy="IfNotPresent",
        env=[k8s.V1EnvVar("HOME", "/tmp"), *about],  # noqa: S108 - inside the pod
        env_from=[k8s.V1EnvFromSource(config_map_ref=settings)],
        security_context=CONTAINER_SECURITY,
        resources=resources(MEMORY[stage]),
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=[
            k8s.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108
            k8s.V1VolumeMount(name="exchange", mount_path=EXCHANGE),
            k8s.V1VolumeMount(name="catalog", mount_path="/catalog", read_only=True),
        ],
    )
    spec = k8s.V1PodSpec(
        containers=[container],
        enable_service_links=False,  # a Service called mlflow would put variables of its own among MLflow's settings
        security_context=POD_SECURITY,
        service_account_name=setting("STAGE_SERVICE_ACCOUNT", "tipbench-stage"),
        # Only a stage that uses Ollama talks to the Kubernetes API, for its lease.
        automount_service_account_token=stage in ("collect", "judge"),
        volumes=[
            k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="1Gi")),
            k8s.V1Volume(name="exchange", persistent_volume_claim=claim),
            k8s.V1Volume(name="catalog", config_map=catalog),
        ],
    )
    return k8s.V1Pod(metadata=k8s.V1ObjectMeta(labels={}), spec=spec)


def fitted(template: k8s.V1Pod, stage: str) -> k8s.V1Pod:
    """A template with the images and Secrets that this Airflow's variables name besides."""
    container = template.spec.containers[0]
    if setting("IMAGE_REPOSITORY", "") or setting("IMAGE_TAG", ""):
        container.image = image_of(stage)
    pull = template.spec.image_pull_secrets = template.spec.image_pull_secrets or []
    pull += [
        k8s.V1LocalObjectReference(name)
        for name in split(setting("IMAGE_PULL_SECRETS", ""))
        if name not in {s.name for s in pull}
    ]
    sources = container.env_from = container.env_from or []
    # The export, too, has to know which endpoint a judge is.
    for variable in ("MLFLOW_SECRET", *(("JUDGE_SECRET",) if stage in ("export", "judge") else ())):
        name = setting(variable, "")
        if name and name not in {s.secret_ref.name for s in sources if s.secret_ref}:
            sources.append(k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name, optional=True)))
    return template


def common(stage: str) -> dict[str, Any]:
    """What the operators of all stages have alike; what their pods have stands in the template."""
    deferrable = stage in ("collect", "judge")
    return {
        "name": f"tipbench-{stage}",
        "namespace": NAMESPACE,
        "base_container_name": stage,
        "startup_timeout_seconds": 600,
        # The operator's own default would win over the template.
        "termination_message_policy": "FallbackToLogsOnError",
        "on_finish_action": "delete_pod",
        "log_pod_spec_on_failure": False,
        "log_events_on_failure": True,
        "container_name_log_prefix_enabled": False,
        # Deferred, a pod outlives the scheduler that started it, and holds no worker slot while it runs.
        # Short stages are not worth it.
        "deferrable": deferrable,
        "logging_interval": 10,
        # A worker's process lingers for a heartbeat interval (5 s) after it deferred; a trigger that fires in that time is taken
        # for a task that was changed from outside, and costs a try: a pod that is not up by then, as none is that was just made, is
        # looked at again after eight. A task that is not deferred looks every second.
        "startup_check_interval_seconds": 8 if deferrable else SOON_S,
        "poll_interval": 2,
    }


with DAG(
    dag_id="bench_collect",
    description="Collect tips from small models, have them judged, rank models and prompts.",
    doc_md=DOC,
    schedule=None,
    catchup=False,
    tags=["tipbench"],
    params={name: param for name, (param, _) in PARAMETERS.items()},
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
    def plan(params: Any = None, run_id: Any = None, dag_run: Any = None) -> list[dict[str, Any]]:
        """One collect pod a model. What no schema can say of the parameters is checked here, before anything runs."""
        if unknown := unknown_keys((dag_run.conf if dag_run else None) or {}):
            raise AirflowFailException(f"{'; '.join(unknown)}. The keys are: {', '.join(PARAMETERS)}")
        models, run = split(params["models"]), label(run_id)
        if found := faults(params):
            raise AirflowFailException("; ".join(found))
        shared = {f"TIPBENCH_{name.upper()}": str(params[name]) for name in read_by("collect")} | RESULT
        pods = []
        for model in models:
            pod = {
                "env_vars": shared
                | {
                    "TIPBENCH_RUN": run,
                    "TIPBENCH_MODELS": model,
                    "TIPBENCH_SPOOL": f"{EXCHANGE}/spool/{label(model)}",
                },
                "labels": pod_labels("collect", label(params["experiment"]), run, label(model)),
            }
            if memory := memory_of(model, params["collect_memory"]):
                pod["container_resources"] = amounts(memory)
            pods.append(pod)
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

    # Who is asked to judge, and who a judge pod is.
    JUDGE = "{{ params.judge_model if params.judge == 'llm' else 'baseline' }}"
    ASKED = "{{ {'manual': 'manual', 'skip': 'anyone', 'llm': params.judge_model}.get(params.judge, 'baseline') }}"

    export_for_judge = ExportPod(
        task_id="export_for_judge",
        arguments=[
            *("judge", "export", "--out", f"{FOLDER}/judge.json", "--aside", "--for", ASKED),
            *("--expect", "{{ params.models }}"),
        ],
        env_vars=env_of("export", TIPBENCH_RESULT_FILE="/airflow/xcom/return.json", TIPBENCH_RUN=RUN),
        labels=pod_labels("export", **LABELS),
        do_xcom_push=True,
        # A model that failed or was refused does not keep the others from being judged; export fails when there is nothing of any.
        trigger_rule=TriggerRule.ALL_DONE,
        **common("export"),
    )

    @task.branch
    def pick_judge(params: Any = None) -> list[str]:
        """Where the scores come from."""
        chosen = {"manual": "await_scores", "skip": "compare"}.get(params["judge"], "judge")
        return [chosen, "export_sample"] if params["sample"] else [chosen]

    judge = JudgePod(
        task_id="judge",
        arguments=["judge", "score", "{{ ti.xcom_pull('export_for_judge') }}", "--apply", "--with", JUDGE],
        env_vars=env_of("judge", **RESULT),
        labels=pod_labels("judge", **LABELS),
        pool=setting("POOL", "ollama"),
        **common("judge"),
    )

    await_scores = ScoresSensor(task_id="await_scores", mode="reschedule", poke_interval=15)

    export_sample = ExportPod(
        task_id="export_sample",
        arguments=[
            *("judge", "export", "--out", f"{FOLDER}/sample.json", "--aside", "--for", "manual"),
            *("--sample", "{{ params.sample }}", "--tips", "{{ params.sample_tips }}"),
        ],
        env_vars=env_of("export", TIPBENCH_RESULT_FILE="/airflow/xcom/return.json", TIPBENCH_RUN=RUN),
        labels=pod_labels("export", **LABELS),
        do_xcom_push=True,
        **common("export"),
    )

    await_sample = SampleSensor(task_id="await_sample", mode="reschedule", poke_interval=15)

    compare = StagePod(
        task_id="compare",
        arguments=["compare", "--out", f"{FOLDER}/report", "--reference", "{{ params.reference }}"],
        env_vars=env_of("compare", **RESULT),
        labels=pod_labels("compare", **LABELS),
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        **common("compare"),
    )

    @task.short_circuit
    def another_round(params: Any = None, run_id: Any = None, ti: Any = None) -> bool:
        """With until = sure: does the experiment need another block? The number of looks taken goes to the next run's id."""
        if params["until"] != "sure":
            return False
        rubric = ti.xcom_pull(task_ids="export_for_judge", key="rubric") or ""
        tag = NEXT.format(rubric=rubric[:12])
        try:
            with Mlflow(params["mlflow_url"]) as mlflow:
                experiment = mlflow.experiment(params["experiment"]) or {}
            said = json.loads({t["key"]: t["value"] for t in experiment.get("tags", [])}[tag])
            looks, action, reason = int(said["looks_taken"]), str(said["action"]), str(said.get("reason", ""))
        except Refused as error:
            raise error.as_failure() from error
        except (KeyError, TypeError, ValueError) as error:
            raise AirflowFailException(
                f"experiment {params['experiment']} does not say what comes next (tag {tag}: {error!r}); clear compare, which writes it"
            ) from error
        LOG.info("%s", reason)
        if action == "judge":
            raise AirflowFailException(
                f"{reason}: not all tips of this round are scored. Score them and clear compare."
            )
        ti.xcom_push(key="next_run", value=round_id(run_id, looks + 1))
        return action == "collect"

    next_round = TriggerDagRunOperator(
        task_id="next_round",
        trigger_dag_id="bench_collect",
        trigger_run_id="{{ ti.xcom_pull('another_round', key='next_run') }}",
        conf="{{ params | tojson }}",
        # Twice triggered is once done.
        skip_when_already_exists=True,
    )

    @teardown(on_failure_fail_dagrun=True)
    def clear_away(run_id: Any = None, ti: Any = None) -> None:
        """Delete the pods that the run left. Where it was stopped in Airflow, a task that was queued, or between the worker and the
        triggerer, has nobody else to do it. A run that was stopped ends as failed.
        """
        selector = f"app.kubernetes.io/managed-by=airflow,tipbench.dev/run={label(run_id)}"
        board = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id])[run_id].get("compare")
        stopped = board not in ("success", "failed", "upstream_failed")
        client, end = KubernetesHook().core_v1_client, time.monotonic() + (LINGERS_S if stopped else 0)
        while True:
            for name in delete_pods(client, selector):
                LOG.info("Deleted pod %s, which was left", name)
            if time.monotonic() >= end:
                break
            time.sleep(LINGERS_S / 5)
        if stopped:
            # Airflow's verdict comes from the last tasks alone, and these are skipped.
            raise AirflowFailException("The run was stopped before anything was compared.")

    choice = pick_judge()
    collect >> export_for_judge >> choice >> [judge, await_scores, export_sample, compare]
    export_sample >> await_sample
    [judge, await_scores, await_sample] >> compare >> another_round() >> next_round
    [collect, export_for_judge, judge, export_sample, compare] >> clear_away()
