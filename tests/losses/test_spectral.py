"""SpectralRegularization against a dense Laplacian, scipy.sparse.csgraph, torch autograd and differences."""

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, import_torch, relative_error

from rvtrain.losses._spectral import WRT, SpectralRegularization

LAMBDA = 0.05
SHAPES = [(1, 1, 0), (2, 3, 1), (7, 5, 13), (101, 31, 400), (17, 768, 60), (500, 64, 3000)]
SHAPES += [(19, 255, 90)]  # all numbers of vectors, and all widths


@pytest.fixture(params=[True, False], ids=["normalized", "plain"])
def normalized(request):
    return request.param


def make_case(nodes, dim, listings, dtype, rng):
    """Embeddings, edges with repeats, both directions and self-loops among them, and weights."""
    z = rng.normal(size=(nodes, dim)).astype(dtype)
    edges = rng.integers(0, nodes, size=(listings, 2))
    edges[listings // 2 :: 3] = edges[: len(edges[listings // 2 :: 3]), ::-1]
    return z, edges, rng.random(listings).astype(dtype)


def simple_case(nodes, dim, rng):
    """The same without repeats and self-loops."""
    z, edges, _ = make_case(nodes, dim, 4 * nodes, np.float64, rng)
    edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
    return z, edges, rng.random(len(edges))


# --- Values and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compute__and_gradient_match_the_dense_laplacian(shape, normalized, dtype, threads, rng):
    z, edges, weights = make_case(*shape, dtype, rng)
    loss = SpectralRegularization(LAMBDA, normalized)
    value, gradient = loss.compute_with_gradients(z, edges, weights)
    assert isinstance(value, float)
    assert value == loss.compute(z, edges, weights)
    assert gradient.dtype == dtype
    laplacian = reference.graph_laplacian(len(z), edges, weights, normalized)
    expected = reference.spectral(z, edges, weights, LAMBDA, normalized)
    assert relative_error(value, expected) < TOLERANCE[dtype]
    assert relative_error(gradient, 2 * LAMBDA * laplacian @ z.astype(np.float64)) < TOLERANCE[dtype]


@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array", "dia_array"])
def test_compute__agrees_with_csgraph(form, normalized, dtype, rng):
    sparse = pytest.importorskip("scipy.sparse")
    z, edges, weights = simple_case(41, 7, rng)
    z = z.astype(dtype)
    dense = np.zeros((41, 41))
    dense[edges[:, 0], edges[:, 1]] = dense[edges[:, 1], edges[:, 0]] = weights
    np.fill_diagonal(dense, 0.5)
    dense[9] = dense[:, 9] = 0  # isolated
    graph = getattr(sparse, form)(dense)
    laplacian = sparse.csgraph.laplacian(dense, normed=normalized)
    exact = z.astype(np.float64)
    value, gradient = SpectralRegularization(LAMBDA, normalized).compute_with_gradients(z, graph)
    assert relative_error(value, LAMBDA * np.trace(exact.T @ laplacian @ exact)) < TOLERANCE[dtype]
    assert gradient.dtype == dtype
    assert relative_error(gradient, 2 * LAMBDA * laplacian @ exact) < TOLERANCE[dtype]
    assert not gradient[9].any()


def test_gradients__match_central_differences(normalized, rng):
    z, edges, weights = make_case(6, 3, 15, np.float64, rng)
    loss = SpectralRegularization(LAMBDA, normalized)
    _, (to_z, to_weights) = loss.compute_with_gradients(z, edges, weights, wrt=WRT)
    expected = reference.central_differences(lambda x: loss.compute(x, edges, weights), z)
    assert relative_error(to_z, expected) < 1e-7
    expected = reference.central_differences(lambda x: loss.compute(z, edges, x), weights)
    assert relative_error(to_weights, expected) < 1e-7
    assert not to_weights[edges[:, 0] == edges[:, 1]].any()


@pytest.mark.parametrize("noise", [1.0, 1e-3], ids=["rough", "smooth"])
def test_gradients__match_torch_autograd_through_the_degrees(noise, normalized, dtype, rng):
    torch = import_torch()
    z, edges, weights = simple_case(101, 31, rng)
    weights = weights.astype(dtype)
    degrees = np.bincount(edges.ravel(), np.repeat(weights, 2), 101)
    z = (np.sqrt(degrees)[:, None] * rng.normal(size=31) + noise * z).astype(dtype)
    value, (to_z, to_weights) = SpectralRegularization(LAMBDA, normalized).compute_with_gradients(
        z, edges, weights, wrt=WRT
    )
    t_z = torch.tensor(z.astype(np.float64), requires_grad=True)
    t_weights = torch.tensor(weights.astype(np.float64), requires_grad=True)
    first, second = torch.tensor(edges).T
    rows = t_z
    if normalized:
        t_degrees = torch.zeros(101, dtype=torch.float64)
        t_degrees = t_degrees.index_add(0, first, t_weights).index_add(0, second, t_weights)
        rows = t_z / torch.where(t_degrees > 0, t_degrees, 1.0).sqrt()[:, None]
    expected = LAMBDA * (t_weights * ((rows[first] - rows[second]) ** 2).sum(1)).sum()
    expected.backward()
    assert relative_error(value, expected.item()) < TOLERANCE[dtype]
    assert relative_error(to_z, t_z.grad.numpy()) < TOLERANCE[dtype]
    assert to_weights.dtype == dtype
    assert relative_error(to_weights, t_weights.grad.numpy()) < TOLERANCE[dtype]


def test_gradients__each_alone_equals_both_together(normalized, rng):
    case = make_case(20, 5, 60, np.float64, rng)
    loss = SpectralRegularization(LAMBDA, normalized)
    value, (weights, embeddings) = loss.compute_with_gradients(*case, wrt=WRT[::-1])
    for name, together in (("embeddings", embeddings), ("edge_weights", weights)):
        alone_value, alone = loss.compute_with_gradients(*case, wrt=name)
        assert alone_value == value
        np.testing.assert_array_equal(alone, together)


def test_gradients__to_weights_that_were_not_given(rng):
    z, edges, _ = make_case(9, 4, 20, np.float32, rng)
    loss = SpectralRegularization(LAMBDA)
    _, gradient = loss.compute_with_gradients(z, edges, wrt="edge_weights")
    _, expected = loss.compute_with_gradients(z, edges, np.ones(20, np.float32), wrt="edge_weights")
    np.testing.assert_array_equal(gradient, expected)


# --- What counts as an edge ----------------------------------------------------------------------------


def test_edges__in_both_directions_count_once(normalized, rng):
    z, edges, weights = simple_case(30, 4, rng)
    loss = SpectralRegularization(LAMBDA, normalized)
    value, (to_z, to_weights) = loss.compute_with_gradients(z, edges, weights, wrt=WRT)
    both = np.concatenate([edges, edges[:, ::-1]]), np.tile(weights, 2)
    twice, (to_z2, to_weights2) = loss.compute_with_gradients(z, *both, wrt=WRT)
    assert twice == pytest.approx(value, rel=1e-14)
    assert relative_error(to_z2, to_z) < 1e-13
    assert relative_error(to_weights2, np.tile(to_weights, 2) / 2) < 1e-12


def test_edges__listed_with_different_weights_count_with_their_mean(normalized, rng):
    z = rng.normal(size=(3, 2))
    loss = SpectralRegularization(LAMBDA, normalized)
    listed = loss.compute(z, [[0, 1], [1, 0], [0, 1], [1, 2]], np.array([0.2, 0.3, 0.7, 1.0]))
    assert listed == pytest.approx(loss.compute(z, [[0, 1], [1, 2]], np.array([0.4, 1.0])), rel=1e-14)


def test_edges__to_oneself_change_nothing(normalized, rng):
    z = rng.normal(size=(4, 2))
    loss = SpectralRegularization(LAMBDA, normalized)
    assert loss.compute(z, [[0, 1], [1, 1], [2, 2]]) == loss.compute(z, [[0, 1]])


def test_sparse_graph__weights_given_beside_it_replace_its_data(rng):
    sparse = pytest.importorskip("scipy.sparse")
    z, edges, weights = simple_case(12, 3, rng)
    ones = sparse.coo_array((np.ones(len(edges), np.int8), edges.T), shape=(12, 12))
    loss = SpectralRegularization(LAMBDA)
    assert loss.compute(z, ones) == loss.compute(z, edges)
    assert loss.compute(z, ones, weights) == loss.compute(z, edges, weights)
    _, gradient = loss.compute_with_gradients(z, ones, weights, wrt="edge_weights")
    assert gradient.shape == weights.shape


# --- Edge values ---------------------------------------------------------------------------------------


def test_compute__accepts_a_graph_without_edges(normalized, dtype):
    z = np.ones((3, 2), dtype)
    value, (to_z, to_weights) = SpectralRegularization(LAMBDA, normalized).compute_with_gradients(
        z, np.empty((0, 2), int), np.empty(0, dtype), wrt=WRT
    )
    assert value == 0.0
    assert to_z.shape == (3, 2) and to_z.dtype == dtype and not to_z.any()
    assert to_weights.shape == (0,)


def test_compute__weights_of_zero_isolate_a_node(normalized, rng):
    z = rng.normal(size=(3, 2))
    loss = SpectralRegularization(LAMBDA, normalized)
    weights = np.array([1.0, 0.0])
    value, (to_z, to_weights) = loss.compute_with_gradients(z, [[0, 1], [1, 2]], weights, wrt=WRT)
    assert value == loss.compute(z, [[0, 1]])
    assert not to_z[2].any()
    assert np.isfinite(to_weights).all()


def test_compute__without_weight_is_zero(rng):
    value, gradient = SpectralRegularization(0.0).compute_with_gradients(rng.normal(size=(3, 2)), [[0, 1]])
    assert value == 0.0
    assert not gradient.any()


def test_gradients__of_a_hub_with_thousands_of_neighbours(dtype, rng):
    z = (100 + rng.normal(size=(5001, 3))).astype(dtype)
    star = np.stack([np.zeros(5000, int), np.arange(1, 5001)], axis=1)
    _, gradient = SpectralRegularization(LAMBDA, normalized=False).compute_with_gradients(z, star)
    exact = z.astype(np.float64)
    expected = 2 * LAMBDA * (exact[:1] - exact[1:]).sum(axis=0)
    assert relative_error(gradient[0], expected) < TOLERANCE[dtype]


def test_compute__takes_strided_mixed_and_foreign_arrays(rng):
    torch = import_torch()
    z, edges, weights = simple_case(24, 10, rng)
    edges, weights = edges[: len(edges) // 2], weights[: len(edges) // 2]
    loss = SpectralRegularization(LAMBDA)
    expected = loss.compute(np.ascontiguousarray(z[:, ::3]), edges, weights)
    assert loss.compute(z[:, ::3], np.asfortranarray(edges), np.repeat(weights, 2)[::2]) == expected
    tensors = torch.tensor(z[:, ::3]), torch.tensor(edges), torch.tensor(weights)
    assert loss.compute(*tensors) == expected
    _, gradient = loss.compute_with_gradients(z.astype(np.float32), edges, weights)
    assert gradient.dtype == np.float64


def test_compute__leaves_its_inputs_alone(rng):
    case = make_case(9, 4, 20, np.float64, rng)
    for x in case:
        x.flags.writeable = False
    SpectralRegularization().compute_with_gradients(*case, wrt=WRT)


# --- Errors --------------------------------------------------------------------------------------------

Z = np.ones((3, 4))
EDGES = np.array([[0, 1], [1, 2]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Z.astype(np.float16), EDGES), TypeError, "embeddings must be float32 or float64"),
        ((Z[0], EDGES), ValueError, "embeddings must have 2 dimension"),
        ((Z[:0], EDGES), ValueError, "embeddings must not be empty"),
        ((Z * np.nan, EDGES), ValueError, r"embeddings must be finite, got nan at \[0, 0\]"),
        ((Z, EDGES.astype(float)), TypeError, "graph must be integers"),
        ((Z, EDGES.T.ravel()), ValueError, r"graph must have shape \(any, 2\)"),
        ((np.diag([1e200, 1e200, 1.0]), EDGES), ValueError, "embeddings must be within 1e150 of each other"),
        ((Z, EDGES + 1), ValueError, r"graph must lie in \[0, 2\], got 3"),
        ((Z, EDGES - 1), ValueError, r"graph must lie in \[0, 2\], got -1"),
        ((Z, EDGES, np.ones(3)), ValueError, r"edge_weights must have shape \(2,\), got \(3,\)"),
        ((Z, EDGES, np.ones(2, int)), TypeError, "edge_weights must be float32 or float64"),
        (
            (Z, EDGES, np.array([1.0, -0.5])),
            ValueError,
            r"edge_weights must not be negative, got -0.5 at \[1\]",
        ),
        ((Z, EDGES, np.array([1.0, np.inf])), ValueError, r"edge_weights must be finite, got inf at \[1\]"),
    ],
)
def test_compute__refuses_bad_arguments_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        SpectralRegularization().compute(*arguments)


def test_compute__refuses_bad_sparse_graphs():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(ValueError, match=r"graph must have shape \(3, 3\).*got \(4, 4\)"):
        SpectralRegularization().compute(Z, sparse.eye_array(4))
    with pytest.raises(ValueError, match="graph data must not be negative"):
        SpectralRegularization().compute(Z, sparse.csr_array(-np.ones((3, 3))))
    with pytest.raises(TypeError, match="graph data must be real"):
        SpectralRegularization().compute(Z, sparse.csr_array(1j * np.ones((3, 3))))


@pytest.mark.parametrize("wrt", ["weights", (), ("embeddings", "embeddings"), None])
def test_compute_with_gradients__refuses_an_unknown_wrt(wrt):
    with pytest.raises(ValueError, match="wrt"):
        SpectralRegularization().compute_with_gradients(Z, EDGES, wrt=wrt)


def test_constructor__refuses_bad_values():
    for weight in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="weight"):
            SpectralRegularization(weight)
    with pytest.raises(TypeError, match="weight"):
        SpectralRegularization(True)
    with pytest.raises(TypeError, match="normalized"):
        SpectralRegularization(0.1, normalized=1)
