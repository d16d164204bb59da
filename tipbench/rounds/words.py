"""What comes next in a race, in words and as it crosses borders."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tipbench.rounds.record import Member
from tipbench.rounds.standing import Standing

SCHEMA: Literal["tipbench.next/1"] = "tipbench.next/1"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NextCell(_Frozen):
    """A cell that is in, and what it still needs before the next look."""

    model: str
    prompt: str
    collect: tuple[str, ...] = Field(description="scenarios for which tips have to be written")
    judge: tuple[str, ...] = Field(description="scenarios with tips that wait for a judge")


class DroppedCell(_Frozen):
    """A cell that left."""

    model: str
    prompt: str
    look: int
    n_scenarios: int = Field(description="scenarios it was judged on when it left")
    why: str


class Next(_Frozen):
    """What to do next, and why. `reason` names no cell that is ahead unless the race is over."""

    schema_: Literal["tipbench.next/1"] = Field(default=SCHEMA, alias="schema")
    experiment: str
    action: Literal["collect", "judge", "stop"]
    reason: str
    looks_taken: int
    looks_planned: int
    scenarios: tuple[str, ...] = Field(description="scenarios of the block that comes next")
    cells: tuple[NextCell, ...] = Field(description="cells that are in")
    dropped: tuple[DroppedCell, ...]
    stop: Literal["one left", "within margin", "used up", "nothing scored"] | None
    leader: str | None = Field(description="model|prompt, once the race is over")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def next_step(experiment: str, standing: Standing) -> Next:
    """What comes next."""
    decision, members, names = standing.decision, standing.members, standing.race.scenarios
    cells = tuple(
        NextCell(
            model=members[c].model,
            prompt=members[c].prompt,
            collect=tuple(n for s, n in enumerate(names) if decision.missing[c, s] and not standing.collected[c, s]),
            judge=tuple(n for s, n in enumerate(names) if decision.missing[c, s] and standing.collected[c, s]),
        )
        for c in sorted(decision.left)
    )
    ends = standing.horizon.looks
    dropped = tuple(
        DroppedCell(
            model=members[d.cell].model,
            prompt=members[d.cell].prompt,
            look=d.look,
            n_scenarios=ends[d.look - 1],
            why=why(standing, d.cell),
        )
        for d in sorted(decision.dropped.values(), key=lambda d: (d.look, d.cell))
    )
    action: Literal["collect", "judge", "stop"] = (
        "stop" if decision.stop else "collect" if any(c.collect for c in cells) else "judge"
    )
    return Next(
        experiment=experiment,
        action=action,
        reason=stop_words(standing) if decision.stop else _going_on(standing, action, cells),
        looks_taken=len(decision.looks),
        looks_planned=len(ends),
        scenarios=() if decision.block is None else names[slice(*decision.block)],
        cells=cells,
        dropped=dropped,
        stop=decision.stop,
        leader=members[decision.leader].name if decision.stop and decision.leader is not None else None,
    )


def label(member: Member) -> str:
    """`gemma3:1b with v1`."""
    return f"{member.model} with {member.prompt}"


def why(standing: Standing, cell: int) -> str:
    """Why a cell left, in words."""
    drop = standing.decision.dropped[cell]
    n = standing.horizon.looks[drop.look - 1]
    if drop.why == "no scores":
        return f"no scores in the first {n} scenarios"
    by = "" if drop.diff is None else f" by {-drop.diff:.2f}"
    than = "the leader" if drop.than is None else label(standing.members[drop.than])
    return f"worse than {than}{by} after {n} scenarios"


def stop_words(standing: Standing) -> str:
    """The end of a race in a sentence."""
    decision = standing.decision
    names = [label(standing.members[c]) for c in decision.left]
    if decision.stop == "nothing scored":
        return "stop: no cell has any score"
    if decision.stop == "one left":
        return f"stop: {names[0]} leads"
    if decision.stop == "within margin":
        return f"stop: {_and(names)} are equal within {standing.margin:g}"
    others = f"; {_and(names[1:])} {'is' if len(names) == 2 else 'are'} tied with it" if names[1:] else ""
    return f"stop: no more scenarios; {names[0]} leads{others}"


def _going_on(standing: Standing, action: str, cells: tuple[NextCell, ...]) -> str:
    decision = standing.decision
    first, last = decision.block or (0, 0)
    number = len(decision.looks) + 1
    what = f"round {number} of at most {len(standing.horizon.looks)}, scenarios {first + 1} to {last}"
    who = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
    if action == "collect":
        todo = sum(len(c.collect) for c in cells)
        return f"collect: {what}, for {who} ({todo} to write)"
    return f"judge: {what}, of {who}"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
