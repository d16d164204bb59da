"""Apply: check a judged exchange file as a whole, then write its scores back to MLflow.

All-or-nothing: every fault is listed and nothing is written. Applying the same file twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from tipbench.errors import InputError
from tipbench.judging.exchange import Exchange, ExchangeItem, JudgeIdentity
from tipbench.judging.validate import check_against, refuse
from tipbench.store import ScoreChange, Store
from tipbench.store.records import CellRecord, ScoreRecord


@dataclass(frozen=True)
class ApplyResult:
    """What applying did (or, in a dry run, would do); counts are items."""

    experiment: str
    judge: str | None
    new: int
    changed: int
    unchanged: int
    unscored: int
    cells: int
    """Cells written."""
    pending_cells: int
    """Finished cells of the experiment in which some candidate still has no score under this rubric."""
    judgment_run_id: str | None


def run(exchange: Exchange, store: Store, *, source: str, reason: str = "", dry_run: bool = False) -> ApplyResult:
    """Write the complete items of `exchange` under its judge's name.

    `source` names the file in messages; `reason` is kept with every score that changes. Raises InputError that
    lists every fault with its JSON pointer; then nothing was written.
    """
    try:
        experiment_id = store.require_experiment(exchange.experiment)
    except InputError as error:
        raise refuse(source, [f"/experiment: {error}"]) from error
    key = store.export_key(experiment_id, exchange.export_id)
    if key is None:
        words = f"{exchange.experiment} at {store.where} never issued {exchange.export_id}; export again"
        raise refuse(source, [f"/export_id: {words}"])
    return _apply(exchange, store, experiment_id, key, store.cells(experiment_id), source, reason, dry_run)


def run_on(
    exchange: Exchange, store: Store, experiment_id: str, key: Mapping[str, Any], *, source: str, reason: str = ""
) -> ApplyResult:
    """The same for a few items whose export's key is at hand: only their cells are read, however many the experiment has.

    `pending_cells` counts among these.
    """
    rows = [key["items"][item.id] for item in exchange.items if item.id in key["items"]]
    cells = store.cells_of(dict.fromkeys(row[0] for row in rows))
    return _apply(exchange, store, experiment_id, key, cells, source, reason)


def _apply(
    exchange: Exchange,
    store: Store,
    experiment_id: str,
    key: Mapping[str, Any],
    found: Sequence[CellRecord],
    source: str,
    reason: str,
    dry_run: bool = False,
) -> ApplyResult:
    items: Mapping[str, list[Any]] = key["items"]
    issued = {item.id: items[item.id] for item in exchange.items if item.id in items}
    faults = check_against(
        exchange, {i: (row[3], row[4]) for i, row in issued.items()}, key["rubric_hash"], key["export_id"]
    )
    cells = {cell.run.run_id: cell for cell in found}
    faults += [
        f"/items/{n}/id: the candidate behind {item.id} is no longer in MLflow"
        for n, item in enumerate(exchange.items)
        if item.id in issued and issued[item.id][0] not in cells
    ]
    if faults:
        raise refuse(source, faults)

    complete = [item for item in exchange.items if item.complete]
    judge = exchange.judge
    records: dict[str, ScoreRecord] = {}
    counts = {"new": 0, "changed": 0, "unchanged": 0}
    history: list[dict[str, Any]] = []
    if judge is not None:
        records, counts, history = _merge(exchange, judge, complete, items, cells, reason)
    finished = [cell for cell in cells.values() if cell.finished]
    changes = [_change(cells[run_id], record) for run_id, record in records.items()]
    run_id = None
    if judge is not None and not dry_run:
        run_id = store.apply_scores(
            experiment_id,
            judge.name,
            _judgment_id(exchange, judge, complete),
            changes,
            {
                "exchange.json": exchange.model_dump_json(by_alias=True, indent=1).encode(),
                "changes.json": json.dumps(history, indent=1).encode(),
            },
        )
    return ApplyResult(
        experiment=exchange.experiment,
        judge=judge.name if judge else None,
        new=counts["new"],
        changed=counts["changed"],
        unchanged=counts["unchanged"],
        unscored=len(exchange.items) - len(complete),
        cells=len(changes),
        pending_cells=sum(_pending(cell, records.get(cell.run.run_id), exchange.rubric_hash) for cell in finished),
        judgment_run_id=run_id,
    )


def _merge(
    exchange: Exchange,
    judge: JudgeIdentity,
    complete: list[ExchangeItem],
    items: Mapping[str, list[Any]],
    cells: Mapping[str, CellRecord],
    reason: str,
) -> tuple[dict[str, ScoreRecord], dict[str, int], list[dict[str, Any]]]:
    """The records as they will stand (run id -> record, changed cells only), item counts, and the history of changes."""
    criteria = tuple(c.id for c in exchange.rubric.criteria)
    records: dict[str, ScoreRecord] = {}
    counts = {"new": 0, "changed": 0, "unchanged": 0}
    history: list[dict[str, Any]] = []
    applied_at = datetime.now(UTC).isoformat(timespec="seconds")
    for item in complete:
        run_id, index, repeat, *_ = items[item.id]
        record = records.get(run_id) or _record(cells[run_id], judge, exchange.rubric_hash, criteria)
        kept = dict(record.repeats if repeat else record.scores)
        old, new = kept.get(index), tuple(item.scores[c] or 0 for c in criteria)
        if old == new:
            counts["unchanged"] += 1
            continue
        counts["new" if old is None else "changed"] += 1
        kept[index] = new
        records[run_id] = replace(record, repeats=kept) if repeat else replace(record, scores=kept)
        history.append(
            {
                "item": item.id,
                "run_id": run_id,
                "candidate": index,
                "repeat": repeat,
                "judge": judge.name,
                "criteria": criteria,
                "old": old,
                "new": new,
                "rationale": item.rationale,
                "scored_at": item.scored_at.isoformat() if item.scored_at else None,
                "applied_at": applied_at,
                "reason": reason,
            }
        )
    return records, counts, history


def _record(cell: CellRecord, judge: JudgeIdentity, rubric_hash: str, criteria: tuple[str, ...]) -> ScoreRecord:
    """The judge's record of the cell so far; an empty one if there is none."""
    for record in cell.scores:
        if record.judge == judge.name and record.rubric_hash == rubric_hash:
            return record
    return ScoreRecord(judge.name, judge.kind, rubric_hash, criteria, {})


def _change(cell: CellRecord, record: ScoreRecord) -> ScoreChange:
    others = [r for r in cell.scores if r.rubric_hash == record.rubric_hash and r.judge != record.judge]
    metrics = {}
    for position, criterion in enumerate(record.criteria):
        scores = [s[position] for r in [*others, record] for s in r.scores.values()]
        if scores:
            metrics[f"score_{criterion}"] = sum(scores) / len(scores)
    return ScoreChange(cell, record, _pending(cell, record, record.rubric_hash), metrics)


def _pending(cell: CellRecord, record: ScoreRecord | None, rubric_hash: str) -> bool:
    """True when some candidate has no score under the rubric, `record` included."""
    scored = {i for r in cell.scores if r.rubric_hash == rubric_hash for i in r.scores}
    return len(scored | set(record.scores if record else ())) < cell.n_candidates


def _judgment_id(exchange: Exchange, judge: JudgeIdentity, complete: list[ExchangeItem]) -> str:
    content = [exchange.export_id, judge.name, [[item.id, sorted(item.scores.items())] for item in complete]]
    return sha256(json.dumps(content).encode()).hexdigest()[:16]
