"""Cosines of all rows with all columns, written to an ordinary array."""

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
from rvtrain._engine._scratch import Scratch, scratch
from rvtrain._engine._tile import mr, nr, tile_shape
from rvtrain._kernels import body, kernel
from rvtrain._kernels._threads import thread_count


def packed_columns(columns: Rows, memory: Scratch | None = None) -> np.ndarray:
    """The panels (m / NR, d, NR) of columns (m, d), right operand of `score_block`; in scratch memory if given."""
    (count, dim), dtype = columns.x.shape, columns.x.dtype
    shape = panels_shape(count, dim, dtype)
    panels = np.empty(shape, dtype) if memory is None else memory.array(shape, dtype)
    no_strips = np.empty((0, 0), dtype)
    pack_columns.sized(4 * columns.x.size)(len(panels), columns, panels, no_strips)
    return panels


def row_products(rows: Rows, panels: np.ndarray, out: np.ndarray) -> None:
    """out[i, j] = unit row i · unit column j.

    Shapes: rows Rows of (n, d), panels from `packed_columns`, out (n, m).

    Every sum over k has the same order, so that equal vectors give equal bits.
    """
    height, width, _ = tile_shape(out.dtype)
    dim = panels.shape[1]
    tasks, high = min(tiles(len(out), GROUP), 4 * thread_count()), GROUP // height
    block = min(block_panels(dim, out.dtype), len(panels))
    with scratch() as memory:
        left = memory.array((tasks, high, dim, height), out.dtype)
        slabs = memory.array((tasks, high, block, height, width), out.dtype)
        _row_products.sized(out.size * dim)(tasks, rows, panels, left, slabs, out)


@kernel
def _row_products(start, stop, rows, panels, left, slabs, out):
    """As `row_products`. Count is the number of tasks, which share the groups of rows.

    Shapes: left (tasks, GROUP / MR, d, MR) and slabs (tasks, GROUP / MR, block, MR, NR) are scratch.
    """
    tasks, groups, block = len(left), (len(out) + GROUP - 1) // GROUP, slabs.shape[2]
    for task in range(start, stop):
        for group in range(groups * task // tasks, groups * (task + 1) // tasks):
            pack_left(rows, group * GROUP, left[task])
            for begin in range(0, len(panels), block):
                end = min(begin + block, len(panels))
                score_block(left[task], panels, begin, end, slabs[task], 0, begin, CHUNK)
                _copy_block(slabs[task], group * GROUP, begin, end, out)


@body
def _copy_block(slab, top, begin, end, out):
    """Copy the scores of panels [begin, end) to rows top … of out."""
    height, width = mr(out), nr(out)
    for r in range(min(GROUP, len(out) - top)):
        for j in range(begin, end):
            for q in range(min(width, out.shape[1] - j * width)):
                out[top + r, j * width + q] = slab[r // height, j - begin, r % height, q]
