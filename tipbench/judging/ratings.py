"""From score records, as the store holds them, to the table that agreement is computed from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from tipbench.judging.agreement import Ratings
from tipbench.store.records import CellRecord, ScoreRecord


def ratings(cells: Sequence[CellRecord], records: Mapping[str, Sequence[ScoreRecord]]) -> Ratings:
    """Every judge's scores, candidate by candidate. `records` maps a cell's run id to the records that count."""
    scores: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    repeats: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    scenario_of: dict[str, str] = {}
    for cell in cells:
        for record in records[cell.run.run_id]:
            for target, source in ((scores, record.scores), (repeats, record.repeats)):
                for index, values in source.items():
                    key = f"{cell.run.run_id}/{index}"
                    scenario_of[key] = cell.scenario
                    target[record.judge][key] = dict(zip(record.criteria, values, strict=True))
    return Ratings(scores=scores, scenario_of=scenario_of, repeats=repeats)
