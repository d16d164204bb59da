"""Behind the routes: the store, called in threads with limits, and caches that know when an experiment has changed."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import io
import re
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from tipbench.api.backends import Backend
from tipbench.api.handout import Scored
from tipbench.api.problems import Problem
from tipbench.api.settings import Settings
from tipbench.api.web import Metrics
from tipbench.catalog import Rubric, load_rubric
from tipbench.errors import TipbenchError, UnreachableError
from tipbench.leaderboard.markdown import to_markdown
from tipbench.leaderboard.model import Leaderboard
from tipbench.leaderboard.words import headline
from tipbench.store import Store, StoreError
from tipbench.store.records import CellRecord, ExperimentInfo

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
BOARDS, DIGESTS, PAGES = 32, 64, 256
"""Leaderboards, digests and pages of runs kept."""
WORTH = 10.0
"""A digest that took a second to read is believed for ten: a list of experiments need not be newer than that."""
SLOW_S = 1.0
"""Scores of an experiment that are slower to read than this are believed for a while, too."""
KEYS = 3
"""Keys of exchange files kept; one of ten thousand cells takes some 30 MiB."""


@dataclass(frozen=True)
class Row:
    """What lists and progress need of one cell; a thousand of them are small."""

    model: str
    prompt: str
    scenario: str
    n_tips: int
    options: tuple[str, ...]
    finished: bool
    pending: bool
    failure: str
    failure_message: str
    n_candidates: int
    wall_s: float | None
    ended_ms: int
    judges: tuple[str, ...]


OPTIONS = ("temperature", "seed", "num_predict", "num_ctx")
"""Parameters that tell one collection's cells from another's."""


@dataclass(frozen=True)
class Digest:
    """An experiment's cells in brief."""

    experiment_id: str
    rows: tuple[Row, ...]
    refused: dict[str, str]


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
        """The report (html), or one of the figures (forest, tradeoff, tradeoff-narrow) as SVG: empty when there is nothing to draw."""
        if kind not in self.renderings:
            self.renderings[kind] = _draw(self.ranking, kind, store).encode()
        return self.renderings[kind]


class Cache(Generic[T]):
    """The values last used, each computed once however many ask for it at the same time."""

    def __init__(self, size: int, what: str, metrics: Metrics) -> None:
        self._size = size
        self._kept: OrderedDict[object, T] = OrderedDict()
        self._locks: dict[object, asyncio.Lock] = {}
        self._hits = metrics.cache.labels(what, "hit")
        self._misses = metrics.cache.labels(what, "miss")

    def peek(self, slot: object) -> T | None:
        """What is kept, fresh or not."""
        return self._kept.get(slot)

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
        if slot in self._kept and is_fresh(self._kept[slot]):
            self._hits.inc()
            self._kept.move_to_end(slot)
            return self._kept[slot]
        lock = self._locks.setdefault(slot, asyncio.Lock())
        if lock.locked() and slot in self._kept and meanwhile(self._kept[slot]):
            self._hits.inc()
            return self._kept[slot]
        try:
            async with lock:
                if slot in self._kept and is_fresh(self._kept[slot]):
                    self._hits.inc()
                    return self._kept[slot]
                self._misses.inc()
                value = self._kept[slot] = await compute()
                self._kept.move_to_end(slot)
                while len(self._kept) > self._size:
                    self._kept.popitem(last=False)
                return value
        finally:
            if not lock.locked():
                self._locks.pop(slot, None)


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
        self._pages: Cache[_Marked[tuple[list[CellRecord], str]]] = Cache(PAGES, "runs", metrics)
        self._boards: Cache[_Marked[Board]] = Cache(BOARDS, "leaderboard", metrics)
        self._scores: Cache[_Marked[dict[str, Scored]]] = Cache(DIGESTS, "scores", metrics)
        self._rescored: dict[str, float] = {}
        self._saved: dict[str, deque[tuple[float, str, Scored]]] = {}
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

    async def cell_page(
        self, experiment_id: str, wanted: dict[str, str], limit: int, token: str
    ) -> tuple[list[CellRecord], str]:
        """A page of cells, read once for a state of the experiment."""
        mark = await self.state(experiment_id)

        async def read() -> _Marked[tuple[list[CellRecord], str]]:
            mark = await self.state(experiment_id)
            page = await self.in_store(self.store.cell_page, experiment_id, wanted, limit, token)
            return _Marked(mark, page, time.monotonic(), 0.0)

        slot = (experiment_id, tuple(sorted(wanted.items())), limit, token)
        return (await self._pages.get(slot, lambda found: found.mark == mark, read)).value

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

    async def digest(self, experiment_id: str) -> Digest:
        """The experiment's cells in brief."""
        now = time.monotonic()

        async def compute() -> _Marked[Digest]:
            mark, store = await self.state(experiment_id), self.store
            began = time.monotonic()
            value = await self.in_store(_digest, store, experiment_id)
            return _Marked(mark, value, time.monotonic(), time.monotonic() - began)

        mark = await self.state(experiment_id)
        found = await self._digests.get(
            experiment_id, lambda d: d.mark == mark or now - d.read_at < WORTH * d.cost, compute
        )
        return found.value

    # -- judging -------------------------------------------------------------------------------

    async def export_key(self, experiment_id: str, export_id: str) -> Mapping[str, Any] | None:
        """The key of an exchange file, which never changes; None when this experiment never issued it."""

        async def read() -> Mapping[str, Any]:
            return await self.in_store(self.store.export_key, experiment_id, export_id) or {}

        return await self._keys.get((experiment_id, export_id), bool, read) or None

    async def scored(self, experiment_id: str) -> Mapping[str, Scored]:
        """Finished cells by run id, with every score that was saved through this service.

        What came another way is seen at once in an experiment that is quick to read; one that is not is read anew only now and
        then, or every score of a judge would have to wait for it.
        """
        # Looked at anew: what was collected a moment ago is handed out now.
        mark, now = await self.in_store(self.store.state, experiment_id), time.monotonic()

        async def read() -> _Marked[dict[str, Scored]]:
            began = time.monotonic()
            value = await self.in_store(_scored, self.store, experiment_id)
            # A score that was saved meanwhile may have come too late for its cell.
            value |= {run_id: cell for at, run_id, cell in self._saved.get(experiment_id, ()) if at >= began}
            return _Marked(mark, value, time.monotonic(), time.monotonic() - began)

        def is_fresh(found: _Marked[dict[str, Scored]]) -> bool:
            if found.mark == mark:
                return True
            rescored = self._rescored.get(experiment_id, 0.0) > found.read_at - found.cost
            return not rescored and found.cost > SLOW_S and now - found.read_at < WORTH * found.cost

        return (await self._scores.get(experiment_id, is_fresh, read)).value

    async def saved(self, experiment_id: str, run_ids: Sequence[str]) -> None:
        """Scores of these cells were just written: read the cells again, and leave the rest of the experiment as it is known."""
        cells = await self.in_store(self.store.cells_of, run_ids)
        known, now = self._scores.peek(experiment_id), time.monotonic()
        for run_id, cell in ((c.run.run_id, Scored(c.n_candidates, c.scores)) for c in cells):
            self._saved.setdefault(experiment_id, deque(maxlen=1000)).append((now, run_id, cell))
            if known is not None and run_id in known.value:
                known.value[run_id] = cell

    def rescored(self, experiment_id: str) -> None:
        """Many scores were written: what was read before is not believed any more."""
        self._rescored[experiment_id] = time.monotonic()

    # -- leaderboards --------------------------------------------------------------------------

    async def board(self, experiment: str, judges: Sequence[str] = (), *, fresh: bool = False) -> Board:
        """The leaderboard as the experiment stands. `fresh` computes it whatever the cache says."""
        experiment_id = await self.experiment_id(experiment)
        if fresh:
            self.changed(experiment_id)
        mark = await self.state(experiment_id)
        asked = time.monotonic()

        async def compute() -> _Marked[Board]:
            # Read before comparing: a change in between is then seen next time.
            mark, store = await self.state(experiment_id), self.store
            value = await self.at_work(_board, experiment, store, self.rubric(), tuple(sorted(judges)), mark)
            return _Marked(mark, value, time.monotonic(), 0.0)

        def is_fresh(found: _Marked[Board]) -> bool:
            return found.mark == mark and (not fresh or found.read_at > asked)

        return (await self._boards.get((experiment_id, tuple(sorted(judges))), is_fresh, compute)).value

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


def is_pending(cell: CellRecord) -> bool:
    """Does some tip of a finished cell lack a score?"""
    return cell.finished and cell.run.tags.get("judge_pending") == "true"


def _digest(store: Store, experiment_id: str) -> Digest:
    rows = [
        Row(
            model=cell.model,
            prompt=cell.prompt,
            scenario=cell.scenario,
            n_tips=cell.n_tips,
            options=tuple(cell.run.params.get(name, "") for name in OPTIONS),
            finished=cell.finished,
            pending=is_pending(cell),
            failure=cell.failure.reason if cell.failure else "",
            failure_message=cell.failure.message if cell.failure else "",
            n_candidates=cell.n_candidates,
            wall_s=cell.run.metrics.get("wall_s"),
            ended_ms=cell.run.end_ms or cell.run.start_ms,
            judges=tuple(sorted({record.judge for record in cell.scores})),
        )
        for cell in store.cells(experiment_id)
    ]
    refused = {model: why for one in store.collections(experiment_id) for model, why in one.refused.items()}
    return Digest(experiment_id, tuple(rows), refused)


def _scored(store: Store, experiment_id: str) -> dict[str, Scored]:
    return {c.run.run_id: Scored(c.n_candidates, c.scores) for c in store.cells(experiment_id) if c.finished}


def _board(experiment: str, store: Store, rubric: Rubric, judges: Sequence[str], mark: str) -> Board:
    from tipbench.stages import compare  # numpy and scipy: only when a leaderboard is first asked for

    ranking = compare.rank(experiment, store, rubric, judges=judges)
    board = ranking.leaderboard
    board = board.model_copy(update={"headline": headline(board)})
    renderings = {
        "json": board.model_dump_json(by_alias=True, indent=1) + "\n",
        "md": to_markdown(board),
        "csv": to_csv(board),
    }
    etag = sha256(f"{mark} {judges} {rubric.hash}".encode()).hexdigest()[:24]
    return Board(ranking, etag, {kind: text.encode() for kind, text in renderings.items()})


def _draw(ranking: Ranking, kind: str, store: Store) -> str:
    if kind == "html":
        from tipbench.stages import compare

        return compare.report(ranking, store)
    from tipbench.leaderboard import plots  # matplotlib: only when a figure is first asked for

    figures = {
        "forest": plots.forest_plot,
        "tradeoff": plots.tradeoff_plots,
        "tradeoff-narrow": partial(plots.tradeoff_plots, narrow=True),
    }
    return without_styles(figures[kind](ranking.leaderboard))


def to_csv(board: Leaderboard) -> str:
    """One line a cell. A name that a spreadsheet would take for a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out)
    plain = ["model", "prompt", "rank", "rank_low", "rank_high", "composite", "ci_low", "ci_high", "se", "p_best"]
    costs = ["tokens_per_s", "ttft_s", "seconds_per_tip", "peak_memory_bytes", "mean_words", "pareto"]
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
