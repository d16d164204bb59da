"""The OpenAPI document is true: requests made from it, valid and not, find no 5xx and only answers that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.conftest import MlflowServer
from tests.integration.api.conftest import TOKEN, Server, fill, settings_for
from tipbench.api.app import create_app
from tipbench.api.settings import Settings
from tipbench.config import Config

pytestmark = pytest.mark.integration
EXAMPLES = 25
SLOW = {"/api/bench/dag-runs/{run_id}/events"}


@pytest.fixture(scope="module")
def target(spare_mlflow: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose names exist, so that more than 404s is found; no engine, so that nothing is collected for long.

    Its MLflow has few experiments beside its own: a thousand requests, and many of them ask for all there are.
    """
    spare_mlflow.ensure()
    fill(spare_mlflow.url, "tip-bench-auto", models=("gemma3:1b",))
    folder = tmp_path_factory.mktemp("openapi")
    server = Server(create_app(settings_for(spare_mlflow.url, folder, retry_s=20.0), {"tests": TOKEN}))
    server.app.state.auth.logins.check = lambda address: None  # a thousand guesses are the point here
    server.start()
    yield server
    server.stop()


def _operations() -> list[tuple[str, str]]:
    app = create_app(
        Settings(
            config=Config(mlflow_url="http://localhost:1"),
            state_dir=Path("/nonexistent"),
            airflow_url="http://localhost:1",
        )
    )
    return [
        (path, method) for path, methods in app.openapi()["paths"].items() for method in methods if path not in SLOW
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("path", "method"), _operations())
def test_no_request_made_from_the_document_is_answered_with_a_5xx(target: Server, path: str, method: str) -> None:
    # Here, since only the worker that has this file needs them.
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    schema = schemathesis.openapi.from_dict(target.app.openapi())
    operation = schema[path][method]
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @seed(20261124)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def probe(case: Any) -> None:
            response = case.call(base_url=target.url, headers={"Authorization": f"Bearer {TOKEN}"})
            case.validate_response(response, checks=checks)

        try:
            probe()
        except Exception as error:
            if "cannot be negated" in str(error).lower() or type(error).__name__ == "Unsatisfiable":
                continue
            raise
    assert httpx.get(target.url + "/healthz", timeout=10).status_code == 200
