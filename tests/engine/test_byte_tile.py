"""The microkernel of 8-bit products against NumPy in int64."""

import numpy as np
import pytest
from conftest import from_python

from rvtrain._engine import _byte_tile as bytes_
from rvtrain._engine._amx import begin_tiles, end_tiles
from rvtrain._kernels import njit

pytestmark = pytest.mark.skipif(bytes_.byte_tile() is None, reason="needs fast products of bytes")


@from_python
@njit
def tile_of(left, right, start, out):
    begin_tiles()
    bytes_.tile_bytes(left, 0, right, 0, len(left), start, 0, out)
    end_tiles()


def starts(left, offset):
    """−offset Σ left codes as `tile_bytes` reads it, int32 (parts, ROWS)."""
    if bytes_.PARTIAL == 0:
        return -offset * left.sum(axis=(0, 2), dtype=np.int32)[np.newaxis]
    parts = [left[k : k + bytes_.PARTIAL].astype(np.int64) for k in range(0, len(left), bytes_.PARTIAL)]
    lanes = np.array([part.reshape(len(part), -1, 2, 2).sum(axis=(0, 3)) for part in parts])
    return (-offset * lanes).astype(np.int16).view(np.int32)[..., 0]


def packed(left):
    """Words of rows as a left operand: runs of DEEP words of each row."""
    words = left.view(np.int32)[..., 0]
    runs = words.reshape(-1, bytes_.DEEP, bytes_.ROWS).transpose(0, 2, 1)
    return np.ascontiguousarray(runs).reshape(words.shape)


@pytest.mark.parametrize("steps", [bytes_.words(4 * n) for n in (1, 2, 31, 32, 33, 96, 100)])
@pytest.mark.parametrize("kind", ["random", "largest", "smallest", "opposite"])
def test_tile__sums_products_and_saturates_nowhere(kind, steps, rng):
    """Codes as long as the sums of 16 bits allow: 181 in each lane of a part."""
    levels, lane = bytes_.TILE.left_levels, 2 * min(steps, bytes_.PARTIAL or 1)
    most = min(levels, int(181 / np.sqrt(lane))) if bytes_.PARTIAL else levels
    left = rng.integers(-most, most + 1, (steps, bytes_.ROWS, 4)).astype(np.int8)
    right = rng.integers(-most, most + 1, (steps, bytes_.COLUMNS, 4))
    if kind != "random":
        left[:], right[:] = -most if kind == "smallest" else most, -most if kind == "opposite" else most
    if steps == 1 or not bytes_.PARTIAL:  # pairs by themselves must not saturate either
        right *= 127 // most
    unsigned = (right + bytes_.OFFSET).astype(np.uint8)
    out = np.empty((bytes_.ROWS, bytes_.COLUMNS), np.int32)
    tile_of(packed(left), unsigned.view(np.int32)[..., 0], starts(left, bytes_.OFFSET), out)
    np.testing.assert_array_equal(out, np.einsum("krb,kcb->rc", left.astype(np.int64), right.astype(np.int64)))
