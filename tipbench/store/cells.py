"""Cells: one run for each (model, prompt, scenario), with its candidates in one artifact.

A run counts as ended when it is FINISHED or FAILED. One that is RUNNING is half-written and is completed, in place, by
whoever fills the cell next; one that is FINISHED stays so while candidates are added to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import intern

from pydantic import ValidationError

from tipbench.store.backend import StoreError
from tipbench.store.part import KIND, Part, now_ms, quotable, side_by_side
from tipbench.store.records import MEMORY_SOURCE, CellRecord, CellResult, Failure, Run, text_hash

CANDIDATES = "candidates.json"
PARENT = "mlflow.parentRunId"
ENDED = ("FINISHED", "FAILED")


class Cells(Part):
    """The runs of cells."""

    def save_cell(self, experiment_id: str, parent_run_id: str, result: CellResult, known: Run | None) -> Run:
        """Write one cell, completely or not at all: a new run leaves RUNNING only as the last step.

        `known` is the cell's earlier run. One that failed or was half-written is filled anew; one that is finished keeps
        its status, and so its place on the board, while it gets the candidates that it lacked.
        """
        extended = known is not None and known.status == "FINISHED"
        about = {"tipbench.collection_id": result.collection_id, PARENT: parent_run_id}
        if known is None:
            tags = {KIND: "cell", "tipbench.cell_id": result.cell_id, **about}
            name = f"{result.model} | {result.prompt} | {result.scenario}"
            run = self._backend.create_run(experiment_id, name, tags, result.started_ms)
        else:
            run = known
            if not extended:
                self._backend.set_status(run.run_id, "RUNNING", None)
        self._backend.put_artifact(run, CANDIDATES, result.model_dump_json(indent=1).encode())
        failure = None if extended else result.failure
        params = {
            "model": result.model,
            "prompt": result.prompt,
            "scenario": result.scenario,
            "n_tips": str(result.n_tips),
            **result.params,
        }
        tags = {
            **about,
            **content_tags(result),
            "tipbench.n_tips": str(result.n_tips),
            "judge_pending": str(failure is None).lower(),
            MEMORY_SOURCE: result.memory_source or "",
            "tipbench.failure": failure.reason if failure else "",
            "tipbench.failure_message": failure.message[:4000] if failure else "",
            **result.tags,
        }
        # A param cannot be changed once it stands: the first number of tips stays there, the present one is a tag.
        new = {name: value for name, value in params.items() if name not in run.params}
        self._backend.log_batch(run.run_id, _metrics(result), new, tags, result.ended_ms)
        if extended:
            self._settle(run)
        self._backend.set_status(run.run_id, "FAILED" if failure else "FINISHED", result.ended_ms)
        return run

    def _settle(self, run: Run) -> None:
        """Two who add to a cell at once may leave one's file and the other's tags: the file is what was written."""
        for _ in range(10):
            (result,) = self.results([run])
            wanted = content_tags(result)
            now = self._backend.get_run(run.run_id)
            if now is None or all(now.tags.get(key) == value for key, value in wanted.items()):
                return
            self._backend.log_batch(run.run_id, {}, {}, wanted, now_ms())

    def cell_runs(self, experiment_id: str) -> list[CellRecord]:
        """Every run of a cell, half-written ones included, oldest first, without scores."""
        return [as_cell(run) for run in self._runs(experiment_id, "cell")]

    def half_written(self, experiment_id: str) -> list[CellRecord]:
        """Runs of cells that nobody finished, or that somebody is writing."""
        return [as_cell(run) for run in self._runs(experiment_id, "cell", "attributes.status = 'RUNNING'")]

    def cells_of_model(self, experiment_ids: Iterable[str], digest: str) -> list[CellRecord]:
        """Finished cells of the model with this digest in these experiments, without scores."""
        also = f"params.model_digest = '{quotable(digest)}' AND attributes.status = 'FINISHED'"
        found = side_by_side(lambda one: list(self._runs(one, "cell", also)), experiment_ids)
        return [as_cell(run) for runs in found for run in runs]

    def runs_of(self, run_ids: Iterable[str]) -> list[Run]:
        """These runs as they are now; those that are gone are left out."""
        return [run for run in side_by_side(self._backend.get_run, run_ids) if run is not None]

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

    def mark_pending(self, values: Mapping[str, bool]) -> None:
        """Set the tag `judge_pending` of these runs: a copy for whoever looks into MLflow, never what decides."""

        def write(one: tuple[str, bool]) -> None:
            self._backend.log_batch(one[0], {}, {}, {"judge_pending": str(one[1]).lower()}, now_ms())

        side_by_side(write, values.items())

    def copy_scores(self, copies: Mapping[str, tuple[Mapping[str, float], bool]]) -> None:
        """run id -> metrics, and whether the cell waits for somebody: copies for whoever looks into MLflow."""

        def write(one: tuple[str, tuple[Mapping[str, float], bool]]) -> None:
            run_id, (metrics, waits) = one
            self._backend.log_batch(run_id, metrics, {}, {"judge_pending": str(waits).lower()}, now_ms())

        side_by_side(write, copies.items())

    def marked_pending(self, experiment_id: str) -> set[str]:
        """Runs of cells whose tag `judge_pending` is true."""
        return {run.run_id for run in self._runs(experiment_id, "cell", "tags.judge_pending = 'true'")}

    def sweep(self, experiment_id: str) -> None:
        """Delete half-written runs of cells that have an ended one: their creation was repeated because MLflow's answer was lost."""
        half = list(self._runs(experiment_id, "cell", "attributes.status = 'RUNNING'"))
        # All cells at once take memory; as a rule there is no such run to look for.
        done = {c.cell_id for c in self.cell_runs(experiment_id) if c.run.status in ENDED} if half else set()
        for run in half:
            if run.tags.get("tipbench.cell_id", "") in done:
                self._backend.delete_run(run.run_id)


def content_tags(result: CellResult) -> dict[str, str]:
    """How many candidates a cell has and what tells their texts apart (at most 1,800 characters for 200 tips)."""
    return {
        "tipbench.n_candidates": str(len(result.candidates)),
        "tipbench.texts": ",".join(text_hash(c.text) for c in sorted(result.candidates, key=lambda c: c.index)),
    }


def as_cell(run: Run) -> CellRecord:
    """A cell from its run, without scores."""
    reason = run.tags.get("tipbench.failure", "") if run.status != "FINISHED" else ""
    if run.status == "FAILED" and not reason:
        reason = "unknown"
    return CellRecord(
        run=run,
        cell_id=run.tags.get("tipbench.cell_id", ""),
        model=intern(run.params.get("model", "?")),
        prompt=intern(run.params.get("prompt", "?")),
        scenario=intern(run.params.get("scenario", "?")),
        n_tips=int(run.tags.get("tipbench.n_tips") or run.params.get("n_tips", "0")),
        n_candidates=int(run.tags.get("tipbench.n_candidates", "0")),
        failure=Failure(reason=reason, message=run.tags.get("tipbench.failure_message", "")) if reason else None,
        scores=(),
    )


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
    if any(c.wall_s for c in candidates):
        metrics["wall_s"] = sum(c.wall_s for c in candidates)
    if candidates:
        metrics["load_s"] = sum(c.load_s or 0.0 for c in candidates)
        metrics["engine_s"] = sum(c.total_s or 0.0 for c in candidates)
        metrics["output_tokens"] = tokens
        metrics["mean_words"] = sum(len(c.text.split()) for c in candidates) / len(candidates)
    if result.resident_bytes is not None:
        metrics["peak_memory_bytes"] = result.resident_bytes
    return metrics
