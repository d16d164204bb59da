"""Numbers, shares, sizes and durations: read exactly, or refused with a sentence that quotes what was written."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipbench import quantities
from tipbench.config import KEYS, build, read
from tipbench.errors import InputError

pytestmark = pytest.mark.unit

UNITS = {"": 1, "k": 1000, "K": 1000, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGTP", start=1)}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4000000k", 4_000_000_000),
        ("1.5Gi", 1_610_612_736),
        ("2e9", 2_000_000_000),
        ("2E9", 2_000_000_000),
        ("500M", 500_000_000),
        ("1E", 10**18),
        ("0.5Gi", 2**29),
        (".5Gi", 2**29),
        ("1.", 1),
        ("1500m", 2),
        ("1n", 1),
        ("128974848", 128_974_848),
        ("129M", 129_000_000),
        ("123Mi", 128_974_848),
        ("2GiB", 2**31),
        (" 2Gi ", 2**31),
    ],
)
def test_sizes_are_read_as_kubernetes_reads_quantities(text: str, count: int) -> None:
    assert quantities.size(text) == count


@settings(deadline=None)
@given(st.decimals(min_value=0, max_value=999, places=3), st.sampled_from(sorted(UNITS)))
def test_a_size_is_its_number_times_its_unit_rounded_up(number: Decimal, unit: str) -> None:
    assert quantities.size(f"{number}{unit}") == math.ceil(number * UNITS[unit])


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_text_makes_a_size_reader_do_anything_but_read_or_refuse(text: str) -> None:
    try:
        count = quantities.size(text)
    except ValueError as error:
        assert "2Gi" in str(error)
    else:
        assert 0 <= count <= quantities.LARGEST_SIZE


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2gb", "did you mean 2G?"),
        ("1,5Gi", "did you mean 1.5Gi?"),
        ("2 gib", "did you mean 2Gi?"),
        ("+2Gi", "write 2Gi"),
        ("1e999", "1 EiB"),
        ("9" * 5000, "5000 characters"),
        ("-1Gi", "write it like"),
        ("nan", "write it like"),
    ],
)
def test_a_size_that_was_meant_otherwise_is_answered_with_what_was_meant(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match="2Gi") as caught:
        quantities.size(text)
    assert hint in str(caught.value)


def test_half_a_byte_of_memory_is_a_slip_of_the_pen() -> None:
    with pytest.raises(InputError, match=r"'500m' is too small.*500M"):
        build({"memory_limit": "500m"})


@pytest.mark.parametrize("text", ["3m", "90s", "500ms", "2h", "1.5h"])
def test_seconds_with_a_unit_are_answered_with_the_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"has a unit.*write [\d.]+$"):
        quantities.seconds(text)


@pytest.mark.parametrize("variable", ["TIPBENCH_MLFLOW_RETRY_S", "TIPBENCH_MLFLOW_READ_S", "TIPBENCH_AIRFLOW_READ_S"])
@pytest.mark.parametrize("text", ["3m", "abc", "nan", "inf", "-1", "1e400", "9" * 400, "1_0", "٣"])
def test_a_variable_that_is_no_number_of_seconds_is_named(variable: str, text: str) -> None:
    from tipbench.api.settings import from_environment

    with pytest.raises(InputError, match=f"^{variable}: "):
        from_environment({variable: text})


ODD = [10**400, -(10**400), float("nan"), float("inf"), True, None, [1], {"a": 1}, "3", "", "ten"]


@pytest.mark.parametrize("name", [n for n, key in KEYS.items() if key.type in ("int", "float")])
@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_every_number_of_the_configuration_refuses_what_is_none(name: str, value: object) -> None:
    with pytest.raises(InputError) as caught:
        build({name: value})
    assert caught.value.faults[0].startswith(f"{name}: ") and len(str(caught.value)) < 300


@settings(deadline=None)
@given(
    st.sampled_from(sorted(KEYS)),
    st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.text(), max_size=3)),
)
def test_no_value_of_any_key_does_anything_but_fit_or_be_named(name: str, value: object) -> None:
    try:
        config = build({name: value})
    except InputError as error:
        assert error.faults[0].startswith(f"{name}: ")
    else:
        assert build({name: getattr(config, name)}) == config


@settings(deadline=None)
@given(st.sampled_from(sorted(KEYS)), st.text())
def test_no_text_of_an_option_or_variable_is_a_traceback(name: str, text: str) -> None:
    try:
        value = read(name, text)
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(value, {"str": str, "int": int, "float": float, "bool": bool}[str(KEYS[name].type)])


@pytest.mark.parametrize("name", [n for n, key in KEYS.items() if key.type == "str" and key.default])
def test_an_empty_value_is_no_value(name: str) -> None:
    with pytest.raises(InputError, match=name):
        build({name: ""})


@pytest.mark.parametrize(
    ("word", "near"), [("model", "models"), ("n-tips", "n_tips"), ("nTips", "n_tips"), ("Temperature", "temperature")]
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(word: str, near: str) -> None:
    with pytest.raises(InputError, match=f"{word}: unknown key; did you mean {near}\\?"):
        build({word: 1})
