"""The vocabulary of emitted functions: each compiled and in Python, against NumPy."""

import numpy as np
import pytest
from conftest import from_python

from rvtrain._kernels import element_type, emitted, njit, overload

LANES = 4


def _arithmetic(x, y, out):
    out[0], out[1], out[2] = x[:LANES] + y[:LANES] * 3, x[:LANES] - y[1 : LANES + 1], np.full(LANES, x[2])
    out[3] = (x[:LANES] < y[:LANES]) | (x[:LANES] >= 2 * y[:LANES])
    out[4] = x[:LANES] * y[:LANES] + x[0]
    out[5] = np.concatenate([x[:2], y[2:LANES]])


@emitted(_arithmetic)
def arithmetic(emit, x, y, out):
    a, b = x.load(LANES), y.load(LANES)
    results = [
        a + b * 3,
        a - (y + 1).load(LANES),
        (x + 2).load().broadcast(LANES),
        (a < b) | (a >= b * 2),
        emit.fma(a, b, x.load().broadcast(LANES)),
        a.shuffle(b, [0, 1, LANES + 2, LANES + 3]),
    ]
    zero, one = emit.constant(0, x.dtype, LANES), emit.constant(1, x.dtype, LANES)
    results[3] = results[3].choose(one, zero)
    for row, values in enumerate(results):
        (out + row * LANES).store(values)


def _sums(x, first, stop, step, reverse):
    chosen = x[first:stop:step].astype(np.float64)
    return float(-chosen.sum() if reverse else chosen.sum())


@emitted(_sums, np.float64)
def sums(emit, x, first, stop, step, reverse):
    """Σ x[i] for i from first by 2 up to stop; step is 2."""
    (total,) = emit.loop(
        first, stop, 2, [emit.constant(0.0, np.float64)], lambda i, total: [total + (x + i).load().astype(np.float64)]
    )
    return reverse.choose(total * -1.0, total)


def _columns(x, out):
    out[:] = x.sum(axis=1)


@emitted(_columns)
def columns(emit, x, out):
    """out[i] = Σ_k x[i, k]; x with at least one row and column."""

    def row(i, place):
        def add(k, place, total):
            return [place + 1, total + place.load()]

        place, total = emit.loop(
            emit.constant(0), x.shape[1], 1, [place, emit.constant(0.0, x.dtype)], add, empty=False
        )
        (out + i).store(total)
        return [place]

    emit.loop(emit.constant(0), x.shape[0], 1, [x + 0], row, empty=False)


@emitted(lambda a, b: a * b, lambda a, b: a)
def product(emit, a, b):
    return a * b


@emitted(lambda x, least: np.uint32(sum(1 << i for i in range(8) if x[i] > least)), np.uint32)
def above(emit, x, least):
    return (x.load(8) > least.broadcast(8)).bits()


@from_python
@njit
def compiled_arithmetic(x, y, out):
    arithmetic(x, y, out)


@from_python
@njit
def compiled_sums(x, first, stop, reverse):
    return sums(x, first, stop, 2, reverse)


@from_python
@njit
def compiled_columns(x, out):
    columns(x, out)


@from_python
@njit
def compiled_product(a, b):
    return product(a, b)


@from_python
@njit
def compiled_above(x, least):
    return above(x, least)


def test_vectors__have_numpys_arithmetic(dtype, rng):
    x, y = rng.normal(size=(2, LANES + 1)).astype(dtype)
    out, expected = np.zeros((2, 6, LANES), dtype)
    compiled_arithmetic(x, y, out)
    _arithmetic(x, y, expected)
    np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("first", "stop"), [(0, 9), (3, 4), (5, 5), (7, 2)])
def test_loop__runs_from_first_up_to_stop(first, stop, reverse, dtype, rng):
    x = rng.normal(size=9).astype(dtype)
    assert compiled_sums(x, np.int32(first), stop, reverse) == pytest.approx(_sums(x, first, stop, 2, reverse))


def test_loops__carry_places_and_may_be_nested(dtype, rng):
    x, out = rng.normal(size=(3, 5)).astype(dtype), np.empty(3, dtype)
    compiled_columns(x, out)
    np.testing.assert_allclose(out, x.sum(axis=1), rtol=1e-5)


def test_scalars__keep_their_types_where_there_are_no_arrays():
    for kind in (np.float32, np.float64):
        assert compiled_product(kind(1.1), kind(3)) == kind(1.1) * kind(3)


def test_floats__are_taken_as_the_elements_of_the_array(dtype):
    x = np.array([0.1, 0.2, 0.3, -1, np.nan, np.inf, 0, 5], dtype)
    assert compiled_above(x, 0.2) == 0b10100100


def test_array__that_is_not_contiguous_is_refused():
    with pytest.raises(Exception, match="above"):
        compiled_above(np.ones(16)[::2], 0.0)


def test_element_type__is_that_of_numbers_and_arrays():
    found = []

    def look(x):
        raise NotImplementedError

    @overload(look)
    def _look(x):
        found.append(element_type(x))
        return lambda x: None

    from_python(njit(lambda x: look(x)))(np.float32(1))
    from_python(njit(lambda x: look(x)))(np.ones((2, 2), np.int8))
    assert found[0] == np.float32 and found[-1] == np.int8
