"""`tipbench serve`."""

from __future__ import annotations

import click

from tipbench.cli.options import whole_number
from tipbench.cli.root import Command
from tipbench.errors import InputError


@click.command(
    cls=Command,
    short_help="The panel and the admin API, in a browser.",
    epilog="\b\nExample:\n  tipbench serve --mlflow-url http://localhost:5000",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=whole_number(1, 65535), help="Port to listen on.")
@click.option("--mlflow-url", envvar="TIPBENCH_MLFLOW_URL",
              help="MLflow server, or a folder. Default: $MLFLOW_TRACKING_URI, else a folder in the user's state folder.")  # fmt: skip
@click.option("--airflow-url", envvar="TIPBENCH_AIRFLOW_URL",
              help="Have this Airflow run collections. Default: this machine does.")  # fmt: skip
def serve(host: str, port: int, mlflow_url: str | None, airflow_url: str | None) -> None:
    """The panel and the admin API in a browser; on a laptop, prints a URL that logs in."""
    try:
        from tipbench.api import server
    except ImportError as error:
        raise InputError(f"serving needs more packages ({error.name}): pip install 'tipbench[api]'") from error
    server.serve(host, port, airflow_url=airflow_url, mlflow_url=mlflow_url)
