"""Collections: what was planned, with the receipt to reproduce it from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tipbench.store.part import Part, now_ms
from tipbench.store.records import Collection, PlannedCell, Run

PLANNED = "tipbench.planned_ms"


class Collections(Part):
    """The parent runs of cells."""

    def begin_collection(
        self,
        experiment_id: str,
        collection_id: str,
        plan: Sequence[PlannedCell],
        receipt: Mapping[str, Any],
        refused: Mapping[str, str],
        label: str = "",
    ) -> Run:
        """The parent run of a collection, opened or, when the same one is resumed, reopened.

        `label` names whatever asked for it (a DAG run, a Job), so that it can find its collections again. The time of the
        plan is noted last: a plan that was not written whole is none.
        """
        run = self._one(experiment_id, "collection", "tipbench.collection_id", collection_id)
        if run is None:
            tags = {"tipbench.collection_id": collection_id}
            run = self._new(experiment_id, "collection", f"collection {collection_id[:8]}", tags)
        else:
            self._backend.set_status(run.run_id, "RUNNING", None)
        body = {
            "schema": "tipbench.collection/1",
            "receipt": receipt,
            "refused": refused,
            "plan": [[p.cell_id, p.model, p.prompt, p.scenario, p.n_tips] for p in plan],
        }
        self._backend.put_artifact(run, "collection.json", json.dumps(body, indent=1).encode())
        # What an earlier attempt died of is no longer true.
        models = ",".join(dict.fromkeys([p.model for p in plan] or refused))
        tags = {
            "tipbench.run": label,
            "tipbench.models": models[:4000],
            "tipbench.failure": "",
            "tipbench.failure_message": "",
            PLANNED: str(now_ms()),
        }
        self._backend.log_batch(run.run_id, {}, {}, tags, now_ms())
        return run

    def end_collection(self, run: Run, status: str, metrics: Mapping[str, float]) -> None:
        """Close the parent run with what came of it: FINISHED, FAILED (some cells) or KILLED (interrupted)."""
        self._backend.log_batch(run.run_id, metrics, {}, {}, now_ms())
        self._backend.set_status(run.run_id, status, now_ms())

    def collections(self, experiment_id: str) -> list[Collection]:
        """Every collection of the experiment, the one planned last at the end."""
        runs = list(self._runs(experiment_id, "collection"))
        bodies = self._artifacts(runs, "collection.json")
        found = [as_collection(run, content) for run, content in zip(runs, bodies, strict=True) if content is not None]
        return sorted(found, key=lambda one: (one.planned_ms, one.run_id))


def as_collection(run: Run, content: bytes) -> Collection:
    """A collection from its run and its `collection.json`."""
    body = json.loads(content)
    plan = tuple(PlannedCell(*row) for row in body["plan"])
    # Version 0.2.0 noted no time: a plan that was carried out again ended again.
    planned_ms = int(run.tags.get(PLANNED) or run.end_ms or run.start_ms)
    return Collection(run.run_id, plan, body["receipt"], body["refused"], planned_ms)
