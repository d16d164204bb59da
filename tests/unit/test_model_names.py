"""Names of models by Ollama's own rules, and the sizes in them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tipbench.config import Config
from tipbench.model_names import each_once, parameters_in_name, read_name, same_model

pytestmark = pytest.mark.unit
part = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_-]{0,12}", fullmatch=True)
host = st.sampled_from(["hf.co", "registry.ollama.ai", "localhost:5000", "Example.COM"])


@given(host, part, part, part)
def test_a_full_name_is_what_stands_in_it_whatever_its_case(host: str, namespace: str, model: str, tag: str) -> None:
    text = f"{host}/{namespace}/{model}:{tag}"
    name = read_name(text)
    assert (name.host, name.namespace, name.model, name.tag) == (host, namespace, model, tag) and name.valid
    assert same_model(text, text.swapcase()) and same_model(text, f"https://{text}") and same_model(text, str(name))


@given(part, part)
def test_what_is_left_out_is_the_default(model: str, tag: str) -> None:
    full = f"registry.ollama.ai/library/{model}:{tag}"
    assert same_model(f"{model}:{tag}", full) and same_model(f"library/{model}:{tag}", full)
    assert same_model(model, f"{model}:latest") and str(read_name(full)) == f"{model}:{tag}"
    assert not same_model(f"hf.co/library/{model}:{tag}", full) and not same_model(
        f"me/{model}:{tag}", f"{model}:{tag}x"
    )


@given(st.text(max_size=100))
@example("a/b/c/d")
@example("x:")
@example(":x")
@example("9" * 5000 + "b")
@example("1e400b")
def test_any_text_can_be_read(text: str) -> None:
    name = read_name(text)
    assert isinstance(name.valid, bool) and same_model(text, text)
    size = parameters_in_name(text)
    assert size is None or 0 <= size < float("inf")


@pytest.mark.parametrize("text", ["", "a b", "a/b/c/d", "x:", ":x", "-x", "a.b/x", "x:" + "y" * 81, "x:ü"])
def test_what_ollama_would_not_take_is_not_valid(text: str) -> None:
    assert not read_name(text).valid


@pytest.mark.parametrize("text", ["gpt-oss:120b-cloud", "x:cloud", "me/x:CLOUD", "hf.co/me/x:1b-Cloud"])
def test_a_tag_of_somebody_elses_machine_is_known(text: str) -> None:
    assert read_name(text).cloud


@pytest.mark.parametrize("text", ["cloud", "cloud:1b", "x:cloudy", "cloud/x"])
def test_a_cloud_elsewhere_in_a_name_is_none(text: str) -> None:
    assert not read_name(text).cloud


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("kimi-k2:1t", 1e12),
        ("hf.co/me/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", 3e9),
        ("registry.ollama.ai/library/QWEN2.5:0.5B", 5e8),
        ("qwen3:30b-a3b", 3e10),
        ("gemma3n:e2b", None),
        ("me/7b/x", None),
        ("x:q4_0", None),
        ("x:4bit", None),
    ],
)
def test_a_size_is_read_wherever_people_write_it(text: str, size: float | None) -> None:
    assert parameters_in_name(text) == size


def test_two_spellings_of_one_model_are_collected_once() -> None:
    assert each_once(("b", "A:1b", "a:1B", "library/b:latest")) == ("b", "A:1b")
    assert Config(models="Qwen2.5:0.5B, qwen2.5:0.5b").model_list == ("Qwen2.5:0.5B",)
