"""Leaderboards, kept as documents."""

from __future__ import annotations

from collections.abc import Mapping

from tipbench.store.part import Part, now_ms


class Boards(Part):
    """The runs of leaderboards."""

    def save_leaderboard(
        self, experiment_id: str, state: str, documents: Mapping[str, bytes], metrics: Mapping[str, float]
    ) -> str:
        """Keep a comparison's documents; the same state of the experiment keeps one run. Returns its id."""
        run = self._one(experiment_id, "leaderboard", "tipbench.state", state)
        if run is None:
            run = self._new(experiment_id, "leaderboard", "leaderboard", {"tipbench.state": state})
        for path, content in documents.items():
            self._backend.put_artifact(run, path, content)
        self._backend.log_batch(run.run_id, metrics, {}, {}, now_ms())
        self._backend.set_status(run.run_id, "FINISHED", now_ms())
        return run.run_id
