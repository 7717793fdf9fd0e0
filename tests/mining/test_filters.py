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
    if positive is not None:
        margins = {name: filters.get(name) for name in ("absolute_margin", "relative_margin")}
        cap = min(cap, reference.ceiling(np.atleast_1d(positive), **margins))
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


@pytest.mark.parametrize("fill", [None, True, False])
@pytest.mark.parametrize("given", ["vectors", "indices"])
@pytest.mark.parametrize("name", ["nothing", "absolute", "relative", "all"])
def test_mine__measures_from_the_least_of_several_positives(name, given, fill, case, rng):
    anchors, candidates, _ = case
    own = rng.integers(-1, len(candidates), size=(len(anchors), 3))
    own[:, 1] = np.arange(len(anchors)) % 50
    own = own[:, :2] if given == "vectors" else own
    own[:, 0] = abs(own[:, 0])
    scores = reference.cosine_similarity(anchors, candidates)
    miner = rt.HardNegativeMiner.hardest() if fill is None else rt.HardNegativeMiner.semi_hard(0.2, fill=fill)
    positives = own if given == "indices" else candidates[own]
    found = miner.mine(anchors, candidates, 5, positives=positives, **CASES[name])
    one = miner.mine(anchors[3], candidates, 5, positives=positives[3], **CASES[name])
    np.testing.assert_array_equal(one, found[3])
    for row, chosen in enumerate(found):
        known = own[row][own[row] >= 0]
        least = scores[row, known].min()
        expected = left(scores[row], scores[row, known], set(known) if given == "indices" else (), CASES[name])
        if fill is not None:
            expected = [j for j in expected if scores[row, j] < least - 1e-6]
        if fill is False:
            expected = [j for j in expected if scores[row, j] > least - 0.2]
        assert list(chosen[chosen >= 0]) == expected[:5]


def test_relative_margin__leaves_less_where_the_positive_is_negative():
    candidates = np.array([[1.0, 0.0], [-0.5, 1.0], [-1.0, 1.0], [-1.0, 0.5], [-1.0, 0.0]])
    anchor, positive = np.array([1.0, 0.0]), np.array([-1.0, 1.0])  # s⁺ = −.707
    found = rt.HardNegativeMiner.hardest().mine(anchor, candidates, 5, positives=positive, relative_margin=0.2)
    np.testing.assert_array_equal(found, [3, 4, -1, -1, -1])  # s ≤ −.849


def test_positives__by_index_may_lie_on_disk_and_are_never_returned(tmp_path, rng):
    anchors, candidates = rng.normal(size=(6, 5)), rng.normal(size=(40, 5))
    np.save(tmp_path / "candidates.npy", candidates)
    on_disk = np.load(tmp_path / "candidates.npy", mmap_mode="r")
    own = rng.integers(0, 40, size=(6, 2))
    found = rt.HardNegativeMiner.random(seed=1).mine(anchors, on_disk, 40, positives=own.astype(np.int32))
    for row in range(6):
        assert set(found[row]) - {-1} == set(range(40)) - set(own[row])
    first = rt.HardNegativeMiner.semi_hard().mine(anchors, on_disk, 3, positives=own[:, 0])
    expected = rt.HardNegativeMiner.semi_hard().mine(anchors, candidates, 3, positives=candidates[own[:, 0]])
    np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize(
    ("candidates", "positives", "message"),
    [
        (np.ones((4, 3)), [[0, 4], [1, 1]], r"positives must lie in \[-1, 3\], got 4"),
        (np.ones((4, 3)), [[0, 1], [-1, -1]], "positives must name at least one candidate .* none in row 1"),
        (np.ones((4, 3)), [[0, 1]], r"positives must have shape \(2, any\), got \(1, 2\)"),
        (np.ones((4, 3)), np.empty((2, 0), int), "positives must not be empty"),
        ([np.ones((4, 3))], [[0], [1]], "positives may be indices of candidates in one array .* not of a list"),
        (np.ones((4, 3)), np.ones((2, 2, 4)), r"positives must have the shape of anchors, \(2, 3\), or \(2, P, 3\)"),
    ],
)
def test_positives__are_refused_by_name(candidates, positives, message):
    with pytest.raises(ValueError, match=message):
        rt.HardNegativeMiner.hardest().mine(np.ones((2, 3)), candidates, 1, positives=positives)


def test_positives__of_integers_in_the_shape_of_integer_anchors_are_refused():
    anchors, candidates = np.array([[1, 0], [0, 1]]), np.array([[1, 1], [0, 1], [1, 0]])
    miner = rt.HardNegativeMiner.semi_hard(2.0)
    with pytest.raises(ValueError, match=r"positives of integers .* give vectors as positives.astype"):
        miner.mine(anchors, candidates, 1, positives=candidates[:2])
    by_vector = miner.mine(anchors, candidates, 1, positives=candidates[:2].astype(np.float32))
    by_index = miner.mine(anchors.astype(np.float32), candidates, 1, positives=np.array([[0, -1], [1, -1]]))
    np.testing.assert_array_equal(by_vector, [[1], [0]])
    np.testing.assert_array_equal(by_index, [[1], [0]])


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


@pytest.mark.parametrize("name", CASES)
def test_filters__of_the_miner_are_those_of_its_calls(name, case):
    anchors, candidates, positives = case
    filters = CASES[name]
    expected = rt.HardNegativeMiner.hardest().mine(anchors, candidates, 5, positives=positives, **filters)
    miner = rt.HardNegativeMiner.hardest(**filters)
    np.testing.assert_array_equal(miner.mine(anchors, candidates, 5, positives=positives), expected)
    assert miner.needs_positives == any("margin" in one for one in filters)
    without = {one: 0 if one == "range_min" else None for one in filters}
    plain = rt.HardNegativeMiner.hardest().mine(anchors, candidates, 5)
    np.testing.assert_array_equal(miner.mine(anchors, candidates, 5, **without), plain)
    drawn = rt.HardNegativeMiner.hardest(sampling="random").mine(anchors, candidates, 5, sampling="top")
    np.testing.assert_array_equal(drawn, plain)


def test_filters__are_taken_by_all_constructors(rng):
    x = rng.normal(size=(20, 5))
    low = {"max_score": 0.1, "min_score": -0.6}
    miners = [
        rt.HardNegativeMiner.hardest(**low, range_max=15),
        rt.HardNegativeMiner.semi_hard(0.5, **low, range_max=15),
        rt.HardNegativeMiner.distance_weighted(0.3, **low, seed=1),
        rt.HardNegativeMiner.random(**low),
        rt.InBatchMiner.random(**low, sampling="random"),
    ]
    for miner in miners:
        arguments = (x,) if isinstance(miner, rt.InBatchMiner) else (x, x)
        found, scores = miner.mine(*arguments, k=3, return_scores=True)
        assert (found >= 0).any()
        assert (scores[found >= 0] <= 0.1).all() and (scores[found >= 0] >= -0.6).all()
    for build in (rt.HardNegativeMiner.hardest, rt.HardNegativeMiner.semi_hard, rt.InBatchMiner.hardest):
        with pytest.raises(ValueError, match="range_max must be at least 4"):
            build(range_min=3, range_max=3)
    with pytest.raises(ValueError, match="range_max is for hardest and semi_hard, got random"):
        rt.HardNegativeMiner("random", range_max=3)
    with pytest.raises(ValueError, match="relative_margin is relative to the positive's score and needs positives"):
        rt.HardNegativeMiner.hardest(relative_margin=0.1).mine(x, x, 1)


def test_repr__names_the_filters_in_use():
    assert repr(rt.HardNegativeMiner.hardest()) == "HardNegativeMiner(hardest)"
    filtered = rt.HardNegativeMiner.hardest(relative_margin=0.05, range_max=9)
    assert repr(filtered) == "HardNegativeMiner(hardest, range_max=9, relative_margin=0.05)"
