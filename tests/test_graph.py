"""Graph: what it counts as edges, what it refuses, and that every function takes it in place of its edges."""

import copy
import pickle

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

import rvtrain as rt

EDGES = np.array([[3, 1], [0, 1], [1, 0], [2, 2], [1, 3], [0, 3]])
WRT = ("embeddings", "edge_weights")


def case(nodes, listings, rng, dtype=np.float64, dim=5):
    """Embeddings, edges with repeats and loops among them, and weights."""
    edges = rng.integers(0, nodes, size=(listings, 2))
    edges[listings // 2 :: 3] = edges[: len(edges[listings // 2 :: 3]), ::-1]
    return rng.normal(size=(nodes, dim)).astype(dtype), edges, rng.random(listings).astype(dtype)


def both_forms(z, graph, *weights):
    """The bits of values and gradients of both forms of the spectral loss."""
    found = []
    for normalized in (True, False):
        value, gradients = rt.SpectralRegularization(0.1, normalized).compute_with_gradients(
            z, graph, *weights, wrt=WRT
        )
        found += [np.float64(value).tobytes(), *(g.tobytes() for g in gradients)]
    return found


# --- The graph itself ----------------------------------------------------------------------------------


def test_graph__counts_edges_once_and_no_loops():
    graph = rt.Graph(EDGES)
    assert (graph.n_nodes, graph.n_edges) == (4, 3)
    np.testing.assert_array_equal(graph.degrees, [2, 2, 0, 2])
    np.testing.assert_array_equal(graph.edges, EDGES)
    assert repr(graph) == "Graph(4 nodes, 3 edges)"
    assert repr(rt.Graph(EDGES, 9, np.ones(6))) == "Graph(9 nodes, 3 edges, weighted)"


def test_graph__has_the_mean_weight_of_repeated_edges():
    graph = rt.Graph(EDGES, 5, np.array([1.0, 2.0, 4.0, 9.0, 2.0, 0.0], np.float32))
    np.testing.assert_array_equal(graph.degrees, [3, 4.5, 0, 1.5, 0])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=40), st.booleans())
def test_graph__degrees_match_the_dense_laplacian(nodes, pairs, weighted):
    edges = np.array(pairs, np.int64).reshape(-1, 2) % nodes
    weights = np.arange(1.0, len(edges) + 1) if weighted else np.ones(len(edges))
    graph = rt.Graph(edges, nodes, weights if weighted else None)
    laplacian = reference.graph_laplacian(nodes, edges, weights, False)
    np.testing.assert_allclose(graph.degrees, np.diag(laplacian), rtol=1e-14)
    assert graph.n_edges == np.count_nonzero(np.triu(laplacian, 1))
    z = np.cos(np.arange(2.0 * nodes)).reshape(nodes, 2)
    value, gradient = rt.SpectralRegularization(0.5, False).compute_with_gradients(z, graph)
    assert value == pytest.approx(0.5 * np.trace(z.T @ laplacian @ z), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(gradient, laplacian @ z, rtol=1e-12, atol=1e-10)


def test_graph__does_not_see_later_changes_of_its_arrays(rng):
    z, edges, weights = case(20, 60, rng)
    graph, expected = rt.Graph(edges, 20, weights), both_forms(z, edges, weights)
    edges[:], weights[:] = 0, 7.0
    assert both_forms(z, graph) == expected
    graph.degrees[:] = 0
    graph.edges[:] = 0
    assert both_forms(z, graph) == expected


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda graph: pickle.loads(pickle.dumps(graph))])
def test_graph__can_be_copied_and_pickled(copied, rng):
    z, edges, weights = case(20, 60, rng)
    graph = rt.Graph(edges, 20, weights)
    assert both_forms(z, copied(graph)) == both_forms(z, graph)
    assert repr(copied(graph)) == repr(graph)


def test_graph__from_any_integers_and_memory_order(rng):
    z, edges, _ = case(20, 60, rng)
    expected = both_forms(z, edges)
    for same in (
        edges.astype(np.uint8),
        edges.astype(np.int32),
        np.asfortranarray(edges),
        np.repeat(edges, 2, 1)[:, ::2],
    ):
        assert both_forms(z, rt.Graph(same, 20)) == expected
    assert both_forms(z, rt.Graph(edges.tolist(), 20)) == expected


def test_graph__without_edges(dtype):
    graph = rt.Graph(np.empty((0, 2), int), 3, np.empty(0))
    assert (graph.n_nodes, graph.n_edges) == (3, 0)
    value, gradient = rt.SpectralRegularization().compute_with_gradients(np.ones((3, 2), dtype), graph)
    assert value == 0.0
    assert not gradient.any() and gradient.dtype == dtype
    assert rt.Graph(np.empty((0, 2), int)).n_nodes == 0


@pytest.mark.parametrize("form", ["csr_array", "coo_matrix"])
def test_graph__from_a_sparse_matrix(form, rng):
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.triu(rng.random((9, 9)) * (rng.random((9, 9)) < 0.4), 1)
    dense += dense.T
    graph = rt.Graph(getattr(sparse, form)(dense))
    assert (graph.n_nodes, graph.n_edges) == (9, np.count_nonzero(dense) // 2)
    np.testing.assert_allclose(graph.degrees, dense.sum(axis=0), rtol=1e-14)
    z = rng.normal(size=(9, 3))
    assert both_forms(z, graph) == both_forms(z, getattr(sparse, form)(dense))
    with pytest.raises(ValueError, match=r"edges must have shape \(8, 8\)"):
        rt.Graph(getattr(sparse, form)(dense), 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((EDGES.astype(float),), TypeError, "edges must be integers"),
        ((EDGES.ravel(),), ValueError, r"edges must have shape \(any, 2\)"),
        ((EDGES - 1,), ValueError, r"edges must lie in \[0, 2147483646\], got -1"),
        ((EDGES, 3), ValueError, r"edges must lie in \[0, 2\], got 3"),
        ((EDGES, 0), ValueError, "n_nodes must be in"),
        ((EDGES, 2.5), TypeError, "n_nodes must be an integer"),
        ((EDGES, 4, np.ones(3)), ValueError, r"weights must have shape \(6,\), got \(3,\)"),
        ((EDGES, 4, np.ones(6, int)), TypeError, "weights must be float32 or float64"),
        ((EDGES, 4, -np.ones(6)), ValueError, r"weights must not be negative, got -1.0 at \[0\]"),
        ((EDGES, 4, np.full(6, np.nan)), ValueError, r"weights must be finite, got nan at \[0\]"),
    ],
)
def test_graph__refuses_bad_arguments_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        rt.Graph(*arguments)


# --- In place of edges ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 1), (50, 400), (3000, 9000)], ids=str)
def test_spectral__takes_a_graph(shape, dtype, threads, rng):
    z, edges, weights = case(*shape, rng, dtype, dim=37)
    graph = rt.Graph(edges, shape[0])
    assert both_forms(z, graph) == both_forms(z, edges)
    assert both_forms(z, graph, weights) == both_forms(z, edges, weights)  # weights beside it replace its own
    value = rt.SpectralRegularization(0.1).compute(z, rt.Graph(edges, shape[0], weights), weights[::-1])
    assert value == rt.SpectralRegularization(0.1).compute(z, edges, weights[::-1])


def test_spectral__same_bits_from_one_thread_and_two(dtype, rng):
    numba = pytest.importorskip("numba")
    z, edges, weights = case(3000, 20_000, rng, dtype, dim=33)
    before, found = numba.get_num_threads(), []
    try:
        for count in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(count)
            found += [both_forms(z, rt.Graph(edges, 3000, weights))]
    finally:
        numba.set_num_threads(before)
    assert found[0] == found[-1]


@pytest.mark.parametrize("dim", [1, 2, 7, 8, 31, 32, 100, 768])
def test_spectral__of_any_dim(dim, dtype, rng):
    z, edges, weights = case(23, 70, rng, dtype, dim)
    for normalized in (True, False):
        value, gradient = rt.SpectralRegularization(0.1, normalized).compute_with_gradients(
            z, rt.Graph(edges, 23, weights)
        )
        laplacian = reference.graph_laplacian(23, edges, weights, normalized)
        assert relative_error(gradient, 0.2 * laplacian @ z.astype(np.float64)) < TOLERANCE[dtype]
        assert relative_error(value, reference.spectral(z, edges, weights, 0.1, normalized)) < TOLERANCE[dtype]


@pytest.mark.parametrize(("length", "weight"), [(1e25, 1.0), (1e-25, 1.0), (1.0, 1e-42), (1e-3, 1e45), (1e-9, 1e10)])
def test_spectral__beyond_the_squares_that_float32_holds(length, weight, rng):
    z, edges, _ = case(20, 60, rng, np.float32)
    z *= np.float32(length)
    weights = np.full(60, weight)
    value, gradient = rt.SpectralRegularization(0.5, False).compute_with_gradients(z, rt.Graph(edges, 20, weights))
    laplacian = reference.graph_laplacian(20, edges, weights, False)
    assert gradient.dtype == np.float32
    assert value == pytest.approx(reference.spectral(z, edges, weights, 0.5, False), rel=1e-5)
    expected = laplacian @ z.astype(np.float64)
    if np.abs(expected).max() < 1e38:
        assert relative_error(gradient, expected) < 1e-4


def test_spectral__names_a_value_that_is_not_finite_at_any_node(dtype):
    for row in (0, 2):  # with and without edges
        z = np.ones((4, 3), dtype)
        z[row, 1] = np.inf
        with pytest.raises(ValueError, match=rf"embeddings must be finite, got inf at \[{row}, 1\]"):
            rt.SpectralRegularization().compute(z, rt.Graph(EDGES))


@pytest.mark.parametrize("form", ["pairwise", "triplet"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_local_contrastive__takes_graphs(form, reduction, dtype, rng):
    z, edges, _ = case(30, 90, rng, dtype)
    negatives = rng.integers(0, 30, (70, 2))
    loss = rt.LocalContrastiveLoss(2.0, reduction, form)
    expected = loss.compute_graph_with_gradients(z, edges, negatives)
    for near in (edges, rt.Graph(edges, 30)):
        for far in (negatives, rt.Graph(negatives, 30)):
            value, gradient = loss.compute_graph_with_gradients(z, near, far)
            np.testing.assert_array_equal(value, expected[0])
            np.testing.assert_array_equal(gradient, expected[1])


def test_miner_and_trainer__take_a_graph(rng):
    z, edges, _ = case(30, 60, rng)
    graph = rt.Graph(edges, 30)
    expected = rt.GraphNegativeMiner(edges).mine(z, 4)
    np.testing.assert_array_equal(rt.GraphNegativeMiner(graph).mine(z, 4), expected)
    tables = []
    for given_edges in (edges, graph):
        model = rt.EmbeddingTable(30, 8, seed=0)
        rt.Trainer(model, epochs=2, batch_size=16, progress=False).fit_graph(given_edges)
        tables.append(model.weight)
    np.testing.assert_array_equal(*tables)


def test_losses__refuse_a_graph_of_other_nodes():
    with pytest.raises(ValueError, match=r"graph must have 3 nodes, one per embedding, got Graph\(4 nodes"):
        rt.SpectralRegularization().compute(np.ones((3, 2)), rt.Graph(EDGES))
    with pytest.raises(ValueError, match="edges must have 5 nodes"):
        rt.LocalContrastiveLoss().compute_graph(np.ones((5, 2)), rt.Graph(EDGES))
