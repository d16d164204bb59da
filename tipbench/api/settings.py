"""What the API is told by its environment. Configuration keys have the same variables as everywhere (TIPBENCH_<KEY>)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tipbench.config import ENV_PREFIX, KEYS, Config, build, read, store_in
from tipbench.errors import InputError
from tipbench.net.address import read_address, without_credentials
from tipbench.net.secret import Secret
from tipbench.quantities import seconds_from


@dataclass(frozen=True)
class Settings:
    """All of it. With an `airflow_url`, Airflow runs the collections; without one, this machine does."""

    config: Config
    state_dir: Path
    """Where this machine keeps its collections."""
    airflow_url: str = ""
    airflow_username: str = ""
    airflow_password: Secret = field(default_factory=lambda: Secret("", "TIPBENCH_AIRFLOW_PASSWORD"))
    airflow_public_url: str = ""
    mlflow_public_url: str = ""
    tokens_dir: str = ""
    session_secret: Secret = field(default_factory=lambda: Secret("", "TIPBENCH_SESSION_SECRET"))
    user_header: str = ""
    """Header in which a trusted proxy names the person behind its token."""
    root_path: str = ""
    """Path under which a proxy shows all this, such as /tipbench."""
    trusted_proxies: str = "127.0.0.1"
    """Proxies whose X-Forwarded headers are believed: addresses and networks, comma-separated; * for all."""
    retry_s: float = 2.0
    """How long a request waits for an MLflow that is away."""
    read_s: float = 20.0
    """How long one answer of MLflow may take."""
    airflow_s: float = 10.0
    """How long one answer of Airflow may take."""

    @property
    def store_url(self) -> str:
        """The MLflow server; a folder when nothing names one and this machine does the work."""
        named = self.config.mlflow_url or store_in(os.environ)
        return named or ("http://localhost:5000" if self.airflow_url else str(self.state_dir.parent / "store"))


def from_environment(environ: Mapping[str, str]) -> Settings:
    """The settings that `environ` tells. Raises InputError for a value that does not fit its key."""

    def get(name: str) -> str:
        return environ.get(ENV_PREFIX + name, "")

    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Settings(
        config=build(_keys(environ), "environment", lambda name: ENV_PREFIX + name.upper()),
        state_dir=Path(get("STATE_DIR") or Path(state) / "tipbench" / "api"),
        airflow_url=read_address(get("AIRFLOW_URL"), "TIPBENCH_AIRFLOW_URL") if get("AIRFLOW_URL").strip() else "",
        airflow_username=get("AIRFLOW_USERNAME").strip(),
        airflow_password=Secret(get("AIRFLOW_PASSWORD"), "TIPBENCH_AIRFLOW_PASSWORD"),
        # A browser is sent there: no credentials of ours go with it.
        airflow_public_url=without_credentials(get("AIRFLOW_PUBLIC_URL").strip()).rstrip("/"),
        mlflow_public_url=without_credentials(get("MLFLOW_PUBLIC_URL").strip()).rstrip("/"),
        tokens_dir=get("TOKENS_DIR"),
        session_secret=Secret(get("SESSION_SECRET"), "TIPBENCH_SESSION_SECRET"),
        user_header=get("USER_HEADER"),
        root_path=_root_path(get("ROOT_PATH")),
        trusted_proxies=environ.get("FORWARDED_ALLOW_IPS") or Settings.trusted_proxies,
        retry_s=seconds_from(environ, ENV_PREFIX + "MLFLOW_RETRY_S", Settings.retry_s),
        read_s=seconds_from(environ, ENV_PREFIX + "MLFLOW_READ_S", Settings.read_s, low=0.1),
        airflow_s=seconds_from(environ, ENV_PREFIX + "AIRFLOW_READ_S", Settings.airflow_s, low=0.1),
    )


def _root_path(text: str) -> str:
    """`"tipbench/"` -> `"/tipbench"`. Raises InputError for what is no path."""
    path = "/" + text.strip().strip("/")
    if not re.fullmatch(r"/|(/[A-Za-z0-9._~-]+)+", path):
        raise InputError(f"TIPBENCH_ROOT_PATH={text!r}: must be a path, such as /tipbench")
    return path.rstrip("/")


def _keys(environ: Mapping[str, str]) -> dict[str, Any]:
    """Configuration keys from their variables, as the types they have; what cannot be converted is left for `build` to refuse."""
    found: dict[str, Any] = {}
    for name in KEYS:
        text = environ.get(ENV_PREFIX + name.upper(), "")
        if not text:
            continue
        try:
            found[name] = read(name, text)
        except ValueError:
            found[name] = text
    return found
