"""Reports of what a miner has found and dropped, against counts by brute force."""

import pickle

import numpy as np
import pytest
import reference

import rvtrain as rt
from rvtrain.mining._filters import Filters


@pytest.fixture(params=[(3, 41, 5), (70, 2100, 33)], ids=str)
def case(request, dtype, rng):
    batch, pool, dim = request.param
    anchors, candidates = rng.normal(size=(batch, dim)).astype(dtype), rng.normal(size=(pool, dim)).astype(dtype)
    own = rng.integers(0, pool, size=(batch, 2))
    own[::2, 1] = -1
    candidates[own[:, 0]] = (anchors + rng.normal(size=anchors.shape)).astype(dtype)
    return anchors, candidates, own


def counted(scores, least, allowed, filters, semi_hard):
    """The candidates that each filter drops, by the first rule of `MiningReport.dropped`."""
    dropped = dict.fromkeys([*filters, *(["semi_hard"] if semi_hard else [])], 0)
    for row, top in enumerate(least):
        caps = {
            "max_score": filters.get("max_score", np.inf),
            "absolute_margin": top - filters.get("absolute_margin", -np.inf),
            "relative_margin": top - abs(top) * filters.get("relative_margin", -np.inf),
            "semi_hard": top if semi_hard else np.inf,
        }
        lowest = min(caps, key=caps.get)
        if caps[lowest] < np.inf:
            dropped[lowest] += int((allowed[row] & (scores[row] > caps[lowest])).sum())
    return dropped


FILTERS = [
    {"max_score": 0.2},
    {"absolute_margin": 0.1},
    {"relative_margin": 0.05, "max_score": 0.5},
    {"relative_margin": 0.3, "absolute_margin": 0.1, "max_score": 0.6},
    {},
]


@pytest.mark.parametrize("method", ["float", "bounds"])
@pytest.mark.parametrize("strategy", list(rt.MiningStrategy))
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_report__counts_what_each_filter_drops(filters, strategy, method, case, threads, rng):
    anchors, candidates, own = case
    exclude = rng.integers(-1, len(candidates), size=(len(anchors), 3))
    miner = rt.HardNegativeMiner(strategy, **filters)
    found, scores = miner.mine(
        anchors, candidates, 4, positives=own, exclude=exclude, return_scores=True, method=method
    )
    report = miner.last_report
    cosines = reference.cosine_similarity(anchors, candidates)
    least = np.array([cosines[row, ids[ids >= 0]].min() for row, ids in enumerate(own)])
    allowed = np.ones(cosines.shape, bool)
    for row in range(len(anchors)):
        for j in (*own[row], *exclude[row]):
            allowed[row, j] &= j < 0
    semi_hard = strategy is rt.MiningStrategy.SEMI_HARD
    assert report.dropped == counted(cosines, least, allowed, filters, semi_hard)
    assert (report.rows, report.negatives) == (len(anchors), (found >= 0).sum())
    assert report.short == (found < 0).any(axis=1).sum()
    quarters = [0.25, 0.5, 0.75]
    np.testing.assert_allclose(report.positive_scores, np.quantile(least, quarters), rtol=1e-5)
    np.testing.assert_allclose(report.negative_scores, np.quantile(scores[found >= 0], quarters), rtol=1e-5)
    differences = (least[:, np.newaxis] - scores)[found >= 0]
    np.testing.assert_allclose(report.differences, np.quantile(differences, quarters), rtol=1e-4, atol=1e-6)


def test_report__leaves_out_candidates_with_an_id_of_the_anchors(case, threads, rng):
    anchors, candidates, _ = case
    row_ids, ids = rng.integers(0, 4, len(anchors)), rng.integers(0, 4, len(candidates))
    cosines = reference.cosine_similarity(anchors, candidates)
    expected = ((cosines > 0.1) & (row_ids[:, np.newaxis] != ids)).sum()
    miner = rt.HardNegativeMiner.hardest(max_score=0.1)
    for method in ("float", "bounds"):
        miner.mine(anchors, candidates, 4, anchor_ids=row_ids, candidate_ids=ids, method=method)
        assert miner.last_report.dropped == {"max_score": expected}
    miner.mine(anchors, iter([candidates[:17], candidates[17:]]), 4, anchor_ids=row_ids, candidate_ids=ids)
    assert miner.last_report.dropped == {"max_score": expected}


def test_report__of_ranks(case):
    anchors, candidates, _ = case
    cosines = np.sort(reference.cosine_similarity(anchors, candidates), axis=1)[:, ::-1]
    for stop in (None, 20):
        miner = rt.HardNegativeMiner.hardest(range_min=3, range_max=stop, max_score=0.2)
        miner.mine(anchors, candidates, 4)
        above = (cosines[:, 3:stop] > 0.2).sum()
        assert miner.last_report.dropped == {"range_min": 3 * len(anchors), "max_score": above}


def test_report__of_rows_whose_bounds_are_given_up(rng):
    """Queries that the search by bounds leaves to floating point are counted once."""
    anchors = rng.normal(size=(40, 16)).astype(np.float32)
    candidates = np.repeat(rng.normal(size=(3, 16)), 3000, axis=0).astype(np.float32)
    expected = (reference.cosine_similarity(anchors, candidates) > 0.1).sum()
    miner = rt.HardNegativeMiner.hardest(max_score=0.1)
    for method in ("bounds", "float"):
        miner.mine(anchors, candidates, 5, method=method)
        assert miner.last_report.dropped == {"max_score": expected}


def test_report__of_calls_that_find_nothing_or_fail():
    miner = rt.HardNegativeMiner.hardest()
    assert miner.last_report is None
    x = np.eye(3)
    miner.mine(x, x, 2, max_score=-2.0)
    report = miner.last_report
    assert report == (3, 0, 3, None, None, None, {"max_score": 9})
    with pytest.raises(ValueError, match="k must be"):
        miner.mine(x, x, 0)
    assert miner.last_report is report
    miner.mine(x, x, 2, min_score=0.5, max_score=0.1)
    assert miner.last_report.dropped == {"max_score": 0}
    assert rt.InBatchMiner.hardest(max_score=0.5).mine(x, 1).shape == (3, 1)


def test_report__stays_in_a_copy(rng):
    x = rng.normal(size=(9, 4))
    miner = rt.HardNegativeMiner.semi_hard(0.3, relative_margin=0.1)
    miner.mine(x, x, 2, positives=np.arange(9))
    copy = pickle.loads(pickle.dumps(miner))
    assert copy.last_report == miner.last_report and copy.filters == Filters(relative_margin=0.1)
