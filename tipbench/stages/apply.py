"""Apply: check a judged exchange file as a whole, then add its scores to the log.

All-or-nothing: every fault is listed and nothing is written. Applying the same file twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from tipbench.counting import marks
from tipbench.counting.census import Census, take
from tipbench.counting.judged import ANYONE, BASELINE, Asked, Judges
from tipbench.errors import InputError
from tipbench.judging.exchange import Exchange, ExchangeItem, JudgeIdentity
from tipbench.judging.validate import Reading, check_against, faults_against, refuse
from tipbench.store import Store, now_ms
from tipbench.store.archive import with_more_scores
from tipbench.store.records import CellRecord, Heading, Judge, Score, ScoreRecord, judge_version


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
    """Cells that count and in which some candidate still waits, under this rubric, for anybody (after the baseline: for it)."""
    judgment_run_id: str | None
    rubric_file: str = ""
    """Where the rubric lay when the file was exported; empty for the shipped one, and for exports of 0.2.0."""
    rubric_hash: str = ""


@dataclass(frozen=True)
class _Checked:
    """A file that is sound: what it adds to the log."""

    heading: Heading | None
    scores: tuple[Score, ...]
    new: int
    changed: int
    unchanged: int
    unscored: int
    cells: Mapping[str, CellRecord]
    """The cells that the file's complete items are of, by run id."""


def run(file: Exchange | Reading, store: Store, *, source: str, reason: str = "", dry_run: bool = False) -> ApplyResult:
    """Write the complete items of an exchange file under its judge's name.

    `source` names the file in messages; `reason` is kept with every score that changes. Raises InputError that
    lists every fault with its JSON pointer, those of the file itself and those against what was exported; then nothing was
    written.
    """
    reading = (
        file if isinstance(file, Reading) else Reading(source, file.model_dump(mode="json", by_alias=True), file, ())
    )
    experiment_id, key = _issued(reading, store)
    exchange = reading.require()
    holdings = store.holdings(experiment_id)
    checked = _check(exchange, key, {c.run.run_id: c for c in holdings.cells}, source, reason)
    after = replace(holdings, cells=_after(holdings.cells, checked))
    census = take(after)
    run_id = None
    if checked.heading is not None and not dry_run:
        documents = {"exchange.json": exchange.model_dump_json(by_alias=True, indent=1).encode()}
        run_id = store.log_scores(
            experiment_id, checked.heading, checked.scores, documents, _judgment_id(exchange, checked.heading)
        )
        _copy(store, experiment_id, census, checked, exchange.rubric_hash)
        marks.refresh(store, experiment_id)
        store.compact(experiment_id)
    result = _result(exchange, checked, census, run_id)
    return replace(result, rubric_file=str(key.get("rubric_file", "")), rubric_hash=exchange.rubric_hash)


def _issued(reading: Reading, store: Store) -> tuple[str, Mapping[str, Any]]:
    """The experiment's id and the export's key. Raises InputError with all that is wrong with the file, by itself and against them."""
    raw = reading.raw if isinstance(reading.raw, dict) else {}
    experiment, export_id = raw.get("experiment"), raw.get("export_id")
    if not isinstance(experiment, str) or not isinstance(export_id, str):
        reading.require()
        raise AssertionError("a sound file names both")
    try:
        experiment_id = store.require_experiment(experiment)
    except InputError as error:
        reading.require([f"/experiment: {error}"])
        raise
    key = store.export_key(experiment_id, export_id)
    if key is None:
        words = f"{experiment} at {store.where} never issued {export_id[:40]}; export again"
        reading.require([f"/export_id: {words}"])
        raise AssertionError("unreachable: there is a fault")
    if reading.faults:
        items: Mapping[str, list[Any]] = key["items"]
        issued = {item_id: (row[3], row[4]) for item_id, row in items.items()}
        reading.require(faults_against(raw, issued, key["rubric_hash"], key["export_id"]))
    return experiment_id, key


def run_on(
    exchange: Exchange,
    store: Store,
    experiment_id: str,
    key: Mapping[str, Any],
    cells: Mapping[str, CellRecord],
    *,
    source: str,
    reason: str = "",
) -> tuple[ApplyResult, list[CellRecord]]:
    """The same for a few items, with the export's key and the items' cells (by run id) at hand: nothing else is read.

    `pending_cells` counts among these. Returns the cells as they are now as well. The scores go into this process's own log.
    """
    checked = _check(exchange, key, cells, source, reason)
    after = _after(tuple(cells.values()), checked)
    run_id = None
    judges = Judges(after, exchange.rubric_hash)
    asked = _waiting_for(exchange.judge)
    waiting = {c.run.run_id: bool(judges.pending(c, asked)) for c in after if c.finished}
    if checked.heading is not None:
        run_id = store.add_scores(experiment_id, checked.heading, checked.scores)
        touched = {score.run_id for score in checked.scores}
        store.copy_scores(
            {
                c.run.run_id: (marks.score_means(c, exchange.rubric_hash), bool(judges.pending(c, Asked(ANYONE))))
                for c in after
                if c.run.run_id in touched
            }
        )
    result = _outcome(exchange, checked, sum(waiting.values()), run_id)
    return result, list(after)


def _check(
    exchange: Exchange, key: Mapping[str, Any], cells: Mapping[str, CellRecord], source: str, reason: str
) -> _Checked:
    """Every fault of the file at once, else what it adds."""
    items: Mapping[str, list[Any]] = key["items"]
    issued = {item.id: items[item.id] for item in exchange.items if item.id in items}
    faults = check_against(
        exchange, {i: (row[3], row[4]) for i, row in issued.items()}, key["rubric_hash"], key["export_id"]
    )
    faults += [
        f"/items/{n}/id: the candidate behind {item.id} is no longer in MLflow"
        for n, item in enumerate(exchange.items)
        if item.id in issued and issued[item.id][0] not in cells
    ]
    if faults:
        raise refuse(source, faults)
    complete = [item for item in exchange.items if item.complete]
    unscored = len(exchange.items) - len(complete)
    judge = exchange.judge
    if judge is None:
        return _Checked(None, (), 0, 0, 0, unscored, {})
    version = judge_version(judge.kind, judge.details)
    heading = Heading(
        Judge(judge.name, judge.kind, version),
        exchange.rubric_hash,
        tuple(c.id for c in exchange.rubric.criteria),
        dict(judge.details),
    )
    scores, counts = _differences(heading, complete, items, cells, reason)
    touched = {items[item.id][0] for item in complete}
    return _Checked(
        heading,
        tuple(scores),
        counts["new"],
        counts["changed"],
        counts["unchanged"],
        unscored,
        {run_id: cells[run_id] for run_id in touched},
    )


def _differences(
    heading: Heading,
    complete: Sequence[ExchangeItem],
    items: Mapping[str, list[Any]],
    cells: Mapping[str, CellRecord],
    reason: str,
) -> tuple[list[Score], dict[str, int]]:
    """The scores that are not there yet as they are, and how many are new, changed or the same."""
    counts = {"new": 0, "changed": 0, "unchanged": 0}
    found = []
    # Later than whatever the judge has scored, even where another machine's clock was ahead.
    touched = {items[item.id][0] for item in complete}
    last = max(
        (r.last_ms for run_id in touched for r in cells[run_id].scores if r.judge == heading.judge.name), default=0
    )
    at_ms = max(now_ms(), last + 1)
    for item in complete:
        run_id, index, repeat, _, _, *text = items[item.id]
        record = _current(cells[run_id], heading)
        old = (record.repeats if repeat else record.scores).get(index) if record else None
        old_expected = record.expected.get(index) if record else None
        # A reason that is left out takes none back.
        same_words = not item.rationale or (
            record is not None and item.rationale == record.rationales.get((index, bool(repeat)))
        )
        new = tuple(item.scores[c] or 0 for c in heading.criteria)
        expected = _expected(item, heading.criteria)
        if old == new and same_words and (expected is None or repeat or expected == old_expected):
            counts["unchanged"] += 1
            continue
        counts["new" if old is None else "changed"] += 1
        known = text[0] if text else ""
        found.append(Score(run_id, index, bool(repeat), new, at_ms, known, expected, item.rationale, reason, item.id))
    return found, counts


def _expected(item: ExchangeItem, criteria: Sequence[str]) -> tuple[float, ...] | None:
    """The means of the judge's score distributions, where the file has them for every criterion."""
    expected: Mapping[str, float | None] | None = getattr(item, "expected", None)
    if not expected or any(expected.get(c) is None for c in criteria):
        return None
    return tuple(float(expected[c] or 0.0) for c in criteria)


def _current(cell: CellRecord, heading: Heading) -> ScoreRecord | None:
    """What the judge, in this version, says of the cell under this rubric."""
    wanted = (heading.judge.name, heading.judge.version, heading.rubric_hash)
    return next((r for r in cell.scores if (r.judge, r.version, r.rubric_hash) == wanted), None)


def _after(cells: Sequence[CellRecord], checked: _Checked) -> tuple[CellRecord, ...]:
    """The cells as they will be."""
    if checked.heading is None:
        return tuple(cells)
    return tuple(with_more_scores(cells, [(checked.heading, score) for score in checked.scores]))


def _copy(store: Store, experiment_id: str, census: Census, checked: _Checked, rubric_hash: str) -> None:
    """Bring the copies in MLflow up to date."""
    changed = {score.run_id for score in checked.scores}
    marks.copy_scores(store, experiment_id, census, rubric_hash, changed)
    again = set(checked.cells) - changed
    if again and not changed:
        # The same file again: an earlier call may have been cut off before it came to the tags.
        judges = Judges((e.cell for e in census.counted), rubric_hash)
        waits = {e.run_id for e in census.counted if judges.pending(e.cell, Asked(ANYONE))}
        stale = store.marked_pending(experiment_id) & again
        store.mark_pending(dict.fromkeys(stale - waits, False))


def _waiting_for(judge: JudgeIdentity | None) -> Asked:
    return Asked(BASELINE if judge is not None and judge.kind == "baseline" else ANYONE)


def _result(exchange: Exchange, checked: _Checked, census: Census, run_id: str | None) -> ApplyResult:
    judges = Judges((e.cell for e in census.counted), exchange.rubric_hash)
    asked = _waiting_for(exchange.judge)
    return _outcome(exchange, checked, sum(bool(judges.pending(e.cell, asked)) for e in census.counted), run_id)


def _outcome(exchange: Exchange, checked: _Checked, pending: int, run_id: str | None) -> ApplyResult:
    return ApplyResult(
        experiment=exchange.experiment,
        judge=exchange.judge.name if exchange.judge else None,
        new=checked.new,
        changed=checked.changed,
        unchanged=checked.unchanged,
        unscored=checked.unscored,
        cells=len({score.run_id for score in checked.scores}),
        pending_cells=pending,
        judgment_run_id=run_id,
    )


def _judgment_id(exchange: Exchange, heading: Heading) -> str:
    complete = [
        [item.id, sorted(item.scores.items()), *([item.rationale] if item.rationale else [])]
        for item in exchange.items
        if item.complete
    ]
    content = [exchange.export_id, heading.judge.label, complete]
    return sha256(json.dumps(content).encode()).hexdigest()[:16]
