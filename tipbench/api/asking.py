"""What a run on this machine asks the store between its steps, as the DAG's own tasks ask MLflow: the tags, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tipbench.api.settings import Settings
from tipbench.catalog import load_rubric
from tipbench.config import split_list
from tipbench.counting import marks
from tipbench.counting.judged import MANUAL, Asked
from tipbench.errors import InputError
from tipbench.pipeline import Step
from tipbench.rounds import record
from tipbench.store import Store


class StoreAsked:
    """Reads the marks that whatever changes the answer renews, under the rubric in force."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

    def waits(self, step: Step, config: Mapping[str, Any]) -> bool:
        """Is something left to score for whom the step waits? Without a mark: yes, it is not there yet."""
        found = self._store.find_experiment(str(config["experiment"]))
        if found is None:
            return True
        rubric = load_rubric(self._settings.config.rubric or None).hash
        if step == Step.AWAIT_SAMPLE:
            left = marks.sample_left(self._store, found, rubric, split_list(str(config["reference"])))
        else:
            left = marks.noted_pending(self._store, found, rubric, Asked(MANUAL))
        return left is None or left > 0

    def next(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """What `compare` noted of an experiment in rounds. Raises InputError when it noted nothing."""
        found = self._store.require_experiment(str(config["experiment"]))
        rubric = load_rubric(self._settings.config.rubric or None).hash
        said = record.next_noted(self._store, found, rubric)
        if said is None:
            raise InputError(f"{config['experiment']} does not say what comes next; compare writes it")
        return said
