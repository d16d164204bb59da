"""Behind the routes: the store, called in threads with limits, and caches that know when an experiment has changed."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import dataclasses
import io
import re
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from tipbench import __version__
from tipbench.api import racing
from tipbench.api.backends import Backend
from tipbench.api.models import RaceState
from tipbench.api.problems import Problem
from tipbench.api.settings import Settings
from tipbench.api.web import Metrics
from tipbench.catalog import Rubric, content_hash, load_rubric
from tipbench.counting import marks
from tipbench.counting.census import Census, take
from tipbench.counting.judged import MANUAL, Asked, Judges
from tipbench.counting.sample import asked_for
from tipbench.counting.status import Status, status
from tipbench.errors import TipbenchError, UnreachableError
from tipbench.leaderboard.markdown import to_markdown
from tipbench.leaderboard.model import Leaderboard, to_json
from tipbench.leaderboard.options import AS_IT_STANDS, BoardOptions
from tipbench.rounds import record
from tipbench.rounds.standing import advance
from tipbench.store import Store, StoreError
from tipbench.store.backend import StoreUnreachable
from tipbench.store.records import CellRecord, ExperimentInfo, Holdings

if TYPE_CHECKING:
    from tipbench.stages.compare import Ranking

P = ParamSpec("P")
T = TypeVar("T")

STORE_THREADS, BACK_END_THREADS = 24, 8
WAITING = 200
"""Calls that may wait for a thread; more are turned away at once, with 503."""
STATE_S = 1.0
"""How long an experiment's state is believed before it is looked at again."""
LOOKING_S = 10.0
"""How long it is still handed out while somebody else looks: a crowd does not wait for one slow look."""
BOARDS, DIGESTS, KNOWN = 32, 64, 4
"""Leaderboards, digests and whole experiments kept; one of ten thousand cells takes some 60 MiB."""
WORTH = 10.0
"""A digest that took a second to read is believed for ten: a list of experiments need not be newer than that."""
SLOW_S = 1.0
"""An experiment that is slower to read than this is believed for a while, too, while a judge scores it through here."""
MARKS_S = 5.0
"""How long after a score the marks that a waiting run reads are renewed; at once when nothing is left to score."""
KEYS = 3
"""Keys of exchange files kept; one of ten thousand cells takes some 30 MiB."""


@dataclass(frozen=True)
class Row:
    """What lists and progress need of one cell that counts or failed; a thousand of them are small."""

    model: str
    prompt: str
    scenario: str
    n_tips: int
    options: tuple[str, ...]
    finished: bool
    pending: bool
    """Some tip of it waits for somebody, under the rubric in force."""
    failure: str
    n_candidates: int
    wall_s: float | None
    ended_ms: int


OPTIONS = ("temperature", "seed", "num_predict", "num_ctx")
"""Parameters that tell one collection's cells from another's."""


@dataclass(frozen=True)
class Digest:
    """An experiment's cells in brief."""

    experiment_id: str
    rows: tuple[Row, ...]
    refused: dict[str, str]
    status: Status | None = None


@dataclass(frozen=True)
class Known:
    """An experiment as it was read: what the store holds, and what of it counts."""

    holdings: Holdings
    census: Census

    @cached_property
    def cells(self) -> dict[str, CellRecord]:
        """Cells that count and are finished, by run id."""
        return {e.run_id: e.cell for e in self.census.counted}

    def with_cells(self, cells: Sequence[CellRecord]) -> Known:
        """The same with these cells as they are now; how they stand does not change by a score."""
        new = {cell.run.run_id: cell for cell in cells}
        entries = tuple(
            dataclasses.replace(e, cell=new[e.run_id]) if e.run_id in new else e for e in self.census.entries
        )
        held = tuple(new.get(cell.run.run_id, cell) for cell in self.holdings.cells)
        return Known(dataclasses.replace(self.holdings, cells=held), dataclasses.replace(self.census, entries=entries))


@dataclass
class Board:
    """One ranking in its renderings; those with figures are drawn when they are first asked for."""

    ranking: Ranking
    etag: str
    renderings: dict[str, bytes]

    @property
    def leaderboard(self) -> Leaderboard:
        """The numbers."""
        return self.ranking.leaderboard

    def draw(self, kind: str, store: Store) -> bytes:
        """The report (html), or one of the figures (forest, race, tradeoff, tradeoff-narrow) as SVG: empty when there is nothing to draw."""
        if kind not in self.renderings:
            self.renderings[kind] = _draw(self.ranking, kind, store).encode()
        return self.renderings[kind]


class _Turn:
    """Somebody computes a value, and others wait."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.outage: StoreUnreachable | None = None


class Cache(Generic[T]):
    """The values last used, each computed once however many ask for it at the same time.

    Whoever waited while the store could not be reached is told so, too, instead of finding out anew, one after the other.
    """

    def __init__(self, size: int, what: str, metrics: Metrics) -> None:
        self._size = size
        self._kept: OrderedDict[object, T] = OrderedDict()
        self._turns: dict[object, _Turn] = {}
        self._hits = metrics.cache.labels(what, "hit")
        self._misses = metrics.cache.labels(what, "miss")

    def peek(self, slot: object) -> T | None:
        """What is kept, fresh or not."""
        return self._kept.get(slot)

    def put(self, slot: object, value: T) -> None:
        """Keep a value that was made otherwise, in the place of the one that is kept."""
        if slot in self._kept:
            self._kept[slot] = value

    def forget(self, slot: object) -> None:
        """Compute it anew next time."""
        self._kept.pop(slot, None)

    async def get(
        self,
        slot: object,
        is_fresh: Callable[[T], bool],
        compute: Callable[[], Awaitable[T]],
        meanwhile: Callable[[T], bool] = lambda value: False,
    ) -> T:
        """The slot's value while `is_fresh`, else what `compute` makes of it. While somebody else computes, one that is good
        enough `meanwhile` is handed out at once.
        """
        while True:
            if slot in self._kept and is_fresh(self._kept[slot]):
                self._hits.inc()
                self._kept.move_to_end(slot)
                return self._kept[slot]
            if (other := self._turns.get(slot)) is None:
                break
            if slot in self._kept and meanwhile(self._kept[slot]):
                self._hits.inc()
                return self._kept[slot]
            await other.over.wait()
            if other.outage is not None:
                raise other.outage
        mine = self._turns[slot] = _Turn()
        self._misses.inc()
        try:
            value = self._kept[slot] = await compute()
        except StoreUnreachable as error:
            mine.outage = error
            raise
        finally:
            del self._turns[slot]
            mine.over.set()
        self._kept.move_to_end(slot)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return value


@dataclass(frozen=True)
class _Read:
    mark: str
    read_at: float


@dataclass(frozen=True)
class _Marked(Generic[T]):
    mark: str
    value: T
    read_at: float
    cost: float


class Service:
    """What the routes call. One for the app's life."""

    def __init__(self, settings: Settings, store: Store, back_end: Backend, metrics: Metrics) -> None:
        self.settings = settings
        self.store = store
        self.back_end = back_end
        self.metrics = metrics
        self._store_threads = anyio.CapacityLimiter(STORE_THREADS)
        self._back_end_threads = anyio.CapacityLimiter(BACK_END_THREADS)
        # Comparing takes a core, and matplotlib's settings are the process's: one at a time.
        self._work = anyio.CapacityLimiter(1)
        self._ids: Cache[_Read] = Cache(1024, "experiment", metrics)
        self._states: Cache[_Read] = Cache(1024, "state", metrics)
        self._digests: Cache[_Marked[Digest]] = Cache(DIGESTS, "digest", metrics)
        self._lists: Cache[_Marked[list[ExperimentInfo]]] = Cache(1, "experiments", metrics)
        self._boards: Cache[_Marked[Board]] = Cache(BOARDS, "leaderboard", metrics)
        self._known: Cache[_Marked[Known]] = Cache(KNOWN, "experiment", metrics)
        self._rescored: dict[str, float] = {}
        self._saved: dict[str, deque[tuple[float, CellRecord]]] = {}
        self._renewing: dict[str, asyncio.Task[None]] = {}
        self._races: Cache[_Marked[record.Race]] = Cache(DIGESTS, "race", metrics)
        self._looked: dict[str, str] = {}
        self._keys: Cache[Mapping[str, Any]] = Cache(KEYS, "key", metrics)
        self._applying: dict[str, asyncio.Lock] = {}

    # -- threads -------------------------------------------------------------------------------

    async def in_store(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A call that waits for MLflow, in a thread. Errors are counted and come out as they are."""
        return await self._counted("mlflow", self._store_threads, call, *args, **kwargs)

    async def in_back_end(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A call that waits for Airflow (or for the disk), in a thread."""
        return await self._counted("airflow", self._back_end_threads, call, *args, **kwargs)

    async def at_work(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A call that takes a core, in a thread, one at a time."""
        return await self._counted("mlflow", self._work, call, *args, **kwargs)

    async def _counted(
        self, service: str, limiter: anyio.CapacityLimiter, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if limiter.statistics().tasks_waiting > WAITING:
            raise Problem(503, f"Too many requests are waiting for {service}.", headers={"Retry-After": "5"})
        try:
            return await anyio.to_thread.run_sync(partial(call, *args, **kwargs), limiter=limiter)
        except TipbenchError as error:
            if isinstance(error, UnreachableError | StoreError):
                self.metrics.upstream.labels(service).inc()
            raise

    async def close(self) -> None:
        """Stop what runs here, and release connections."""
        for experiment_id, task in list(self._renewing.items()):
            task.cancel()
            with contextlib.suppress(TipbenchError):
                await self.in_store(marks.refresh, self.store, experiment_id)
        await anyio.to_thread.run_sync(self.back_end.close)
        self.store.close()

    # -- experiments ---------------------------------------------------------------------------

    async def experiments(self) -> list[ExperimentInfo]:
        """All of them, at most a second old."""

        async def read() -> _Marked[list[ExperimentInfo]]:
            began = time.monotonic()
            return _Marked("", await self.in_store(self.store.experiments), began, 0.0)

        found = await self._lists.get(
            "",
            lambda one: time.monotonic() - one.read_at < STATE_S,
            read,
            lambda one: time.monotonic() - one.read_at < LOOKING_S,
        )
        return found.value

    async def experiment_id(self, name: str) -> str:
        """The experiment's id; raises 404. An id once found is believed for a while: it never changes."""

        async def find() -> _Read:
            store = self.store
            found = await self.in_store(store.find_experiment, name)
            if found is None:
                raise Problem(404, f"There is no experiment {name}; GET /api/bench/experiments lists those there are.")
            return _Read(found, time.monotonic())

        known = await self._ids.get(name, lambda one: time.monotonic() - one.read_at < 30, find)
        return known.mark

    async def state(self, experiment_id: str) -> str:
        """A mark of all that a leaderboard depends on: a second old, or as old as it takes to look again."""

        async def read() -> _Read:
            store = self.store
            began = time.monotonic()
            return _Read(await self.in_store(store.state, experiment_id), began)

        found = await self._states.get(
            experiment_id,
            lambda s: time.monotonic() - s.read_at < STATE_S,
            read,
            lambda s: time.monotonic() - s.read_at < LOOKING_S,
        )
        return found.mark

    def changed(self, experiment_id: str) -> None:
        """Something was just written: look again before believing anything."""
        self._states.forget(experiment_id)

    def applying(self, experiment_id: str) -> asyncio.Lock:
        """Held while scores are written: what one judge's file does to a cell depends on the others' scores of it."""
        return self._applying.setdefault(experiment_id, asyncio.Lock())

    def rubric(self) -> Rubric:
        """The rubric in force."""
        return load_rubric(self.settings.config.rubric or None)

    async def digest(self, experiment_id: str, name: str = "", ended: datetime | None = None) -> Digest:
        """The experiment's cells in brief, a little old at times; with `ended`, nothing that was there at that time is missing."""
        now = time.monotonic()
        rubric = self.rubric()
        if ended is not None:
            seen = self._states.peek(experiment_id)
            if seen is not None and seen.read_at < now - (time.time() - ended.timestamp()):
                self.changed(experiment_id)

        async def compute() -> _Marked[Digest]:
            mark = await self.state(experiment_id)
            began = time.monotonic()
            known = await self.known(experiment_id)
            value = await self.in_store(_digest, known, rubric.hash, name)
            return _Marked(mark, value, time.monotonic(), time.monotonic() - began)

        mark = await self.state(experiment_id)
        found = await self._digests.get(
            (experiment_id, rubric.hash),
            lambda d: d.mark == mark or (ended is None and now - d.read_at < WORTH * d.cost),
            compute,
        )
        return found.value

    async def known(self, experiment_id: str, *, judging: bool = False) -> Known:
        """The experiment as a whole, and what of it counts.

        `judging` takes one that is slow to read for a while as it is known here, or every score of a judge would have to wait
        for it: what came another way is seen a little later, what was saved through this service at once.
        """
        if judging:
            self.changed(experiment_id)
        mark, now = await self.state(experiment_id), time.monotonic()

        async def read() -> _Marked[Known]:
            began = time.monotonic()
            value = await self.in_store(_known, self.store, experiment_id)
            # A score that was saved meanwhile may have come too late for its cell.
            late = [cell for at, cell in self._saved.get(experiment_id, ()) if at >= began]
            return _Marked(mark, value.with_cells(late) if late else value, time.monotonic(), time.monotonic() - began)

        def is_fresh(found: _Marked[Known]) -> bool:
            if found.mark == mark:
                return True
            rescored = self._rescored.get(experiment_id, 0.0) > found.read_at - found.cost
            return judging and not rescored and found.cost > SLOW_S and now - found.read_at < WORTH * found.cost

        return (await self._known.get(experiment_id, is_fresh, read)).value

    async def status(self, experiment: str, asked: Asked, rubric: Rubric | None = None) -> Status:
        """What counts of an experiment, what is judged, and what waits for who was asked."""
        known = await self.known(await self.experiment_id(experiment))
        return await self.in_store(status, experiment, known.census, (rubric or self.rubric()).hash, asked)

    # -- judging -------------------------------------------------------------------------------

    async def export_key(self, experiment_id: str, export_id: str) -> Mapping[str, Any] | None:
        """The key of an exchange file, which never changes; None when this experiment never issued it."""

        async def read() -> Mapping[str, Any]:
            return await self.in_store(self.store.export_key, experiment_id, export_id) or {}

        return await self._keys.get((experiment_id, export_id), bool, read) or None

    async def saved(self, experiment_id: str, cells: Sequence[CellRecord]) -> None:
        """Scores of these cells were just written: they are known as they are now, and the rest of the experiment as it was."""
        now = time.monotonic()
        late = self._saved.setdefault(experiment_id, deque(maxlen=1000))
        late.extend((now, cell) for cell in cells)
        found = self._known.peek(experiment_id)
        if found is not None:
            self._known.put(experiment_id, dataclasses.replace(found, value=found.value.with_cells(cells)))
        await self._renew_marks(experiment_id)

    async def _renew_marks(self, experiment_id: str) -> None:
        """Renew the marks that a waiting run reads: now, if nothing is left to score, else in a while, once for many scores."""
        found = self._known.peek(experiment_id)
        rubric = self.rubric().hash
        if found is not None and not _anything_pending(found.value, rubric):
            await self.in_store(marks.refresh, self.store, experiment_id)
            return
        if experiment_id not in self._renewing:

            async def later() -> None:
                await asyncio.sleep(max(MARKS_S, WORTH * (found.cost if found is not None else 0.0)))
                self._renewing.pop(experiment_id, None)
                with contextlib.suppress(TipbenchError):
                    if await self.in_store(marks.is_wanted, self.store, experiment_id):
                        await self.in_store(marks.refresh, self.store, experiment_id)

            self._renewing[experiment_id] = asyncio.create_task(later())

    def rescored(self, experiment_id: str) -> None:
        """Many scores were written: what was read before is not believed any more."""
        self._rescored[experiment_id] = time.monotonic()

    # -- rounds --------------------------------------------------------------------------------

    async def race(self, experiment_id: str, rubric: Rubric) -> record.Race:
        """What is on record of an experiment in rounds; empty for another."""
        mark = await self.state(experiment_id)

        async def read() -> _Marked[record.Race]:
            found = await self.in_store(record.read, self.store, experiment_id, rubric.hash)
            return _Marked(mark, found, time.monotonic(), 0.0)

        return (await self._races.get((experiment_id, rubric.hash), lambda one: one.mark == mark, read)).value

    async def race_state(self, experiment_id: str, rubric: Rubric, known: Known) -> RaceState | None:
        """How far the race is. When all of a round is judged, the look is taken: it would be anyway, and judges learn whether to go on."""
        race = await self.race(experiment_id, rubric)
        state = racing.state_of(known.census, race, rubric.hash)
        if state is None or state.over or not state.tips or state.judged < state.tips:
            return state
        mark = await self.state(experiment_id)
        if self._looked.get(experiment_id) == mark:
            return state
        self._looked[experiment_id] = mark
        margin = rubric.margin(_margin_of(known, self.settings.config.margin))
        await self.at_work(advance, self.store, experiment_id, known.census, rubric, margin=margin)
        self.changed(experiment_id)
        return racing.state_of(known.census, await self.race(experiment_id, rubric), rubric.hash)

    # -- leaderboards --------------------------------------------------------------------------

    async def board(self, experiment: str, options: BoardOptions = AS_IT_STANDS, *, fresh: bool = False) -> Board:
        """The leaderboard as the experiment stands. `fresh` computes it whatever the cache says."""
        experiment_id = await self.experiment_id(experiment)
        if fresh:
            self.changed(experiment_id)
        mark = await self.state(experiment_id)
        asked, rubric = time.monotonic(), self.rubric()
        # All that a board depends on: what was asked for, and the rubric with its weights and words.
        slot = (experiment_id, options, content_hash(rubric.model_dump(mode="json")))

        async def compute() -> _Marked[Board]:
            # Read before comparing: a change in between is then seen next time.
            mark = await self.state(experiment_id)
            if fresh:
                self._known.forget(experiment_id)
            known = await self.known(experiment_id)
            race = await self.race(experiment_id, rubric)
            tags = await self.in_store(self.store.experiment_tags, experiment_id) if options.references else {}
            value = await self.at_work(
                _board,
                experiment,
                known,
                rubric,
                options,
                (mark, *slot),
                samples=asked_for(tags, rubric.hash),
                race=race,
            )
            return _Marked(mark, value, time.monotonic(), 0.0)

        def is_fresh(found: _Marked[Board]) -> bool:
            return found.mark == mark and (not fresh or found.read_at > asked)

        return (await self._boards.get(slot, is_fresh, compute)).value

    async def rendering(self, board: Board, kind: str) -> bytes:
        """The board as json, md, csv or html, or one of its figures."""
        known = board.renderings.get(kind)
        return await self.at_work(board.draw, kind, self.store) if known is None else known

    # -- links ---------------------------------------------------------------------------------

    def mlflow_link(self, experiment_id: str, run_id: str = "") -> str | None:
        """Where a browser finds an experiment or a run in MLflow; None when no browser can."""
        base = self.settings.mlflow_public_url
        if not base and self.settings.store_url.startswith("http"):
            base = self.settings.store_url
        if not base or "@" in base:
            return None
        return f"{base.rstrip('/')}/#/experiments/{experiment_id}" + (f"/runs/{run_id}" if run_id else "")


def moment(ms: int) -> datetime:
    """Milliseconds since the epoch as a time of day."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def _known(store: Store, experiment_id: str) -> Known:
    holdings = store.holdings(experiment_id)
    return Known(holdings, take(holdings))


def _margin_of(known: Known, default: float) -> float:
    """The margin of the newest collection, by its receipt: the race is run with that one."""
    for collection in reversed(known.holdings.collections):
        config = collection.receipt.get("config")
        if isinstance(config, Mapping) and "margin" in config:
            return float(config["margin"])
    return default


def _anything_pending(known: Known, rubric_hash: str) -> bool:
    judges = Judges(known.cells.values(), rubric_hash)
    asked = Asked(MANUAL)
    return any(judges.pending(cell, asked) for cell in known.cells.values())


def _digest(known: Known, rubric_hash: str, name: str) -> Digest:
    census = known.census
    judges = Judges(known.cells.values(), rubric_hash)
    asked = Asked()
    rows = [
        Row(
            model=cell.model,
            prompt=cell.prompt,
            scenario=cell.scenario,
            n_tips=cell.n_tips,
            options=tuple(cell.run.params.get(option, "") for option in OPTIONS),
            finished=entry.standing == "counted",
            pending=entry.standing == "counted" and bool(judges.pending(cell, asked)),
            failure=cell.failure.reason if cell.failure else "",
            n_candidates=cell.n_candidates,
            wall_s=cell.run.metrics.get("wall_s"),
            ended_ms=cell.run.end_ms or cell.run.start_ms,
        )
        for entry in (*census.counted, *census.failed)
        for cell in (entry.cell,)
    ]
    counts = status(name, census, rubric_hash, asked)
    return Digest(known.holdings.experiment_id, tuple(rows), dict(census.refused), counts)


def _board(
    experiment: str, known: Known, rubric: Rubric, options: BoardOptions, key: Sequence[object], **found: Any
) -> Board:
    from tipbench.stages import compare  # numpy and scipy: only when a leaderboard is first asked for

    ranking = compare.rank_holdings(experiment, known.holdings, known.census, rubric, options, **found)
    board = ranking.leaderboard
    renderings = {
        "json": board.model_dump_json(by_alias=True, indent=1) + "\n",
        "json1": to_json(board, schema=1, indent=1) + "\n",
        "md": to_markdown(board),
        "csv": to_csv(board),
    }
    etag = sha256(repr((__version__, *key)).encode()).hexdigest()[:24]
    return Board(ranking, etag, {kind: text.encode() for kind, text in renderings.items()})


def _draw(ranking: Ranking, kind: str, store: Store) -> str:
    if kind == "html":
        from tipbench.stages import compare

        return compare.report(ranking, store)
    from tipbench.leaderboard import plots  # matplotlib: only when a figure is first asked for

    figures: dict[str, Callable[[Leaderboard], str]] = {
        "forest": plots.forest_plot,
        "race": plots.race_plot,
        "tradeoff": plots.tradeoff_plots,
        "tradeoff-narrow": partial(plots.tradeoff_plots, narrow=True),
    }
    return without_styles(figures[kind](ranking.leaderboard))


def to_csv(board: Leaderboard) -> str:
    """One line a cell. A name that a spreadsheet would take for a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out)
    plain = [
        "model",
        "prompt",
        "variant",
        "rank",
        "rank_low",
        "rank_high",
        "composite",
        "ci_low",
        "ci_high",
        "se",
        "p_best",
    ]
    costs = ["tokens_per_s", "ttft_s", "seconds_per_tip", "peak_memory_bytes", "memory_source", "mean_words", "pareto"]
    counts = ["n_scenarios", "n_expected", "n_candidates", "n_judged", "n_failed", "coverage", "tied_with_best"]
    writer.writerow([*plain, "diff_to_best", "p_adjusted", *board.criteria, *counts, *costs])
    for cell in board.cells:
        values = cell.model_dump()
        row = [values[name] for name in plain] + [cell.diff_to_best.value, cell.diff_to_best.p_adjusted]
        row += [values.get(name) for name in (*board.criteria, *counts, *costs)]
        writer.writerow([_harmless(value) for value in row])
    return out.getvalue()


def _harmless(value: object) -> object:
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def without_styles(svg: str) -> str:
    """The figure without <style> and style="": a strict content-security-policy lets neither in, and attributes say the same."""
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' style="([^"]*)"', lambda match: _as_attributes(match[1]), svg)
    return svg.replace("<svg ", '<svg stroke-linejoin="round" stroke-linecap="butt" ', 1)


def _as_attributes(style: str) -> str:
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        name, _, value = declaration.partition(":")
        name, value = name.strip(), value.strip()
        if name == "font":
            # matplotlib's shorthand: [style] [weight] size family
            match = re.search(r"([\d.]+px)\s+(.*)", value)
            if match:
                found |= {"font-size": match[1], "font-family": match[2].replace("'", "").replace("&quot;", "")}
        elif name and name != "white-space":
            found[name] = value
    return "".join(f' {name}="{value}"' for name, value in found.items())


def plain(value: Any) -> dict[str, Any]:
    """A stage's frozen result as a dictionary, for its body."""
    return dataclasses.asdict(value)
