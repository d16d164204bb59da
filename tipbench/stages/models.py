"""Models: what the engine has, what each would need in memory, and what the RAM policy says of it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tipbench.config import Config
from tipbench.engines.base import Engine, ModelFacts
from tipbench.model_names import same_model
from tipbench.policy import Verdict, check_memory, check_parameters, check_tag, fits, format_bytes, need, parse_bytes


@dataclass(frozen=True)
class ModelRow:
    """One model; sizes in bytes, None where the engine does not say."""

    model: str
    installed: bool
    configured: bool
    """Is it one of the `models` of the configuration?"""
    parameters: int | None
    quantization: str | None
    size_bytes: int | None
    estimated_memory_bytes: int | None
    """What the engine's processes will take with `num_ctx` and `parallel`."""
    allowed: bool
    verdict: str
    max_num_ctx: int | None = None
    """The largest `num_ctx` with which it fits into the limit asked about, 0 for none; None when no limit was asked about."""


def run(config: Config, engine: Engine, fits_in: int | None = None) -> list[ModelRow]:
    """Every model that is installed, then the configured ones that are not. `fits_in`: a limit in bytes to find contexts for.

    Raises EngineUnreachable.
    """
    installed = sorted(engine.models(), key=lambda facts: facts.parameters or 0)
    wanted = config.model_list
    rows = [_row(config, facts, any(same_model(facts.name, model) for model in wanted), fits_in) for facts in installed]
    for model in wanted:
        if not any(same_model(facts.name, model) for facts in installed):
            tag = check_tag(model, config.max_model_b)
            words = "not there yet" if tag.allowed else f"refused: {tag.reason}"
            rows.append(ModelRow(model, False, True, None, None, None, None, tag.allowed, words))
    return rows


def _row(config: Config, facts: ModelFacts, configured: bool, fits_in: int | None) -> ModelRow:
    estimate = need(facts, config.num_ctx, config.parallel, config.engine)
    verdict = (
        Verdict(False, facts.problem)
        if facts.problem
        else check_parameters(facts.name, facts.parameters, config.max_model_b)
    )
    if verdict.allowed:
        verdict = check_memory(facts.name, estimate, parse_bytes(config.memory_limit))
    return ModelRow(
        model=facts.name,
        installed=True,
        configured=configured,
        parameters=facts.parameters,
        quantization=facts.quantization,
        size_bytes=facts.size_bytes,
        estimated_memory_bytes=estimate.total if estimate else None,
        allowed=verdict.allowed,
        verdict="allowed" if verdict.allowed else f"refused: {verdict.reason}",
        max_num_ctx=None if fits_in is None else fits(facts, fits_in, config.parallel, config.engine),
    )


def render(rows: list[ModelRow], console: Console, fits_in: int | None = None) -> None:
    """A table; without a terminal, tab-separated lines. With `fits_in`, what fits into it and with which context."""
    if not rows:
        console.print("The engine has no models yet. With Ollama: ollama pull qwen2.5:0.5b")
        return
    titles: tuple[str, ...] = ("model", "parameters", "quantisation", "size", "memory needed", "verdict")
    if fits_in is not None:
        titles = (*titles[:5], f"fits {format_bytes(fits_in)} with num_ctx up to", titles[5])
    if not console.is_terminal:
        console.out("\t".join(titles))
        for row in rows:
            console.out("\t".join(_fields(row, fits_in)))
        return
    table = Table(*titles, box=None, pad_edge=False)
    for column in (1, 3, 4) if fits_in is None else (1, 3, 4, 5):
        table.columns[column].justify = "right"
    for row in rows:
        table.add_row(*(escape(field) for field in _fields(row, fits_in)), style=None if row.allowed else "red")
    console.print(table)


def _fields(row: ModelRow, fits_in: int | None) -> tuple[str, ...]:
    fields = (
        row.model,
        _billions(row.parameters),
        row.quantization or "-",
        format_bytes(row.size_bytes) if row.size_bytes is not None else "-",
        format_bytes(row.estimated_memory_bytes) if row.estimated_memory_bytes is not None else "-",
        row.verdict,
    )
    if fits_in is None:
        return fields
    context = "-" if row.max_num_ctx is None else f"{row.max_num_ctx:,}" if row.max_num_ctx else "does not fit"
    return (*fields[:5], context, fields[5])


def _billions(parameters: int | None) -> str:
    if parameters is None:
        return "-"
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"
