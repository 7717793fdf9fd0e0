"""Comparison of the random numbers of a row's next columns with a bound: no floats, and no logarithms of them."""

import numpy as np

from rvtrain._engine import _random as random
from rvtrain._engine._tile import tile_shape, vector_bytes
from rvtrain._kernels import emitted, njit

_BITS = 53
_MASK = (1 << 64) - 1


@njit
def drawn_limit(low):
    """The `limit` of `drawn_above` for numbers `uniform` above `low`, and for a few below it due to rounding."""
    return np.int64(min(max(low, 0.0), 1.0) * 2.0**_BITS) - 2


def _drawn_above(values, key, column, limit):
    first = int(np.uint64(key)) + int(column) * int(random.GOLDEN)
    hits = 0
    for q in range(tile_shape(values.dtype)[1]):
        x = first + q * int(random.GOLDEN) & _MASK
        x = (x ^ x >> 30) * int(random.MIX1) & _MASK
        x = (x ^ x >> 27) * int(random.MIX2) & _MASK
        hits |= ((x ^ x >> 31) >> 11 > limit) << q
    return np.uint32(hits)


@emitted(_drawn_above, np.uint32)
def drawn_above(emit, values, key, column, limit):
    """Bit q is set where the 53 bits from which `uniform(key, column + q)` is made exceed `limit`, for q < NR.

    NR is that of the dtype of `values`, an array that is not read.
    """
    columns, lanes = tile_shape(values.dtype)[1], vector_bytes() // 8

    def constant(number, lanes=lanes):
        return emit.constant((number + (1 << 63) & _MASK) - (1 << 63), np.int64, lanes)

    def mixed(x, shift, factor=None):
        shifted = x // constant(1 << shift)
        x = (x | shifted) - (x & shifted)  # the compiler makes an exclusive or of it
        return x if factor is None else x * constant(factor)

    steps, size = constant(0), 1
    while size < lanes:  # 0, 1, 2, … times the step from column to column, bit by bit of the position
        picks = [lanes if lane & size else 0 for lane in range(lanes)]
        steps = steps + constant(0).shuffle(constant(size * int(random.GOLDEN)), picks)
        size *= 2
    first = (key + column * constant(int(random.GOLDEN), None)).broadcast(lanes) + steps
    least, bits = limit.broadcast(lanes), emit.constant(0, np.int32)
    for c in range(0, columns, lanes):
        x = first + constant(c * int(random.GOLDEN))
        x = mixed(mixed(mixed(x, 30, int(random.MIX1)), 27, int(random.MIX2)), 31)
        bits = bits | (x // constant(1 << 11) > least).bits() << c
    return bits
