"""Screens against NumPy."""

import numpy as np
import pytest
from conftest import from_python

from rvtrain._engine import _byte_tile as bytes_
from rvtrain._engine._screen import any_above, any_at_least, any_between, at_least, between, count_reaching, greatest
from rvtrain._engine._tile import tile_shape
from rvtrain._kernels import njit


@from_python
@njit
def lines_between(values, low, high, out):
    for r in range(len(out)):
        out[r] = between(values, r * values.shape[1], low, high)


@from_python
@njit
def any_of_lines(values, low, high, above, within):
    for r in range(len(above)):
        above[r] = any_above(values, r * values.shape[1], low)
        within[r] = any_between(values, r * values.shape[1], low, high)


@from_python
@njit
def of_lines(values, first, stop, bound, out):
    across = values.shape[1]
    out[0] = count_reaching(values, first * across, stop * across, across, bound)
    out[1] = greatest(values, first * across, stop * across, across)


@from_python
@njit
def columns_at_least(tile, scales, errors, spreads, bounds, out, found):
    for r in range(len(out)):
        out[r] = at_least(tile, r, scales, errors, 1, spreads[2 + r], bounds[2 + r])
    found[0] = any_at_least(tile, scales, errors, 1, spreads, bounds, 2)


def test_between__sees_each_place_and_leaves_out_both_bounds(dtype):
    columns = tile_shape(dtype)[1]
    low, high = dtype(-0.5), dtype(0.5)
    outside = np.array([low, high, -np.inf, np.inf, np.nan], dtype)
    values = np.resize(outside, (columns + 1, columns + 3))
    values[:, columns:] = 0  # beyond the line
    values[np.arange(columns), np.arange(columns)] = np.nextafter(high, low)
    out = np.empty(len(values), np.uint32)
    lines_between(values, low, high, out)
    np.testing.assert_array_equal(out, [*(1 << np.arange(columns)), 0])


@pytest.mark.skipif(bytes_.byte_tile() is None, reason="needs fast products of bytes")
@pytest.mark.parametrize("bound", [30.0, 1e9])
def test_at_least__has_a_bit_for_each_column(bound, rng):
    tile = rng.integers(-500, 500, (bytes_.ROWS, bytes_.COLUMNS)).astype(np.int32)
    scales, errors = rng.random((2, 2, bytes_.COLUMNS)).astype(np.float32)
    spreads, bounds = rng.random((2, 2 + bytes_.ROWS)).astype(np.float32)
    bounds += np.float32(bound)
    expected = tile * scales[1].astype(float) + spreads[2:, np.newaxis] * errors[1].astype(float)
    hits = expected >= bounds[2:, np.newaxis]
    out, found = np.empty(bytes_.ROWS, np.uint32), np.empty(1, bool)
    columns_at_least(tile, scales, errors, spreads, bounds, out, found)
    np.testing.assert_array_equal(out, (hits * (1 << np.arange(bytes_.COLUMNS))).sum(axis=1))
    assert found[0] == hits.any()


@pytest.mark.skipif(bytes_.byte_tile() is None, reason="needs fast products of bytes")
def test_any_at_least__sees_each_place():
    ones = np.ones((2, bytes_.COLUMNS), np.float32)
    rows = np.ones(2 + bytes_.ROWS, np.float32)
    for r, c in np.ndindex(bytes_.ROWS, bytes_.COLUMNS):
        tile = np.full((bytes_.ROWS, bytes_.COLUMNS), -1, np.int32)
        tile[r, c] = 0
        out, found = np.empty(bytes_.ROWS, np.uint32), np.empty(1, bool)
        columns_at_least(tile, ones, ones, rows, rows, out, found)
        assert found[0]
        np.testing.assert_array_equal(out, (np.arange(bytes_.ROWS) == r) << c)


def test_any_above_and_between__see_each_place_and_leave_out_the_bounds(dtype):
    columns = tile_shape(dtype)[1]
    low, high = dtype(-0.5), dtype(0.5)
    values = np.resize(np.array([low, -np.inf], dtype), (2 * columns + 1, columns + 3))
    values[:, columns:] = 0  # beyond the line
    within = np.arange(columns)
    values[within, within] = np.nextafter(low, high)
    values[columns + within, within] = high
    above, between_them = np.empty((2, len(values)), bool)
    any_of_lines(values, low, high, above, between_them)
    np.testing.assert_array_equal(above, [True] * (2 * columns) + [False])
    np.testing.assert_array_equal(between_them, [True] * columns + [False] * (columns + 1))


@pytest.mark.parametrize(("first", "stop"), [(0, 1), (2, 9), (3, 40)])
def test_count_reaching_and_greatest__are_those_of_the_lines_given(first, stop, dtype, rng):
    columns = tile_shape(dtype)[1]
    values = rng.integers(-4, 4, (40, columns + 2)).astype(dtype)
    lines, out = values[first:stop, :columns], np.empty(2)
    for bound in (-4, 1, 3, 4):
        of_lines(values, first, stop, dtype(bound), out)
        assert out[0] == (lines >= bound).sum() and out[1] == lines.max()
    for r, c in ((0, 0), (stop - first - 1, columns - 1)):
        values[first + r, c] = 10 + c
        of_lines(values, first, stop, dtype(5), out)
        assert out[1] == 10 + c
