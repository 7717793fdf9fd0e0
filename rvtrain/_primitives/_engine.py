"""The tile engine: products of all rows with all columns, a block of scores at a time.

# Design: everything between memory and the microkernel (`_tile.py`) is a packed copy in its reading order:
#
#   columns (m, d)  ─ pack_panels ─▶  panels [m / NR][d][NR]    right operand of scores = rows · columnsᵀ
#                   ─ pack_strips ─▶  strips [d / NR][m][NR]    right operand of weights · columns
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
# Edges are padded with zeros to whole tiles: no second code path, and d = 100 costs what d = 128 does.
# A sum over k runs in chunks of fixed size, each from zero, and chunks are added in order: the result
# depends on the shapes alone, never on the threads, and rounding grows with the chunk, not with the whole.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._jit import kernel, njit, prange
from rvtrain._primitives._tile import mr, nr, tile_columns, tile_panels, tile_rows, tile_shape

CHUNK = 128
"""Longest k that one pass of the microkernel sums from zero."""

FINE_CHUNK = 16
"""The same where scores are about to be divided by a tiny temperature, and their rounding with them."""

GROUP = 64
"""Rows that share each block of columns while it is in cache: a multiple of every MR."""

_BLOCK_BYTES = 1 << 18
"""Of the panels in one block of columns: with the strips of the same columns, half of a 1 MiB cache."""


class Rows(NamedTuple):
    """Vectors to be read at length one: row i is x[i] · inverse[i]; x (n, d), inverse (n,) float64."""

    x: np.ndarray
    inverse: np.ndarray


def tiles(count: int, size: int) -> int:
    """How many tiles of this size cover so many rows or columns."""
    return -(-count // size)


def panels_shape(count: int, dim: int, dtype: np.dtype) -> tuple[int, int, int]:
    """Shape of `count` packed columns of length `dim`."""
    width = tile_shape(dtype)[1]
    return tiles(count, width), dim, width


def strips_shape(count: int, dim: int, dtype: np.dtype) -> tuple[int, int, int]:
    """Shape of the same columns packed for weighted sums; whole tiles of columns."""
    width = tile_shape(dtype)[1]
    return tiles(dim, width), tiles(count, width) * width, width


def block_panels(dim: int, dtype: np.dtype) -> int:
    """Column panels in a block: whole chunks of columns."""
    width = tile_shape(dtype)[1]
    per_chunk = max(1, CHUNK // width)
    fit = _BLOCK_BYTES // (dim * width * np.dtype(dtype).itemsize)
    return max(1, fit // per_chunk) * per_chunk


@kernel
def pack_columns(rows, panels, strips):
    """Both packed copies of the rows (m, d), which are the columns of the scores; strips may be empty."""
    width = nr(panels)
    for j in prange(len(panels)):
        for q in range(width):
            i = j * width + q
            if i < len(rows.x):
                for k in range(rows.x.shape[1]):
                    panels[j, k, q] = rows.x[i, k] * rows.inverse[i]
            else:
                for k in range(rows.x.shape[1]):
                    panels[j, k, q] = 0
        if len(strips) > 0:
            pack_strips(rows, rows.inverse[:0], 0, j * width, (j + 1) * width, strips)


@njit
def pack_strips(rows, shares, first, start, stop, strips):
    """strips[p, j, q] = element p · NR + q of row i = first + j, for j in [start, stop); 0 beyond the edges.

    Times shares[i], unless there are none.
    """
    width = nr(strips)
    count, dim = rows.x.shape
    for j in range(start, stop):
        i = first + j
        whole = dim // width if i < count else 0
        strips[whole:, j] = 0
        if i < count:
            scale = rows.inverse[i] * shares[i] if len(shares) > 0 else rows.inverse[i]
            for p in range(whole):
                part = rows.x[i, p * width : (p + 1) * width]
                for q in range(width):
                    strips[p, j, q] = part[q] * scale
            for q in range(dim - whole * width):
                strips[whole, j, q] = rows.x[i, whole * width + q] * scale


@njit
def pack_left(rows, first, left):
    """left[p, k, r] = element k of row first + p · MR + r, 0 beyond the last."""
    height = mr(left)
    for p in range(len(left)):
        for r in range(height):
            i = first + p * height + r
            if i < len(rows.x):
                for k in range(rows.x.shape[1]):
                    left[p, k, r] = rows.x[i, k] * rows.inverse[i]
            else:
                for k in range(rows.x.shape[1]):
                    left[p, k, r] = 0


@njit
def score_block(left, panels, start, stop, slab, top, origin, chunk):
    """slab[top + p, j − origin] = left[p]ᵀ panels[j] for all row panels p, column panels j in [start, stop)."""
    height, width = mr(left), nr(left)
    dim, across = left.shape[1], slab.shape[1]
    for j in range(start, stop):
        for k in range(0, dim, chunk):  # outside of p: this part of the panel stays in the first cache
            steps, b = min(chunk, dim - k), (j * dim + k) * width
            for p in range(len(left)):
                a, at = (p * dim + k) * height, ((top + p) * across + j - origin) * height * width
                tile_panels(left, a, height, panels, b, steps, slab, at, width, k > 0)


@njit
def add_weighted_columns(slab, top, start, stop, strips, sums):
    """sums[p] += slab[top + p, start:stop] · these columns, for all row panels p; sums (P, MR, d padded).

    From column 0 on, sums are started instead of added to.
    """
    height, width = mr(slab), nr(slab)
    size = height * width
    across, padded, long = slab.shape[1], sums.shape[2], strips.shape[1]
    per_chunk = max(1, CHUNK // width)
    for s in range(len(strips)):
        for j in range(start, stop, per_chunk):
            blocks = min(per_chunk, stop - j)
            b = (s * long + j * width) * width
            for p in range(len(sums)):
                a, out = ((top + p) * across + j) * size, p * height * padded + s * width
                tile_rows(slab, a, size, strips, b, blocks, sums, out, padded, j > 0)


@njit
def add_weighted_rows(slab, j, strips, sums, first):
    """sums[c] += Σ_i slab's weight of row i for column c · row i, for the columns of panel j.

    strips (d / NR, rows of the slab, NR) holds the rows, of which `first` says how many came before, in other
    slabs: from 0 on, sums (m padded, d padded) are started instead of added to.
    """
    height, width = mr(slab), nr(slab)
    size = height * width
    across, padded, long = slab.shape[1], sums.shape[1], strips.shape[1]
    per_chunk = CHUNK // height
    for s in range(len(strips)):
        for i in range(0, len(slab), per_chunk):
            blocks = min(per_chunk, len(slab) - i)
            b = (s * long + i * height) * width
            for c in range(0, width, height):
                a, out = (i * across + j) * size + c, (j * width + c) * padded + s * width
                tile_columns(slab, a, across * size, strips, b, blocks, sums, out, padded, first + i > 0)
