"""What a cell is: a row of the board (model digest, prompt hash, options) and a column (scenario hash).

Names are labels: they may come to mean something else, and something may get another name. The number of tips is no part of it, so that
more tips extend a cell. All of it stands in the params of a cell's run since version 0.2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tipbench.catalog import content_hash
from tipbench.store.records import OPTIONS, CellRecord, Collection

ENGINE = "engine"
IMPORTED = "import"
"""What stands for the engine of texts that came from elsewhere."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the board. `options` are values in the order of OPTIONS; one that is unknown is empty."""

    digest: str
    prompt_hash: str
    options: tuple[str, ...]

    @property
    def imported(self) -> bool:
        """Texts that came from elsewhere: of their options nothing is known, and their engine says so."""
        return self.options[OPTIONS.index(ENGINE)].startswith(IMPORTED)

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that stand for the row."""
        return _row_id(self.digest, self.prompt_hash, self.options)


@lru_cache(maxsize=10_000)
def _row_id(digest: str, prompt_hash: str, options: tuple[str, ...]) -> str:
    # A board asks for the id of each of its rows for every cell.
    return content_hash([digest, prompt_hash, list(options)])[:16]


def unknown(name: str) -> str:
    """What stands for the content behind a name that nobody noted: the name."""
    return f"name:{name}"


def options_of(params: Mapping[str, str]) -> tuple[str, ...]:
    """The options among a run's params, in the order of OPTIONS."""
    return tuple(params.get(name, "") for name in OPTIONS)


def cell_id(row: Row, scenario_hash: str) -> str:
    """The id of a cell: the same content under the same options has the same one, however many tips were asked for."""
    return content_hash(
        {"digest": row.digest, "prompt": row.prompt_hash, "options": list(row.options), "scenario": scenario_hash}
    )[:32]


class Labels:
    """What each name means now: the content that the newest plan with that name meant.

    A plan that did not know a model's digest (the engine lacked it) leaves the name what it was. Names that stand in no
    plan's receipt mean what the newest cell of that name has.
    """

    def __init__(self, cells: tuple[CellRecord, ...], collections: tuple[Collection, ...]) -> None:
        self.models: dict[str, str] = {}
        self.prompts: dict[str, str] = {}
        self.scenarios: dict[str, str] = {}
        for cell in cells:
            params = cell.run.params
            for names, name, value in (
                (self.models, cell.model, params.get("model_digest", "")),
                (self.prompts, cell.prompt, params.get("prompt_hash", "")),
                (self.scenarios, cell.scenario, params.get("scenario_hash", "")),
            ):
                if value:
                    names[name] = value
        for collection in collections:
            meant, plan = Meaning(collection), collection.plan
            for names, planned, content in (
                (self.models, (one.model for one in plan), meant.digest),
                (self.prompts, (one.prompt for one in plan), meant.prompt_hash),
                (self.scenarios, (one.scenario for one in plan), meant.scenario_hash),
            ):
                names.update({name: value for name in dict.fromkeys(planned) if (value := content(name))})

    def row(self, model: str, prompt: str, digest: str, prompt_hash: str, options: tuple[str, ...]) -> Row:
        """The row of these contents; what is not known of them is taken from the names."""
        return Row(
            digest or self.models.get(model) or unknown(model),
            prompt_hash or self.prompts.get(prompt) or unknown(prompt),
            options,
        )

    def row_of(self, cell: CellRecord) -> Row:
        """The row that a cell belongs to."""
        params = cell.run.params
        return self.row(
            cell.model, cell.prompt, params.get("model_digest", ""), params.get("prompt_hash", ""), options_of(params)
        )

    def scenario_of(self, name: str, scenario_hash: str) -> str:
        """The column of a scenario."""
        return scenario_hash or self.scenarios.get(name) or unknown(name)


class Meaning:
    """What the names in one collection's plan meant, by its receipt."""

    def __init__(self, collection: Collection) -> None:
        receipt = collection.receipt
        self._models: Mapping[str, object] = _mapping(receipt.get("models"))
        self._prompts: Mapping[str, object] = _mapping(receipt.get("prompts"))
        self._scenarios: Mapping[str, object] = _mapping(receipt.get("scenarios"))
        config = _mapping(receipt.get("config"))
        self.options = tuple(_text(config.get(name)) for name in OPTIONS)

    def digest(self, model: str) -> str:
        """The model's digest; empty when the engine did not have it."""
        return str(_mapping(self._models.get(model)).get("digest", ""))

    def prompt_hash(self, prompt: str) -> str:
        """The hash of the prompt's content."""
        return str(self._prompts.get(prompt, ""))

    def scenario_hash(self, scenario: str) -> str:
        """The hash of the scenario's content."""
        return str(self._scenarios.get(scenario, ""))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    """An option as a run's param spells it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(value)
