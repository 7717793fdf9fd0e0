"""What losses on labelled embeddings have in common: right values and gradients of all pairs."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pytest
import reference
import reference_losses
from conftest import TOLERANCE, import_torch, relative_error
from loss_cases import check_difference, check_gradient

import rvtrain as rt


@dataclass(frozen=True)
class Entry:
    """A loss, its oracle, and its formula in torch."""

    make: Callable[[str], Any]
    oracle: Callable[..., tuple[np.ndarray, np.ndarray]]
    """Of (embeddings, labels): losses of the rows, and which count in a mean"""
    torch: Callable[..., Any]
    """Of (torch, cosines (n, n), same label and another row (n, n)): losses of the rows"""


def supcon(temperature):
    def formula(torch, cosines, same):
        s = cosines / temperature
        inside = s.masked_fill(torch.eye(len(s), dtype=torch.bool), -torch.inf)
        inside = inside.logsumexp(1) if len(s) > 1 else torch.zeros(len(s), dtype=torch.float64)
        some = same.sum(1)
        mean = torch.where(same, s, 0.0).sum(1) / some.clamp(min=1)
        return torch.where(some > 0, inside - mean, 0.0)

    return Entry(
        lambda reduction: rt.SupConLoss(temperature, reduction),
        lambda x, labels: reference_losses.supcon(x, labels, temperature=temperature),
        formula,
    )


def multi_similarity(alpha, beta, base):
    def formula(torch, cosines, same):
        c, zero = cosines - base, torch.zeros((len(cosines), 1), dtype=torch.float64)
        others = ~same & ~torch.eye(len(c), dtype=torch.bool)
        pull = torch.cat([zero, (-alpha * c).masked_fill(~same, -torch.inf)], 1).logsumexp(1) / alpha
        return pull + torch.cat([zero, (beta * c).masked_fill(~others, -torch.inf)], 1).logsumexp(1) / beta

    def oracle(x, labels):
        losses = reference_losses.multi_similarity(x, labels, alpha, beta, base)
        return losses, np.ones(len(x), dtype=bool)

    return Entry(lambda reduction: rt.MultiSimilarityLoss(alpha, beta, base, reduction), oracle, formula)


LOSSES = {
    "SupCon": supcon(0.1),
    "SupCon, cold": supcon(0.01),
    "multi-similarity": multi_similarity(2.0, 50.0, 0.5),
    "multi-similarity, steep": multi_similarity(60.0, 300.0, 0.3),  # float32 cannot hold the exponents
}
SHAPES = [(1, 3), (2, 3), (5, 4), (70, 9), (17, 100), (101, 31)]

pytestmark = pytest.mark.parametrize("name", LOSSES)


def make_case(count, dim, dtype, rng, classes=None):
    """Embeddings near one of a few centres, and which."""
    labels = rng.integers(0, 2 + count // 4 if classes is None else classes, count)
    centres = rng.normal(size=(labels.max() + 1, dim))
    return (centres[labels] + rng.normal(size=(count, dim))).astype(dtype), labels


def torch_result(name, torch, x, labels):
    """The mean and its gradient, float64."""
    z = torch.tensor(x.astype(np.float64), requires_grad=True)
    unit = torch.nn.functional.normalize(z, dim=-1, eps=1e-8)
    same = torch.tensor(labels[:, None] == labels) & ~torch.eye(len(x), dtype=torch.bool)
    rows = LOSSES[name].torch(torch, unit @ unit.T, same)
    counted = LOSSES[name].oracle(x[:, :1], labels)[1] if len(x) < 200 else np.ones(len(x), bool)
    mean = (rows * torch.tensor(counted.astype(float))).sum() / max(counted.sum(), 1)
    mean.backward()
    return mean.item(), z.grad.numpy()


# --- Values and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values__match_the_oracle(name, shape, dtype, rng):
    x, labels = make_case(*shape, dtype, rng)
    losses, counted = LOSSES[name].oracle(x, labels)
    for reduction in ("none", "mean", "sum"):
        value = LOSSES[name].make(reduction).compute(x, labels)
        expected = reference_losses.reduced(losses, reduction, counted=counted)
        check_difference(value, expected, dtype)
        assert reduction != "none" or value.dtype == dtype


@pytest.mark.parametrize("shape", [*SHAPES, (300, 130)], ids=str)
def test_gradients__match_torch_autograd(name, shape, dtype, rng):
    torch = import_torch()
    x, labels = make_case(*shape, dtype, rng, classes=20 if shape[0] == 300 else None)
    value, gradient = LOSSES[name].make("mean").compute_with_gradients(x, labels)
    right, expected = torch_result(name, torch, x, labels)
    check_difference(value, right, dtype)
    if np.abs(expected).max() > 1e-6:
        check_gradient("embeddings", gradient, expected, dtype)
    else:  # one positive, and no negative
        assert np.abs(gradient).max() < 100 * np.finfo(dtype).eps


def test_gradients__match_central_differences_of_the_oracle(name, rng):
    x, labels = make_case(7, 3, np.float64, rng, classes=3)
    _, gradient = LOSSES[name].make("sum").compute_with_gradients(x, labels)
    expected = reference.central_differences(lambda z: LOSSES[name].oracle(z, labels)[0].sum(), x)
    assert relative_error(gradient, expected) < 1e-6


def test_gradients__of_mean_none_and_tuple(name, rng):
    x, labels = make_case(9, 4, np.float64, rng, classes=2)
    count = LOSSES[name].oracle(x, labels)[1].sum()
    _, total = LOSSES[name].make("sum").compute_with_gradients(x, labels)
    _, mean = LOSSES[name].make("mean").compute_with_gradients(x, labels)
    values, (each,) = LOSSES[name].make("none").compute_with_gradients(x, labels, wrt=("embeddings",))
    assert values.shape == (9,)
    np.testing.assert_allclose(mean * count, total, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(each, total)


# --- Edge values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 1000], ids=["all of one label", "no two of one label"])
def test_values_and_gradients__without_negatives_or_positives(name, classes, dtype, rng):
    x, _ = make_case(17, 5, dtype, rng)
    labels = np.zeros(17, int) if classes == 1 else np.arange(17)
    losses, counted = LOSSES[name].oracle(x, labels)
    value, gradient = LOSSES[name].make("mean").compute_with_gradients(x, labels)
    assert relative_error(value, reference_losses.reduced(losses, counted=counted)) < TOLERANCE[dtype]
    assert np.isfinite(gradient).all()
    if not counted.any():
        assert value == 0.0
        assert not gradient.any()


@pytest.mark.parametrize("size", [1e-20, 1e-9, 1e18])
def test_values_and_gradients__at_extreme_norms(name, size, dtype, rng):
    x, labels = make_case(9, 6, np.float64, rng, classes=3)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True) * size).astype(dtype)
    values, gradient = LOSSES[name].make("none").compute_with_gradients(x, labels)
    assert relative_error(values, LOSSES[name].oracle(x, labels)[0]) < TOLERANCE[dtype]
    assert np.isfinite(gradient).all()


def test_values_and_gradients__of_zero_vectors_and_copies(name, dtype, rng):
    x, labels = make_case(9, 6, dtype, rng, classes=3)
    x[4], x[7], labels[7] = 0, x[2], labels[2]
    values, gradient = LOSSES[name].make("none").compute_with_gradients(x, labels)
    assert relative_error(values, LOSSES[name].oracle(x, labels)[0]) < TOLERANCE[dtype]
    assert np.isfinite(gradient).all()
    slope = reference.central_differences(
        lambda row: LOSSES[name].oracle(np.vstack([x[:4], row * 1e-9, x[5:]]), labels)[0].sum(), np.zeros(6), 1e-4
    )
    assert relative_error(gradient[4] * 1e-9, slope) < max(TOLERANCE[dtype], 1e-5)


# --- Calls ---------------------------------------------------------------------------------------------


def test_labels__may_be_any_integers(name, dtype, rng):
    x, labels = make_case(30, 6, dtype, rng, classes=5)
    loss = LOSSES[name].make("none")
    expected = loss.compute(x, labels)
    for other in (labels - 3, labels * 2**40, -1 - labels * 2**50, labels.astype(np.uint8), labels.tolist()):
        np.testing.assert_array_equal(loss.compute(x, other), expected)


def test_calls__with_strided_and_read_only_inputs(name, dtype, rng):
    x, labels = make_case(24, 10, dtype, rng, classes=4)
    loss = LOSSES[name].make("mean")
    assert loss.compute(x[::2, ::3], labels[::2]) == loss.compute(x[::2, ::3].copy(), labels[::2].copy())
    assert loss.compute(np.asfortranarray(x), labels) == loss.compute(x, labels)
    before = x.copy(), labels.copy()
    x.flags.writeable = labels.flags.writeable = False
    loss.compute_with_gradients(x, labels)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_result__same_bits_for_any_number_of_threads(name, dtype, rng):
    x, labels = make_case(531, 33, dtype, rng, classes=20)
    loss, before, results = LOSSES[name].make("mean"), numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            value, gradient = loss.compute_with_gradients(x, labels)
            results.append(np.float64(value).tobytes() + gradient.tobytes())
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


def test_object__survives_pickle_deepcopy_and_its_own_text(name, rng):
    loss, (x, labels) = LOSSES[name].make("sum"), make_case(9, 4, np.float64, rng)
    for same in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss), eval(repr(loss), vars(rt))):
        assert repr(same) == repr(loss)
        assert same.compute(x, labels) == loss.compute(x, labels)


A, L = np.ones((3, 4)), [0, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((A.astype(np.float16), L), {}, TypeError, "embeddings must be float32 or float64"),
        ((A.astype(int), L), {}, TypeError, "embeddings must be float32 or float64"),
        ((A[0], L), {}, ValueError, "embeddings must have 2 dimension"),
        ((A[:0], []), {}, ValueError, "embeddings must not be empty"),
        ((A * np.nan, L), {}, ValueError, "embeddings must be finite.*row 0"),
        ((A, L[:2]), {}, ValueError, "labels must have shape"),
        ((A, [0.0, 1.0, 2.0]), {}, TypeError, "labels must be integers"),
        ((A, ["a", "b", "c"]), {}, TypeError, "labels must be integers"),
        ((A, L), {"wrt": "anchors"}, ValueError, "wrt must be"),
        ((A, L), {"wrt": ()}, ValueError, "wrt must be"),
    ],
)
def test_calls__refuse_bad_arguments_by_name(name, arguments, keywords, error, message):
    loss = LOSSES[name].make("mean")
    with pytest.raises(error, match=message):
        loss.compute_with_gradients(*arguments, **keywords)
    if not keywords:
        with pytest.raises(error, match=message):
            loss.compute(*arguments)


def test_constructor__refuses_an_unknown_reduction(name):
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none'"):
        LOSSES[name].make("average")
