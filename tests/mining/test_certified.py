"""The search by bounds against the search without: the same candidates, order and bits, whatever the data."""

import tracemalloc

import numpy as np
import pytest
import reference

import rvtrain as rt
from rvtrain._engine._blocks import Rows
from rvtrain._engine._byte_tile import TILE, byte_tile
from rvtrain.mining import _certified, _search
from rvtrain.mining._candidates import candidates_of
from rvtrain.mining._selection_kernels import BY_SCORE, UNIFORM, Rule

pytestmark = pytest.mark.skipif(byte_tile() is None, reason="needs fast 8-bit products")

COUNT = 1500


def assert_same(call):
    """Compare the arrays that `call(method)` returns by bounds with those by float scores; returns the latter."""
    expected = call("float")
    for found, wanted in zip(call("bounds"), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    return expected


def given_up(queries, candidates, k, ceilings=None, **options):
    """How many queries the search by bounds gives up."""
    q, c = (Rows(x, 1.0 / np.linalg.norm(x.astype(np.float64), axis=1)) for x in (queries, candidates))
    limits, best = _search.no_limits(len(q.x), q.x.dtype), _search.empty_best(len(q.x), k, q.x.dtype)
    limits = limits if ceilings is None else limits._replace(ceilings=ceilings)
    return len(_certified.certified(q, c, limits, best, **options))


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
    elif kind == "signs":  # codes all as large as they may be, and of the same sign in equal rows
        rows = np.sign(rows)
    elif kind == "half_zero":  # two of four elements, so that one of two 16-bit sums takes all
        rows[:, np.arange(dim) % 4 < 2] = 0
    elif kind == "tiny_and_huge":
        rows *= 10.0 ** rng.integers(-20, 18, size=(COUNT, 1))
    return rows.astype(np.float32)


KINDS = ["random", "clustered", "duplicated", "equal", "one_large", "zeros", "tiny_and_huge"]


@pytest.mark.parametrize("kind", [*KINDS, "signs", "half_zero"])
@pytest.mark.parametrize("dim", [1, 7, 64, 100, 128, 384])
def test_top_k__is_the_same_with_and_without_bounds(kind, dim, threads, rng):
    candidates = data(kind, dim, rng)
    queries = np.concatenate([rng.normal(size=(50, dim)).astype(np.float32), candidates[:21]])
    assert_same(lambda method: rt.top_k(queries, candidates, 10, method=method))


@pytest.mark.parametrize("k", [1, 33, 1000])
def test_top_k__is_the_same_for_any_k(k, rng):
    queries, candidates = rng.normal(size=(31, 64)).astype(np.float32), data("random", 64, rng)
    assert_same(lambda method: rt.top_k(queries, candidates, k, method=method))


@pytest.mark.parametrize("count", [1, 7, 40])
def test_method__is_for_any_number_of_queries_and_candidates(count, dtype, threads, rng):
    """Where bounds are not possible, as for float64, the candidates are scored without."""
    candidates = rng.normal(size=(count, 9)).astype(dtype)
    for queries in (candidates[0], candidates):
        assert_same(lambda method, queries=queries: rt.top_k(queries, candidates, count, method=method))
        assert_same(lambda method, queries=queries: rt.top_k(queries, iter([candidates]), 1, method=method))
    miner = rt.HardNegativeMiner.hardest()
    found, _ = assert_same(
        lambda method: miner.mine(candidates, candidates, count + 3, return_scores=True, method=method)
    )
    assert (found[:, count:] == -1).all()
    for strategy in rt.MiningStrategy:
        assert_same(lambda method, s=strategy: rt.HardNegativeMiner(s).mine(candidates, candidates, 1, method=method))
    expected = reference.cosine_similarity(candidates, candidates).argsort(axis=1)[:, ::-1]
    np.testing.assert_array_equal(found[:, :count], expected)


def test_method__is_refused_by_name():
    with pytest.raises(ValueError, match="method must be 'auto', 'float' or 'bounds', got 'exact'"):
        rt.top_k(np.ones((1, 2)), np.ones((3, 2)), 1, method="exact")
    with pytest.raises(ValueError, match="method must be 'auto', 'float' or 'bounds', got None"):
        rt.HardNegativeMiner.random().mine(np.ones((1, 2)), np.ones((3, 2)), 1, method=None)


def test_method__decides_how_candidates_are_scored(threads):
    def takes_bounds(method, queries, candidates, dtype=np.float32, kind=BY_SCORE, prepare=np.asarray):
        source = candidates_of("candidates", prepare(np.ones((candidates, 16), dtype)), 16, "queries", dtype)
        return _search.takes_bounds(method, queries, source, 3, Rule(kind))

    assert takes_bounds("auto", 100, 9000) and takes_bounds("bounds", 2, COUNT)
    assert not takes_bounds("auto", 2, 9000) and not takes_bounds("auto", 100, COUNT)
    assert not takes_bounds("float", 100, 9000) and not takes_bounds("bounds", 2, COUNT, np.float64)
    assert not takes_bounds("bounds", 40, 9000, kind=UNIFORM)
    prepare = rt.HardNegativeMiner.prepare
    for queries, candidates, expected in ((1, 9000, True), (2, 5000, True), (1, 5000, False), (2, COUNT, False)):
        assert takes_bounds("auto", queries, candidates, prepare=prepare) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"max_score": 0.2}, {"relative_margin": 0.05}, {"range_min": 2}])
def test_mine__does_not_depend_on_the_call_before(kind, options, threads, rng):
    """A search by bounds begins with what the last call has found, whatever that was."""
    rows = np.arange(130)
    candidates = [data(kind, 64, rng) for _ in range(2)]
    candidates.append(candidates[0] + 0.01 * data("random", 64, rng))
    miner = rt.HardNegativeMiner.hardest(**options)
    for turn in (0, 0, 2, 1, 0):
        drawn, k = rng.integers(0, COUNT, size=(2, 130)), int(rng.integers(1, 7))
        pool, given = candidates[turn], {"positives": rows, "exclude": drawn[0][:, np.newaxis], "return_scores": True}
        found = miner.mine(pool[:130], pool, k, method="bounds", **given)
        expected = rt.HardNegativeMiner.hardest(**options).mine(pool[:130], pool, k, method="float", **given)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_mine__twice__searches_by_bounds_where_these_are_faster_then(monkeypatch, rng):
    candidates = rng.normal(size=(5000, 8)).astype(np.float32)
    used, miner = [], rt.HardNegativeMiner.hardest()
    search = _search._certified
    monkeypatch.setattr(_search, "_certified", lambda *given: used.append(len(given[0].x)) or search(*given))
    for queries, calls in ((200, 0), (200, 1), (201, 1), (201, 2)):
        miner.mine(candidates[:queries], candidates, 3)
        assert len(used) == calls or not TILE.partial


@pytest.mark.parametrize("kind", ["random", "duplicated"])
def test_mine__keeps_to_its_exclusions(kind, rng):
    anchors, candidates = rng.normal(size=(45, 96)).astype(np.float32), data(kind, 96, rng)
    rest = {
        "exclude": rng.integers(-1, COUNT, size=(45, 200)),
        "anchor_ids": rng.integers(0, 2, 45),
        "candidate_ids": rng.integers(0, 2, COUNT),
        "return_scores": True,
    }
    miner = rt.HardNegativeMiner.hardest()
    assert_same(lambda method: miner.mine(anchors, candidates, 700, **rest, method=method))


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
def test_mine__keeps_to_its_window(window, kind, nearness, rng):
    miner, filters = WINDOWS[window]
    anchors, candidates = rng.normal(size=(40, 64)).astype(np.float32), data(kind, 64, rng)
    positives = (nearness * anchors + rng.normal(size=anchors.shape)).astype(np.float32)
    rest = {"positives": positives, "return_scores": True, **filters}
    assert_same(lambda method: miner.mine(anchors, candidates, 12, **rest, method=method))


@pytest.mark.parametrize("kind", [*KINDS, "signs"])
@pytest.mark.parametrize("dim", [7, 100])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.5])
def test_mine__counts_what_is_above_a_window(shift, dim, kind, threads, rng):
    """Positives among the candidates, exclusions and ids: candidates and report are those of float scores."""
    anchors, candidates = rng.normal(size=(50, dim)).astype(np.float32), data(kind, dim, rng)
    positives = (shift * anchors + rng.normal(size=anchors.shape)).astype(np.float32)
    exclude = rng.integers(-1, COUNT, size=(50, 30))
    exclude[:, 1], exclude[:, 2] = exclude[:, 0], COUNT - 1
    ids = {"anchor_ids": rng.integers(0, 4, (50, 2)), "candidate_ids": rng.integers(0, 9, COUNT)}
    for rest in ({}, {"exclude": exclude}, {"exclude": exclude, **ids}):
        miner = rt.HardNegativeMiner.semi_hard(0.1)

        def mine(method, miner=miner, rest=rest):
            found = miner.mine(
                anchors, candidates, 12, positives=positives, return_scores=True, method=method, **rest
            )
            return *found, np.array(miner.last_report.dropped["semi_hard"])

        for _ in range(2):  # the second call begins with the choice of the first
            assert_same(mine)


def test_mine__below_ceilings_among_scores_does_not_depend_on_the_call_before(rng):
    """Candidates that were just below the ceiling, and are just above it now, make the guess too high."""
    anchors, candidates = rng.normal(size=(40, 32)).astype(np.float32), data("random", 32, rng)
    scores, _ = rt.top_k(anchors, candidates, 100)
    miner = rt.HardNegativeMiner.hardest()
    for step in (0, 0, 1, 5, 4, 90):
        found = miner.mine(
            anchors, candidates, 4, max_score=float(scores[0, step]), return_scores=True, method="bounds"
        )
        expected = rt.HardNegativeMiner.hardest().mine(
            anchors, candidates, 4, max_score=float(scores[0, step]), return_scores=True, method="float"
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_bounds__that_leave_everything_are_given_up(rng):
    candidates = np.tile(rng.normal(size=(1, 128)).astype(np.float32), (9000, 1))
    queries = rng.normal(size=(40, 128)).astype(np.float32)
    assert given_up(queries, candidates, 5) == 40
    _, indices = assert_same(lambda method: rt.top_k(queries, candidates, 5, method=method))
    np.testing.assert_array_equal(indices, np.tile(np.arange(5), (40, 1)))


def test_bounds__are_tried_on_some_before_all_queries(rng):
    candidates = np.tile(rng.normal(size=(1, 16)).astype(np.float32), (9000, 1))
    queries = rng.normal(size=(500, 16)).astype(np.float32)
    assert given_up(queries, candidates, 5) == 500
    assert_same(lambda method: rt.top_k(queries, candidates, 5, method=method))
    mixed = np.concatenate([candidates, rng.normal(size=(3000, 16)).astype(np.float32)])
    assert_same(lambda method: rt.top_k(queries, mixed, 5, method=method))


@pytest.mark.parametrize("near", [3, 7, 9, 12])
def test_bounds__that_start_from_a_sample_of_the_best_alone_miss_nothing(near, rng):
    """A sample unlike the rest makes a guess too high for the k-th best: the query is given up, not cut short."""
    queries, candidates = rng.normal(size=(40, 64)), rng.normal(size=(COUNT, 64))
    candidates[:near] = queries[0] + 0.1 * rng.normal(size=(near, 64))
    queries, candidates = queries.astype(np.float32), candidates.astype(np.float32)
    assert (given_up(queries, candidates, 10) > 0) == (near >= 7)
    assert_same(lambda method: rt.top_k(queries, candidates, 10, method=method))


def test_bounds__leave_few_of_ordinary_data(rng):
    queries, candidates = rng.normal(size=(100, 128)), rng.normal(size=(20_000, 128))
    assert given_up(queries.astype(np.float32), candidates.astype(np.float32), 10) == 0


def test_bounds__that_are_given_up_cost_no_copy_of_the_candidates():
    candidates = np.ones((200_000, 32), np.float32)
    queries = np.ones((40, 32), np.float32)
    rt.top_k(queries, candidates[:5000], 3, method="bounds")
    rt.release_workspaces()
    tracemalloc.start()
    rt.top_k(queries, candidates, 3, method="bounds")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * candidates.nbytes


def test_bounds__that_leave_much_of_a_window_are_not_tried_on_all_queries(rng):
    """Bounds of scores near a ceiling straddle it; where many do, the first queries tell, the rest are scanned."""
    anchors, positives = rng.normal(size=(2, 200, 128)).astype(np.float32)
    candidates = rng.normal(size=(8000, 128)).astype(np.float32)
    own = reference.cosine_similarity(anchors, positives).diagonal().astype(np.float32)
    assert given_up(anchors, candidates, 16, ceilings=own) >= 200 - _certified._PROBE_ROWS
    assert given_up(anchors, candidates, 16, ceilings=own, shorts=True) == 0
    miner = rt.HardNegativeMiner.semi_hard(0.2)
    rest = {"positives": positives, "return_scores": True}
    assert_same(lambda method: miner.mine(anchors, candidates, 16, **rest, method=method))


def test_bounds__of_16_bits_stay_close_beside_a_row_along_an_axis(rng):
    """Its largest code, with the scale of other rows, is beyond 16 bits."""
    anchors, candidates = rng.normal(size=(2, 9000, 64)).astype(np.float32)
    candidates[7, 3] = 1e3
    assert given_up(anchors[:40], candidates, 9, ceilings=np.full(40, 0.1, np.float32), shorts=True) == 0
    mined = [
        rt.HardNegativeMiner.hardest().mine(anchors[:100], candidates, 9, max_score=0.1, return_scores=True, method=m)
        for m in ("float", "bounds")
    ]
    for found, wanted in zip(*mined, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("largest", [1.0, 1e37])
def test_bounds__are_of_16_bits_where_many_scores_are_near_a_ceiling(largest, rng):
    anchors, candidates = rng.normal(size=(2, 9000, 64)).astype(np.float32)
    candidates[:20] *= np.float32(largest)
    source = candidates_of("candidates", candidates, 64, "queries", np.float32)
    rows = Rows(anchors[:40], 1.0 / np.linalg.norm(anchors[:40].astype(np.float64), axis=1))
    limits = _search.no_limits(40, np.float32)
    for ceiling, crowded in ((0.0, True), (0.1, True), (0.25, True), (0.6, False), (-0.9, False), (np.inf, False)):
        near = limits._replace(ceilings=np.full(40, ceiling, np.float32))
        assert _search.ceilings_are_crowded(rows, source, near) == crowded
    mined = [
        rt.HardNegativeMiner.hardest().mine(anchors[:100], candidates, 9, max_score=0.1, return_scores=True, method=m)
        for m in ("auto", "float", "bounds")
    ]
    for found in mined[1:]:
        np.testing.assert_array_equal(found[0], mined[0][0])
        np.testing.assert_array_equal(found[1], mined[0][1])


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e18, 1e37])
def test_bounds__hold_for_rows_whose_products_leave_float32(size, threads, rng):
    queries, candidates = rng.normal(size=(40, 64)).astype(np.float32), data("random", 64, rng)
    for q, c in ((1, size), (size, 1), (size, size)):
        scaled = (queries * np.float32(q), candidates * np.float32(c))
        assert_same(lambda method, scaled=scaled: rt.top_k(*scaled, 10, method=method))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 40])
def test_bounds__leave_the_best_of_near_equal_candidates(k, rng):
    """Cosines within a few units of rounding, of which the two ways of summing have different orders."""
    base = rng.normal(size=128)
    near = base + 1e-6 * rng.normal(size=(60, 128))
    candidates = np.concatenate([rng.normal(size=(COUNT, 128)), near]).astype(np.float32)
    queries = np.concatenate([base + 0.1 * rng.normal(size=(39, 128)), base[np.newaxis]]).astype(np.float32)
    assert_same(lambda method: rt.top_k(queries, candidates, k, method=method))
