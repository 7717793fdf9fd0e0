"""Prefetches are hints: that they compile, and change nothing, is all that shows."""

import numpy as np
from conftest import from_python

from rvtrain._engine._prefetch import prefetch_part, prefetch_row, prefetch_rows
from rvtrain._kernels import njit


@from_python
@njit
def sums(rows, x, y, z, out):
    for r in range(len(rows)):
        prefetch_rows(rows, r, x, y, z)
        prefetch_row(x, rows[r])
        prefetch_part(y, rows[r] * y.shape[1], 2 * y.size)  # also beyond the end
        out[r] = x[rows[r]].sum() + y[rows[r]].sum() + z[rows[r]].sum()


def test_prefetched_rows__are_as_they_were(dtype, rng):
    x, y, z = rng.normal(size=(3, 20, 37)).astype(dtype)
    rows, out = rng.integers(0, 20, 50), np.empty(50, dtype)
    sums(rows, x, y, z, out)
    np.testing.assert_allclose(out, (x + y + z)[rows].sum(axis=1), rtol=1e-4, atol=1e-4)
