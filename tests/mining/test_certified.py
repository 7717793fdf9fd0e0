"""The search by bounds against the search without: the same candidates, order and bits, whatever the data."""

import tracemalloc

import numpy as np
import pytest

import rvtrain as rt
from rvtrain._engine._byte_tile import byte_tile
from rvtrain.mining import _certified, _search

pytestmark = pytest.mark.skipif(byte_tile() is None, reason="needs fast 8-bit products")

COUNT = 1500


@pytest.fixture(autouse=True)
def for_small_ones_too(monkeypatch):
    for name in ("_FEWEST_QUERIES", "FEWEST_CANDIDATES", "_FEWEST_PER_RESULT"):
        monkeypatch.setattr(_certified, name, 1)


@pytest.fixture
def both(monkeypatch):
    """A call by bounds and without them, and how many queries the bounds gave up."""

    choice, inner = _search.worthwhile, _search.certified

    def run(call):
        given_up = []
        monkeypatch.setattr(_search, "worthwhile", choice)

        def spy(*arguments):
            given_up.append(inner(*arguments))
            return given_up[-1]

        monkeypatch.setattr(_search, "certified", spy)
        by_bounds = call()
        assert len(given_up) == 1
        monkeypatch.setattr(_search, "worthwhile", lambda *arguments: False)
        return by_bounds, call(), len(given_up[0])

    return run


def data(kind, dim, rng):
    rows = rng.normal(size=(COUNT, dim))
    if kind == "clustered":
        rows = rng.normal(size=(20, dim))[rng.integers(0, 20, COUNT)] + 0.05 * rows
    elif kind == "duplicated":
        rows = rows[rng.integers(0, 40, COUNT)]
    elif kind == "equal":
        rows[:] = rows[0]
    elif kind == "one_large":
        rows[np.arange(COUNT), rng.integers(0, dim, COUNT)] *= 1e6
    elif kind == "zeros":
        rows[rng.random(COUNT) < 0.3] = 0
    elif kind == "signs":  # codes all as large as they may be, and of the same sign where rows are the same
        rows = np.sign(rows)
    elif kind == "half_zero":  # of four elements two: what 16-bit sums take is all in one of two
        rows[:, np.arange(dim) % 4 < 2] = 0
    elif kind == "tiny_and_huge":
        rows *= 10.0 ** rng.integers(-20, 18, size=(COUNT, 1))
    return rows.astype(np.float32)


KINDS = ["random", "clustered", "duplicated", "equal", "one_large", "zeros", "tiny_and_huge"]


@pytest.mark.parametrize("kind", [*KINDS, "signs", "half_zero"])
@pytest.mark.parametrize("dim", [1, 7, 64, 100, 128, 384])
def test_top_k__is_the_same_with_and_without_bounds(kind, dim, both, threads, rng):
    candidates = data(kind, dim, rng)
    queries = np.concatenate([rng.normal(size=(50, dim)).astype(np.float32), candidates[:21]])
    (scores, indices), (expected_scores, expected), _ = both(lambda: rt.top_k(queries, candidates, 10))
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("k", [1, 33, 1000])
def test_top_k__is_the_same_for_any_k(k, both, rng):
    queries, candidates = rng.normal(size=(31, 64)).astype(np.float32), data("random", 64, rng)
    (scores, indices), (expected_scores, expected), _ = both(lambda: rt.top_k(queries, candidates, k))
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("kind", ["random", "duplicated"])
def test_mine__keeps_to_its_exclusions(kind, both, rng):
    anchors, candidates = rng.normal(size=(45, 96)).astype(np.float32), data(kind, 96, rng)
    rest = {
        "exclude": rng.integers(-1, COUNT, size=(45, 200)),
        "anchor_ids": rng.integers(0, 2, 45),
        "candidate_ids": rng.integers(0, 2, COUNT),
        "return_scores": True,
    }
    found, expected, _ = both(lambda: rt.HardNegativeMiner.hardest().mine(anchors, candidates, 700, **rest))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


WINDOWS = {
    "semi_hard": (rt.HardNegativeMiner.semi_hard(0.1), {}),
    "semi_hard, not filled": (rt.HardNegativeMiner.semi_hard(0.05, fill=False), {}),
    "ceiling": (rt.HardNegativeMiner.hardest(), {"max_score": 0.2}),
    "floor": (rt.HardNegativeMiner.hardest(), {"min_score": 0.1}),
    "nothing": (rt.HardNegativeMiner.hardest(), {"min_score": 0.3, "max_score": 0.3}),
    "margins": (rt.HardNegativeMiner.hardest(), {"relative_margin": 0.05, "absolute_margin": 0.01}),
}


@pytest.mark.parametrize("nearness", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", WINDOWS)
def test_mine__keeps_to_its_window(window, kind, nearness, both, rng):
    miner, filters = WINDOWS[window]
    anchors, candidates = rng.normal(size=(40, 64)).astype(np.float32), data(kind, 64, rng)
    positives = (nearness * anchors + rng.normal(size=anchors.shape)).astype(np.float32)
    found, expected, _ = both(
        lambda: miner.mine(anchors, candidates, 12, positives=positives, return_scores=True, **filters)
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_bounds__that_leave_everything_are_given_up(both, rng):
    candidates = np.tile(rng.normal(size=(1, 128)).astype(np.float32), (9000, 1))
    queries = rng.normal(size=(40, 128)).astype(np.float32)
    (_, indices), (_, expected), given_up = both(lambda: rt.top_k(queries, candidates, 5))
    assert given_up == 40
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(indices, np.tile(np.arange(5), (40, 1)))


def test_bounds__are_tried_on_some_before_all_queries(both, rng):
    candidates = np.tile(rng.normal(size=(1, 16)).astype(np.float32), (9000, 1))
    queries = rng.normal(size=(500, 16)).astype(np.float32)
    (_, indices), (_, expected), given_up = both(lambda: rt.top_k(queries, candidates, 5))
    assert given_up == 500
    np.testing.assert_array_equal(indices, expected)
    mixed = np.concatenate([candidates, rng.normal(size=(3000, 16)).astype(np.float32)])
    (scores, indices), (expected_scores, expected), _ = both(lambda: rt.top_k(queries, mixed, 5))
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("near", [3, 7, 9, 12])
def test_bounds__that_start_from_a_sample_of_the_best_alone_miss_nothing(near, both, rng):
    """A sample unlike the rest makes a guess too high for the k-th best: the query is given up, not cut short."""
    queries, candidates = rng.normal(size=(40, 64)), rng.normal(size=(COUNT, 64))
    candidates[:near] = queries[0] + 0.1 * rng.normal(size=(near, 64))
    (scores, indices), (expected_scores, expected), given_up = both(
        lambda: rt.top_k(queries.astype(np.float32), candidates.astype(np.float32), 10)
    )
    assert (given_up > 0) == (near >= 7)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scores, expected_scores)


def test_bounds__leave_few_of_ordinary_data(both, rng):
    queries, candidates = rng.normal(size=(100, 128)), rng.normal(size=(20_000, 128))
    *_, given_up = both(lambda: rt.top_k(queries.astype(np.float32), candidates.astype(np.float32), 10))
    assert given_up == 0


def test_bounds__that_are_given_up_cost_no_copy_of_the_candidates():
    candidates = np.ones((200_000, 32), np.float32)
    queries = np.ones((40, 32), np.float32)
    rt.top_k(queries, candidates[:5000], 3)
    rt.release_workspaces()
    tracemalloc.start()
    rt.top_k(queries, candidates, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * candidates.nbytes


def test_bounds__that_leave_much_of_a_window_are_not_tried_on_all_queries(both, rng):
    """Bounds of scores near a ceiling straddle it; where many do, the first queries tell, the rest are scanned."""
    anchors, positives = rng.normal(size=(2, 200, 128)).astype(np.float32)
    candidates = rng.normal(size=(8000, 128)).astype(np.float32)
    miner = rt.HardNegativeMiner.semi_hard(0.2)
    found, expected, given_up = both(lambda: miner.mine(anchors, candidates, 16, positives=positives))
    assert given_up >= 200 - _certified._PROBE_ROWS
    np.testing.assert_array_equal(found, expected)
