"""Simulated benchmarks of rounds: how much work they save, what they keep, and how often they drop a cell that is as good.

    python bench/simulate_rounds.py --draws 10000

Scores are scenario means around each cell's truth: SD 0.52 (0.35 interaction, five tips of 0.7, a judge's 0.5), complete unless it says
otherwise. Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from tipbench.stats.maxt import critical_value, mask_key, null_draws, null_maxima
from tipbench.stats.sequential import (
    NEWEST,
    Entry,
    Horizon,
    Look,
    boundary,
    decide,
    make_horizon,
    race,
)

Array = npt.NDArray[np.float32]
SD = 0.52
ERRATIC = 2.15
"""What three times the interaction makes of a cell's spread: from 0.52 to 1.12."""
KINDS = ("normal", "skewed", "one 3x", "skewed, one 3x")
CHUNK = 500


def noise(rng: np.random.Generator, shape: tuple[int, ...], skewed: bool = False) -> Array:
    """Standard noise, normal or exponential."""
    if skewed:
        return (rng.standard_exponential(shape, dtype=np.float32) - 1).astype(np.float32)
    return rng.standard_normal(shape, dtype=np.float32)


def scores(rng: np.random.Generator, shape: tuple[int, int, int], kind: str) -> Array:
    """Scenario means of equal cells, (draws, cells, scenarios)."""
    z = SD * noise(rng, shape, "skewed" in kind)
    if "3x" in kind:
        z[:, 0] *= 3 if "all" in kind else ERRATIC
    if "families" in kind:
        # Prompts of one model do well and badly on the same scenarios: 0.6 points of them in common, and the rest of each cell's own.
        families = int(kind[0])
        shared = 0.6 * noise(rng, (shape[0], families, shape[2]))
        z = z * (0.41 / SD) + np.repeat(shared, -(-shape[1] // families), axis=1)[:, : shape[1]]
    return np.asarray(z, dtype=np.float32)


def truths(kind: str, draws: int, cells: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(draws, cells): `ahead` (one cell a point), `equal`, or the SD by which cells are spread."""
    truth = np.zeros((draws, cells))
    if kind == "ahead":
        truth[:, 0] = 1.0
    elif kind != "equal":
        truth = float(kind) * rng.standard_normal((draws, cells))
    return truth


def full_design(z: Array, critical: float) -> npt.NDArray[np.bool_]:
    """Which cells the full design leaves tied with the leader, (B, C): the test of `compare_cells`."""
    b, c, n = z.shape
    mean = z.mean(axis=-1)
    x = z - mean[..., None]
    own = x @ np.swapaxes(x, 1, 2)
    d = np.diagonal(own, axis1=1, axis2=2).copy()
    own = (d[:, :, None] + d[:, None, :] - 2 * own) / (n - 1)
    pooled = own.sum(axis=(1, 2)) / (c * (c - 1))
    lead = mean.argmax(axis=1)
    row = np.arange(b)
    t = (mean[row, lead][:, None] - mean) / np.sqrt((own[row, lead] + pooled[:, None]) / (2 * n))
    return np.asarray(t <= critical)


def successive_rejects(z: Array, budget: int) -> npt.NDArray[np.intp]:
    """The cell that successive rejects recommends for at most `budget` scenarios in all, (B,): one worst cell out per phase.

    Phase lengths of Audibert, Bubeck & Munos 2010; the yardstick of arXiv 2606.07726.
    """
    b, c, n = z.shape
    log_bar = 0.5 + sum(1 / i for i in range(2, c + 1))
    left = np.ones((b, c), dtype=bool)
    for k in range(1, c):
        seen = int(np.clip(np.ceil((budget - c) / (log_bar * (c + 1 - k))), 1, n))
        mean = np.where(left, z[:, :, :seen].mean(axis=-1), np.inf)
        left[np.arange(b), mean.argmin(axis=1)] = False
    return np.asarray(left.argmax(axis=1))


def savings(cells: int, horizon: Horizon, draws: int, seed: int) -> Table:
    """The issue's table, with the yardstick and the winner's exaggeration."""
    n = horizon.looks[-1]
    mask = np.ones((cells, n), dtype=bool)
    critical = critical_value(null_maxima(mask_key(mask), mask.shape, null_draws(10_000, mask), 0), 0.95)
    table = Table(
        f"truth, {cells} cells, {n} scenarios, looks {horizon.looks}", "full: tied", "rounds: tied", "work", "±",
        "true best is first: full", "rounds", "successive rejects, same work", "true best lost: full", "rounds",
        "winner exaggerated by: full", "rounds",
    )  # fmt: skip
    for kind, name in (
        ("ahead", "one cell a point ahead"),
        ("0.6", "spread, SD 0.6"),
        ("0.3", "spread, SD 0.3"),
        ("equal", "all equal"),
    ):
        rng = np.random.default_rng([seed, len(name)])
        rows = []
        for start in range(0, draws, CHUNK):
            b = min(CHUNK, draws - start)
            truth = truths(kind, b, cells, rng)
            z = (truth[:, :, None] + SD * noise(rng, (b, cells, n))).astype(np.float32)
            races = race(z, horizon)
            tied = full_design(z, critical)
            best = truth.argmax(axis=1)
            row = np.arange(b)
            lead = z.mean(axis=-1).argmax(axis=1)
            seen = races.used[row, races.leader]
            sums = np.cumsum(z, axis=-1)
            rounds_mean = sums[row, races.leader, seen - 1] / seen
            rejects = successive_rejects(z, int(races.used.sum(axis=1).mean()))
            rows.append(
                np.stack(
                    [
                        tied.sum(axis=1), races.kept.sum(axis=1), races.used.sum(axis=1) / (cells * n),
                        lead == best, races.leader == best, rejects == best,
                        ~tied[row, best], ~races.kept[row, best],
                        z.mean(axis=-1)[row, lead] - truth[row, lead], rounds_mean - truth[row, races.leader],
                    ],
                    axis=1,
                )
            )  # fmt: skip
        found = np.concatenate(rows)
        mean, work_se = found.mean(axis=0), found[:, 2].std() / np.sqrt(draws)
        share = ["-"] * 3 if kind == "equal" else [f"{v:.0%}" for v in mean[3:6]]
        lost = ["-"] * 2 if kind == "equal" else [f"{v:.1%}" for v in mean[6:8]]
        table.add_row(
            name, f"{mean[0]:.1f}", f"{mean[1]:.1f}", f"{mean[2]:.1%}", f"{work_se:.1%}", *share, *lost,
            f"{mean[8]:.2f}", f"{mean[9]:.2f}",
        )  # fmt: skip
    return table


def errors(horizon: Horizon, draws: int, seed: int) -> Table:
    """How often a cell that is as good as the best is ever dropped."""
    table = Table("equally best cells of all", "scores", "ever dropped one", "±")
    n, worst = horizon.looks[-1], 0.0
    cases = [(12, 12, 0.0, kind) for kind in (*KINDS, "one 3x in all its noise", "2 families", "4 families")]
    cases += [(3, 12, gap, kind) for gap in (0.5, 1.0, 5.0) for kind in KINDS]
    cases += [(2, 12, gap, kind) for gap in (0.5, 1.0, 2.0, 5.0) for kind in KINDS]
    cases += [
        (best, 12, gap, kind) for best in (4, 6, 11) for gap in (1.0, 5.0) for kind in ("normal", "skewed, one 3x")
    ]
    cases += [(1, 12, gap, "normal") for gap in (0.1, 0.3)]
    cases += [(c, c, 0.0, kind) for c in (2, 4, 8, 20, 30) for kind in ("normal", "one 3x", "skewed, one 3x")]
    cases += [(3, 30, 1.0, "skewed, one 3x")]
    for best, cells, gap, kind in cases:
        rng = np.random.default_rng([seed, best, cells, len(kind)])
        wrong = 0
        for start in range(0, draws, CHUNK):
            b = min(CHUNK, draws - start)
            z = scores(rng, (b, cells, n), kind)
            z[:, best:] -= gap
            wrong += int((~race(z, horizon).kept[:, :best]).any(axis=1).sum())
        rate = wrong / draws
        behind = f", others {gap:g} behind" if best < cells else ""
        worst = max(worst, rate)
        table.add_row(f"{best} of {cells}{behind}", kind, f"{rate:.1%}", f"{np.sqrt(rate * (1 - rate) / draws):.1%}")
        print(best, cells, gap, kind, f"{rate:.2%}", sep=" | ", file=sys.stderr, flush=True)
    table.caption = f"{draws} races each; at most {worst:.1%}"
    return table


def one_by_one(horizon: Horizon, draws: int, seed: int) -> Table:
    """What only `decide` does: missing scores, and drops that are undone by hand."""
    table = Table("12 equal cells", "ever dropped one", "±")
    n = horizon.looks[-1]
    holes = np.random.default_rng(seed).random((12, n)) < 0.1
    nothing = np.zeros((12, n), dtype=bool)
    for name in ("a tenth of the scores missing", "every drop undone at once"):
        rng = np.random.default_rng([seed, 7])
        wrong = 0
        for _ in range(draws):
            x = SD * rng.standard_normal((12, n))
            if name.startswith("a tenth"):
                x[holes] = np.nan
                wrong += bool(decide(x, nothing, horizon).dropped)
            else:
                wrong += _undone(x, nothing, horizon)
        rate = wrong / draws
        table.add_row(f"{name} ({draws} draws)", f"{rate:.1%}", f"{np.sqrt(rate * (1 - rate) / draws):.1%}")
    return table


def _undone(x: npt.NDArray[np.float64], pending: npt.NDArray[np.bool_], horizon: Horizon) -> bool:
    """Was anybody ever dropped, with everybody taken back after every look?"""
    history: list[Look] = []
    entries: list[Entry] = []
    ever = False
    while len(history) < len(horizon.looks):
        look = decide(x, pending, horizon, history=history, entries=entries).looks[len(history)]
        history.append(look)
        entries += [Entry(d.cell, look.number) for d in look.dropped]
        ever = ever or bool(look.dropped)
    return ever


def within(horizon: Horizon, draws: int, seed: int) -> Table:
    """Stopping within a margin: how soon, and how often it is wrong."""
    table = Table("cells", "margin", "true differences", "stopped within the margin", "scenarios per cell")
    n = horizon.looks[-1]
    for cells, margin, gap in (
        (2, 0.3, 0.0),
        (2, 0.5, 0.0),
        (4, 0.5, 0.0),
        (2, 0.3, 0.3),
        (2, 0.5, 0.5),
        (4, 0.5, 0.5),
    ):
        rng = np.random.default_rng([seed, cells, int(100 * gap)])
        z = SD * noise(rng, (draws, cells, n))
        z[:, 0] += gap
        races = race(z, horizon, margin=margin)
        words = "none" if gap == 0 else f"one cell {gap:g} ahead: a stop is an error"
        table.add_row(str(cells), f"{margin:g}", words, f"{races.within.mean():.1%}", f"{races.used.mean():.1f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--draws", type=int, default=10_000, help="draws for the error rates; the work takes a fifth of them"
    )
    parser.add_argument("--scenarios", type=int, default=24)
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rule", type=int, default=NEWEST, help="how looks are taken, a key of sequential.RULES")
    args = parser.parse_args()
    console = Console(width=200)
    start = time.perf_counter()
    horizon = make_horizon(args.scenarios, args.block, number=args.rule)
    boundary(horizon, 12)
    console.print(f"boundary for 12 cells and {len(horizon.looks)} looks: {time.perf_counter() - start:.1f} s")
    console.print(savings(12, horizon, max(args.draws // 5, 200), args.seed))
    longer = make_horizon(2 * args.scenarios, args.block, number=args.rule)
    console.print("The saved work put into more scenarios: the same with twice the scenarios; work is of these.")
    console.print(savings(12, longer, max(args.draws // 10, 200), args.seed))
    console.print(errors(horizon, args.draws, args.seed))
    console.print(one_by_one(horizon, max(args.draws // 10, 20), args.seed))
    console.print(within(horizon, max(args.draws // 5, 200), args.seed))
    console.print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
