"""How often the gate cries wolf, and how often it hears a real loss: simulated boards with whole scores from 1 to 5.

python -m bench.gate [--boards 4000]
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from tipbench.stats.against import against

TIPS = 5


def scored(quality: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Means over TIPS whole scores for each (cell, scenario) of the given quality; tips of a scenario differ by chance."""
    tips = quality[..., None] + rng.normal(0, 0.8, (*quality.shape, TIPS))
    return np.clip(np.rint(tips), 1, 5).mean(axis=-1)


def boards(cells: int, scenarios: int, loss: float, number: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Differences of `number` pairs of boards, boards x cells x scenarios; the first cell of each has lost `loss`.

    Scenarios are easy or hard for everybody (0.5), and for a cell in particular (0.3), now and before.
    """
    shared = rng.normal(0, 0.5, (number, 1, scenarios))
    level = rng.normal(3.2, 0.4, (number, cells, 1))
    before = level + shared + rng.normal(0, 0.3, (number, cells, scenarios))
    now = level + shared + rng.normal(0, 0.3, (number, cells, scenarios))
    now[:, 0] -= loss
    return scored(now, rng) - scored(before, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=4000)
    number = parser.parse_args().boards
    rng = np.random.default_rng(1)
    print(
        "cells scenarios | false alarms (worse) | loss heard | equal passes a margin of that loss | the loss passes it"
    )
    for cells in (1, 4, 12):
        for scenarios in (4, 8, 16, 30):
            lost = boards(cells, scenarios, 0.55, number, rng)
            # On a scale with ends a loss is a little smaller than what quality lost: what is seen is what counts.
            loss = -lost[:, 0].mean()
            same = [against(d) for d in boards(cells, scenarios, 0.0, number, rng)]
            worse = [against(d) for d in lost]
            alarms = np.mean([(b.high < 0).any() for b in same])
            heard = np.mean([b.high[0] < 0 for b in worse])
            passed = np.mean([(b.low > -loss).all() for b in same])
            through = np.mean([b.low[0] > -loss for b in worse])
            print(
                f"{cells:5d} {scenarios:9d} | {alarms:20.3f} | {heard:10.3f} | {passed:35.3f} | {through:18.3f}   (loss {loss:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
