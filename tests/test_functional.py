"""logsumexp and cosine_similarity against their oracles and scipy."""

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, relative_error

import rvtrain as rt


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 129), (2, 5, 11)], ids=str)
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_logsumexp__matches_the_oracle(shape, axis, dtype, rng):
    x = (rng.normal(size=shape) * 50).astype(dtype)
    expected = reference.logsumexp(x.ravel()) if axis is None else np.apply_along_axis(reference.logsumexp, axis, x)
    actual = rt.logsumexp(x, axis)
    assert np.asarray(actual).dtype == dtype
    assert relative_error(actual, expected) < TOLERANCE[dtype]


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # numpy's own, on infinities
def test_logsumexp__matches_scipy_at_edge_values(dtype):
    scipy_special = pytest.importorskip("scipy.special")
    inf, nan = np.inf, np.nan
    x = np.array(
        [
            [-inf, -inf],
            [inf, 1],
            [nan, 1],
            [1, nan],
            [nan, inf],
            [-inf, 3],
            [1e4, -1e4],
            [-nan, inf],
            [-nan, -inf],
            [3, -nan],
        ],
        dtype,
    )
    np.testing.assert_array_equal(rt.logsumexp(x), scipy_special.logsumexp(x, axis=-1))


def test_logsumexp__of_nothing_is_minus_infinity(dtype):
    np.testing.assert_array_equal(rt.logsumexp(np.empty((2, 0), dtype)), np.full(2, -np.inf))
    assert rt.logsumexp(np.empty((0, 3), dtype)).shape == (0,)


def test_logsumexp__takes_strided_input(rng):
    x = rng.normal(size=(10, 12))
    np.testing.assert_array_equal(rt.logsumexp(x[::2, ::3]), rt.logsumexp(x[::2, ::3].copy()))


def test_logsumexp__refuses_bad_arguments():
    with pytest.raises(TypeError, match="x must be float32 or float64"):
        rt.logsumexp(np.arange(3))
    with pytest.raises(ValueError, match=r"axis must be in \[-2, 1\]"):
        rt.logsumexp(np.ones((2, 2)), axis=2)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (17, 33, 100), (65, 31, 768)], ids=str)
def test_cosine_similarity__matches_the_oracle(shape, dtype, rng):
    rows, columns, dim = shape
    a, b = rng.normal(size=(rows, dim)).astype(dtype), rng.normal(size=(columns, dim)).astype(dtype)
    a[0] = 0
    actual = rt.cosine_similarity(a, b)
    assert actual.dtype == dtype
    assert np.abs(actual - reference.cosine_similarity(a, b)).max() < TOLERANCE[dtype] / 10


def test_cosine_similarity__eps_is_the_smallest_norm(dtype):
    tiny = np.array([[1e-10, 0]], dtype)
    unit = np.array([[1, 0]], dtype)
    assert rt.cosine_similarity(tiny, unit)[0, 0] == pytest.approx(1e-2, rel=1e-6)
    assert rt.cosine_similarity(tiny, unit, eps=1e-12)[0, 0] == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("size", [1e-299, 1e-160, 1e200, 1.7e308])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_cosine_similarity__is_right_where_squares_leave_float64(size, rng):
    a, b = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    a /= np.abs(a).max(axis=1, keepdims=True)
    found = rt.cosine_similarity(a * size, b, eps=1e-300)
    np.testing.assert_allclose(found, reference.cosine_similarity(a, b), rtol=1e-12)


@pytest.mark.parametrize("size", [1e-20, 1e18])
def test_cosine_similarity__survives_extreme_norms(size, dtype, rng):
    a, b = rng.normal(size=(3, 5)).astype(dtype) * dtype(size), rng.normal(size=(4, 5)).astype(dtype)
    np.testing.assert_allclose(rt.cosine_similarity(a, b), reference.cosine_similarity(a, b), rtol=1e-5)


def test_cosine_similarity__refuses_bad_arguments():
    with pytest.raises(ValueError, match="b must have 3 columns"):
        rt.cosine_similarity(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="a must be finite"):
        rt.cosine_similarity(np.full((2, 3), np.nan), np.ones((2, 3)))
    for eps in (0, 1e-310):
        with pytest.raises(ValueError, match="eps"):
            rt.cosine_similarity(np.ones((2, 3)), np.ones((2, 3)), eps=eps)
    with pytest.raises(TypeError, match=r"a must be float32 or float64.*a.astype"):
        rt.cosine_similarity(np.ones((2, 3), np.float16), np.ones((2, 3)))
