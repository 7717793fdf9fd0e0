"""The microkernel of 16-bit products: a register tile, whose lanes add two products at a time, and its screen.

# Design: as `_byte_tile.py`, of the same shape, but an int32 word of either operand holds two signed codes of 16
# bits, *shorts*. AVX-512 VNNI adds the products of a word in one instruction (vpdpwssd), AVX2 in two (vpmaddwd and
# vpaddd): half the time of products of floats, and twice that of products of bytes. Rows at length one are rounded to
# shorts with one scale for all rows, so that products are compared with bounds as integers. Their sums fit in 32
# bits, because no row of shorts is longer than 2¹⁵·⁵ (Cauchy–Schwarz).
"""

import functools
import operator

import numpy as np

from rvtrain._engine._byte_tile import COLUMNS, LANES, PARTIAL, ROWS, UNROLLED
from rvtrain._kernels import emitted

LARGEST = 32767
"""Greatest magnitude of a short."""

_MOST_ROWS = 12
"""Rows whose sums are in registers at once; the tile of bytes on AMX has more."""


def _tile_shorts(left, at, right, right_at, steps, out):
    a = left.reshape(-1)[at : at + steps * ROWS].view(np.int16).reshape(steps, ROWS, 2)
    b = right.reshape(-1)[right_at : right_at + steps * COLUMNS].view(np.int16).reshape(steps, COLUMNS, 2)
    out[:] = np.einsum("krb,kcb->rc", a.astype(np.int64), b.astype(np.int64))


@emitted(_tile_shorts)
def tile_shorts(emit, left, at, right, right_at, steps, out):
    """out[r, c] = Σ over k < steps and over the shorts of left word [k, r] · right word [k, c].

    left and right are C-contiguous int32 arrays of words [k][ROWS] and [k][COLUMNS], read from element offsets `…at`;
    out (ROWS, COLUMNS) int32.
    """
    for top in range(0, ROWS, _MOST_ROWS):
        rows = range(top, min(top + _MOST_ROWS, ROWS))
        _tile_of(emit, rows, left + at, right + right_at, steps, out)


def _tile_of(emit, rows, left, right, steps, out):
    """These rows of the tile."""
    places = [out + (r * COLUMNS + c) for r in rows for c in range(0, COLUMNS, LANES)]

    def adding(together):
        """The body of a loop that adds so many words of each row and column to the tile, vectors row by row."""

        def body(k, a, b, *tile):
            sums = list(tile)
            for _ in range(together):
                row = [(b + c).load(LANES) for c in range(0, COLUMNS, LANES)]
                for n, r in enumerate(rows):
                    word = (a + r).load().broadcast(LANES)
                    for i, x in enumerate(row, n * len(row)):
                        sums[i] = _add_products(emit, sums[i], x, word)
                a, b = a + ROWS, b + COLUMNS
            return [a, b, *sums]

        return body

    whole = steps - steps % UNROLLED
    nothing = [emit.constant(0, np.int32, LANES)] * len(places)
    carried = emit.loop(emit.constant(0), whole, UNROLLED, [left, right, *nothing], adding(UNROLLED))
    _, _, *sums = emit.loop(whole, steps, 1, carried, adding(1))
    for place, total in zip(places, sums, strict=True):
        place.store(total)


def _add_products(emit, sums, a, b):
    """sums + the two products of each lane."""
    if not PARTIAL:
        return emit.call("llvm.x86.avx512.vpdpwssd.512", sums, sums, a, b)
    return sums + emit.call("llvm.x86.avx2.pmadd.wd", sums, a.view(np.int16), b.view(np.int16))


def _screen_shorts(tile, lows, highs, at, counts, passed, above):
    low, high = (x[at : at + ROWS, np.newaxis] for x in (lows, highs))
    powers, over = 1 << np.arange(COLUMNS, dtype=np.int64), tile >= high
    above[:], passed[:] = over @ powers, ((tile >= low) & ~over) @ powers
    counts[at : at + ROWS] += over.sum(axis=1)
    return bool(passed.any())


@emitted(_screen_shorts, np.bool_)
def screen_shorts(emit, tile, lows, highs, at, counts, passed, above):
    """Bit c of above[r] is set where tile[r, c] ≥ highs[at + r], else bit c of passed[r] where it is ≥ lows[at + r].

    counts[at + r] grows by the number of bits of above[r]. Returns whether a bit of passed is set. tile (ROWS,
    COLUMNS), lows and highs int32, counts int64, passed and above (ROWS,) uint32; C-contiguous.
    """
    any_of = []
    for r in range(ROWS):
        low, high = ((x + at + r).load().broadcast(LANES) for x in (lows, highs))
        hits = over = emit.constant(0, np.int32)
        for c in range(0, COLUMNS, LANES):
            products = (tile + (r * COLUMNS + c)).load(LANES)
            hits = hits | ((products >= low) & (high > products)).bits() << c
            over = over | (products >= high).bits() << c
        (passed + r).store(hits)
        (above + r).store(over)
        count = counts + at + r
        count.store(count.load() + emit.call("llvm.ctpop.i32", over, over).unsigned(np.intp))
        any_of.append(hits)
    return functools.reduce(operator.or_, any_of).differs(0)


def short_words(dim: int) -> int:
    """Number of words of two shorts in a row of length `dim`."""
    return -(-dim // 2)


def units_of(dim: int) -> tuple[int, int]:
    """The codes of 1 to choose from: the largest, with which codes beyond LARGEST are cut, and one that fits all.

    Rounding adds at most √d / 2 to the length of a row of codes, which stays below 46340, whose square is below 2³¹.
    """
    most = int(46339 - np.sqrt(dim) / 2)
    return most, min(most, LARGEST - 1)
