"""The exponential, norms, random numbers and workspaces that kernels share."""

import numpy as np
import pytest
from conftest import from_python

from rvtrain._engine._exp import exp, exp2
from rvtrain._engine._largest import largest
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain._engine._random import row_key, uniform
from rvtrain._engine._scratch import release_workspaces, scratch
from rvtrain._kernels import njit


@from_python
@njit
def exps(x, out):
    for i in range(len(x)):
        out[i] = exp(x[i])


@from_python
@njit
def powers(x, out):
    for i in range(len(x)):
        out[i] = exp2(x[i])


def values(function, x, dtype):
    x = np.asarray(x, dtype)
    out = np.empty_like(x)
    function(x, out)
    return out


def test_exp__is_right_to_the_last_digits(dtype):
    x = np.concatenate([np.linspace(-87, 0, 100_001), np.linspace(0, 20, 10_001), -np.logspace(-30, 1, 5000)])
    x = x.astype(dtype)
    error = np.abs(values(exps, x, dtype) / np.exp(x.astype(np.longdouble)) - 1).max()
    assert error < 3 * np.finfo(dtype).eps


def test_exp2__is_right_to_the_last_digits(dtype):
    x = np.concatenate([np.linspace(-126, 0, 100_001), np.linspace(0, 127, 10_001), -np.logspace(-30, 1, 5000)])
    x = x.astype(dtype)
    error = np.abs(values(powers, x, dtype) / np.exp2(x.astype(np.longdouble)) - 1).max()
    assert error < 1.5 * np.finfo(dtype).eps


def test_exp2__at_the_edges(dtype):
    np.testing.assert_array_equal(
        values(powers, [-np.inf, -1e4, 0.0, -0.0, 3.0, np.nan], dtype), [0, 0, 1, 1, 8, np.nan]
    )
    smallest = -126 if dtype == np.float32 else -1022
    assert values(powers, [smallest], dtype) == np.finfo(dtype).tiny and values(powers, [smallest - 0.6], dtype) == 0


def test_exp__at_the_edges(dtype):
    np.testing.assert_array_equal(values(exps, [-np.inf, -1e4, 0.0, -0.0, np.nan], dtype), [0, 0, 1, 1, np.nan])
    assert (values(exps, np.linspace(-800, -60, 999), dtype) >= 0).all()


@from_python
@njit
def tops(x, out):
    for i in range(len(x)):
        out[i] = largest(x[i])


@pytest.mark.parametrize("length", [0, 1, 7, 64, 1001])
@pytest.mark.parametrize("shift", [-1e3, 0.0, 1e3])
def test_largest__is_the_maximum(length, shift, dtype, rng):
    x = (rng.normal(size=(5, length)) + shift).astype(dtype)
    out = np.empty(5, dtype)
    tops(x, out)
    np.testing.assert_array_equal(out, x.max(axis=1, initial=-np.inf))


def test_largest__at_the_edges(dtype):
    tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    x = np.array([[0.0, -0.0, -tiny], [-huge, -np.inf, -np.inf], [huge, np.inf, 1.0], [-np.inf] * 3], dtype)
    out = np.empty(4, dtype)
    tops(x, out)
    np.testing.assert_array_equal(out, [0.0, -huge, np.inf, -np.inf])


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e-20, 1.0, 1e18, 1e200])
def test_inverse_norms__are_right_at_any_size(size, dtype, rng):
    x = (rng.normal(size=(5, 13)) * min(size, 1e30 if dtype == np.float32 else size)).astype(dtype)
    expected = np.maximum(np.hypot.reduce(x.astype(np.float64), axis=1), 1e-8)
    np.testing.assert_allclose(1 / checked_inverse_norms("x", x), expected, rtol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_inverse_norms__name_the_first_row_that_is_not_finite(bad, dtype):
    x = np.ones((4, 3), dtype)
    x[2, 1] = bad
    with pytest.raises(ValueError, match="x must be finite, got a NaN or an infinity in row 2"):
        checked_inverse_norms("x", x)


@from_python
@njit
def uniforms(seed, draw, out):
    for i in range(len(out)):
        key = row_key(seed, draw, i)
        for j in range(out.shape[1]):
            out[i, j] = uniform(key, j)


def test_uniform__is_uniform_and_independent_along_every_axis():
    out = np.empty((300, 300))
    uniforms(7, 0, out)
    assert out.min() > 0 and out.max() < 1
    counts = np.bincount((out * 50).astype(int).ravel(), minlength=50)
    assert ((counts - 1800) ** 2 / 1800).sum() < 49 + 6 * np.sqrt(98)
    for other in (np.roll(out, 1, axis=0), np.roll(out, 1, axis=1), out.T):
        assert abs(np.corrcoef(out.ravel(), other.ravel())[0, 1]) < 0.02
    again, next_draw, other_seed = np.empty((3, *out.shape))
    uniforms(7, 0, again)
    uniforms(7, 1, next_draw)
    uniforms(8, 0, other_seed)
    np.testing.assert_array_equal(out, again)
    for other in (next_draw, other_seed):
        assert abs(np.corrcoef(out.ravel(), other.ravel())[0, 1]) < 0.02


def test_scratch__is_one_piece_that_later_calls_use_again():
    release_workspaces()
    shapes = {(10,): np.float64, (1000, 2): np.float32}
    with scratch() as memory:
        for shape, dtype in shapes.items():
            array = memory.array(shape, dtype)
            assert array.shape == shape and array.dtype == dtype and array.ctypes.data % 64 == 0
        with scratch() as inner:
            assert inner is not memory
    with scratch() as again:
        first, second = (again.array(shape, dtype) for shape, dtype in shapes.items())
        assert again is memory and 0 < second.ctypes.data - first.ctypes.data < 128 + 64
    with scratch() as once_more:
        assert once_more.array((3, 3), np.float64).ctypes.data == first.ctypes.data
    release_workspaces()
    with scratch() as fresh:
        assert fresh is not memory and fresh is not inner
