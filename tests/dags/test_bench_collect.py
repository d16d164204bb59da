"""The DAG file in a real Airflow: parameters, mapping, pool, pods, rules, and what it says when a pod fails."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dags.conftest import CLUSTER
from tipbench import pipeline
from tipbench.cluster import fitted_name
from tipbench.config import json_schema
from tipbench.pipeline import SMALLEST_SAMPLE, faults
from tipbench.stats.ppi import MIN_REFERENCE_SCENARIOS

pytestmark = pytest.mark.dags

ONLY_HERE = {
    *("judge", "judge_model", "judge_parallel", "judge_rationale", "judge_timeout_hours", "collect_memory"),
    *("reference", "sample", "sample_tips"),
}
DEFAULTS_OF_THE_CLUSTER = {"ollama_url", "mlflow_url"}


# -- parameters ----------------------------------------------------------------------------------


def test_it_loads_without_errors_and_without_tipbench(dagbag: Any) -> None:
    assert dagbag.import_errors == {}
    assert list(dagbag.dags) == ["bench_collect"]
    text = Path(dagbag.dags["bench_collect"].fileloc).read_text()
    assert "import tipbench" not in text and "from tipbench" not in text


def test_the_contracts_keys_and_defaults_are_those_of_the_command_line(dag: Any) -> None:
    schema = json_schema()["properties"]
    for name in set(dag.params) - ONLY_HERE:
        ours = dag.params.get_param(name)
        assert ours.schema["type"] == schema[name]["type"], name
        for rule in ("minimum", "maximum", "exclusiveMinimum"):
            assert ours.schema.get(rule) == schema[name].get(rule), (name, rule)
        if name not in DEFAULTS_OF_THE_CLUSTER:
            assert ours.value == schema[name]["default"], name
        assert ours.description, name
    contract = {"models", "prompts", "n_tips", "n_scenarios", "temperature", "experiment", "max_model_b"}
    assert contract | DEFAULTS_OF_THE_CLUSTER <= set(dag.params)


def test_the_two_urls_default_to_what_the_chart_says(dag: Any) -> None:
    assert dag.params["mlflow_url"] == "http://mlflow:5000/mlflow"
    assert "ollama-1.ollama-headless" in dag.params["ollama_url"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_tips", 0),
        ("n_tips", 2.5),
        ("n_tips", "5"),
        ("n_scenarios", -1),
        ("temperature", 2.1),
        ("experiment", "my-experiment"),
        ("experiment", "tip-bench-../x"),
        ("max_model_b", 0),
        ("models", ""),
        ("models", "{{ conf }}"),
        ("ollama_url", "ollama:11434"),
        ("mlflow_url", "file:///etc"),
        ("judge", "somebody"),
        ("judge_model", "anthropic:x"),
        ("judge_timeout_hours", 0),
        ("collect_memory", "lots"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_runs(dag: Any, name: str, value: Any) -> None:
    from airflow.sdk.exceptions import AirflowException

    with pytest.raises((AirflowException, ValueError)):
        copy.copy(dag.params.get_param(name)).resolve(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("models", "qwen2.5:0.5b, hf.co/org/model:Q4_K_M"),
        ("judge_model", "ollama:qwen2.5:1.5b"),
        ("collect_memory", "256Mi,llama3.2:3b=1Gi"),
        ("keep_alive", "0"),
        ("n_scenarios", 2),
    ],
)
def test_a_right_value_is_taken(dag: Any, name: str, value: Any) -> None:
    assert copy.copy(dag.params.get_param(name)).resolve(value) == value


def test_the_reference_lists_the_parameters_as_they_are(dag: Any) -> None:
    """UPDATE_DOCS=1 writes the table anew."""
    rows = ["| parameter | type | default | |", "|---|---|---|---|"]
    for name in dag.params:
        param = dag.params.get_param(name)
        default = "from the chart" if name in DEFAULTS_OF_THE_CLUSTER else f"`{json.dumps(param.value)}`"
        kind = param.schema["type"] + (": " + ", ".join(param.schema["enum"]) if "enum" in param.schema else "")
        rows.append(f"| `{name}` | {kind} | {default} | {param.description} |")
    page = Path(__file__).parents[2] / "docs" / "reference" / "dag.md"
    head, mark, found = page.read_text().partition('PYTEST="-m dags" -->\n')
    table = "\n" + "\n".join(rows) + "\n"
    if os.environ.get("UPDATE_DOCS"):
        page.write_text(head + mark + table)
    else:
        assert found == table


# -- shape ---------------------------------------------------------------------------------------


def test_the_tasks_and_their_order(dag: Any) -> None:
    assert set(dag.task_ids) == {
        *("plan", "collect", "export_for_judge", "pick_judge", "judge", "await_scores", "compare"),
        *("export_sample", "await_sample", "another_round", "next_round", "clear_away"),
    }
    assert dag.get_task("collect").upstream_task_ids == {"plan"}
    assert dag.get_task("export_for_judge").upstream_task_ids == {"collect"}
    assert dag.get_task("compare").upstream_task_ids == {"pick_judge", "judge", "await_scores", "await_sample"}
    assert dag.get_task("export_sample").upstream_task_ids == {"pick_judge"}
    assert dag.get_task("await_sample").upstream_task_ids == {"export_sample"}
    assert dag.schedule is None


def test_collect_is_mapped_over_models_in_the_pool_of_replicas(dag: Any) -> None:
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    collect = dag.get_task("collect")
    assert isinstance(collect, MappedOperator)
    assert collect.pool == "ollama" == dag.get_task("judge").pool
    assert dag.get_task("compare").pool == "default_pool"


def test_a_failed_model_does_not_keep_the_others_from_being_compared(dag: Any) -> None:
    # Skipped stands for refused: a rule that asks for successes would skip the export, too.
    assert dag.get_task("export_for_judge").trigger_rule == "all_done"
    assert dag.get_task("compare").trigger_rule == "none_failed_min_one_success"


def test_long_stages_and_the_wait_hold_no_worker(dag: Any) -> None:
    """A deferrable pod operator loses its XCom."""
    export = dag.get_task("export_for_judge")
    assert export.do_xcom_push and not export.deferrable
    judge = dag.get_task("judge")
    assert judge.deferrable and not judge.do_xcom_push
    assert dag.get_task("collect").partial_kwargs["deferrable"]
    assert dag.get_task("await_scores").mode == "reschedule"


@pytest.mark.parametrize(("who", "deferred"), [("baseline", False), ("llm", True)])
def test_a_judge_that_takes_a_second_is_not_deferred(
    dag: Any, who: str, deferred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    seen = []
    monkeypatch.setattr(KubernetesPodOperator, "execute", lambda self, context: seen.append(self))
    copy.copy(dag.get_task("judge")).execute({"params": {"judge": who}})
    (task,) = seen
    assert task.deferrable == deferred and (task.startup_check_interval_seconds == 1) == (not deferred)


def test_it_survives_serialization(dag: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    assert set(DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_ids) == set(dag.task_ids)


# -- the plan ------------------------------------------------------------------------------------


def plan(dag: Any, **conf: Any) -> list[dict[str, Any]]:
    function = dag.get_task("plan").python_callable
    return function(params=dict(dag.params.dump()) | conf, run_id="manual__2026-11-24T20:00:00+00:00")


def test_every_model_gets_a_pod_with_its_own_memory_labels_and_journal(dag: Any, module: ModuleType) -> None:
    pods = plan(dag, models="a:1b, b/c:2b,a:1b", collect_memory="256Mi,b/c:2b=512Mi", experiment="tip-bench-x")
    assert [p["env_vars"]["TIPBENCH_MODELS"] for p in pods] == ["a:1b", "b/c:2b"]
    assert [p["container_resources"]["limits"]["memory"] for p in pods] == ["256Mi", "512Mi"]
    assert pods[0]["container_resources"]["requests"]["memory"] == "256Mi"
    assert pods[1]["labels"] | {} == pods[1]["labels"] | {
        "tipbench.dev/model": module.label("b/c:2b"),
        "tipbench.dev/stage": "collect",
        "tipbench.dev/experiment": "tip-bench-x",
        "tipbench.dev/run": module.label("manual__2026-11-24T20:00:00+00:00"),
        "app.kubernetes.io/part-of": "tipbench",
    }
    assert len({p["env_vars"]["TIPBENCH_SPOOL"] for p in pods}) == 2


def test_without_a_word_on_memory_the_template_says_it(dag: Any) -> None:
    assert "container_resources" not in plan(dag, models="a:1b")[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/b:1", "a-b:1"),
        ("org/Some-Long-Model-GGUF:Q4_K_M" * 3, "org/Some-Long-Model-GGUF:Q4_K_S" * 3),
        ("a:1", "a-1"),
    ],
)
def test_models_whose_labels_would_be_alike_share_neither_label_nor_journal(dag: Any, one: str, other: str) -> None:
    first, second = plan(dag, models=f"{one},{other}")
    assert first["labels"]["tipbench.dev/model"] != second["labels"]["tipbench.dev/model"]
    assert first["env_vars"]["TIPBENCH_SPOOL"] != second["env_vars"]["TIPBENCH_SPOOL"]


@given(st.text(max_size=150))
def test_names_are_made_by_the_rule_of_the_package(module: ModuleType, text: str) -> None:
    assert module.label(text) == fitted_name(text)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"model": "a:1b"}, "no key 'model'; did you mean 'models'?"),
        ({"n-tips": 3}, "no key 'n-tips'; did you mean 'n_tips'?"),
        ({"Prompts": "v1"}, "did you mean 'prompts'?"),
        ({"frobnicate": 1}, "no key 'frobnicate'. The keys are: models, prompts,"),
    ],
)
def test_a_key_of_the_conf_that_is_no_parameter_is_refused_with_the_one_that_was_meant(
    dag: Any, conf: dict[str, Any], words: str
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    function = dag.get_task("plan").python_callable
    with pytest.raises(AirflowFailException, match=re.escape(words)):
        function(params=dict(dag.params.dump()), run_id="r", dag_run=SimpleNamespace(conf=conf))


@given(st.dictionaries(st.sampled_from(["models", "n_tips", "judge", "seed"]), st.integers(), max_size=4))
def test_known_keys_are_never_refused(module: ModuleType, conf: dict[str, Any]) -> None:
    assert module.unknown_keys(conf) == []


def test_every_parameter_of_a_stage_reaches_the_pod_as_the_commands_variable(dag: Any) -> None:
    env = plan(dag, n_tips=3, pull=True)[0]["env_vars"]
    assert env["TIPBENCH_N_TIPS"] == "3" and env["TIPBENCH_PULL"] == "True" and env["TIPBENCH_TEMPERATURE"] == "0.7"
    known = {f"TIPBENCH_{key.upper()}" for key in json_schema()["properties"]} | {
        "TIPBENCH_RUN",
        "TIPBENCH_RESULT_FILE",
    }
    assert set(env) <= known


def test_a_judge_llm_without_a_model_is_said_at_once(dag: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="judge_model"):
        plan(dag, judge="llm")


@pytest.mark.parametrize(
    ("conf", "key"),
    [
        ({"judge": "llm"}, "judge_model"),
        ({"sample": 8, "reference": "ann"}, "sample"),
        ({"judge": "llm", "judge_model": "ollama:m:1b", "sample": 3, "reference": "ann"}, "sample"),
        ({"judge": "llm", "judge_model": "ollama:m:1b", "sample": 8, "reference": "ann", "until": "sure"}, "sample"),
        ({"judge": "llm", "judge_model": "ollama:m:1b", "sample": 8, "reference": ""}, "reference"),
        ({"judge": "llm", "judge_model": "ollama:m:1b", "sample_tips": 2}, "sample_tips"),
        ({"judge": "llm", "judge_model": "ollama:m:1b", "sample": 8, "sample_tips": 2, "reference": "ann, bob"}, ""),
        ({"reference": "ann"}, ""),
    ],
)
def test_parameters_that_do_not_go_together_are_refused_as_the_package_refuses_them(
    dag: Any, conf: dict[str, Any], key: str
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    params = {**dag.params.dump(), **conf}
    assert set(faults(params)) == ({key} if key else set())
    said = module_of(dag).faults(params)
    assert len(said) == bool(key) and all(key in words for words in said)
    if key:
        with pytest.raises(AirflowFailException, match=key):
            plan(dag, **conf)


def test_the_smallest_sample_is_what_the_estimate_takes(dag: Any) -> None:
    assert module_of(dag).SMALLEST_SAMPLE == SMALLEST_SAMPLE == MIN_REFERENCE_SCENARIOS


@pytest.mark.parametrize(
    ("params", "chosen"),
    [
        ({"judge": "manual", "sample": 0}, ["await_scores"]),
        ({"judge": "skip", "sample": 0}, ["compare"]),
        ({"judge": "llm", "sample": 0}, ["judge"]),
        ({"judge": "llm", "sample": 8}, ["judge", "export_sample"]),
    ],
)
def test_people_score_the_sample_while_the_llm_scores_everything(
    dag: Any, params: dict[str, Any], chosen: list[str]
) -> None:
    assert dag.get_task("pick_judge").python_callable(params=params) == chosen


def test_a_plan_that_failed_is_not_exported(dag: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    class Nothing:
        def xcom_pull(self, **_: Any) -> None:
            return None

    with pytest.raises(AirflowFailException, match="nothing was planned"):
        type(dag.get_task("export_for_judge")).execute.__wrapped__(dag.get_task("export_for_judge"), {"ti": Nothing()})


# -- pods ----------------------------------------------------------------------------------------


def pod_of(dag: Any, name: str) -> Any:
    """The pod that a task would start, without a cluster."""
    task = dag.get_task(name)
    if name == "collect":
        task = task.unmap(plan(dag, collect_memory="300Mi")[0])
    task.name = task._set_name(task.name)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in CLUSTER.items():
            patch.setenv(variable, value)
        return task.build_pod_request_obj(None, dry_run=True)


@pytest.mark.parametrize("name", ["collect", "judge", "compare"])
def test_a_pod_is_restricted_and_limited(dag: Any, name: str) -> None:
    pod = pod_of(dag, name)
    assert pod.spec.security_context.run_as_non_root and pod.spec.security_context.run_as_user == 65532
    assert pod.spec.security_context.seccomp_profile.type == "RuntimeDefault"
    assert pod.spec.restart_policy == "Never"
    for container in pod.spec.containers:
        assert container.resources.limits["memory"] == container.resources.requests["memory"]
        assert container.security_context.read_only_root_filesystem
        assert container.security_context.capabilities.drop == ["ALL"]
        assert container.security_context.allow_privilege_escalation is False
    assert pod.spec.containers[0].image == f"registry.example/tipbench/{name}:9.9.9"
    assert bool(pod.spec.automount_service_account_token) == (name in ("collect", "judge"))
    sources = pod.spec.containers[0].env_from
    assert "tipbench-config" in [s.config_map_ref.name for s in sources if s.config_map_ref]
    assert "mlflow-auth" in [s.secret_ref.name for s in sources if s.secret_ref]
    assert pod.spec.enable_service_links is False


# -- what it says when a pod fails ---------------------------------------------------------------


def failed_pod(**terminated: Any) -> Any:
    from kubernetes.client import models as k8s

    state = k8s.V1ContainerState(terminated=k8s.V1ContainerStateTerminated(**terminated))
    status = k8s.V1ContainerStatus(name="collect", state=state, image="i", image_id="i", ready=False, restart_count=0)
    limits = k8s.V1ResourceRequirements(limits={"memory": "40Mi"})
    return k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="tipbench-collect-abc"),
        spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="collect", resources=limits)]),
        status=k8s.V1PodStatus(phase="Failed", container_statuses=[status]),
    )


def test_a_kill_for_memory_is_said_with_the_limit(module: ModuleType) -> None:
    words, _, killed = module.explain(failed_pod(exit_code=137, reason="OOMKilled"))
    assert killed == "OOMKilled" and "OOMKilled" in words and "40Mi" in words and "tipbench-collect-abc" in words


def test_failed_cells_are_said_with_their_reasons(module: ModuleType) -> None:
    outcome = {
        "stage": "collect",
        "exit_code": 4,
        "failed": {"ModelMissing": 24},
        "why": ["gemma3:1b: 24 cells failed, ModelMissing: Ollama does not have gemma3:1b; run: ollama pull gemma3:1b"],
    }
    words, told, killed = module.explain(failed_pod(exit_code=4, reason="Error", message=json.dumps(outcome)))
    assert words == outcome["why"][0]
    assert told["exit_code"] == 4 and killed == ""


def test_an_error_is_said_in_the_stages_own_words(module: ModuleType) -> None:
    outcome = {"stage": "collect", "exit_code": 5, "error": "MLflow at http://m cannot be reached"}
    words, *_ = module.explain(failed_pod(exit_code=5, reason="Error", message=json.dumps(outcome)))
    assert words == "MLflow at http://m cannot be reached"


def test_a_pod_that_says_nothing_is_told_by_its_last_lines(module: ModuleType) -> None:
    words, outcome, killed = module.explain(failed_pod(exit_code=137, reason="Error", message="last line"))
    assert "exit code 137" in words and "last line" in words and killed == "Signal9"
    assert outcome == {"exit_code": 137}


def test_an_evicted_pod_is_told_by_the_kubelets_words(module: ModuleType) -> None:
    from kubernetes.client import models as k8s

    pod = failed_pod(exit_code=0)
    pod.status = k8s.V1PodStatus(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    words, _, killed = module.explain(pod)
    assert killed == "Evicted" and "low on resource" in words


# -- rounds --------------------------------------------------------------------------------------


def module_of(dag: Any) -> Any:
    """The DAG's file, as Airflow loaded it."""
    return sys.modules[dag.get_task("pick_judge").python_callable.__module__]


def test_the_runs_of_a_chain_are_numbered_behind_the_first_ones_id(dag: Any) -> None:
    round_id = module_of(dag).round_id
    assert round_id("manual__2026", 2) == "manual__2026__round_2"
    assert round_id("manual__2026__round_2", 3) == "manual__2026__round_3"
    assert round_id("manual__2026__round_3", 1) == "manual__2026"
    for run_id in ("manual__2026", "manual__2026__round_2", "a__round_x"):
        for number in (1, 2, 12):
            assert round_id(run_id, number) == pipeline.round_id(run_id, number)
            assert pipeline.chain_of(round_id(run_id, number)) == (round_id(run_id, 1), number)


def test_what_a_run_leaves_is_cleared_away_whatever_became_of_it(dag: Any) -> None:
    task = dag.get_task("clear_away")
    assert task.is_teardown and task.on_failure_fail_dagrun
    pods = {name for name in dag.task_ids if hasattr(dag.get_task(name), "build_pod_request_obj")} | {"collect"}
    assert task.upstream_task_ids == pods and not task.downstream_task_ids


@pytest.mark.parametrize(
    ("states", "fails"),
    [
        ({"collect_0": "success", "compare": "success", "next_round": "skipped"}, False),
        ({"collect_0": "skipped", "collect_1": "success", "compare": "skipped"}, True),
        ({"collect_0": "failed", "compare": "skipped"}, True),
        ({"export_for_judge": "failed", "compare": "upstream_failed"}, False),  # the run fails by itself
        ({"plan": "failed", "collect": "upstream_failed", "compare": "upstream_failed"}, False),
        ({"plan": "success", "compare": None}, True),
    ],
)
def test_a_run_that_was_stopped_is_no_success_and_leaves_no_pod(
    dag: Any, monkeypatch: pytest.MonkeyPatch, states: dict[str, str | None], fails: bool
) -> None:
    from airflow.sdk.exceptions import AirflowFailException
    from kubernetes.client import ApiException, V1ObjectMeta, V1Pod, V1PodList

    module = module_of(dag)
    pods = {"left": "a-run", "gone-meanwhile": "a-run", "other": "another-run"}

    class Client:
        def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
            run = dict(part.split("=") for part in label_selector.split(","))["tipbench.dev/run"]
            return V1PodList(items=[V1Pod(metadata=V1ObjectMeta(name=n)) for n, of in pods.items() if of == run])

        def delete_namespaced_pod(self, name: str, namespace: str) -> None:
            del pods[name]
            if name == "gone-meanwhile":
                raise ApiException(status=404)

    class Instance:
        dag_id = "bench_collect"

        def get_task_states(self, dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str | None]]:
            return {run_ids[0]: states}

    monkeypatch.setattr(module, "LINGERS_S", 0.01)
    monkeypatch.setattr(module.KubernetesHook, "core_v1_client", Client())
    with pytest.raises(AirflowFailException, match="stopped") if fails else contextlib.nullcontext():
        dag.get_task("clear_away").python_callable(run_id="a-run", ti=Instance())
    assert pods == {"other": "another-run"}


def test_a_round_comes_after_the_board_and_is_triggered_once(dag: Any) -> None:
    assert dag.get_task("another_round").upstream_task_ids == {"compare"}
    following = dag.get_task("next_round")
    assert following.upstream_task_ids == {"another_round"}
    assert (following.trigger_dag_id, following.skip_when_already_exists) == ("bench_collect", True)


@pytest.mark.parametrize(
    ("until", "said", "goes_on"),
    [
        ("all", None, False),
        ("sure", {"action": "collect", "looks_taken": 1, "reason": "collect: round 2"}, True),
        ("sure", {"action": "stop", "looks_taken": 2, "reason": "stop: a leads"}, False),
        ("sure", {"action": "judge", "looks_taken": 1, "reason": "judge: round 2"}, None),
        ("sure", None, None),
    ],
)
def test_another_round_is_what_mlflow_says(
    dag: Any, monkeypatch: pytest.MonkeyPatch, until: str, said: Any, goes_on: bool | None
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    module = module_of(dag)
    tags = [] if said is None else [{"key": "tipbench.next.abc", "value": json.dumps(said)}]
    monkeypatch.setattr(module.Mlflow, "experiment", lambda self, name: {"experiment_id": "1", "tags": tags})

    class Instance:
        def __init__(self) -> None:
            self.pushed: dict[str, str] = {}

        def xcom_pull(self, task_ids: str, key: str) -> str:
            return "abc"

        def xcom_push(self, key: str, value: str) -> None:
            self.pushed[key] = value

    instance = Instance()
    params = {"until": until, "mlflow_url": "http://localhost:1", "experiment": "tip-bench-x"}

    def ask() -> Any:
        return dag.get_task("another_round").python_callable(params=params, run_id="manual__1", ti=instance)

    if goes_on is None:
        with pytest.raises(AirflowFailException):
            ask()
        return
    assert ask() is goes_on
    if said is not None:
        assert instance.pushed["next_run"] == f"manual__1__round_{said['looks_taken'] + 1}"


def test_what_tasks_ask_of_their_instance_is_there(dag: Any) -> None:
    """The stand-ins of these tests may have more than Airflow's own task instance has."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    source = Path(module_of(dag).__file__ or "").read_text()
    asked = set(re.findall(r"""\bti(?:["']\])?\.(\w+)""", source))
    assert {"xcom_pull", "xcom_push", "get_task_states"} <= asked
    assert {name for name in asked if name not in RuntimeTaskInstance.model_fields and not hasattr(RuntimeTaskInstance, name)} == set()  # fmt: skip
