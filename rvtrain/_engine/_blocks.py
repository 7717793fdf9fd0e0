"""The tile engine: products of all rows with all columns, a block of scores at a time.

# Design: everything between memory and the microkernel (`_tile.py`) is a packed copy in its reading order:
#
#   columns (m, d)  ─ pack_panels ─▶  panels [m / NR][d][NR]    right operand of scores = rows · columnsᵀ
#                   ─ pack_strips ─▶  strips [d / NR][m][NR]    right operand of weights · columns; the last ones
#                                                               narrower, where that fits d (`narrow_shape`)
#   rows (n, d)     ─ pack_left ───▶  left   [rows / MR][d][MR] left operand of scores
#
#   scores live in a slab [rows / MR][m / NR][MR][NR], written, transformed and read tile by tile:
#
#               ◀──────────── columns ────────────▶
#             ┌────┬────┬────┬────┬────┬────┬────┐
#      group  │MR×NR    │    │    │    │    │    │   A *group* of rows meets a *block* of columns: the block's
#      of rows├────┼────┼────┼────┼────┼────┼────┤   panels stay in the second-level cache while all row panels
#             │    │    │    │    │    │    │    │   of the group pass, and so do the fresh scores.
#             └────┴────┴────┴────┴────┴────┴────┘
#              block of columns   …
#
# Edges are padded with zeros to whole tiles, so that they need no code of their own.
# A sum over k runs in chunks of fixed size, each from zero, and chunks are added in order. So the result depends on
# the shapes but not on the number of threads, and rounding errors grow with the chunk, not with the whole sum.
# While a group's rows meet one chunk of the right operand, the next one is prefetched. The third product has no such
# prefetch: its chunks meet too few rows to pay for it. Of rows longer than a chunk, scores and sums have left the
# second-level cache before a tile is written to them: the place of the next tile is prefetched.
# Operands in bfloat16 are packed as words of two numbers (`_word_packing.py`), and k counts words; the functions here
# know them by the type of the arrays, int32. On tile registers (uint32) the right operands are the same, and the left
# ones and the loops are others (`_amx_blocks.py`); `_operands.py` has the functions for all types.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._bfloat16 import holds_words, per_element
from rvtrain._engine._packing import transpose_scaled
from rvtrain._engine._prefetch import prefetch_part, prefetch_to_write
from rvtrain._engine._tile import (
    mr,
    narrow_nr,
    narrow_shape,
    narrow_tile_columns,
    narrow_tile_rows,
    nr,
    tile_columns,
    tile_panels,
    tile_rows,
    tile_shape,
)
from rvtrain._engine._word_packing import pack_word_strips, pack_words
from rvtrain._kernels import body, element_type, inlined, kernel, njit, overload
from rvtrain._kernels._caches import cache_sizes

CHUNK = 128
"""Number of k that one pass of the microkernel sums, starting from zero: 12 to 16 KiB of the right operand, for a
first-level cache of 32 KiB or more. The same on every machine, because the rounding of a sum depends on it."""

FINE_CHUNK = 16
"""The same if scores are then divided by a tiny temperature, which magnifies their rounding errors."""

GROUP = 64
"""Rows that share each block of columns while it is in cache: a multiple of every MR."""

BLOCKS_IN_CACHE = 4
"""Share of the second-level cache for the panels of one block of columns: a quarter. With the strips of the same
columns, they take half of it. It also bounds the scores of a group of rows with the block, which each task of a
search keeps."""


class Rows(NamedTuple):
    """Vectors with the factors that normalise them: row i is x[i] · inverse[i]; x (n, d), inverse (n,) float64."""

    x: np.ndarray
    inverse: np.ndarray


def tiles(count: int, size: int) -> int:
    """Number of tiles of `size` rows (or columns) that cover `count` of them."""
    return -(-count // size)


def panels_shape(count: int, dim: int, dtype: np.dtype) -> tuple[int, int, int]:
    """Shape of `count` packed columns of length `dim`."""
    width = tile_shape(dtype)[1]
    return tiles(count, width), dim, width


def padded_dim(dim: int, dtype: np.dtype) -> int:
    """Columns of all strips together."""
    _, width, lanes = tile_shape(dtype)
    wide, narrow = narrow_shape(dim, dtype)
    return wide * width + narrow * (width - lanes)


def block_panels(dim: int, dtype: np.dtype, chunk: int = CHUNK) -> int:
    """Number of column panels in a block: a multiple of those in a chunk of so many columns."""
    width = tile_shape(dtype)[1]
    per_chunk = max(1, chunk // width)
    fit = cache_sizes().second // BLOCKS_IN_CACHE // (max(dim, GROUP) * width * np.dtype(dtype).itemsize)
    return max(1, fit // per_chunk) * per_chunk


@njit
def part_of(size, count):
    """Elements that each of `count` tiles prefetches so that `size` are there after the last one."""
    return (size + count - 1) // count


@kernel
def pack_columns(start, stop, rows, panels, strips):
    """Pack the columns of the scores, `rows` (m, d), into panels and into strips, unless strips are empty."""
    width = nr(panels)
    for j in range(start, stop):
        first = j * width
        for q in range(0, width, mr(panels)):
            _pack_rows(rows, first + q, panels, j, q)
        if len(strips) > 0:
            pack_strips(rows, rows.inverse[:0], 0, first, first + width, strips)


def _pack_rows(rows, first, panels, j, q):
    """panels[j, k, q + r] = element (or word) k of row first + r for r < MR, 0 beyond the last row."""
    _rows_into(panels.dtype)(rows, first, panels, j, q)


def _rows_into(dtype):
    return _word_rows if holds_words(dtype) else _number_rows


def _word_rows(rows, first, panels, j, q):
    pack_words(rows, first, panels, j, q)


def _number_rows(rows, first, panels, j, q):
    _pack_numbers(rows, first, panels, j, q)


@overload(_pack_rows)
def _pack_rows_as(rows, first, panels, j, q):
    return _rows_into(element_type(panels))


@body
def _pack_numbers(rows, first, panels, j, q):
    """panels[j, k, q + r] = element k of row first + r for r < MR, 0 beyond the last row."""
    height, width, (count, dim) = mr(panels), panels.shape[2], rows.x.shape
    whole = dim // height * height if first + height <= count else 0
    for k in range(0, whole, height):
        transpose_scaled(rows.x, rows.inverse, first, k, panels, (j * dim + k) * width + q, width)
    for r in range(height):
        i = first + r
        if i < count:
            for k in range(whole, dim):
                panels[j, k, q + r] = rows.x[i, k] * rows.inverse[i]
        else:
            for k in range(dim):
                panels[j, k, q + r] = 0


@njit
def wide_columns(padded, array):
    """Number of the padded columns that are in strips of NR columns; the others are in narrower strips."""
    width, narrow = nr(array), narrow_nr(array)
    lanes = width - narrow
    return padded - (-(padded // lanes)) % (width // lanes) * narrow


def pack_strips(rows, shares, first, start, stop, strips):
    """Pack rows into strips: in the strip from column c on, [j][q] = shares[i] · element c + q of row i = first + j.

    Writes j in [start, stop); without the factor if shares are empty; 0 beyond the edges. Two rows make one of words.
    """
    _strips_into(strips.dtype)(rows, shares, first, start, stop, strips)


def _strips_into(dtype):
    return _word_strips if holds_words(dtype) else _number_strips


def _word_strips(rows, shares, first, start, stop, strips):
    width = nr(strips)
    padded = min(len(strips), (rows.x.shape[1] + width - 1) // width * width)
    for c in range(0, len(strips), padded):  # of the main parts, and in "high" of the rests
        part = strips[c : c + padded]
        pack_word_strips(rows, shares, first, start, stop, wide_columns(padded, strips), c > 0, part)


def _number_strips(rows, shares, first, start, stop, strips):
    _pack_number_strips(rows, shares, first, start, stop, strips)


@overload(pack_strips)
def _pack_strips_as(rows, shares, first, start, stop, strips):
    return _strips_into(element_type(strips))


@body
def _pack_number_strips(rows, shares, first, start, stop, strips):
    """`pack_strips` of numbers; strips (d padded, rows)."""
    (padded, long), (count, dim) = strips.shape, rows.x.shape
    wide, c = wide_columns(padded, strips), 0
    while c < padded:
        width = nr(strips) if c < wide else narrow_nr(strips)
        strip = strips[c : c + width].reshape(long, width)
        prefetch_to_write(strips, (c + width) * long + start * width, (stop - start) * width)
        for j in range(start, stop):
            i = first + j
            scale = rows.inverse[i] if i < count else 0.0
            if i < count and len(shares) > 0:
                scale *= shares[i]
            if i < count and c + width <= dim:
                part, line = rows.x[i, c : c + width], strip[j]
                if c < wide:  # loops of constant length: all of it in a few instructions
                    for q in range(nr(strips)):
                        line[q] = part[q] * scale
                else:
                    for q in range(narrow_nr(strips)):
                        line[q] = part[q] * scale
            else:
                for q in range(width):
                    strip[j, q] = rows.x[i, c + q] * scale if i < count and c + q < dim else 0.0
        c += width


@body
def pack_left(rows, first, left):
    """left[p, k, r] = element k of row first + p · MR + r, 0 beyond the last."""
    for p in range(len(left)):
        _pack_rows(rows, first + p * mr(left), left, p, 0)


@body
def score_block(left, panels, start, stop, slab, top, origin, chunk):
    """slab[top + p, j − origin] = left[p]ᵀ panels[j] for all row panels p, column panels j in [start, stop)."""
    height, width = mr(left), nr(left)
    dim, across = left.shape[1], slab.shape[1]
    for j in range(start, stop):
        for k in range(0, dim, chunk):  # outside the loop over p, so that this part of the panel stays in L1
            steps, b = min(chunk, dim - k), (j * dim + k) * width
            ahead = part_of(steps * width, len(left))
            for p in range(len(left)):
                a, at = (p * dim + k) * height, ((top + p) * across + j - origin) * height * width
                prefetch_part(panels, b + steps * width + p * ahead, ahead)
                if k == 0 and dim > chunk:
                    prefetch_to_write(slab, at + across * height * width, height * width)
                tile_panels(left, a, height, panels, b, steps, slab, at, width, k > 0)


@inlined
def _prefetch_tile(sums, at, stride, high, wide):
    """Begin to fetch `high` rows of `wide` sums, `stride` apart from element `at` on: a tile will be added there."""
    for r in range(high):
        prefetch_to_write(sums, at + r * stride, wide)


@body
def add_weighted_columns(slab, top, start, stop, origin, strips, sums):
    """sums[p] += slab[top + p, start − origin : stop − origin] · columns, for all row panels p.

    Shapes: sums (P, MR, d padded). If start is 0, the sums are overwritten instead of added to. In words, the slab is
    read as int32.
    """
    height, width = mr(slab), nr(slab)
    size, deep = height * width, width // per_element(slab)
    across, (padded, long) = slab.shape[1], strips.shape
    wide, c, per_chunk = wide_columns(padded, strips), 0, max(1, CHUNK // width)
    while c < padded:
        strip = width if c < wide else narrow_nr(strips)
        for j in range(start, stop, per_chunk):
            blocks = min(per_chunk, stop - j)
            b = c * long + j * deep * strip
            then = b + blocks * deep * strip if j + blocks < stop else (c + strip) * long + start * deep * strip
            ahead = part_of(blocks * deep * strip, len(sums))
            for p in range(len(sums)):
                a, out = ((top + p) * across + j - origin) * size, p * height * padded + c
                prefetch_part(strips, then + p * ahead, ahead)
                if j == start and padded > CHUNK:
                    _prefetch_tile(sums, out + strip, padded, height, strip)
                if c < wide:
                    tile_rows(slab, a, size, strips, b, blocks, sums, out, padded, j > 0)
                else:
                    narrow_tile_rows(slab, a, size, strips, b, blocks, sums, out, padded, j > 0)
        c += strip


@body
def add_weighted_rows(slab, j, strips, sums, first):
    """sums[c] += Σ_i slab's weight of row i for column c · row i, for the columns of panel j.

    strips (d padded, rows of the slab) hold the rows; sums (m padded, d padded). `first` is the number of rows in
    earlier slabs; if it is 0, the sums are overwritten instead of added to.
    """
    height, width = mr(slab), nr(slab)
    size, deep = height * width, height // per_element(slab)
    across, (padded, long) = slab.shape[1], strips.shape
    wide, s, per_chunk = wide_columns(padded, strips), 0, CHUNK // height
    while s < padded:
        strip = width if s < wide else narrow_nr(strips)
        for i in range(0, len(slab), per_chunk):
            blocks = min(per_chunk, len(slab) - i)
            b = s * long + i * deep * strip
            for c in range(0, width, height):
                a, out = (i * across + j) * size + c, (j * width + c) * padded + s
                if i == 0 and padded > CHUNK:
                    _prefetch_tile(sums, out + strip, padded, height, strip)
                if s < wide:
                    tile_columns(slab, a, across * size, strips, b, blocks, sums, out, padded, first + i > 0)
                else:
                    narrow_tile_columns(slab, a, across * size, strips, b, blocks, sums, out, padded, first + i > 0)
        s += strip
