"""GraphNegativeMiner against brute force."""

import numpy as np
import pytest
import reference

import rvtrain as rt


def hops_between(edges, count):
    """Distances in edges, by walking from everywhere at once."""
    near = np.zeros((count, count), bool)
    near[edges[:, 0], edges[:, 1]] = near[edges[:, 1], edges[:, 0]] = True
    hops = np.full((count, count), -1)
    reached = np.eye(count, dtype=bool)
    hops[reached] = 0
    for hop in range(1, count):
        reached = (reached @ near) & (hops < 0)
        hops[reached] = hop
    return hops


@pytest.mark.parametrize("limits", [(2, 2), (2, 3), (1, 1), (3, 5)], ids=str)
@pytest.mark.parametrize(("count", "degree"), [(1, 0), (30, 1), (97, 3)])
def test_mine__matches_brute_force(count, degree, limits, dtype, threads, rng):
    edges = rng.integers(0, count, size=(count * degree, 2))
    embeddings = rng.normal(size=(count, 13)).astype(dtype)
    miner = rt.GraphNegativeMiner(edges, *limits)
    found, cosines = miner.mine(embeddings, 4, return_scores=True)
    scores, hops = reference.cosine_similarity(embeddings, embeddings), hops_between(edges, count)
    for i in range(count):
        allowed = [j for j in np.argsort(-scores[i], kind="stable") if limits[0] <= hops[i, j] <= limits[1]][:4]
        assert list(found[i, : len(allowed)]) == allowed
        assert (found[i, len(allowed) :] == -1).all()
        np.testing.assert_allclose(cosines[i, : len(allowed)], scores[i, allowed], atol=1e-6)
    some = rng.integers(0, count, 5)
    np.testing.assert_array_equal(miner.mine(embeddings, 4, nodes=some), found[some])


def test_mine__takes_a_sparse_matrix_and_nodes_without_edges(rng):
    sparse = pytest.importorskip("scipy.sparse")
    edges = rng.integers(0, 20, size=(40, 2))
    embeddings = rng.normal(size=(25, 4))
    matrix = sparse.csr_matrix((np.ones(40), edges.T), shape=(22, 22))
    found = rt.GraphNegativeMiner(matrix).mine(embeddings, 3)
    np.testing.assert_array_equal(found, rt.GraphNegativeMiner(edges).mine(embeddings, 3))
    assert (found[20:] == -1).all()


def test_mine__ties_go_to_the_lower_index():
    star = np.array([[0, i] for i in range(1, 9)])
    found = rt.GraphNegativeMiner(star).mine(np.ones((9, 2)), 3)
    np.testing.assert_array_equal(found[[5, 1]], [[1, 2, 3], [2, 3, 4]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rt.GraphNegativeMiner(np.ones((3, 2))), TypeError, "graph must be integers"),
        (lambda: rt.GraphNegativeMiner(np.array([[0, -1]])), ValueError, "graph must lie in"),
        (lambda: rt.GraphNegativeMiner(np.array([[0, 1]]), 3, 2), ValueError, r"max_hops must be in \[3, "),
        (lambda: rt.GraphNegativeMiner(np.array([[0, 4]])).mine(np.ones((3, 2)), 1), ValueError, "each of 5 nodes"),
        (
            lambda: rt.GraphNegativeMiner(np.array([[0, 1]])).mine(np.ones((3, 2)), 0),
            ValueError,
            r"k must be in \[1, 1000000\], got 0",
        ),
        (lambda: rt.GraphNegativeMiner(np.array([[0, 1]])).mine(np.ones((3, 2)), 1, nodes=[3]), ValueError, "nodes"),
        (lambda: rt.GraphNegativeMiner(np.array([[0, 1]])).mine(np.full((3, 2), np.inf), 1), ValueError, "finite"),
    ],
)
def test_miner__refuses_bad_arguments_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
