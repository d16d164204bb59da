"""Which way leads to an address: the variables as everybody writes them, whatever is in them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tipbench.errors import InputError
from tipbench.net.address import read_address
from tipbench.net.proxies import proxy_for

pytestmark = pytest.mark.unit
PROXY = "http://proxy:3128"


def way(url: str, **environ: str) -> str | None:
    proxy = proxy_for(read_address(url, "--x"), environ)
    return proxy.url if proxy is not None else None


@pytest.mark.parametrize(
    "url", ["http://localhost:11434", "http://127.0.0.1:1", "http://[::1]:1", "https://a.localhost"]
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", [PROXY, "socks5://proxy:1080", "nonsense://", "http://["])
def test_this_machine_is_reached_directly_whatever_the_variables_say(url: str, variable: str, value: str) -> None:
    assert way(url, **{variable: value}) is None


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("http://ollama", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://ollama", {"HTTPS_PROXY": PROXY}, None),
        ("https://ollama", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://ollama", {"ALL_PROXY": PROXY}, PROXY),
        ("http://ollama", {"http_proxy": "proxy:3128"}, PROXY),
        ("http://ollama", {"http_proxy": "", "HTTP_PROXY": PROXY}, None),
        ("http://ollama", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        ("http://ollama", {"HTTP_PROXY": PROXY, "NO_PROXY": "*"}, None),
        ("http://ollama", {"HTTP_PROXY": PROXY, "NO_PROXY": "other, ollama"}, None),
        ("http://ollama.ns.svc", {"HTTP_PROXY": PROXY, "NO_PROXY": ".svc"}, None),
        ("http://ollama.ns.svc", {"HTTP_PROXY": PROXY, "NO_PROXY": "*.svc"}, None),
        ("http://ollama.ns.svc", {"HTTP_PROXY": PROXY, "NO_PROXY": "vc"}, PROXY),
        ("http://10.1.2.3", {"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, None),
        ("http://11.1.2.3", {"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, PROXY),
        ("http://[fe80::2]:1", {"HTTP_PROXY": PROXY, "NO_PROXY": "::1,fe80::/10"}, None),
        ("http://[fd00::2]:1", {"HTTP_PROXY": PROXY, "NO_PROXY": "::1,fe80::/10"}, PROXY),
        ("http://[fd00::2]:1", {"HTTP_PROXY": PROXY, "NO_PROXY": "[fd00::2]"}, None),
        ("http://ollama:11434", {"HTTP_PROXY": PROXY, "NO_PROXY": "ollama:11434"}, None),
        ("http://ollama:11434", {"HTTP_PROXY": PROXY, "NO_PROXY": "ollama:80"}, PROXY),
    ],
)
def test_the_variables_mean_what_they_mean_elsewhere(url: str, environ: dict[str, str], expected: str | None) -> None:
    assert way(url, **environ) == expected


@pytest.mark.parametrize(
    "value", ["socks4://p", "ftp://p", "http://", "http://u:zqMARKERqz@p:99999", "http://[", "socks5://"]
)
def test_a_proxy_that_cannot_be_used_is_named_and_ollama_is_not_blamed(value: str) -> None:
    with pytest.raises(InputError, match=r"^ALL_PROXY=") as caught:
        way("http://ollama:11434", ALL_PROXY=value)
    assert "zqMARKERqz" not in str(caught.value) and "--ollama-url" not in str(caught.value)


def test_socks_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tipbench.net.proxies.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'httpx\[socks\]'"):
        way("http://ollama:11434", ALL_PROXY="socks5://proxy")


@given(value=st.text(max_size=40), no_proxy=st.text("abcdef0123456789.:/[]*, %", max_size=40), six=st.booleans())
@example(value=PROXY, no_proxy="::1,fe80::/10,localhost,[::1,10.0.0.0/99,1.2.3.4:x", six=True)
def test_nothing_in_the_variables_ends_in_anything_but_a_sentence(value: str, no_proxy: str, six: bool) -> None:
    environ = {"ALL_PROXY": value, "NO_PROXY": no_proxy}
    try:
        way("http://[fd00::1]:11434" if six else "https://ollama.example:11434", **environ)
    except InputError as error:
        assert str(error).startswith("ALL_PROXY=") and "\n" not in str(error)
