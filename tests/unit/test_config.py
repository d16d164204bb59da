"""The one definition of the configuration: defaults, rules, and the same keys everywhere."""

from __future__ import annotations

import pytest

from tipbench.config import KEYS, Config, build, json_schema, split_list
from tipbench.errors import InputError

pytestmark = pytest.mark.unit


def test_the_defaults_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = Config()
    assert config.model_list == ("qwen2.5:0.5b", "qwen2.5:1.5b", "gemma3:1b", "llama3.2:3b")
    assert config.prompt_list == ("v1", "v2-mentor", "v3-few-shot")
    assert (config.n_tips, config.n_scenarios, config.temperature, config.max_model_b) == (5, 0, 0.7, 4.0)
    assert config.experiment == "tip-bench-auto"
    assert config.ollama_url == "http://localhost:11434"
    assert config.store_url == "http://localhost:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/mlflow")
    assert config.store_url == "http://mlflow:5000/mlflow"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"modles": "x"}, "modles: unknown key; did you mean models?"),
        ({"models": ""}, "models: needs at least one name"),
        ({"models": 3}, "models: needs text"),
        ({"n_tips": 0}, "n_tips: 0 is too small"),
        ({"n_tips": 2.5}, "n_tips: needs a whole number"),
        ({"n_tips": True}, "n_tips: needs a number"),
        ({"n_tips": "5"}, "n_tips: needs a number"),
        ({"temperature": float("nan")}, "temperature: needs a finite number"),
        ({"temperature": 3}, "temperature: 3.0 is too large"),
        ({"experiment": "mine"}, "experiment: 'mine' does not fit"),
        ({"max_model_b": 0}, "max_model_b: 0.0 is too small; it must be over"),
        ({"engine": "vllm"}, "engine: 'vllm' is not one of ollama, openai, embedded"),
        ({"ollama_url": "localhost:11434"}, "ollama_url: 'localhost:11434' does not fit"),
        ({"keep_alive": "forever"}, "keep_alive: 'forever' does not fit"),
        ({"pull": "yes"}, "pull: needs true or false"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wrong(values: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        build(values, "conf")
    assert words in str(caught.value) and str(caught.value).startswith("conf: 1 fault")
    assert caught.value.exit_code == 2


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(InputError) as caught:
        build({"n_tips": 0, "temperature": 9, "x": 1})
    assert len(caught.value.faults) == 3


def test_what_does_not_fit_is_answered_with_what_would() -> None:
    for name, value, words in (
        ("experiment", "mine", "e.g. tip-bench-auto"),
        ("ollama_url", "localhost:11434", "http://localhost:11434"),
        ("keep_alive", "-1", "60s, 5m or 0"),
        ("memory_limit", "2Q", "512Mi or 2Gi"),
    ):
        with pytest.raises(InputError, match="does not fit") as caught:
            build({name: value})
        assert words in str(caught.value)
    assert all("shape" in KEYS[name].metadata for name in KEYS if "pattern" in KEYS[name].metadata)


def test_a_secret_in_a_url_is_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        build({"ollama_url": "ftp://user:hunter2@host"})
    assert "hunter2" not in str(caught.value)


def test_lists_may_come_as_lists_and_whole_floats_as_numbers() -> None:
    config = build({"models": ["a:1b", "b:1b"], "n_tips": 3.0})
    assert config.model_list == ("a:1b", "b:1b") and config.n_tips == 3


def test_a_list_keeps_its_order_and_drops_repeats() -> None:
    assert split_list(" a, b,a,,c ") == ("a", "b", "c")


def test_the_schema_has_every_key_with_its_rules() -> None:
    properties = json_schema()["properties"]
    assert set(properties) == set(KEYS)
    assert properties["n_tips"] == {
        "type": "integer", "default": 5, "description": "Candidates per scenario.", "minimum": 1, "maximum": 200
    }  # fmt: skip
    assert properties["max_model_b"]["exclusiveMinimum"] == 0.0
    assert properties["experiment"]["pattern"].startswith("^tip-bench-")


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", {}),
        ("qwen2.5-1.5b=1.5b", {"qwen2.5-1.5b": 1_500_000_000}),
        ("org/a:b=135M, x y=2B", {"org/a:b": 135_000_000, "x y": 2_000_000_000}),
    ],
)
def test_parameter_counts_are_read_by_model(text: str, counts: dict[str, int]) -> None:
    assert build({"parameters": text}).parameter_counts == counts


@pytest.mark.parametrize("text", ["1.5b", "m=", "m=large", "m=1.5", "=3b", "m=1b;n=2b"])
def test_parameter_counts_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="parameters"):
        build({"parameters": text})
