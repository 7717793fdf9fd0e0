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

from rvtrain._engine._bfloat16 import joined, neighbours, pairs, part, part_of, rounded
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


def _pair_part(x, first, second, c, target, at, rest):
    size = tile_shape(x.dtype)[0]
    one, two = (part(x[row, c : c + size], rest) for row in (first, second))
    target.reshape(-1)[at : at + size] = joined(one, two)


@emitted(_pair_part)
def pair_part(emit, x, first, second, c, target, at, rest):
    """target[at + r] = word of x[first, c + r] and x[second, c + r] for r < MR; x (n, d), target C-contiguous."""
    size = tile_shape(x.dtype)[0]
    one, two = (rounded(part_of((x + (row * x.shape[1] + c)).load(size), rest)) for row in (first, second))
    (target + at).store(pairs(one, two))


def _transposing(scaled):
    """A function that transposes rows given by number or, if `scaled`, consecutive rows times a factor each."""

    def interpreted(x, of_row, i, k, target, at, stride):
        size = tile_shape(x.dtype)[0]
        target.reshape(-1)[_places(size, at, stride)] = _rows(scaled, x, of_row, i)[:, k : k + size].T

    @emitted(interpreted)
    def transpose(emit, x, of_row, i, k, target, at, stride):
        size = tile_shape(x.dtype)[0]
        for c, values in enumerate(turned([_load(scaled, x, of_row, i + r, k, size) for r in range(size)])):
            (target + (at + stride * c)).store(values)

    return transpose


def _transposing_words(scaled):
    """The same with words of neighbouring elements of a row in place of elements."""

    def interpreted(x, of_row, i, k, target, at, stride, rest):
        size = tile_shape(x.dtype)[0]
        rows = part(_rows(scaled, x, of_row, i)[:, k : k + 2 * size], rest)
        target.reshape(-1)[_places(size, at, stride)] = joined(rows[:, ::2], rows[:, 1::2]).T

    @emitted(interpreted)
    def transpose(emit, x, of_row, i, k, target, at, stride, rest):
        size = tile_shape(x.dtype)[0]

        def load(r):
            return neighbours([rounded(part_of(_load(scaled, x, of_row, i + r, k, 2 * size), rest))])[0]

        for c, values in enumerate(turned([load(r) for r in range(size)])):
            (target + (at + stride * c)).store(values)

    return transpose


def _places(size, at, stride):
    return at + np.arange(size)[:, np.newaxis] * stride + np.arange(size)


def _rows(scaled, x, of_row, i):
    numbers = of_row[i : i + tile_shape(x.dtype)[0]]
    return x[i : i + len(numbers)] * numbers[:, np.newaxis] if scaled else x[numbers]


def _load(scaled, x, of_row, row, k, count):
    """Elements k … of a row, multiplied by its factor in float64 if `scaled`, else of the row of that number."""
    number = (of_row + row).load()
    values = (x + ((row if scaled else number) * x.shape[1] + k)).load(count)
    if not scaled:
        return values
    return (values.astype(np.float64) * number.broadcast(count)).astype(x.dtype)


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
transpose_words = _transposing_words(scaled=False)
"""``(x, rows, i, k, target, at, stride, rest)``: as `transpose_rows`, with the word of x[rows[i + r], k + 2 c] and of
the next element, or of their rests, in place of an element."""
transpose_scaled_words = _transposing_words(scaled=True)
"""As `transpose_scaled`, for words."""
