"""The microkernel of 8-bit products against NumPy in int64."""

import numpy as np
import pytest

from rvtrain._jit import kernel
from rvtrain._primitives import _byte_tile as bytes_

pytestmark = pytest.mark.skipif(bytes_.byte_tile() is None, reason="needs fast products of bytes")


@kernel
def tile_of(left, right, start, out):
    bytes_.tile_bytes(left, 0, right, 0, len(left), start, 0, out)


@pytest.mark.parametrize("steps", [1, 2, 33])
@pytest.mark.parametrize("kind", ["random", "largest", "smallest"])
def test_tile__sums_products_and_saturates_nowhere(kind, steps, rng):
    levels = bytes_.TILE.left_levels
    left = rng.integers(-levels, levels + 1, (steps, bytes_.ROWS, 4)).astype(np.int8)
    right = rng.integers(1, 256, (steps, bytes_.COLUMNS, 4)).astype(np.uint8)
    if kind != "random":
        left[:], right[:] = levels if kind == "largest" else -levels, 255
    start = rng.integers(-1000, 1000, bytes_.ROWS).astype(np.int32)
    out = np.empty((bytes_.ROWS, bytes_.COLUMNS), np.int32)
    tile_of.serial(left.view(np.int32)[..., 0], right.view(np.int32)[..., 0], start, out)
    expected = start[:, np.newaxis] + np.einsum("krb,kcb->rc", left.astype(np.int64), right.astype(np.int64))
    np.testing.assert_array_equal(out, expected)
