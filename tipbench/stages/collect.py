"""Collect: have every (model, prompt) write tips for every scenario, one model in memory at a time.

The order is model, prompt, scenario, candidate: a model is loaded once, and the candidates of a cell follow
each other so that the engine's prompt cache serves all but the first. A finished cell goes to the journal, then to
MLflow from a second thread, so that the engine never waits for MLflow; a re-run fills only what is missing.
"""

from __future__ import annotations

import os
import platform
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Literal

from tipbench import __version__
from tipbench.catalog import Prompt, Scenario, content_hash, load_prompts, load_scenarios
from tipbench.config import Config
from tipbench.engines.base import (
    Engine,
    EngineUnreachable,
    Generation,
    GenerationError,
    Message,
    ModelFacts,
    ModelMissing,
    Options,
    OutOfMemory,
    Witness,
)
from tipbench.errors import AllRefusedError, InputError, TipbenchError, UnreachableError
from tipbench.judging.checks import check, clean
from tipbench.policy import (
    MemoryEstimate,
    check_memory,
    check_parameters,
    check_tag,
    estimate_memory,
    format_bytes,
    parse_bytes,
)
from tipbench.store import Store, now_ms
from tipbench.store.journal import Journal
from tipbench.store.records import Candidate, CellResult, Failure, PlannedCell, Run

GIVE_UP_AFTER = 3
"""Failed cells in a row after which the rest of a model's cells fail with the same reason, untried."""
WRITERS = 4
WATCH_AFTER_S = 0.2
"""Seconds into a cell at which memory is read; with a keep-alive of 0 the model is only there while it writes."""


@dataclass(frozen=True)
class Event:
    """Something a user would want to see: one line in a log, one step of a progress bar."""

    kind: Literal["start", "skip", "refused", "cell", "failed", "warning", "note", "saved"]
    message: str
    total: int = 0
    done: int = 0


@dataclass(frozen=True)
class FailedCells:
    """Cells of one model that failed for the same reason; the first one's message stands for all."""

    model: str
    reason: str
    cells: int
    message: str

    def __str__(self) -> str:
        return f"{self.model}: {self.cells} cells failed, {self.reason}: {self.message}"


@dataclass(frozen=True)
class CollectResult:
    """What came of a collection; counts are cells."""

    experiment: str
    collection_id: str
    planned: int
    skipped: int
    collected: int
    failed: Mapping[str, int]
    """reason -> cells"""
    why: tuple[FailedCells, ...]
    """The same failures model by model, in words."""
    refused: Mapping[str, str]
    """model -> why"""
    generations: int
    wall_s: float
    engine_s: float
    """The sum of the engine's own durations, in seconds."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Block:
    """A model's share of the plan."""

    model: str
    facts: ModelFacts | None
    estimate: MemoryEstimate | None
    failure: Failure | None


@dataclass(frozen=True)
class _Cell:
    planned: PlannedCell
    scenario: Scenario
    messages: Sequence[Message]
    params: Mapping[str, str]


@dataclass(frozen=True)
class _Filled:
    """What became of one cell."""

    candidates: tuple[Candidate, ...]
    failure: Failure | None
    began_ms: int


@dataclass
class _Tally:
    """Counts that both the generating and the writing side add to."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    collected: int = 0
    why: dict[tuple[str, str], FailedCells] = field(default_factory=dict)
    generations: int = 0
    engine_s: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def failed(self) -> dict[str, int]:
        """reason -> cells"""
        counts: dict[str, int] = {}
        for one in self.why.values():
            counts[one.reason] = counts.get(one.reason, 0) + one.cells
        return counts


def run(
    config: Config,
    engine: Engine,
    store: Store,
    on_event: Callable[[Event], None] = lambda event: None,
    witness: Witness | None = None,
) -> CollectResult:
    """Fill every cell of the configuration that is not filled yet. `witness` knows why the engine died, where one can.

    Raises InputError (catalog, options), AllRefusedError (the policy refused every model), UnreachableError
    (the engine or MLflow is away; everything generated so far is in MLflow or in the journal). Cells that failed
    are no exception: they are in the result, and in MLflow with their reason.
    """
    started = now_ms()
    scenarios = load_scenarios(config.scenarios or None)
    if config.n_scenarios:
        scenarios = scenarios[: config.n_scenarios]
    prompts = load_prompts(config.prompt_list, config.prompts_dir or None)
    journal = Journal(config.spool, store.where, config.experiment)
    journal.hold()
    try:
        return _run(config, engine, store, on_event, witness, journal, prompts, scenarios, started)
    finally:
        journal.release()


def _run(
    config: Config,
    engine: Engine,
    store: Store,
    on_event: Callable[[Event], None],
    witness: Witness | None,
    journal: Journal,
    prompts: Sequence[Prompt],
    scenarios: Sequence[Scenario],
    started: int,
) -> CollectResult:
    """`run`, with the journal held."""
    info = engine.info()
    blocks, refused = _gate(config, engine, on_event)
    plan = [cell for block in blocks for cell in _plan(config, block, prompts, scenarios)]
    experiment_id = store.ensure_experiment(config.experiment)
    known = store.cell_runs(experiment_id)
    collection_id = _collection_id(config, plan, refused)
    receipt = {
        "tipbench": __version__,
        "engine": asdict(info),
        "models": {b.model: asdict(b.facts) if b.facts else None for b in blocks},
        "memory_estimates": {b.model: asdict(b.estimate) if b.estimate else None for b in blocks},
        "memory_limit_bytes": parse_bytes(config.memory_limit),
        "scenarios": {s.id: content_hash(asdict_like(s)) for s in scenarios},
        "prompts": {p.name: p.hash for p in prompts},
        "config": {k: v for k, v in asdict(config).items() if k not in ("mlflow_url", "spool")},
        "node": os.environ.get("TIPBENCH_NODE") or platform.node(),
        "machine": platform.machine(),
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
    }
    label = os.environ.get("TIPBENCH_RUN", "")
    parent = store.begin_collection(experiment_id, collection_id, [c.planned for c in plan], receipt, refused, label)
    if not blocks:
        # The refusal is kept all the same: whoever compares later is told why these models are not there.
        store.end_collection(parent, "FAILED", {"cells_collected": 0})
        raise AllRefusedError("every model was refused:\n" + "\n".join(f"  {reason}" for reason in refused.values()))
    tally = _Tally()
    writer = _Writer(store, journal, experiment_id, parent.run_id, known, tally, on_event)
    try:
        done = {cell_id for cell_id, run in known.items() if run.status == "FINISHED"}
        skipped = sum(c.planned.cell_id in done for c in plan)
        planned = {c.planned.cell_id for c in plan}
        partial = journal.noted()
        for result in journal.entries():
            if result.failure is not None and result.cell_id in planned - done:
                # It is tried again right now; what it did get is kept.
                partial = _merged(partial, {result.cell_id: result.candidates})
            else:
                writer.put(result)
                done.add(result.cell_id)
        todo = [c for c in plan if c.planned.cell_id not in done]
        before = len(plan) - len(todo)
        on_event(Event("start", f"{len(plan)} cells, {before} done before", total=len(plan), done=before))
        collector = _Collector(
            config, engine, witness, journal, writer, tally, collection_id, on_event, len(plan), before
        )
        earlier = _merged(_earlier_candidates(store, known, todo), partial)
        for block in blocks:
            collector.block(block, [c for c in todo if c.planned.model == block.model], earlier)
        writer.close()
    except BaseException as error:
        _finish_broken(store, writer, parent, tally, error)
        raise
    store.sweep(experiment_id)
    wall_s = (now_ms() - started) / 1000
    store.end_collection(
        parent,
        "FAILED" if tally.failed else "FINISHED",
        {"cells_collected": tally.collected, "cells_failed": sum(tally.failed.values()), "wall_s": wall_s},
    )
    return CollectResult(
        experiment=config.experiment,
        collection_id=collection_id,
        planned=len(plan),
        skipped=skipped,
        collected=tally.collected,
        failed=tally.failed,
        why=tuple(tally.why.values()),
        refused=refused,
        generations=tally.generations,
        wall_s=wall_s,
        engine_s=tally.engine_s,
        warnings=tuple(tally.warnings),
    )


def asdict_like(scenario: Scenario) -> dict[str, str]:
    """A scenario's content, for its hash."""
    return {"id": scenario.id, "title": scenario.title, "situation": scenario.situation}


def _finish_broken(store: Store, writer: _Writer, parent: Run, tally: _Tally, error: BaseException) -> None:
    """Save what is already generated, and close the collection as interrupted; the first error stays the one shown."""
    try:
        writer.close(hurry=not isinstance(error, UnreachableError))
        store.end_collection(parent, "KILLED", {"cells_collected": tally.collected})
    except TipbenchError as second:
        error.add_note(str(second))


# -- the policy's gates --------------------------------------------------------------------------


def _gate(config: Config, engine: Engine, on_event: Callable[[Event], None]) -> tuple[list[_Block], dict[str, str]]:
    """The models that may run, in the order asked for, and the refused ones with the reason."""
    blocks, refused = [], {}
    limit = parse_bytes(config.memory_limit)
    for model in config.model_list:
        facts, failure = None, None
        verdict = check_tag(model, config.max_model_b)
        try:
            facts = engine.describe(model)
        except ModelMissing as error:
            if verdict.allowed and config.pull:
                facts, failure = _pull(engine, model, on_event)
            else:
                failure = Failure(reason=error.reason, message=str(error))
        except GenerationError as error:
            failure = Failure(reason=error.reason, message=str(error))
        estimate = None
        if facts is not None:
            # The fact decides; what the tag promised only guards the pull.
            estimate = estimate_memory(facts.size_bytes, facts.kv_bytes_per_token, config.num_ctx, config.parallel)
            verdict = check_parameters(model, facts.parameters, config.max_model_b)
            if verdict.allowed:
                verdict = check_memory(model, estimate, limit)
        if verdict.allowed:
            blocks.append(_Block(model, facts, estimate, failure))
        else:
            refused[model] = verdict.reason
            on_event(Event("refused", f"refused: {verdict.reason}"))
    return blocks, refused


def _pull(engine: Engine, model: str, on_event: Callable[[Event], None]) -> tuple[ModelFacts | None, Failure | None]:
    pull = getattr(engine, "pull", None)
    if pull is None:
        raise InputError("--pull needs the Ollama engine")
    on_event(Event("note", f"pulling {model}"))
    try:
        pull(model)
        return engine.describe(model), None
    except GenerationError as error:
        return None, Failure(reason=error.reason, message=str(error))


# -- the plan ------------------------------------------------------------------------------------


def _plan(config: Config, block: _Block, prompts: Sequence[Prompt], scenarios: Sequence[Scenario]) -> Iterator[_Cell]:
    facts = block.facts
    for prompt in prompts:
        for scenario in scenarios:
            params = {
                "temperature": repr(config.temperature),
                "seed": str(config.seed),
                "num_predict": str(config.num_predict),
                "num_ctx": str(config.num_ctx),
                "engine": config.engine,
                "model_digest": facts.digest if facts else "",
                "prompt_hash": prompt.hash,
                "scenario_hash": content_hash(asdict_like(scenario)),
            }
            identity = {"model": block.model, "prompt": prompt.name, "scenario": scenario.id, "n_tips": config.n_tips}
            cell_id = content_hash(identity | params)[:32]
            planned = PlannedCell(cell_id, block.model, prompt.name, scenario.id, config.n_tips)
            yield _Cell(planned, scenario, prompt.messages(scenario), params)


def _collection_id(config: Config, plan: Sequence[_Cell], refused: Mapping[str, str]) -> str:
    """The same plan resumes the same collection; one that is all refusals is known by the refused models."""
    parts = [c.planned.cell_id for c in plan] or sorted(refused)
    return sha256("\n".join([config.experiment, *parts]).encode()).hexdigest()[:16]


def _earlier_candidates(
    store: Store, known: Mapping[str, Run], todo: Sequence[_Cell]
) -> dict[str, tuple[Candidate, ...]]:
    """What failed cells did get before they failed; it is not generated again."""
    runs = [known[c.planned.cell_id] for c in todo if c.planned.cell_id in known]
    partial = [r for r in runs if r.status == "FAILED" and r.tags.get("tipbench.n_candidates", "0") != "0"]
    return {result.cell_id: result.candidates for result in store.results(partial)}


def _merged(*sources: Mapping[str, Sequence[Candidate]]) -> dict[str, tuple[Candidate, ...]]:
    """cell id -> its candidates from all sources, each index once."""
    found: dict[str, dict[int, Candidate]] = {}
    for source in sources:
        for cell_id, candidates in source.items():
            found.setdefault(cell_id, {}).update({c.index: c for c in candidates})
    return {cell_id: tuple(by_index.values()) for cell_id, by_index in found.items()}


# -- generating ----------------------------------------------------------------------------------


class _Collector:
    """Walks the plan, one model's block after the other."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        witness: Witness | None,
        journal: Journal,
        writer: _Writer,
        tally: _Tally,
        collection_id: str,
        on_event: Callable[[Event], None],
        total: int,
        done: int,
    ) -> None:
        self._config = config
        self._engine = engine
        self._witness = witness
        self._journal = journal
        self._writer = writer
        self._tally = tally
        self._collection_id = collection_id
        self._on_event = on_event
        self._total = total
        self._done = done
        self._limit = parse_bytes(config.memory_limit)
        self._stopping = threading.Event()
        self._options = Options(
            temperature=config.temperature,
            num_predict=config.num_predict,
            num_ctx=config.num_ctx,
            num_thread=config.num_thread or None,
            parallel=config.parallel,
            keep_alive=config.keep_alive,
        )

    def block(self, block: _Block, cells: Sequence[_Cell], earlier: Mapping[str, tuple[Candidate, ...]]) -> None:
        """All cells of one model; the model is gone from memory when this returns."""
        if not cells:
            return
        if block.failure is not None:
            for cell in cells:
                self._finish(cell, (), block.failure, None, now_ms(), quiet=True)
            failed = FailedCells(block.model, block.failure.reason, len(cells), block.failure.message)
            self._on_event(Event("failed", str(failed), total=self._total, done=self._done))
            return
        self._make_room(block.model)
        pool = ThreadPoolExecutor(self._config.parallel, thread_name_prefix="generate")
        try:
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
        for resident in self._engine.resident():
            if resident.name not in (model, f"{model}:latest"):
                self._on_event(Event("note", f"freeing {resident.name}, which was still loaded"))
                self._engine.unload(resident.name)

    def _engine_free(self, model: str, quietly: bool = False) -> None:
        try:
            self._engine.unload(model)
        except TipbenchError as error:
            if not quietly:
                self._warn(str(error))

    def _warn(self, message: str) -> None:
        if message not in self._tally.warnings:
            self._tally.warnings.append(message)
            self._on_event(Event("warning", message))

    def _generate(
        self,
        block: _Block,
        cells: Sequence[_Cell],
        earlier: Mapping[str, tuple[Candidate, ...]],
        pool: ThreadPoolExecutor,
    ) -> None:
        """One whole cell per slot: its candidates share a prompt, so the slot's prompt cache serves all but the first."""
        waiting = deque(cells)
        flight: dict[Future[_Filled], _Cell] = {}
        failures: list[Failure] = []
        peak: int | None = None
        while waiting or flight:
            if len(failures) >= self._patience(failures):
                # What is in flight still counts; what has not begun shares the verdict.
                while waiting:
                    last = failures[-1]
                    message = f"not tried after {len(failures)} failed cells in a row: {last.message}"
                    self._finish(waiting.popleft(), (), Failure(reason=last.reason, message=message), peak, now_ms())
                if not flight:
                    return
            while waiting and len(flight) < self._config.parallel:
                cell = waiting.popleft()
                kept = earlier.get(cell.planned.cell_id, ())
                flight[pool.submit(self._fill, cell, kept, block)] = cell
            done, peak = self._await(flight, peak)
            for future in done:
                cell, filled = flight.pop(future), future.result()
                self._finish(cell, filled.candidates, filled.failure, peak, filled.began_ms)
                failures = [*failures, filled.failure] if filled.failure else []
                if filled.failure is not None and filled.failure.reason == "EngineUnreachable":
                    left = len(waiting) + len(flight)
                    raise EngineUnreachable(
                        f"{filled.failure.message} {left} cells of {block.model} are left; the same command resumes."
                    )

    def _await(
        self, flight: Mapping[Future[_Filled], _Cell], peak: int | None
    ) -> tuple[list[Future[_Filled]], int | None]:
        """The cells that are done, at least one; and the peak of memory, read once while the engine is at work."""
        done, _ = wait(flight, timeout=WATCH_AFTER_S, return_when=FIRST_COMPLETED)
        peak = self._watch_memory(peak)
        if not done:
            done, _ = wait(flight, return_when=FIRST_COMPLETED)
        return [future for future in flight if future in done], peak

    def _patience(self, failures: Sequence[Failure]) -> int:
        """Failures in a row to bear: what does not fit in memory or is not there will not get better."""
        if failures and failures[-1].reason == OutOfMemory.reason:
            return 2
        if failures and failures[-1].reason == ModelMissing.reason:
            return 1
        return GIVE_UP_AFTER

    def _watch_memory(self, peak: int | None) -> int | None:
        """The largest size that the engine has reported so far."""
        try:
            residents = self._engine.resident()
        except TipbenchError:
            return peak
        if len(residents) > 1:
            self._warn("more than one model in memory: " + ", ".join(r.name for r in residents))
        sizes = [r.size_bytes for r in residents if r.size_bytes is not None]
        return max([*sizes, *([peak] if peak is not None else [])], default=None)

    def _fill(self, cell: _Cell, kept: Sequence[Candidate], block: _Block) -> _Filled:
        """The candidates that a cell still lacks, one after the other; stops at the first that fails."""
        began = now_ms()
        candidates = list(kept)
        failure = None
        for index in sorted(set(range(cell.planned.n_tips)) - {c.index for c in kept}):
            if self._stopping.is_set():
                break
            seed = self._config.seed + index
            try:
                generation = self._engine.generate(cell.planned.model, cell.messages, self._options, seed)
            except (EngineUnreachable, GenerationError) as error:
                failure = self._explain(error, block, began)
                break
            candidates.append(_as_candidate(index, seed, generation))
            self._journal.note(cell.planned.cell_id, candidates[-1])
            with self._tally.lock:
                self._tally.generations += 1
                self._tally.engine_s += generation.total_s or generation.wall_s
        candidates.sort(key=lambda c: c.index)
        if failure is not None and candidates:
            missing = cell.planned.n_tips - len(candidates)
            words = f"{failure.message} ({missing} of {cell.planned.n_tips} candidates missing)"
            failure = failure.model_copy(update={"message": words})
        return _Filled(tuple(candidates), failure, began)

    def _explain(self, error: EngineUnreachable | GenerationError, block: _Block, began_ms: int) -> Failure:
        """The failure in words. A kill for memory has two faces: Ollama says that its runner was killed, or Ollama is gone."""
        message = str(error)
        if not isinstance(error, OutOfMemory) and self._witness is not None:
            death = self._witness.killed(began_ms)
            if death:
                error, message = OutOfMemory(death), f"{block.model} does not fit in memory. {death}"
        if isinstance(error, EngineUnreachable):
            return Failure(reason="EngineUnreachable", message=message)
        if isinstance(error, OutOfMemory):
            bound = self._limit if self._witness is None else (self._witness.memory_limit() or self._limit)
            limit = format_bytes(bound) if bound is not None else "not stated (--memory-limit)"
            need = format_bytes(block.estimate.total) if block.estimate else "unknown"
            message = f"{message} Memory limit: {limit}; estimated need of {block.model}: {need}."
        return Failure(reason=error.reason, message=message)

    def _finish(
        self,
        cell: _Cell,
        candidates: tuple[Candidate, ...],
        failure: Failure | None,
        peak: int | None,
        began: int,
        quiet: bool = False,
    ) -> None:
        """Hand a finished or failed cell over; `quiet` leaves the telling to whoever finishes many at once."""
        planned = cell.planned
        flags = check([c.text for c in candidates], cell.messages, [c.done_reason for c in candidates])
        counts: dict[str, int] = {}
        for one in flags:
            for name, flagged in asdict(one).items():
                counts[name] = counts.get(name, 0) + int(flagged)
        result = CellResult(
            cell_id=planned.cell_id,
            collection_id=self._collection_id,
            model=planned.model,
            prompt=planned.prompt,
            scenario=planned.scenario,
            situation=cell.scenario.situation,
            n_tips=planned.n_tips,
            params=dict(cell.params),
            tags={},
            candidates=candidates,
            flags=counts,
            resident_bytes=peak,
            failure=failure,
            started_ms=began,
            ended_ms=now_ms(),
        )
        self._journal.add(result)
        self._writer.put(result)
        self._done += 1
        if quiet:
            return
        name = f"{planned.model} | {planned.prompt} | {planned.scenario}"
        if failure is None:
            seconds = (result.ended_ms - began) / 1000
            line = f"{name}: {len(candidates)} tips in {seconds:.1f} s"
            self._on_event(Event("cell", line, total=self._total, done=self._done))
        else:
            line = f"{name}: failed, {failure.reason}: {failure.message}"
            self._on_event(Event("failed", line, total=self._total, done=self._done))


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


# -- writing -------------------------------------------------------------------------------------


class _Writer:
    """Brings journalled cells to MLflow from threads of its own; the first error stops the collection."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        experiment_id: str,
        parent_run_id: str,
        known: Mapping[str, Run],
        tally: _Tally,
        on_event: Callable[[Event], None],
    ) -> None:
        self._store = store
        self._journal = journal
        self._experiment_id = experiment_id
        self._parent_run_id = parent_run_id
        self._known = known
        self._tally = tally
        self._on_event = on_event
        # Bounded, so that a slow MLflow holds the engine back instead of filling memory; the journal has the rest.
        self._queue: queue.Queue[CellResult | None] = queue.Queue(maxsize=256)
        self._error: TipbenchError | None = None
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"write-{i}") for i in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def put(self, result: CellResult) -> None:
        """Hand over a journalled cell; raises the writer's own error, if it had one."""
        while True:
            self._raise_error()
            try:
                return self._queue.put(result, timeout=0.5)
            except queue.Full:
                continue

    def close(self, hurry: bool = False) -> None:
        """Wait until MLflow has everything. `hurry` gives up on what is still queued: the journal keeps it."""
        if hurry:
            while True:
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    break
        for _ in self._threads:
            while self._error is None:
                try:
                    self._queue.put(None, timeout=0.5)
                    break
                except queue.Full:
                    continue
        for thread in self._threads:
            thread.join(timeout=10 if hurry else None)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            left = len(self._journal)
            error = self._error
            if isinstance(error, UnreachableError):
                raise UnreachableError(
                    f"{error} {left} cells are kept in {self._journal.folder}; the same command resumes and saves them."
                ) from error
            raise error

    def _work(self) -> None:
        while self._error is None:
            try:
                result = self._queue.get(timeout=0.5)
            except queue.Empty:
                continue
            if result is None:
                return
            try:
                self._save(result)
            except TipbenchError as error:
                self._error = error

    def _save(self, result: CellResult) -> None:
        known = self._known.get(result.cell_id)
        if known is not None and known.status == "FINISHED":
            # The process died between MLflow's answer and the journal's line: the cell counts as there before.
            self._journal.remove(result.cell_id)
            return
        self._store.save_cell(self._experiment_id, self._parent_run_id, result, known)
        self._journal.remove(result.cell_id)
        with self._tally.lock:
            if result.failure is None:
                self._tally.collected += 1
            else:
                reason = result.failure.reason
                so_far = self._tally.why.get((result.model, reason))
                one = so_far or FailedCells(result.model, reason, 0, result.failure.message)
                self._tally.why[result.model, reason] = replace(one, cells=one.cells + 1)
        self._on_event(Event("saved", f"{result.model} | {result.prompt} | {result.scenario}"))
