"""Exports: the exchange files that were handed out, and the keys that lead from their opaque ids back to the candidates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tipbench.store.part import KIND, Part, now_ms, quotable


class Exports(Part):
    """The runs of exports."""

    def save_export(
        self, experiment_id: str, export_id: str, key: Mapping[str, Any], judge: str | None, exchange: bytes
    ) -> None:
        """Keep an exchange file and its key; the same export again changes nothing."""
        if self._one(experiment_id, "export", "tipbench.export_id", export_id) is not None:
            return
        run = self._new(experiment_id, "export", f"export {export_id[:8]}", {"tipbench.judge": judge or ""})
        self._backend.put_artifact(run, "key.json", json.dumps(key).encode())
        self._backend.put_artifact(run, "exchange.json", exchange)
        self._backend.log_batch(run.run_id, {}, {}, {"tipbench.export_id": export_id}, now_ms())
        self._backend.set_status(run.run_id, "FINISHED", now_ms())

    def export_key(self, experiment_id: str, export_id: str) -> dict[str, Any] | None:
        """The key of an exchange file, or None when this experiment never issued it."""
        run = self._one(experiment_id, "export", "tipbench.export_id", export_id)
        content = self._backend.get_artifact(run, "key.json") if run else None
        return json.loads(content) if content is not None else None

    def latest_export(self, experiment_id: str, judge: str) -> str | None:
        """The id of the newest exchange file that was made for `judge`, or None."""
        runs, _ = self._backend.page(
            experiment_id,
            f"tags.`{KIND}` = 'export' AND tags.`tipbench.judge` = '{quotable(judge)}' AND attributes.status = 'FINISHED'",
            ["attributes.start_time DESC"],
            1,
            "",
        )
        return runs[0].tags["tipbench.export_id"] if runs else None
