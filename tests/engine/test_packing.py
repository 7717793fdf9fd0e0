"""Blocks of rows in registers: turned on their side, scaled, or as they are."""

import numpy as np
import pytest
from conftest import from_python

from rvtrain._engine._packing import copy_part, transpose_rows, transpose_scaled
from rvtrain._engine._tile import tile_shape
from rvtrain._kernels import njit


@from_python
@njit
def by_number(x, rows, i, k, target, at, stride):
    transpose_rows(x, rows, i, k, target, at, stride)


@from_python
@njit
def scaled(x, inverse, i, k, target, at, stride):
    transpose_scaled(x, inverse, i, k, target, at, stride)


@from_python
@njit
def part(x, row, c, target, at):
    copy_part(x, row, c, target, at)


@pytest.mark.parametrize("extra", [0, 3])
def test_transpose__writes_one_block_and_nothing_else(dtype, extra, rng):
    size = tile_shape(dtype)[0]
    x = rng.normal(size=(2 * size + 1, size + 5)).astype(dtype)
    rows = rng.permutation(len(x))
    inverse = rng.random(len(x))
    for call, numbers, block in (
        (by_number, rows, x[rows[2 : 2 + size]]),
        (scaled, inverse, (x * inverse[:, np.newaxis]).astype(dtype)[2 : 2 + size]),
    ):
        target = np.full((size + 1) * (size + extra), -7, dtype)
        expected = target.copy()
        call(x, numbers, 2, 4, target, 1, size + extra)
        for c in range(size):
            start = 1 + c * (size + extra)
            expected[start : start + size] = block[:, 4 + c]
        np.testing.assert_array_equal(target, expected)


def test_copy_part__writes_one_part_and_nothing_else(dtype, rng):
    size = tile_shape(dtype)[0]
    x, target = rng.normal(size=(3, size + 4)).astype(dtype), np.zeros(size + 5, dtype)
    part(x, 1, 3, target, 2)
    np.testing.assert_array_equal(target, np.concatenate([[0, 0], x[1, 3 : 3 + size], np.zeros(3)]))
