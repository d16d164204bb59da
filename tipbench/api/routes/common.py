"""What several routers share: the service behind a request, and parameters with their rules."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from tipbench.api.auth import Auth, Identity, identity_of
from tipbench.api.service import Service
from tipbench.config import EXPERIMENT_PATTERN
from tipbench.judging.exchange import JUDGE_NAME

NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$"
"""Model tags and prompt names, as far as they may reach a filter of MLflow's."""


async def service_of(request: Request) -> Service:
    """The app's service."""
    service: Service = request.app.state.service
    return service


def auth_of(request: Request) -> Auth:
    """The app's auth."""
    auth: Auth = request.app.state.auth
    return auth


Api = Annotated[Service, Depends(service_of)]
Caller = Annotated[Identity, Depends(identity_of)]
Experiment = Annotated[
    str,
    Path(pattern=EXPERIMENT_PATTERN, description="an experiment's name", examples=["tip-bench-auto"]),
]
ModelName = Annotated[str | None, Query(pattern=NAME, examples=["gemma3:1b"])]
PromptName = Annotated[str | None, Query(pattern=NAME, examples=["v1"])]
Judges = Annotated[
    list[Annotated[str, Query(pattern=JUDGE_NAME)]] | None,
    Query(alias="judge", max_length=20, description="count only these judges' scores; may be repeated"),
]
References = Annotated[
    list[Annotated[str, Query(pattern=JUDGE_NAME)]] | None,
    Query(max_length=20, description="estimate what these judges would say of everything; may be repeated"),
]
RunId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.~:+-]{1,250}$", description="a run's id")]
JudgeName = Annotated[str, Query(pattern=JUDGE_NAME, description="the judge's name", examples=["ada"])]
