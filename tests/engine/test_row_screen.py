"""The screen of rows in memory by their cosines with a query, against NumPy."""

import numpy as np
import pytest
from conftest import from_python

from rvtrain._engine._row_screen import SQUARES, TOGETHER, may_reach
from rvtrain._kernels import njit

DIMS = [1, 2, 7, 8, 31, 32, 33, 64, 100, 129, 768]


@from_python
@njit
def reached(x, units, at, bounds, out):
    for i in range(len(bounds)):
        out[i] = may_reach(x, 3, units, at, bounds[i])


def cosines(x, unit):
    x = x[3 : 3 + TOGETHER].astype(np.float64)
    return x @ unit / np.linalg.norm(x, axis=1)


@pytest.mark.parametrize("dim", DIMS)
def test_may_reach__compares_the_highest_of_four_cosines(dim, dtype, rng):
    x, units = rng.normal(size=(3 + TOGETHER + 2, dim)).astype(dtype), rng.normal(size=(3, dim)).astype(dtype)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    x[0], x[-1] = 1e3 * units[1], np.nan  # of other rows
    for highest in range(TOGETHER):
        x[3 + highest] += 5 * units[1]
        top = cosines(x, units[1].astype(np.float64)).max()
        out = np.empty(4, bool)
        reached(x, units, dim, np.array([top - 1e-4, top + 1e-4, -2.0, 2.0], dtype), out)
        assert list(out) == [True, False, True, False]


@pytest.mark.parametrize("dim", [1, 37, 64])
@pytest.mark.parametrize("row", range(TOGETHER))
@pytest.mark.parametrize("kind", ["nan", "inf", "short", "long", "zero"])
def test_may_reach__is_true_of_rows_that_it_cannot_compare(kind, row, dim, dtype, rng):
    x, units = rng.normal(size=(3 + TOGETHER, dim)).astype(dtype), np.ones((1, dim), dtype)
    out = np.empty(1, bool)
    bound = np.full(1, 10.0 * dim, dtype)
    reached(x, units, 0, bound, out)
    assert not out[0]
    if kind in ("nan", "inf"):
        x[3 + row, -1] = kind
    elif kind == "zero":
        x[3 + row] = 0
    else:
        x[3 + row] *= np.sqrt(SQUARES[kind == "long"] * (0.1 if kind == "short" else 10.0) / (x[3 + row] ** 2).sum())
    reached(x, units, 0, bound, out)
    assert out[0]
