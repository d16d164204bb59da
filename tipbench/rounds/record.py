"""What is on record of an experiment in rounds: the order of its scenarios, who takes part, each look, and cells taken back.

Events are only ever added, each in a place of its own (`order/0`, `cells/HASH`, `look/RUBRIC/1`, `back/RUBRIC/1/ROW`), and the first one in a place
stands. So a run that is killed and begun again, or two that run at once, read the same record.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from tipbench.catalog import content_hash
from tipbench.errors import InputError
from tipbench.store import Store
from tipbench.store.part import now_ms

RULE = 2
"""How the looks of a race that begins now are taken, a key of `stats.sequential.RULES`; it is stored with the order, and a race keeps its own."""
NEXT = "tipbench.next."
"""On the experiment: what comes next, by the first twelve digits of the rubric's hash."""


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Order(_Event):
    """Scenarios in the order drawn for them, by name; later ones were added after `after_looks` looks."""

    scenarios: tuple[str, ...]
    block: int
    after_looks: int = 0
    rule: int = 1
    """Of the first order only: how looks are taken, see `RULE`. Orders from before it was noted have rule 1."""


class Member(_Event):
    """A row of the board that takes part, with its names when it came in."""

    row: str
    model: str
    prompt: str

    @property
    def name(self) -> str:
        """`gemma3:1b|v1`, as the key `cells` has it."""
        return f"{self.model}|{self.prompt}"


class Members(_Event):
    """Rows that a collection asked for."""

    members: tuple[Member, ...]


class RecordedDrop(_Event):
    """A row that left at a look."""

    row: str
    why: str
    than: str = ""
    diff: float | None = None
    low: float | None = None
    high: float | None = None
    t: float | None = None
    among: int = 0
    everyone: int = 0


class RecordedLook(_Event):
    """A look that was taken, by rows; it stands whatever becomes of the scores."""

    number: int
    n_scenarios: int
    rows: tuple[str, ...]
    dropped: tuple[RecordedDrop, ...]
    margin: float = 0.0
    stop: str = ""


class Back(_Event):
    """A row taken back by hand after a look."""

    row: str
    after_look: int
    by: str
    reason: str = ""
    time_ms: int = 0


@dataclass(frozen=True)
class Race:
    """The record, read."""

    orders: tuple[Order, ...]
    members: tuple[Member, ...]
    looks: tuple[RecordedLook, ...]
    """Under the rubric that was asked for, from the first, without a gap."""
    back: tuple[Back, ...]

    @property
    def scenarios(self) -> tuple[str, ...]:
        """All scenarios in the drawn order."""
        return tuple(name for order in self.orders for name in order.scenarios)

    @property
    def ends(self) -> tuple[int, ...]:
        """Scenarios seen at each look: blocks of the first order, then blocks of what was added."""
        found: list[int] = []
        total = 0
        for order in self.orders:
            kept = found[: order.after_looks] if order is not self.orders[0] else []
            total += len(order.scenarios)
            start = kept[-1] if kept else 0
            found = [*kept, *range(start + order.block, total, order.block), total]
        return tuple(found)

    def block_of(self, scenario: str) -> int:
        """The number of the look that sees a scenario first, from 1; 0 for one that has no place in the order."""
        names = self.scenarios
        if scenario not in names:
            return 0
        place = names.index(scenario)
        return next(k for k, end in enumerate(self.ends, 1) if place < end)

    @property
    def left(self) -> frozenset[str]:
        """Rows that are in, as recorded: members, less those that left and were not taken back since."""
        rows = {m.row for m in self.members}
        for look in self.looks:
            rows -= {d.row for d in look.dropped}
            rows |= {b.row for b in self.back if b.after_look == look.number}
        return frozenset(rows)

    def is_over(self, margin: float = 0.0) -> bool:
        """Did the last look stop the race, with nobody back and nothing added since, and does its reason hold for this margin?"""
        if not self.looks:
            return False
        last = self.looks[-1]
        if last.stop == "used up":
            return last.number >= len(self.ends) and not self._back_since(last.number)
        return bool(last.stop) and not self._back_since(last.number) and (not last.margin or margin >= last.margin)

    def _back_since(self, look: int) -> bool:
        known = {row for one in self.looks for row in one.rows}
        return any(b.after_look >= look for b in self.back) or any(m.row not in known for m in self.members)

    def wanted(self, margin: float = 0.0) -> dict[str, int]:
        """row -> how many scenarios of the order it needs for the next look; empty when nothing is to come."""
        if self.is_over(margin) or not self.orders:
            return {}
        end = self.ends[min(len(self.looks), len(self.ends) - 1)]
        return dict.fromkeys(self.left, end)


def read(store: Store, experiment_id: str, rubric_hash: str) -> Race:
    """The record of an experiment under a rubric; empty when there is none."""
    return _race(store.race_events(experiment_id), rubric_hash)


def _race(events: Mapping[str, Mapping[str, Any]], rubric_hash: str) -> Race:
    rubric = rubric_hash[:12]
    orders: list[Order] = []
    while (event := events.get(f"order/{len(orders)}")) is not None:
        orders.append(Order.model_validate(event))
    members: dict[str, Member] = {}
    for place, event in events.items():
        if place.startswith("cells/"):
            for member in Members.model_validate(event).members:
                members.setdefault(member.row, member)
    looks: list[RecordedLook] = []
    while (event := events.get(f"look/{rubric}/{len(looks) + 1}")) is not None:
        looks.append(RecordedLook.model_validate(event))
    back = [Back.model_validate(e) for place, e in events.items() if place.startswith(f"back/{rubric}/")]
    return Race(tuple(orders), tuple(sorted(members.values(), key=lambda m: m.row)), tuple(looks), tuple(back))


def enter(
    store: Store,
    experiment_id: str,
    rubric_hash: str,
    *,
    scenarios: Sequence[str],
    members: Iterable[Member],
    block: int,
    seed: int,
) -> Race:
    """Take part: draw the order if there is none yet, put scenarios that are new at its end, and note the rows that are new.

    The order is shuffled by the experiment's secret and `seed`, once; every later call, by whoever, reads it. Raises
    InputError when a scenario of the order that is still to come is no longer among `scenarios`.
    """
    race = read(store, experiment_id, rubric_hash)
    known = set(race.scenarios)
    added = [s for s in scenarios if s not in known]
    if added:
        shuffled = sorted(added)
        random.Random(content_hash([experiment_id, str(seed), str(len(race.orders))])).shuffle(shuffled)
        event = Order(scenarios=tuple(shuffled), block=block, after_looks=len(race.looks), rule=RULE)
        store.add_race_event(experiment_id, f"order/{len(race.orders)}", event.model_dump(mode="json"))
    rows = {m.row for m in race.members}
    new = sorted({m.row: m for m in members if m.row not in rows}.values(), key=lambda m: m.row)
    if new:
        place = f"cells/{content_hash([m.row for m in new])[:16]}"
        store.add_race_event(experiment_id, place, Members(members=tuple(new)).model_dump(mode="json"))
    race = read(store, experiment_id, rubric_hash) if added or new else race
    done = race.looks[-1].n_scenarios if race.looks else 0
    gone = [s for s in race.scenarios[done:] if s not in scenarios]
    if gone and not race.is_over():
        raise InputError(
            f"the order of scenarios was drawn with {', '.join(gone[:3])}{', …' if len(gone) > 3 else ''}, which are not among the "
            "scenarios now; use the same scenarios, or more of them (--scenarios, --n-scenarios), or another experiment"
        )
    return race


def take_back(store: Store, experiment_id: str, rubric_hash: str, name: str, *, by: str, reason: str = "") -> Member:
    """Put a cell that was dropped, `model|prompt`, into the race again, from the next look on; recorded for good.

    It counts for the boundary again and has to catch up on the scenarios it missed. Raises InputError when it is not out.
    """
    race = read(store, experiment_id, rubric_hash)
    found = [m for m in race.members if m.name == name]
    out = [m for m in found if m.row not in race.left]
    if not out:
        names = sorted({m.name for m in race.members if m.row not in race.left})
        raise InputError(f"--take-back {name}: no such cell was dropped; dropped are: {', '.join(names) or 'none'}")
    number = len(race.looks)
    for member in out:
        event = Back(row=member.row, after_look=number, by=by, reason=reason, time_ms=now_ms())
        store.add_race_event(
            experiment_id, f"back/{rubric_hash[:12]}/{number}/{member.row}", event.model_dump(mode="json")
        )
    return out[0]


def note_next(store: Store, experiment_id: str, rubric_hash: str, action: str, looks_taken: int, reason: str) -> None:
    """Keep a copy of what comes next on the experiment, where the DAG reads it. It decides nothing here."""
    value = json.dumps({"action": action, "looks_taken": looks_taken, "reason": reason[:1000]})
    key = f"{NEXT}{rubric_hash[:12]}"
    if store.notes(experiment_id, key).get("") != value:
        store.note(experiment_id, key, value)


def next_noted(store: Store, experiment_id: str, rubric_hash: str) -> dict[str, Any] | None:
    """That copy: `action`, `looks_taken` and `reason`; None when nothing was noted."""
    value = store.notes(experiment_id, f"{NEXT}{rubric_hash[:12]}").get("")
    return None if value is None else dict(json.loads(value))


def note_look(store: Store, experiment_id: str, rubric_hash: str, look: RecordedLook) -> None:
    """Record a look."""
    store.add_race_event(experiment_id, f"look/{rubric_hash[:12]}/{look.number}", look.model_dump(mode="json"))
