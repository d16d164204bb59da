"""Experiments: finding, making, and what is noted on them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from hashlib import sha256

from tipbench.config import EXPERIMENT_PATTERN
from tipbench.errors import InputError
from tipbench.store.backend import StoreError
from tipbench.store.part import KIND, Part
from tipbench.store.records import ExperimentInfo

NEWEST = 20
"""Runs that `state` looks at: more than can end out of order."""
NO_EVIDENCE = ("leaderboard", "export", "index", "archive", "texts")
"""Kinds of runs on which no leaderboard depends."""


class Experiments(Part):
    """The experiments of a store."""

    def experiments(self, prefix: str = "tip-bench-") -> list[ExperimentInfo]:
        """Experiments that belong to tipbench, by the naming rule."""
        return self._backend.experiments(prefix)

    def ensure_experiment(self, name: str) -> str:
        """The experiment's id; it is created when it is not there."""
        return self._backend.create_experiment(name)

    def require_experiment(self, name: str) -> str:
        """The experiment's id; raises InputError that names the ones there are."""
        found = self.find_experiment(name)
        if found is None:
            known = ", ".join(sorted(e.name for e in self.experiments())) or "none yet"
            raise InputError(f"no experiment {name} at {self.where}; there are: {known}")
        return found

    def find_experiment(self, name: str) -> str | None:
        """The experiment's id, or None when there is none of this name; MLflow is not asked for what can be nobody's name."""
        return self._backend.find_experiment(name) if re.fullmatch(EXPERIMENT_PATTERN, name) else None

    def state(self, experiment_id: str) -> str:
        """A mark that changes with whatever a leaderboard depends on, read in two small queries however many runs there are.

        It is made of the runs that ended and began last: every cell that is filled ends anew, every score that is logged
        ends its log anew. Runs that somebody deletes in MLflow go unnoticed until something else changes.
        """
        mark = sha256()
        for order in ("end_time", "start_time"):
            # Without a filter: MLflow would join ten thousand tags for one.
            runs, _ = self._backend.page(experiment_id, "", [f"attributes.{order} DESC"], NEWEST, "")
            lines = [
                [r.run_id, r.status, r.end_ms, r.tags.get("tipbench.records"), r.tags.get("tipbench.planned_ms")]
                for r in runs
                if r.tags.get(KIND) not in NO_EVIDENCE
            ]
            mark.update(json.dumps(lines).encode())
        return mark.hexdigest()[:16]

    def notes(self, experiment_id: str, prefix: str) -> dict[str, str]:
        """Tags of the experiment whose key begins with `prefix`, by the rest of the key."""
        tags = self._backend.experiment_tags(experiment_id)
        return {key.removeprefix(prefix): value for key, value in tags.items() if key.startswith(prefix)}

    def note(self, experiment_id: str, key: str, value: str) -> None:
        """Set a tag of the experiment."""
        self._backend.set_experiment_tag(experiment_id, key, value)

    def experiment_tags(self, experiment_id: str) -> Mapping[str, str]:
        """All tags of the experiment."""
        return self._backend.experiment_tags(experiment_id)

    def blinding_secret(self, experiment_id: str) -> str:
        """The experiment's secret from which opaque item ids and their order are made; never exported."""
        tag = "tipbench.blinding_secret"
        if there := self._backend.experiment_tags(experiment_id).get(tag):
            return there
        try:
            self._backend.set_experiment_tag(experiment_id, tag, secrets.token_hex(16))
        except StoreError:
            # Somebody else, who exports at the same moment, may have been first.
            if tag not in self._backend.experiment_tags(experiment_id):
                raise
        return self._backend.experiment_tags(experiment_id)[tag]
