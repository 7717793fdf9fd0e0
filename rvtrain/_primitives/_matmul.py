"""Matrix products on the tile engine. The left operand is rows of a table, read where they stand.

# Design: both operands are packed in the microkernel's reading order (`_engine.py`), the left by groups of its
# rows, a stretch of k at a time; accumulators are written to a padded output, which is as large as whole tiles:
#
#     out[i, c] = Σ_k left[i, k] right[k, c]        left  = x[rows], or its transpose
#                                                   right = w, or its transpose, or w + 1 for a residual layer
#
# No copy of x[rows] is made beyond a group's, no BLAS and its threads are woken beside ours, and the result does not
# depend on how many threads there are.
"""

from typing import Any

import numpy as np

from rvtrain._jit import kernel, njit, prange
from rvtrain._primitives._engine import CHUNK, GROUP, tiles
from rvtrain._primitives._tile import mr, nr, tile_panels, tile_shape
from rvtrain._primitives._workspace import workspace
from rvtrain._threads import thread_count

_STRETCH = 8 * CHUNK
"""Of k, that a group's packed rows hold at a time."""


def product(x: np.ndarray, rows: np.ndarray | None, w: np.ndarray, *, residual: bool = False) -> np.ndarray:
    """x[rows] @ w, of shape (len(rows), m), for x (n, d) and w (d, m); plus x[rows] if residual."""
    x, rows = _readable(x, rows)
    return _multiply(x, rows, False, _packed(w, False, residual), len(rows), w.shape[1])


def product_with_transpose(x: np.ndarray, w: np.ndarray, *, residual: bool = False) -> np.ndarray:
    """x @ w.T, for x (n, m) and w (d, m); plus x if residual: how a gradient goes back through `product`."""
    x, rows = _readable(x, None)
    return _multiply(x, rows, False, _packed(w, True, residual), len(x), len(w))


def transposed_product(x: np.ndarray, rows: np.ndarray | None, g: np.ndarray) -> np.ndarray:
    """x[rows].T @ g, of shape (d, m), for x (n, d) and g (len(rows), m): the gradient to the w of `product`."""
    x, rows = _readable(x, rows)
    return _multiply(x, rows, True, _packed(g, False, False), x.shape[1], g.shape[1])


def _readable(x: np.ndarray, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """A table that kernels read, and which of its rows; from files and views only those rows are copied."""
    if not (x.flags.c_contiguous and x.flags.writeable) or type(x) is not np.ndarray:
        x = np.array(x if rows is None else x[rows], order="C", subok=False)
        rows = None
    return x, np.arange(len(x)) if rows is None else rows


def _packed(w: np.ndarray, transposed: bool, residual: bool) -> np.ndarray:
    w, (depth, across) = np.ascontiguousarray(w), w.shape[::-1] if transposed else w.shape
    width = tile_shape(w.dtype)[1]
    panels = workspace("right", (tiles(across, width), depth, width), w.dtype)
    _pack_right.sized(4 * w.size)(w, transposed, residual, panels)
    return panels


def _multiply(x: Any, rows: np.ndarray, transposed: bool, panels: np.ndarray, high: int, wide: int) -> np.ndarray:
    height, width, _ = tile_shape(x.dtype)
    across, depth, _ = panels.shape
    padded = tiles(high, height)
    group = min(GROUP // height, tiles(padded, 4 * thread_count()))
    left = workspace("left rows", (tiles(padded, group), group, min(_STRETCH, depth), height), x.dtype)
    out = np.empty((padded * height, across * width), x.dtype)
    _multiply_groups.sized(out.size * depth)(x, rows, transposed, panels, left, out)
    return np.ascontiguousarray(out[:high, :wide])


@kernel
def _pack_right(w, transposed, residual, panels):
    """panels[j, k, q] = element (k, j · NR + q) of w or its transpose, with 1 added on the diagonal if residual."""
    for block in prange((panels.shape[1] + CHUNK - 1) // CHUNK):
        _pack_block(np.int64(block) * CHUNK, w, transposed, residual, panels)


@njit
def _pack_block(first, w, transposed, residual, panels):
    """The same for k from `first` on: rows of w are read from one end to the other."""
    width, depth = nr(panels), panels.shape[1]
    across = len(w) if transposed else w.shape[1]
    whole, last = across // width, min(first + CHUNK, depth)
    if transposed:
        for c in range(across):
            for k in range(first, last):
                panels[c // width, k, c % width] = w[c, k]
    else:
        for k in range(first, last):
            for j in range(whole):
                part = w[k, j * width : (j + 1) * width]
                for q in range(width):
                    panels[j, k, q] = part[q]
            for c in range(whole * width, across):
                panels[whole, k, c - whole * width] = w[k, c]
    if across > whole * width:
        panels[whole, first:last, across - whole * width :] = 0
    if residual:
        for k in range(first, min(last, across)):
            panels[k // width, k, k % width] += 1


@kernel
def _multiply_groups(x, rows, transposed, panels, left, out):
    """out = x[rows] · right, or x[rows]ᵀ · right, padded to whole tiles; left (groups, G, stretch, MR) is scratch."""
    for g in prange(len(left)):
        _multiply_group(np.int64(g), x, rows, transposed, panels, left[g], out)


@njit
def _multiply_group(g, x, rows, transposed, panels, left, out):
    height, width = mr(out), nr(out)
    depth, stretch, stride = panels.shape[1], left.shape[1], out.shape[1]
    first = g * len(left) * height
    high = min(len(left), (len(out) - first) // height)
    for start in range(0, depth, stretch):
        stop = min(start + stretch, depth)
        for p in range(high):
            if transposed:
                _pack_columns_of(x, rows, first + p * height, start, stop, left[p])
            else:
                _pack_rows_of(x, rows, first + p * height, start, stop, left[p])
        for j in range(len(panels)):
            for p in range(high):
                at = (first + p * height) * stride + j * width
                for k in range(start, stop, CHUNK):
                    a, b = (p * stretch + k - start) * height, (j * depth + k) * width
                    steps = min(CHUNK, stop - k)
                    tile_panels(left, a, height, panels, b, steps, out, at, stride, k > 0)


@njit
def _pack_rows_of(x, rows, first, start, stop, left):
    """left[k − start, r] = element k of row rows[first + r], 0 beyond the last."""
    for r in range(left.shape[1]):
        if first + r < len(rows):
            row = x[rows[first + r]]
            for k in range(start, stop):
                left[k - start, r] = row[k]
        else:
            left[: stop - start, r] = 0


@njit
def _pack_columns_of(x, rows, first, start, stop, left):
    """left[k − start, r] = element first + r of row rows[k], 0 beyond the last element."""
    here = min(left.shape[1], x.shape[1] - first)
    for k in range(start, stop):
        row = x[rows[k]]
        for r in range(here):
            left[k - start, r] = row[first + r]
        for r in range(here, left.shape[1]):
            left[k - start, r] = 0
