"""A judge between search and filters: the strategies by its scores, against brute force."""

import numpy as np
import pytest
import reference

import rvtrain as rt

COUNT = 60


@pytest.fixture
def case(dtype, rng):
    anchors, candidates = rng.normal(size=(9, 6)).astype(dtype), rng.normal(size=(COUNT, 6)).astype(dtype)
    own = rng.integers(0, COUNT, size=(9, 2))
    own[::3, 1] = -1
    return anchors, candidates, own, rng.normal(size=(9, COUNT)) * 5


def passing(row, table, cosines, own, start, stop, cap=np.inf):
    """Candidates of ranks start … stop − 1 by cosine, the best judged first."""
    order = [j for j in np.argsort(-cosines[row], kind="stable") if j not in own[row]][start:stop]
    return [j for j in sorted(order, key=lambda j: -table[row, j]) if table[row, j] <= cap]


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("stop", [None, 25])
@pytest.mark.parametrize("strategy", list(rt.MiningStrategy))
def test_rescore__puts_its_scores_in_place_of_cosines(strategy, start, stop, case):
    anchors, candidates, own, table = case
    asked = []

    def judge(rows, indices):
        asked.append(len(rows))
        return table[rows, indices].astype(np.float32)

    cosines = reference.cosine_similarity(anchors, candidates)
    miner = rt.HardNegativeMiner(strategy, margin=3.0, fill=False, range_min=start, relative_margin=0.1)
    found, scores = miner.mine(
        anchors, candidates, 3, positives=own, range_max=stop, rescore=judge, return_scores=True
    )
    length = (start + 30 if stop is None else stop) - start
    assert asked == [(own >= 0).sum(), 9 * length]
    dropped = 0
    for row, chosen in enumerate(found):
        least = table[row, own[row][own[row] >= 0]].min()
        listed = passing(row, table, cosines, own, start, start + length)
        expected = passing(row, table, cosines, own, start, start + length, least - 0.1 * abs(least))
        dropped += len(listed) - len(expected)
        chosen = chosen[chosen >= 0].tolist()
        if strategy is rt.MiningStrategy.SEMI_HARD:
            expected = [j for j in expected if table[row, j] > least - 3.0]
        if strategy.draws:
            assert set(chosen) <= set(expected) and len(chosen) == min(3, len(expected))
        else:
            assert chosen == expected[:3]
        np.testing.assert_allclose(scores[row, : len(chosen)], table[row, chosen], rtol=1e-6)
    assert miner.last_report.dropped["relative_margin"] == dropped
    assert scores.dtype == anchors.dtype


def test_rescore__draws_by_its_scores(rng):
    anchors, candidates = np.ones((2000, 3)), rng.normal(size=(4, 3))
    logits = np.array([0.0, 1.0, 2.0, -1.0])
    miner = rt.HardNegativeMiner.distance_weighted(0.5)
    found = miner.mine(anchors, candidates, 1, rescore=lambda rows, indices: logits[indices])
    expected = np.exp(2 * logits) / np.exp(2 * logits).sum()
    np.testing.assert_allclose(np.bincount(found[:, 0], minlength=4) / 2000, expected, atol=0.04)


def test_rescore__of_one_anchor_and_of_candidates_in_blocks(rng):
    anchors, candidates, table = rng.normal(size=(5, 4)), rng.normal(size=(50, 4)), rng.normal(size=(5, 50))

    def mine(a, c, **rest):
        return rt.HardNegativeMiner.hardest().mine(a, c, 2, rescore=lambda r, i: table[r, i], **rest)

    found = mine(anchors, candidates)
    np.testing.assert_array_equal(mine(anchors, iter([candidates[:20], candidates[20:]])), found)
    np.testing.assert_array_equal(mine(anchors[0], candidates), found[0])
    miner = rt.HardNegativeMiner.semi_hard(0.5, range_max=20)
    without = miner.mine(anchors, candidates, 1, rescore=lambda r, i: table[r, i])
    np.testing.assert_array_equal(without[:, 0], found[:, 1])


@pytest.mark.parametrize(
    ("judge", "error", "message"),
    [
        (
            lambda rows, indices: np.zeros(3),
            ValueError,
            r"rescore must return a score for each pair, of shape \(8,\)",
        ),
        (lambda rows, indices: np.full(len(rows), np.nan), ValueError, "finite scores, got nan for pair 0"),
        (lambda rows, indices: ["a"] * len(rows), TypeError, "rescore must return real numbers"),
        (3, TypeError, "rescore must be callable, got 3"),
    ],
)
def test_rescore__is_checked(judge, error, message):
    with pytest.raises(error, match=message):
        rt.HardNegativeMiner.hardest().mine(np.ones((2, 3)), np.ones((4, 3)), 1, rescore=judge)


def test_rescore__is_refused_where_it_makes_no_sense():
    x, judge = np.eye(3), lambda rows, indices: np.zeros(len(rows))
    with pytest.raises(ValueError, match="positives must be indices of candidates where rescore scores them"):
        rt.HardNegativeMiner.semi_hard().mine(x, x, 1, positives=x, rescore=judge)
    with pytest.raises(ValueError, match="rescore is not for the density wu2017"):
        rt.HardNegativeMiner.distance_weighted(density="wu2017").mine(x, x, 1, rescore=judge)
