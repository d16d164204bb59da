"""The only room that knows MLflow: cells, collections, exports, judgments and leaderboards as runs.

| run kind (tag `tipbench.kind`) | holds |
|---|---|
| `collection` | plan, reproducibility receipt, refused models; parent of its cells |
| `cell` | params, metrics, `candidates.json`, one tag per judge with the current scores |
| `export` | the key that leads from the opaque ids of one exchange file back to the candidates |
| `judgment` | one applied exchange file, and every score that it changed, with judge, time and reason |
| `leaderboard` | the JSON, Markdown and HTML of one comparison |

A cell counts only when its run is FINISHED or FAILED; a run that is still RUNNING is half-written and is
completed, in place, by whoever fills the cell next.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from tipbench.errors import InputError
from tipbench.net.address import Address, read_store
from tipbench.store.backend import OLDEST_FIRST, Backend, StoreError, StoreUnreachable
from tipbench.store.local import LocalBackend
from tipbench.store.records import (
    CellRecord,
    CellResult,
    Collection,
    ExperimentInfo,
    Failure,
    PlannedCell,
    Run,
    ScoreRecord,
)
from tipbench.store.rest import READ_S, RestBackend

__all__ = ["Store", "StoreError", "StoreUnreachable", "open_store"]

KIND = "tipbench.kind"
CANDIDATES = "candidates.json"
SCORES = "tipbench.scores."
NEWEST = 20
"""Runs that `Store.state` looks at: more than can end out of order."""
READERS = 8
"""Threads for reads and writes that MLflow takes one run at a time."""


def open_store(url: str, *, retry_s: float | None = None, read_s: float = READ_S) -> Store:
    """The store at `url`: an MLflow server (http, https) or a local folder. Connects on first use.

    `retry_s` and `read_s` are limits for a server, for callers that cannot wait for minutes. Raises InputError for what is
    neither (see `read_store`).
    """
    place = read_store(url)
    if isinstance(place, Address):
        return Store(RestBackend(place, retry_s=retry_s, read_s=read_s))
    return Store(LocalBackend(place))


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts time."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class ScoreChange:
    """What one applied file does to one cell: the record as it will stand."""

    cell: CellRecord
    record: ScoreRecord
    pending: bool
    """True when, afterwards, some candidate of the cell still has no score from any judge."""
    metrics: Mapping[str, float]


class Store:
    """Every read and write that tipbench makes, in its own words."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def where(self) -> str:
        """The server or folder, without credentials, for messages."""
        return self._backend.where

    def close(self) -> None:
        """Release connections."""
        self._backend.close()

    # -- experiments ---------------------------------------------------------------------------

    def experiments(self, prefix: str = "tip-bench-") -> list[ExperimentInfo]:
        """Experiments that belong to tipbench, by the naming rule."""
        return self._backend.experiments(prefix)

    def ensure_experiment(self, name: str) -> str:
        """The experiment's id; it is created when it is not there."""
        return self._backend.create_experiment(name)

    def require_experiment(self, name: str) -> str:
        """The experiment's id; raises InputError that names the ones there are."""
        found = self._backend.find_experiment(name)
        if found is None:
            known = ", ".join(sorted(e.name for e in self.experiments())) or "none yet"
            raise InputError(f"no experiment {name} at {self.where}; there are: {known}")
        return found

    def find_experiment(self, name: str) -> str | None:
        """The experiment's id, or None when there is none of this name."""
        return self._backend.find_experiment(name)

    def state(self, experiment_id: str) -> str:
        """A mark that changes with whatever a leaderboard depends on, read in two small queries however many runs there are.

        It is made of the runs that ended and began last: every cell that is filled ends anew, every applied file is a run of
        its own. Runs that somebody deletes in MLflow go unnoticed until something else changes.
        """
        mark = sha256()
        for order in ("end_time", "start_time"):
            # Without a filter: MLflow would join ten thousand tags for one.
            runs, _ = self._backend.page(experiment_id, "", [f"attributes.{order} DESC"], NEWEST, "")
            lines = [[r.run_id, r.status, r.end_ms] for r in runs if r.tags.get(KIND) not in ("leaderboard", "export")]
            mark.update(json.dumps(lines).encode())
        return mark.hexdigest()[:16]

    def cell_page(
        self, experiment_id: str, wanted: Mapping[str, str], limit: int, token: str = ""
    ) -> tuple[list[CellRecord], str]:
        """A page of cells that are finished or failed, oldest first, and the next page's token ("" on the last).

        `wanted` limits them by `model`, `prompt`, `scenario` and `status` (finished, failed, pending or judged). A failed
        cell that another one has replaced stands here as well.
        """
        terms = [f"tags.`{KIND}` = 'cell'"]
        terms += [
            f"params.{name} = '{_quotable(wanted[name])}'" for name in ("model", "prompt", "scenario") if name in wanted
        ]
        terms.append(
            {
                "finished": "attributes.status = 'FINISHED'",
                "failed": "attributes.status = 'FAILED'",
                "pending": "attributes.status = 'FINISHED' AND tags.judge_pending = 'true'",
                "judged": "attributes.status = 'FINISHED' AND tags.judge_pending = 'false'",
            }.get(wanted.get("status", ""), "attributes.status != 'RUNNING'")
        )
        runs, token = self._backend.page(experiment_id, " AND ".join(terms), OLDEST_FIRST, limit, token)
        return [_cell(run.tags.get("tipbench.cell_id", ""), run) for run in runs], token

    def blinding_secret(self, experiment_id: str) -> str:
        """The experiment's secret from which opaque item ids and their order are made; never exported."""
        tag = "tipbench.blinding_secret"
        if tag not in self._backend.experiment_tags(experiment_id):
            try:
                self._backend.set_experiment_tag(experiment_id, tag, secrets.token_hex(16))
            except StoreError:
                # Somebody else, who exports at the same moment, may have been first.
                if tag not in self._backend.experiment_tags(experiment_id):
                    raise
        return self._backend.experiment_tags(experiment_id)[tag]

    def _runs(self, experiment_id: str, kind: str, also: str = "") -> Iterator[Run]:
        yield from self._backend.search(experiment_id, f"tags.`{KIND}` = '{kind}'" + (f" AND {also}" if also else ""))

    def _one(self, experiment_id: str, kind: str, tag: str, value: str) -> Run | None:
        return next(self._runs(experiment_id, kind, f"tags.`{tag}` = '{value}'"), None)

    def _new(self, experiment_id: str, kind: str, name: str, tags: Mapping[str, str]) -> Run:
        return self._backend.create_run(experiment_id, name, {KIND: kind, **tags}, now_ms())

    # -- collecting ----------------------------------------------------------------------------

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

        `label` names whatever asked for it (a DAG run, a Job), so that it can find its collections again.
        """
        run = self._one(experiment_id, "collection", "tipbench.collection_id", collection_id)
        if run is None:
            tags = {"tipbench.collection_id": collection_id}
            run = self._new(experiment_id, "collection", f"collection {collection_id[:8]}", tags)
        else:
            self._backend.set_status(run.run_id, "RUNNING", None)
        # What an earlier attempt died of is no longer true.
        models = ",".join(dict.fromkeys([p.model for p in plan] or refused))
        tags = {
            "tipbench.run": label,
            "tipbench.models": models,
            "tipbench.failure": "",
            "tipbench.failure_message": "",
        }
        self._backend.log_batch(run.run_id, {}, {}, tags, now_ms())
        body = {
            "schema": "tipbench.collection/1",
            "receipt": receipt,
            "refused": refused,
            "plan": [[p.cell_id, p.model, p.prompt, p.scenario, p.n_tips] for p in plan],
        }
        self._backend.put_artifact(run, "collection.json", json.dumps(body, indent=1).encode())
        return run

    def end_collection(self, run: Run, status: str, metrics: Mapping[str, float]) -> None:
        """Close the parent run with what came of it: FINISHED, FAILED (some cells) or KILLED (interrupted)."""
        self._backend.log_batch(run.run_id, metrics, {}, {}, now_ms())
        self._backend.set_status(run.run_id, status, now_ms())

    def collections(self, experiment_id: str) -> list[Collection]:
        """Every collection of the experiment, oldest first."""
        runs = list(self._runs(experiment_id, "collection"))
        bodies = self._artifacts(runs, "collection.json")
        found = []
        for run, content in zip(runs, bodies, strict=True):
            if content is not None:
                body = json.loads(content)
                plan = tuple(PlannedCell(*row) for row in body["plan"])
                found.append(Collection(run.run_id, plan, body["receipt"], body["refused"]))
        return found

    def cell_runs(self, experiment_id: str) -> dict[str, Run]:
        """cell id -> its run, half-written ones included; of several (a lost answer), the one that is done."""
        found: dict[str, Run] = {}
        order = {"FINISHED": 0, "FAILED": 1}
        for run in self._runs(experiment_id, "cell"):
            cell_id = run.tags.get("tipbench.cell_id", "")
            known = found.get(cell_id)
            if known is None or order.get(run.status, 2) < order.get(known.status, 2):
                found[cell_id] = run
        return found

    def sweep(self, experiment_id: str) -> None:
        """Delete half-written twins of other cells: runs whose creation was repeated because MLflow's answer was lost."""
        half = list(self._runs(experiment_id, "cell", "attributes.status = 'RUNNING'"))
        # All cells at once take memory; as a rule there is no twin to look for.
        cells = self.cell_runs(experiment_id) if half else {}
        for run in half:
            kept = cells.get(run.tags.get("tipbench.cell_id", ""))
            if kept is not None and kept.run_id != run.run_id:
                self._backend.delete_run(run.run_id)

    def save_cell(self, experiment_id: str, parent_run_id: str, result: CellResult, known: Run | None) -> Run:
        """Write one cell, completely or not at all: its run leaves RUNNING only as the last step.

        `known` is the cell's earlier run (failed or half-written), which is filled anew.
        """
        if known is None:
            tags = {
                KIND: "cell",
                "tipbench.cell_id": result.cell_id,
                "tipbench.collection_id": result.collection_id,
                "mlflow.parentRunId": parent_run_id,
            }
            name = f"{result.model} | {result.prompt} | {result.scenario}"
            run = self._backend.create_run(experiment_id, name, tags, result.started_ms)
        else:
            run = known
            self._backend.set_status(run.run_id, "RUNNING", None)
        self._backend.put_artifact(run, CANDIDATES, result.model_dump_json(indent=1).encode())
        failure = result.failure
        tags = {
            "judge_pending": str(failure is None).lower(),
            "tipbench.failure": failure.reason if failure else "",
            "tipbench.failure_message": failure.message[:4000] if failure else "",
            "tipbench.n_candidates": str(len(result.candidates)),
            **result.tags,
        }
        params = {
            "model": result.model,
            "prompt": result.prompt,
            "scenario": result.scenario,
            "n_tips": str(result.n_tips),
            **result.params,
        }
        self._backend.log_batch(run.run_id, _metrics(result), params, tags, result.ended_ms)
        self._backend.set_status(run.run_id, "FAILED" if failure else "FINISHED", result.ended_ms)
        return run

    # -- reading -------------------------------------------------------------------------------

    def cells(self, experiment_id: str) -> list[CellRecord]:
        """Every cell that counts. A failed cell gives way to a finished one of the same model, prompt and scenario."""
        records = [
            _cell(cell_id, run)
            for cell_id, run in self.cell_runs(experiment_id).items()
            if run.status in ("FINISHED", "FAILED")
        ]
        filled = {(r.model, r.prompt, r.scenario) for r in records if r.finished}
        return [r for r in records if r.finished or (r.model, r.prompt, r.scenario) not in filled]

    def cells_of(self, run_ids: Iterable[str]) -> list[CellRecord]:
        """These cells alone, as they are now, however many the experiment has; those that are gone are left out."""
        with ThreadPoolExecutor(READERS) as pool:
            runs = list(pool.map(self._backend.get_run, run_ids))
        return [_cell(run.tags.get("tipbench.cell_id", ""), run) for run in runs if run is not None]

    def results(self, runs: Iterable[Run]) -> list[CellResult]:
        """The candidates of cells, in the order of `runs`. Raises StoreError naming a run whose artifact is gone."""
        runs = list(runs)
        found = []
        for run, content in zip(runs, self._artifacts(runs, CANDIDATES), strict=True):
            if content is None:
                raise StoreError(
                    f"run {run.run_id} at {self.where} has lost its {CANDIDATES}; delete the run and collect again"
                )
            try:
                found.append(CellResult.model_validate_json(content))
            except ValidationError as error:
                raise StoreError(f"run {run.run_id} at {self.where}: {CANDIDATES} cannot be read: {error}") from error
        return found

    def _artifacts(self, runs: Sequence[Run], path: str) -> list[bytes | None]:
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda run: self._backend.get_artifact(run, path), runs))

    # -- judging -------------------------------------------------------------------------------

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
            f"tags.`{KIND}` = 'export' AND tags.`tipbench.judge` = '{_quotable(judge)}' AND attributes.status = 'FINISHED'",
            ["attributes.start_time DESC"],
            1,
            "",
        )
        return runs[0].tags["tipbench.export_id"] if runs else None

    def apply_scores(
        self,
        experiment_id: str,
        judge: str,
        judgment_id: str,
        changes: Sequence[ScoreChange],
        documents: Mapping[str, bytes],
    ) -> str | None:
        """Write a checked exchange file: the judgment first, as the record, then each cell in one transaction.

        Cut off half-way, the same call completes it, and the record stays the one made first. Returns the
        judgment's run id, or None when there was nothing to write.
        """
        open_runs = self._runs(
            experiment_id,
            "judgment",
            f"tags.`tipbench.judgment_id` = '{judgment_id}' AND attributes.status = 'RUNNING'",
        )
        run = next(open_runs, None)
        if run is None and not changes:
            return None
        if run is None:
            tags = {"tipbench.judgment_id": judgment_id, "tipbench.judge": judge}
            run = self._new(experiment_id, "judgment", f"judgment by {judge}", tags)
        for path, content in documents.items():
            if self._backend.get_artifact(run, path) is None:
                self._backend.put_artifact(run, path, content)
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(self._apply_one, changes))
        self._backend.set_status(run.run_id, "FINISHED", now_ms())
        return run.run_id

    def _apply_one(self, change: ScoreChange) -> None:
        record = change.record
        value = {
            "judge": record.judge,
            "kind": record.kind,
            "rubric": record.rubric_hash,
            "criteria": list(record.criteria),
            "scores": {str(i): list(s) for i, s in sorted(record.scores.items())},
            "repeats": {str(i): list(s) for i, s in sorted(record.repeats.items())},
        }
        slot = sha256(f"{record.judge}\n{record.rubric_hash}".encode()).hexdigest()[:12]
        tags = {SCORES + slot: json.dumps(value, separators=(",", ":")), "judge_pending": str(change.pending).lower()}
        self._backend.log_batch(change.cell.run.run_id, change.metrics, {}, tags, now_ms())

    def judgment_history(self, experiment_id: str) -> list[dict[str, Any]]:
        """Every score that was ever changed, oldest first: item, cell, old and new scores, judge, time, reason."""
        runs = list(self._runs(experiment_id, "judgment"))
        return [
            change
            for content in self._artifacts(runs, "changes.json")
            if content is not None
            for change in json.loads(content)
        ]

    # -- comparing -----------------------------------------------------------------------------

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


def _quotable(value: str) -> str:
    """`value` for a filter of MLflow's, whose quotes cannot be escaped; raises InputError for one that has any."""
    if "'" in value:
        raise InputError(f"{value!r}: a name cannot have a quote in it")
    return value


def _metrics(result: CellResult) -> dict[str, float]:
    """What MLflow charts of a cell: speeds and times as medians over its candidates, counts, flags."""
    metrics: dict[str, float] = {"n_candidates": len(result.candidates)}
    for flag, count in result.flags.items():
        metrics[f"check_{flag}"] = count
    candidates = result.candidates
    tokens = sum(c.output_tokens or 0 for c in candidates)
    seconds = sum(c.output_s or 0.0 for c in candidates)
    if tokens and seconds:
        metrics["tokens_per_s"] = tokens / seconds
    # The first candidate of a block also waits for the model to load; that is no property of the prompt.
    ttfts = sorted(max(c.ttft_s - (c.load_s or 0.0), 0.0) for c in candidates if c.ttft_s is not None)
    if ttfts:
        metrics["ttft_s"] = ttfts[len(ttfts) // 2]
    if candidates:
        metrics["wall_s"] = sum(c.wall_s for c in candidates)
        metrics["load_s"] = sum(c.load_s or 0.0 for c in candidates)
        metrics["engine_s"] = sum(c.total_s or 0.0 for c in candidates)
        metrics["output_tokens"] = tokens
        metrics["mean_words"] = sum(len(c.text.split()) for c in candidates) / len(candidates)
    if result.resident_bytes is not None:
        metrics["peak_memory_bytes"] = result.resident_bytes
    return metrics


def _cell(cell_id: str, run: Run) -> CellRecord:
    reason = run.tags.get("tipbench.failure", "")
    records = []
    for tag, value in run.tags.items():
        if tag.startswith(SCORES):
            raw = json.loads(value)
            records.append(
                ScoreRecord(
                    judge=raw["judge"],
                    kind=raw["kind"],
                    rubric_hash=raw["rubric"],
                    criteria=tuple(raw["criteria"]),
                    scores={int(i): tuple(s) for i, s in raw["scores"].items()},
                    repeats={int(i): tuple(s) for i, s in raw["repeats"].items()},
                )
            )
    return CellRecord(
        run=run,
        cell_id=cell_id,
        model=run.params.get("model", "?"),
        prompt=run.params.get("prompt", "?"),
        scenario=run.params.get("scenario", "?"),
        n_tips=int(run.params.get("n_tips", "0")),
        n_candidates=int(run.tags.get("tipbench.n_candidates", "0")),
        failure=Failure(reason=reason, message=run.tags.get("tipbench.failure_message", "")) if reason else None,
        scores=tuple(records),
    )
