"""SpreadRegularization against a naive oracle, central differences and torch autograd."""

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
from rvtrain.losses._spread import SpreadRegularization

SHAPES = [(1, 1), (2, 3), (3, 2), (7, 5), (17, 100), (64, 64), (101, 31), (13, 768), (65, 64)]


def make_case(count, dim, dtype, rng):
    """Embeddings in a cone, whose cosines are well above those of the uniform distribution."""
    return (rng.normal(size=(count, dim)) + 1.0).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compute__matches_the_oracle(shape, dtype, rng):
    z = make_case(*shape, dtype, rng)
    value = SpreadRegularization(2.0).compute(z)
    assert isinstance(value, float)
    # Where d is 1 or n is 1, the value is a rounded 0.
    assert abs(value - reference_losses.spread(z, 2.0)) < TOLERANCE[dtype] * max(
        reference_losses.spread(z, 2.0), 1e-5
    )


@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (17, 100), (101, 31), (13, 768)], ids=str)
def test_gradients__match_torch_autograd(shape, dtype, rng):
    torch = import_torch()
    z = make_case(*shape, dtype, rng)
    value, gradient = SpreadRegularization(2.0).compute_with_gradients(z)
    leaf = torch.tensor(z.astype(np.float64), requires_grad=True)
    unit = torch.nn.functional.normalize(leaf, dim=1)
    squares = (unit @ unit.T).square().masked_fill(torch.eye(len(z), dtype=torch.bool), 0.0)
    expected = 2.0 * torch.relu(squares.sum() / (len(z) * (len(z) - 1)) - 1.0 / z.shape[1])
    expected.backward()
    assert gradient.dtype == dtype
    assert relative_error(value, expected.item()) < TOLERANCE[dtype]
    assert relative_error(gradient, leaf.grad.numpy()) < TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(4, 6), (9, 4)])
def test_gradients__match_central_differences(shape, rng):
    z, loss = make_case(*shape, np.float64, rng), SpreadRegularization(0.5)
    value, (gradient,) = loss.compute_with_gradients(z, wrt=("embeddings",))
    assert value == loss.compute(z)
    assert relative_error(gradient, reference.central_differences(loss.compute, z)) < 1e-7


@pytest.mark.parametrize("shape", [(300, 50), (60, 300)])
def test_gradients__same_bits_for_any_threads(shape, dtype, rng):
    z, found, before = make_case(*shape, dtype, rng), [], numba.get_num_threads()
    for threads in range(1, min(2, numba.config.NUMBA_NUM_THREADS) + 1):
        numba.set_num_threads(threads)
        value, gradient = SpreadRegularization().compute_with_gradients(z)
        found.append(np.append(gradient.ravel(), value).tobytes())
    numba.set_num_threads(before)
    assert len(set(found)) == 1


def test_compute__what_is_spread_enough_is_left_alone(dtype):
    for z in (np.eye(5, dtype=dtype), np.concatenate([np.eye(3), -np.eye(3)]).astype(dtype)):
        value, gradient = SpreadRegularization().compute_with_gradients(z)
        assert value == 0.0
        assert not gradient.any()


def test_compute__equal_rows_have_1_less_1_over_d(dtype):
    for count in (4, 40):
        value, gradient = SpreadRegularization().compute_with_gradients(np.full((count, 8), 0.3, dtype))
        assert relative_error(value, 1 - 1 / 8) < TOLERANCE[dtype]
        assert np.abs(gradient).max() < TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_zero_rows__have_cosine_0_and_finite_gradients(shape, dtype, rng):
    z = make_case(*shape, dtype, rng)
    z[0], z[1] = 0, z[1] * dtype(1e-12)
    value, gradient = SpreadRegularization().compute_with_gradients(z)
    assert relative_error(value, reference_losses.spread(z)) < TOLERANCE[dtype]
    assert np.isfinite(gradient).all()
    assert not gradient[0].any()
    if dtype == np.float64:  # in row 1, of norm below ε, the loss is a parabola with the others fixed
        differences = reference.central_differences(lambda x: reference_losses.spread(x), z, 1e-12)
        assert relative_error(gradient[1], differences[1]) < 1e-4


@pytest.mark.parametrize("size", [1e-6, 1e30])
def test_compute__does_not_depend_on_lengths(size, dtype, rng):
    z = make_case(7, 5, dtype, rng)
    value, gradient = SpreadRegularization().compute_with_gradients(z * dtype(size))
    right, expected = SpreadRegularization().compute_with_gradients(z)
    assert relative_error(value, right) < TOLERANCE[dtype]
    assert relative_error(gradient.astype(np.float64) * size, expected) < TOLERANCE[dtype]


def test_compute__takes_strided_and_read_only_input_and_changes_nothing(dtype, rng):
    wide = make_case(9, 12, dtype, rng)
    wide.setflags(write=False)
    before = wide.copy()
    value, gradient = SpreadRegularization().compute_with_gradients(wide[:, ::2])
    right, expected = SpreadRegularization().compute_with_gradients(wide[:, ::2].copy())
    assert value == right
    np.testing.assert_array_equal(gradient, expected)
    np.testing.assert_array_equal(wide, before)


def test_compute__memory_is_linear_in_the_rows(rng):
    z, loss = make_case(20_000, 16, np.float64, rng), SpreadRegularization()
    loss.compute_with_gradients(z)
    tracemalloc.start()
    loss.compute_with_gradients(z)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * z.nbytes


def test_losses__can_be_copied_and_pickled(rng):
    loss, z = SpreadRegularization(0.25), make_case(5, 4, np.float64, rng)
    assert repr(loss) == "SpreadRegularization(weight=0.25)"
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(other) == repr(loss)
        assert other.compute(z) == loss.compute(z)


@pytest.mark.parametrize(
    ("embeddings", "error", "message"),
    [
        (np.ones((3, 4), int), TypeError, "embeddings must be float32 or float64"),
        (np.ones(4), ValueError, "embeddings must have 2 dimension"),
        (np.ones((0, 4)), ValueError, "embeddings must not be empty"),
        (np.full((3, 4), np.nan), NotFiniteError, "embeddings must be finite.*row 0"),
        (np.array([[0.0, 1.0], [np.inf, 0.0]]), NotFiniteError, "embeddings must be finite.*row 1"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_compute__refuses_bad_arguments_by_name(embeddings, error, message):
    with pytest.raises(error, match=message):
        SpreadRegularization().compute(embeddings)


@pytest.mark.parametrize("wrt", ["weight", (), ("embeddings", "embeddings"), None])
def test_compute_with_gradients__refuses_an_unknown_wrt(wrt):
    with pytest.raises(ValueError, match="wrt"):
        SpreadRegularization().compute_with_gradients(np.ones((3, 4)), wrt=wrt)


def test_constructor__refuses_what_it_does_not_know():
    for weight in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="weight"):
            SpreadRegularization(weight)
    loss = SpreadRegularization(1.0)
    with pytest.raises(ValueError, match="weight"):
        loss.weight = -1.0
    assert loss.weight == 1.0
