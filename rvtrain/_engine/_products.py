"""Products on the tile engine whose result is an ordinary array: cosines of all rows with all columns."""

import numpy as np

from rvtrain._engine._blocks import (
    CHUNK,
    GROUP,
    Rows,
    block_panels,
    pack_columns,
    pack_left,
    panels_shape,
    score_block,
    tiles,
)
from rvtrain._engine._tile import mr, nr, tile_shape
from rvtrain._engine._workspace import workspace
from rvtrain._kernels import kernel, njit
from rvtrain._kernels._threads import thread_count


def packed_columns(columns: Rows) -> np.ndarray:
    """The columns of a product packed into panels, in scratch memory of this thread."""
    (count, dim), dtype = columns.x.shape, columns.x.dtype
    panels = workspace("panels", panels_shape(count, dim, dtype), dtype)
    none = np.empty((0, 0), dtype)
    pack_columns.sized(4 * columns.x.size)(len(panels), columns, panels, none)
    return panels


def row_products(rows: Rows, panels: np.ndarray, out: np.ndarray) -> None:
    """out[i, j] = row i · column j; panels from `packed_columns`, out (n, m).

    Each sum runs over k in the same order for all i and j, so equal vectors give equal bits.
    """
    height, width, _ = tile_shape(out.dtype)
    dim = panels.shape[1]
    tasks, panels_high = min(tiles(len(out), GROUP), 4 * thread_count()), GROUP // height
    block = min(block_panels(dim, out.dtype), len(panels))
    left = workspace("left", (tasks, panels_high, dim, height), out.dtype)
    scratch = workspace("scratch", (tasks, panels_high, block, height, width), out.dtype)
    _row_products.sized(out.size * dim)(tasks, rows, panels, left, scratch, out)


@kernel
def _row_products(start, stop, rows, panels, left, scratch, out):
    """The loop of `row_products`; for each task, left holds a group's packed rows and scratch a block of scores."""
    for task in range(start, stop):
        _groups(task, len(left), rows, panels, left[task], scratch[task], out)


@njit
def _groups(task, tasks, rows, panels, left, scratch, out):
    """The groups of rows that belong to a task."""
    count = (len(out) + GROUP - 1) // GROUP
    for g in range(count * task // tasks, count * (task + 1) // tasks):
        _group(g, rows, panels, left, scratch, out)


@njit
def _group(g, rows, panels, left, scratch, out):
    height, width, block = mr(out), nr(out), scratch.shape[1]
    pack_left(rows, g * GROUP, left)
    for start in range(0, len(panels), block):
        stop = min(start + block, len(panels))
        score_block(left, panels, start, stop, scratch, 0, start, CHUNK)
        for p in range(len(left)):
            for r in range(height):
                i = g * GROUP + p * height + r
                if i >= len(out):
                    break
                for j in range(start, stop):
                    for q in range(min(width, out.shape[1] - j * width)):
                        out[i, j * width + q] = scratch[p, j - start, r, q]
