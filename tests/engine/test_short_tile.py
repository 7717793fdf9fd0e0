"""The microkernel of 16-bit products and its screen, against NumPy in int64."""

import numpy as np
import pytest
from conftest import from_python

from rvtrain._engine import _byte_tile as bytes_
from rvtrain._engine._short_tile import LARGEST, screen_shorts, short_words, tile_shorts, units_of
from rvtrain._kernels import njit

pytestmark = pytest.mark.skipif(bytes_.byte_tile() is None, reason="needs fast products of bytes")

SHAPE = bytes_.ROWS, bytes_.COLUMNS


@from_python
@njit
def tile_of(left, right, out):
    tile_shorts(left, 1, right, 2, len(right) // out.shape[1], out)


@from_python
@njit
def screened(tile, lows, highs, counts, passed, above, some):
    some[0] = screen_shorts(tile, lows, highs, 2, counts, passed, above)


@pytest.mark.parametrize("dim", [1, 2, 3, 63, 64, 100, 769])
@pytest.mark.parametrize("kind", ["random", "largest", "opposite"])
def test_tile__sums_products_of_rows_as_long_as_they_may_be(kind, dim, rng):
    unit, rows = units_of(dim)[0], [rng.normal(size=(count, dim)) for count in SHAPE]
    if kind != "random":
        rows[0][:], rows[1][:] = 1, -1 if kind == "opposite" else 1
    codes = [np.zeros((count, 2 * short_words(dim)), np.int16) for count in SHAPE]
    for x, c in zip(rows, codes, strict=True):
        c[:, :dim] = np.rint(unit * x / np.linalg.norm(x, axis=1, keepdims=True)).clip(-LARGEST, LARGEST)
    left, right = (np.concatenate([np.full(n, 9), c.view(np.int32).T.ravel()]).astype(np.int32)
                   for n, c in zip((1, 2), codes, strict=True))  # fmt: skip
    out = np.empty(SHAPE, np.int32)
    tile_of(left, right[: 2 + short_words(dim) * SHAPE[1]], out)
    np.testing.assert_array_equal(out, codes[0].astype(np.int64) @ codes[1].astype(np.int64).T)


@pytest.mark.parametrize(("low", "high"), [(-20, 30), (40, 30), (2**31 - 1, 2**31 - 1), (-(2**31), 2**31 - 1)])
def test_screen__has_a_bit_for_each_column(low, high, rng):
    tile = rng.integers(-60, 60, SHAPE).astype(np.int32)
    lows, highs = (np.full(2 + SHAPE[0], x, np.int32) for x in (low, high))
    if abs(low) < 50:
        lows[2:] += rng.integers(-9, 9, SHAPE[0]).astype(np.int32)
    counts, some = np.full(2 + SHAPE[0], 5), np.empty(1, bool)
    passed, above = np.empty((2, SHAPE[0]), np.uint32)
    screened(tile, lows, highs, counts, passed, above, some)
    over = tile >= highs[2:, np.newaxis]
    hits = (tile >= lows[2:, np.newaxis]) & ~over
    for found, wanted in ((above, over), (passed, hits)):
        np.testing.assert_array_equal(found, (wanted * (1 << np.arange(SHAPE[1]))).sum(axis=1))
    np.testing.assert_array_equal(counts, [5, 5, *(5 + over.sum(axis=1))])
    assert some[0] == hits.any()
