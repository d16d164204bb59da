"""The census of an experiment's cells: which count, and which are superseded, twins of others, or failed.

Current is what the newest plan with a name meant by it, as a whole: an edited prompt's old texts are superseded the moment that the new
text is planned, for all models, and count again when the edit is reverted. Other options are other rows, and all of them are current.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tipbench.counting.identity import ENGINE, Labels, Meaning, Row, options_of
from tipbench.store.records import OPTIONS, CellRecord, Collection, Holdings

Standing = Literal["counted", "failed", "superseded", "twin"]
Versions = Literal["current", "all"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One cell and how it stands."""

    cell: CellRecord
    row: Row
    column: str
    """The scenario's hash."""
    standing: Standing
    other: str = ""
    """Of a twin: the run that counts in its place."""

    @property
    def run_id(self) -> str:
        """The cell's run."""
        return self.cell.run.run_id


@dataclass(frozen=True, slots=True)
class RowInfo:
    """A row of the board with its labels: the newest names for its content."""

    row: Row
    model: str
    prompt: str
    current: bool
    variant: str
    """What tells it from other rows of the same names, in words; empty where nothing does."""
    expected: Mapping[str, int]
    """column -> candidates that the newest plan of it asked for"""
    stale_columns: bool = False
    """Its scenarios are older versions: never pooled with the present ones."""

    @property
    def key(self) -> tuple[str, str, str]:
        """(model, prompt, variant), which no two rows share."""
        return (self.model, self.prompt, self.variant)


@dataclass(frozen=True)
class Census:
    """Every cell with its standing, and the rows of the board."""

    entries: tuple[Entry, ...]
    rows: tuple[RowInfo, ...]
    """Rows of the board in the order in which they were first planned; superseded ones after the current ones."""
    scenario_names: Mapping[str, str]
    """column -> the newest name of the scenario"""
    refused: Mapping[str, str]
    """model -> why the policy turned it away, where no other collection let it in"""

    @cached_property
    def counted(self) -> tuple[Entry, ...]:
        """Finished cells that stand on the board."""
        return tuple(e for e in self.entries if e.standing == "counted")

    @cached_property
    def failed(self) -> tuple[Entry, ...]:
        """Failed cells that stand on the board."""
        return tuple(e for e in self.entries if e.standing == "failed")

    @cached_property
    def superseded(self) -> tuple[Entry, ...]:
        """Cells of other versions, and failures that another try made good."""
        return tuple(e for e in self.entries if e.standing == "superseded")

    @cached_property
    def twins(self) -> tuple[Entry, ...]:
        """Cells that somebody else filled, too."""
        return tuple(e for e in self.entries if e.standing == "twin")

    def on_board(self, versions: Versions = "current") -> list[tuple[RowInfo, list[Entry]]]:
        """The rows to rank, each with its counted and failed cells; with `all`, superseded versions as rows of their own."""
        by_row: dict[tuple[str, bool], list[Entry]] = defaultdict(list)
        current = {info.row.id for info in self.rows if info.current}
        for entry in self.entries:
            if entry.standing in ("counted", "failed"):
                by_row[entry.row.id, False].append(entry)
            elif entry.standing == "superseded" and entry.cell.finished:
                by_row[entry.row.id, entry.row.id in current].append(entry)
        return [
            (info, by_row[info.row.id, info.stale_columns])
            for info in self.rows
            if versions == "all" or (info.current and not info.stale_columns)
        ]


def take(holdings: Holdings) -> Census:
    """The census of what the store holds."""
    labels = Labels(holdings.cells, holdings.collections)
    places = [
        (cell, labels.row_of(cell), labels.scenario_of(cell.scenario, cell.run.params.get("scenario_hash", "")))
        for cell in holdings.cells
    ]
    now_models, now_prompts = _now(labels.models), _now(labels.prompts)
    now_scenarios = _now(labels.scenarios)

    def is_current(row: Row) -> bool:
        return _means(row.digest, now_models) and _means(row.prompt_hash, now_prompts)

    slots: dict[tuple[Row, str], list[CellRecord]] = defaultdict(list)
    for cell, row, column in places:
        slots[row, column].append(cell)
    keepers = {slot: keeper(cells) for slot, cells in slots.items()}
    entries = []
    for cell, row, column in places:
        kept = keepers[row, column]
        standing: Standing
        other = ""
        if cell is not kept:
            standing = "twin" if cell.finished == kept.finished else "superseded"
            other = kept.run.run_id
        elif is_current(row) and _means(column, now_scenarios):
            standing = "counted" if cell.finished else "failed"
        else:
            standing = "superseded"
        entries.append(Entry(cell, row, column, standing, other))
    names = {value: name for name, value in labels.scenarios.items()}
    for cell, _, column in places:
        names.setdefault(column, cell.scenario)
    let_in = {cell.model for cell in holdings.cells} | {p.model for one in holdings.collections for p in one.plan}
    refused = {m: why for one in holdings.collections for m, why in one.refused.items() if m not in let_in}
    rows = _rows(holdings.collections, labels, entries, is_current, now_scenarios)
    return Census(tuple(entries), tuple(rows), names, refused)


def _now(names: Mapping[str, str]) -> frozenset[str]:
    return frozenset(names.values())


def _means(content: str, now: frozenset[str]) -> bool:
    """Does some name mean this content now? What is known by its name only is never out of date."""
    return content in now or content.startswith("name:")


def keeper(cells: Sequence[CellRecord]) -> CellRecord:
    """The one of several runs for the same cell that counts.

    A finished one before a failed one; then one that has scores, so that nothing judged leaves the board; then the fuller
    one; then the one that was there first.
    """
    return min(
        cells,
        key=lambda c: (
            not c.finished,
            not c.scores if c.finished else False,
            -c.n_candidates if c.finished else -(c.run.end_ms or 0),
            c.run.end_ms or 0,
            c.run.run_id,
        ),
    )


def _rows(
    collections: Sequence[Collection],
    labels: Labels,
    entries: Sequence[Entry],
    is_current: Callable[[Row], bool],
    now_scenarios: frozenset[str],
) -> list[RowInfo]:
    """Rows in the order of their first plan, labelled by their last."""
    order: dict[Row, tuple[str, str]] = {}
    expected: dict[Row, dict[str, int]] = defaultdict(dict)
    for collection in collections:
        meant = Meaning(collection)
        names = dict.fromkeys((planned.model, planned.prompt) for planned in collection.plan)
        rows = {both: _rows_meant(*both, meant, labels, entries) for both in names}
        columns = {
            name: labels.scenario_of(name, meant.scenario_hash(name))
            for name in dict.fromkeys(planned.scenario for planned in collection.plan)
        }
        for both, meaning in rows.items():
            order.update(dict.fromkeys(meaning, both))
        for planned in collection.plan:
            for row in rows[planned.model, planned.prompt]:
                expected[row][columns[planned.scenario]] = planned.n_tips
    for entry in entries:
        order.setdefault(entry.row, (entry.cell.model, entry.cell.prompt))
        if entry.standing == "counted":
            asked = expected[entry.row].get(entry.column, entry.cell.n_tips)
            expected[entry.row][entry.column] = max(asked, entry.cell.n_candidates)
        elif entry.standing == "failed":
            expected[entry.row].setdefault(entry.column, entry.cell.n_tips)
    found: list[RowInfo] = []
    stale = {e.row for e in entries if e.standing == "superseded" and e.cell.finished and not e.other}
    for row, (model, prompt) in order.items():
        current = is_current(row)
        if current:
            wanted = {c: n for c, n in expected[row].items() if _means(c, now_scenarios)}
            found.append(RowInfo(row, model, prompt, True, "", wanted))
        if row in stale:
            found.append(RowInfo(row, model, prompt, False, "", {}, stale_columns=current))
    return _with_variants(sorted(found, key=lambda info: not info.current))


def _rows_meant(model: str, prompt: str, meant: Meaning, labels: Labels, entries: Sequence[Entry]) -> list[Row]:
    """What a plan meant by these names: one row, or every row that there is where the plan noted no options."""
    options = meant.options if any(meant.options) else ()
    there = [] if options else [e.row for e in entries if (e.cell.model, e.cell.prompt) == (model, prompt)]
    digest, prompt_hash = meant.digest(model), meant.prompt_hash(prompt)
    return list(dict.fromkeys(there)) or [labels.row(model, prompt, digest, prompt_hash, options or options_of({}))]


def _with_variants(rows: Sequence[RowInfo]) -> list[RowInfo]:
    """Rows that share their names are told apart by what differs between them."""
    by_names: dict[tuple[str, str], list[RowInfo]] = defaultdict(list)
    for info in rows:
        by_names[info.model, info.prompt].append(info)
    found = []
    for info in rows:
        same = by_names[info.model, info.prompt]
        words = [] if info.current else ["older"]
        if info.stale_columns:
            words.append("scenarios")
        peers = [one for one in same if one.current or not info.current]
        if not info.stale_columns and len({one.row.digest for one in same}) > 1 and not info.current:
            words.append(f"model {_short(info.row.digest)}")
        if not info.stale_columns and len({one.row.prompt_hash for one in same}) > 1 and not info.current:
            words.append(f"prompt {_short(info.row.prompt_hash)}")
        for place, name in enumerate(OPTIONS):
            if name != ENGINE and info.row.imported:
                continue
            if len({one.row.options[place] for one in peers if name == ENGINE or not one.row.imported}) > 1:
                words.append(f"{name} {info.row.options[place] or 'unknown'}")
        found.append(
            RowInfo(
                info.row, info.model, info.prompt, info.current, ", ".join(words), info.expected, info.stale_columns
            )
        )
    return found


def _short(content: str) -> str:
    return content.removeprefix("sha256:").removeprefix("name:")[:8]


def same_tips(rows: Iterable[tuple[RowInfo, Sequence[Entry]]]) -> list[list[RowInfo]]:
    """Groups of rows whose tips are the same, letter for letter, in every scenario that they share (at least one)."""
    texts: dict[tuple[tuple[str, tuple[str, ...]], ...], list[RowInfo]] = defaultdict(list)
    for info, entries in rows:
        noted = tuple(sorted((e.column, e.cell.texts) for e in entries if e.cell.finished and e.cell.texts))
        if noted:
            texts[noted].append(info)
    return [group for group in texts.values() if len(group) > 1]
