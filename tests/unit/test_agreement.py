"""Agreement of judges, against independent implementations and by hand."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest

from tipbench.judging.agreement import (
    Alpha,
    Ratings,
    alpha_by_criterion,
    is_weak,
    leniency,
    pairwise_kappa,
    self_consistency,
    weighted_kappa,
)

pytestmark = pytest.mark.unit

JUDGES = ("ada", "ben", "cyd")


def simulated(noise: float, *, seed: int = 3, missing: float = 0.2, scenarios: int = 8, tips: int = 10) -> Ratings:
    """Three judges who see one true quality with `noise`, and miss some candidates."""
    rng = np.random.default_rng(seed)
    keys = [f"{s}/{t}" for s in range(scenarios) for t in range(tips)]
    truth = rng.normal(3, 1.2, len(keys))
    scores = {
        judge: {
            key: {"tone": int(np.clip(np.rint(truth[i] + noise * rng.normal()), 1, 5))}
            for i, key in enumerate(keys)
            if rng.random() >= missing
        }
        for judge in JUDGES
    }
    return Ratings(scores, {key: key.split("/")[0] for key in keys})


def table(ratings: Ratings, criterion: str = "tone") -> np.ndarray:
    """(judges, candidates), NaN where a judge has no score."""
    return np.array(
        [[ratings.scores[j].get(key, {}).get(criterion, np.nan) for key in ratings.scenario_of] for j in JUDGES]
    )


def of(**judges: list[int]) -> Ratings:
    """Judges' scores of the same candidates, one candidate a scenario."""
    n = len(next(iter(judges.values())))
    return Ratings(
        {j: {str(i): {"tone": s} for i, s in enumerate(scores)} for j, scores in judges.items()},
        {str(i): f"scenario {i}" for i in range(n)},
    )


def test_alpha_is_the_ordinal_one_of_krippendorffs_library() -> None:
    ratings = simulated(0.8)
    [found] = alpha_by_criterion(ratings, ["tone"])
    expected = krippendorff.alpha(reliability_data=table(ratings), level_of_measurement="ordinal")
    interval = krippendorff.alpha(reliability_data=table(ratings), level_of_measurement="interval")
    assert found.alpha == pytest.approx(expected)
    assert abs(expected - interval) > 1e-4
    assert found.n_units == int(((~np.isnan(table(ratings))).sum(axis=0) > 1).sum())


def test_alpha_interval_is_the_bootstrap_of_whole_scenarios() -> None:
    ratings = simulated(0.8)
    [found] = alpha_by_criterion(ratings, ["tone"], draws=2000)
    data, scenario = table(ratings), np.array([int(s) for s in ratings.scenario_of.values()])
    rng = np.random.default_rng(99)
    slow = []
    for _ in range(300):
        columns = np.concatenate([np.flatnonzero(scenario == s) for s in rng.integers(0, 8, 8)])
        slow.append(krippendorff.alpha(reliability_data=data[:, columns], level_of_measurement="ordinal"))
    assert found.ci_low == pytest.approx(np.quantile(slow, 0.025), abs=0.03)
    assert found.ci_high == pytest.approx(np.quantile(slow, 0.975), abs=0.03)
    assert found.ci_low < found.alpha < found.ci_high


def test_alpha_interval_depends_on_the_seed_alone() -> None:
    ratings = simulated(0.8)
    assert alpha_by_criterion(ratings, ["tone"], seed=4) == alpha_by_criterion(ratings, ["tone"], seed=4)
    assert alpha_by_criterion(ratings, ["tone"], seed=4) != alpha_by_criterion(ratings, ["tone"], seed=5)


def test_clusters_that_differ_widen_the_interval() -> None:
    """Judges who agree on half of the scenarios only: drawing scenarios shows it, drawing candidates would not."""
    rng = np.random.default_rng(0)
    keys = [f"{s}/{t}" for s in range(6) for t in range(20)]
    first = {k: int(rng.integers(1, 6)) for k in keys}
    second = {k: first[k] if int(k[0]) < 3 else int(rng.integers(1, 6)) for k in keys}
    scores = {"a": {k: {"tone": v} for k, v in first.items()}, "b": {k: {"tone": v} for k, v in second.items()}}
    [clustered] = alpha_by_criterion(Ratings(scores, {k: k.split("/")[0] for k in keys}), ["tone"])
    [alone] = alpha_by_criterion(Ratings(scores, {k: k for k in keys}), ["tone"])
    assert clustered.alpha == alone.alpha
    assert clustered.ci_high - clustered.ci_low > 1.5 * (alone.ci_high - alone.ci_low)


@pytest.mark.parametrize(
    ("ratings", "alpha"),
    [
        (of(ada=[3, 3, 3], ben=[3, 3, 3]), None),
        (of(ada=[1, 2, 3]), None),
        (of(ada=[1, 2, 5], ben=[1, 2, 5]), 1.0),
        (Ratings({"ada": {"x": {"tone": 1}}, "ben": {"y": {"tone": 5}}}, {"x": "s", "y": "s"}), None),
        (Ratings({}, {}), None),
    ],
)
def test_alpha_where_it_cannot_be_known_is_none(ratings: Ratings, alpha: float | None) -> None:
    [found] = alpha_by_criterion(ratings, ["tone"])
    assert found.alpha == alpha
    if alpha is None:
        assert (found.ci_low, found.ci_high) == (None, None)


def test_one_scenario_has_an_alpha_but_no_interval() -> None:
    ratings = of(ada=[1, 2, 4, 5], ben=[1, 3, 4, 4])
    [found] = alpha_by_criterion(Ratings(ratings.scores, dict.fromkeys(ratings.scenario_of, "only")), ["tone"])
    assert found.alpha is not None
    assert (found.ci_low, found.ci_high) == (None, None)


def test_each_criterion_has_its_own_alpha() -> None:
    scores = {
        "a": {str(i): {"tone": s, "relevance": s} for i, s in enumerate([1, 2, 4, 5])},
        "b": {str(i): {"tone": s, "relevance": 6 - s} for i, s in enumerate([1, 2, 4, 5])},
    }
    tone, relevance = alpha_by_criterion(Ratings(scores, {str(i): str(i) for i in range(4)}), ["tone", "relevance"])
    assert (tone.criterion, tone.alpha) == ("tone", 1.0)
    assert relevance.criterion == "relevance"
    assert relevance.alpha < 0


@pytest.mark.parametrize(("alpha", "weak"), [(0.66, True), (0.667, False), (-0.2, True), (None, False)])
def test_weak_is_below_krippendorffs_limit(alpha: float | None, weak: bool) -> None:
    assert is_weak(Alpha("tone", alpha, None, None, 5)) is weak


@pytest.mark.parametrize("noise", [0.3, 1.0, 5.0])
def test_kappa_is_that_of_scikit_learn(noise: float) -> None:
    from sklearn.metrics import cohen_kappa_score  # a second and a half of every worker's start

    ratings = simulated(noise)
    found = pairwise_kappa(ratings, ["tone"])
    assert [(k.judge_a, k.judge_b) for k in found] == [("ada", "ben"), ("ada", "cyd"), ("ben", "cyd")]
    for kappa in found:
        a, b = ratings.scores[kappa.judge_a], ratings.scores[kappa.judge_b]
        common = sorted(a.keys() & b.keys())
        expected = cohen_kappa_score(
            [a[c]["tone"] for c in common], [b[c]["tone"] for c in common], weights="quadratic", labels=[1, 2, 3, 4, 5]
        )
        assert kappa.n == len(common)
        assert kappa.kappa == pytest.approx(expected)


def test_kappa_without_common_candidates_or_variation_is_none() -> None:
    assert weighted_kappa([]) is None
    assert weighted_kappa([(4, 4), (4, 4)]) is None
    assert weighted_kappa([(4, 5), (4, 5)]) == 0


def test_leniency_is_the_mean_gap_to_the_others_on_common_candidates() -> None:
    scores = {
        "ada": {"x": {"tone": 5}, "y": {"tone": 4}, "only-ada": {"tone": 1}},
        "ben": {"x": {"tone": 3}, "y": {"tone": 4}},
        "cyd": {"x": {"tone": 4}},
    }
    found = {
        one.judge: (one.mean_difference, one.n)
        for one in leniency(Ratings(scores, dict.fromkeys(["x", "y", "only-ada"], "s")), ["tone"])
    }
    assert found == {"ada": (0.75, 2), "ben": (-0.75, 2), "cyd": (0.0, 1)}


def test_leniency_without_a_common_candidate_is_none() -> None:
    ratings = Ratings({"ada": {"x": {"tone": 5}}, "ben": {"y": {"tone": 1}}}, {"x": "s", "y": "s"})
    assert [(one.mean_difference, one.n) for one in leniency(ratings, ["tone"])] == [(None, 0), (None, 0)]


def test_self_consistency_compares_a_score_with_its_hidden_repeat() -> None:
    ratings = Ratings(
        scores={
            "ada": {"x": {"tone": 5, "relevance": 2}, "y": {"tone": 3, "relevance": 3}},
            "ben": {"x": {"tone": 1, "relevance": 1}},
        },
        scenario_of={"x": "s", "y": "s"},
        repeats={
            "ada": {"x": {"tone": 5, "relevance": 4}, "y": {"tone": 3, "relevance": 3}},
            "cyd": {"x": {"tone": 1}},
        },
    )
    ada, cyd = self_consistency(ratings)
    assert (ada.judge, ada.exact, ada.mean_abs_difference, ada.n) == ("ada", 0.75, 0.5, 4)
    assert (cyd.judge, cyd.exact, cyd.mean_abs_difference, cyd.n) == ("cyd", None, None, 0)
    assert self_consistency(Ratings({"ada": {}}, {}, {"ada": {}})) == []
