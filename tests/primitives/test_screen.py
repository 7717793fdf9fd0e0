"""Screens against NumPy."""

import numpy as np
import pytest

from rvtrain._jit import kernel
from rvtrain._primitives import _byte_tile as bytes_
from rvtrain._primitives._screen import at_least, between
from rvtrain._primitives._tile import tile_shape


@kernel
def lines_between(values, low, high, out):
    for r in range(len(out)):
        out[r] = between(values, r * values.shape[1], low, high)


@kernel
def columns_at_least(tile, scales, errors, scale, spread, bound, out):
    for r in range(len(out)):
        out[r] = at_least(tile, r, scales, errors, 0, scale, spread, bound)


def test_between__sees_each_place_and_leaves_out_both_bounds(dtype):
    columns = tile_shape(dtype)[1]
    low, high = dtype(-0.5), dtype(0.5)
    outside = np.array([low, high, -np.inf, np.inf, np.nan], dtype)
    values = np.resize(outside, (columns + 1, columns + 3))
    values[:, columns:] = 0  # beyond the line
    values[np.arange(columns), np.arange(columns)] = np.nextafter(high, low)
    out = np.empty(len(values), np.uint32)
    lines_between.serial(values, low, high, out)
    np.testing.assert_array_equal(out, [*(1 << np.arange(columns)), 0])


@pytest.mark.skipif(bytes_.byte_tile() is None, reason="needs fast products of bytes")
def test_at_least__has_a_bit_for_each_column(rng):
    tile = rng.integers(-500, 500, (bytes_.ROWS, bytes_.COLUMNS)).astype(np.int32)
    scales, errors = rng.random((2, 1, bytes_.COLUMNS)).astype(np.float32)
    scale, spread, bound = np.float32(0.5), np.float32(2.0), np.float32(30.0)
    out = np.empty(bytes_.ROWS, np.uint32)
    columns_at_least.serial(tile, scales, errors, scale, spread, bound, out)
    hits = tile * scales.astype(float) * scale + spread * errors.astype(float) >= bound
    np.testing.assert_array_equal(out, (hits * (1 << np.arange(bytes_.COLUMNS))).sum(axis=1))
