"""Import: outputs and scores of your own, from a CSV or JSONL file into an experiment.

All-or-nothing: the whole file is checked, against the experiment too, before the first write. The same file again changes nothing, and completes what
was cut off.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import BinaryIO

from tipbench import __version__
from tipbench.catalog import Rubric
from tipbench.counting import marks
from tipbench.counting.census import take
from tipbench.counting.judged import Judges
from tipbench.errors import InputError
from tipbench.interchange.place import ENGINE, Misplaced, Place, Places, place_all
from tipbench.interchange.table import CellKey, JudgeKey, Table, TableCell, read_table
from tipbench.judging.checks import check
from tipbench.judging.validate import MAX_FAULTS
from tipbench.store import Store, now_ms
from tipbench.store.records import (
    Candidate,
    CellRecord,
    CellResult,
    Heading,
    Holdings,
    Judge,
    PlannedCell,
    Run,
    Score,
    ScoreRecord,
    text_hash,
)

WRITERS = 4
CHUNK = 200
"""Cells whose candidates are in memory at once."""


@dataclass(frozen=True)
class ImportResult:
    """What an import did, or, in a dry run, would do."""

    experiment: str
    source: str
    rows: int
    cells: int
    """Cells in the file."""
    new_candidates: int
    known_candidates: int
    new_scores: int
    """Candidates that a judge had not scored before."""
    changed_scores: int
    unchanged_scores: int
    judges: tuple[str, ...]
    wall_s: float


def run(
    file: BinaryIO,
    source: str,
    experiment: str,
    store: Store,
    rubric: Rubric,
    *,
    ignore: Sequence[str] = (),
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportResult:
    """Bring the table in `file` (called `source` in messages) into the experiment, which is made when it is not there.

    Raises InputError that lists every fault by line and column; then nothing was written.
    """
    began = time.monotonic()
    table = read_table(file, source, rubric, ignore)
    experiment_id = store.find_experiment(experiment)
    holdings = store.holdings(experiment_id) if experiment_id is not None else Holdings("", (), ())
    census = take(holdings)
    places, faults = place_all(table, Places(census, lambda cell: _texts(store, cell)))
    situations, more = _situations(table, {e.cell.scenario: e.cell for e in census.counted}, store)
    faults += more
    if faults:
        raise _refused(source, faults)
    new = sum(len(place.new) for place in places.values())
    cells = {c.run.run_id: c for c in holdings.cells}
    runs = {key: place.known.run for key, place in places.items() if place.known is not None}
    if not dry_run:
        experiment_id = store.ensure_experiment(experiment)
        if new:
            runs |= _write(store, experiment_id, experiment, source, table, places, situations, on_progress)
    judges = Judges((e.cell for e in census.counted), rubric.hash)
    counts = {"new": 0, "changed": 0, "unchanged": 0}
    for judge in table.judges:
        heading, scores, some = _scores(judge, table, places, runs, cells, judges, rubric, source)
        counts = {name: counts[name] + some[name] for name in counts}
        if scores and experiment_id is not None and not dry_run:
            store.log_scores(experiment_id, heading, scores, {}, _key(heading, scores))
    if experiment_id is not None and not dry_run and (new or counts["new"] or counts["changed"]):
        census = marks.refresh(store, experiment_id)
        marks.copy_scores(store, experiment_id, census, rubric.hash, {run.run_id for run in runs.values()})
        store.compact(experiment_id)
        store.index(experiment_id)
    return ImportResult(
        experiment=experiment,
        source=source,
        rows=table.rows,
        cells=len(table.cells),
        new_candidates=new,
        known_candidates=table.n_candidates - new,
        new_scores=counts["new"],
        changed_scores=counts["changed"],
        unchanged_scores=counts["unchanged"],
        judges=tuple(dict.fromkeys(name for name, _ in table.judges)),
        wall_s=time.monotonic() - began,
    )


def _refused(source: str, faults: Sequence[Misplaced]) -> InputError:
    shown = [f"line {f.line}, {f.column}: {f.words}" for f in sorted(faults, key=lambda f: f.line)[:MAX_FAULTS]]
    if len(faults) > MAX_FAULTS:
        shown.append(f"and {len(faults) - MAX_FAULTS} more")
    return InputError(f"{source}: {len(faults)} fault{'s' * (len(faults) > 1)}, nothing was imported", tuple(shown))


def _texts(store: Store, cell: CellRecord) -> tuple[str, ...]:
    """Text hashes of a cell of a version that did not note them."""
    (result,) = store.results([cell.run])
    return tuple(text_hash(c.text) for c in sorted(result.candidates, key=lambda c: c.index))


def _situations(table: Table, there: Mapping[str, CellRecord], store: Store) -> tuple[dict[str, str], list[Misplaced]]:
    """scenario -> situation, from the table or the experiment; a fault where the two differ."""
    wanted = {key[2] for key in table.cells}
    known = [scenario for scenario in there if scenario in wanted]
    results = store.results(there[scenario].run for scenario in known)
    told = {scenario: result.situation for scenario, result in zip(known, results, strict=True)}
    faults = []
    for scenario, situation in table.situations.items():
        if told.get(scenario) and told[scenario].strip() != situation:
            line = table.situation_lines[scenario]
            words = f"is not the one that scenario {scenario} has in this experiment; give the scenario another id"
            faults.append(Misplaced(line, "situation", words))
    return {scenario: table.situations.get(scenario) or told.get(scenario, "") for scenario in wanted}, faults


# -- cells -----------------------------------------------------------------------------------------


def _write(
    store: Store,
    experiment_id: str,
    experiment: str,
    source: str,
    table: Table,
    places: Mapping[CellKey, Place],
    situations: Mapping[str, str],
    on_progress: Callable[[int, int], None],
) -> dict[CellKey, Run]:
    """Save the cells that get candidates; table's key -> the cell's run."""
    # The plan is the whole file, so that a call that completes what was cut off is the same collection.
    by_engine: dict[str, list[CellKey]] = {}
    for key, place in places.items():
        if place.engine.startswith(ENGINE):
            by_engine.setdefault(place.engine, []).append(key)
    todo = sum(bool(place.new) for place in places.values())
    half = {c.cell_id: c.run for c in store.half_written(experiment_id)}
    runs: dict[CellKey, Run] = {}
    done = 0
    for engine, keys in by_engine.items():
        receipt = {
            "tipbench": __version__,
            "engine": {"name": engine},
            "config": {"engine": engine, **dict.fromkeys(("temperature", "seed", "num_predict", "num_ctx"), "")},
            "source": source,
            "rows": table.rows,
        }
        plan = [_planned(key, places[key]) for key in keys]
        parts = [f"{p.cell_id} {p.n_tips}" for p in plan]
        number = sha256("\n".join([experiment, engine, *parts]).encode()).hexdigest()[:16]
        parent = store.begin_collection(experiment_id, number, plan, receipt, {})
        keys = [key for key in keys if places[key].new]
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            known = [key for key in chunk if places[key].known is not None]
            old = dict(zip(known, store.results(_known(places[key]).run for key in known), strict=True))

            def save(
                key: CellKey, old: Mapping[CellKey, CellResult] = old, number: str = number, parent: Run = parent
            ) -> Run:
                place = places[key]
                result = _result(key, table.cells[key], place, old.get(key), situations[key[2]], number)
                run = place.known.run if place.known is not None else half.get(place.cell_id)
                return store.save_cell(experiment_id, parent.run_id, result, run)

            with ThreadPoolExecutor(WRITERS) as pool:
                for key, run in zip(chunk, pool.map(save, chunk), strict=True):
                    runs[key] = run
                    done += 1
                    on_progress(done, todo)
        store.end_collection(parent, "FINISHED", {"cells_collected": len(keys)})
    return runs


def _known(place: Place) -> CellRecord:
    assert place.known is not None
    return place.known


def _planned(key: CellKey, place: Place) -> PlannedCell:
    model, prompt, scenario, _ = key
    before = place.known.n_candidates if place.known is not None else 0
    return PlannedCell(place.cell_id, model, prompt, scenario, before + len(place.new))


def _result(
    key: CellKey, cell: TableCell, place: Place, old: CellResult | None, situation: str, collection_id: str
) -> CellResult:
    model, prompt, scenario, _ = key
    fresh = [_candidate(cell, position, place.indices[position]) for position in place.new]
    candidates = sorted([*(old.candidates if old is not None else ()), *fresh], key=lambda c: c.index)
    counts: dict[str, int] = {}
    for flags in check([c.text for c in candidates], (), [c.done_reason for c in candidates]):
        for name, flagged in asdict(flags).items():
            counts[name] = counts.get(name, 0) + int(flagged)
    at = now_ms()
    return CellResult(
        cell_id=place.cell_id,
        collection_id=collection_id,
        model=model,
        prompt=prompt,
        scenario=scenario,
        situation=old.situation if old is not None and old.situation else situation,
        n_tips=len(candidates),
        params={"engine": place.engine},
        tags={},
        candidates=tuple(candidates),
        flags=counts,
        resident_bytes=cell.peak_memory_bytes if old is None else old.resident_bytes or cell.peak_memory_bytes,
        failure=None,
        started_ms=at,
        ended_ms=at,
    )


def _candidate(cell: TableCell, position: int, index: int) -> Candidate:
    given = cell.candidates[position]
    return Candidate(
        index=index,
        seed=index,
        text=given.text,
        done_reason=None,
        ttft_s=None,
        load_s=None,
        prompt_tokens=None,
        prompt_s=None,
        output_tokens=given.output_tokens,
        output_s=given.output_s,
        total_s=given.output_s,
        wall_s=given.output_s or 0.0,
        attempts=1,
    )


# -- scores ----------------------------------------------------------------------------------------


def _scores(
    judge: JudgeKey,
    table: Table,
    places: Mapping[CellKey, Place],
    runs: Mapping[CellKey, Run],
    cells: Mapping[str, CellRecord],
    judges: Judges,
    rubric: Rubric,
    source: str,
) -> tuple[Heading, list[Score], dict[str, int]]:
    """What one judge's scores add to the log; one that names no version speaks for the version in force."""
    name, version = judge
    kind = table.judges[judge]
    heading = Heading(
        Judge(name, kind, version or judges.in_force(name)),
        rubric.hash,
        tuple(c.id for c in rubric.criteria),
        {"imported": source},
    )
    counts = {"new": 0, "changed": 0, "unchanged": 0}
    found: list[Score] = []
    last = 0
    for key, place in places.items():
        given = table.scores.get((judge, key))
        if not given:
            continue
        record = _record(place.known, heading) if place.known is not None else None
        last = max(last, record.last_ms if record is not None else 0)
        for position, one in given.items():
            index = place.indices[position]
            old = record.scores.get(index) if record is not None else None
            told = record.expected.get(index) if record is not None else None
            if old == one.scores and (one.expected is None or told == one.expected):
                counts["unchanged"] += 1
                continue
            counts["new" if old is None else "changed"] += 1
            if key in runs:
                text = text_hash(table.cells[key].candidates[position].text)
                found.append(Score(runs[key].run_id, index, False, one.scores, 0, text, one.expected, None, "imported"))
    at = max(now_ms(), last + 1)
    return heading, [replace(score, at_ms=at) for score in found], counts


def _record(cell: CellRecord, heading: Heading) -> ScoreRecord | None:
    for record in cell.scores:
        if (record.judge, record.version, record.rubric_hash) == (
            heading.judge.name,
            heading.judge.version,
            heading.rubric_hash,
        ):
            return record
    return None


def _key(heading: Heading, scores: Sequence[Score]) -> str:
    """Tells one imported set of scores from another, so that a call that completes what was cut off finds it."""
    content = [heading.judge.label, heading.rubric_hash, [[s.run_id, s.index, s.scores, s.expected] for s in scores]]
    return sha256(json.dumps(content).encode()).hexdigest()[:16]
