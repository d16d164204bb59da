"""A gate's answer: each cell against the same cell of a baseline, as data, as Markdown for a pull request, and in the terminal."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from rich.console import Console

FailOn = Literal["worse", "not-shown-within-margin"]
Standing = Literal["worse", "better", "within margin", "open", "too few scenarios"]
"""worse, better: shown; within margin: no loss larger than the margin is left possible; open: the data do not say."""


class GateCell(BaseModel):
    """One cell and its partner in the baseline; means and differences on the rubric's scale, over the scenarios that both have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    prompt: str
    variant: str = ""
    n_scenarios: int = Field(description="Scenarios in which the same judge scored both.")
    composite: float | None
    baseline: float | None
    difference: float | None = Field(description="This cell minus the baseline's, paired by scenario and judge.")
    low: float | None = Field(description="Simultaneous one-sided lower limit of the difference.")
    high: float | None = Field(description="Simultaneous one-sided upper limit of the difference.")
    standing: Standing
    fails: bool


class Gate(BaseModel):
    """What `compare --against` found."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["tipbench.gate/1"] = Field(default="tipbench.gate/1", alias="schema")
    experiment: str
    against: str
    created_at: datetime
    rubric_hash: str
    judges: tuple[str, ...]
    fail_on: FailOn | None
    margin: float
    confidence: float
    failed: bool
    cells: tuple[GateCell, ...]
    only_here: tuple[str, ...] = ()
    only_in_baseline: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        failing = [c for c in self.cells if c.fails]
        compared = f"{len(self.cells)} cell{'s' * (len(self.cells) != 1)} compared with {self.against}"
        if failing:
            names = ", ".join(name_of(c) for c in failing[:3]) + (
                f" and {len(failing) - 3} more" if len(failing) > 3 else ""
            )
            words = {
                "worse": "shown worse",
                "not-shown-within-margin": f"not shown to have lost less than {self.margin:g}",
            }[self.fail_on or "worse"]
            return f"Failed: {names} {words} ({compared})."
        shown = sum(c.standing == "worse" for c in self.cells)
        if shown:
            return f"{shown} shown worse ({compared})."
        better = sum(c.standing == "better" for c in self.cells)
        gained = f"; {better} shown better" if better else ""
        if self.fail_on == "not-shown-within-margin":
            return f"Passed: no cell lost {self.margin:g} or more ({compared}{gained})."
        return f"{'Passed: n' if self.fail_on else 'N'}o cell shown worse ({compared}{gained})."


def name_of(cell: GateCell) -> str:
    """The cell as a reader knows it."""
    return f"{cell.model} with {cell.prompt}" + (f" ({cell.variant})" if cell.variant else "")


def method(gate: Gate) -> str:
    """How it was found, in one sentence."""
    return (
        f"Differences paired by scenario and judge ({', '.join(gate.judges)}), with one-sided {gate.confidence:.0%} t limits that hold for all "
        f"{len(gate.cells)} cells at once (Bonferroni); margin {gate.margin:g} on the rubric's scale."
    )


def to_markdown(gate: Gate) -> str:
    """For a pull request's comment: the answer, a table, how it was found."""
    mark = "❌" if gate.failed else "✅"
    rows = [
        f"{mark} **tipbench: {_escaped(gate.experiment)} against {_escaped(gate.against)}.** {_escaped(gate.headline)}",
        "",
        "| cell | now | baseline | difference | limits | scenarios | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for cell in gate.cells:
        name = _escaped(name_of(cell))
        standing = f"**{cell.standing}**" if cell.fails else cell.standing
        rows.append(
            f"| {name} | {_number(cell.composite)} | {_number(cell.baseline)} | {_number(cell.difference, signed=True)} | "
            f"{_number(cell.low, signed=True)} to {_number(cell.high, signed=True)} | {cell.n_scenarios} | {standing} |"
        )
    notes = [method(gate)]
    if gate.only_here:
        notes.append(f"Only in {gate.experiment}: {', '.join(gate.only_here)}.")
    if gate.only_in_baseline:
        notes.append(f"Only in {gate.against}: {', '.join(gate.only_in_baseline)}.")
    return "\n".join([*rows, "", *(f"{_escaped(note)}  " for note in [*notes, *gate.warnings])]) + "\n"


def render(gate: Gate, console: Console) -> None:
    """The same in the terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title, right in (
        ("cell", False),
        ("now", True),
        ("baseline", True),
        ("difference", True),
        ("limits", True),
        ("scenarios", True),
        ("", False),
    ):
        table.add_column(title, justify="right" if right else "left")
    for cell in gate.cells:
        limits = f"{_number(cell.low, signed=True)} to {_number(cell.high, signed=True)}"
        style = "red" if cell.fails else ""
        table.add_row(
            escape(name_of(cell)), _number(cell.composite), _number(cell.baseline), _number(cell.difference, signed=True),
            limits, str(cell.n_scenarios), cell.standing, style=style,
        )  # fmt: skip
    console.print(escape(gate.headline))
    console.print(table)
    for note in (method(gate), *gate.warnings):
        console.print(escape(note))


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:+.2f}".replace("-", "−") if signed else f"{value:.2f}"


def _escaped(text: str) -> str:
    """Names are data: they make no table cell, link or mention of their own."""
    for sign in "\\|[]<>*_`":
        text = text.replace(sign, "\\" + sign)
    return text.replace("@", "@\u200b")
