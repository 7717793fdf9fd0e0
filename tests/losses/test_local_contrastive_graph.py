"""LocalContrastiveLoss over edge lists, against the same references as over batches."""

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, import_torch, relative_error

from rvtrain.losses._local_contrastive import WRT, LocalContrastiveLoss

A = np.ones((3, 4))
NAN = np.full((3, 4), np.nan)
E = np.array([[0, 1], [1, 2]])


@pytest.fixture(params=["pairwise", "triplet"])
def form(request):
    return request.param


def make_edges(nodes, dim, edges, negatives, dtype, rng):
    z = (rng.normal(size=(nodes, dim)) / np.sqrt(2 * dim)).astype(dtype)
    return z, rng.integers(0, nodes, size=(edges, 2)), rng.integers(0, nodes, size=(negatives, 2))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (7, 5, 9, 4), (101, 31, 300, 407), (17, 768, 40, 90)], ids=str)
def test_compute_graph__matches_the_oracle(shape, form, dtype, threads, rng):
    z, edges, negatives = make_edges(*shape, dtype, rng)
    near, far = reference.local_contrastive_edges(z, edges, negatives, 1.0, form)
    values = LocalContrastiveLoss(1.0, "none", form).compute_graph(z, edges, negatives)
    assert values.dtype == dtype
    assert relative_error(values, np.concatenate([near, far])) < TOLERANCE[dtype]
    total = LocalContrastiveLoss(1.0, "sum", form).compute_graph(z, edges, negatives)
    assert relative_error(total, near.sum() + far.sum()) < TOLERANCE[dtype]
    mean = LocalContrastiveLoss(1.0, "mean", form).compute_graph(z, edges, negatives)
    assert relative_error(mean, near.mean() + (far.mean() if len(far) else 0.0)) < TOLERANCE[dtype]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_compute_graph__gradient_matches_torch_autograd(reduction, form, dtype, threads, rng):
    torch = import_torch()
    z, edges, negatives = make_edges(101, 31, 300, 407, dtype, rng)
    edges, negatives = (e[e[:, 0] != e[:, 1]] for e in (edges, negatives))  # torch has NaN at distance 0
    loss = LocalContrastiveLoss(1.0, reduction, form)
    value, gradient = loss.compute_graph_with_gradients(z, edges, negatives)
    t = torch.tensor(z.astype(np.float64), requires_grad=True)
    near = (t[edges[:, 0]] - t[edges[:, 1]]).norm(dim=1)
    far = (t[negatives[:, 0]] - t[negatives[:, 1]]).norm(dim=1)
    if form == "pairwise":
        parts = [near**2, (1 - far).clamp(min=0) ** 2]
    else:
        same = torch.tensor(edges[:, :1] == negatives[:, 0]).double()
        hinges = (near[:, None] - far[None] + 1).clamp(min=0) * same
        parts = [hinges.sum(1) / same.sum(1).clamp(min=1)]
    expected = sum(part.mean() if reduction == "mean" else part.sum() for part in parts)
    expected.backward()
    np.testing.assert_array_equal(value, loss.compute_graph(z, edges, negatives))
    assert gradient.dtype == dtype
    assert relative_error(gradient, t.grad.numpy()) < TOLERANCE[dtype]


def test_compute_graph__gradient_matches_central_differences(form, rng):
    z, edges, negatives = make_edges(7, 3, 12, 14, np.float64, rng)
    loss = LocalContrastiveLoss(1.2, form=form)
    _, gradient = loss.compute_graph_with_gradients(z, edges, negatives)
    expected = reference.central_differences(lambda x: loss.compute_graph(x, edges, negatives), z)
    assert relative_error(gradient, expected) < 1e-7


def test_compute_graph__agrees_with_the_batch_form(form, rng):
    a, p, n = (rng.normal(size=(6, 4)) / 3 for _ in range(3))
    edges = np.stack([np.arange(6), np.arange(6, 12)], axis=1)
    loss = LocalContrastiveLoss(1.0, form=form)
    value, gradients = loss.compute_with_gradients(a, p, n[:, None], wrt=WRT)
    by_edges, gradient = loss.compute_graph_with_gradients(np.concatenate([a, p, n]), edges, edges + np.array([0, 6]))
    assert by_edges == pytest.approx(value, rel=1e-14)
    assert relative_error(gradient, np.concatenate([gradients[0], gradients[1], gradients[2][:, 0]])) < 1e-13


def test_compute_graph__accepts_no_negative_edges(form, dtype, rng):
    z, edges, _ = make_edges(9, 4, 12, 0, dtype, rng)
    value, gradient = LocalContrastiveLoss(1.0, form=form).compute_graph_with_gradients(
        z, edges, np.empty((0, 2), int)
    )
    if form == "triplet":
        assert value == 0.0
        assert not gradient.any()
    else:
        assert value == LocalContrastiveLoss(1.0).compute_graph(z, edges) > 0


def test_compute_graph__equal_rows_have_no_gradient(form, dtype):
    value, gradient = LocalContrastiveLoss(1.5, form=form).compute_graph_with_gradients(
        np.ones((4, 3), dtype), [[0, 1], [2, 2]], [[0, 2], [2, 3]]
    )
    assert value == (2.25 if form == "pairwise" else 1.5)
    assert not gradient.any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((A.astype(int), E), TypeError, "embeddings must be float32 or float64"),
        ((A[0], E), ValueError, "embeddings must have 2 dimension"),
        ((NAN, E), ValueError, "embeddings must be finite"),
        ((A, E[:0]), ValueError, r"edges must not be empty, got shape \(0, 2\)"),
        ((A, E.astype(float)), TypeError, "edges must be integers"),
        ((A, E[0]), ValueError, r"edges must have shape \(any, 2\)"),
        ((A, E + 1), ValueError, r"edges must lie in \[0, 2\], got 3"),
        ((A, E, E - 1), ValueError, r"negative_edges must lie in \[0, 2\], got -1"),
    ],
)
def test_compute_graph__refuses_bad_arguments_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        LocalContrastiveLoss().compute_graph(*arguments)


def test_compute_graph__of_triplets_needs_negative_edges():
    with pytest.raises(ValueError, match="negative_edges must be given"):
        LocalContrastiveLoss(form="triplet").compute_graph_with_gradients(A, E)
