"""Packed copies of operands as words of two bfloat16 numbers, in the reading order of the tiles.

# Design: the copies have the shapes of those of float32 numbers (`_blocks.py`), with half as many k:
#
#     panels, left   [k / 2][NR or MR]   a word holds neighbouring elements of a row
#     strips         [rows / 2][width]   a word holds the same element of neighbouring rows
#     slab           in place of a tile of weights, both: see `_tile.py`
#
# In "high" (`_bfloat16.py`), panels have three sections of words, and strips of the rests follow those of the main
# parts.
"""

import numpy as np

from rvtrain._engine._bfloat16 import joined, neighbours, pairs, rounded, word
from rvtrain._engine._packing import transpose_scaled_words
from rvtrain._engine._tile import mr, narrow_nr, nr, tile_shape
from rvtrain._kernels import body, emitted, inlined


@inlined
def section_words(panels, dim):
    """Words in each section of packed rows of length `dim`; panels (…, words, MR or NR)."""
    deep = 2 * mr(panels)
    return min(panels.shape[1], ((dim + 1) // 2 + deep - 1) // deep * deep)


@body
def pack_words(rows, first, panels, j, q):
    """panels[j, k, q + r] = word of elements 2 k and 2 k + 1 of row first + r for r < MR, 0 beyond the edges.

    In each section: of their main parts, of their rests, of their main parts.
    """
    height, (_, depth, width), (count, dim) = mr(panels), panels.shape, rows.x.shape
    whole, section = dim // 2 // height * height if first + height <= count else 0, section_words(panels, dim)
    for begin in range(0, depth, section):
        rest = begin == section
        for k in range(0, whole, height):
            at = (j * depth + begin + k) * width + q
            transpose_scaled_words(rows.x, rows.inverse, first, 2 * k, panels, at, width, rest)
        for r in range(height):
            i = first + r
            for k in range(whole, section):
                if i < count and 2 * k < dim:
                    scale, second = rows.inverse[i], 2 * k + 1
                    upper = np.float32(rows.x[i, second] * scale if second < dim else 0.0)
                    panels[j, begin + k, q + r] = word(np.float32(rows.x[i, 2 * k] * scale), upper, rest)
                else:
                    panels[j, begin + k, q + r] = 0


@body
def pack_word_strips(rows, shares, first, start, stop, wide, rest, strips):
    """As `pack_strips`: in the strip of column c, word [j][q] holds element c + q of row first + 2 j and of the next.

    Or their rests. Shapes: strips (d padded, rows / 2). Columns before `wide` are in strips of NR columns. start and
    stop count rows, and are even.
    """
    (padded, long), (count, dim) = strips.shape, rows.x.shape
    c = 0
    while c < padded:
        width = nr(strips) if c < wide else narrow_nr(strips)
        strip = strips[c : c + width].reshape(long, width)
        for j in range(start, stop, 2):
            i = first + j
            one = np.float32(_factor(rows, shares, i))
            two = np.float32(_factor(rows, shares, i + 1))
            upper, lower = rows.x[min(i + 1, count - 1)], rows.x[min(i, count - 1)]
            line = strip[j // 2]
            if c + width <= dim and c < wide:
                for q in range(nr(strips)):
                    line[q] = word(lower[c + q] * one, upper[c + q] * two, rest)
            elif c + width <= dim:
                for q in range(narrow_nr(strips)):
                    line[q] = word(lower[c + q] * one, upper[c + q] * two, rest)
            else:
                for q in range(width):
                    line[q] = word(lower[c + q] * one, upper[c + q] * two, rest) if c + q < dim else 0
        c += width


@inlined
def _factor(rows, shares, i):
    """The factor of row i, 0 beyond the last row."""
    if i >= len(rows.x):
        return 0.0
    return rows.inverse[i] * shares[i] if len(shares) > 0 else rows.inverse[i]


def _narrow_tile(slab, at):
    height, width, _ = tile_shape(slab.dtype)
    tile = slab.reshape(-1)[at : at + height * width]
    numbers = tile.reshape(height, width).copy()
    halves = joined(numbers[:, ::2], numbers[:, 1::2]), joined(numbers[::2], numbers[1::2])
    tile.view(np.int32)[:] = np.concatenate([half.ravel() for half in halves])


@emitted(_narrow_tile)
def narrow_tile(emit, slab, at):
    """Write the words of a tile in its place, from element `at` on: of neighbouring columns, then of rows."""
    height, width, lanes = tile_shape(slab.dtype)
    tile = slab + at
    lines = [[rounded((tile + (r * width + c)).load(lanes)) for c in range(0, width, lanes)] for r in range(height)]
    for r, line in enumerate(lines):
        place = tile + r * width // 2
        for part in neighbours(line):
            place.store(part)
            place = place + part.lanes
    for r in range(0, height, 2):
        for c, (a, b) in enumerate(zip(lines[r], lines[r + 1], strict=True)):
            (tile + (height * width // 2 + r * width // 2 + c * lanes)).store(pairs(a, b))


@body
def narrow_block(slab, top, panels, begin, end, origin):
    """Write the words of a block of weights in their place. Shapes: slab (rows / MR, panels, MR, NR) float32."""
    size, across = mr(slab) * nr(slab), slab.shape[1]
    for p in range(panels):
        for j in range(begin, end):
            narrow_tile(slab, ((top + p) * across + j - origin) * size)
