"""The mask: excludes scores of a block by setting them to −inf."""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._tile import mr, nr, tile_shape
from rvtrain._kernels import body, kernel, njit


class Mask(NamedTuple):
    """The excluded pairs of a row and a column, and the bias of each column; unused arrays are empty."""

    rows: int
    """n, number of rows without the padding"""
    columns: int
    """m, number of columns without the padding"""
    diagonals: np.ndarray
    """(D,) int64: column i + diagonals[k] is row i itself or its own positive, and masked"""
    row_ids: np.ndarray
    """(n, r) int32"""
    ids: np.ndarray
    """(c, m padded) int32: a pair that shares an id is masked or, with EQUAL, reported to the treatment; −1: no id"""
    limits: np.ndarray
    """(n,): scores of row i above limits[i] are masked"""
    bias: np.ndarray
    """(m padded,): added to the scores of a column, after the comparison with the limits"""
    bounds: np.ndarray = np.empty(0, np.int64)
    """(n + 1,), or (0,) without such lists"""
    excluded: np.ndarray = np.empty(0, np.int32)
    """The columns excluded[bounds[i] : bounds[i + 1]], distinct and on no diagonal, are masked in row i."""


@body
def mask_block(slab, top, panels, start, stop, origin, first, mask, equal):
    """Set masked scores to −inf and add the bias of their columns; pairs that share an id are masked only if `equal`.

    Shapes: slab (P, m / NR, MR, NR). Its row panels from `top` up to `top + panels` hold the rows from `first` on.
    Its column panel j − origin holds the columns from j · NR on, for j in [start, stop).
    """
    height, width = mr(slab), nr(slab)
    lowest = slab.dtype.type(-np.inf)
    if stop * width > mask.columns:
        for p in range(top, top + panels):
            for r in range(height):
                for q in range(max(mask.columns - (stop - 1) * width, 0), width):
                    slab[p, stop - 1 - origin, r, q] = lowest
    for p in range(panels):
        for r in range(height):
            i = first + p * height + r
            if i >= mask.rows:
                _mask_row(slab, top + p, r, start - origin, stop - origin)
                continue
            if len(mask.limits) > 0:
                _mask_above(slab, top + p, r, start - origin, stop - origin, mask.limits[i])
            for diagonal in mask.diagonals:
                if start * width <= i + diagonal < stop * width:
                    slab[top + p, (i + diagonal) // width - origin, r, (i + diagonal) % width] = lowest
            if len(mask.bias) > 0:
                for j in range(start, stop):
                    for q in range(width):
                        slab[top + p, j - origin, r, q] += mask.bias[j * width + q]
            if len(mask.bounds) > 0:
                for s in range(mask.bounds[i], mask.bounds[i + 1]):
                    column = mask.excluded[s]
                    if start * width <= column < stop * width:
                        slab[top + p, column // width - origin, r, column % width] = lowest
            if equal and i < len(mask.row_ids):
                for known in mask.row_ids[i]:
                    for c in range(len(mask.ids)):
                        for j in range(start, stop):
                            for q in range(width):
                                if mask.ids[c, j * width + q] == known:
                                    slab[top + p, j - origin, r, q] = lowest


@njit
def _mask_row(slab, p, r, start, stop):
    for j in range(start, stop):
        for q in range(nr(slab)):
            slab[p, j, r, q] = slab.dtype.type(-np.inf)


@njit
def _mask_above(slab, p, r, start, stop, limit):
    for j in range(start, stop):
        for q in range(nr(slab)):
            value = slab[p, j, r, q]
            slab[p, j, r, q] = slab.dtype.type(-np.inf) if value > limit else value


@njit
def equal_ids(mask, i, j, width, flags):
    """flags[q] = 1 if row i shares an id with column j · width + q and is not on a diagonal, else 0."""
    for q in range(len(flags)):
        flags[q] = 0
    if i < len(mask.row_ids):
        for known in mask.row_ids[i]:
            for c in range(len(mask.ids)):
                for q in range(len(flags)):
                    flags[q] |= mask.ids[c, j * width + q] == known
        for diagonal in mask.diagonals:
            if j * width <= i + diagonal < (j + 1) * width:
                flags[i + diagonal - j * width] = 0


def count_scores(mask: Mask) -> np.ndarray:
    """Number of columns of each row that are not masked, float64; ignores limits and the guide."""
    out = np.full(mask.rows, float(mask.columns - len(mask.diagonals)))
    if len(mask.bounds):
        out -= np.diff(mask.bounds)
    if mask.ids.size and mask.row_ids.size:
        width = tile_shape(mask.limits.dtype)[1]
        _take_equal.sized(4 * mask.rows * mask.ids.size)(mask.rows, mask, np.empty((mask.rows, width), np.int32), out)
    return out


@kernel
def _take_equal(start, stop, mask, flags, out):
    """out[i] −= number of columns that share an id with row i and are not on a diagonal; flags (n, NR) is scratch."""
    for i in range(start, stop):
        for j in range(mask.ids.shape[1] // flags.shape[1]):
            equal_ids(mask, i, j, flags.shape[1], flags[i])
            for q in range(flags.shape[1]):
                out[i] -= flags[i, q]
