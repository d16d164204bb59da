"""The API's small parts, without a server: tokens, throttling, settings, problems, renderings, caches, the document."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from starlette.requests import Request

from tests.fakes.leaderboards import board, cell
from tipbench.api import auth as auth_module
from tipbench.api import problems
from tipbench.api.app import create_app
from tipbench.api.auth import FREE_FAILURES, Throttle, Tokens
from tipbench.api.backends.airflow import _expiry, _last_error, _notes
from tipbench.api.problems import Problem
from tipbench.api.routes.dag_runs import _run_id
from tipbench.api.routes.leaderboard import _accepted
from tipbench.api.service import Cache, to_csv, without_styles
from tipbench.api.settings import Settings, from_environment
from tipbench.api.web import Metrics
from tipbench.config import Config
from tipbench.errors import InputError, UnreachableError
from tipbench.store import StoreError
from tipbench.store.backend import StoreUnreachable

pytestmark = pytest.mark.unit
DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "openapi.json"


def test_the_published_document_is_the_apps_own(tmp_path: Path) -> None:
    settings = Settings(
        config=Config(mlflow_url="http://localhost:5000"), state_dir=tmp_path, airflow_url="http://localhost:8080"
    )
    found = create_app(settings).openapi()
    known = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    assert known == found, "docs/reference/openapi.json is stale: python -m tests.unit.api.test_parts writes it anew"


def test_every_route_is_documented_with_its_problems() -> None:
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            if operation.get("security") != []:
                answer = operation["responses"]["401"]["content"]["application/problem+json"]
                assert answer["schema"] == {"$ref": "#/components/schemas/ProblemBody"}
    assert {"bearer", "session"} == set(document["components"]["securitySchemes"])


def test_tokens_are_files_and_what_is_no_token_is_none(tmp_path: Path) -> None:
    from hashlib import sha256

    (tmp_path / "plain").write_text("one\n")
    (tmp_path / "hashed").write_text("sha256:" + sha256(b"two").hexdigest())
    (tmp_path / "broken").write_text("sha256:zz")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "session-secret").write_text("three")
    (tmp_path / "..data").mkdir()
    (tmp_path / ".hidden").write_text("four")
    tokens = Tokens(str(tmp_path))
    assert tokens.name_of("one") == "plain" and tokens.name_of("two") == "hashed"
    for wrong in ("three", "four", "", "\n", "zz", "sha256:" + sha256(b"two").hexdigest(), "\ud800"):
        assert tokens.name_of(wrong) is None, wrong


def test_a_folder_that_is_not_there_has_no_tokens(tmp_path: Path) -> None:
    assert Tokens(str(tmp_path / "none")).name_of("x") is None


def test_waiting_doubles_and_a_right_one_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(auth_module.time, "monotonic", lambda: now[0])
    throttle = Throttle()
    for _ in range(FREE_FAILURES):
        throttle.check("a")
        throttle.failed("a")
    waits = []
    for _ in range(8):
        with pytest.raises(Problem) as caught:
            throttle.check("a")
        waits.append(int((caught.value.headers or {})["Retry-After"]))
        throttle.check("b")
        now[0] += waits[-1]
        throttle.check("a")
        throttle.failed("a")
    assert waits == [2, 3, 5, 9, 17, 33, 61, 61]
    throttle.succeeded("a")
    throttle.check("a")


def test_addresses_do_not_fill_the_memory() -> None:
    throttle = Throttle(longest=10)
    for n in range(100):
        throttle.failed(str(n))
    assert len(throttle._failures) == 10


def test_settings_come_from_the_environment_with_the_types_of_their_keys(tmp_path: Path) -> None:
    settings = from_environment(
        {
            "TIPBENCH_NUM_THREAD": "2",
            "TIPBENCH_TEMPERATURE": "0.5",
            "TIPBENCH_PULL": "true",
            "TIPBENCH_MODELS": "a:1b",
            "TIPBENCH_AIRFLOW_URL": "http://airflow:8080/",
            "TIPBENCH_AIRFLOW_PASSWORD": "hush",
            "TIPBENCH_SESSION_SECRET": "hush-hush",
            "XDG_STATE_HOME": str(tmp_path),
        }
    )
    config = settings.config
    assert (config.num_thread, config.temperature, config.pull, config.models) == (2, 0.5, True, "a:1b")
    assert settings.airflow_url == "http://airflow:8080" and "hush" not in repr(settings)
    assert settings.state_dir == tmp_path / "tipbench" / "api"


@pytest.mark.parametrize("name", ["NUM_THREAD", "PULL", "TEMPERATURE", "MEMORY_LIMIT"])
def test_a_variable_that_does_not_fit_its_key_is_named(name: str) -> None:
    with pytest.raises(InputError) as caught:
        from_environment({f"TIPBENCH_{name}": "many"})
    assert name.lower() in str(caught.value)


def test_tipbenchs_errors_become_problems_with_their_places() -> None:
    error = InputError(
        "judge.json: 3 faults", ("/items/0/scores/tone: 6 is outside", "n_tips: too small", "and 5 more")
    )
    problem = problems.of(error)
    assert problem.status_code == 422
    assert [(f.pointer, f.detail) for f in problem.errors] == [
        ("/items/0/scores/tone", "6 is outside"),
        ("/n_tips", "too small"),
        ("", "and 5 more"),
    ]
    assert problems.of(UnreachableError("away")).status_code == 503
    assert problems.of(StoreError("no")).status_code == 502
    assert "secret" not in str(problems.of(RuntimeError("secret")).detail)


def test_half_a_surrogate_pair_does_not_break_its_own_answer() -> None:
    assert problems.response(Problem(422, "\ud800 is no text"), "1").body


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("*/*", "json"),
        ("application/json", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("text/csv;q=0.5, text/markdown;q=0.9", "md"),
        ("text/csv;q=x, application/json;q=0.1", "json"),
    ],
)
def test_accept_chooses_the_rendering(header: str, kind: str) -> None:
    assert _accepted(header) == kind


def test_a_name_that_a_spreadsheet_would_run_is_made_harmless() -> None:
    text = to_csv(board(cell(1, 3.0, model="=cmd()", prompt="@x")))
    assert "'=cmd()" in text and "'@x" in text


def test_styles_become_attributes_that_say_the_same() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg"><defs><style type="text/css">*{stroke-linejoin: round}</style></defs>'
        '<path style="fill: none; stroke: #00f; stroke-width: 0.8"/>'
        "<text style=\"font: 10px 'DejaVu Sans', sans-serif; text-anchor: middle\">a</text></svg>"
    )
    clean = without_styles(svg)
    assert "<style" not in clean and "style=" not in clean
    assert 'fill="none" stroke="#00f" stroke-width="0.8"' in clean
    assert 'font-size="10px" font-family="DejaVu Sans, sans-serif" text-anchor="middle"' in clean


def test_a_cache_computes_once_for_all_who_ask_at_once() -> None:
    calls = []

    async def compute() -> int:
        calls.append(1)
        await asyncio.sleep(0.01)
        return len(calls)

    async def main() -> list[int]:
        cache: Cache[int] = Cache(2, "test", Metrics())
        first = await asyncio.gather(*(cache.get("a", lambda v: True, compute) for _ in range(50)))
        stale = await cache.get("a", lambda v: v > 1, compute)
        for slot in "bcd":
            await cache.get(slot, lambda v: True, compute)
        again = await cache.get("a", lambda v: True, compute)
        return [*set(first), stale, again]

    assert asyncio.run(main()) == [1, 2, 6]


def test_an_error_while_computing_is_not_kept() -> None:
    async def fail() -> int:
        raise StoreError("no")

    async def work() -> int:
        return 1

    async def main() -> int:
        cache: Cache[int] = Cache(2, "test", Metrics())
        with pytest.raises(StoreError):
            await cache.get("a", lambda v: True, fail)
        return await cache.get("a", lambda v: True, work)

    assert asyncio.run(main()) == 1


def test_an_outage_is_found_out_once_for_all_who_wait_and_anything_else_by_each() -> None:
    async def main(error: type[StoreError]) -> tuple[int, int]:
        cache: Cache[int] = Cache(2, "test", Metrics())
        calls = []

        async def fail() -> int:
            calls.append(1)
            await asyncio.sleep(0.01)
            raise error("no")

        found = await asyncio.gather(*(cache.get("a", lambda v: True, fail) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(one, error) for one in found)
        return len(calls), await cache.get("a", lambda v: True, lambda: asyncio.sleep(0, 7))

    assert asyncio.run(main(StoreUnreachable)) == (1, 7)
    assert asyncio.run(main(StoreError)) == (20, 7)


def test_who_waits_for_somebody_who_goes_away_computes_it_then() -> None:
    async def main() -> list[int]:
        cache: Cache[int] = Cache(2, "test", Metrics())
        first = asyncio.create_task(cache.get("a", lambda v: True, lambda: asyncio.sleep(60, 1)))
        await asyncio.sleep(0)
        others = [asyncio.create_task(cache.get("a", lambda v: True, lambda: asyncio.sleep(0, 2))) for _ in range(5)]
        await asyncio.sleep(0.01)
        first.cancel()
        return await asyncio.gather(*others)

    assert asyncio.run(main()) == [2] * 5


def test_a_key_makes_the_same_run_id_everywhere_and_no_key_a_new_one() -> None:
    assert _run_id("a key") == _run_id("a key") != _run_id("another")
    assert _run_id(None) != _run_id(None)
    for one in (_run_id("a key\ud800"), _run_id(None)):
        assert len(one) <= 63 and one.replace("-", "").isalnum(), "a label of Kubernetes as it is"


def test_what_airflow_says_is_read() -> None:
    import base64

    body = base64.urlsafe_b64encode(json.dumps({"exp": 1234}).encode()).decode().rstrip("=")
    assert _expiry(f"h.{body}.s") == 1234.0
    for odd in ("", "a.b.c", "a.!!.c", "no-dots"):
        assert _expiry(odd) > time.time()
    notes = "started by a; b through the tipbench API"
    assert dict(_notes("started by ada through the tipbench API; cancelled by bob through the tipbench API")) == {
        "started by ": "ada",
        "cancelled by ": "bob",
    }
    assert dict(_notes(notes)) == {} and dict(_notes("somebody's own note")) == {}
    log = [
        {"level": "error", "event": "first"},
        {"level": "error", "event": "Task failed", "error_detail": [{"exc_value": "why"}]},
        {"level": "info", "event": "bye"},
    ]
    assert _last_error(log) == "why" and _last_error(log[:1]) == "first" and _last_error([]) is None
    assert _last_error(["plain", "lines"]) is None


def test_the_slow_down_knows_no_client_without_an_address() -> None:
    request = Request({"type": "http", "headers": [], "client": None})
    assert auth_module.address_of(request) == "unknown"


if __name__ == "__main__":
    settings = Settings(
        config=Config(mlflow_url="http://localhost:5000"), state_dir=Path("."), airflow_url="http://localhost:8080"
    )
    DOCUMENT.write_text(
        json.dumps(create_app(settings).openapi(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
