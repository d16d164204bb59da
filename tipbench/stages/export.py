"""Export: put the candidates that still need a judge into one blind, self-contained exchange file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tipbench.catalog import Rubric
from tipbench.errors import InputError
from tipbench.judging.blinding import blind, export_id, mask_names
from tipbench.judging.exchange import Exchange, ExchangeItem, ExchangeRubric, identify
from tipbench.judging.validate import exchange_bytes
from tipbench.store import Store
from tipbench.store.records import CellRecord, ScoreRecord


@dataclass(frozen=True)
class ExportResult:
    """The file, and what it holds."""

    exchange: Exchange
    n_items: int
    n_repeats: int
    n_cells: int
    n_candidates: int
    """Candidates in the experiment, judged ones included."""


def run(
    experiment: str,
    store: Store,
    rubric: Rubric,
    *,
    judge: str | None = None,
    seed: int = 0,
    repeats: float = 0.05,
    expect: Sequence[str] = (),
) -> ExportResult:
    """An exchange file with every candidate that `judge` (or, if None, any judge) has not scored under `rubric`.

    `repeats` is the share of items shown twice. The same call on the same state gives the same file. Raises
    InputError when there is no such experiment, or when `expect` names models and none of them has a finished cell.
    """
    if judge is not None:
        identify(judge, "human", "--judge")
    experiment_id = store.require_experiment(experiment)
    found = store.cells(experiment_id)
    cells = [cell for cell in found if cell.finished]
    if expect and not any(cell.model in expect for cell in cells):
        raise _nothing_to_judge(experiment, found, expect)
    pending = [
        (cell, sorted(set(range(cell.n_candidates)) - judged(cell.scores, rubric.hash, judge))) for cell in cells
    ]
    pending = [(cell, indices) for cell, indices in pending if indices]
    results = dict(zip((c.run.run_id for c, _ in pending), store.results(c.run for c, _ in pending), strict=True))
    models = sorted({cell.model for cell in cells})
    prompts = sorted({cell.prompt for cell in cells})
    secret = store.blinding_secret(experiment_id)
    blinded = blind(
        [(cell.run.run_id, i) for cell, indices in pending for i in indices],
        secret,
        seed=seed,
        salt=judge or "",
        repeats=repeats,
    )
    items = []
    for item in blinded:
        result = results[item.run_id]
        text = next(c.text for c in result.candidates if c.index == item.index)
        items.append(
            ExchangeItem(
                id=item.item_id,
                scenario=result.situation,
                tip=mask_names(text, models, prompts),
                scores=dict.fromkeys((c.id for c in rubric.criteria), None),
            )
        )
    exchange = Exchange(
        experiment=experiment,
        export_id=export_id(secret, blinded, rubric.hash),
        rubric_hash=rubric.hash,
        instructions=rubric.instructions,
        rubric=ExchangeRubric.model_validate_json(json.dumps(rubric.judge_view())),
        items=tuple(items),
    )
    key = {
        "schema": "tipbench.key/1",
        "export_id": exchange.export_id,
        "rubric_hash": rubric.hash,
        "items": {
            b.item_id: [b.run_id, b.index, b.repeat, i.scenario, i.tip] for b, i in zip(blinded, items, strict=True)
        },
    }
    store.save_export(experiment_id, exchange.export_id, key, judge, exchange_bytes(exchange))
    return ExportResult(
        exchange=exchange,
        n_items=len(items),
        n_repeats=sum(b.repeat for b in blinded),
        n_cells=len(pending),
        n_candidates=sum(c.n_candidates for c in cells),
    )


def _nothing_to_judge(experiment: str, cells: Sequence[CellRecord], expect: Sequence[str]) -> InputError:
    """Says of each model why there is nothing of it."""
    faults = []
    for model in expect:
        failures = [cell.failure for cell in cells if cell.model == model and cell.failure is not None]
        words = f"{len(failures)} cells failed: {failures[0].message}" if failures else "no cell was collected"
        faults.append(f"{model}: {words}")
    return InputError(f"{experiment} has nothing to judge; collect again once this is mended", tuple(faults))


def judged(records: Sequence[ScoreRecord], rubric_hash: str, judge: str | None) -> set[int]:
    """Indices of a cell's candidates that `judge` (any judge, if None) has scored under the rubric."""
    return {
        index
        for record in records
        if record.rubric_hash == rubric_hash and judge in (None, record.judge)
        for index in record.scores
    }
