"""Collect: have every (model, prompt) write tips for every scenario, one model in memory at a time.

A plan is made first, then carried out: what the experiment already has is kept, whoever collected it; a cell with too few tips gets those that it
lacks. A finished cell goes to the journal, then to MLflow from a second thread, so that the engine never waits for MLflow.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tipbench import __version__
from tipbench.catalog import Prompt, Scenario, load_prompts, load_rubric, load_scenarios
from tipbench.collecting.gate import Measured, gate
from tipbench.collecting.generate import Generator, Task
from tipbench.collecting.plan import Cell, Plan, make_plan, narrowed, row_id, scenario_hash, tight
from tipbench.collecting.progress import Event, FailedCells, OnEvent, Tally
from tipbench.config import Config
from tipbench.counting.census import keeper
from tipbench.counting.identity import Row, cell_id, options_of, unknown
from tipbench.counting.marks import refresh
from tipbench.engines.base import Engine, EngineInfo, ModelFacts, Options, Witness
from tipbench.engines.measuring import open_meter
from tipbench.errors import AllRefusedError, InputError, TipbenchError, UnreachableError
from tipbench.memory.meter import Reading
from tipbench.policy import parse_bytes
from tipbench.rounds import record
from tipbench.store import Store, now_ms
from tipbench.store.journal import Journal
from tipbench.store.memory import took_before
from tipbench.store.records import Candidate, CellRecord, CellResult, Run
from tipbench.store.writer import CellWriter

__all__ = ["CollectResult", "Event", "FailedCells", "run"]


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


def run(
    config: Config,
    engine: Engine,
    store: Store,
    on_event: OnEvent = lambda event: None,
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
    prompts = load_prompts(config.prompt_list, config.prompts_dir or None, scenarios)
    _check_cells(config)
    journal = Journal(config.spool, store.where, config.experiment)
    journal.hold()
    try:
        info = engine.info()
        limit = parse_bytes(config.memory_limit)
        blocks, refused = gate(config, engine, limit, on_event, _took_before(config, store, limit))
        plan = make_plan(config, blocks, refused, prompts, scenarios)
        for words in (*plan.same, *tight(plan.cells, config.num_ctx)):
            on_event(Event("warning", words))
        if config.until == "sure" and plan.blocks:
            plan = _next_round(config, store, plan, scenarios, on_event)
            if not plan.cells:
                return _nothing(config, plan)
        receipt = _receipt(config, info, plan, limit, prompts, scenarios)
        return _carry_out(config, engine, store, on_event, witness, journal, plan, receipt, limit, started)
    finally:
        journal.release()


def _took_before(config: Config, store: Store, limit: int | None) -> Measured:
    """Knows what earlier runs took, in whichever experiment; asked only where there is a limit."""
    experiments = [one.experiment_id for one in store.experiments()] if limit is not None else []

    def look_up(facts: ModelFacts) -> Reading | None:
        cells = store.cells_of_model(experiments, facts.digest)
        return took_before(cells, facts.digest, config.num_ctx, config.parallel, config.engine)

    return look_up


def _check_cells(config: Config) -> None:
    """Every cell that is asked for by name must be among models x prompts."""
    known = {(m, p) for m in config.model_list for p in config.prompt_list}
    stray = sorted(f"{m}|{p}" for m, p in config.cell_list - known)
    if stray:
        raise InputError(f"cells: {', '.join(stray)} is not among the models and prompts", tuple(stray))


def _next_round(config: Config, store: Store, plan: Plan, scenarios: Sequence[Scenario], on_event: OnEvent) -> Plan:
    """The part of the plan that the next look needs: the cells that are in, up to the end of its block."""
    rubric = load_rubric(config.rubric or None)
    members = [record.Member(row=row_id(c), model=c.planned.model, prompt=c.planned.prompt) for c in plan.cells]
    race = record.enter(
        store,
        store.ensure_experiment(config.experiment),
        rubric.hash,
        scenarios=[s.id for s in scenarios],
        members=members,
        block=config.block,
        seed=config.seed,
    )
    wanted = race.wanted(rubric.margin(config.margin))
    if not wanted:
        on_event(Event("note", "the decision is made: nothing more to collect"))
        return narrowed(config, plan, lambda cell: False)
    place = {name: i for i, name in enumerate(race.scenarios)}
    number = min(len(race.looks) + 1, len(race.ends))
    on_event(Event("note", f"round {number} of at most {len(race.ends)}, {len(wanted)} cells in"))
    return narrowed(config, plan, lambda cell: place[cell.planned.scenario] < wanted.get(row_id(cell), 0))


def _nothing(config: Config, plan: Plan) -> CollectResult:
    """The result of a collection that nothing was left for."""
    return CollectResult(config.experiment, plan.collection_id, 0, 0, 0, {}, (), plan.refused, 0, 0.0, 0.0, plan.same)


def _receipt(
    config: Config,
    info: EngineInfo,
    plan: Plan,
    limit: int | None,
    prompts: Sequence[Prompt],
    scenarios: Sequence[Scenario],
) -> dict[str, object]:
    """What it takes to do the same again."""
    return {
        "tipbench": __version__,
        "engine": asdict(info),
        "models": {b.model: asdict(b.facts) if b.facts else None for b in plan.blocks},
        "memory_estimates": {b.model: asdict(b.estimate) if b.estimate else None for b in plan.blocks},
        "memory_limit_bytes": limit,
        "scenarios": {s.id: scenario_hash(s) for s in scenarios},
        "prompts": {p.name: p.hash for p in prompts},
        "config": {k: v for k, v in asdict(config).items() if k not in ("mlflow_url", "spool", "notify_url")},
        "node": os.environ.get("TIPBENCH_NODE") or platform.node(),
        "machine": platform.machine(),
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
    }


def _carry_out(
    config: Config,
    engine: Engine,
    store: Store,
    on_event: OnEvent,
    witness: Witness | None,
    journal: Journal,
    plan: Plan,
    receipt: Mapping[str, object],
    limit: int | None,
    started: int,
) -> CollectResult:
    """Fill the plan's cells, with the journal held."""
    experiment_id = store.ensure_experiment(config.experiment)
    known = _known(store, experiment_id)
    label = os.environ.get("TIPBENCH_RUN", "")
    parent = store.begin_collection(
        experiment_id, plan.collection_id, [c.planned for c in plan.cells], receipt, plan.refused, label
    )
    if not plan.blocks:
        # The refusal is kept all the same: whoever compares later is told why these models are not there.
        store.end_collection(parent, "FAILED", {"cells_collected": 0})
        reasons = "\n".join(f"  {reason}" for reason in plan.refused.values())
        raise AllRefusedError("every model was refused:\n" + reasons)
    tally = Tally()

    def saved(result: CellResult) -> None:
        tally.saved(result)
        on_event(Event("saved", f"{result.model} | {result.prompt} | {result.scenario}"))

    writer = CellWriter(store, journal, (experiment_id, parent.run_id), known, saved)
    try:
        waiting, on_disk = _journalled(journal, writer, plan)
        todo = [c for c in plan.cells if c.id not in on_disk and _lacks(c, known.get(c.id))]
        before = len(plan.cells) - len(todo)
        on_event(Event("start", f"{len(plan.cells)} cells, {before} done before", total=len(plan.cells), done=before))
        task = Task(
            engine=engine,
            meter=open_meter(engine),
            options=Options(
                temperature=config.temperature,
                num_predict=config.num_predict,
                num_ctx=config.num_ctx,
                num_thread=config.num_thread or None,
                parallel=config.parallel,
                keep_alive=config.keep_alive,
            ),
            seed=config.seed,
            memory_limit=limit,
            witness=witness,
            journal=journal,
            writer=writer,
            tally=tally,
            collection_id=plan.collection_id,
            total=len(plan.cells),
            on_event=on_event,
        )
        earlier = _merged(_earlier_candidates(store, known, todo), journal.noted(), waiting)
        generator = Generator(task, before)
        for block in plan.blocks:
            generator.block(block, [c for c in todo if c.planned.model == block.model], earlier)
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
    refresh(store, experiment_id)
    store.index(experiment_id)
    return CollectResult(
        experiment=config.experiment,
        collection_id=plan.collection_id,
        planned=len(plan.cells),
        skipped=before,
        collected=tally.collected,
        failed=tally.failed,
        why=tuple(tally.why.values()),
        refused=plan.refused,
        generations=tally.generations,
        wall_s=wall_s,
        engine_s=tally.engine_s,
        warnings=(*plan.same, *tally.warnings),
    )


def _known(store: Store, experiment_id: str) -> dict[str, Run]:
    """cell id -> the run that is there: the one that counts, else one that was left half-written."""
    by_id: dict[str, list[CellRecord]] = {}
    for cell in store.holdings(experiment_id).cells:
        by_id.setdefault(_id_of(cell), []).append(cell)
    half = {_id_of(cell): cell.run for cell in store.half_written(experiment_id)}
    return half | {key: keeper(cells).run for key, cells in by_id.items()}


def _id_of(cell: CellRecord) -> str:
    return _id(cell.model, cell.prompt, cell.scenario, cell.run.params)


def _id(model: str, prompt: str, scenario: str, params: Mapping[str, str]) -> str:
    """A cell's id from what its run says of it, whichever version of tipbench made the run."""
    row = Row(
        params.get("model_digest") or unknown(model), params.get("prompt_hash") or unknown(prompt), options_of(params)
    )
    return cell_id(row, params.get("scenario_hash") or unknown(scenario))


def _lacks(cell: Cell, run: Run | None) -> bool:
    """Is there anything of the cell left to generate?"""
    return (
        run is None or run.status != "FINISHED" or int(run.tags.get("tipbench.n_candidates", "0")) < cell.planned.n_tips
    )


def _journalled(
    journal: Journal, writer: CellWriter, plan: Plan
) -> tuple[dict[str, tuple[Candidate, ...]], frozenset[str]]:
    """Bring cells that an interrupted run left on disk to the store.

    Returns the candidates of those that this plan goes on with, and the ids of those that are complete: the writer has
    them, the store may not yet, and nobody writes them again.
    """
    planned = {c.id: c.planned.n_tips for c in plan.cells}
    waiting: dict[str, tuple[Candidate, ...]] = {}
    complete: set[str] = set()
    for result in list(journal.entries()):
        key = _id(result.model, result.prompt, result.scenario, result.params)
        if key != result.cell_id:  # an id of version 0.2.0
            journal.add(result.model_copy(update={"cell_id": key}))
            journal.remove(result.cell_id)
            result = result.model_copy(update={"cell_id": key})
        if key in planned and (result.failure is not None or len(result.candidates) < planned[key]):
            # It is tried again, or goes on, right now; what it did get is kept.
            waiting[key] = result.candidates
        else:
            writer.put(result)
            if planned.pop(key, None) is not None:
                complete.add(key)
    return waiting, frozenset(complete)


def _earlier_candidates(
    store: Store, known: Mapping[str, Run], todo: Sequence[Cell]
) -> dict[str, tuple[Candidate, ...]]:
    """What unfinished cells and cells with too few tips have already; it is not generated again."""
    there = [(c.id, known[c.id]) for c in todo if c.id in known]
    partial = [(key, run) for key, run in there if run.tags.get("tipbench.n_candidates", "0") != "0"]
    results = store.results([run for _, run in partial])
    return {key: result.candidates for (key, _), result in zip(partial, results, strict=True)}


def _merged(*sources: Mapping[str, Sequence[Candidate]]) -> dict[str, tuple[Candidate, ...]]:
    """cell id -> its candidates from all sources, each index once; the first source wins."""
    found: dict[str, dict[int, Candidate]] = {}
    for source in sources:
        for key, candidates in source.items():
            slots = found.setdefault(key, {})
            for candidate in candidates:
                slots.setdefault(candidate.index, candidate)
    return {key: tuple(by_index.values()) for key, by_index in found.items()}


def _finish_broken(store: Store, writer: CellWriter, parent: Run, tally: Tally, error: BaseException) -> None:
    """Save what is already generated, and close the collection as interrupted; the first error stays the one shown."""
    try:
        writer.close(hurry=not isinstance(error, UnreachableError))
        store.end_collection(parent, "KILLED", {"cells_collected": tally.collected})
    except TipbenchError as second:
        if second is not error and str(second) != str(error):
            error.add_note(str(second))
