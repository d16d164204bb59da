"""The clients on real sockets: proxies, certificates, redirects, and what each means in words."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import free_port
from tipbench.api.backends.airflow import AirflowBackend
from tipbench.engines import openai
from tipbench.engines.base import BrokenAnswer, Engine, EngineUnreachable, Options, QueueFull
from tipbench.engines.ollama import Limits, OllamaEngine
from tipbench.engines.openai import OpenAIEngine
from tipbench.errors import InputError, TipbenchError
from tipbench.net import proxies
from tipbench.net.secret import from_environment, remember
from tipbench.store.backend import StoreError, StoreUnreachable
from tipbench.store.rest import RestBackend

pytestmark = pytest.mark.integration
MARK = "zqMARKERqz"
QUICK = Limits(connect=1.0, unreachable=0.3, queue_full=0.3, attempts=1, first_chunk=2.0, between_chunks=2.0)
VARIABLES = [f"{name}_proxy" for name in ("http", "https", "all", "no")]
VARIABLES += ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]


class Answering(BaseHTTPRequestHandler):
    """Whatever is asked gets the server's answer: (status, headers, body)."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _any(self) -> None:
        server: Any = self.server
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.seen.append((self.command, self.path, dict(self.headers)))
        status, headers, body = server.first.pop() if server.first else server.answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_CONNECT = do_HEAD = _any


@contextmanager
def answering(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None, tls: Path | None = None
) -> Iterator[Any]:
    """A server that gives everybody the same answer, after those in `first`; `seen` has what it was asked."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    server.answer, server.seen, server.first = (status, headers or {}, body), [], []
    scheme = "http"
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    server.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def loopback_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test's own servers can stand for machines that a proxy leads to."""
    monkeypatch.setattr(proxies, "is_loopback", lambda host: False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    key = path.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + key.read_text())
    return path


def ask_ollama(url: str) -> None:
    with closing(OllamaEngine(url, limits=QUICK)) as engine:
        engine.info()


def chat_with_ollama(url: str) -> None:
    with closing(OllamaEngine(url, limits=QUICK)) as engine:
        engine.generate("m", [{"role": "user", "content": "x"}], Options(), 1)


def ask_mlflow(url: str) -> None:
    with closing(RestBackend(url, retry_s=0.3, read_s=2)) as backend:
        backend.find_experiment("tip-bench-x")


def ask_airflow(url: str) -> None:
    with closing(AirflowBackend(url, "admin", MARK, timeout_s=2)) as backend:
        backend.defaults()


def ask_judge(url: str) -> None:
    limits = openai.Limits(connect=1.0, unreachable=0.3, busy=0.3, attempts=1, first_chunk=2.0, between_chunks=2.0)
    engine = OpenAIEngine(
        url,
        key=from_environment("OPENAI_API_KEY"),
        stream=False,
        limits=limits,
        who="the judge's endpoint",
        option="--base-url",
    )
    with closing(engine):
        engine.generate("m", [{"role": "user", "content": "x"}], Options(), 1)


EVERYBODY = [ask_ollama, chat_with_ollama, ask_mlflow, ask_airflow, ask_judge]
Ask = Callable[[str], None]


def said(ask: Ask, url: str) -> str:
    with pytest.raises(TipbenchError) as caught:
        ask(url)
    return str(caught.value)


@pytest.mark.parametrize("ask", EVERYBODY)
@pytest.mark.parametrize("status", [407, 502, 503])
def test_a_proxys_own_answer_is_named_as_the_proxys(
    ask: Ask, status: int, monkeypatch: pytest.MonkeyPatch, loopback_is_far: None
) -> None:
    with answering(status, b"<html><title>Squid</title></html>", {"Content-Type": "text/html"}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", f"http://me:{MARK}@"))
        words = said(ask, "http://far.example:1234")
    assert f"the proxy {proxy.url} (HTTP_PROXY) answered {status}" in words
    assert "queue" not in words and "--ollama-url" not in words.split("tried for")[0] and MARK not in words
    assert ("USER:PASSWORD" if status == 407 else "NO_PROXY") in words


@pytest.mark.parametrize("ask", EVERYBODY)
def test_a_proxy_that_is_away_is_named(ask: Ask, monkeypatch: pytest.MonkeyPatch, loopback_is_far: None) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    words = said(ask, "http://far.example:1234")
    assert "(ALL_PROXY) cannot be reached" in words and "NO_PROXY" in words


@pytest.mark.parametrize("ask", EVERYBODY)
def test_a_proxy_that_refuses_the_way_is_named(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, loopback_is_far: None
) -> None:
    with answering(503) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        words = said(ask, "https://far.example:1234")
    assert f"the proxy {proxy.url} (HTTPS_PROXY) refused the way: 503" in words


@pytest.mark.parametrize("ask", EVERYBODY)
def test_this_machine_is_never_asked_through_a_proxy(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(503, b"no") as proxy, answering(200, b"{}") as server:
        for name in ("HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", "::1,fe80::/10,[")
        try:
            ask(server.url)
        except TipbenchError:
            pass
        assert server.seen and not proxy.seen


@pytest.mark.parametrize("ask", EVERYBODY)
def test_a_socks_proxy_never_ends_in_a_traceback(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, loopback_is_far: None
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://me:{MARK}@127.0.0.1:{free_port()}")
    words = said(ask, "http://far.example:1234")
    assert "ALL_PROXY" in words and MARK not in words


def test_ollamas_own_queue_is_still_its_own_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch, loopback_is_far: None
) -> None:
    with answering(503, b'{"error": "server busy"}') as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(QueueFull):
            chat_with_ollama("http://far.example:1234")


@pytest.mark.parametrize("ask", EVERYBODY)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_says_what_to_use_instead(ask: Ask, status: int) -> None:
    where = f"https://user:{MARK}@elsewhere.example/base"
    with answering(status, b"", {"Location": where + "/api?x=1"}) as server:
        words = said(ask, server.url)
    assert f"redirect ({status}) to https://" in words and "elsewhere.example" in words and MARK not in words


def test_a_redirect_to_https_names_the_option_and_the_address() -> None:
    with answering(
        308, b"", {"Location": "https://mlflow.example/mlflow/api/2.0/mlflow/experiments/get-by-name?x=1"}
    ) as server:
        words = said(ask_mlflow, server.url + "/mlflow")
    assert "use --mlflow-url https://mlflow.example/mlflow" in words


@pytest.mark.parametrize("ask", EVERYBODY)
def test_a_certificate_nobody_knows_is_said_at_once(ask: Ask, certificate: Path) -> None:
    with answering(200, b"{}", tls=certificate) as server:
        assert "certificate is not trusted" in said(ask, server.url)


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_that_is_named_is_trusted(
    variable: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(certificate))
    with answering(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}', tls=certificate) as server:
        ask_mlflow(server.url)
        assert server.seen
    monkeypatch.setenv(variable, "/nowhere.pem")
    with pytest.raises(InputError, match=variable):
        ask_mlflow("https://127.0.0.1:1")


def test_mlflows_word_for_no_check_is_heard_for_mlflow_alone(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    with answering(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}', tls=certificate) as server:
        ask_mlflow(server.url)
        assert "certificate" in said(ask_ollama, server.url)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    with pytest.raises(InputError, match="contradict"):
        ask_mlflow("https://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "perhaps")
    with pytest.raises(InputError, match="write true or false"):
        ask_mlflow("https://127.0.0.1:1")


def test_who_we_are_is_sent_as_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}') as server:

        def sent() -> str:
            ask_mlflow(server.url)
            return str(server.seen[-1][2].get("Authorization"))

        assert sent() == "None"
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pass word\n")
        assert sent() == "Basic YWRhOnBhc3Mgd29yZA=="
        # As MLflow's own client has it: a user wins over a token.
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", " tok\n")
        assert sent() == "Basic YWRhOnBhc3Mgd29yZA=="
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        assert sent() == "Bearer tok"
        ask_mlflow(server.url.replace("http://", "http://ada:p%40ss@"))
        assert server.seen[-1][2]["Authorization"] == "Basic YWRhOnBAc3M="
    with answering(200, b'{"version": "1"}') as server:
        monkeypatch.setenv("OLLAMA_API_KEY", "key\n")
        ask_ollama(server.url)
        assert server.seen[-1][2]["Authorization"] == "Bearer key"


@pytest.mark.parametrize(
    ("ask", "variable"),
    [
        (ask_mlflow, "MLFLOW_TRACKING_TOKEN"),
        (ask_mlflow, "MLFLOW_TRACKING_PASSWORD"),
        (ask_ollama, "OLLAMA_API_KEY"),
        (ask_judge, "OPENAI_API_KEY"),
    ],
)
@pytest.mark.parametrize("value", [f"{MARK}\nmore", f"a\t{MARK}", f"{MARK}\x1b[0m"])
def test_a_token_with_a_line_break_in_it_is_refused_without_a_word_of_it(
    ask: Ask, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    if variable == "MLFLOW_TRACKING_PASSWORD":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    words = said(ask, "http://127.0.0.1:1")
    assert variable in words and MARK not in words


@pytest.mark.parametrize("ask", EVERYBODY)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_a_server_that_says_our_secret_back_is_not_quoted(
    ask: Ask, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_TOKEN", "OLLAMA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, f"tok-{MARK}")
    remember(MARK)
    with answering(
        status,
        f'{{"error": "bad header: Bearer tok-{MARK}", "message": "tok-{MARK} {MARK}", "detail": "{MARK}"}}'.encode(),
    ) as server:
        assert MARK not in said(ask, server.url).replace("tok-***", "").replace("admin", "")


def test_permission_denied_gets_advice_that_fits() -> None:
    with answering(403, b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}') as server:
        words = said(ask_mlflow, server.url)
    assert "ALLOWED_HOSTS" not in words and "permission" in words.lower()
    with answering(403, b"Invalid Host header - possible DNS rebinding attack detected") as server:
        assert "MLFLOW_SERVER_ALLOWED_HOSTS" in said(ask_mlflow, server.url)


def test_trouble_that_is_over_in_a_moment_is_waited_out_by_those_who_wait_for_half_a_second() -> None:
    """An `mlflow server` without Flask-WTF answers one search in some hundreds with 500 where several meet."""
    with (
        answering(200, b'{"experiment": {"experiment_id": "7", "name": "x"}}') as server,
        closing(RestBackend(server.url, retry_s=0.5)) as backend,
    ):
        server.first += [(500, {}, b"<h1>Internal Server Error</h1>")] * 2
        assert backend.find_experiment("x") == "7"
        assert len(server.seen) == 3


NOBODYS = [
    (404, {}, b""),
    (404, {"Content-Type": "text/html"}, b"<html><title>404 Not Found</title></html>"),
    (404, {"Content-Type": "text/plain"}, b"default backend - 404"),
    (404, {"Content-Type": "application/json"}, b'{"detail": "Not Found"}'),
]
"""What stands before a service that restarts, and is not the service."""


@pytest.mark.parametrize("nobodys", NOBODYS, ids=["empty", "page", "text", "json"])
def test_a_404_that_is_not_mlflows_is_an_outage_once_mlflow_has_answered(nobodys: tuple[Any, ...]) -> None:
    run = {"info": {"run_id": "r", "status": "FINISHED", "artifact_uri": "mlflow-artifacts:/7/r/artifacts"}}
    with (
        answering(200, json.dumps({"experiment": {"experiment_id": "7"}, "run": run}).encode()) as server,
        closing(RestBackend(server.url, retry_s=0.5)) as backend,
    ):
        server.first.append(nobodys)
        with pytest.raises(StoreError, match=r"Is the URL .* right") as caught:
            backend.find_experiment("x")
        assert caught.value.status == 404 and len(server.seen) == 1, "the address may be wrong: nobody waits for that"
        assert backend.find_experiment("x") == "7"
        server.first += [nobodys, nobodys]
        assert backend.find_experiment("x") == "7"
        found = backend.get_run("r")
        assert found is not None
        server.answer = (200, {}, json.dumps({"files": [{"path": "a.json"}]}).encode())
        server.first.append(nobodys)
        assert backend.get_artifact(found, "a.json") is not None, "a file is gone only where MLflow says so"
        server.first.append(nobodys)
        assert backend.get_artifact(found, "b.json") is None
        server.answer = nobodys
        with pytest.raises(StoreUnreachable, match="not MLflow's own answer"):
            backend.find_experiment("x")


CHUNK = b'{"message": {"role": "assistant", "content": "Rest now."}, "done": true, "done_reason": "stop", "models": []}'
CHOICE = b'{"choices": [{"message": {"content": "Rest now."}, "finish_reason": "stop"}], "data": [{"id": "m"}]}'


@pytest.mark.parametrize("nobodys", NOBODYS, ids=["empty", "page", "text", "json"])
@pytest.mark.parametrize("first_seen", ["list", "chat"])
def test_a_404_that_is_not_ollamas_is_an_outage_once_ollama_has_answered(
    nobodys: tuple[Any, ...], first_seen: str
) -> None:
    limits = Limits(unreachable=2, attempts=1)
    with answering(200, CHUNK) as server, closing(OllamaEngine(server.url, limits=limits)) as engine:

        def ask() -> str:
            return engine.generate("m", [{"role": "user", "content": "hi"}], Options(), 1).text

        server.first.append(nobodys)
        with pytest.raises(BrokenAnswer, match="is that Ollama's address"):
            ask()
        server.first.append(nobodys)
        with pytest.raises(EngineUnreachable, match="check --ollama-url"):
            engine.models()
        assert len(server.seen) == 2, "the address may be wrong: nobody waits for that"
        assert (engine.models() == []) if first_seen == "list" else (ask() == "Rest now.")
        server.first.append(nobodys)
        assert ask() == "Rest now."
        server.first.append(nobodys)
        assert engine.resident() == []


@pytest.mark.parametrize("nobodys", NOBODYS[:3], ids=["empty", "page", "text"])
@pytest.mark.parametrize("first_seen", ["list", "chat"])
def test_a_404_that_is_not_the_providers_is_an_outage_once_it_has_answered(
    nobodys: tuple[Any, ...], first_seen: str
) -> None:
    """Such servers write their errors in many ways, as JSON all of them: what is none is not theirs."""
    limits = openai.Limits(unreachable=1.5, attempts=1)
    with (
        answering(200, CHOICE, {"Content-Type": "application/json"}) as server,
        closing(OpenAIEngine(server.url + "/v1", limits=limits)) as engine,
    ):

        def ask() -> str:
            return engine.generate("m", [{"role": "user", "content": "hi"}], Options(), 1).text

        for wrong in (ask, engine.models):
            server.first.append(nobodys)
            with pytest.raises(InputError, match="is --engine-url right"):
                wrong()
        assert len(server.seen) == 2, "the address may be wrong: nobody waits for that"
        assert len(engine.models()) == 1 if first_seen == "list" else ask() == "Rest now."
        server.first.append(nobodys)
        assert ask() == "Rest now."


@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_an_outage_that_stays_says_what_answered_in_the_engines_place(kind: str) -> None:
    with answering(200, b'{"models": [], "data": []}', {"Content-Type": "application/json"}) as server:
        engine: Engine = (
            OllamaEngine(server.url, limits=Limits(unreachable=0.3))
            if kind == "ollama"
            else OpenAIEngine(server.url, limits=openai.Limits(unreachable=0.3))
        )
        with closing(engine):
            assert engine.models() == []
            server.answer = NOBODYS[0]
            with pytest.raises(EngineUnreachable, match=r"404, which is not .* own answer"):
                engine.generate("m", [{"role": "user", "content": "hi"}], Options(), 1)


def test_an_error_carries_what_a_caller_needs() -> None:
    with (
        answering(400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}') as server,
        closing(RestBackend(server.url, retry_s=0.2)) as backend,
        pytest.raises(StoreError) as caught,
    ):
        backend.find_experiment("x")
    error = caught.value
    assert (error.request, error.status, error.code) == ("GET experiments/get-by-name", 400, "INVALID_PARAMETER_VALUE")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["experiment", "runs", "run", "info", "data", "tags", "experiment_id", "experiments", "name", "key", "models", "params"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
CALLS: list[Callable[[RestBackend], object]] = [
    lambda b: b.find_experiment("x"),
    lambda b: b.create_experiment("x"),
    lambda b: b.experiments("tip-"),
    lambda b: b.experiment_tags("1"),
    lambda b: b.create_run("1", "n", {}, 0),
    lambda b: b.get_run("1"),
    lambda b: b.page("1", "", (), 10, ""),
    lambda b: b.log_batch("1", {"m": 1.0}, {}, {}, 0),
    lambda b: b.delete_run("1"),
]


@pytest.fixture(scope="module")
def anything() -> Iterator[Any]:
    with answering(200, b"{}") as server:
        yield server


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_answers_in_mlflows_place_is_a_tipbench_error(anything: Any, data: st.DataObject) -> None:
    import json

    body = data.draw(
        st.one_of(
            json_values.map(lambda value: json.dumps(value).encode()),
            st.binary(max_size=30),
            st.just(b"[" * 100_000),
            st.just(gzip.compress(b'{"runs": []}')[:-9]),
        )
    )
    encoding = data.draw(st.sampled_from(["", "gzip", "deflate", "br"]))
    status = data.draw(st.sampled_from([200, 200, 200, 204, 302, 400, 403, 404, 418, 500]))
    anything.answer = (status, {"Content-Encoding": encoding} if encoding else {}, b"" if status == 204 else body)
    call = data.draw(st.sampled_from(CALLS))
    with closing(RestBackend(anything.url, retry_s=0.0)) as backend:
        try:
            call(backend)
        except TipbenchError as error:
            assert isinstance(error, StoreError | StoreUnreachable)


def test_a_port_that_speaks_something_else_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def talk() -> None:
            for _ in range(20):
                try:
                    peer, _ = listening.accept()
                except OSError:
                    return
                peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                peer.close()

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(EngineUnreachable):
            ask_ollama(url)
        with pytest.raises(StoreUnreachable):
            ask_mlflow(url)
