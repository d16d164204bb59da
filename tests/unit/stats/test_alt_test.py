"""The alternative annotator test, against its paper's own arithmetic where scenarios do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tipbench.stats import alternative_annotator_test

pytestmark = pytest.mark.unit

NAN = float("nan")


def scored(n_items: int, seed: int, judge_noise: float = 0.5, people: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    there = 3 + rng.standard_normal(n_items)
    h = np.clip(np.rint(there + 0.7 * rng.standard_normal((people, n_items))), 1, 5)
    return h, np.clip(np.rint(there + judge_noise * rng.standard_normal(n_items)), 1, 5)


def test_with_one_item_a_scenario_it_is_the_papers_t_test() -> None:
    h, f = scored(60, 1)
    found = alternative_annotator_test(h, f, np.arange(60))
    p_values, advantages = [], []
    for one in range(3):
        rest = np.delete(h, one, axis=0)
        judge, own = (np.sqrt(((rest - x) ** 2).mean(axis=0)) for x in (f, h[one]))
        d = (own <= judge).astype(float) - (judge <= own)
        p_values.append(stats.ttest_1samp(d, 0.2, alternative="less").pvalue)
        advantages.append((judge <= own).mean())
    wins = sum(stats.false_discovery_control(p_values, method="by") <= 0.05)
    assert found.winning_rate == pytest.approx(wins / 3)
    assert found.advantage == pytest.approx(np.mean(advantages))
    assert (found.people, found.items, found.refused) == (3, 60, "")


def test_a_judge_nearer_than_people_passes_and_noise_fails() -> None:
    scenario = np.arange(120) // 4
    h, good = scored(120, 2, judge_noise=0.2)
    assert alternative_annotator_test(h, good, scenario).passes is True
    noise = np.random.default_rng(0).integers(1, 6, 120).astype(float)
    assert alternative_annotator_test(h, noise, scenario).passes is False


def test_items_of_one_scenario_are_not_independent_evidence() -> None:
    """Every item ten times over, in the same scenario, tells no more than once."""
    h, f = scored(30, 3, judge_noise=0.4)
    once = alternative_annotator_test(h, f, np.arange(30))
    often = alternative_annotator_test(np.repeat(h, 10, axis=1), np.repeat(f, 10), np.repeat(np.arange(30), 10))
    assert (once.winning_rate, once.advantage) == (often.winning_rate, pytest.approx(often.advantage))


@pytest.mark.parametrize(("people", "items"), [(2, 60), (3, 29)])
def test_too_few_people_or_items_are_refused_in_words(people: int, items: int) -> None:
    h, f = scored(items, 4, people=people)
    found = alternative_annotator_test(h, f, np.arange(items))
    assert found.refused and found.passes is None and found.winning_rate is None


def test_what_was_not_scored_is_left_out() -> None:
    h, f = scored(80, 5, people=4)
    h[3, :60] = NAN
    f[:5] = NAN
    found = alternative_annotator_test(h, f, np.arange(80))
    assert (found.people, found.items) == (3, 75)
    assert alternative_annotator_test(np.empty((0, 0)), [], []).refused
