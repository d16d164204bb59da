"""Simulated benchmarks of what judges do to a ranking: references and another judge, on made-up and on real scores.

    python bench/simulate_judges.py references --runs 1000
    python bench/simulate_judges.py effects --runs 1000
    python bench/simulate_judges.py recommended --runs 1000
    python bench/simulate_judges.py experts --runs 1000
    python bench/simulate_judges.py cli --runs 20
    python bench/simulate_judges.py real --scores scores.csv --runs 400

Scores come from made-up cells whose truth is known: a scenario effect, a cell x scenario effect (0.35 points) and tips
around that (0.7 points); a judge adds noise of its own (0.5 points) and rounds to whole scores from 1 to 5. `effects` has
lenient judges of a part and no reference; `recommended` asks which cell is named; `experts` is one LLM on all and three people
on a part, `cli` the same through the command line (files, `tipbench import`, `tipbench compare --reference`). `real` takes
scores that people and models gave (columns model, scenario, judge, judge_kind, then the criteria) and draws from them.
Prints tables with their standard errors; asserts nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from tipbench.cli import cli as command_line
from tipbench.stats import choose, compare_judged, compare_pairs, difference_tests

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


# -- judges of a part, and no reference -----------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """Which judges score what, and how: the first is the complete one where there is one."""

    name: str
    complete: bool
    partial: int
    slope: float = 1.0
    """How far the partial judges' scores spread, of how far the first one's do."""
    low: int = 1
    """The lowest score that the partial judges give: 3 for one who uses only 3 to 5."""


PANELS = (
    *(Panel(f"one complete, {k} lenient of a part", True, k) for k in (1, 2, 4)),
    *(Panel(f"{k + 1} of a part each, levels differ", False, k) for k in (1, 2, 4)),
    Panel("one complete, 2 of a part on half the scale", True, 2, slope=0.5),
    Panel("one complete, 2 of a part who use 3 to 5", True, 2, low=3),
    Panel("3 of a part each, 2 on half the scale", False, 2, slope=0.5),
    Panel("3 of a part each, 2 who use 3 to 5", False, 2, low=3),
)


def judged(panel: Panel, there: Array, rng: Rng) -> Array:
    """Scores (J, C, S, T) of what is there (C, S, T), NaN for what a judge did not score.

    A partial judge scores half of the cells in every scenario, the same half throughout, and is up to 1.5 points more lenient;
    without a complete judge the halves overlap in a chain. A third of the scenarios they skip.
    """
    cells, scenarios = there.shape[:2]
    found = []
    order = rng.permutation(cells)
    half = max(1, cells // 2)
    for j in range(panel.partial + 1):
        first = j == 0
        level = 0.0 if first else rng.uniform(0.5, 1.5)
        slope = 1.0 if first else panel.slope
        seen = np.clip(
            np.rint(3.2 + slope * (there - 3.2) + level + SD_JUDGE * rng.standard_normal(there.shape)),
            1 if first else panel.low,
            5,
        )
        if not (first and panel.complete):
            # Two cells more than half, so that neighbours in the chain share some.
            start = 0 if panel.complete else j * max(1, cells // (panel.partial + 1))
            mine = np.roll(order, -start)[: half if panel.complete else min(cells - 1, half + 1)]
            if panel.complete:
                mine = rng.permutation(cells)[:half]
            away = np.ones((cells, scenarios), dtype=bool)
            away[mine] = rng.random(scenarios) < 1 / 3
            seen = np.where(away[..., None], np.nan, seen)
        found.append(seen)
    return np.stack(found)


def effects(args: argparse.Namespace) -> None:
    """Equal models and judges of a part: false differences, refusals, and power against the complete judge alone."""
    table = Table(
        "cells", "scenarios", "judges", "truth", "a false difference", "boards with a judge left out", "cells not ranked",
        "the best told from another", "by the complete judge alone",
        title=f"{args.runs} boards each",
    )  # fmt: skip
    for cells in args.cells:
        for scenarios in (8, 24):
            for panel in PANELS:
                if (not panel.complete and cells < 4) or args.panels == ("parts" if panel.complete else "complete"):
                    continue
                for name in ("all equal", "one 0.6 ahead"):
                    mean = np.full(cells, 3.2)
                    mean[0] += 0.6 if name != "all equal" else 0.0
                    gap = mean[:, None] - mean[None, :]
                    rng = np.random.default_rng([args.seed, cells, scenarios, PANELS.index(panel), len(name)])
                    false = out = missing = told = alone_told = 0.0
                    for _ in range(args.runs):
                        x = judged(panel, tips(mean, 1, scenarios, 3, rng)[0], rng)
                        found = compare_judged(x, seed=args.seed, draws=args.draws)
                        ranked = np.flatnonzero(~np.isnan(found.comparison.mean))
                        better = np.zeros((cells, cells), dtype=bool)
                        better[np.ix_(ranked, ranked)] = found.comparison.pairs.better
                        false += bool((better & (gap <= 0)).any())
                        out += bool(found.left_out)
                        missing += 1 - ranked.size / cells
                        told += float(better[0, 1:].mean())
                        if panel.complete:
                            alone = compare_pairs(np.nanmean(x[0], axis=2), seed=args.seed, draws=args.draws)
                            alone_told += float(alone.better[0, 1:].mean())
                    ahead = name != "all equal"
                    row = (
                        str(cells), str(scenarios), panel.name, name, share(int(false), args.runs), f"{out / args.runs:.0%}",
                        f"{missing / args.runs:.0%}", f"{told / args.runs:.1%}" if ahead else "-",
                        f"{alone_told / args.runs:.1%}" if ahead and panel.complete else "-",
                    )  # fmt: skip
                    table.add_row(*row)
                    print(*row, sep=" | ", file=sys.stderr, flush=True)
    CONSOLE.print(table)


# -- which one to take ----------------------------------------------------------------------------

MARGIN = 0.3


def recommended(args: argparse.Namespace) -> None:
    """Three cells, the smallest of them behind the best: how often it is the one that is named."""
    table = Table(
        "scenarios", "the smallest is behind by", "it is named", "another is named", "none yet",
        title=f"three cells, margin {MARGIN}, 5 tips, one judge; {args.runs} boards each",
    )  # fmt: skip
    for behind in (0.0, 0.1, 0.3, 0.4, 0.6):
        for scenarios in (8, 16, 30, 60, 120, 240):
            # The second is as good as the best, and in between in size.
            mean = np.array([3.4, 3.4, 3.4 - behind])
            rng = np.random.default_rng([args.seed, scenarios, int(100 * behind)])
            named = np.zeros(4, dtype=int)
            for start in range(0, args.runs, 50):
                there = tips(mean, min(50, args.runs - start), scenarios, 5, rng)
                scores = whole(there + SD_JUDGE * rng.standard_normal(there.shape)).mean(axis=3)
                for one in scores:
                    choice = choose(
                        compare_pairs(one, seed=args.seed, draws=args.draws), [3, 2, 1], MARGIN, n_scenarios=scenarios
                    )
                    named[3 if choice.cell is None else choice.cell] += 1
            row = (
                str(scenarios),
                f"{behind:g}",
                *(share(int(n), args.runs) for n in (named[2], named[:2].sum(), named[3])),
            )
            table.add_row(*row)
            print(*row, sep=" | ", file=sys.stderr, flush=True)
    CONSOLE.print(table)


# -- one LLM on all, three people on a part -------------------------------------------------------

LLMS = (*JUDGES[:2], Judge("blunt", slope=0.5, own=0.3, lean=0.3, level=0.8))
EXPERTS = ("ann", "ben", "eve")
DRAWS_EACH = 20
"""Draws of scores for the same texts, by `cli`."""
AGAIN = 5
"""Tries of a command that finds the store locked."""


def systems(args: argparse.Namespace, judge: Judge) -> tuple[Array, Array, Rng]:
    """Four systems' composites, what experts say of them in the long run, and the stream that draws their scores."""
    mean = np.array([3.5, 3.4, 3.2, 2.8])
    rng = np.random.default_rng([args.seed, 4, 30, LLMS.index(judge)])
    return mean, expected(mean, np.random.default_rng(1)), rng


def experts(args: argparse.Namespace) -> None:
    """4 systems x 30 scenarios, one LLM on all, three experts on 16, one tip a cell and scenario: differences to the leader."""
    table = Table("LLM", "tips", *COLUMNS, title=f"4 systems, 30 scenarios, experts on 16; {args.runs} boards each")
    for judge in LLMS:
        for n_tips in (1, 3):
            mean, true, rng = systems(args, judge)
            tally = Tally()
            for _ in range(0, args.runs, 50):
                there = tips(mean, 50, 30, n_tips, rng)
                for y, f in zip(people(there, rng), other(judge, there, rng), strict=True):
                    tally.add(*part_of(y, f, 16, None, rng), true, args.seed)
            table.add_row(judge.name, str(n_tips), *tally.row())
            print(judge.name, n_tips, *tally.row(), sep=" | ", file=sys.stderr, flush=True)
    CONSOLE.print(table)


@dataclass
class Boards:
    """What the command line gave over many draws of one LLM."""

    covered: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    own_widths: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def row(self) -> tuple[str, ...]:
        """Shares and means over the boards, with their standard errors."""
        width, own = np.array(self.widths), np.array(self.own_widths)
        ratio = width.mean() / own.mean()
        error = (width - ratio * own).std(ddof=min(1, len(width) - 1)) / own.mean() / len(width) ** 0.5
        return (
            str(len(self.covered)),
            share(sum(self.covered), len(self.covered)),
            f"{width.mean():.3f}",
            f"{own.mean():.3f}",
            f"{ratio:.3f} ±{error:.3f}",
            f"{np.mean(self.weights):.2f}",
        )


def cli(args: argparse.Namespace) -> None:
    """The same through the command line: what `experts` draws, as a file, imported and compared twice.

    All commands run in this process, one after the other, on one store, and an experiment takes `DRAWS_EACH` draws: every judge scores
    its texts anew, and the last scores count. Starting Python and writing texts would take most of the time.
    """
    table = Table(
        "LLM", "boards", "those to the leader covered", "width", "experts' own", "width / experts' own", "mean λ",
        title="tipbench compare",
    )  # fmt: skip
    streams = {judge.name: systems(args, judge) for judge in LLMS}
    found = {judge.name: Boards() for judge in LLMS}
    with tempfile.TemporaryDirectory() as folder:
        rubric, scores = Path(folder, "rubric.yaml"), Path(folder, "scores.csv")
        rubric.write_text(RUBRIC)
        for number in range(args.runs):
            for judge in LLMS:
                mean, true, rng = streams[judge.name]
                place = (
                    "--experiment",
                    f"tip-bench-{judge.name}-{number // DRAWS_EACH}",
                    "--mlflow-url",
                    str(Path(folder, "store")),
                )
                scores.write_text(as_csv(tips(mean, 1, 30, 1, rng)[0], judge, rng))
                tipbench("import", str(scores), "--rubric", str(rubric), *place)
                compare = ("compare", "--rubric", str(rubric), "--json", *place)
                board = json.loads(tipbench(*compare, "--reference", ",".join(EXPERTS)))
                alone = json.loads(tipbench(*compare, *(f"--judge={expert}" for expert in EXPERTS)))
                cells = {int(c["model"][1]): c["diff_to_best"] for c in board["cells"]}
                leader = int(board["cells"][0]["model"][1])
                gaps = {i: cells[i] for i in cells if i != leader}
                one = found[judge.name]
                one.covered.append(
                    all(diff["ci_low"] <= true[i] - true[leader] <= diff["ci_high"] for i, diff in gaps.items())
                )
                one.widths.append(float(np.mean([diff["ci_high"] - diff["ci_low"] for diff in gaps.values()])))
                own = [c["diff_to_best"] for c in alone["cells"][1:]]
                one.own_widths.append(float(np.mean([diff["ci_high"] - diff["ci_low"] for diff in own])))
                one.weights.append(board["reference"]["lambda"])
                print(judge.name, *one.row(), sep=" | ", file=sys.stderr, flush=True)
    for name, one in found.items():
        table.add_row(name, *one.row())
    CONSOLE.print(table)


RUBRIC = """\
name: overall
scale_min: 1
scale_max: 5
instructions: How good is this text?
criteria:
  - id: overall
    name: Overall
    question: How good is it?
    weight: 1
    anchors: {1: bad, 2: poor, 3: fair, 4: good, 5: very good}
"""


def as_csv(there: Array, judge: Judge, rng: Rng) -> str:
    """Rows of `tipbench import`: every judge's scores of made-up texts, the experts' on 16 of them (all are drawn alike)."""
    said = {"llm": other(judge, there[None], rng)[0]}
    for name, lenient in zip(EXPERTS, (-0.3, 0.0, 0.3), strict=True):
        said[name] = whole(there + lenient + SD_JUDGE * rng.standard_normal(there.shape))
    lines = ["model,prompt,scenario,text,judge,judge_kind,overall"]
    for name, scores in said.items():
        kind = "llm" if name == "llm" else "human"
        for c, s in np.ndindex(there.shape[:2]):
            if name == "llm" or s < 16:
                lines.append(
                    f"m{c}:1b,v1,text{s:02d},what system {c} makes of text {s},{name},{kind},{int(scores[c, s, 0])}"
                )
    return "\n".join(lines) + "\n"


def tipbench(*arguments: str) -> str:
    """Run a command of the command line and give what it printed. Raises SystemExit with what it said when it failed."""
    for _ in range(AGAIN):
        done = CliRunner().invoke(command_line, list(arguments))
        if "another program holds" not in done.output:  # the store is ours: a machine too busy to write in time
            break
    if done.exit_code:
        raise SystemExit(f"tipbench {' '.join(arguments)}\n{done.output}{done.exception or ''}")
    return done.stdout


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
    parser.add_argument("what", choices=("references", "effects", "recommended", "experts", "cli", "real"))
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--cells", type=numbers, default=[4, 12])
    parser.add_argument("--scenarios", type=numbers, default=[16, 30])
    parser.add_argument("--references", type=numbers, default=[6, 8, 16], help="scenarios scored by people")
    parser.add_argument("--tips", type=int, help="tips a cell and scenario that people score; all five by default")
    parser.add_argument("--nulls", type=lambda t: t.split(","), default=["all equal", "some worse"])
    parser.add_argument(
        "--panels",
        choices=("all", "complete", "parts"),
        default="all",
        help="effects: with a complete judge, or without",
    )
    parser.add_argument("--scores", type=Path)
    parser.add_argument(
        "--draws", type=int, default=2000, help="of each board's null distribution (effects, recommended)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(None if argv is None else list(argv))
    start = time.perf_counter()
    {
        "references": references,
        "effects": effects,
        "recommended": recommended,
        "experts": experts,
        "cli": cli,
        "real": real,
    }[args.what](args)
    CONSOLE.print(f"{time.perf_counter() - start:.0f} s, seed {args.seed}")


if __name__ == "__main__":
    main()
