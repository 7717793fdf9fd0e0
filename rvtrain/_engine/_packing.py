"""Copies and transposes rows into packed panels, MR elements in a register at a time.

# Design: a vector holds MR elements of a row, and there are MR of them. Round s = 1, 2, 4, … swaps the two
# off-diagonal s × s blocks in each 2s × 2s block. After the last round, vector c holds element c of every row:
#
#     a0 a1 a2 a3        a0 b0 a2 b2        a0 b0 c0 d0
#     b0 b1 b2 b3   s=1  a1 b1 a3 b3   s=2  a1 b1 c1 d1
#     c0 c1 c2 c3   ──▶  c0 d0 c2 d2   ──▶  a2 b2 c2 d2
#     d0 d1 d2 d3        c1 d1 c3 d3        a3 b3 c3 d3
"""

import numpy as np

from rvtrain._engine._bfloat16 import joined, neighbours, pairs, rounded
from rvtrain._engine._tile import tile_shape
from rvtrain._kernels import emitted
from rvtrain._kernels._vectors import Value


def _copy_part(x, row, c, target, at):
    size = tile_shape(x.dtype)[0]
    target.reshape(-1)[at : at + size] = x[row, c : c + size]


@emitted(_copy_part)
def copy_part(emit, x, row, c, target, at):
    """target[at + r] = x[row, c + r] for r < MR; x (n, d), target C-contiguous, `at` in elements.

    An assignment of views does the same, but making a view takes as long as the copy.
    """
    (target + at).store((x + (row * x.shape[1] + c)).load(tile_shape(x.dtype)[0]))


def _pair_part(x, first, second, c, target, at):
    size = tile_shape(x.dtype)[0]
    target.reshape(-1)[at : at + size] = joined(x[first, c : c + size], x[second, c : c + size])


@emitted(_pair_part)
def pair_part(emit, x, first, second, c, target, at):
    """target[at + r] = word of x[first, c + r] and x[second, c + r] for r < MR; x (n, d), target C-contiguous."""
    size = tile_shape(x.dtype)[0]
    one, two = (rounded((x + (row * x.shape[1] + c)).load(size)) for row in (first, second))
    (target + at).store(pairs(one, two))


def _transposing(scaled, in_words=False):
    """A function that transposes rows given by number or, if `scaled`, consecutive rows times a factor each.

    If `in_words`, words of neighbouring elements of a row take the place of elements.
    """
    long = 2 if in_words else 1

    def interpreted(x, of_row, i, k, target, at, stride):
        size = tile_shape(x.dtype)[0]
        numbers, places = of_row[i : i + size], at + np.arange(size)[:, np.newaxis] * stride + np.arange(size)
        rows = (x[i : i + size] * numbers[:, np.newaxis] if scaled else x[numbers])[:, k : k + long * size]
        target.reshape(-1)[places] = (joined(rows[:, ::2], rows[:, 1::2]) if in_words else rows).T

    @emitted(interpreted)
    def transpose(emit, x, of_row, i, k, target, at, stride):
        size = tile_shape(x.dtype)[0]

        def load(r):
            row = i + r
            number = (of_row + row).load()
            values = (x + ((row if scaled else number) * x.shape[1] + k)).load(long * size)
            if scaled:
                values = (values.astype(np.float64) * number.broadcast(long * size)).astype(x.dtype)
            return neighbours([rounded(values)])[0] if in_words else values

        for c, values in enumerate(turned([load(r) for r in range(size)])):
            (target + (at + stride * c)).store(values)

    return transpose


def turned(rows: list[Value]) -> list[Value]:
    """The columns of a square, given as vectors of its rows."""
    rows, size, s = list(rows), len(rows), 1
    while s < size:
        upper = [size + j - s if j & s else j for j in range(size)]
        lower = [size + j if j & s else j + s for j in range(size)]
        for r in (r for r in range(size) if not r & s):
            a, b = rows[r], rows[r + s]
            rows[r], rows[r + s] = a.shuffle(b, upper), a.shuffle(b, lower)
        s *= 2
    return rows


transpose_rows = _transposing(scaled=False)
"""``(x, rows, i, k, target, at, stride)``: target[at + c · stride + r] = x[rows[i + r], k + c] for r, c < MR.

x (n, d), rows (m,) int64; target C-contiguous, offsets in elements.
"""
transpose_scaled = _transposing(scaled=True)
"""``(x, inverse, i, k, target, at, stride)``: target[at + c · stride + r] = x[i + r, k + c] · inverse[i + r].

Multiplied in float64; x (n, d), inverse (n,) float64; target C-contiguous, offsets in elements.
"""
transpose_words = _transposing(scaled=False, in_words=True)
"""As `transpose_rows`, with the word of x[rows[i + r], k + 2 c] and of the next element in place of an element."""
transpose_scaled_words = _transposing(scaled=True, in_words=True)
"""As `transpose_scaled`, for words."""
