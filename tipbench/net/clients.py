"""Every HTTP client of tipbench is made here, so that certificates, proxies, credentials and errors are the same everywhere."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tipbench.errors import InputError
from tipbench.net.address import Address, Credentials, masked
from tipbench.net.proxies import Proxy, proxy_for
from tipbench.net.secret import Secret, bearer, from_environment, has_control, hide, remember

BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that may name a file of certificates to trust, the first one that is set; `SSL_CERT_DIR` names a folder."""
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})
ERRORS = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict)
"""Everything that httpx raises: `DecodingError` is no `TransportError`, `InvalidURL` not even an `HTTPError`."""


@dataclass(frozen=True)
class Tls:
    """How the other side's certificate is checked. Empty paths mean the system's and certifi's own."""

    insecure: bool = False
    bundle: str = ""
    bundle_variable: str = ""
    client_certificate: str = ""


class Client(httpx.Client):
    """An httpx client of one address that knows how it gets there, and can say in words what went wrong."""

    address: Address
    name: str
    """What is there, as a message calls it: Ollama, MLflow."""
    option: str
    """What names the address, for advice: --ollama-url."""
    proxy: Proxy | None
    has_answered: bool = False
    """The service itself has, so that the address is right; told by whoever knows its answers."""

    def send(self, request: httpx.Request, **kwargs: Any) -> httpx.Response:
        """As httpx does it, to this client's address alone: its credentials and its trust are for nobody else."""
        url, base = request.url, self.base_url
        if (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):
            raise httpx.UnsupportedProtocol(f"a client of {base.host} does not go to {url.host}")
        return super().send(request, **kwargs)

    def explain(self, error: Exception) -> str:
        """What an error of httpx (`ERRORS`) or of reading an answer means, without a secret in it."""
        words = hide(str(error)).strip() or type(error).__name__
        if isinstance(error, httpx.ProxyError) and self.proxy is not None:
            return f"{self.proxy} refused the way: {words}{self._advice(words)}"
        if isinstance(error, httpx.ConnectError) and "certificate" in words.lower():
            return f"its certificate is not trusted: {_certificate_words(words)}"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and self.proxy is not None:
            return f"{self.proxy} cannot be reached: {words}; {self._way_around()}"
        if isinstance(error, httpx.ConnectTimeout):
            return "no connection in time"
        if isinstance(error, httpx.TimeoutException):
            return "no answer in time"
        if isinstance(error, httpx.DecodingError):
            return f"an answer that cannot be decoded ({words})"
        if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError | httpx.CloseError):
            through = f" through {self.proxy}" if self.proxy is not None else ""
            return f"the connection{through} broke: {words}"
        return words

    def lasting(self, error: Exception) -> bool:
        """Will the same request fail again, however long one waits: a certificate that is not trusted, a proxy that wants a password?"""
        words = str(error).lower()
        if isinstance(error, httpx.ProxyError):
            return "407" in words or "403" in words
        return isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError) or (
            isinstance(error, httpx.ConnectError) and "certificate" in words
        )

    def foreign(self, response: httpx.Response, own: bool) -> str:
        """Words for an answer that somebody else gave instead of the service; nothing when it is the service's.

        That is the proxy, or what stands before the service while that is away (an ingress, a server in its first moment): its 404 counts
        once the service has answered here, since until then the address may be wrong. `own` says whether the body is what the service
        would write (JSON of its kind).
        """
        status = response.status_code
        self.has_answered |= own
        if status == 404 and not own and self.has_answered:
            return f"HTTP 404, which is not {self.name}'s own answer"
        if self.proxy is None or own or status not in (403, 407, 502, 503, 504):
            return ""
        reason = response.reason_phrase
        words = f"{status} {reason}".strip()
        return f"{self.proxy} answered {words} in its place{self._advice(words)}"

    def redirect(self, response: httpx.Response) -> str:
        """Words for a redirect; nothing when the answer is none. tipbench follows none: a POST would arrive as a GET."""
        if response.status_code not in (301, 302, 303, 307, 308):
            return ""
        target = _target(response)
        where = f" to {target}" if target else ""
        base = self._base_of(target, response)
        fix = f"; use {self.option} {base}" if base else f"; is {self.option} right?"
        return f"it answers with a redirect ({response.status_code}){where}{fix}"

    def _base_of(self, target: str, response: httpx.Response) -> str:
        """The address to use instead, when the redirect only changes what stands before the path."""
        if not target:
            return ""
        path = response.request.url.path
        base_path = self.address.parts.path.rstrip("/")
        tail = path[len(base_path) :] if path.startswith(base_path) else path
        return target[: -len(tail)].rstrip("/") if tail and target.endswith(tail) else ""

    def _advice(self, words: str) -> str:
        if "407" in words:
            return (
                f"; it wants a user and a password (http://USER:PASSWORD@HOST:PORT in {self.proxy.variable})"
                if self.proxy
                else ""
            )
        return f"; {self._way_around()}"

    def _way_around(self) -> str:
        return f"put {self.address.host} into NO_PROXY to reach {self.name} directly"


def open_client(
    address: Address,
    *,
    name: str,
    option: str,
    timeout: httpx.Timeout,
    connections: int = 16,
    token: Secret | None = None,
    account: Credentials | None = None,
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Client:
    """A client whose relative URLs start at `address`.

    Who we are comes from the address's own credentials, else from `account`, else from `token` (sent as a bearer token). Raises
    InputError, in a sentence without secrets, for a token that no header can carry, a proxy that cannot be used, and certificates
    that cannot be read.
    """
    proxy = proxy_for(address, environ)
    account = address.credentials or account
    sent = dict(headers or {})
    if account is None and token:
        sent |= bearer(token, f"the token for {name}")
    if account is not None:
        # A server may say back what it was sent, as it was sent.
        remember(b64encode(f"{account.user}:{account.password.reveal()}".encode()).decode())
    auth = httpx.BasicAuth(account.user, account.password.reveal()) if account is not None else None
    verify: Any = False
    if address.parts.scheme == "https" or (proxy is not None and proxy.url.startswith("https")):
        verify = _context(tls or read_tls(environ), name)
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    try:
        client = Client(
            base_url=str(address),
            timeout=timeout,
            limits=limits,
            headers=sent,
            auth=auth,
            verify=verify,
            proxy=_as_httpx(proxy, verify) if proxy is not None else None,
            # Proxies and certificates are read above; httpx's own reading raises on what other programs take.
            trust_env=False,
        )
    except (*ERRORS, ValueError, ImportError, UnicodeError) as error:
        raise InputError(f"{option} {address}: {hide(str(error))}") from None
    client.address, client.name, client.option, client.proxy = address, name, option, proxy
    return client


def read_tls(environ: Mapping[str, str] = os.environ) -> Tls:
    """The certificates that everybody's variables name."""
    for variable in BUNDLES:
        if environ.get(variable):
            return Tls(bundle=environ[variable], bundle_variable=variable)
        if variable == "SSL_CERT_FILE" and environ.get("SSL_CERT_DIR"):
            return Tls(bundle=environ["SSL_CERT_DIR"], bundle_variable="SSL_CERT_DIR")
    return Tls()


def mlflow_tls(environ: Mapping[str, str] = os.environ) -> Tls:
    """The same with MLflow's own variables before it. Raises InputError for values that contradict each other, or are none."""
    word = environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").strip().lower()
    if word not in TRUE | FALSE:
        raise InputError(f"MLFLOW_TRACKING_INSECURE_TLS={masked(word)}: write true or false")
    bundle = environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
    if word in TRUE and bundle:
        raise InputError(
            "MLFLOW_TRACKING_INSECURE_TLS=true and MLFLOW_TRACKING_SERVER_CERT_PATH contradict each other; unset one"
        )
    general = read_tls(environ)
    return Tls(
        insecure=word in TRUE,
        bundle=bundle or general.bundle,
        bundle_variable="MLFLOW_TRACKING_SERVER_CERT_PATH" if bundle else general.bundle_variable,
        client_certificate=environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH", ""),
    )


def mlflow_account(environ: Mapping[str, str] = os.environ) -> tuple[Secret, Credentials | None]:
    """The token and the account that MLflow's variables name. Raises InputError for a control character in one of them."""
    token = from_environment("MLFLOW_TRACKING_TOKEN", environ)
    user = environ.get("MLFLOW_TRACKING_USERNAME", "").strip()
    if has_control(user):
        raise InputError("MLFLOW_TRACKING_USERNAME has a control character in it")
    password = from_environment("MLFLOW_TRACKING_PASSWORD", environ)
    return token, Credentials(user, password) if user else None


def json_object(response: httpx.Response) -> dict[str, Any] | None:
    """The object that an answer holds; None when it holds anything else, however broken."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def words_of(response: httpx.Response, longest: int = 300) -> str:
    """What a server said in an answer, in one line without our secrets: its message, else its text; of a page, the title."""
    body = json_object(response) or {}
    words: Any = body.get("message") or body.get("error") or body.get("detail")
    if isinstance(words, dict):
        words = words.get("message") or words
    if not words:
        words = response.text
        if "<html" in words[:2000].lower():
            start, end = words.lower().find("<title>"), words.lower().find("</title>")
            title = words[start + 7 : end] if 0 <= start < end else ""
            words = f"a page titled {title.strip()!r}" if title.strip() else "an HTML page"
    line = " ".join(hide(str(words)).split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def read_out(rest: Iterable[object], response: httpx.Response, within_s: float) -> None:
    """Read the rest of an answer that is complete already, so that its connection serves the next request.

    One whose end does not come within `within_s` seconds is cut off. httpx notes a read's timeout when the body begins, and not again.
    """
    sock = response.extensions["network_stream"].get_extra_info("socket")

    def cut_off() -> None:
        with suppress(OSError):
            # Not a TLS socket's own: that one takes its state away from under the read.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(within_s, cut_off)
    timer.daemon = True
    timer.start()
    try:
        with suppress(*ERRORS):
            for _ in rest:
                pass
    finally:
        timer.cancel()


def _as_httpx(proxy: Proxy, verify: Any) -> httpx.Proxy:
    auth = (proxy.credentials.user, proxy.credentials.password.reveal()) if proxy.credentials else None
    context = verify if isinstance(verify, ssl.SSLContext) and proxy.url.startswith("https") else None
    return httpx.Proxy(proxy.url, auth=auth, ssl_context=context)


def _context(tls: Tls, name: str) -> ssl.SSLContext:
    """The certificates as Python wants them. Raises InputError that names the variable whose file cannot be read."""
    if tls.insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = _trusting(tls)
    if tls.client_certificate:
        try:
            context.load_cert_chain(tls.client_certificate)
        except (OSError, ValueError) as error:
            raise InputError(
                f"MLFLOW_TRACKING_CLIENT_CERT_PATH={tls.client_certificate}: no certificate with its key can be read from it "
                f"({_reason(error)})"
            ) from error
    return context


def _trusting(tls: Tls) -> ssl.SSLContext:
    if not tls.bundle:
        import certifi

        return ssl.create_default_context(cafile=certifi.where())
    try:
        if Path(tls.bundle).is_dir():
            return ssl.create_default_context(capath=tls.bundle)
        return ssl.create_default_context(cafile=tls.bundle)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{tls.bundle_variable}={tls.bundle}: no certificates can be read from it ({_reason(error)}); "
            "name a PEM file, or unset it"
        ) from error


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


def _certificate_words(words: str) -> str:
    plain = words.split("certificate verify failed: ", 1)[-1].split(" (_ssl.c", 1)[0]
    return f"{plain}; name its authority's PEM file with SSL_CERT_FILE (for MLflow, MLFLOW_TRACKING_SERVER_CERT_PATH)"


def _target(response: httpx.Response) -> str:
    """Where a redirect leads, as an absolute URL without query and credentials; nothing when it does not say."""
    location = response.headers.get("location", "")
    try:
        parts = urlsplit(str(response.request.url.join(location))) if location else None
        if parts is None or not parts.hostname:
            return ""
        place = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return masked(f"{parts.scheme}://{place}{f':{parts.port}' if parts.port else ''}{parts.path}")
    except (ValueError, httpx.InvalidURL):
        return ""
