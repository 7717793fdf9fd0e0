"""Comparison of the cosines of a query and four rows, where these are in memory, with a bound.

# Design: a row is read once, for its product with the query and for its square, and row after row: side by side, with
# fewer accumulators each, rows of 512 bytes took twice as long. Then the vectors of sums of four rows become a vector
# of four sums, by additions of pairs within each 128 bits, because moving elements between these takes longer.
# The hardware does not prefetch beyond the end of a page, so each row prefetches data that is used two pages later.
"""

import functools
import operator

import numpy as np

from rvtrain._engine._tile import vector_bytes
from rvtrain._kernels import emitted

TOGETHER = 4
"""Number of rows that are compared at once."""

SQUARES = 1e-12, 1e30
"""Range of ‖x‖² in which it is a normal number of either type, and ‖x‖ is above the ε of cosines."""

_VECTORS = 4
"""Number of vectors of a row that are added at once: as many accumulators of products, and of squares."""
_LINE, _AHEAD = 64, 8192  # bytes


def _may_reach(x, row, units, at, bound):
    rows = x[row : row + TOGETHER]
    squares = (rows * rows).sum(axis=1)
    products = rows @ units.reshape(-1)[at : at + x.shape[1]]
    fine = (squares > SQUARES[0]) & (squares < SQUARES[1]) & (products < bound * np.sqrt(squares))
    return not fine.all()


@emitted(_may_reach, np.bool_)
def may_reach(emit, x, row, units, at, bound):
    """Whether x[r] · u ≥ bound ‖x[r]‖ for one of the TOGETHER rows from `row` on, or ‖x[r]‖² is not within SQUARES.

    Sums have no fixed order. True if a row is not finite. x (n, d); units hold u (d,) from element `at` on; all
    C-contiguous.
    """
    size = x.dtype.itemsize
    lanes, dim, u = vector_bytes() // size, x.shape[1], units + at

    def adding(place, together, width=None):
        """The body of a loop that adds so many vectors, or numbers, to as many sums of products and of squares."""

        def body(k, *sums):
            if together > 1:
                for byte in range(0, together * lanes * size, _LINE):
                    (place + (k + (_AHEAD + byte) // size)).prefetch(False)
            y, z = ([(row + (k + i * lanes)).load(width) for i in range(together)] for row in (u, place))
            pairs = [*zip(y, z, strict=True), *zip(z, z, strict=True)]
            return [emit.fma(a, b, c) for (a, b), c in zip(pairs, sums, strict=True)]

        return body

    def sums_of(place):
        """The sums of products and of squares of a row: vectors of partial sums, then of elements that fill none."""
        zero, nothing = emit.constant(0.0, x.dtype), emit.constant(0.0, x.dtype, lanes)
        many, whole = dim - dim % (lanes * _VECTORS), dim - dim % lanes
        first = [nothing] * (2 * _VECTORS)
        first = emit.loop(emit.constant(0), many, lanes * _VECTORS, first, adding(place, _VECTORS, lanes))
        sums = [functools.reduce(operator.add, first[i : i + _VECTORS]) for i in (0, _VECTORS)]
        sums = emit.loop(many, whole, lanes, sums, adding(place, 1, lanes))
        return [*sums, *emit.loop(whole, dim, 1, [zero, zero], adding(place, 1))]

    rows = [sums_of(x + (row + r) * dim) for r in range(TOGETHER)]
    products, squares, *rest = zip(*rows, strict=True)
    product, square = (_sums(v) + _gathered(r) for v, r in zip((products, squares), rest, strict=True))
    least, most = (emit.constant(limit, x.dtype, TOGETHER) for limit in SQUARES)
    length = emit.call(f"llvm.sqrt.v{TOGETHER}f{8 * size}", square, square)
    fine = (square > least) & (square < most) & (bound.broadcast(TOGETHER) * length > product)
    return fine.bits().differs((1 << TOGETHER) - 1)


def _sums(vectors):
    """A vector of the sums of TOGETHER vectors."""
    size = left = 16 // vectors[0].dtype.itemsize
    while left > 1:
        vectors = [_added_pairs(a, b, size) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
        left //= 2
    while vectors[0].lanes > size:
        half = vectors[0].lanes // 2
        vectors = [v.shuffle(v, range(half)) + v.shuffle(v, range(half, 2 * half)) for v in vectors]
    return vectors[0] if len(vectors) == 1 else vectors[0].shuffle(vectors[1], range(TOGETHER))


def _added_pairs(a, b, size):
    """In each part of `size` elements: sums of neighbours in a, then of neighbours in b."""
    lanes = a.lanes
    first = [i + source + k for i in range(0, lanes, size) for source in (0, lanes) for k in range(0, size, 2)]
    return a.shuffle(b, first) + a.shuffle(b, [k + 1 for k in first])


def _gathered(numbers):
    """A vector of TOGETHER numbers."""
    pairs = [a.broadcast(2).shuffle(b.broadcast(2), [0, 2]) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return pairs[0].shuffle(pairs[1], range(TOGETHER))
