"""CoSENTLoss and CosineSimilarityLoss against naive oracles, central differences and torch autograd."""

import copy
import pickle
import tracemalloc

import numba
import numpy as np
import pytest
import reference
import reference_losses
from conftest import TOLERANCE, import_torch, relative_error

from rvtrain._errors import NotFiniteError
from rvtrain.losses._graded import WRT, CoSENTLoss, CosineSimilarityLoss

SHAPES = [(1, 1), (2, 3), (7, 5), (17, 100), (101, 31), (13, 768)]
LOSSES = [CoSENTLoss(20.0), CosineSimilarityLoss()]


@pytest.fixture(params=LOSSES, ids=["cosent", "cosine"])
def loss(request):
    return copy.deepcopy(request.param)


def make_case(count, dim, dtype, rng, grades=4):
    """Pairs that are more or less alike, and their grades in [0, 1], with ties."""
    a = rng.normal(size=(count, dim)).astype(dtype)
    b = (a + 2 * rng.normal(size=(count, dim))).astype(dtype)
    return a, b, rng.integers(0, grades, size=count) / grades


def oracle(loss, a, b, scores):
    if isinstance(loss, CoSENTLoss):
        return reference_losses.cosent(a, b, scores, loss.scale)
    return reference_losses.reduced(reference_losses.cosine_similarity_loss(a, b, scores), loss.reduction)


# --- Values and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compute__matches_the_oracle(loss, shape, dtype, rng):
    case = make_case(*shape, dtype, rng)
    value = loss.compute(*case)
    assert isinstance(value, float)
    assert relative_error(value, oracle(loss, *case)) < TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (101, 31), (13, 768)], ids=str)
@pytest.mark.parametrize("grades", [2, 1000])
def test_gradients__match_torch_autograd(loss, shape, grades, dtype, rng):
    torch = import_torch()
    a, b, scores = make_case(*shape, dtype, rng, grades)
    value, gradients = loss.compute_with_gradients(a, b, scores, wrt=WRT)
    leaves = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in (a, b)]
    y, c = torch.tensor(scores), torch.cosine_similarity(*leaves)
    if isinstance(loss, CoSENTLoss):
        terms = (loss.scale * (c[:, None] - c[None, :]))[y[:, None] < y[None, :]]
        expected = torch.logsumexp(torch.cat([torch.zeros(1), terms]), 0)
    else:
        expected = torch.nn.functional.mse_loss(c, y)
    expected.backward()
    assert relative_error(value, expected.item()) < TOLERANCE[dtype]
    for gradient, leaf in zip(gradients, leaves, strict=True):
        assert gradient.dtype == dtype
        assert relative_error(gradient, leaf.grad.numpy()) < TOLERANCE[dtype]


def test_gradients__match_central_differences(loss, rng):
    a, b, scores = make_case(9, 4, np.float64, rng)
    if isinstance(loss, CoSENTLoss):
        loss.scale = 3.0
    _, (to_a, to_b) = loss.compute_with_gradients(a, b, scores, wrt=WRT)
    assert relative_error(to_a, reference.central_differences(lambda x: loss.compute(x, b, scores), a)) < 1e-7
    assert relative_error(to_b, reference.central_differences(lambda x: loss.compute(a, x, scores), b)) < 1e-7


def test_gradients__each_alone_equals_all_together(loss, dtype, rng):
    case = make_case(11, 6, dtype, rng)
    value, together = loss.compute_with_gradients(*case, wrt=WRT)
    assert value == loss.compute(*case)
    for name, gradient in zip(WRT, together, strict=True):
        alone_value, alone = loss.compute_with_gradients(*case, wrt=name)
        assert alone_value == value
        np.testing.assert_array_equal(alone, gradient)


def test_gradients__same_bits_for_any_threads(loss, dtype, rng):
    case, found, before = make_case(2003, 50, dtype, rng, 1000), [], numba.get_num_threads()
    for threads in range(1, min(2, numba.config.NUMBA_NUM_THREADS) + 1):
        numba.set_num_threads(threads)
        value, (to_a, to_b) = loss.compute_with_gradients(*case, wrt=WRT)
        found.append(np.concatenate([[value], to_a.ravel(), to_b.ravel()]).tobytes())
    numba.set_num_threads(before)
    assert len(set(found)) == 1


def test_reductions__of_squared_errors(dtype, rng):
    a, b, scores = make_case(7, 5, dtype, rng)
    expected = reference_losses.cosine_similarity_loss(a, b, scores)
    values, each = CosineSimilarityLoss("none").compute_with_gradients(a, b, scores)
    total, of_sum = CosineSimilarityLoss("sum").compute_with_gradients(a, b, scores)
    mean, of_mean = CosineSimilarityLoss("mean").compute_with_gradients(a, b, scores)
    assert values.dtype == dtype
    assert relative_error(values, expected) < TOLERANCE[dtype]
    assert relative_error([total, 7 * mean], [expected.sum()] * 2) < TOLERANCE[dtype]
    np.testing.assert_array_equal(each, of_sum)
    assert relative_error(7 * of_mean, of_sum) < TOLERANCE[dtype]


# --- CoSENT's order ------------------------------------------------------------------------------------


def test_cosent__reads_only_the_order_of_the_scores(rng):
    a, b, scores = make_case(23, 5, np.float64, rng)
    loss = CoSENTLoss()
    expected = loss.compute(a, b, scores)
    assert loss.compute(a, b, 1e6 * scores**3 - 5) == expected
    mixed = rng.permutation(23)
    assert loss.compute(a[mixed], b[mixed], scores[mixed]) == pytest.approx(expected, rel=1e-12)


def test_cosent__equal_scores_are_not_compared(dtype, rng):
    a, b, _ = make_case(6, 5, dtype, rng)
    value, gradient = CoSENTLoss().compute_with_gradients(a, b, np.ones(6))
    assert value == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("scale", [1e-15, 1e3, 1e15])
def test_cosent__no_scale_overflows(scale, dtype, rng):
    a, b, scores = make_case(19, 5, dtype, rng)
    loss = CoSENTLoss(scale)
    value, gradients = loss.compute_with_gradients(a, b, scores, wrt=WRT)
    assert relative_error(value, reference_losses.cosent(a, b, scores, scale)) < TOLERANCE[dtype]
    assert all(np.isfinite(g).all() for g in gradients)


def test_cosent__is_exact_where_the_order_is_right(rng):
    """Far above or below 1 the value is right to rounding, neither capped nor lost beside the 1."""
    a = np.array([[1.0, 0.0], [1.0, 0.0]])
    b = np.array([[-1.0, 1e-3], [1.0, 1e-3]])
    difference = reference_losses.score(a[1], b[1]) - reference_losses.score(a[0], b[0])
    for scale in (20.0, 100.0):
        good, bad = CoSENTLoss(scale).compute(a, b, [0.0, 1.0]), CoSENTLoss(scale).compute(a, b, [1.0, 0.0])
        assert good == pytest.approx(np.log1p(np.exp(-scale * difference)), rel=1e-12)
        assert bad == pytest.approx(scale * difference, rel=1e-12)


def test_cosent__memory_is_linear(rng):
    a, b, scores = make_case(20_000, 4, np.float64, rng, 10_000)
    loss = CoSENTLoss()
    loss.compute_with_gradients(a, b, scores, wrt=WRT)
    tracemalloc.start()
    loss.compute_with_gradients(a, b, scores, wrt=WRT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * a.nbytes


# --- What is given -------------------------------------------------------------------------------------


def test_compute__one_pair_is_a_batch_of_one(loss, dtype, rng):
    a, b, scores = make_case(1, 5, dtype, rng)
    value, gradient = loss.compute_with_gradients(a[0], b[0], float(scores[0]))
    right, batch = loss.compute_with_gradients(a, b, scores)
    assert value == right
    np.testing.assert_array_equal(gradient, batch[0])
    assert np.ndim(CosineSimilarityLoss("none").compute(a[0], b[0], 1)) == 0


def test_compute__takes_strided_and_read_only_input_and_changes_nothing(loss, dtype, rng):
    a, b, scores = make_case(7, 6, dtype, rng)
    expected, gradients = loss.compute_with_gradients(a, b, scores, wrt=WRT)
    wide = np.zeros((7, 12), dtype)
    wide[:, ::2] = a
    wide.setflags(write=False)
    before = b.copy()
    value, again = loss.compute_with_gradients(wide[:, ::2], b, np.repeat(scores, 2)[::2], wrt=WRT)
    assert value == expected
    for one, other in zip((*gradients, before), (*again, b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_compute__promotes_mixed_types(loss, rng):
    a, b, scores = make_case(7, 6, np.float32, rng)
    value, gradient = loss.compute_with_gradients(a, b.astype(np.float64), scores)
    assert gradient.dtype == np.float64
    assert value == loss.compute(a.astype(np.float64), b.astype(np.float64), scores)


@pytest.mark.parametrize("of_scores", [np.float16, np.float32, np.int64, list])
def test_scores__may_be_any_numbers(loss, of_scores, rng):
    a, b, scores = make_case(7, 6, np.float64, rng)
    grades = 4 * scores
    given = grades.tolist() if of_scores is list else grades.astype(of_scores)
    assert loss.compute(a, b, given) == loss.compute(a, b, grades)


def test_zero_vectors__have_cosine_0_and_finite_gradients(loss, dtype, rng):
    a, b, scores = make_case(7, 5, dtype, rng)
    a[0], b[1] = 0, 0
    a[2] = b[2] = 0
    value, gradients = loss.compute_with_gradients(a, b, scores, wrt=WRT)
    assert relative_error(value, oracle(loss, a, b, scores)) < TOLERANCE[dtype]
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("size", [1e-6, 1e30])
def test_compute__does_not_depend_on_lengths(loss, size, dtype, rng):
    a, b, scores = make_case(7, 5, dtype, rng)
    value, gradient = loss.compute_with_gradients(a * dtype(size), b, scores)
    right, expected = loss.compute_with_gradients(a, b, scores)
    assert relative_error(value, right) < TOLERANCE[dtype]
    assert relative_error(gradient.astype(np.float64) * size, expected) < TOLERANCE[dtype]


# --- Objects and errors --------------------------------------------------------------------------------


def test_losses__can_be_copied_and_pickled(loss, rng):
    case = make_case(5, 4, np.float64, rng)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(other) == repr(loss)
        assert other.compute(*case) == loss.compute(*case)


def test_repr__is_what_makes_it():
    assert repr(CoSENTLoss(5)) == "CoSENTLoss(scale=5)"
    assert repr(CosineSimilarityLoss("sum")) == "CosineSimilarityLoss(reduction='sum')"


A = np.ones((3, 4))
Y = np.ones(3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((A.astype(np.float16), A, Y), TypeError, "a must be float32 or float64"),
        ((A, A.astype(int), Y), TypeError, "b must be float32 or float64"),
        ((A[None], A, Y), ValueError, "a must have 1 or 2 dimension"),
        ((A, A[:2], Y), ValueError, "b must have the shape of a"),
        ((A[:0], A[:0], Y[:0]), ValueError, "a must not be empty"),
        ((A, A, Y[:2]), ValueError, r"scores must have the shape of a without its last axis, \(3,\), got \(2,\)"),
        ((A, A, Y[:, None]), ValueError, "scores must have 1 dimension"),
        ((A[0], A[0], Y), ValueError, "scores must have 0 dimension"),
        ((A, A, Y.astype(str)), TypeError, "scores must be an array of real numbers"),
        ((A, A, Y * np.nan), NotFiniteError, "scores must be finite"),
        ((A * np.nan, A, Y), NotFiniteError, "a must be finite"),
        ((A, A * np.inf, Y), NotFiniteError, "b must be finite"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_compute__refuses_bad_arguments_by_name(loss, arguments, error, message):
    with pytest.raises(error, match=message):
        loss.compute(*arguments)


@pytest.mark.parametrize("wrt", ["c", "scores", (), ("a", "a"), None])
def test_compute_with_gradients__refuses_an_unknown_wrt(loss, wrt):
    with pytest.raises(ValueError, match="wrt"):
        loss.compute_with_gradients(A, A, Y, wrt=wrt)


def test_constructor__refuses_what_it_does_not_know():
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="scale"):
            CoSENTLoss(scale)
    with pytest.raises(TypeError, match="scale"):
        CoSENTLoss("1")
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none'"):
        CosineSimilarityLoss("average")
