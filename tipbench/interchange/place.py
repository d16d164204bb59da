"""Where a table's candidates belong among what an experiment holds: pure, so that everything is known before anything is written.

A cell of the table is a cell of the experiment when that has all its texts. Texts that are nowhere make an imported cell, or extend one; a
cell that tipbench collected itself is never extended from a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tipbench.counting.census import Census, Entry
from tipbench.counting.identity import IMPORTED, Row, cell_id, unknown
from tipbench.interchange.table import CellKey, Table, TableCell
from tipbench.store.records import OPTIONS, CellRecord, text_hash

ENGINE = IMPORTED
"""The engine of imported texts: a row of their own beside collected ones of the same names."""


@dataclass(frozen=True)
class Place:
    """Where one cell of the table belongs."""

    cell_id: str
    engine: str
    known: CellRecord | None
    """The cell of the experiment, where there is one."""
    indices: tuple[int, ...]
    """The index of each of the table's candidates in that cell, by position; new ones come after those that are there."""
    new: tuple[int, ...]
    """Positions of the candidates that are not there yet."""


class Misplaced(Exception):
    """The table contradicts the experiment; `line` is where."""

    def __init__(self, line: int, column: str, words: str) -> None:
        self.line, self.column, self.words = line, column, words
        super().__init__(words)


class Places:
    """Finds places among the counted cells of a census. `texts_of` gives the text hashes of a cell that has not noted them."""

    def __init__(self, census: Census, texts_of: Callable[[CellRecord], Sequence[str]]) -> None:
        self._texts_of = texts_of
        keys = {info.row.id: info.key for info in census.rows if info.current and not info.stale_columns}
        self._by_key: dict[CellKey, Entry] = {}
        self._by_names: dict[tuple[str, str, str], list[Entry]] = {}
        self._by_id: dict[str, Entry] = {}
        for entry in census.counted:
            scenario = census.scenario_names.get(entry.column, entry.cell.scenario)
            self._by_id[entry.cell.cell_id] = entry
            if entry.row.id in keys:
                model, prompt, variant = keys[entry.row.id]
                self._by_key[model, prompt, scenario, variant] = entry
                self._by_names.setdefault((model, prompt, scenario), []).append(entry)

    def of(self, key: CellKey, cell: TableCell) -> Place:
        """The place of one cell; raises Misplaced when some of its texts, but not all, are in a collected cell of its name."""
        model, prompt, scenario, variant = key
        engine = f"{ENGINE} ({variant})" if variant else ENGINE
        row = Row(unknown(model), unknown(prompt), tuple(engine if name == "engine" else "" for name in OPTIONS))
        own_id = cell_id(row, unknown(scenario))
        hashes = [text_hash(c.text) for c in cell.candidates]
        exact = self._by_key.get(key)
        for entry in [exact] if exact else []:
            indices = _match(hashes, self._texts(entry))
            if None not in indices:
                return self._whole(entry, indices)
        own = self._by_id.get(own_id)
        if own is not None:
            return self._extended(own, own_id, engine, hashes)
        if not variant:
            full = []
            for entry in self._by_names.get((model, prompt, scenario), []):
                indices = _match(hashes, self._texts(entry))
                if None not in indices:
                    full.append((entry, indices))
            if len(full) == 1:
                return self._whole(*full[0])
        if exact is not None:
            indices = _match(hashes, self._texts(exact))
            if _imported(exact.cell):
                return self._extended(exact, exact.cell.cell_id, exact.cell.run.params.get("engine", ENGINE), hashes)
            if any(i is not None for i in indices):
                line = cell.candidates[indices.index(None)].line
                raise Misplaced(
                    line,
                    "text",
                    f"{model} with {prompt} was collected here, and wrote no such text for {scenario}; give outputs of your own another "
                    "model or prompt name",
                )
        everything = tuple(range(len(hashes)))
        return Place(own_id, engine, None, everything, everything)

    def _texts(self, entry: Entry) -> Sequence[str]:
        return entry.cell.texts or self._texts_of(entry.cell)

    def _whole(self, entry: Entry, indices: Sequence[int | None]) -> Place:
        engine = entry.cell.run.params.get("engine", "")
        return Place(entry.cell.cell_id, engine, entry.cell, tuple(i for i in indices if i is not None), ())

    def _extended(self, entry: Entry, own_id: str, engine: str, hashes: Sequence[str]) -> Place:
        there = self._texts(entry)
        indices = _match(hashes, there)
        new = tuple(p for p, i in enumerate(indices) if i is None)
        after = {position: len(there) + number for number, position in enumerate(new)}
        return Place(
            own_id, engine, entry.cell, tuple(after[p] if i is None else i for p, i in enumerate(indices)), new
        )


def place_all(table: Table, places: Places) -> tuple[Mapping[CellKey, Place], list[Misplaced]]:
    """The place of every cell of the table, and what is wrong."""
    found, faults = {}, []
    for key, cell in table.cells.items():
        try:
            found[key] = places.of(key, cell)
        except Misplaced as fault:
            faults.append(fault)
    return found, faults


def _imported(cell: CellRecord) -> bool:
    return cell.run.params.get("engine", "").startswith(ENGINE)


def _match(wanted: Sequence[str], there: Sequence[str]) -> list[int | None]:
    """For each text the index of the same text that is there, its own place first; each is taken once; None where there is none."""
    free = dict.fromkeys(range(len(there)))
    found: list[int | None] = [None] * len(wanted)
    for position, text in enumerate(wanted):
        if position < len(there) and there[position] == text:
            found[position] = position
            del free[position]
    for position, text in enumerate(wanted):
        if found[position] is None:
            index = next((i for i in free if there[i] == text), None)
            if index is not None:
                found[position] = index
                del free[index]
    return found
