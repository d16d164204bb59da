"""Rounds: boundaries, the decision after each look, and that nothing but the scores decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipbench.stats import maxt, sequential
from tipbench.stats.sequential import (
    ALPHA,
    NEWEST,
    RULES,
    Decision,
    Entry,
    Horizon,
    boundary,
    decide,
    extend,
    make_horizon,
    race,
    sequential_p,
    standing,
)

HORIZON = make_horizon(24, 4)
RULE = RULES[NEWEST]


def scores(cells: int, n: int, seed: int, truth: object = 0.0, sd: float = 0.52) -> np.ndarray:
    """Scenario means (cells, n) around the truth, with a common scenario effect."""
    rng = np.random.default_rng(seed)
    level = np.broadcast_to(np.asarray(truth, dtype=float), (cells,))
    return 3 + level[:, None] + 0.4 * rng.standard_normal(n) + sd * rng.standard_normal((cells, n))


def nothing_pending(x: np.ndarray) -> np.ndarray:
    return np.zeros(x.shape, dtype=bool)


def in_rounds(x: np.ndarray, horizon: Horizon, margin: float = 0.0) -> Decision:
    """The race as it happens: only what `missing` asks for is ever filled in, and each look is recorded."""
    seen = np.full(x.shape, np.nan)
    pending = np.ones(x.shape, dtype=bool)
    history: list[sequential.Look] = []
    while True:
        decision = decide(seen, pending, horizon, margin=margin, history=history)
        history = list(decision.looks)
        if decision.stop:
            return decision
        assert decision.missing.any()
        seen[decision.missing] = x[decision.missing]
        pending[decision.missing] = False


def test_looks_come_after_every_block_and_the_last_may_be_short() -> None:
    assert make_horizon(24, 4).looks == (4, 8, 12, 16, 20, 24)
    assert make_horizon(10, 4).looks == (4, 8, 10)
    assert make_horizon(3, 4).looks == (3,)


def test_the_error_spent_rises_to_all_but_the_reserve() -> None:
    spent = np.array(HORIZON.spent)
    assert (np.diff(spent) > 0).all()
    assert spent[-1] == pytest.approx(ALPHA * (1 - RULE.reserve))


def test_fewer_cells_never_meet_a_higher_boundary() -> None:
    table = np.stack([boundary(HORIZON, m, everyone=14) for m in range(2, 15)])
    assert (np.diff(table, axis=0) >= 0).all()
    assert np.isfinite(table).all()


def test_what_those_that_left_tell_of_the_noise_lowers_the_boundary() -> None:
    """Two cells alone have a t test of few scenarios; ten that left earlier say how much a cell varies."""
    assert (boundary(HORIZON, 2, everyone=12) < boundary(HORIZON, 2) - 0.1).all()


@pytest.mark.parametrize("m", [2, 5, 12])
@pytest.mark.parametrize("kind", ["normal", "erratic", "skewed and erratic"])
def test_equal_cells_are_dropped_no_more_often_than_was_spent(m: int, kind: str) -> None:
    """On draws that the boundary was not made of, under every kind of noise that it is made for."""
    rng = np.random.default_rng(99)
    z = rng.standard_exponential((3000, m, 24)) - 1 if "skewed" in kind else rng.standard_normal((3000, m, 24))
    if "erratic" in kind:
        z[:, 0] *= sequential.ERRATIC
    crossed = ~race(z, HORIZON).kept.all(axis=1)
    assert crossed.mean() < ALPHA + 2.5 * np.sqrt(ALPHA * (1 - ALPHA) / 3000)
    assert crossed.mean() > ALPHA / 20


def test_two_best_cells_stay_however_skewed_one_is_and_however_soon_the_others_leave() -> None:
    rng = np.random.default_rng(7)
    z = rng.standard_exponential((3000, 12, 24)) - 1
    z[:, 0] *= sequential.ERRATIC
    z[:, 2:] -= 10
    wrong = (~race(z, HORIZON).kept[:, :2]).any(axis=1).mean()
    assert wrong < ALPHA + 2.5 * np.sqrt(ALPHA * (1 - ALPHA) / 3000)
    # Rule 1 knew only normal scores; this is what the newer one is for.
    assert (~race(z, make_horizon(24, 4, number=1)).kept[:, :2]).any(axis=1).mean() > ALPHA


def test_an_older_rule_is_still_known_and_an_unknown_one_refused() -> None:
    old = make_horizon(24, 4, number=1)
    assert old.spent[-1] == pytest.approx(0.04)
    assert extend(old, 2, 32, 4).number == 1
    x = scores(4, 24, 3, truth=[1, 0, 0, 0])
    assert set(decide(x, nothing_pending(x), old).dropped) == {1, 2, 3}
    with pytest.raises(ValueError, match="no rule 99"):
        make_horizon(24, 4, number=99)


def test_one_look_at_all_is_the_fixed_test() -> None:
    """With one look only, the boundary of rule 1 is the critical value of the ordinary max-T test at the same level."""
    one = make_horizon(8, 8, number=1)
    mask = np.ones((6, 8), dtype=bool)
    null = maxt.null_maxima(maxt.mask_key(mask), mask.shape, 10_000, 0)
    assert boundary(one, 6)[0] == pytest.approx(np.quantile(null, 1 - one.spent[0]), rel=0.02)


def test_a_variance_is_guarded_by_what_its_cells_show_elsewhere_and_by_all_pairs() -> None:
    """By hand, for complete data: own and the larger half of both cells' pairs, and no less than the mean of all."""
    x = np.random.default_rng(5).standard_normal((5, 9)) * np.array([1, 1, 1, 4, 0.2])[:, None]
    mask = np.ones(x.shape, dtype=bool)
    left = np.array([True, True, True, True, False])
    _, se, _, n = sequential._studentised(RULE, maxt.centred_by_scenario(x, mask), mask, left)
    own = np.array([[np.var(a - b, ddof=1) for b in x] for a in x])
    mean = own[~np.eye(5, dtype=bool)].mean()
    # Three partners each: the larger half are two.
    upper = [np.mean(sorted(np.delete(own[i, :4], i))[1:]) for i in range(4)]
    for i in range(4):
        for j in range(i):
            expected = max(mean, (own[i, j] + (upper[i] + upper[j]) / 2) / 2)
            assert se[i, j] ** 2 * 9 == pytest.approx(expected)
    assert (n == 9).all()


def test_the_vectorised_races_are_the_decisions() -> None:
    rng = np.random.default_rng(3)
    z = 0.6 * rng.standard_normal((12, 8))[..., None] + 0.52 * rng.standard_normal((12, 8, 24))
    races = race(z, HORIZON, margin=0.8)
    for i, one in enumerate(z):
        decision = in_rounds(one, HORIZON, margin=0.8)
        assert set(decision.left) == set(np.flatnonzero(races.kept[i]))
        assert len(decision.looks) == races.stopped_at[i]
        assert (decision.stop == "within margin") == races.within[i]
        assert decision.leader == races.leader[i]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cells=st.integers(2, 6), block=st.integers(2, 5), n=st.integers(2, 12))
def test_rounds_and_all_the_scores_at_once_decide_alike(seed: int, cells: int, block: int, n: int) -> None:
    """An experiment run in one go and looked at afterwards gives what it would have given in rounds."""
    x = scores(cells, n, seed, truth=np.linspace(0, 1.5, cells))
    horizon = make_horizon(n, block)
    assert in_rounds(x, horizon).looks == decide(x, nothing_pending(x), horizon).looks


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 60))
def test_a_run_cut_short_anywhere_decides_alike(seed: int, cut: int) -> None:
    """Scores come in one by one; whoever asks in between, and forgets the answer, gets the same looks in the end."""
    x = scores(5, 12, seed, truth=np.linspace(0, 1.5, 5))
    horizon = make_horizon(12, 4)
    whole = decide(x, nothing_pending(x), horizon)
    seen, pending = np.full(x.shape, np.nan), np.ones(x.shape, dtype=bool)
    for place in np.random.default_rng(seed).permutation(x.size)[:cut]:
        at = np.unravel_index(place, x.shape)
        seen[at], pending[at] = x[at], False
    early = decide(seen, pending, horizon)
    assert early.looks == whole.looks[: len(early.looks)]
    assert decide(x, nothing_pending(x), horizon, history=early.looks).looks == whole.looks


def test_a_look_waits_for_the_cells_that_are_in_and_for_no_other() -> None:
    x = scores(3, 8, 2, truth=[2, 2, -2])
    horizon = make_horizon(8, 4)
    pending = nothing_pending(x)
    pending[2, 4:] = True
    decision = decide(np.where(pending, np.nan, x), pending, horizon)
    assert [d.cell for d in decision.looks[0].dropped] == [2]
    assert len(decision.looks) == 2
    pending[0, 7] = True
    waiting = decide(np.where(pending, np.nan, x), pending, horizon)
    assert len(waiting.looks) == 1
    assert waiting.block == (4, 8)
    assert np.argwhere(waiting.missing).tolist() == [[0, 7]]


def test_a_recorded_look_stands_when_scores_change_later() -> None:
    x = scores(3, 8, 2, truth=[2, 2, -2])
    horizon = make_horizon(8, 4)
    first = decide(x[:, :4], nothing_pending(x[:, :4]), make_horizon(8, 4)).looks[0]
    changed = x.copy()
    changed[2] += 4
    assert 2 in decide(changed, nothing_pending(x), horizon).left
    assert decide(changed, nothing_pending(x), horizon, history=[first]).dropped[2] == first.dropped[0]


def test_a_cell_taken_back_catches_up_and_counts_again() -> None:
    x = scores(3, 12, 2, truth=[2, 2, -2])
    horizon = make_horizon(12, 4)
    pending = nothing_pending(x)
    pending[2, 4:] = True
    pending[:, 8:] = True
    seen = np.where(pending, np.nan, x)
    before = decide(seen, pending, horizon)
    assert 2 not in before.left
    assert before.missing[:, 8:].sum() == 8
    back = decide(seen, pending, horizon, history=before.looks, entries=[Entry(2, 2)])
    assert 2 in back.left
    assert 2 not in back.dropped
    assert back.missing[2].tolist() == [False] * 4 + [True] * 8
    again = decide(x, nothing_pending(x), horizon, history=before.looks, entries=[Entry(2, 2)])
    assert again.dropped[2].look == 3
    assert again.dropped[2].among == 3


def test_a_new_cell_joins_and_an_old_stop_is_reopened() -> None:
    x = scores(2, 8, 1, truth=[2, -2])
    horizon = make_horizon(8, 4)
    over = decide(x, nothing_pending(x), horizon)
    assert over.stop == "one left"
    more = np.vstack([x, np.full((1, 8), np.nan)])
    pending = nothing_pending(more)
    pending[2] = True
    open_again = decide(more, pending, horizon, history=over.looks, entries=[Entry(2, 1)])
    assert open_again.stop is None
    assert open_again.missing[2].all()


def test_a_cell_that_always_fails_is_set_aside_without_a_test() -> None:
    x = scores(3, 8, 4)
    x[1] = np.nan
    decision = decide(x, nothing_pending(x), make_horizon(8, 4))
    assert decision.dropped[1].why == "no scores"
    assert 1 not in decision.left


def test_missing_scores_raise_the_boundary() -> None:
    mask = np.ones((4, 8), dtype=bool)
    whole = sequential._critical(HORIZON, mask, range(4), 2)
    assert whole == boundary(HORIZON, 4)[1]
    mask[0, :4] = mask[1, 2:6] = False
    assert sequential._critical(HORIZON, mask, range(4), 2) > whole


def test_a_cell_that_left_is_no_hole() -> None:
    mask = np.ones((4, 8), dtype=bool)
    mask[3, 4:] = False
    assert sequential._critical(HORIZON, mask, range(3), 2) == boundary(HORIZON, 3, everyone=4)[1]


def test_nothing_scored_at_all_is_a_stop_of_its_own() -> None:
    x = np.full((2, 4), np.nan)
    assert decide(x, nothing_pending(x), make_horizon(4, 4)).stop == "nothing scored"


def test_equal_cells_stop_within_a_wide_margin_and_not_within_none() -> None:
    x = scores(2, 24, 5, sd=0.2)
    assert decide(x, nothing_pending(x), HORIZON, margin=1.5).stop == "within margin"
    assert decide(x, nothing_pending(x), HORIZON).stop == "used up"


def test_differences_without_any_noise_are_told_apart_only_by_many_scenarios() -> None:
    x = np.array([[4.0] * 24, [3.0] * 24])
    dropped = decide(x, nothing_pending(x), HORIZON).dropped[1]
    assert dropped.look > 1
    assert decide(x[:, :4], nothing_pending(x[:, :4]), make_horizon(4, 4)).stop == "used up"


def test_added_scenarios_share_what_remains_and_earlier_looks_stand() -> None:
    short = make_horizon(8, 4)
    longer = extend(short, 1, 16, 4)
    assert longer.looks == (4, 8, 12, 16)
    assert longer.spent[0] == short.spent[0]
    assert longer.spent[-1] == pytest.approx(ALPHA * (1 - RULE.reserve))
    late = extend(short, 2, 16, 4)
    assert late.spent[:2] == short.spent
    assert late.spent[-1] == pytest.approx(ALPHA)
    last = extend(late, 4, 24, 4)
    assert last.spent[-1] == pytest.approx(ALPHA)
    assert np.isinf(boundary(last, 3)[4:]).all()
    assert extend(short, 2, 8, 4) == short


def test_p_is_below_five_percent_exactly_for_what_is_dropped() -> None:
    c = boundary(HORIZON, 4)[2]
    assert sequential_p(HORIZON, 4, 3, float(c) * 1.001) < ALPHA
    assert sequential_p(HORIZON, 4, 3, float(c) * 0.999) >= ALPHA - 1e-3
    assert sequential_p(HORIZON, 4, 3, 0.0) == 1.0


def test_what_is_reported_agrees_with_the_decision() -> None:
    x = scores(5, 24, 8, truth=[1, 0.9, 0, 0, -1])
    decision = decide(x, nothing_pending(x), HORIZON)
    diff, low, high, p = standing(x, decision, HORIZON)
    assert decision.dropped
    for cell in decision.dropped:
        assert high[cell] < 0
        assert p[cell] < ALPHA
    for cell in set(decision.left) - {decision.leader}:
        assert low[cell] < 0 < high[cell]
        assert p[cell] >= ALPHA
    assert diff[decision.leader] == 0


def test_no_looks_or_no_scenarios_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one scenario"):
        make_horizon(0, 4)
    with pytest.raises(ValueError, match="same shape"):
        decide(np.zeros((2, 3)), np.zeros((3, 2)), HORIZON)
