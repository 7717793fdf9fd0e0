"""SupConLoss: references, and what is its own; the rest is in test_labelled.py."""

import numba
import numpy as np
import pytest
import reference
import reference_losses
from conftest import TOLERANCE, import_torch, relative_error
from loss_cases import check_difference, check_gradient

import rvtrain as rt


def make_case(n, m, dim, dtype, rng, classes=4):
    """Two labelled sets; some labels of each are not in the other."""
    return (
        rng.normal(size=(n, dim)).astype(dtype),
        rng.integers(0, classes, n),
        rng.normal(size=(m, dim)).astype(dtype),
        rng.integers(1, classes + 1, m),
    )


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 8, 4), (70, 3, 9), (17, 101, 31), (130, 70, 130)], ids=str)
@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_references__match_oracle_and_torch(shape, temperature, dtype, rng):
    torch = import_torch()
    x, labels, y, others = case = make_case(*shape, dtype, rng)
    losses, counted = reference_losses.supcon(*case, temperature=temperature)
    values = rt.SupConLoss(temperature, "none").compute(*case)
    check_difference(values, losses, dtype)
    value, gradients = rt.SupConLoss(temperature).compute_with_gradients(*case, wrt=("embeddings", "references"))
    check_difference(value, reference_losses.reduced(losses, counted=counted), dtype)

    tensors = [torch.tensor(z.astype(np.float64), requires_grad=True) for z in (x, y)]
    a, b = (torch.nn.functional.normalize(z, dim=-1, eps=1e-8) for z in tensors)
    s, same = a @ b.T / temperature, torch.tensor(labels[:, None] == others)
    some = same.sum(1)
    rows = torch.where(some > 0, s.logsumexp(1) - torch.where(same, s, 0.0).sum(1) / some.clamp(min=1), 0.0)
    (rows.sum() / max(counted.sum(), 1)).backward()
    for name, gradient, tensor in zip(("embeddings", "references"), gradients, tensors, strict=True):
        if shape == (1, 1, 3):  # one score, one positive
            assert np.abs(gradient).max() < 1e-5
        else:
            check_gradient(
                name, gradient, tensor.grad.numpy(), dtype, TOLERANCE[dtype] * max(1.0, 0.05 / temperature)
            )


def test_references__gradients_match_central_differences(rng):
    x, labels, y, others = case = make_case(5, 7, 3, np.float64, rng, classes=2)
    loss = rt.SupConLoss(0.3, "sum")
    _, (to_x, to_y) = loss.compute_with_gradients(*case, wrt=("embeddings", "references"))

    def oracle(a, b):
        return reference_losses.supcon(a, labels, b, others, 0.3)[0].sum()

    assert relative_error(to_x, reference.central_differences(lambda z: oracle(z, y), x)) < 1e-6
    assert relative_error(to_y, reference.central_differences(lambda z: oracle(x, z), y)) < 1e-6
    np.testing.assert_array_equal(loss.compute_with_gradients(*case, wrt="references")[1], to_y)
    np.testing.assert_array_equal(loss.compute_with_gradients(*case)[1], to_x)


def test_references__of_the_embeddings_themselves_leave_nothing_out(dtype, rng):
    x, labels = make_case(9, 1, 5, dtype, rng)[:2]
    losses, counted = reference_losses.supcon(x, labels, x, labels, 0.1)
    assert counted.all()
    assert relative_error(rt.SupConLoss(0.1, "none").compute(x, labels, x, labels), losses) < TOLERANCE[dtype]


def test_references__of_mixed_types_are_promoted(rng):
    x, labels, y, others = make_case(5, 7, 3, np.float64, rng)
    loss = rt.SupConLoss(0.3)
    _, gradients = loss.compute_with_gradients(
        x.astype(np.float32), labels, y, others, wrt=("embeddings", "references")
    )
    assert [g.dtype for g in gradients] == [np.float64, np.float64]
    assert loss.compute(x, labels, y.astype(np.float32), others) == pytest.approx(
        loss.compute(x, labels, y, others), rel=1e-5
    )


def test_references__same_bits_for_any_number_of_threads(dtype, rng):
    case = make_case(331, 203, 33, dtype, rng, classes=20)
    before, results = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            value, gradients = rt.SupConLoss().compute_with_gradients(*case, wrt=("embeddings", "references"))
            results.append(b"".join(np.asarray(z).tobytes() for z in (value, *gradients)))
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


def test_mean__leaves_out_rows_without_a_positive(dtype, rng):
    x = rng.normal(size=(6, 4)).astype(dtype)
    labels = np.array([0, 0, 1, 2, 2, 3])
    values = rt.SupConLoss(0.2, "none").compute(x, labels)
    assert values[2] == values[5] == 0.0
    mean, gradient = rt.SupConLoss(0.2).compute_with_gradients(x, labels)
    assert mean == pytest.approx(values.sum(dtype=np.float64) / 4, rel=1e-6)
    assert gradient[2].any()  # a negative of the others


def test_two_views__are_ntxent(dtype, rng):
    """With two rows a label, the loss is InfoNCE over all directions, the positive among the columns."""
    a, p = rng.normal(size=(2, 9, 5)).astype(dtype)
    value = rt.SupConLoss(0.2).compute(np.concatenate([a, p]), np.tile(np.arange(9), 2))
    one, other = (
        rt.InfoNCELoss(0.2, directions=("query_to_document", "query_to_query")).compute(*x) for x in ((a, p), (p, a))
    )
    assert relative_error(value, (one + other) / 2) < TOLERANCE[dtype]


def test_temperature__may_be_tiny(dtype, rng):
    x, labels = make_case(40, 1, 7, dtype, rng)[:2]
    values, gradient = rt.SupConLoss(1e-3, "none").compute_with_gradients(x, labels)
    assert relative_error(values, reference_losses.supcon(x, labels, temperature=1e-3)[0]) < TOLERANCE[dtype]
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_temperature__must_be_positive(temperature):
    loss = rt.SupConLoss()
    with pytest.raises(ValueError, match="temperature"):
        loss.temperature = temperature
    assert loss.temperature == 0.1


A, L = np.ones((3, 4)), [0, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "wrt", "message"),
    [
        ((A, L, A), "embeddings", "got reference_labels=None"),
        ((A, L, None, L), "embeddings", "got references=None"),
        ((A, L, A[:, :3], L), "embeddings", "references must have 4 columns like embeddings"),
        ((A, L, A[:0], []), "embeddings", "references must not be empty"),
        ((A, L, A * np.inf, L), "embeddings", "references must be finite"),
        ((A, L, A, L[:2]), "embeddings", "reference_labels must have shape"),
        ((A, L), "references", "wrt names references"),
        ((A, L), ("embeddings", "references"), "wrt names references"),
    ],
)
def test_calls__refuse_bad_arguments_by_name(arguments, wrt, message):
    with pytest.raises(ValueError, match=message):
        rt.SupConLoss().compute_with_gradients(*arguments, wrt=wrt)
