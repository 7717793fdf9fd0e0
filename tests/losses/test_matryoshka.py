"""MatryoshkaLoss against the wrapped losses on prefixes, naive oracles and central differences."""

import copy
import pickle

import numba
import numpy as np
import pytest
import reference
import reference_losses
from conftest import TOLERANCE, import_torch, relative_error

import rvtrain as rt
from rvtrain.losses._distillation import MarginMSELoss
from rvtrain.losses._graded import CoSENTLoss, CosineSimilarityLoss
from rvtrain.losses._matryoshka import MatryoshkaLoss
from rvtrain.losses._spread import SpreadRegularization

DIMS, WEIGHTS = (8, 5, 2), (1.0, 0.5, 2.0)


class Overlap:
    """A loss of another's: −Σ a · b, with a gradient to its scale too."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def compute(self, a, b):
        return -self.scale * float((a * b).sum())

    def compute_with_gradients(self, a, b, *, wrt="a"):
        gradients = {"a": -self.scale * b, "b": -self.scale * a, "scale": -float((a * b).sum())}
        return self.compute(a, b), gradients[wrt] if isinstance(wrt, str) else tuple(gradients[name] for name in wrt)


def vectors(rng, *shape, dtype=np.float64):
    return rng.normal(size=shape).astype(dtype)


CASES = {
    "in-batch": (rt.InfoNCELoss(0.3), (("anchors", (6, 9)), ("positives", (6, 9))), {}, ("temperature",)),
    "symmetric": (
        rt.InfoNCELoss(0.3, symmetric=True),
        (("anchors", (6, 9)), ("positives", (6, 9))),
        {"anchor_ids": np.array([0, 1, 2, 0, 4, 5])},
        (),
    ),
    "pool": (
        rt.InfoNCELoss(0.3),
        (("anchors", (6, 9)), ("positives", (6, 9)), ("negatives", (7, 9))),
        {},
        ("temperature",),
    ),
    "own": (
        rt.LocalContrastiveLoss(3.0),
        (("anchors", (6, 9)), ("positives", (6, 9)), ("negatives", (6, 3, 9))),
        {},
        (),
    ),
    "gathered": (
        MarginMSELoss(),
        (("anchors", (6, 9)), ("positives", (6, 9)), ("negatives", (7, 9))),
        {
            "teacher_scores": np.arange(18.0).reshape(6, 3) % 5,
            "negative_indices": np.arange(12).reshape(6, 2) % 8 - 1,
        },
        (),
    ),
    "graded": (CoSENTLoss(3.0), (("a", (6, 9)), ("b", (6, 9))), {"scores": np.arange(6) % 3}, ()),
    "one": (SpreadRegularization(), (("embeddings", (6, 9)),), {}, ()),
    "another's": (Overlap(0.5), (("a", (6, 9)), ("b", (6, 9))), {}, ("scale",)),
}


@pytest.fixture(params=list(CASES))
def case(request, rng):
    """A loss, its embeddings by name, its other arguments, and what else it has gradients to."""
    loss, shapes, others, further = CASES[request.param]
    inputs = {name: vectors(rng, *shape) + 0.5 for name, shape in shapes}
    return copy.deepcopy(loss), inputs, others, further


# --- Values and gradients ------------------------------------------------------------------------------


def test_compute__is_the_weighted_sum_over_prefixes(case):
    loss, inputs, others, _ = case
    value = MatryoshkaLoss(loss, DIMS, WEIGHTS).compute(**inputs, **others)
    expected = reference_losses.matryoshka(
        lambda *arrays: loss.compute(**dict(zip(inputs, map(np.ascontiguousarray, arrays), strict=True)), **others),
        inputs.values(),
        DIMS,
        WEIGHTS,
    )
    assert value == pytest.approx(expected, rel=1e-12)
    assert value == MatryoshkaLoss(loss, DIMS, WEIGHTS).compute(*inputs.values(), **others)


def test_gradients__match_central_differences(case):
    loss, inputs, others, further = case
    wrapped = MatryoshkaLoss(loss, DIMS, WEIGHTS)
    names = (*inputs, *further)
    value, gradients = wrapped.compute_with_gradients(**inputs, wrt=names, **others)
    assert value == wrapped.compute(**inputs, **others)
    for name, gradient in zip(names, gradients, strict=True):
        alone = wrapped.compute_with_gradients(**inputs, wrt=name, **others)[1]
        np.testing.assert_array_equal(alone, gradient)
        if name in further:
            before, values = getattr(loss, name), []
            for step in (1e-6, -1e-6):
                setattr(loss, name, before + step)
                values.append(wrapped.compute(**inputs, **others))
            setattr(loss, name, before)
            expected = (values[0] - values[1]) / 2e-6
        else:
            expected = reference.central_differences(
                lambda x, name=name: wrapped.compute(**{**inputs, name: x}, **others), inputs[name]
            )
            assert not gradient[..., max(DIMS) :].any()
        assert relative_error(gradient, expected) < 1e-7, name


def test_infonce__matches_the_oracle(dtype, rng):
    anchors, positives = vectors(rng, 17, 100, dtype=dtype), vectors(rng, 17, 100, dtype=dtype)
    value, gradient = MatryoshkaLoss(rt.InfoNCELoss(0.1), [100, 31, 8]).compute_with_gradients(anchors, positives)
    expected = reference_losses.matryoshka(
        lambda a, p: reference.infonce(a, p, None, 0.1).mean(), (anchors, positives), [100, 31, 8]
    )
    assert gradient.dtype == dtype
    assert relative_error(value, expected) < TOLERANCE[dtype]


def test_infonce__matches_torch_autograd(dtype, rng):
    torch = import_torch()
    arrays = [vectors(rng, 13, 33, dtype=dtype) for _ in range(2)]
    value, gradients = MatryoshkaLoss(rt.InfoNCELoss(0.1), [33, 7], [1.0, 0.3]).compute_with_gradients(
        *arrays, wrt=("anchors", "positives")
    )
    leaves = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in arrays]
    expected = 0.0
    for m, w in ((33, 1.0), (7, 0.3)):
        a, p = (torch.nn.functional.normalize(x[:, :m], dim=1) for x in leaves)
        expected = expected + w * torch.nn.functional.cross_entropy(a @ p.T / 0.1, torch.arange(13))
    expected.backward()
    assert relative_error(value, expected.item()) < TOLERANCE[dtype]
    for gradient, leaf in zip(gradients, leaves, strict=True):
        assert relative_error(gradient, leaf.grad.numpy()) < TOLERANCE[dtype]


def test_gradients__same_bits_for_any_threads(dtype, rng):
    arrays = [vectors(rng, 300, 64, dtype=dtype) for _ in range(2)]
    loss, found, before = MatryoshkaLoss(rt.InfoNCELoss(0.1), [64, 16]), [], numba.get_num_threads()
    for threads in range(1, min(2, numba.config.NUMBA_NUM_THREADS) + 1):
        numba.set_num_threads(threads)
        value, gradient = loss.compute_with_gradients(*arrays)
        found.append(np.append(gradient.ravel(), value).tobytes())
    numba.set_num_threads(before)
    assert len(set(found)) == 1


def test_reductions__are_the_wrapped_loss_s(dtype, rng):
    anchors, positives = (vectors(rng, 5, 9, dtype=dtype) for _ in range(2))
    loss = MatryoshkaLoss(rt.InfoNCELoss(0.3, "none"), DIMS, WEIGHTS)
    assert loss.reduction == "none"
    values, gradient = loss.compute_with_gradients(anchors, positives)
    assert values.shape == (5,)
    assert values.dtype == gradient.dtype == dtype
    total, of_sum = MatryoshkaLoss(rt.InfoNCELoss(0.3, "sum"), DIMS, WEIGHTS).compute_with_gradients(
        anchors, positives
    )
    assert relative_error(values.sum(dtype=np.float64), total) < TOLERANCE[dtype]
    np.testing.assert_array_equal(gradient, of_sum)


# --- What is given -------------------------------------------------------------------------------------


def test_compute__one_anchor_and_lists(rng):
    anchor, positive, negatives = vectors(rng, 9), vectors(rng, 9), vectors(rng, 3, 9)
    loss = MatryoshkaLoss(rt.InfoNCELoss(0.3), DIMS)
    value, gradient = loss.compute_with_gradients(anchor, positive, negatives)
    assert gradient.shape == (9,)
    assert value == loss.compute(anchor.tolist(), positive.tolist(), negatives.tolist())


def test_compute__reads_nothing_beyond_the_longest_prefix_and_changes_nothing(dtype, rng):
    anchors, positives = (vectors(rng, 5, 9, dtype=dtype) for _ in range(2))
    loss = MatryoshkaLoss(rt.InfoNCELoss(0.3), DIMS)
    value, gradient = loss.compute_with_gradients(anchors, positives)
    anchors[:, 8] = np.nan
    anchors.setflags(write=False)
    before = positives.copy()
    again, other = loss.compute_with_gradients(anchors, positives)
    assert again == value
    np.testing.assert_array_equal(gradient, other)
    np.testing.assert_array_equal(positives, before)


def test_one_prefix_of_full_length__is_the_wrapped_loss(case):
    loss, inputs, others, _ = case
    value, gradient = loss.compute_with_gradients(**inputs, **others)
    again, other = MatryoshkaLoss(loss, [9]).compute_with_gradients(**inputs, **others)
    assert again == value
    np.testing.assert_array_equal(gradient, other)


def test_temperature__is_the_wrapped_loss_s(rng):
    anchors, positives = vectors(rng, 5, 9), vectors(rng, 5, 9)
    inner = rt.InfoNCELoss(0.3)
    loss = MatryoshkaLoss(inner, DIMS)
    loss.temperature = 0.1
    assert inner.temperature == loss.temperature == 0.1
    assert loss.compute(anchors, positives) == MatryoshkaLoss(rt.InfoNCELoss(0.1), DIMS).compute(anchors, positives)
    with pytest.raises(ValueError, match="temperature"):
        loss.temperature = 0.0
    for name in ("temperature", "reduction"):
        assert not hasattr(MatryoshkaLoss(SpreadRegularization(), DIMS), name)


def test_losses__can_be_copied_and_pickled(case):
    loss, inputs, others, _ = case
    wrapped = MatryoshkaLoss(loss, DIMS, WEIGHTS)
    for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert other.compute(**inputs, **others) == wrapped.compute(**inputs, **others)
        assert other.loss is not loss


def test_repr__is_what_makes_it():
    assert (
        repr(MatryoshkaLoss(CosineSimilarityLoss(), np.array([4, 2])))
        == "MatryoshkaLoss(CosineSimilarityLoss(reduction='mean'), dims=[4, 2], weights=[1.0, 1.0])"
    )


# --- Errors --------------------------------------------------------------------------------------------

A = np.ones((3, 4))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((A, A[:, :3]), ValueError, r"positives must have 4 columns like anchors, got shape \(3, 3\)"),
        ((A, A, np.ones((3, 5))), ValueError, r"negatives must have 4 columns like anchors, got shape \(3, 5\)"),
        ((A[:, :2], A[:, :2]), ValueError, "dims must be at most 2, the columns of anchors, got 3"),
        ((A, A[:2]), ValueError, "positives must have the shape of anchors"),
        ((A, A.astype(np.float16)), TypeError, "positives must be float32 or float64"),
        ((A, 1.0), ValueError, "positives must have"),
        ((A, A * np.nan), ValueError, "positives must be finite"),
        ((A,), TypeError, "positives"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_compute__refuses_bad_arguments_by_name(arguments, error, message):
    loss = MatryoshkaLoss(rt.InfoNCELoss(), [3, 2])
    for method in (loss.compute, loss.compute_with_gradients):
        with pytest.raises(error, match=message):
            method(*arguments)


@pytest.mark.parametrize("wrt", ["anchor", (), ("anchors", "anchors"), None])
def test_compute_with_gradients__refuses_an_unknown_wrt(wrt):
    with pytest.raises(ValueError, match="wrt"):
        MatryoshkaLoss(rt.InfoNCELoss(), [3, 2]).compute_with_gradients(A, A, wrt=wrt)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones, [2]), TypeError, "loss must have the method compute"),
        ((rt.InfoNCELoss(), []), ValueError, "dims must be a sequence of at least one number"),
        ((rt.InfoNCELoss(), 2), ValueError, "dims must be a sequence"),
        ((rt.InfoNCELoss(), "2"), ValueError, "dims must be a sequence"),
        ((rt.InfoNCELoss(), [2, 0]), ValueError, "dims must be at least 1, got 0"),
        ((rt.InfoNCELoss(), [2.0]), TypeError, "dims must be an integer"),
        ((rt.InfoNCELoss(), [2], [1.0, 2.0]), ValueError, "weights must be as many as dims, 1, got 2"),
        ((rt.InfoNCELoss(), [2], [-1.0]), ValueError, "weights must be a finite number"),
    ],
)
def test_constructor__refuses_what_it_does_not_know(arguments, error, message):
    with pytest.raises(error, match=message):
        MatryoshkaLoss(*arguments)
