"""Screens of random numbers against the numbers themselves."""

import numpy as np
import pytest
from conftest import from_python

from rvtrain._engine._random import row_key, uniform
from rvtrain._engine._random_screen import drawn_above, drawn_limit
from rvtrain._engine._tile import tile_shape
from rvtrain._kernels import njit

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled

LINES = 500


@from_python
@njit
def draws_above(values, seed, row, low, bits, numbers):
    key, width = row_key(seed, 3, row), numbers.shape[1]
    for r in range(len(bits)):
        bits[r] = drawn_above(values, key, r * width, drawn_limit(low))
        for q in range(width):
            numbers[r, q] = uniform(key, r * width + q)


@pytest.mark.parametrize("low", [-1.0, 0.0, 0.3, 0.999, 1.0, 2.0])
def test_drawn_above__has_a_bit_for_each_number_above_and_few_others(low, dtype):
    columns = tile_shape(dtype)[1]
    bits, numbers = np.empty(LINES, np.uint32), np.empty((LINES, columns))
    draws_above(np.empty(columns, dtype), 2**62 + 5, 7, low, bits, numbers)
    found = (bits[:, np.newaxis] >> np.arange(columns)) & 1 > 0
    np.testing.assert_array_equal(bits >> np.uint32(columns - 1) >> np.uint32(1), 0)
    assert found[numbers > low].all()
    assert not found[numbers < low - 2.0**-29].any()


def test_drawn_above__leaves_out_no_number_at_the_limit(dtype):
    columns = tile_shape(dtype)[1]
    bits, numbers = np.empty(LINES, np.uint32), np.empty((LINES, columns))
    draws_above(np.empty(columns, dtype), 1, 0, 0.0, bits, numbers)
    for r, q in ((0, 0), (3, columns - 1), (LINES - 1, 1)):
        draws_above(np.empty(columns, dtype), 1, 0, np.nextafter(numbers[r, q], 0.0), bits, numbers)
        assert bits[r] >> q & 1
