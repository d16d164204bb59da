"""Rounds: after each block of scenarios the cells shown to be worse than the leader leave, and the error of all looks together stays 5%.

A group-sequential version of the all-pairs max-T test of `maxt`. The horizon (which looks there will be, and how much error each
may spend) is fixed at the first look. For m cells left, the boundary c_m(k) is simulated over the whole path of looks as if
those m had been there from the first look (Jennison & Turnbull 2000, chapter 19, for the idea of spending: Lan & DeMets
1983). Since c_m(k) does not fall with m, cells that are truly equal never meet a boundary under their own, however many
others leave, and when: the chance that one of them is ever called worse than another stays what was spent.

How a difference is studentised, and under which noise the boundary has to hold, is a `Rule`; an experiment keeps the one it
began with. Everything is a pure function of the scores, the horizon and what was recorded of earlier looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tipbench.stats.arrays import BoolArray, FloatArray
from tipbench.stats.maxt import centred_by_scenario, moderated_variance, pair_spreads

ALPHA = 0.05
"""Family-wise error over all looks: the chance that a cell is ever called worse than one that is no better."""
NOTHING = 1e-9
"""Differences and errors below this share of the scores' size are rounding."""
ERRATIC = 2.15
"""Spread of the erratic cell among the others': what three times the cell x scenario interaction makes of scenario means with five tips."""

Noise = Literal["normal", "erratic", "skewed and erratic"]


@dataclass(frozen=True)
class Rule:
    """How looks are taken; fixed when an experiment begins."""

    noises: tuple[Noise, ...]
    """The boundary holds for all of them: it is the highest that one of them needs. `erratic`: one cell varies `ERRATIC` times as
    much as the others; `skewed`: exponential instead of normal scores."""
    sizes: tuple[int, ...]
    """Numbers of cells that are simulated; for others the next larger one counts, which errs on the safe side. Beyond the last each
    is a fifth larger than the one before."""
    draws: int
    guarded: bool
    """A pair's variance is the mean of its own and of the more varying half of the pairs that its two cells are in, and at least
    the mean of all pairs of all cells that ever took part. Otherwise it is `maxt.moderated_variance` of the cells that are left."""
    reserve: float
    """Share of `ALPHA` that the horizon leaves unspent, for scenarios added after the last look."""
    shape: float
    caution: int
    """Spent by a look at n of N scenarios: (n / N) ** shape · (1 - 4 / n²) ** caution of the error, divided by what that is at N. Early looks save
    the most work, but the first few scenarios hardly know how much a cell varies."""


RULES: Mapping[int, Rule] = {
    1: Rule(("normal",), tuple(range(2, 13)), 20_000, guarded=False, reserve=0.2, shape=0.5, caution=5),
    2: Rule(
        ("normal", "erratic", "skewed and erratic"),
        (2, 3, 4, 6, 8, 10, 12),
        16_000,
        guarded=True,
        reserve=0.08,
        shape=0.45,
        caution=5,
    ),
}
"""By the number that is stored with the order of scenarios. Rule 1 spends 4 points where normal scores need it, and then drops one of
two best cells in 6.5% of races when one is erratic and skewed."""
NEWEST = 2

_MIN_DRAWS = 4_000
_WORK = 50_000_000
"""Draws x looks x pairs of one boundary; beyond some 20 cells it has fewer draws."""
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
    number: int = NEWEST
    """Of its rule, in `RULES`."""

    @property
    def rule(self) -> Rule:
        """How its looks are taken."""
        return RULES[self.number]


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
    everyone: int = 0
    """Cells that had taken part by then, those that left included; 0 where that was not recorded."""


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


def make_horizon(n_scenarios: int, block: int, *, seed: int = 0, alpha: float = ALPHA, number: int = NEWEST) -> Horizon:
    """Looks after every `block` scenarios up to `n_scenarios`, by rule `number`; the last block may be a short one.

    Raises ValueError when either is below 1, or there is no such rule.
    """
    if n_scenarios < 1 or block < 1:
        raise ValueError("a horizon takes at least one scenario, in blocks of at least one")
    if number not in RULES:
        raise ValueError(f"there is no rule {number} for rounds; this version knows {', '.join(map(str, RULES))}")
    looks = (*range(block, n_scenarios, block), n_scenarios)
    rule = RULES[number]
    return Horizon(looks, _spending(rule, looks, 0, 0.0, alpha * (1 - rule.reserve)), seed, number)


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
    most = alpha * (1 - horizon.rule.reserve)
    if so_far >= most - 1e-12:
        most = alpha
    spent = (*horizon.spent[:taken], *_spending(horizon.rule, looks, taken, so_far, most))
    return Horizon(looks, spent, horizon.seed, horizon.number)


def _spending(rule: Rule, looks: Sequence[int], taken: int, so_far: float, most: float) -> tuple[float, ...]:
    """Cumulative error by each look after `taken`, from `so_far` to `most`; a look at one or two scenarios spends nothing."""
    start = looks[taken - 1] if taken else 0
    part = [
        ((n - start) / (looks[-1] - start)) ** rule.shape * max(0.0, 1 - 4 / n**2) ** rule.caution
        for n in looks[taken:]
    ]
    whole = part[-1] or 1.0
    return tuple(so_far + (most - so_far) * one / whole for one in part)


# -- standard errors ------------------------------------------------------------------------------


def _variances(
    rule: Rule,
    spread: npt.NDArray[Any],
    df: npt.NDArray[Any],
    here: npt.NDArray[Any],
    *,
    more: tuple[npt.NDArray[Any] | float, float] = (0.0, 0.0),
) -> npt.NDArray[Any]:
    """The variance between scenarios of the paired differences of the cells that are left, (..., C, C).

    `spread` (..., C, C) are sums of squares about each pair's mean difference, 0 on the diagonal; `df` (..., C, C) their
    degrees of freedom; `here` (..., C) is 1 for the cells that are left and 0 for those that left earlier, whose scores say how
    much cells vary all the same. `more` is the sum of squares (...) and the degrees of freedom of pairs that are not in
    `spread`. Values of pairs that are not left, or without degrees of freedom, mean nothing.
    """
    pairs = here[..., :, None] * here[..., None, :]
    if not rule.guarded:
        left = df * pairs
        prior = left.max(axis=(-1, -2), keepdims=True)
        shared = (spread * pairs).sum(axis=(-1, -2), keepdims=True)
        shared = shared * prior / np.maximum(left.sum(axis=(-1, -2), keepdims=True), 1)
        return np.asarray((spread + shared) / np.maximum(prior + df, 1))
    every = spread.sum(axis=(-1, -2)) + more[0]
    mean = (every / np.maximum(df.sum(axis=(-1, -2)) + more[1], 1))[..., None, None]
    own = spread / np.maximum(df, 1)
    known = (pairs > 0) & (df > 0)
    partners = known.sum(axis=-1)
    # The mean of the larger half of each cell's pairs: an erratic cell, and one of another family, is seen in most of its own.
    half = np.maximum((partners + 1) // 2, 1)
    ordered = -np.sort(np.where(known, -own, 0), axis=-1)
    last = np.broadcast_to(half.astype(np.intp) - 1, ordered.shape[:-1])[..., None]
    upper = np.take_along_axis(ordered.cumsum(axis=-1), last, axis=-1)[..., 0] / half
    return np.asarray(np.maximum((own + (upper[..., :, None] + upper[..., None, :]) / 2) / 2, mean))


def boundary(horizon: Horizon, n_cells: int, alpha: float = ALPHA, *, everyone: int = 0) -> FloatArray:
    """c_m(k) for m = `n_cells` left, shape (looks,): the |t| beyond which a pair is called different at look k.

    `everyone` counts the cells that ever took part, `n_cells` at least: those that left tell how much cells vary. Infinite where
    nothing may be spent. `alpha` other than the default scales the spending, for adjusted p values. From a seeded
    simulation, cached; 12 cells and 6 looks take about four seconds, once.
    """
    if n_cells < 2:
        return np.full(len(horizon.looks), np.inf)
    spent = tuple(min(1.0, s * alpha / ALPHA) for s in horizon.spent)
    return _boundary(horizon, spent, *_simulated(horizon.rule, n_cells, everyone))


def _sizes(rule: Rule, most: int) -> list[int]:
    """The numbers of cells that are simulated, up to `most`, which is one of them."""
    sizes = list(rule.sizes)
    while sizes[-1] < most:
        sizes.append(sizes[-1] * 6 // 5)
    return [size for size in sizes if size <= most]


def _size(rule: Rule, n_cells: int) -> int:
    """The number of cells that is simulated for `n_cells`."""
    size = next((s for s in rule.sizes if s >= n_cells), rule.sizes[-1])
    while size < n_cells:
        size = size * 6 // 5
    return size


def _simulated(rule: Rule, n_cells: int, everyone: int) -> tuple[int, int]:
    """How many cells take part, and how many are left, in what is simulated for `n_cells` left of `everyone`."""
    size = _size(rule, n_cells)
    return (max(size, _size(rule, everyone)) if rule.guarded and everyone else size), size


@lru_cache(maxsize=4096)
def _boundary(horizon: Horizon, spent: tuple[float, ...], everyone: int, size: int) -> FloatArray:
    paths = _paths(horizon, everyone, size)
    below = _sizes(horizon.rule, size)[:-1]
    # What the floor of fewer cells keeps a look from spending, a later one spends.
    among = everyone if horizon.rule.guarded else below[-1] if below else 0
    floor = _boundary(horizon, spent, among, below[-1]) if below else np.zeros(len(spent))
    n_draws = paths.shape[1]
    alive = np.ones(paths.shape[:2], dtype=bool)
    c = np.full(len(spent), np.inf)
    for k, level in enumerate(spent):
        if horizon.looks[k] < 2:
            continue
        lowest = float(floor[k])
        for noise, still in zip(paths[..., k], alive, strict=True):
            # Rounded down: what a simulation cannot resolve is not spent.
            allowed = int(level * n_draws + 1e-6) - int(n_draws - still.sum())
            at = noise[still]
            if allowed <= 0:
                lowest = np.inf
            elif allowed < at.size:
                lowest = max(lowest, float(np.partition(at, at.size - 1 - allowed)[at.size - 1 - allowed]))
        c[k] = lowest
        alive &= paths[..., k] <= c[k]
    c.flags.writeable = False
    return c


def _paths(horizon: Horizon, everyone: int, size: int) -> npt.NDArray[np.float32]:
    """max |t| over all pairs of `size` equal cells at every look, (noises, draws, looks), complete data.

    The other cells, up to `everyone`, leave at the first look that can drop any, and still count in the variance of later ones.
    """
    return _all_paths(horizon.looks, horizon.seed, horizon.number, everyone)[size]


@lru_cache(maxsize=64)
def _all_paths(looks: tuple[int, ...], seed: int, number: int, everyone: int) -> Mapping[int, npt.NDArray[np.float32]]:
    rule = RULES[number]
    sizes = _sizes(rule, everyone) if rule.guarded else [everyone]
    n_draws = int(np.clip(_WORK // (everyone * everyone * len(looks)), _MIN_DRAWS, rule.draws))
    chunk = max(1, _CHUNK // (everyone * max(everyone, looks[-1])))
    found = {size: np.zeros((len(rule.noises), n_draws, len(looks)), dtype=np.float32) for size in sizes}
    last = next((k for k, n in enumerate(looks) if n > 2), 0)
    for row, noise in enumerate(rule.noises):
        # A stream for every cell: fewer cells see the same draws, which keeps the boundary smooth in their number.
        streams = [np.random.default_rng([seed, 4, i]) for i in range(everyone)]
        for start in range(0, n_draws, chunk):
            stop = min(start + chunk, n_draws)
            z = _draw(noise, streams, stop - start, looks[-1])
            for size in sizes:
                for k, largest in enumerate(_largest(rule, z, looks, size, last)):
                    found[size][row, start:stop, k] = largest
    for paths in found.values():
        paths.flags.writeable = False
    return found


def _draw(noise: Noise, streams: Sequence[np.random.Generator], draws: int, n: int) -> npt.NDArray[np.float32]:
    """Scores of equal cells, (draws, cells, n)."""
    if noise == "skewed and erratic":
        z = np.stack([s.standard_exponential((draws, n), dtype=np.float32) - 1 for s in streams], axis=1)
    else:
        z = np.stack([s.standard_normal((draws, n), dtype=np.float32) for s in streams], axis=1)
    if noise != "normal":
        z[:, 0] *= np.float32(ERRATIC)
    return np.asarray(z, dtype=np.float32)


def _largest(
    rule: Rule, z: npt.NDArray[np.float32], looks: Sequence[int], size: int, last: int
) -> Iterator[npt.NDArray[np.float32]]:
    """max |t| over all pairs of the first `size` cells at every look, (draws,) each; the others leave at look index `last`."""
    here = np.ones(size, dtype=np.float32)
    pairs = z.shape[1] * (z.shape[1] - 1) - size * (size - 1)
    off = np.ones((size, size), dtype=np.float32) - np.eye(size, dtype=np.float32)
    extra, extra_df = np.zeros(len(z), dtype=np.float32), 0
    for k, n in enumerate(looks):
        if n < 2:
            yield np.zeros(len(z), dtype=np.float32)
            continue
        if k <= last and pairs:
            _, spread = _moments(z, n)
            extra, extra_df = spread.sum(axis=(-1, -2)) - spread[:, :size, :size].sum(axis=(-1, -2)), pairs * (n - 1)
        mean, spread = _moments(z[:, :size], n)
        v = _variances(rule, spread, off * np.float32(n - 1), here, more=(extra, extra_df))
        square = mean[:, :, None] - mean[:, None, :]
        square *= square
        square /= np.maximum(v, _FLOOR)
        yield np.sqrt(square.max(axis=(-1, -2)) * n)


def _moments(z: npt.NDArray[Any], n: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """By the first `n` scenarios: the cells' means (B, C), and each pair's sum of squares (B, C, C). Complete data."""
    mean = z[..., :n].mean(axis=-1)
    centred = z[..., :n] - mean[..., None]
    gram = centred @ np.swapaxes(centred, -1, -2)
    own = np.diagonal(gram, axis1=-2, axis2=-1).copy()
    gram *= -2
    gram += own[..., :, None]
    gram += own[..., None, :]
    diagonal = np.arange(z.shape[-2])
    gram[..., diagonal, diagonal] = 0.0
    np.maximum(gram, 0, out=gram)
    return mean, gram


def _nominal(horizon: Horizon, n_cells: int, everyone: int, look: int) -> float:
    """How often m equal cells would cross c_m(k) at look k, were that the only one, under the noise that crosses it most."""
    c = boundary(horizon, n_cells, everyone=everyone)[look - 1]
    paths = _paths(horizon, *_simulated(horizon.rule, n_cells, everyone))
    return float((paths[..., look - 1] > c).mean(axis=-1).max())


def _critical(horizon: Horizon, mask: BoolArray, left: Sequence[int], look: int) -> float:
    """c_m(k), adapted to missing scores: larger by as much as the largest |t| of this pattern is than without the holes.

    `mask` (C, n) has all cells that took part, those that left up to where they left; `left` are the rows that are left. Both are
    compared at the nominal level of this look, or at the smallest that the draws still resolve.
    """
    everyone = int(mask.any(axis=1).sum())
    c = float(boundary(horizon, len(left), everyone=everyone)[look - 1])
    rows = mask if horizon.rule.guarded else mask[list(left)]
    here = np.zeros(len(mask), dtype=bool)
    here[list(left)] = True
    here = here if horizon.rule.guarded else here[list(left)]
    if rows[here].all() or not np.isfinite(c):
        return c
    full = rows | here[:, None]
    holed = _one_look(horizon.number, rows.tobytes(), here.tobytes(), rows.shape, horizon.seed)
    whole = _one_look(horizon.number, full.tobytes(), here.tobytes(), rows.shape, horizon.seed)
    level = 1 - max(_nominal(horizon, len(left), everyone, look), 30 / holed.size)
    return c * max(1.0, float(np.quantile(holed, level) / np.quantile(whole, level)))


@lru_cache(maxsize=256)
def _one_look(number: int, mask_bytes: bytes, here_bytes: bytes, shape: tuple[int, int], seed: int) -> FloatArray:
    """Draws of max |t| over the pairs of the cells that are left, all equal and normal, with this pattern of scores."""
    mask = np.frombuffer(mask_bytes, dtype=bool).reshape(shape)
    here = np.frombuffer(here_bytes, dtype=bool)
    rng = np.random.default_rng([seed, 5])
    n_draws = int(np.clip(_WORK // (shape[0] * shape[0] * 8), 2_000, 10_000))
    chunk = max(1, _CHUNK // (shape[0] * max(shape)))
    found = []
    for start in range(0, n_draws, chunk):
        z = rng.standard_normal((min(chunk, n_draws - start), *shape), dtype=np.float32) * mask
        t = _studentised(RULES[number], z, mask, here)[2]
        found.append(t.max(axis=(-1, -2)))
    return np.concatenate(found).astype(float)


def _studentised(
    rule: Rule, z: npt.NDArray[Any], mask: BoolArray, here: BoolArray
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Paired differences, standard errors, |t| and common scenarios of the cells that are left, (..., m, m); the last (m, m).

    `z` (..., C, S) has zeros where `mask` (C, S) is False. Where fewer than two scenarios are common the error is infinite and |t| is 0.
    """
    diff, spread, n = pair_spreads(z, mask)
    df = np.maximum(n - 1, 0)
    np.fill_diagonal(df, 0)
    if rule.guarded:
        v = _variances(rule, spread, df, here.astype(z.dtype))[..., here, :][..., here]
    else:
        v = moderated_variance(spread[..., here, :][..., here], n[here][:, here])
    diff, n = diff[..., here, :][..., here], n[here][:, here]
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.sqrt(v * np.where(n > 1, 1 / np.maximum(n, 1), np.inf).astype(z.dtype))
        t = np.where(
            (n > 1) & (se > 0), np.abs(diff) / np.maximum(se, np.sqrt(_FLOOR) if z.dtype == np.float32 else 0), 0
        )
    return diff, se, t, n


def adjusted_p(horizon: Horizon, drop: Drop) -> float | None:
    """The smallest family-wise error, spent in the same shape, at which this look would still have dropped the cell.

    Simulated, so never below 0.0005; below `ALPHA` for every cell that was dropped for being worse.
    """
    return None if drop.t is None else sequential_p(horizon, drop.among, drop.look, drop.t, drop.everyone)


def sequential_p(horizon: Horizon, n_cells: int, look: int, t: float, everyone: int = 0) -> float:
    """The p value of a |t| at this look among `n_cells` cells of `everyone`; see `adjusted_p`. Between 0.0005 and 1."""
    levels = np.array(_LEVELS)
    c = np.array([boundary(horizon, n_cells, float(a), everyone=everyone)[look - 1] for a in levels])
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
            stop = _stop(x, left, dropped, looks, horizon, margin)
            if stop:
                break
        recorded = history[number - 1] if len(history) >= number else None
        if recorded is None:
            seen = np.zeros(x.shape, dtype=bool)
            seen[left, :n] = True
            missing = seen & waiting
            if missing.any():
                break
        look = recorded or _look(x, left, dropped, horizon, number)
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
        stop = _stop(x, left, dropped, looks, horizon, margin) or "used up"
    begun = looks[-1].n_scenarios if looks else 0
    block = None if stop else (begun, horizon.looks[len(looks)])
    if stop:
        missing = np.zeros(x.shape, dtype=bool)
    upto = looks[-1].n_scenarios if looks else x.shape[1]
    return Decision(tuple(looks), tuple(_best_first(x[:, :upto], left)), dropped, stop, block, missing)


def _taken(x: FloatArray, n: int, left: Sequence[int], dropped: Mapping[int, Drop], horizon: Horizon) -> FloatArray:
    """The scores that a look at `n` scenarios goes by, (C, n): those of cells that left end where they left, and who is not in yet has none."""
    n = min(n, x.shape[1])
    seen = np.full((len(x), n), np.nan)
    seen[list(left)] = x[list(left), :n]
    for cell, drop in dropped.items():
        upto = min(n, horizon.looks[drop.look - 1])
        if cell not in left:
            seen[cell, :upto] = x[cell, :upto]
    return seen


def _look(x: FloatArray, left: Sequence[int], earlier: Mapping[int, Drop], horizon: Horizon, number: int) -> Look:
    """Look `number` at the cells `left`."""
    n = horizon.looks[number - 1]
    here = sorted(left)
    dropped = [Drop(c, number, "no scores") for c in here if np.isnan(x[c, :n]).all()]
    silent = {d.cell for d in dropped}
    stay = [c for c in here if c not in silent]
    seen = _taken(x, n, stay, earlier, horizon)
    while len(stay) > 1:
        leader = _best_first(seen, stay)[0]
        found = _worse(seen, stay, leader, horizon, number)
        if not found:
            break
        dropped += found
        gone = {d.cell for d in found}
        stay = [c for c in stay if c not in gone]
    return Look(number, n, tuple(here), tuple(dropped))


def _pairs(
    x: FloatArray, left: Sequence[int], rule: Rule
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Paired differences, standard errors and common scenarios of the cells `left` of `x` (C, n), each (m, m), in the order of `x`."""
    if not rule.guarded:
        x = x[sorted(left)]
        left = range(len(x))
    mask = ~np.isnan(x)
    here = np.zeros(len(x), dtype=bool)
    here[list(left)] = True
    diff, se, _, common = _studentised(rule, centred_by_scenario(x, mask), mask, here)
    return diff, se, common


def _worse(x: FloatArray, left: Sequence[int], leader: int, horizon: Horizon, number: int) -> list[Drop]:
    """The cells `left` of `x` (C, n) that are shown to be worse than the leader of them."""
    mask = ~np.isnan(x)
    rows = sorted(left)
    m, everyone = len(rows), int(mask.any(axis=1).sum())
    all_diff, all_se, common = _pairs(x, rows, horizon.rule)
    at = rows.index(leader)
    diff, se, n = all_diff[:, at], all_se[:, at], common[:, at]
    scale = max(float(np.nanmax(np.abs(x))), 1.0)
    found = []
    if np.where(n >= 2, se, 0.0).max() > NOTHING * scale:
        c = _critical(horizon, mask, rows, number)
        for i, cell in enumerate(rows):
            if cell == leader or n[i] < 2 or diff[i] >= -NOTHING * scale:
                continue
            t = float(-diff[i] / se[i]) if se[i] > 0 else np.inf
            if t > c:
                half = float(c * se[i])
                d = float(diff[i])
                found.append(Drop(cell, number, "worse", leader, d, d - half, d + half, t, m, everyone))
        return found
    # No difference varies: there is no noise to scale by, and the sign-flip test's p is compared with this look's level.
    level = _nominal(horizon, m, everyone, number)
    for i, cell in enumerate(rows):
        if cell != leader and n[i] >= 2 and diff[i] < -NOTHING * scale and m * (m - 1) / 2 * 2.0 ** (1 - n[i]) < level:
            found.append(Drop(cell, number, "worse", leader, float(diff[i]), among=m, everyone=everyone))
    return found


def _stop(
    x: FloatArray,
    left: Sequence[int],
    dropped: Mapping[int, Drop],
    looks: Sequence[Look],
    horizon: Horizon,
    margin: float,
) -> Stop | None:
    """Why the race is over after these looks, before the scenarios are used up."""
    if not left:
        return "nothing scored"
    caught_up = looks and set(left) <= {*looks[-1].cells}
    if len(left) == 1:
        return "one left"
    if margin > 0 and caught_up:
        widest = _widest(_taken(x, looks[-1].n_scenarios, left, dropped, horizon), left, looks[-1], horizon)
        if widest is not None and widest < margin:
            return "within margin"
    return None


def _widest(x: FloatArray, left: Sequence[int], look: Look, horizon: Horizon) -> float | None:
    """The largest difference that the simultaneous intervals of this look leave possible between two cells left; `x` is what it saw."""
    c = _critical(horizon, ~np.isnan(x), sorted(left), look.number) if look.n_scenarios > 1 else np.inf
    diff, se, common = _pairs(x, left, horizon.rule)
    off = ~np.eye(len(diff), dtype=bool)
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
        seen = _taken(x, look.n_scenarios, rows, decision.dropped, horizon)
        mask = ~np.isnan(seen)
        everyone = int(mask.any(axis=1).sum())
        all_diff, all_se, common = _pairs(seen, rows, horizon.rule)
        at = rows.index(leader)
        c = _critical(horizon, mask, rows, look.number)
        complete = float(boundary(horizon, len(rows), everyone=everyone)[look.number - 1])
        for i, cell in enumerate(rows):
            if cell == leader or common[i, at] < 1:
                continue
            diff[cell] = all_diff[i, at]
            if common[i, at] >= 2 and np.isfinite(c) and all_se[i, at] > 0:
                half = c * all_se[i, at]
                low[cell], high[cell] = diff[cell] - half, diff[cell] + half
                t = abs(diff[cell]) / all_se[i, at] * complete / c
                p[cell] = sequential_p(horizon, len(rows), look.number, float(t), everyone)
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
    rule = horizon.rule
    if boundaries is None:
        boundaries = np.stack([boundary(horizon, m, everyone=n_cells) for m in range(n_cells + 1)])
    finite = np.where(np.isfinite(boundaries), boundaries, 1e6)  # infinity times an error of zero is no number
    left = np.ones((n_draws, n_cells), dtype=bool)
    used = np.zeros((n_draws, n_cells), dtype=np.intp)
    open_, within = np.ones(n_draws, dtype=bool), np.zeros(n_draws, dtype=bool)
    stopped_at, leader = np.full(n_draws, len(horizon.looks)), np.zeros(n_draws, dtype=np.intp)
    spread = np.zeros((n_draws, n_cells, n_cells), dtype=np.float32)
    df = np.zeros_like(spread)
    apart = ~np.eye(n_cells, dtype=bool)
    for k, n in enumerate(horizon.looks):
        used[left & open_[:, None]] = n
        mean, own = _moments(z, n)
        both = left[:, :, None] & left[:, None, :] & apart
        spread[both], df[both] = own[both], n - 1
        going = np.flatnonzero(open_)
        while going.size:
            here, m = left[going], left[going].sum(axis=1)
            first = np.where(here, mean[going], -np.inf).argmax(axis=1)
            leader[going] = first
            v = _variances(rule, spread[going], df[going], here.astype(np.float32))[np.arange(going.size), first]
            gap = mean[going, first][:, None] - mean[going]
            worse = here & (gap > finite[m, k][:, None] * np.sqrt(v / n)) & (gap > 0)
            left[going] &= ~worse
            going = going[worse.any(axis=1) & (left[going].sum(axis=1) > 1)]
        ended = open_ & (left.sum(axis=1) == 1)
        if margin > 0:
            v = _variances(rule, spread, df, left.astype(np.float32)) / n
            near = _all_near(mean, v, left, finite[left.sum(axis=1), k], margin) & open_ & ~ended
            within |= near
            ended |= near
        stopped_at[ended] = k + 1
        open_ &= ~ended
    return Races(left, used, stopped_at, within, leader)


def _all_near(mean: npt.NDArray[Any], v: npt.NDArray[Any], left: BoolArray, c: FloatArray, margin: float) -> BoolArray:
    reach = np.abs(mean[:, :, None] - mean[:, None, :]) + c[:, None, None] * np.sqrt(v)
    reach = np.where(left[:, :, None] & left[:, None, :] & ~np.eye(left.shape[1], dtype=bool), reach, 0.0)
    return np.asarray(reach.max(axis=(-1, -2)) < margin, dtype=bool)
