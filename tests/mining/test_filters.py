"""Filters against brute force: windows of score and rank, margins, random choice among what is left."""

import numpy as np
import pytest
import reference

import rvtrain as rt

CASES = {
    "nothing": {},
    "min_score": {"min_score": 0.05},
    "max_score": {"max_score": 0.2},
    "both": {"min_score": -0.1, "max_score": 0.1},
    "absolute": {"absolute_margin": 0.3},
    "relative": {"relative_margin": 0.5},
    "range_min": {"range_min": 3},
    "range_max": {"range_max": 9},
    "range": {"range_min": 2, "range_max": 6},
    "all": {"range_min": 2, "range_max": 30, "max_score": 0.4, "min_score": -0.2, "relative_margin": 0.1},
    "range_min_and_cap": {"range_min": 5, "max_score": 0.1},
}


@pytest.fixture(params=[(7, 61, 5), (70, 130, 33)], ids=str)
def case(request, dtype, rng):
    batch, pool, dim = request.param
    anchors, candidates = rng.normal(size=(batch, dim)).astype(dtype), rng.normal(size=(pool, dim)).astype(dtype)
    return anchors, candidates, (anchors + rng.normal(size=anchors.shape)).astype(dtype)


def left(scores, positive, exclude, filters):
    """Candidates that pass, most similar first."""
    order = [j for j in np.argsort(-scores, kind="stable") if j not in exclude]
    ranked = order[filters.get("range_min", 0) : filters.get("range_max")]
    cap = filters.get("max_score", np.inf)
    if "absolute_margin" in filters:
        cap = min(cap, positive - filters["absolute_margin"])
    if "relative_margin" in filters:
        cap = min(cap, positive * (1 - filters["relative_margin"]))
    return [j for j in ranked if filters.get("min_score", -np.inf) <= scores[j] <= cap]


@pytest.mark.parametrize("name", CASES)
def test_hardest__chooses_the_most_similar_that_pass(name, case, rng):
    anchors, candidates, positives = case
    exclude = rng.integers(-1, len(candidates), size=(len(anchors), 3))
    found = rt.HardNegativeMiner.hardest().mine(
        anchors, candidates, 5, positives=positives, exclude=exclude, **CASES[name]
    )
    scores = reference.cosine_similarity(anchors, candidates)
    tops = reference.cosine_similarity(anchors, positives).diagonal()
    for row, chosen in enumerate(found):
        expected = left(scores[row], tops[row], set(exclude[row]), CASES[name])[:5]
        assert list(chosen[: len(expected)]) == expected
        assert (chosen[len(expected) :] == -1).all()


@pytest.mark.parametrize("name", CASES)
def test_random_sampling__draws_only_what_passes_and_all_of_it(name, case):
    anchors, candidates, positives = case
    scores = reference.cosine_similarity(anchors, candidates)
    tops = reference.cosine_similarity(anchors, positives).diagonal()
    count = len(candidates)
    miner = rt.HardNegativeMiner.hardest()
    found = miner.mine(anchors, candidates, count, positives=positives, sampling="random", **CASES[name])
    again = miner.mine(anchors, candidates, count, positives=positives, sampling="random", **CASES[name])
    for row, chosen in enumerate(found):
        expected = left(scores[row], tops[row], (), CASES[name])
        assert sorted(chosen[chosen >= 0]) == sorted(expected)
    assert (found != again).any()  # each call draws afresh


@pytest.mark.parametrize("strategy", ["random", "distance_weighted"])
@pytest.mark.parametrize("name", [name for name, filters in CASES.items() if "range_max" not in filters])
def test_draws__reach_all_that_passes_and_nothing_else(name, strategy, case):
    anchors, candidates, positives = case
    scores = reference.cosine_similarity(anchors, candidates)
    tops = reference.cosine_similarity(anchors, positives).diagonal()
    miner = rt.HardNegativeMiner(strategy, temperature=0.2)
    found = miner.mine(anchors, candidates, len(candidates), positives=positives, **CASES[name])
    for row, chosen in enumerate(found):
        assert sorted(chosen[chosen >= 0]) == sorted(left(scores[row], tops[row], (), CASES[name]))


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("filters", [{"max_score": 0.3}, {"range_max": 12}, {"range_min": 2}], ids=str)
def test_semi_hard__without_positives_starts_below_the_hardest_that_passes(filters, fill, case):
    anchors, candidates, _ = case
    found = rt.HardNegativeMiner.semi_hard(0.2, fill=fill).mine(anchors, candidates, 4, **filters)
    scores = reference.cosine_similarity(anchors, candidates)
    for row, chosen in enumerate(found):
        passing = left(scores[row], None, (), filters)
        below = [j for j in passing[1:] if fill or scores[row, j] > scores[row, passing[0]] - 0.2][:4]
        assert list(chosen[chosen >= 0]) == below


def test_relative_margin__keeps_out_a_planted_near_duplicate_of_the_positive(rng):
    anchors = rng.normal(size=(40, 64)).astype(np.float32)
    positives = (anchors + 0.3 * rng.normal(size=anchors.shape)).astype(np.float32)
    planted = positives + 1e-3 * rng.normal(size=anchors.shape).astype(np.float32)
    candidates = np.concatenate([planted, rng.normal(size=(500, 64)).astype(np.float32)])
    miner, own = rt.HardNegativeMiner.hardest(), np.arange(40)
    assert (miner.mine(anchors, candidates, 1, positives=positives)[:, 0] == own).all()
    for strategy in rt.MiningStrategy:
        found = rt.HardNegativeMiner(strategy).mine(
            anchors, candidates, 100, positives=positives, relative_margin=0.05
        )
        assert not (found == own[:, np.newaxis]).any()


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"relative_margin": 0.1}, "relative_margin .* needs positives"),
        ({"absolute_margin": 0.1}, "absolute_margin .* needs positives"),
        ({"range_min": -1}, "range_min must be at least 0"),
        ({"range_min": 3, "range_max": 3}, "range_max must be at least 4"),
        ({"sampling": "best"}, "sampling must be 'top' or 'random'"),
        ({"max_score": np.nan}, "max_score must be a finite number"),
    ],
)
def test_filters__are_refused_by_name(filters, message):
    with pytest.raises(ValueError, match=message):
        rt.HardNegativeMiner.hardest().mine(np.ones((2, 3)), np.ones((4, 3)), 1, **filters)
    with pytest.raises(ValueError, match="range_max is for hardest and semi_hard, got random"):
        rt.HardNegativeMiner.random().mine(np.ones((2, 3)), np.ones((4, 3)), 1, range_max=3)
