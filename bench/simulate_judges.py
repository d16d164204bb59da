"""Simulated benchmarks of what judges do to a ranking: references and another judge, on made-up and on real scores.

    python bench/simulate_judges.py references --runs 1000
    python bench/simulate_judges.py real --scores scores.csv --runs 400

Scores come from made-up cells whose truth is known: a scenario effect, a cell x scenario effect (0.35 points) and tips
around that (0.7 points); a judge adds noise of its own (0.5 points) and rounds to whole scores from 1 to 5. `real` takes
scores that people and models gave (columns model, scenario, judge, judge_kind, then the criteria) and draws from them.
Prints tables with their standard errors; asserts nothing.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from tipbench.stats import compare_pairs, difference_tests

Array = npt.NDArray[np.float64]
Rng = np.random.Generator

SD_SCENARIO, SD_INTERACTION, SD_TIP, SD_JUDGE = 0.4, 0.35, 0.7, 0.5
PEOPLE = 3
CONSOLE = Console(width=180)


@dataclass(frozen=True)
class Judge:
    """How another judge comes to its scores: slope x what is there + own part of the interaction + lean for each cell."""

    name: str
    slope: float = 1.0
    own: float = 0.0
    """Spread of its own, wrong, view of how a cell does on a scenario, in points."""
    lean: float = 0.0
    """Spread of its bias for or against a cell, in points."""
    level: float = 0.0


JUDGES = (
    Judge("good"),
    Judge("biased", own=0.3, lean=0.5, level=0.6),
    Judge("useless", slope=0.0, own=0.6, lean=0.3),
    Judge("lying", slope=-1.0, lean=0.5, level=6.0),
)


def truth(cells: int, behind: str) -> Array:
    """Composites of the cells: all equal, or a third worse (`partial null`), or all different."""
    mean = np.full(cells, 3.2)
    if behind == "some worse":
        mean[-max(1, cells // 3) :] -= 0.6
    elif behind == "all differ":
        mean -= np.linspace(0, 0.9, cells)
    return mean


def tips(mean: Array, runs: int, scenarios: int, n_tips: int, rng: Rng) -> Array:
    """What is there, before anybody scores it: (runs, cells, scenarios, tips)."""
    c = len(mean)
    base = mean[:, None] + SD_SCENARIO * rng.standard_normal((runs, 1, scenarios))
    base = base + SD_INTERACTION * rng.standard_normal((runs, c, scenarios))
    return np.asarray(base[..., None] + SD_TIP * rng.standard_normal((runs, c, scenarios, n_tips)))


def whole(x: Array) -> Array:
    return np.asarray(np.clip(np.rint(x), 1, 5))


def people(there: Array, rng: Rng) -> Array:
    """The mean of three people's scores, each with a leniency of his own; same shape."""
    return np.mean(
        [whole(there + lenient + SD_JUDGE * rng.standard_normal(there.shape)) for lenient in (-0.3, 0.0, 0.3)], axis=0
    )


def other(judge: Judge, there: Array, rng: Rng) -> Array:
    """Another judge's scores; its lean is drawn once for each run and cell, its wrong view for each scenario."""
    runs, c, s, _ = there.shape
    seen = judge.slope * there + (1 - judge.slope) * 3.2 * (judge.slope >= 0)
    lean = judge.lean * rng.standard_normal((runs, c, 1, 1)) + judge.own * rng.standard_normal((runs, c, s, 1))
    return whole(seen + judge.level + lean + SD_JUDGE * rng.standard_normal(there.shape))


def expected(mean: Array, rng: Rng) -> Array:
    """What people say of each cell in the long run; rounding and clipping move it."""
    found = np.mean([people(tips(mean, 50, 30, 5, rng), rng).mean(axis=(0, 2, 3)) for _ in range(40)], axis=0)
    for value in np.unique(mean):
        found[mean == value] = found[mean == value].mean()
    return np.asarray(found)


@dataclass
class Tally:
    """What happened over many boards."""

    boards: int = 0
    covered: int = 0
    leader_covered: int = 0
    false: int = 0
    width: float = 0.0
    own_width: float = 0.0
    alone_covered: int = 0
    weight: float = 0.0

    def add(self, y: Array, shared: Array, f: Array, true: Array, seed: int) -> None:
        """One board: `y` (C, S) with NaN where the references did not score, the other judge on their tips and on all."""
        gap = true[:, None] - true[None, :]
        weight, pairs = difference_tests(y, shared, f, seed=seed)
        _, own = difference_tests(y, seed=seed)
        alone = compare_pairs(f, seed=seed)
        off = ~np.eye(len(true), dtype=bool)
        inside = (pairs.low <= gap + 1e-9) & (gap - 1e-9 <= pairs.high) | ~off
        leader = int(np.nanargmin(np.nanmax(np.where(off, -pairs.diff, -np.inf), axis=1)))
        self.boards += 1
        self.covered += bool(inside.all())
        self.leader_covered += bool(inside[:, leader].all())
        self.false += bool((pairs.better & (gap <= 1e-9)).any())
        self.alone_covered += bool(((alone.low <= gap + 1e-9) & (gap - 1e-9 <= alone.high) | ~off).all())
        self.width += float((pairs.high - pairs.low)[off].mean())
        self.own_width += float((own.high - own.low)[off].mean())
        self.weight += weight

    def row(self) -> tuple[str, ...]:
        n = self.boards
        return (
            share(self.covered, n),
            share(self.leader_covered, n),
            share(self.false, n),
            f"{self.width / self.own_width:.3f}",
            f"{self.weight / n:.2f}",
            share(self.alone_covered, n),
        )


COLUMNS = (
    "all pairs covered",
    "those to the leader",
    "a false difference",
    "width / references' own",
    "mean λ",
    "other judge alone covers",
)


def share(count: int, n: int) -> str:
    p = count / n
    return f"{p:.1%} ±{(p * (1 - p) / n) ** 0.5:.1%}"


def part_of(y: Array, f: Array, n: int, n_tips: int | None, rng: Rng) -> tuple[Array, Array, Array]:
    """References on `n` scenarios (of each, `n_tips` tips a cell): scenario means y, f on the same tips, f on all."""
    c, s, t = y.shape
    chosen = np.arange(s) < n
    blank = np.full((c, s), np.nan)
    if n_tips is None or n_tips >= t:
        return np.where(chosen, y.mean(axis=2), blank), np.where(chosen, f.mean(axis=2), blank), f.mean(axis=2)
    which = rng.random((c, s, t)).argsort(axis=2)[..., :n_tips]
    some_y, some_f = (np.take_along_axis(x, which, axis=2).mean(axis=2) for x in (y, f))
    return np.where(chosen, some_y, blank), np.where(chosen, some_f, blank), f.mean(axis=2)


def references(args: argparse.Namespace) -> None:
    for behind in args.nulls:
        table = Table(
            "cells", "scenarios", "references on", "tips", "judge", *COLUMNS, title=f"{behind}; {args.runs} boards each"
        )
        for cells in args.cells:
            mean = truth(cells, behind)
            true = expected(mean, np.random.default_rng(1))
            for scenarios in args.scenarios:
                for n in (n for n in args.references if n < scenarios):
                    for judge in JUDGES:
                        rng = np.random.default_rng([args.seed, cells, scenarios, n, JUDGES.index(judge)])
                        tally = Tally()
                        for _ in range(0, args.runs, 50):
                            there = tips(mean, 50, scenarios, 5, rng)
                            y, f = people(there, rng), other(judge, there, rng)
                            for one_y, one_f in zip(y, f, strict=True):
                                tally.add(*part_of(one_y, one_f, n, args.tips, rng), true, args.seed)
                        row = (str(cells), str(scenarios), str(n), str(args.tips or 5), judge.name, *tally.row())
                        table.add_row(*row)
                        print(behind, *row, sep=" | ", file=sys.stderr, flush=True)
        CONSOLE.print(table)


def read_scores(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """judge -> scores (models, scenarios), the mean of the criteria; and judge -> kind."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    criteria = [name for name in rows[0] if name not in ("model", "prompt", "scenario", "text", "judge", "judge_kind")]
    models = sorted({r["model"] for r in rows})
    scenarios = sorted({r["scenario"] for r in rows})
    kinds = {r["judge"]: r["judge_kind"] for r in rows}
    table = {j: np.full((len(models), len(scenarios)), np.nan) for j in kinds}
    for r in rows:
        score = float(np.mean([float(r[c]) for c in criteria]))
        table[r["judge"]][models.index(r["model"]), scenarios.index(r["scenario"])] = score
    return table, kinds


def real(args: argparse.Namespace) -> None:
    """Boards drawn from real scores: some models, some texts; the people's mean over all texts is the truth."""
    table, kinds = read_scores(args.scores)
    y = np.mean([x for j, x in table.items() if kinds[j] == "human"], axis=0)
    true = y.mean(axis=1)
    out = Table(
        "cells", "scenarios", "references on", "judge", *COLUMNS, title=f"{args.scores.name}; {args.runs} boards each"
    )
    for cells in args.cells:
        for scenarios in args.scenarios:
            for n in (n for n in args.references if n < scenarios):
                for judge in sorted(j for j, kind in kinds.items() if kind != "human"):
                    rng = np.random.default_rng([args.seed, cells, scenarios, n])
                    tally = Tally()
                    for _ in range(args.runs):
                        which = rng.choice(len(y), cells, replace=False)
                        texts = rng.choice(y.shape[1], scenarios, replace=False)
                        one_y, f = y[np.ix_(which, texts)], table[judge][np.ix_(which, texts)]
                        tally.add(*part_of(one_y[..., None], f[..., None], n, None, rng), true[which], args.seed)
                    out.add_row(str(cells), str(scenarios), str(n), judge, *tally.row())
    CONSOLE.print(out)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("references", "real"))
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--cells", type=numbers, default=[4, 12])
    parser.add_argument("--scenarios", type=numbers, default=[16, 30])
    parser.add_argument("--references", type=numbers, default=[6, 8, 16], help="scenarios scored by people")
    parser.add_argument("--tips", type=int, help="tips a cell and scenario that people score; all five by default")
    parser.add_argument("--nulls", type=lambda t: t.split(","), default=["all equal", "some worse"])
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(None if argv is None else list(argv))
    start = time.perf_counter()
    {"references": references, "real": real}[args.what](args)
    CONSOLE.print(f"{time.perf_counter() - start:.0f} s, seed {args.seed}")


if __name__ == "__main__":
    main()
