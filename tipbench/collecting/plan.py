"""The plan of a collection, made before anything runs: configuration x catalog x what the engine knows -> cells.

Carrying it out needs no way back to any of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from tipbench.catalog import Prompt, Scenario, content_hash
from tipbench.config import Config
from tipbench.counting.identity import Row, cell_id, unknown
from tipbench.engines.base import Message, ModelFacts, estimated_tokens
from tipbench.memory.need import MemoryEstimate
from tipbench.store.records import OPTIONS, Failure, PlannedCell


@dataclass(frozen=True)
class Block:
    """A model's share of the plan; `failure` is why none of it can be generated."""

    model: str
    facts: ModelFacts | None
    estimate: MemoryEstimate | None
    failure: Failure | None


@dataclass(frozen=True)
class Cell:
    """One cell to fill, with all that filling it takes."""

    planned: PlannedCell
    scenario: Scenario
    messages: Sequence[Message]
    params: Mapping[str, str]

    @property
    def id(self) -> str:
        """The cell's id: what it is, not how many tips of it are asked for."""
        return self.planned.cell_id

    @property
    def name(self) -> str:
        """`gemma3:1b | v1 | first-budget`."""
        return f"{self.planned.model} | {self.planned.prompt} | {self.planned.scenario}"


@dataclass(frozen=True)
class Plan:
    """Everything that a collection sets out to do."""

    collection_id: str
    blocks: tuple[Block, ...]
    refused: Mapping[str, str]
    cells: tuple[Cell, ...]
    same: tuple[str, ...]
    """In words: what was asked for under two names and is planned once."""


def scenario_hash(scenario: Scenario) -> str:
    """The hash of a scenario's content."""
    return content_hash({"id": scenario.id, "title": scenario.title, "situation": scenario.situation})


def make_plan(
    config: Config,
    blocks: Sequence[Block],
    refused: Mapping[str, str],
    prompts: Sequence[Prompt],
    scenarios: Sequence[Scenario],
) -> Plan:
    """The cells of `blocks` by model, prompt and scenario. What has two names (a copied model, a copied prompt) is planned once."""
    cells: dict[str, Cell] = {}
    same: dict[str, None] = {}
    columns = {s.id: scenario_hash(s) for s in scenarios}
    messages = {(p.name, s.id): p.messages(s) for p in prompts for s in scenarios}
    for block in blocks:
        digest = block.facts.digest if block.facts else ""
        for prompt in prompts:
            if config.cell_list and (block.model, prompt.name) not in config.cell_list:
                continue
            for scenario in scenarios:
                params = {
                    **_options(config),
                    "model_digest": digest,
                    "prompt_hash": prompt.hash,
                    "scenario_hash": columns[scenario.id],
                }
                row = Row(digest or unknown(block.model), prompt.hash, tuple(params[name] for name in OPTIONS))
                key = cell_id(row, columns[scenario.id])
                planned = PlannedCell(key, block.model, prompt.name, scenario.id, config.n_tips)
                if key in cells:
                    first = cells[key].planned
                    same[_same(first, planned)] = None
                    continue
                cells[key] = Cell(planned, scenario, messages[prompt.name, scenario.id], params)
    return Plan(
        _collection_id(config, cells.values(), refused), tuple(blocks), refused, tuple(cells.values()), tuple(same)
    )


def tight(cells: Iterable[Cell], num_ctx: int) -> list[str]:
    """In words: the prompts that will hardly fit into the context, by an estimate. Ollama would drop their first messages."""
    longest: dict[str, int] = {}
    for cell in cells:
        name = cell.planned.prompt
        longest[name] = max(longest.get(name, 0), estimated_tokens(cell.messages))
    return [
        f"prompt {name} takes about {tokens} tokens, and num_ctx is {num_ctx}: the server would leave out messages from its front, "
        "examples before all; raise --num-ctx"
        for name, tokens in longest.items()
        if tokens > num_ctx
    ]


def row_id(cell: Cell) -> str:
    """The id of the board's row that a cell belongs to."""
    digest = cell.params["model_digest"] or unknown(cell.planned.model)
    return Row(digest, cell.params["prompt_hash"], tuple(cell.params[name] for name in OPTIONS)).id


def narrowed(config: Config, plan: Plan, wanted: Callable[[Cell], bool]) -> Plan:
    """The plan with only the cells that are wanted now."""
    cells = tuple(cell for cell in plan.cells if wanted(cell))
    return replace(plan, cells=cells, collection_id=_collection_id(config, cells, plan.refused))


def _options(config: Config) -> dict[str, str]:
    """The options as a run's params spell them."""
    return {
        "temperature": repr(config.temperature),
        "seed": str(config.seed),
        "num_predict": str(config.num_predict),
        "num_ctx": str(config.num_ctx),
        "engine": config.engine,
    }


def _same(first: PlannedCell, again: PlannedCell) -> str:
    if first.model != again.model:
        return f"{again.model} is the same model as {first.model} (same digest): it is collected and ranked once"
    if first.prompt != again.prompt:
        return f"prompt {again.prompt} has the same content as {first.prompt}: it is collected and ranked once"
    return f"scenario {again.scenario} has the same content as {first.scenario}: it is collected once"


def _collection_id(config: Config, cells: Iterable[Cell], refused: Mapping[str, str]) -> str:
    """The same plan resumes the same collection; one that is all refusals is known by the refused models."""
    parts = [f"{c.id} {c.planned.n_tips} {c.name}" for c in cells] or sorted(refused)
    return sha256("\n".join([config.experiment, *parts]).encode()).hexdigest()[:16]
