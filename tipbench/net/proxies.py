"""Which proxy leads to an address, by the variables that everybody uses: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

httpx has its own reading of them, but it raises on what other programs take (`NO_PROXY=fe80::/10`), knows no networks, and
sends even `localhost` to a proxy.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from tipbench.errors import InputError
from tipbench.net.address import Address, Credentials, is_loopback, masked, read_address

SOCKS = ("socks5", "socks5h")


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that named it."""

    url: str
    """Without credentials."""
    variable: str
    credentials: Credentials | None = None

    def __str__(self) -> str:
        return f"the proxy {self.url} ({self.variable})"


def proxy_for(address: Address, environ: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy on the way to `address`; None for a direct way. This machine is always reached directly.

    Raises InputError for a proxy that cannot be used: no URL, a scheme that nobody here speaks, or SOCKS without its package.
    """
    if is_loopback(address.host):
        return None
    variable, value = _named(address.parts.scheme, environ)
    if not value or _excepted(address, environ):
        return None
    scheme, mark, rest = value.partition("://")
    if not mark:
        scheme, rest = "http", value
    scheme = scheme.lower()
    shown = masked(value)
    way_out = f"correct it, or put {address.host} into NO_PROXY to reach {address} directly"
    if scheme not in ("http", "https", *SOCKS):
        raise InputError(f"{variable}={shown}: a proxy is http://, https:// or socks5://; {way_out}")
    if scheme in SOCKS and find_spec("socksio") is None:
        raise InputError(
            f"{variable}={shown}: a SOCKS proxy needs one more package: pip install 'httpx[socks]'; or put {address.host} into "
            f"NO_PROXY to reach {address} directly"
        )
    try:
        read = read_address(f"http://{rest}", variable)
    except InputError as error:
        raise InputError(f"{variable}={shown} is no address of a proxy ({error}); {way_out}") from None
    place = read.parts.netloc
    if scheme in SOCKS and read.parts.port is None:
        place += ":1080"
    return Proxy(f"{scheme}://{place}", variable, read.credentials)


def _named(scheme: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that says which proxy, and what it says; lower case wins, as everywhere."""
    for name in (f"{scheme}_proxy", "all_proxy"):
        for spelled in (name, name.upper()):
            # In a CGI process, HTTP_PROXY is a header that a client sent.
            if spelled == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
                continue
            if spelled in environ:
                return spelled, environ[spelled].strip()
    return "", ""


def _excepted(address: Address, environ: Mapping[str, str]) -> bool:
    """Does NO_PROXY name the address? Entries that mean nothing are passed over."""
    text = environ.get("no_proxy", environ.get("NO_PROXY", ""))
    return any(_names(entry, address) for entry in re.split(r"[,\s]+", text) if entry)


def _names(entry: str, address: Address) -> bool:
    if entry == "*":
        return True
    entry = entry.split("://", 1)[-1].lower()
    try:
        host: ipaddress.IPv4Address | ipaddress.IPv6Address | None = ipaddress.ip_address(
            address.host.partition("%")[0]
        )
    except ValueError:
        host = None
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::([0-9]+))?", entry)
    if bracketed:
        name, port = bracketed[1], bracketed[2]
    elif entry.count(":") == 1:
        name, _, port = entry.partition(":")
    else:
        name, port = entry, None
    if port and (not port.isdecimal() or int(port) != address.port):
        return False
    if host is not None:
        try:
            return host in ipaddress.ip_network(name, strict=False)
        except ValueError:
            return False
    name = name.removeprefix("*").strip(".")
    return bool(name) and (address.host.rstrip(".") == name or address.host.rstrip(".").endswith("." + name))
