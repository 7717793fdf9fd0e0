"""HardNegativeMiner, InBatchMiner, top_k and weighted_sample against brute force, frequencies and faiss."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import reference
from conftest import TOLERANCE

import rvtrain as rt

SHAPES = [(1, 1, 1), (5, 7, 3), (13, 100, 31), (70, 333, 17), (3, 65, 768)]


def make_case(shape, dtype, rng):
    batch, pool, dim = shape
    return rng.normal(size=(batch, dim)).astype(dtype), rng.normal(size=(pool, dim)).astype(dtype)


def assert_same_choice(actual, expected, scores, tolerance):
    """Equal indices, or such whose float64 scores differ by less than rounding."""
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual < 0, expected < 0)
    for row, (a, e) in enumerate(zip(actual, expected, strict=True)):
        kept = a[a >= 0]
        assert len(set(kept)) == len(kept)
        np.testing.assert_allclose(scores[row, kept], scores[row, e[e >= 0]], atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("k", [1, 4, 200])
def test_hardest__matches_brute_force(shape, k, dtype, threads, rng):
    anchors, candidates = make_case(shape, dtype, rng)
    indices, cosines = rt.HardNegativeMiner.hardest().mine(anchors, candidates, k, return_scores=True)
    scores = reference.cosine_similarity(anchors, candidates)
    expected = np.array([reference.hardest(row, k) for row in scores])
    assert indices.dtype == np.int64 and cosines.dtype == dtype
    assert_same_choice(indices, expected, scores, TOLERANCE[dtype] / 10)
    chosen = np.where(indices < 0, -np.inf, np.take_along_axis(scores, indices, axis=1))
    np.testing.assert_allclose(cosines, chosen, atol=TOLERANCE[dtype] / 10)


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("with_positives", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_semi_hard__matches_brute_force(shape, fill, with_positives, dtype, rng):
    anchors, candidates = make_case(shape, dtype, rng)
    positives = (anchors + rng.normal(size=anchors.shape)).astype(dtype) if with_positives else None
    miner = rt.HardNegativeMiner.semi_hard(0.2, fill=fill)
    indices = miner.mine(anchors, candidates, 6, positives=positives)
    scores = reference.cosine_similarity(anchors, candidates)
    limits = [None] * len(anchors)
    if with_positives:
        limits = reference.cosine_similarity(anchors, positives).diagonal()
    expected = [reference.semi_hard(row, 6, 0.2, top, fill) for row, top in zip(scores, limits, strict=True)]
    assert_same_choice(indices, np.array(expected), scores, TOLERANCE[dtype] / 10)


def test_semi_hard__never_returns_a_copy_of_the_positive(dtype, rng):
    anchors = rng.normal(size=(70, 301)).astype(dtype)
    positives = (anchors + 0.5 * rng.normal(size=anchors.shape)).astype(dtype)
    candidates = np.concatenate([positives, rng.normal(size=(50, 301)).astype(dtype)])
    found = rt.HardNegativeMiner.semi_hard(2.0).mine(anchors, candidates, 3, positives=positives)
    assert not (found == np.arange(70)[:, np.newaxis]).any()


@pytest.mark.parametrize("strategy", list(rt.MiningStrategy))
def test_mine__keeps_out_what_is_excluded_or_shares_an_id(strategy, dtype, rng):
    anchors, candidates = make_case((9, 40, 8), dtype, rng)
    exclude = rng.integers(-1, 40, size=(9, 5))
    anchor_ids, candidate_ids = rng.integers(0, 3, 9), rng.integers(0, 3, 40)
    found = rt.HardNegativeMiner(strategy, seed=3).mine(
        anchors, candidates, 40, exclude=exclude, anchor_ids=anchor_ids, candidate_ids=candidate_ids
    )
    left_out = strategy is rt.MiningStrategy.SEMI_HARD  # without positives: the hardest itself
    for row in range(9):
        free = set(np.flatnonzero(candidate_ids != anchor_ids[row])) - set(exclude[row])
        assert set(found[row]) - {-1} <= free
        assert (found[row] >= 0).sum() == len(free) - left_out


@pytest.mark.parametrize("strategy", list(rt.MiningStrategy))
def test_mine__keeps_out_each_of_several_ids(strategy, dtype, rng):
    anchors, candidates = make_case((9, 40, 8), dtype, rng)
    anchor_ids, candidate_ids = rng.integers(0, 6, (9, 3)), rng.integers(0, 6, 40)
    found = rt.HardNegativeMiner(strategy).mine(
        anchors, candidates, 40, anchor_ids=anchor_ids, candidate_ids=candidate_ids
    )
    for row in range(9):
        free = set(np.flatnonzero(~np.isin(candidate_ids, anchor_ids[row])))
        assert set(found[row]) - {-1} <= free
        assert (found[row] >= 0).sum() == len(free) - (strategy is rt.MiningStrategy.SEMI_HARD)
    same = {"anchor_ids": np.repeat(anchor_ids[:, :1], 2, axis=1), "candidate_ids": candidate_ids}
    once = {"anchor_ids": anchor_ids[:, 0], "candidate_ids": candidate_ids}
    repeated, single = (rt.HardNegativeMiner(strategy).mine(anchors, candidates, 5, **ids) for ids in (same, once))
    np.testing.assert_array_equal(repeated, single)
    one = rt.HardNegativeMiner(strategy).mine(
        anchors[0], candidates, 40, anchor_ids=anchor_ids[0], candidate_ids=candidate_ids
    )
    np.testing.assert_array_equal(one, found[0])


def test_mine__ties_go_to_the_lower_index(dtype):
    candidates = np.tile(np.eye(3, dtype=dtype), (5, 1))
    found = rt.HardNegativeMiner.hardest().mine(np.eye(3, dtype=dtype), candidates, 7)
    np.testing.assert_array_equal(found[0], [0, 3, 6, 9, 12, 1, 2])
    np.testing.assert_array_equal(found[2], [2, 5, 8, 11, 14, 0, 1])


def test_mine__zero_vectors_are_orthogonal_to_all(dtype):
    anchors, candidates = np.zeros((1, 4), dtype), np.eye(4, dtype=dtype)
    found, scores = rt.HardNegativeMiner.hardest().mine(anchors, candidates, 2, return_scores=True)
    np.testing.assert_array_equal(found, [[0, 1]])
    np.testing.assert_array_equal(scores, [[0, 0]])


def test_mine__one_anchor_gets_one_row(rng):
    anchors, candidates = make_case((4, 30, 6), np.float64, rng)
    miner = rt.HardNegativeMiner.hardest()
    one = miner.mine(anchors[2], candidates, 5, exclude=[1, -1], anchor_ids=7, candidate_ids=np.arange(30))
    assert one.shape == (5,)
    expected = miner.mine(anchors[2:3], candidates, 5, exclude=[[1, 7]])
    np.testing.assert_array_equal(one, expected[0])


@pytest.mark.parametrize("strategy", ["random", "distance_weighted"])
def test_draws__repeat_with_the_seed_whatever_the_threads(strategy, dtype, rng):
    anchors, candidates = make_case((130, 257, 9), dtype, rng)
    before, results = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            miner = rt.HardNegativeMiner(strategy, seed=5)
            results.append([miner.mine(anchors, candidates, 4) for _ in range(2)])
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0][0] != results[0][1]).any()  # each call draws afresh
    miner.reset()
    np.testing.assert_array_equal(miner.mine(anchors, candidates, 4), results[0][0])
    part = rt.HardNegativeMiner(strategy, seed=5).mine(anchors[:3], candidates, 4)
    np.testing.assert_array_equal(part, results[0][0][:3])


def test_draws__go_on_from_a_state_dict(rng):
    anchors, candidates = make_case((3, 50, 4), np.float64, rng)
    miner, twin = rt.HardNegativeMiner.random(seed=1), rt.HardNegativeMiner.random(seed=1)
    miner.mine(anchors, candidates, 5)
    twin.load_state_dict(miner.state_dict())
    np.testing.assert_array_equal(miner.mine(anchors, candidates, 5), twin.mine(anchors, candidates, 5))


def test_draws__are_never_the_same_for_two_threads(rng):
    anchors, candidates = make_case((4, 5000, 8), np.float32, rng)
    miner, twin = (rt.HardNegativeMiner.random(seed=1) for _ in range(2))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: miner.mine(anchors, candidates, 5).tobytes(), range(160)))
    assert sorted(found) == sorted(twin.mine(anchors, candidates, 5).tobytes() for _ in range(160))
    assert miner.state_dict() == {"draws": 160}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("kind", [rt.HardNegativeMiner, rt.InBatchMiner])
def test_miner__goes_on_from_a_copy(kind, copied, rng):
    anchors, candidates = make_case((3, 50, 4), np.float64, rng)
    arguments = (anchors, candidates) if kind is rt.HardNegativeMiner else (candidates,)
    miner = kind("distance_weighted", temperature=0.3, seed=4)
    miner.mine(*arguments, k=5)
    twin = copied(miner)
    expected = miner.mine(*arguments, k=5)
    np.testing.assert_array_equal(twin.mine(*arguments, k=5), expected)
    assert repr(twin) == repr(miner) and twin.state_dict() == miner.state_dict()


def test_draws__are_not_spent_by_calls_that_fail(rng):
    anchors, candidates = make_case((3, 50, 4), np.float64, rng)
    broken = candidates.copy()
    broken[40] = np.nan

    def interrupt(done, total):
        raise KeyboardInterrupt

    miner = rt.HardNegativeMiner.random()
    for error, call in (
        (ValueError, lambda: miner.mine(anchors, candidates, 0)),
        (ValueError, lambda: miner.mine(anchors, broken, 5)),
        (TypeError, lambda: miner.mine(anchors, candidates, 5, progress=3)),
        (KeyboardInterrupt, lambda: miner.mine(anchors, candidates, 5, progress=interrupt)),
    ):
        with pytest.raises(error):
            call()
    assert miner.state_dict() == {"draws": 0}
    hardest = rt.HardNegativeMiner.hardest()
    hardest.load_state_dict({"draws": 3})
    with pytest.raises(ValueError, match="candidates must be finite"):
        hardest.mine(anchors, broken, 5)
    assert hardest.state_dict() == {"draws": 3}


def assert_frequencies(counts, probabilities):
    """A χ² test at about one in a million."""
    expected = counts.sum() * probabilities
    statistic = ((counts - expected) ** 2 / expected).sum()
    degrees = len(counts) - 1
    assert statistic < degrees + 5 * np.sqrt(2 * degrees) + 20


def test_random__is_uniform(rng):
    anchors, candidates = make_case((20_000, 12, 3), np.float32, rng)
    found = rt.HardNegativeMiner.random(seed=2).mine(anchors, candidates, 3)
    for place in range(3):
        assert_frequencies(np.bincount(found[:, place], minlength=12), np.full(12, 1 / 12))


def test_distance_weighted__follows_its_weights(rng):
    anchor, candidates = make_case((1, 9, 4), np.float64, rng)
    anchors = np.repeat(anchor, 20_000, axis=0)
    weights = np.exp(reference.cosine_similarity(anchor, candidates)[0] / 0.5)
    found = rt.HardNegativeMiner.distance_weighted(0.5, seed=4).mine(anchors, candidates, 2)
    first = weights / weights.sum()
    assert_frequencies(np.bincount(found[:, 0], minlength=9), first)
    second = [sum(first[i] * weights[j] / (weights.sum() - weights[i]) for i in range(9) if i != j) for j in range(9)]
    assert_frequencies(np.bincount(found[:, 1], minlength=9), np.array(second))


@pytest.mark.parametrize("dim", [16, 768])
def test_wu2017__every_anchor_finds_its_negatives(dim, rng):
    anchors, candidates = make_case((50, 400, dim), np.float32, rng)
    miner = rt.HardNegativeMiner.distance_weighted(density="wu2017", seed=1)
    found, scores = miner.mine(anchors, candidates, 4, return_scores=True)
    near = (2 - 2 * reference.cosine_similarity(anchors, candidates) < 1.4**2 - 1e-4).sum(axis=1)
    np.testing.assert_array_equal((found >= 0).sum(axis=1) >= np.minimum(near, 4), True)
    assert (2 - 2 * scores[found >= 0] < 1.4**2).all()


@pytest.mark.parametrize("temperature", [0.02, 1.0, 50.0])
@pytest.mark.parametrize("density", ["exponential", "wu2017"])
def test_distance_weighted__screens_out_nothing_that_was_drawn(density, temperature, dtype, rng):
    # The k best of all keys: no screen in between may lose one.
    anchors, candidates = make_case((20, 3000, 12), dtype, rng)
    miners = [rt.HardNegativeMiner.distance_weighted(temperature, density=density, seed=3) for _ in range(2)]
    few = miners[0].mine(anchors, candidates, 5)
    all_of_them = miners[1].mine(anchors, candidates, 3000)  # a heap that is never full screens nothing
    np.testing.assert_array_equal(few, all_of_them[:, :5])


def test_weighted_sample__screens_out_nothing_that_was_drawn(dtype, rng):
    weights = ((rng.random((30, 2000)) + 0.01) ** 8 * 10.0 ** rng.integers(-20, 20, size=(30, 1))).astype(dtype)
    np.testing.assert_array_equal(rt.weighted_sample(weights, 4, 1), rt.weighted_sample(weights, 2000, 1)[:, :4])


def test_wu2017__follows_its_weights(rng):
    anchor, candidates = make_case((1, 15, 6), np.float64, rng)
    d = np.maximum(np.sqrt(2 - 2 * reference.cosine_similarity(anchor, candidates)[0]), 0.5)
    weights = np.where(d < 1.4, d ** (2.0 - 6) * (1 - np.minimum(d, 1.9) ** 2 / 4) ** (-(6 - 3) / 2), 0)
    miner = rt.HardNegativeMiner.distance_weighted(density="wu2017", seed=4)
    found = miner.mine(np.repeat(anchor, 20_000, axis=0), candidates, 1)
    kept = weights > 0
    assert_frequencies(np.bincount(found[:, 0], minlength=15)[kept], (weights / weights.sum())[kept])
    assert np.bincount(found[:, 0], minlength=15)[~kept].sum() == 0


# --- In-batch, top_k, weighted_sample ------------------------------------------------------------------


@pytest.mark.parametrize("strategy", list(rt.MiningStrategy))
def test_in_batch__is_the_miner_on_the_batch(strategy, dtype, rng):
    anchors, _ = make_case((21, 1, 6), dtype, rng)
    positives = (anchors + rng.normal(size=anchors.shape)).astype(dtype)
    ids = rng.integers(0, 6, 21)
    found = rt.InBatchMiner(strategy, seed=9).mine(anchors, 3, positives=positives, ids=ids)
    expected = rt.HardNegativeMiner(strategy, seed=9).mine(
        anchors,
        positives,
        3,
        positives=positives,
        exclude=np.arange(21)[:, None],
        anchor_ids=ids,
        candidate_ids=ids,
    )
    np.testing.assert_array_equal(found, expected)
    alone = rt.InBatchMiner(strategy, seed=9).mine(anchors, 20)
    assert not (alone == np.arange(21)[:, None]).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_top_k__matches_brute_force(shape, dtype, rng):
    queries, candidates = make_case(shape, dtype, rng)
    k = min(5, shape[1])
    scores, indices = rt.top_k(queries, candidates, k)
    exact = reference.cosine_similarity(queries, candidates)
    expected = np.array([reference.hardest(row, k) for row in exact])
    assert_same_choice(indices, expected, exact, TOLERANCE[dtype] / 10)
    np.testing.assert_allclose(scores, np.take_along_axis(exact, indices, axis=1), atol=TOLERANCE[dtype] / 10)
    one_scores, one = rt.top_k(queries[0], candidates, k)
    np.testing.assert_array_equal(one, indices[0])
    np.testing.assert_array_equal(one_scores, scores[0])


def test_top_k__matches_faiss(rng):
    faiss = pytest.importorskip("faiss")
    queries, candidates = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in make_case((50, 3000, 64), np.float32, rng)
    )
    index = faiss.IndexFlatIP(64)
    index.add(candidates)
    _, expected = index.search(queries, 10)
    _, indices = rt.top_k(queries, candidates, 10)
    assert_same_choice(indices, expected, reference.cosine_similarity(queries, candidates), 1e-6)


def test_weighted_sample__follows_its_weights():
    weights = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    found = rt.weighted_sample(np.tile(weights, (20_000, 1)), 2, seed=8)
    assert_frequencies(np.bincount(found[:, 0], minlength=5)[1:], weights[1:] / 10)
    assert (found > 0).all() and (found[:, 0] != found[:, 1]).all()
    np.testing.assert_array_equal(
        rt.weighted_sample(weights.astype(np.float32), 4, 8), rt.weighted_sample(weights, 4, 8)
    )


# --- Errors --------------------------------------------------------------------------------------------

A, C = np.ones((3, 4)), np.ones((5, 4))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((A > 0, C, 1), {}, TypeError, "anchors must be an array of real numbers of at most 64 bits, got dtype bool"),
        ((A, C.astype(complex), 1), {}, TypeError, "candidates must be an array of real numbers"),
        ((A, C, 1), {"positives": A.astype(str)}, TypeError, "positives must be an array of real numbers"),
        ((A, C[:, :3], 1), {}, ValueError, "candidates must have 4 columns"),
        ((A, C[:0], 1), {}, ValueError, "candidates must not be empty"),
        ((A, C, 0), {}, ValueError, r"k must be in \[1, "),
        ((A, C, 1.0), {}, TypeError, "k must be an integer"),
        ((A, C, 1), {"positives": C}, ValueError, "positives must have the shape of anchors"),
        ((A, C, 1), {"exclude": [[5]] * 3}, ValueError, r"exclude must lie in \[-1, 4\]"),
        ((A, C, 1), {"anchor_ids": [1, 2, 3]}, ValueError, "anchor_ids and candidate_ids"),
        ((A, C, 1), {"anchor_ids": [[1], [2]], "candidate_ids": range(5)}, ValueError, r"anchor_ids must have .*\(3"),
        ((A * np.nan, C, 1), {}, ValueError, "anchors must be finite"),
        ((A, C * np.inf, 1), {}, ValueError, "candidates must be finite.*row 0"),
        ((A, C, 1), {"return_scores": 1}, TypeError, "return_scores"),
    ],
)
def test_mine__refuses_bad_arguments_by_name(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        rt.HardNegativeMiner.hardest().mine(*arguments, **keywords)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("count", [1, 2, 70])
def test_weighted_sample__refuses_what_is_not_finite(value, count, dtype):
    for place in range(0, count, 23):
        weights = np.ones(count, dtype)
        weights[place] = value
        with pytest.raises(ValueError, match=rf"weights must be finite, got -?(nan|inf) at \[{place}\]"):
            rt.weighted_sample(weights, 1, 0)
    with pytest.raises(ValueError, match="weights must be finite"):
        rt.weighted_sample(np.full((2, count), value, dtype), 1, 0)
    assert rt.weighted_sample(np.full(count, np.finfo(dtype).max), 1, 0)[0] >= 0


def test_functions__refuse_bad_arguments_by_name():
    with pytest.raises(ValueError, match=r"k must be in \[1, 5\], got 6"):
        rt.top_k(A, C, 6)
    with pytest.raises(ValueError, match="weights must have at least k = 3 positive"):
        rt.weighted_sample(np.array([1.0, 0.0, 2.0]), 3, 0)
    with pytest.raises(ValueError, match="weights must not be negative"):
        rt.weighted_sample(np.array([1.0, -1.0]), 1, 0)
    with pytest.raises(ValueError, match=r"k must be in \[1, 5\], got 6"):
        rt.top_k(A, iter([C[:2], C[2:]]), 6)
    with pytest.raises(TypeError, match=r"weights must be float32 or float64.*weights.astype"):
        rt.weighted_sample(np.ones(3, np.float16), 1, 0)
    with pytest.raises(ValueError, match="strategy must be"):
        rt.HardNegativeMiner("easiest")
    with pytest.raises(ValueError, match="margin"):
        rt.HardNegativeMiner.semi_hard(0)
