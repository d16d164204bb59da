"""Generating: walks the plan, one model's block after the other, and hands every finished or failed cell over.

A model is loaded once for its block and is gone before the next one. The candidates of a cell follow each other, so that the
engine's prompt cache serves all but the first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from tipbench.collecting.plan import Block, Cell
from tipbench.collecting.progress import Event, FailedCells, OnEvent, Tally
from tipbench.engines.base import (
    Engine,
    EngineUnreachable,
    Generation,
    GenerationError,
    ModelBroken,
    ModelMissing,
    Options,
    OutOfMemory,
    Unsuitable,
    Witness,
)
from tipbench.errors import TipbenchError
from tipbench.judging.checks import NAMES, clean, reasons
from tipbench.memory.meter import Meter, Reading
from tipbench.model_names import same_model
from tipbench.policy import format_bytes
from tipbench.store import now_ms
from tipbench.store.journal import Journal
from tipbench.store.records import SLOTS, Candidate, CellResult, Failure
from tipbench.store.writer import CellWriter

GIVE_UP_AFTER = 3
"""Failed cells in a row after which the rest of a model's cells fail with the same reason, untried."""
WATCH_AFTER_S = 0.2
"""Seconds into a cell at which it is checked that no other model is in memory."""


@dataclass(frozen=True)
class Task:
    """What generating needs besides the cells."""

    engine: Engine
    meter: Meter
    options: Options
    seed: int
    """Candidate i of every cell is generated with seed + i."""
    memory_limit: int | None
    """In bytes, for words only: the policy has had its say."""
    witness: Witness | None
    journal: Journal
    writer: CellWriter
    tally: Tally
    collection_id: str
    total: int
    """Cells of the plan, for progress."""
    on_event: OnEvent


@dataclass(frozen=True)
class Filled:
    """What became of one cell."""

    candidates: tuple[Candidate, ...]
    failure: Failure | None
    began_ms: int


class Generator:
    """Fills cells."""

    def __init__(self, task: Task, done: int) -> None:
        """`done` cells of the plan were there before."""
        self._task = task
        self._done = done
        self._options = task.options
        self._stopping = threading.Event()

    def block(self, block: Block, cells: Sequence[Cell], earlier: Mapping[str, tuple[Candidate, ...]]) -> None:
        """All cells of one model; the model is gone from memory when this returns."""
        if not cells:
            return
        if block.failure is not None:
            for cell in cells:
                self._finish(cell, (), block.failure, now_ms(), quiet=True)
            failed = FailedCells(block.model, block.failure.reason, len(cells), block.failure.message)
            self._task.on_event(Event("failed", str(failed), total=self._task.total, done=self._done))
            return
        self._make_room(block.model)
        pool = ThreadPoolExecutor(self._options.parallel, thread_name_prefix="generate")
        try:
            with self._task.meter.watching():
                self._generate(block, cells, earlier, pool)
        except BaseException:
            # An interrupt must not wait for answers that nobody will read.
            self._stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            self._engine_free(block.model, quietly=True)
            raise
        pool.shutdown()
        self._engine_free(block.model)

    def _make_room(self, model: str) -> None:
        """At most one model in memory: whatever else is loaded goes first."""
        for resident in self._task.engine.resident():
            if not same_model(resident.name, model):
                self._task.on_event(Event("note", f"freeing {resident.name}, which was still loaded"))
                try:
                    self._task.engine.unload(resident.name)
                except GenerationError as error:
                    # Another model's trouble: this one is tried all the same.
                    self._warn(str(error))

    def _engine_free(self, model: str, quietly: bool = False) -> None:
        try:
            self._task.engine.unload(model)
        except TipbenchError as error:
            if not quietly:
                self._warn(str(error))

    def _warn(self, message: str) -> None:
        if message not in self._task.tally.warnings:
            self._task.tally.warnings.append(message)
            self._task.on_event(Event("warning", message))

    def _generate(
        self,
        block: Block,
        cells: Sequence[Cell],
        earlier: Mapping[str, tuple[Candidate, ...]],
        pool: ThreadPoolExecutor,
    ) -> None:
        """One whole cell per slot: its candidates share a prompt, so the slot's prompt cache serves all but the first."""
        waiting = deque(cells)
        flight: dict[Future[Filled], Cell] = {}
        failures: list[Failure] = []
        while waiting or flight:
            if len(failures) >= self._patience(failures):
                # What is in flight still counts; what has not begun shares the verdict.
                while waiting:
                    last = failures[-1]
                    message = f"not tried after {len(failures)} failed cells in a row: {last.message}"
                    self._finish(waiting.popleft(), (), Failure(reason=last.reason, message=message), now_ms())
                if not flight:
                    return
            while waiting and len(flight) < self._options.parallel:
                cell = waiting.popleft()
                kept = earlier.get(cell.id, ())
                flight[pool.submit(self._fill, cell, kept, block)] = cell
            for future in self._await(flight):
                cell, filled = flight.pop(future), future.result()
                self._finish(cell, filled.candidates, filled.failure, filled.began_ms, self._task.meter.peak())
                failures = [*failures, filled.failure] if filled.failure else []
                if filled.failure is not None and filled.failure.reason == "EngineUnreachable":
                    left = len(waiting) + len(flight)
                    raise EngineUnreachable(
                        f"{filled.failure.message} {left} cells of {block.model} are left; the same command resumes."
                    )

    def _await(self, flight: Mapping[Future[Filled], Cell]) -> list[Future[Filled]]:
        """The cells that are done, at least one; looks once, while the engine is at work, that one model is in memory."""
        done, _ = wait(flight, timeout=WATCH_AFTER_S, return_when=FIRST_COMPLETED)
        self._watch_residents()
        if not done:
            done, _ = wait(flight, return_when=FIRST_COMPLETED)
        return [future for future in flight if future in done]

    def _patience(self, failures: Sequence[Failure]) -> int:
        """Failures in a row to bear: what does not fit in memory or is not there will not get better."""
        if failures and failures[-1].reason == OutOfMemory.reason:
            return 2
        if failures and failures[-1].reason in (ModelMissing.reason, ModelBroken.reason, Unsuitable.reason):
            return 1
        return GIVE_UP_AFTER

    def _watch_residents(self) -> None:
        """Warn when somebody else's model is in memory too: then the figures are not this model's alone."""
        try:
            residents = self._task.engine.resident()
        except TipbenchError:
            return
        if len(residents) > 1:
            self._warn("more than one model in memory: " + ", ".join(r.name for r in residents))

    def _fill(self, cell: Cell, kept: Sequence[Candidate], block: Block) -> Filled:
        """The candidates that a cell still lacks, one after the other; stops at the first that fails."""
        began = now_ms()
        candidates = list(kept)
        failure = None
        for index in sorted(set(range(cell.planned.n_tips)) - {c.index for c in kept}):
            if self._stopping.is_set():
                break
            seed = self._task.seed + index
            try:
                generation = self._task.engine.generate(cell.planned.model, cell.messages, self._options, seed)
            except (EngineUnreachable, GenerationError) as error:
                failure = self._explain(error, block, began)
                break
            if generation.prompt_cut:
                self._warn(
                    f"{block.model}: prompt {cell.planned.prompt} does not fit into num_ctx {self._options.num_ctx}, so the server "
                    f"left out messages from its front, examples before all (seen with {cell.planned.scenario}); raise --num-ctx"
                )
            candidates.append(_as_candidate(index, seed, generation))
            self._task.journal.note(cell.id, candidates[-1])
            self._task.tally.generated(generation.total_s or generation.wall_s)
        candidates.sort(key=lambda c: c.index)
        if failure is not None and candidates:
            missing = cell.planned.n_tips - len(candidates)
            words = f"{failure.message} ({missing} of {cell.planned.n_tips} candidates missing)"
            failure = failure.model_copy(update={"message": words})
        return Filled(tuple(candidates), failure, began)

    def _explain(self, error: EngineUnreachable | GenerationError, block: Block, began_ms: int) -> Failure:
        """The failure in words. A kill for memory has two faces: Ollama says that its runner was killed, or Ollama is gone."""
        message = str(error)
        if not isinstance(error, OutOfMemory) and self._task.witness is not None:
            death = self._task.witness.killed(began_ms)
            if death:
                error, message = OutOfMemory(death), f"{block.model} does not fit in memory. {death}"
        if isinstance(error, EngineUnreachable):
            return Failure(reason="EngineUnreachable", message=message)
        if isinstance(error, OutOfMemory):
            bound = (
                self._task.memory_limit
                if self._task.witness is None
                else (self._task.witness.memory_limit() or self._task.memory_limit)
            )
            limit = format_bytes(bound) if bound is not None else "not stated (--memory-limit)"
            need = format_bytes(block.estimate.total) if block.estimate else "unknown"
            reading = self._task.meter.peak()
            peak = f"{format_bytes(reading.size)} ({reading.source})" if reading else "not seen"
            message = (
                f"{message} Memory limit: {limit}; estimated need of {block.model}: {need}; "
                f"largest that was measured: {peak}."
            )
        return Failure(reason=error.reason, message=message)

    def _finish(
        self,
        cell: Cell,
        candidates: tuple[Candidate, ...],
        failure: Failure | None,
        began: int,
        memory: Reading | None = None,
        quiet: bool = False,
    ) -> None:
        """Hand a finished or failed cell over; `quiet` leaves the telling to whoever finishes many at once."""
        planned = cell.planned
        found = reasons([c.text for c in candidates], cell.messages, [c.done_reason for c in candidates])
        candidates = tuple(c.model_copy(update={"flags": why}) for c, why in zip(candidates, found, strict=True))
        counts = {name: sum(name in why for why in found) for name in NAMES} if candidates else {}
        result = CellResult(
            cell_id=cell.id,
            collection_id=self._task.collection_id,
            model=planned.model,
            prompt=planned.prompt,
            scenario=planned.scenario,
            situation=cell.scenario.situation,
            n_tips=planned.n_tips,
            params=dict(cell.params),
            tags={SLOTS: str(self._options.parallel)},
            candidates=candidates,
            flags=counts,
            resident_bytes=memory.size if memory else None,
            memory_source=memory.source if memory else None,
            failure=failure,
            started_ms=began,
            ended_ms=now_ms(),
        )
        self._task.journal.add(result)
        self._task.writer.put(result)
        self._done += 1
        if quiet:
            return
        if failure is None:
            seconds = (result.ended_ms - began) / 1000
            line = f"{cell.name}: {len(candidates)} tips in {seconds:.1f} s"
            self._task.on_event(Event("cell", line, total=self._task.total, done=self._done))
        else:
            line = f"{cell.name}: failed, {failure.reason}: {failure.message}"
            self._task.on_event(Event("failed", line, total=self._task.total, done=self._done))


def _as_candidate(index: int, seed: int, generation: Generation) -> Candidate:
    return Candidate(
        index=index,
        seed=seed,
        text=clean(generation.text),
        done_reason=generation.done_reason,
        ttft_s=generation.ttft_s,
        load_s=generation.load_s,
        prompt_tokens=generation.prompt_tokens,
        prompt_s=generation.prompt_s,
        output_tokens=generation.output_tokens,
        output_s=generation.output_s,
        total_s=generation.total_s,
        wall_s=generation.wall_s,
        attempts=generation.attempts,
    )
