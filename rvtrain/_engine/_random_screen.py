"""Comparison of the random numbers of a row's next columns with a bound: no floats, and no logarithms of them."""

import numpy as np

from rvtrain._engine import _random as random
from rvtrain._engine._tile import tile_shape, vector_bytes
from rvtrain._kernels import emitted, njit

_BITS = 31  # the last step of `mix` does not change them
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
        hits |= (x >> 64 - _BITS > limit) << q
    return np.uint32(hits)


@emitted(_drawn_above, np.uint32)
def drawn_above(emit, values, key, column, limit):
    """Bit q is set where the first 31 bits of `uniform(key, column + q)` exceed `limit`, for q < NR.

    NR is that of the dtype of `values`, an array that is not read.
    """
    columns, lanes = tile_shape(values.dtype)[1], vector_bytes() // 8

    def constant(number, lanes=lanes):
        return emit.constant((number + (1 << 63) & _MASK) - (1 << 63), np.int64, lanes)

    def mixed(x, shift, factor):
        shifted = x // constant(1 << shift)
        return ((x | shifted) - (x & shifted)) * constant(int(factor))  # the compiler makes it an exclusive or

    steps, size = constant(0), 1
    while size < lanes:  # 0, 1, 2, … times the step from column to column, bit by bit of the position
        picks = [lanes if lane & size else 0 for lane in range(lanes)]
        steps = steps + constant(0).shuffle(constant(size * int(random.GOLDEN)), picks)
        size *= 2
    first = (key + column * constant(int(random.GOLDEN), None)).broadcast(lanes) + steps
    least, bits = limit.broadcast(lanes), emit.constant(0, np.int32)
    for c in range(0, columns, lanes):
        x = first + constant(c * int(random.GOLDEN))
        x = mixed(mixed(x, 30, random.MIX1), 27, random.MIX2)
        bits = bits | (x // constant(1 << 64 - _BITS) > least).bits() << c
    return bits
