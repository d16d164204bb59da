"""The configuration: one definition from which the CLI, the DAG's conf, the API and the panel take their keys.

Kept free of heavy imports, since `tipbench --help` needs it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tipbench import quantities
from tipbench.errors import InputError
from tipbench.model_names import each_once
from tipbench.net.address import Address, Addresses, Hidden, masked, read_address, read_addresses, read_store

EXPERIMENT_PATTERN = r"^tip-bench-[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
ENV_PREFIX = "TIPBENCH_"
TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


def key(default: Any, help: str, **rules: Any) -> Any:
    """One configuration key: its default, its help and the rules that its values obey."""
    return field(default=default, metadata={"help": help, **rules})


@dataclass(frozen=True)
class Config:
    """What to collect, where it runs and where it is kept. Every field is a key of the configuration."""

    models: str = key(
        "qwen2.5:0.5b,qwen2.5:1.5b,gemma3:1b,llama3.2:3b",
        "Comma-separated model tags, as Ollama names them.",
        many=True,
    )
    prompts: str = key("v1,v2-mentor,v3-few-shot", "Comma-separated prompt versions.", many=True)
    n_tips: int = key(5, "Candidates per scenario.", minimum=1, maximum=200)
    n_scenarios: int = key(0, "Use only the first N scenarios; 0 means all.", minimum=0, maximum=1_000_000)
    temperature: float = key(0.7, "Sampling temperature.", minimum=0.0, maximum=2.0)
    experiment: str = key(
        "tip-bench-auto",
        "MLflow experiment; its name starts with tip-bench-.",
        pattern=EXPERIMENT_PATTERN,
        shape="a name is tip-bench- and then letters, digits and . _ -, e.g. tip-bench-auto",
    )
    max_model_b: float = key(
        4.0,
        "Refuse models with more parameters than this, in billions.",
        minimum=0.0,
        exclusive=True,
        maximum=1_000_000.0,
    )
    ollama_url: str = key(
        "http://localhost:11434",
        "Where Ollama listens. In a cluster, replicas may stand here, comma-separated; a collection takes one that is free.",
        pattern=r"^https?://[^\s/,]+(/[^\s,]*)?(,https?://[^\s/,]+(/[^\s,]*)?)*$",
        shape="write it like http://localhost:11434",
        many=True,
        address=read_addresses,
    )
    mlflow_url: str = key(
        "",
        "MLflow server (http://...), or a folder for a local store. Default: $MLFLOW_TRACKING_URI, else http://localhost:5000.",
        address=read_store,
    )
    engine: str = key(
        "ollama",
        "Where text comes from: an Ollama server, any server with OpenAI's API, or llama.cpp embedded in this process.",
        choices=("ollama", "openai", "embedded"),
    )
    engine_url: str = key(
        "http://localhost:8080/v1",
        "Base URL of the server for engine openai (llama.cpp's, vLLM, LM Studio); a key comes from TIPBENCH_ENGINE_API_KEY.",
        address=read_address,
    )
    parameters: str = key(
        "",
        "Parameter counts that engine_url's server does not tell, for the policy: MODEL=1.5b, comma-separated.",
        pattern=r"^\s*([^=,\s][^=,]*=\s*[0-9]+(\.[0-9]+)?[kKmMbBtT]\s*(,\s*|$))*$",
        shape="write it like qwen2.5-1.5b=1.5b,tiny=135m",
    )
    seed: int = key(0, "Candidate i of every cell is generated with seed + i.", minimum=0, maximum=2**31 - 1000)
    num_predict: int = key(160, "Most tokens in one tip.", minimum=1, maximum=8192)
    num_ctx: int = key(2048, "Context length in tokens; the KV cache grows with it.", minimum=128, maximum=1_048_576)
    num_thread: int = key(
        0,
        "Threads for generation; 0 leaves it to the engine. Set it where a CPU limit applies.",
        minimum=0,
        maximum=1024,
    )
    parallel: int = key(
        1, "Requests in flight at once; the server needs as many slots (OLLAMA_NUM_PARALLEL).", minimum=1, maximum=64
    )
    keep_alive: str = key(
        "60s",
        "How long the engine holds a model between requests; 0 frees it after every request.",
        pattern=quantities.DURATION_PATTERN,
        reads=quantities.duration,
        shape="write it like 60s, 5m or 0",
    )
    memory_limit: str = key(
        "",
        "Memory the engine may use (e.g. 2Gi); a model whose estimate is above it is refused before it is loaded.",
        pattern=f"^({quantities.SIZE_PATTERN[1:-1]})?$",
        reads=quantities.memory,
        shape="write it like 512Mi or 2Gi",
    )
    scenarios: str = key("", "YAML or JSON file with scenarios of your own.", path=True)
    prompts_dir: str = key(
        "", "Folder with prompt files of your own (NAME.yaml); --prompts FOLDER takes all of them.", path=True
    )
    rubric: str = key("", "YAML file with a rubric of your own.", path=True)
    pull: bool = key(False, "Pull models that Ollama does not have yet, if the policy allows them.")
    until: str = key(
        "all",
        "all: every scenario for every cell. sure: in rounds, dropping cells that are shown to be worse, until the answer is sure.",
        choices=("all", "sure"),
    )
    block: int = key(4, "Scenarios in a round, with until = sure.", minimum=1, maximum=10_000)
    margin: float = key(
        0.0,
        "Points that do not matter: a cell this near to the best is good enough, and with until = sure, cells that are shown to be this "
        "near to each other end the race. 0 means 7.5 % of the scale's range (0.3 on 1-5).",
        minimum=0.0,
        maximum=100.0,
    )
    cells: str = key(
        "",
        "Only these cells, comma-separated, each as model, bar, prompt; empty means all of models x prompts.",
        pattern=r"^\s*[^|,]+\|[^|,]+(,[^|,]+\|[^|,]+)*,?\s*$",
        shape="write it like qwen2.5:0.5b|v1,gemma3:1b|v2-mentor",
    )
    spool: str = key(
        "",
        "Folder that keeps finished cells until MLflow has them. Default: tipbench/spool in the user's state folder.",
        path=True,
    )
    notify_url: str = key(
        "",
        "Gets one POST (JSON with a `text`) when a judge is wanted or a board is ready, e.g. a chat tool's incoming webhook.",
        pattern=r"^https?://[^\s/,]+(/\S*)?$",
        shape="write it like https://chat.example/hooks/abc",
        hidden=True,
    )

    def __post_init__(self) -> None:
        """Addresses are read here, so that no Config has a password in its text. Raises InputError for what is no address."""
        if type(self.ollama_url) is str:
            object.__setattr__(self, "ollama_url", read_addresses(self.ollama_url, "ollama_url"))
        if self.notify_url and type(self.notify_url) is str:
            object.__setattr__(self, "notify_url", Hidden(self.notify_url.strip()))
        if type(self.engine_url) is str:
            object.__setattr__(self, "engine_url", read_address(self.engine_url, "engine_url"))
        if self.mlflow_url and type(self.mlflow_url) is str:
            store = read_store(self.mlflow_url, "mlflow_url")
            if isinstance(store, Address):
                object.__setattr__(self, "mlflow_url", store)

    @property
    def model_list(self) -> tuple[str, ...]:
        """The models in the order given; of several spellings of one model, the first."""
        return each_once(split_list(self.models))

    @property
    def prompt_list(self) -> tuple[str, ...]:
        """The prompt names in the order given, without repeats."""
        return split_list(self.prompts)

    @property
    def cell_list(self) -> frozenset[tuple[str, str]]:
        """(model, prompt) of the cells asked for; empty means all."""
        pairs = (part.partition("|") for part in split_list(self.cells))
        return frozenset((model.strip(), prompt.strip()) for model, _, prompt in pairs)

    @property
    def ollama_urls(self) -> tuple[Address, ...]:
        """The addresses in `ollama_url`."""
        return read_addresses(self.ollama_url, "ollama_url").each

    @property
    def parameter_counts(self) -> Mapping[str, int]:
        """`parameters` as model -> count: `"tiny=135m"` -> `{"tiny": 135000000}`."""
        units = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
        pairs = [part.rpartition("=") for part in split_list(self.parameters)]
        return {
            name.strip(): round(float(size.strip()[:-1]) * units[size.strip()[-1].lower()]) for name, _, size in pairs
        }

    @property
    def store_url(self) -> str:
        """`mlflow_url` with its default filled in: an Address, or a folder. Raises InputError for a variable that names neither."""
        if self.mlflow_url:
            return self.mlflow_url
        return store_in(os.environ) or "http://localhost:5000"


def store_in(environ: Mapping[str, str]) -> str:
    """What MLFLOW_TRACKING_URI names: an Address or a folder; nothing when it is not set. Raises InputError for anything else."""
    text = environ.get("MLFLOW_TRACKING_URI", "").strip()
    store = read_store(text, "MLFLOW_TRACKING_URI") if text else ""
    return store if isinstance(store, Address) else text


KEYS: Mapping[str, dataclasses.Field[Any]] = {f.name: f for f in dataclasses.fields(Config)}
_TYPES: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


def type_of(name: str) -> type:
    """The Python type of a key: str, int, float or bool."""
    return _TYPES[str(KEYS[name].type)]


def split_list(text: str) -> tuple[str, ...]:
    """`"a, b,a"` -> `("a", "b")`: the non-empty parts in order, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def build(
    values: Mapping[str, Any], source: str = "configuration", origin: Callable[[str], str] = lambda name: ""
) -> Config:
    """A Config from untrusted values (a YAML file, a conf object, an API body).

    Raises InputError that lists every fault: unknown keys (with the nearest known one), wrong types,
    values out of bounds. `source` names where the values came from in that message, `origin` where one key's came from when
    that is elsewhere (a variable).
    """
    faults: list[str] = []
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in KEYS:
            faults.append(f"{name}: unknown key{quantities.did_you_mean(name, KEYS)}")
            continue
        try:
            checked[name] = _checked(name, value)
        except ValueError as error:
            there = origin(name)
            faults.append(f"{name}{f' ({there})' if there else ''}: {error}")
    if faults:
        raise InputError(f"{source}: {len(faults)} fault{'s' * (len(faults) > 1)}", tuple(faults))
    return Config(**checked)


def read(name: str, text: str) -> Any:
    """The value of a key from the text of an option or a variable, as the key's type; bounds are `build`'s to check.

    Raises ValueError in words for what is no number, or neither true nor false.
    """
    wanted = type_of(name)
    if wanted is bool:
        word = text.strip().lower()
        if word not in TRUE | FALSE:
            raise ValueError(f"needs true or false, not {quantities.shown(text)}")
        return word in TRUE
    if wanted is int:
        return quantities.whole(text)
    return quantities.number(text) if wanted is float else text


def _checked(name: str, value: Any) -> Any:
    """`value` as the key's type, or ValueError in words. Only lossless conversions are made."""
    rules, wanted = KEYS[name].metadata, type_of(name)
    if wanted is str:
        if rules.get("many") and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            value = ",".join(value)
        if not isinstance(value, str):
            shown = masked(repr(value)) if "address" in rules else quantities.shown(value)
            raise ValueError(f"needs text, not {shown}")
        if rules.get("many") and not split_list(value):
            raise ValueError("needs at least one name")
        if not value.strip() and KEYS[name].default:
            raise ValueError(f"must not be empty; leave it out for {KEYS[name].default}")
        if "\0" in value:
            raise ValueError("has a zero byte in it")
    elif wanted is bool:
        if not isinstance(value, bool):
            raise ValueError(f"needs true or false, not {quantities.shown(value)}")
    else:
        if isinstance(value, str):
            raise ValueError(f"needs a number, not {quantities.shown(value)}")
        value = quantities.whole(value) if wanted is int else quantities.number(value)
    if "address" in rules and not isinstance(value, Address | Addresses):
        value = value.strip()
    _check_rules(value, rules)
    if value and "address" in rules:
        try:
            read = rules["address"](value, "")
        except InputError as error:
            raise ValueError(str(error)) from None
        value = read if isinstance(read, str) else value
    return value


def _check_rules(value: Any, rules: Mapping[str, Any]) -> None:
    if rules.get("minimum") is not None or rules.get("maximum") is not None:
        quantities.within(value, rules.get("minimum"), rules.get("maximum"), exclusive=bool(rules.get("exclusive")))
    if rules.get("choices") and value not in rules["choices"]:
        raise ValueError(f"{quantities.shown(value)} is not one of {', '.join(rules['choices'])}")
    if value and rules.get("reads"):
        rules["reads"](value)
    elif value and rules.get("pattern") and not re.fullmatch(rules["pattern"], value):
        shown = "what was given (a secret, not shown)" if rules.get("hidden") else quantities.shown(masked(value))
        raise ValueError(f"{shown} does not fit; {rules['shape']}")


def json_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a configuration object, for the DAG's form, the API and editors."""
    properties: dict[str, Any] = {}
    names = {str: "string", int: "integer", float: "number", bool: "boolean"}
    for name, spec in KEYS.items():
        rules = spec.metadata
        entry: dict[str, Any] = {
            "type": names[type_of(name)],
            "default": spec.default,
            "description": rules["help"],
        }
        if rules.get("minimum") is not None:
            entry["exclusiveMinimum" if rules.get("exclusive") else "minimum"] = rules["minimum"]
        if rules.get("maximum") is not None:
            entry["maximum"] = rules["maximum"]
        if rules.get("choices"):
            entry["enum"] = list(rules["choices"])
        if rules.get("pattern"):
            entry["pattern"] = rules["pattern"]
        properties[name] = entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tipbench configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
