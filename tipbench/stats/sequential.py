"""Rounds: after each block of scenarios the cells shown to be worse than the leader leave, and the error of all looks together stays 5%.

A group-sequential version of the all-pairs max-T test of `maxt`. The horizon (which looks there will be, and how much error each
may spend) is fixed at the first look. For m cells left, the boundary c_m(k) is simulated over the whole path of looks as if
those m had been there alone from the first look (Jennison & Turnbull 2000, chapter 19, for the idea of spending: Lan & DeMets
1983). Since c_m(k) does not fall with m, cells that are truly equal never meet a boundary under their own, however many
others leave, and when: the chance that one of them is ever called worse than another stays what was spent.

Everything is a pure function of the scores, the horizon and what was recorded of earlier looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tipbench.stats.arrays import BoolArray, FloatArray
from tipbench.stats.maxt import centred_by_scenario, mask_key, null_draws, null_maxima, studentised

ALPHA = 0.05
"""Family-wise error over all looks: the chance that a cell is ever called worse than one that is no better."""
RESERVE = 0.2
"""Share of `ALPHA` that the horizon leaves unspent: for scenarios added after the last look and, until then, for scores that are not
normal (one cell three times as erratic as the others turns 4% into 5%)."""
SHAPE = 0.5
CAUTION = 5
"""Spent by a look at n of N scenarios: (n / N) ** SHAPE · (1 - 4 / n²) ** CAUTION of the error, divided by what that is at N. Early looks save
the most work, but the first few scenarios hardly know how much a cell varies: a cell more erratic than the others would leave too often then."""
NOTHING = 1e-9
"""Differences and errors below this share of the scores' size are rounding."""

_DRAWS = 20_000
_MIN_DRAWS = 4_000
_WORK = 400_000_000
"""Draws x looks x pairs of one boundary; beyond some 60 cells it has fewer draws."""
_CHUNK = 400_000
_FLOOR = np.float32(1e-12)
"""Keeps a simulated variance that rounding made zero from giving 0/0."""
_LEVELS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 0.95)
"""Family-wise levels between which adjusted p values are interpolated."""

Why = Literal["worse", "no scores"]
Stop = Literal["one left", "within margin", "used up", "nothing scored"]


@dataclass(frozen=True)
class Horizon:
    """The looks there will be, and the error that may be spent by each: fixed before the first of them."""

    looks: tuple[int, ...]
    """Scenarios seen at each look, increasing; look k sees the first `looks[k - 1]` of the drawn order."""
    spent: tuple[float, ...]
    """Cumulative error by each look."""
    seed: int = 0


@dataclass(frozen=True)
class Entry:
    """A cell that came in, or came back, after a look (0: before the first)."""

    cell: int
    after_look: int


@dataclass(frozen=True)
class Drop:
    """A cell that left, at which look, and why; the difference is to the leader of that moment, in points."""

    cell: int
    look: int
    why: Why
    than: int | None = None
    """The leader it was worse than."""
    diff: float | None = None
    low: float | None = None
    high: float | None = None
    t: float | None = None
    among: int = 0
    """Cells left when it was tested, itself included: the m of the boundary."""


@dataclass(frozen=True)
class Look:
    """What one look did. Once recorded it stands, whatever becomes of the scores later."""

    number: int
    n_scenarios: int
    cells: tuple[int, ...]
    """Cells that were in when the look began."""
    dropped: tuple[Drop, ...]


@dataclass(frozen=True)
class Decision:
    """Where the race stands, and what comes next."""

    looks: tuple[Look, ...]
    left: tuple[int, ...]
    """Cells that are still in, best first."""
    dropped: Mapping[int, Drop]
    stop: Stop | None
    """Why nothing more is needed; None when `missing` comes next."""
    block: tuple[int, int] | None
    """Scenarios of the next look, as a range of columns that the last look had not seen; None after a stop."""
    missing: BoolArray = field(repr=False)
    """(C, S): what must be collected or judged before the next look."""

    @property
    def leader(self) -> int | None:
        """The best of the cells that are left."""
        return self.left[0] if self.left else None


def make_horizon(n_scenarios: int, block: int, *, seed: int = 0, alpha: float = ALPHA) -> Horizon:
    """Looks after every `block` scenarios up to `n_scenarios`; the last block may be a short one.

    Raises ValueError when either is below 1.
    """
    if n_scenarios < 1 or block < 1:
        raise ValueError("a horizon takes at least one scenario, in blocks of at least one")
    looks = (*range(block, n_scenarios, block), n_scenarios)
    return Horizon(looks, _spending(looks, 0, 0.0, alpha * (1 - RESERVE)), seed)


def extend(horizon: Horizon, taken: int, n_scenarios: int, block: int, *, alpha: float = ALPHA) -> Horizon:
    """The horizon with scenarios added after `taken` looks: those looks stand, the later ones share what error remains.

    After the last look that is the reserve, once; when that is gone too, no later look can drop a cell. The same
    horizon comes back when there is nothing to add.
    """
    if n_scenarios <= horizon.looks[-1]:
        return horizon
    kept = horizon.looks[:taken]
    start = kept[-1] if kept else 0
    looks = (*kept, *range(start + block, n_scenarios, block), n_scenarios)
    so_far = horizon.spent[taken - 1] if taken else 0.0
    most = alpha * (1 - RESERVE)
    if so_far >= most - 1e-12:
        most = alpha
    return Horizon(looks, (*horizon.spent[:taken], *_spending(looks, taken, so_far, most)), horizon.seed)


def _spending(looks: Sequence[int], taken: int, so_far: float, most: float) -> tuple[float, ...]:
    """Cumulative error by each look after `taken`, from `so_far` to `most`; a look at one or two scenarios spends nothing."""
    start = looks[taken - 1] if taken else 0
    part = [((n - start) / (looks[-1] - start)) ** SHAPE * max(0.0, 1 - 4 / n**2) ** CAUTION for n in looks[taken:]]
    whole = part[-1] or 1.0
    return tuple(so_far + (most - so_far) * one / whole for one in part)


# -- the boundary ---------------------------------------------------------------------------------


def boundary(horizon: Horizon, n_cells: int, alpha: float = ALPHA) -> FloatArray:
    """c_m(k) for m = `n_cells` left, shape (looks,): the |t| beyond which a pair is called different at look k.

    Infinite where nothing may be spent. `alpha` other than the default scales the spending, for adjusted p values.
    From a seeded simulation, cached; 12 cells and 6 looks take about two seconds, once.
    """
    if n_cells < 2:
        return np.full(len(horizon.looks), np.inf)
    spent = tuple(min(1.0, s * alpha / ALPHA) for s in horizon.spent)
    return _boundary(horizon.looks, spent, horizon.seed, _size(n_cells))


def _size(n_cells: int) -> int:
    """The number of cells that is simulated for `n_cells`: beyond 12, the next of a coarser grid (which errs on the safe side)."""
    size = 12
    while size < n_cells:
        size = size * 6 // 5
    return n_cells if n_cells <= 12 else size


def _smaller(size: int) -> int:
    """The size on the grid before this one."""
    below = size - 1
    while below > 12 and _size(below) == size:
        below -= 1
    return _size(below)


@lru_cache(maxsize=4096)
def _boundary(looks: tuple[int, ...], spent: tuple[float, ...], seed: int, size: int) -> FloatArray:
    paths = _paths(looks, seed, size)
    # What the floor of fewer cells keeps a look from spending, a later one spends.
    floor = _boundary(looks, spent, seed, _smaller(size)) if size > 2 else np.zeros(len(looks))
    n_draws = paths.shape[0]
    alive = np.ones(n_draws, dtype=bool)
    c = np.full(len(looks), np.inf)
    crossed = 0
    for k, level in enumerate(spent):
        # Rounded down: what a simulation cannot resolve is not spent.
        allowed = int(level * n_draws + 1e-6) - crossed
        if allowed <= 0 or looks[k] < 2:
            continue
        at = paths[alive, k]
        lowest = np.partition(at, at.size - 1 - allowed)[at.size - 1 - allowed] if allowed < at.size else 0.0
        c[k] = max(float(lowest), floor[k])
        hit = alive & (paths[:, k] > c[k])
        crossed += int(hit.sum())
        alive &= ~hit
    c.flags.writeable = False
    return c


@lru_cache(maxsize=64)
def _paths(looks: tuple[int, ...], seed: int, size: int) -> npt.NDArray[np.float32]:
    """max |t| over all pairs of `size` equal cells at every look, (draws, looks): as `studentised` has it for complete data."""
    n_draws = int(np.clip(_WORK // (size * size * len(looks)), _MIN_DRAWS, _DRAWS))
    streams = [np.random.default_rng([seed, 4, i]) for i in range(size)]
    chunk = max(1, _CHUNK // (size * max(size, looks[-1])))
    found = np.zeros((n_draws, len(looks)), dtype=np.float32)
    for start in range(0, n_draws, chunk):
        stop = min(start + chunk, n_draws)
        # A stream for every cell: fewer cells see the same draws, which keeps the boundary smooth in their number.
        z = np.stack([s.standard_normal((stop - start, looks[-1]), dtype=np.float32) for s in streams], axis=1)
        for k, (mean, own) in enumerate(_moments(z, looks)):
            n = looks[k]
            if n < 2:
                continue
            pooled = own.sum(axis=(-1, -2)) / (size * (size - 1))
            square = mean[:, :, None] - mean[:, None, :]
            square *= square
            own += pooled[:, None, None]
            np.maximum(own, _FLOOR, out=own)
            square /= own
            found[start:stop, k] = np.sqrt(square.max(axis=(-1, -2)) * (2 * n))
    found.flags.writeable = False
    return found


def _moments(z: npt.NDArray[np.float32], looks: Sequence[int]) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """At every look: the cells' means (B, C), and the variance of each pair's differences (B, C, C). Complete data."""
    found = []
    for n in looks:
        mean = z[..., :n].mean(axis=-1)
        centred = z[..., :n] - mean[..., None]
        gram = centred @ np.swapaxes(centred, -1, -2)
        own = np.diagonal(gram, axis1=-2, axis2=-1).copy()
        gram *= -2
        gram += own[..., :, None]
        gram += own[..., None, :]
        gram /= max(n - 1, 1)
        diagonal = np.arange(z.shape[-2])
        gram[..., diagonal, diagonal] = 0.0
        np.maximum(gram, 0, out=gram)
        found.append((mean, gram))
    return found


def _nominal(horizon: Horizon, n_cells: int, look: int) -> float:
    """How often m equal cells would cross c_m(k) at look k, if that were the only one."""
    paths = _paths(horizon.looks, horizon.seed, _size(n_cells))
    return float((paths[:, look - 1] > boundary(horizon, n_cells)[look - 1]).mean())


def _critical(horizon: Horizon, mask: BoolArray, look: int) -> float:
    """c_m(k), adapted to missing scores: larger by as much as the largest |t| of this pattern is than that of complete data.

    Both are compared at the nominal level of this look, or at the smallest that 10,000 draws still resolve.
    """
    c = float(boundary(horizon, mask.shape[0])[look - 1])
    if mask.all() or not np.isfinite(c):
        return c
    holed = null_maxima(mask_key(mask), mask.shape, null_draws(10_000, mask), horizon.seed)
    whole_mask = np.ones_like(mask)
    whole = null_maxima(mask_key(whole_mask), mask.shape, null_draws(10_000, whole_mask), horizon.seed)
    level = 1 - max(_nominal(horizon, mask.shape[0], look), 30 / min(holed.size, whole.size))
    return c * max(1.0, float(np.quantile(holed, level) / np.quantile(whole, level)))


def adjusted_p(horizon: Horizon, drop: Drop) -> float | None:
    """The smallest family-wise error, spent in the same shape, at which this look would still have dropped the cell.

    Simulated, so never below 0.0005; below `ALPHA` for every cell that was dropped for being worse.
    """
    return None if drop.t is None else sequential_p(horizon, drop.among, drop.look, drop.t)


def sequential_p(horizon: Horizon, n_cells: int, look: int, t: float) -> float:
    """The p value of a |t| at this look among `n_cells` cells; see `adjusted_p`. Between 0.0005 and 1."""
    levels = np.array(_LEVELS)
    c = np.array([boundary(horizon, n_cells, float(a))[look - 1] for a in levels])
    known = np.isfinite(c)
    if not known.any() or t <= c[known].min():
        return 1.0
    c, levels = np.minimum.accumulate(c[known]), levels[known]
    return float(np.exp(np.interp(-t, -c, np.log(levels))))


# -- the decision ---------------------------------------------------------------------------------


def decide(
    means: npt.ArrayLike,
    pending: npt.ArrayLike,
    horizon: Horizon,
    *,
    margin: float = 0.0,
    history: Sequence[Look] = (),
    entries: Sequence[Entry] = (),
) -> Decision:
    """Take every look that the scores allow, and say what comes next.

    `means` (C, S) has each cell's mean score on each scenario, columns in the drawn order, NaN for what is missing;
    `pending` (C, S) is True where a score may still come. A look is taken once nothing is pending in its scenarios for
    the cells that are in; a score that will never come (a cell that failed) is simply missing.

    `history` are looks recorded earlier, in order from the first: they stand, and only later ones are taken from the
    scores. `entries` are cells that came in after the first look or were taken back; all others were in from the start. Such
    a cell counts for the boundary from the next look on, as if it had always been there, and has to catch up with the
    scenarios it missed before that look is taken.

    At a look: the largest t against the leader of the cells left is compared with c_m(k); who is beyond it leaves, and
    those left are compared again with the boundary of their smaller number, until nobody leaves. A cell without any
    score leaves as "no scores". The race stops when one is left, when all pairs of those left are shown to differ by
    less than `margin` (0: never), or when the scenarios are used up. The answer depends on nothing but the arguments.
    """
    x = np.asarray(means, dtype=float)
    waiting = np.asarray(pending, dtype=bool)
    if x.shape != waiting.shape or x.ndim != 2:
        raise ValueError("means and pending must have the same shape, cells x scenarios")
    n_cells = x.shape[0]
    first_in = {e.cell for e in entries} - {cell for look in history for cell in look.cells if look.number == 1}
    left = [c for c in range(n_cells) if c not in first_in]
    looks: list[Look] = []
    dropped: dict[int, Drop] = {}
    stop: Stop | None = None
    missing = np.zeros(x.shape, dtype=bool)
    for number, n in enumerate(horizon.looks, 1):
        for entry in entries:
            if entry.after_look == number - 1 and entry.cell not in left:
                left.append(entry.cell)
                dropped.pop(entry.cell, None)
        # Who comes in reopens a race that had stopped.
        if number > 1 and len(history) < number:
            stop = _stop(x, left, looks, horizon, margin)
            if stop:
                break
        recorded = history[number - 1] if len(history) >= number else None
        if recorded is None:
            seen = np.zeros(x.shape, dtype=bool)
            seen[left, :n] = True
            missing = seen & waiting
            if missing.any():
                break
        look = recorded or _look(x, left, horizon, number)
        looks.append(look)
        for drop in look.dropped:
            dropped[drop.cell] = drop
        gone = {drop.cell for drop in look.dropped}
        left = [c for c in (look.cells if recorded else left) if c not in gone]
    else:
        for entry in entries:
            if entry.after_look >= len(horizon.looks) and entry.cell not in left:
                left.append(entry.cell)
                dropped.pop(entry.cell, None)
        stop = _stop(x, left, looks, horizon, margin) or "used up"
    begun = looks[-1].n_scenarios if looks else 0
    block = None if stop else (begun, horizon.looks[len(looks)])
    if stop:
        missing = np.zeros(x.shape, dtype=bool)
    upto = looks[-1].n_scenarios if looks else x.shape[1]
    return Decision(tuple(looks), tuple(_best_first(x[:, :upto], left)), dropped, stop, block, missing)


def _look(x: FloatArray, left: Sequence[int], horizon: Horizon, number: int) -> Look:
    """Look `number` at the cells `left`."""
    n = horizon.looks[number - 1]
    here = sorted(left)
    dropped = [Drop(c, number, "no scores") for c in here if np.isnan(x[c, :n]).all()]
    silent = {d.cell for d in dropped}
    stay = [c for c in here if c not in silent]
    while len(stay) > 1:
        leader = _best_first(x[:, :n], stay)[0]
        found = _worse(x[stay, :n], stay.index(leader), horizon, number)
        if not found:
            break
        dropped += [replace(d, cell=stay[d.cell], than=leader, look=number) for d in found]
        gone = {stay[d.cell] for d in found}
        stay = [c for c in stay if c not in gone]
    return Look(number, n, tuple(here), tuple(dropped))


def _worse(x: FloatArray, leader: int, horizon: Horizon, number: int) -> list[Drop]:
    """The rows of `x` that are shown to be worse than the leading one; `cell` is the row."""
    mask = ~np.isnan(x)
    m = x.shape[0]
    all_diff, all_se, common = studentised(centred_by_scenario(x, mask), mask)
    diff, se, n = all_diff[:, leader], all_se[:, leader], common[:, leader]
    scale = max(float(np.nanmax(np.abs(x))), 1.0)
    found = []
    if np.where(n >= 2, se, 0.0).max() > NOTHING * scale:
        c = _critical(horizon, mask, number)
        for i in range(m):
            if i == leader or n[i] < 2 or diff[i] >= -NOTHING * scale:
                continue
            t = float(-diff[i] / se[i]) if se[i] > 0 else np.inf
            if t > c:
                half = float(c * se[i])
                d = float(diff[i])
                found.append(Drop(i, number, "worse", None, d, d - half, d + half, t, m))
        return found
    # No difference varies: there is no noise to scale by, and the sign-flip test's p is compared with this look's level.
    level = _nominal(horizon, m, number)
    for i in range(m):
        if i != leader and n[i] >= 2 and diff[i] < -NOTHING * scale and m * (m - 1) / 2 * 2.0 ** (1 - n[i]) < level:
            found.append(Drop(i, number, "worse", None, float(diff[i]), among=m))
    return found


def _stop(x: FloatArray, left: Sequence[int], looks: Sequence[Look], horizon: Horizon, margin: float) -> Stop | None:
    """Why the race is over after these looks, before the scenarios are used up."""
    if not left:
        return "nothing scored"
    caught_up = looks and set(left) <= {*looks[-1].cells}
    if len(left) == 1:
        return "one left"
    if margin > 0 and caught_up:
        widest = _widest(x, left, looks[-1], horizon)
        if widest is not None and widest < margin:
            return "within margin"
    return None


def _widest(x: FloatArray, left: Sequence[int], look: Look, horizon: Horizon) -> float | None:
    """The largest difference that the simultaneous intervals of this look leave possible between two cells left."""
    rows = x[sorted(left), : look.n_scenarios]
    mask = ~np.isnan(rows)
    c = _critical(horizon, mask, look.number) if look.n_scenarios > 1 else np.inf
    diff, se, common = studentised(centred_by_scenario(rows, mask), mask)
    off = ~np.eye(len(rows), dtype=bool)
    if not np.isfinite(c) or (common[off] < 2).any():
        return None
    return float((np.abs(diff) + c * se)[off].max())


def standing(
    means: npt.ArrayLike, decision: Decision, horizon: Horizon
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Difference to the leader, its limits and its adjusted p for every cell, each (C,), in points; NaN where unknown.

    Cells that are left: at the last look, with the boundary of those left. Cells that were dropped: at the look where
    they left, against the leader of that moment. The intervals hold together over all looks with 95%.
    """
    x = np.asarray(means, dtype=float)
    diff, low, high, p = np.full((4, x.shape[0]), np.nan)
    for cell, drop in decision.dropped.items():
        if drop.diff is not None:
            diff[cell] = drop.diff
            if drop.low is not None and drop.high is not None:
                low[cell], high[cell] = drop.low, drop.high
            known = adjusted_p(horizon, drop)
            p[cell] = np.nan if known is None else known
    leader = decision.leader
    if leader is None:
        return diff, low, high, p
    diff[leader], low[leader], high[leader], p[leader] = 0.0, 0.0, 0.0, 1.0
    if decision.looks and len(decision.left) > 1:
        look = decision.looks[-1]
        rows = sorted(decision.left)
        seen = x[rows, : look.n_scenarios]
        mask = ~np.isnan(seen)
        all_diff, all_se, common = studentised(centred_by_scenario(seen, mask), mask)
        at = rows.index(leader)
        c = _critical(horizon, mask, look.number)
        complete = float(boundary(horizon, len(rows))[look.number - 1])
        for i, cell in enumerate(rows):
            if cell == leader or common[i, at] < 1:
                continue
            diff[cell] = all_diff[i, at]
            if common[i, at] >= 2 and np.isfinite(c) and all_se[i, at] > 0:
                half = c * all_se[i, at]
                low[cell], high[cell] = diff[cell] - half, diff[cell] + half
                t = abs(diff[cell]) / all_se[i, at] * complete / c
                p[cell] = sequential_p(horizon, len(rows), look.number, float(t))
    return diff, low, high, p


def _best_first(x: FloatArray, cells: Sequence[int]) -> list[int]:
    """The cells by their mean over the scenarios they have, best first; equal means in the order of the cells."""
    means = {c: float(np.nanmean(x[c])) if (~np.isnan(x[c])).any() else -np.inf for c in cells}
    return sorted(cells, key=lambda c: (-round(means[c], 9), c))


# -- many races at once ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Races:
    """What became of many simulated races; shapes (B draws, C cells)."""

    kept: BoolArray
    used: npt.NDArray[np.intp]
    """Scenarios that each cell was collected for."""
    stopped_at: npt.NDArray[np.intp]
    """Look after which each race stopped, (B,)."""
    within: BoolArray
    """Which races stopped since all that were left are within the margin, (B,)."""
    leader: npt.NDArray[np.intp]
    """The best cell of those left at the end, (B,)."""


def race(
    scores: npt.ArrayLike, horizon: Horizon, *, margin: float = 0.0, boundaries: FloatArray | None = None
) -> Races:
    """Many races with complete data, `scores` (B, C, S): what `decide` does, vectorised, for planning and simulation.

    `boundaries` (C + 1, looks) replaces c_m(k), row m for m cells left.
    """
    z = np.asarray(scores, dtype=np.float32)
    n_draws, n_cells, _ = z.shape
    if boundaries is None:
        boundaries = np.stack([boundary(horizon, m) for m in range(n_cells + 1)])
    finite = np.where(np.isfinite(boundaries), boundaries, 1e6)  # infinity times an error of zero is no number
    left = np.ones((n_draws, n_cells), dtype=bool)
    used = np.zeros((n_draws, n_cells), dtype=np.intp)
    open_, within = np.ones(n_draws, dtype=bool), np.zeros(n_draws, dtype=bool)
    stopped_at, leader = np.full(n_draws, len(horizon.looks)), np.zeros(n_draws, dtype=np.intp)
    for k, n in enumerate(horizon.looks):
        used[left & open_[:, None]] = n
        ((mean, own),) = _moments(z, [n])
        going = np.flatnonzero(open_)
        while going.size:
            here, m = left[going], left[going].sum(axis=1)
            first = np.where(here, mean[going], -np.inf).argmax(axis=1)
            leader[going] = first
            pooled = _pooled(own[going], here)
            v = (own[going, first] + pooled[:, None]) / (2 * n)
            gap = mean[going, first][:, None] - mean[going]
            worse = here & (gap > finite[m, k][:, None] * np.sqrt(v)) & (gap > 0)
            left[going] &= ~worse
            going = going[worse.any(axis=1) & (left[going].sum(axis=1) > 1)]
        ended = open_ & (left.sum(axis=1) == 1)
        if margin > 0:
            near = _all_near(mean, own, left, finite[left.sum(axis=1), k], n, margin) & open_ & ~ended
            within |= near
            ended |= near
        stopped_at[ended] = k + 1
        open_ &= ~ended
    return Races(left, used, stopped_at, within, leader)


def _pooled(own: npt.NDArray[Any], here: BoolArray) -> npt.NDArray[Any]:
    """The mean variance over the pairs of the cells that are there, (B,)."""
    there = here.astype(own.dtype)
    m = there.sum(axis=1)
    total = ((own @ there[..., None])[..., 0] * there).sum(axis=1)
    return np.asarray(total / np.maximum(m * (m - 1), 1))


def _all_near(
    mean: npt.NDArray[Any], own: npt.NDArray[Any], left: BoolArray, c: FloatArray, n: int, margin: float
) -> BoolArray:
    v = (own + _pooled(own, left)[:, None, None]) / (2 * n)
    reach = np.abs(mean[:, :, None] - mean[:, None, :]) + c[:, None, None] * np.sqrt(v)
    reach = np.where(left[:, :, None] & left[:, None, :] & ~np.eye(left.shape[1], dtype=bool), reach, 0.0)
    return np.asarray(reach.max(axis=(-1, -2)) < margin, dtype=bool)
