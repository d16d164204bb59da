"""The cheapest cell that is good enough, from all pairs tested at once."""

from __future__ import annotations

import numpy as np
import pytest

from tipbench.stats import choose, compare_pairs

pytestmark = pytest.mark.unit

NAN = float("nan")


def scores(behind: list[float], scenarios: int, seed: int, spread: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (
        4
        - np.array(behind)[:, None]
        + rng.standard_normal(scenarios)
        + spread * rng.standard_normal((len(behind), scenarios))
    )


def test_the_cheapest_good_enough_cell_is_named_once_the_data_allow() -> None:
    named = [
        choose(compare_pairs(scores([0, 0.1, 0.8], 60, s), seed=0), [3, 1, 0.5], 0.3, n_scenarios=60).cell
        for s in range(20)
    ]
    assert named.count(1) >= 16 and 2 not in named


def test_one_that_is_worse_than_the_margin_is_hardly_ever_named() -> None:
    """The smallest is 0.4 behind, the margin 0.3: it is named in at most 5 % of draws (here of 200, with slack)."""
    found = [
        choose(compare_pairs(scores([0, 0.1, 0.4], n, s), seed=0, draws=2000), [3, 2, 1], 0.3, n_scenarios=n).cell
        for s in range(100)
        for n in (8, 30)
    ]
    assert found.count(2) <= 10


def test_too_few_scenarios_name_no_cell_but_one_to_look_at_and_how_many_it_takes() -> None:
    found = choose(compare_pairs(scores([0, 0.05, 2.0], 8, 3), seed=0), [3, 2, 1], 0.3, n_scenarios=8)
    assert (found.cell, found.candidate) == (None, 1)
    assert found.scenarios is not None and found.scenarios > 8


def test_the_number_of_scenarios_is_what_today_s_differences_ask_for() -> None:
    x = scores([0, 0.05, 2.0], 8, 3)
    pairs = compare_pairs(x, seed=0)
    needed = choose(pairs, [3, 2, 1], 0.3, n_scenarios=8).scenarios
    assert needed is not None
    half = (pairs.high - pairs.low)[1] / 2
    enough = pairs.diff[1] - half * (8 / needed) ** 0.5 > -0.3
    assert enough[[0, 2]].all() and not (pairs.diff[1] - half * (8 / (needed - 1)) ** 0.5 > -0.3)[[0, 2]].all()


def test_the_leader_seen_is_no_yardstick() -> None:
    """A cell of which hardly anything is known keeps every other from being surely good enough."""
    x = scores([0, 0.0, 0.1], 40, 1, 0.1)
    assert choose(compare_pairs(x, seed=0), [1, 2, 3], 0.3, n_scenarios=40).cell == 0
    x[1, 1:] = NAN
    assert choose(compare_pairs(x, seed=0), [1, 2, 3], 0.3, n_scenarios=40).cell is None


def test_an_unknown_cost_is_dearer_than_every_known_one() -> None:
    x = scores([0, 0, 0], 60, 5, 0.1)
    pairs = compare_pairs(x, seed=0)
    assert choose(pairs, [NAN, 5.0, 9.0], 0.3, n_scenarios=60).cell == 1
    assert choose(pairs, [NAN, NAN, NAN], 0.3, n_scenarios=60).cell == int(x.mean(axis=1).argmax())


def test_a_single_cell_and_none() -> None:
    assert choose(compare_pairs(scores([0], 8, 0), seed=0), [1], 0.3, n_scenarios=8).cell == 0
    assert choose(compare_pairs(np.empty((0, 8)), seed=0), [], 0.3, n_scenarios=8).cell is None
