"""The JSON schemas of everything that crosses tipbench's borders, made from the models themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from tipbench.config import json_schema
from tipbench.counting.status import Status
from tipbench.judging.exchange import Exchange
from tipbench.leaderboard.model import Leaderboard
from tipbench.rounds.words import Next
from tipbench.store.records import CellResult

_MODELS: dict[str, type[BaseModel]] = {
    "exchange": Exchange,
    "leaderboard": Leaderboard,
    "cell": CellResult,
    "status": Status,
    "next": Next,
}


def schema_of(name: str) -> dict[str, Any]:
    """JSON schema (2020-12) of `config`, `exchange`, `leaderboard`, `cell`, `status` or `next`; KeyError for another name."""
    if name == "config":
        return json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _MODELS[name].model_json_schema(by_alias=True)
