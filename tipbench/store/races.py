"""Races: what experiments in rounds have fixed and decided, as an append-only list of events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tipbench.store.backend import OLDEST_FIRST
from tipbench.store.part import KIND, Part, now_ms

EVENT = "event.json"
PLACE = "tipbench.race"
"""On the run: which place in the record the event takes, e.g. `order/0`; of two for one place the older one stands."""
PAGE = 200


class Races(Part):
    """The events of races."""

    def race_events(self, experiment_id: str) -> dict[str, Mapping[str, Any]]:
        """place -> event, oldest first. An event that was cut off while it was written is not there."""
        runs, token = [], ""
        while True:
            condition = f"tags.`{KIND}` = 'race' AND attributes.status = 'FINISHED'"
            page, token = self._backend.page(experiment_id, condition, list(OLDEST_FIRST), PAGE, token)
            runs += page
            if not token:
                break
        first: dict[str, Any] = {}
        for run in runs:
            first.setdefault(run.tags.get(PLACE, ""), run)
        contents = self._artifacts(list(first.values()), EVENT)
        return {place: json.loads(text) for place, text in zip(first, contents, strict=True) if text is not None}

    def add_race_event(self, experiment_id: str, place: str, event: Mapping[str, Any]) -> None:
        """Record an event; where one stands in this place already, that one goes on standing."""
        run = self._new(experiment_id, "race", f"race {place}", {PLACE: place})
        self._backend.put_artifact(run, EVENT, json.dumps(event).encode())
        self._backend.set_status(run.run_id, "FINISHED", now_ms())
