"""Addresses and secrets: read once, and never more of them in any text than may be seen."""

from __future__ import annotations

import copy
import json
import pickle
import string
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tipbench.config import Config, build
from tipbench.errors import InputError
from tipbench.net.address import (
    Address,
    is_loopback,
    masked,
    read_address,
    read_addresses,
    read_store,
    revealed,
    without_credentials,
)
from tipbench.net.secret import Secret, bearer, from_environment, hide

pytestmark = pytest.mark.unit
MARK = "zqMARKERqz"
words = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Cc"]), max_size=12)
hosts = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9](\.[a-z]{2,5})?", fullmatch=True)
secrets = words.map(lambda text: text + MARK)


def every_text(value: Any) -> str:
    """All ways in which a value is turned into text by accident."""
    shown = [str(value), repr(value), f"{value}", f"{value!r}", "%s" % (value,), format(value)]  # noqa: UP031
    shown += [json.dumps(value, default=str), json.dumps({"x": value}, default=str)]
    return "\n".join(shown)


@given(
    user=words,
    password=secrets,
    host=hosts,
    port=st.integers(1, 65535),
    path=st.sampled_from(["", "/", "/mlflow", "/a/b/"]),
)
def test_credentials_are_kept_and_never_shown(user: str, password: str, host: str, port: int, path: str) -> None:
    url = f"http://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}{path}"
    address = read_address(url, "--x")
    assert str(address) == f"http://{host}:{port}{path.rstrip('/')}"
    assert address.credentials is not None
    assert (address.credentials.user, address.credentials.password.reveal()) == (user, password.strip())
    for made in (address, copy.copy(address), copy.deepcopy(address), address.credentials, [address], {"u": address}):
        assert MARK not in every_text(made)
    again = read_address(address.reveal(), "--x")
    assert again == address and again.credentials == address.credentials
    assert MARK.encode() not in pickle.dumps(address)


@given(
    before=secrets,
    after=words,
    frame=st.sampled_from(["http://{}@{}", "ftp://{}@{}", "http://a:{}@{}:99999", "http:/{}@{}"]),
)
@example(before=f"u:{MARK}/more", after="host", frame="http://{}@{}")
@example(before=f"u:80/{MARK}", after="host", frame="http://{}@{}")
@example(before=f"u:p@{MARK}", after="host:x", frame="http://{}@{}")
def test_what_stands_before_an_at_is_never_shown_whatever_is_wrong_with_the_rest(
    before: str, after: str, frame: str
) -> None:
    text = frame.format(before, after)
    for read in (read_address, read_addresses, read_store):
        try:
            shown = every_text(read(text, "--x"))
        except InputError as error:
            shown = str(error)
        if MARK not in after:
            assert MARK not in shown
    assert MARK not in masked(text)
    for key in ("ollama_url", "mlflow_url"):
        try:
            shown = every_text(asdict(build({key: text})))
        except InputError as error:
            shown = str(error)
        assert MARK not in shown


@given(st.text(max_size=60))
@example("http://[")
@example("http://[::1")
@example("http://h:０")
@example("http://xn--\ud800")
@example("\x00")
@example("//")
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    for read in (read_address, read_addresses, read_store):
        try:
            read(text, "--x")
        except InputError as error:
            assert "--x" in str(error) and "\n" not in str(error)
    without_credentials(text)
    is_loopback(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("localhost:11434", "write http://localhost:11434"),
        ("http://", "names no host"),
        ("http://h:99999", "a port is a number"),
        ("http://h:0", "port 0"),
        ("http://h/?token=abc", "query"),
        ("http://a b", "white space"),
        ("https//h", "is no http:// or https://"),
    ],
)
def test_a_wrong_address_says_what_to_write(text: str, words: str) -> None:
    with pytest.raises(InputError, match="--ollama-url") as caught:
        read_address(text, "--ollama-url")
    assert words in str(caught.value)


def test_a_list_keeps_its_order_and_its_secrets() -> None:
    listed = read_addresses("http://a:x,y@one:1 , http://two/,http://two\n", "--ollama-url")
    assert listed == "http://one:1,http://two"
    assert [one.reveal() for one in listed.each] == ["http://a:x%2Cy@one:1", "http://two"]
    assert revealed(listed) == "http://a:x%2Cy@one:1,http://two"


@pytest.mark.parametrize(
    "text",
    [
        "localhost:5000", "localhost", "mlflow:5000/mlflow", "mlflow.example.com", "10.0.0.1", "10.0.0.1:5000", "[::1]:5000", "::1",
        "//mlflow:5000", "user:secret@mlflow:5000", "databricks", "Databricks", "databricks-uc", "uc", "databricks://profile",
        "databricks:profile", "sqlite:///mlflow.db", "postgresql://u:p@h/db", "postgresql+psycopg2://h/db", "mysql://h/db",
        "s3://bucket/x", "http:/mlflow", "http:mlflow:5000", "htpp://mlflow:5000", "http", "", "  ", "a\x00b",
    ],
)  # fmt: skip
def test_what_would_be_a_folder_by_mistake_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--mlflow-url") as caught:
        read_store(text)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("store", "store"),
        ("./localhost:5000", "localhost:5000"),
        ("./databricks", "databricks"),
        ("/srv/tipbench", "/srv/tipbench"),
        ("/tmp//x", "/tmp/x"),
        ("my.store", "my.store"),
        ("store.v0.2", "store.v0.2"),
        ("runs/2026:01", "runs/2026:01"),
        ("../x", "../x"),
        ("file:///srv/x", "/srv/x"),
        ("file:/srv/x", "/srv/x"),
        ("file:x", "x"),
        ("file://x/y", "x/y"),
        ("file://localhost/srv/x", "/srv/x"),
        ("a b", "a b"),
        ("me@home", "me@home"),
    ],
)
def test_a_folder_stays_what_it_is(text: str, path: str) -> None:
    assert read_store(text) == Path(path)


def test_a_folder_that_is_there_is_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench.example.com").mkdir()
    assert read_store("bench.example.com") == Path("bench.example.com")


def test_a_variable_is_named_when_it_is_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI 'databricks'"):
        _ = Config().store_url
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://u:{MARK}@mlflow:5000/mlflow/\n")
    assert Config().store_url == "http://mlflow:5000/mlflow"


def test_a_configuration_has_no_password_in_any_text() -> None:
    config = Config(ollama_url=f"http://u:{MARK}@one,http://two", mlflow_url=f"http://u:{MARK}@mlflow")
    assert MARK not in every_text(asdict(config)) + repr(config)
    again = replace(config, n_tips=1)
    assert [one.credentials is not None for one in again.ollama_urls] == [True, False]
    assert isinstance(again.mlflow_url, Address) and again.mlflow_url.reveal() == f"http://u:{MARK}@mlflow"
    assert replace(config, ollama_url=config.ollama_urls[0]).ollama_urls[0].credentials is not None


def test_an_address_that_is_a_secret_as_a_whole_shows_its_host_alone() -> None:
    config = Config(notify_url=f"https://chat.example/hooks/{MARK}?key={MARK}")
    assert MARK not in every_text(asdict(config)) + repr(config) and config.notify_url == "https://chat.example/***"
    assert revealed(replace(config, n_tips=1).notify_url) == f"https://chat.example/hooks/{MARK}?key={MARK}"
    with pytest.raises(InputError) as caught:
        build({"notify_url": f"chat.example/hooks/{MARK}"})
    assert "notify_url" in str(caught.value) and MARK not in str(caught.value)


@given(
    value=st.text(string.printable, min_size=1, max_size=30).map(lambda t: t + MARK),
    around=st.sampled_from(["", "\n", " ", "\r\n", "\t"]),
)
def test_a_secret_is_stripped_and_shows_nothing(value: str, around: str) -> None:
    text = around + value + around
    try:
        secret = from_environment("TOKEN", {"TOKEN": text})
    except InputError as error:
        assert "TOKEN" in str(error) and MARK not in str(error)
        assert any(ord(c) < 32 or ord(c) == 127 for c in value.strip())
        return
    assert secret.reveal() == value.strip()
    assert MARK not in every_text(secret) + every_text([secret]) + every_text({"a": secret})
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert hide(f"the server said {secret.reveal()}!") == "the server said ***!"
    try:
        assert bearer(secret, "TOKEN") == {"Authorization": f"Bearer {value.strip()}"}
    except InputError as error:
        assert MARK not in str(error)


def test_an_empty_secret_is_none() -> None:
    assert not Secret(" \n", "x") and not from_environment("NOWHERE", {}) and bearer(Secret("", "x"), "x") == {}


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "x.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1", "0.0.0.0"],
)
def test_this_machine_is_known_by_all_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example.com", "notlocalhost", "10.0.0.1", "fe80::1", "ollama", ""])
def test_another_machine_is_none(host: str) -> None:
    assert not is_loopback(host)
