"""A run's configuration as the API takes it: the command line's own checks, with every fault at its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tipbench import pipeline, quantities
from tipbench.api.models import JUDGE_KEYS, SERVER_KEYS
from tipbench.api.problems import Problem, invalid, of
from tipbench.api.routes.common import NAME
from tipbench.api.service import Service
from tipbench.catalog import load_prompts, load_scenarios
from tipbench.config import KEYS, Config, build
from tipbench.errors import InputError
from tipbench.net.address import has_credentials

HAS_CREDENTIALS = (
    "has a user or a password in it, which everybody who sees runs would see; set it where the API, or the DAG, is installed "
    "(OLLAMA_API_KEY, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD), and leave it out here"
)


async def checked(api: Service, body: Mapping[str, Any]) -> tuple[dict[str, Any], Config]:
    """The keys that were given, as the CLI checks them, and the whole configuration. Raises 422 with every fault."""
    faults: list[tuple[str, str]] = []
    known = await api.in_back_end(api.back_end.defaults)
    for name in body:
        if name in SERVER_KEYS:
            faults.append((f"/{name}", "names a file on the server; it is set where the API is started"))
        elif name in (*KEYS, *JUDGE_KEYS) and name not in known:
            faults.append((f"/{name}", "is not a run's to choose here; it is set for the whole installation"))
    keys = {name: value for name, value in body.items() if name not in JUDGE_KEYS and name not in SERVER_KEYS}
    judge = {name: value for name, value in body.items() if name in JUDGE_KEYS}
    faults += [fault for name, value in judge.items() for fault in _judge_faults(name, value)]
    if not any(pointer.removeprefix("/") in JUDGE_KEYS for pointer, _ in faults):
        faults += [(f"/{name}", said) for name, said in pipeline.faults({**known, **body}).items()]
    config = None
    try:
        config = build(keys, "configuration")
        for name in ("models", "prompts"):
            for one in getattr(config, name[:-1] + "_list"):
                if not re.fullmatch(NAME, one):
                    faults.append((f"/{name}", f"{one!r} is no name of a {name[:-1]}"))
        faults += [(f"/{name}", HAS_CREDENTIALS) for name in keys if has_credentials(getattr(config, name))]
        scenarios = load_scenarios(api.settings.config.scenarios or None)
        load_prompts(config.prompt_list, api.settings.config.prompts_dir or None, scenarios)
    except InputError as error:
        problem = of(error)
        assert isinstance(problem, Problem)
        places = [(f.pointer, f.detail) for f in problem.errors] if config is None else [("/prompts", str(error))]
        faults += places or [("", str(error))]
    if faults or config is None:
        raise invalid(f"configuration: {len(faults)} fault{'s' * (len(faults) > 1)}", *dict.fromkeys(faults))
    settled = {
        **{name: known[name] for name in KEYS if name in known},
        **{name: getattr(config, name) for name in keys},
    }
    whole = replace(api.settings.config, **{name: value for name, value in settled.items() if name in KEYS})
    numbers = {name: quantities.whole(judge[name]) for name in judge if JUDGE_KEYS[name]["type"] == "integer"}
    return {name: getattr(config, name) for name in keys} | judge | numbers, whole


def _judge_faults(name: str, value: Any) -> list[tuple[str, str]]:
    """The judge's keys against their rules, in the configuration's words."""
    rules, place = JUDGE_KEYS[name], f"/{name}"
    try:
        if rules["type"] == "string":
            if not isinstance(value, str):
                return [(place, f"needs text, not {value!r}")]
            if value not in rules.get("enum", (value,)):
                return [(place, f"{value!r} is not one of {', '.join(rules['enum'])}")]
            if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
                return [(place, f"{value!r} does not fit {rules['pattern']}")]
            return []
        if isinstance(value, bool | str):
            return [(place, f"needs a number, not {value!r}")]
        number = quantities.whole(value) if rules["type"] == "integer" else quantities.number(value)
        low = rules.get("exclusiveMinimum", rules.get("minimum"))
        quantities.within(number, low, rules["maximum"], exclusive="exclusiveMinimum" in rules)
    except ValueError as error:
        return [(place, str(error))]
    return []


def n_scenarios(api: Service, config: Config) -> int:
    """How many scenarios a run of this configuration has."""
    there = len(load_scenarios(api.settings.config.scenarios or None))
    return min(there, config.n_scenarios) if config.n_scenarios else there
