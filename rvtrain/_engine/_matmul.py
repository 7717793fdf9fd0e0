"""Matrix products on the tile engine. The left operand consists of rows of a table, which are not copied first.

# Design: both operands are packed in the microkernel's reading order (`_blocks.py`), the left one by groups of its
# rows and a stretch of k at a time:
#
#     out[i, c] = Σ_k left[i, k] right[k, c]        left  = x[rows], or its transpose
#                                                   right = w, or its transpose, or w + 1 for a residual layer
#
#     for a stretch of k: pack the group's rows; for a panel of columns; for a chunk of k; for the group's row panels:
#         a tile, whose right operand (a chunk of a panel, 12 KiB or so) stays in the first cache from row to row
#
# Whole tiles are added to the output directly, tiles at its edges through a tile of scratch. x[rows] is copied only
# group by group. BLAS is not used, because its threads would compete with ours. The result does not depend on the
# number of threads. In bfloat16, operands are packed as words (`_matmul_words.py`), k counts words, and the x of a
# residual layer is added in float32, because w + 1 would lose the digits of a small w. On tile registers, the
# kernel is that of `_amx_matmul.py`.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._amx_matmul import multiply_tasks_by_amx
from rvtrain._engine._bfloat16 import TILED, Operand, holds_words
from rvtrain._engine._blocks import CHUNK, GROUP, tiles
from rvtrain._engine._layout import packed_depth
from rvtrain._engine._matmul_words import pack_word_block, pack_word_columns_of, pack_word_rows_of
from rvtrain._engine._packing import copy_part, transpose_rows
from rvtrain._engine._precision import operand_for
from rvtrain._engine._prefetch import prefetch_part
from rvtrain._engine._scratch import Scratch, scratch
from rvtrain._engine._tile import mr, nr, tile_panels, tile_shape
from rvtrain._engine._word_packing import section_words
from rvtrain._kernels import driver, element_type, kernel, njit, overload
from rvtrain._kernels._threads import thread_count

_STRETCH = 4 * CHUNK
"""Number of k in a stretch; the packed rows of a group then take 128 KiB in float32."""
_ROWS = 16
"""Number of rows of the right operand that a thread packs at a time."""


def product(x: np.ndarray, rows: np.ndarray | None, w: np.ndarray, *, residual: bool = False) -> np.ndarray:
    """x[rows] @ w, of shape (len(rows), m), for x (n, d) and w (d, m); plus x[rows] if residual."""
    x, rows = _readable(x, rows)
    return _multiplied(x, rows, False, w, False, residual, (len(rows), w.shape[1]))


def product_with_transpose(x: np.ndarray, w: np.ndarray, *, residual: bool = False) -> np.ndarray:
    """x @ w.T, for x (n, m) and w (d, m); plus x if residual. It is the gradient to the x of `product`."""
    x, rows = _readable(x, None)
    return _multiplied(x, rows, False, w, True, residual, (len(x), len(w)))


def transposed_product(x: np.ndarray, rows: np.ndarray | None, g: np.ndarray) -> np.ndarray:
    """x[rows].T @ g, of shape (d, m), for x (n, d) and g (len(rows), m). It is the gradient to the w of `product`."""
    x, rows = _readable(x, rows)
    return _multiplied(x, rows, True, g, False, False, (x.shape[1], g.shape[1]))


def _readable(x: np.ndarray, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """x and rows as kernels read them; of memory-mapped files and views, a copy of the wanted rows is made."""
    if not (x.flags.c_contiguous and x.flags.writeable) or type(x) is not np.ndarray:
        x = np.array(x if rows is None else x[rows], order="C", subok=False)
        rows = None
    return x, np.arange(len(x)) if rows is None else rows


class _Room(NamedTuple):
    """All that the shapes of a product's scratch arrays depend on."""

    high: int
    """Rows of the product."""
    across: int
    """Its columns."""
    depth: int
    """Number of k of the packed operands."""
    dtype: np.dtype
    operand: Operand
    """Of the packed operands."""
    tasks: int
    """The most tasks."""
    largest: int
    """The most rows of a group."""


def _arrays(room: _Room, memory: Scratch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The packed right operand (m / NR, k, NR), and for each task packed rows of the left one and a tile.

    Shapes of these: (tasks, G, stretch, MR) and (tasks, MR, NR), with 4 MR in place of MR on tile registers.
    """
    height, width, _ = tile_shape(room.dtype)
    height *= 4 if room.operand.dtype == TILED else 1
    panels = tiles(room.high, height)
    group = min(room.largest // height, tiles(panels, room.tasks))
    tasks = min(room.tasks, tiles(panels, group))
    return (
        memory.array((tiles(room.across, width), room.depth, width), room.operand.dtype),
        memory.array((tasks, group, min(_STRETCH, room.depth), height), room.operand.dtype),
        memory.array((tasks, height, width), room.dtype),
    )


def _multiplied(
    x: np.ndarray,
    rows: np.ndarray,
    transposed: bool,
    w: np.ndarray,
    w_transposed: bool,
    residual: bool,
    shape: tuple[int, int],
) -> np.ndarray:
    """x[rows] · right, or x[rows]ᵀ · right, of this shape; right is w or its transpose."""
    w, depth = np.ascontiguousarray(w), w.shape[1] if w_transposed else len(w)
    operand = operand_for(None, w.dtype)
    # The right operand of x[rows]ᵀ is long, and each group reads it from the third-level cache: larger groups.
    tasks, largest = (2 * thread_count(), 2 * GROUP) if transposed else (4 * thread_count(), GROUP)
    room = _Room(*shape, packed_depth(depth, operand), x.dtype, operand, tasks, largest)
    adding = residual and holds_words(operand.dtype)
    multiply = _multiply_by_amx if operand.dtype == TILED else _multiply
    out = x[rows] if adding else np.empty(shape, x.dtype)
    with scratch() as memory:
        panels, left, edges = memory.once(room, _arrays)
        multiply.sized(out.size * room.depth)(
            w, w_transposed, residual, panels, x, rows, transposed, left, edges, adding, out
        )
    return out


@driver
def _multiply(threads, w, w_transposed, residual, panels, x, rows, transposed, left, edges, adding, out):
    """out = x[rows] · right, or x[rows]ᵀ · right; added to out if `adding`. right is w or its transpose.

    Shapes: panels (m / NR, k, NR), left (tasks, G, stretch, MR) and edges (tasks, MR, NR) are scratch.
    """
    _launch_packing(threads, (panels.shape[1] + _ROWS - 1) // _ROWS, w, w_transposed, residual, panels)
    _launch_tasks(threads, len(left), x, rows, transposed, panels, left, edges, adding, out)


@driver
def _multiply_by_amx(threads, w, w_transposed, residual, panels, x, rows, transposed, left, edges, adding, out):
    """As `_multiply`, with 4 MR in place of MR."""
    _launch_packing(threads, (panels.shape[1] + _ROWS - 1) // _ROWS, w, w_transposed, residual, panels)
    _launch_tiles(threads, len(left), x, rows, transposed, panels, left, edges, adding, out)


@kernel
def _pack_right(start, stop, w, transposed, residual, panels):
    """panels[j, k, q] = element (k, j · NR + q) of w or its transpose, with 1 added on the diagonal if residual."""
    for block in range(start, stop):
        _pack_block(block * _ROWS, w, transposed, residual, panels)


def _pack_block(first, w, transposed, residual, panels):
    """Pack _ROWS values of k from `first` on."""
    _block_into(panels.dtype)(first, w, transposed, residual, panels)


def _block_into(dtype):
    return _word_block if holds_words(dtype) else _number_block


def _word_block(first, w, transposed, residual, panels):
    section = section_words(panels, w.shape[1] if transposed else len(w))
    last = min(first + _ROWS, panels.shape[1])
    while first < last:
        begin = first // section * section
        stop = min(last, begin + section)
        pack_word_block(first - begin, stop - begin, w, transposed, begin, begin == section, panels)
        first = stop


def _number_block(first, w, transposed, residual, panels):
    _pack_number_block(first, w, transposed, residual, panels)


@overload(_pack_block)
def _pack_block_as(first, w, transposed, residual, panels):
    return _block_into(element_type(panels))


@njit
def _pack_number_block(first, w, transposed, residual, panels):
    """Pack _ROWS values of k from `first` on, a panel after the other.

    k by k, the panels' lines would often be apart by a power of two, and evict each other from the first-level cache.
    """
    width, depth = nr(panels), panels.shape[1]
    across = len(w) if transposed else w.shape[1]
    whole, last = across // width, min(first + _ROWS, depth)
    if transposed:
        for c in range(across):
            for k in range(first, last):
                panels[c // width, k, c % width] = w[c, k]
    else:
        for j in range(whole):
            for k in range(first, last):
                for q in range(0, width, mr(panels)):
                    copy_part(w, k, j * width + q, panels, (j * depth + k) * width + q)
        for k in range(first, last):
            for c in range(whole * width, across):
                panels[whole, k, c - whole * width] = w[k, c]
    if across > whole * width:
        panels[whole, first:last, across - whole * width :] = 0
    if residual:
        for k in range(first, min(last, across)):
            panels[k // width, k, k % width] += 1


@kernel
def _multiply_tasks(start, stop, x, rows, transposed, panels, left, edges, adding, out):
    """The parts of out that belong to the tasks [start, stop); shapes as in `_multiply`."""
    for task in range(start, stop):
        _multiply_groups(task, x, rows, transposed, panels, left, edges[task], adding, out)


_launch_packing, _launch_tasks = _pack_right.launch, _multiply_tasks.launch
_launch_tiles = multiply_tasks_by_amx.launch


@njit
def _multiply_groups(task, x, rows, transposed, panels, left, edge, adding, out):
    """The part of the row panels of out that belongs to a task, a group at a time."""
    height, mine = mr(out), left[task]
    count = (len(out) + height - 1) // height
    stop = count * (task + 1) // len(left)
    for p in range(count * task // len(left), stop, len(mine)):
        _multiply_group(p * height, x, rows, transposed, panels, mine[: stop - p], edge, adding, out)


@njit
def _multiply_group(first, x, rows, transposed, panels, left, edge, adding, out):
    """Rows of out from `first` on, as many panels of them as `left` has."""
    height, width = mr(out), nr(out)
    (count, across), depth, stretch = out.shape, panels.shape[1], left.shape[1]
    high = min(len(left), (count - first + height - 1) // height)
    for start in range(0, depth, stretch):
        stop = min(start + stretch, depth)
        _pack_left(x, rows, transposed, first, start, stop, left[:high])
        for j in range(len(panels)):
            for k in range(start, stop, CHUNK):
                steps, b = min(CHUNK, stop - k), (j * depth + k) * width
                for p in range(high):
                    a, top = (p * stretch + k - start) * height, first + p * height
                    if top + height <= count and (j + 1) * width <= across:
                        at = top * across + j * width
                        tile_panels(left, a, height, panels, b, steps, out, at, across, adding or k > 0)
                    else:
                        _edge_tile(left, a, panels, b, steps, edge, out, top, j * width, adding or k > 0)


@njit
def _edge_tile(left, a, panels, b, steps, edge, out, top, first, add):
    """A tile at an edge of out, only partly inside it; its first element is out[top, first]."""
    high, wide = min(mr(out), len(out) - top), min(nr(out), out.shape[1] - first)
    if add:
        _copy_part(out, top, first, edge, 0, 0, high, wide)
    tile_panels(left, a, mr(out), panels, b, steps, edge, 0, nr(out), add)
    _copy_part(edge, 0, 0, out, top, first, high, wide)


@njit
def _copy_part(source, top, first, target, row, column, high, wide):
    """target[row + r, column + c] = source[top + r, first + c] for r < high, c < wide.

    Written as loops, because for slices numba compiles the error message about unequal shapes, which takes seconds.
    """
    for r in range(high):
        for c in range(wide):
            target[row + r, column + c] = source[top + r, first + c]


def _pack_left(x, rows, transposed, first, start, stop, left):
    """Pack the panels of rows of out from `first` on, k in [start, stop)."""
    _left_into(left.dtype)(x, rows, transposed, first, start, stop, left)


def _left_into(dtype):
    return _word_left if holds_words(dtype) else _number_left


def _word_left(x, rows, transposed, first, start, stop, left):
    if transposed:
        pack_word_columns_of(x, rows, first, start, stop, left)
    else:
        pack_word_rows_of(x, rows, first, start, stop, left)


def _number_left(x, rows, transposed, first, start, stop, left):
    if transposed:
        _pack_columns_of(x, rows, first, start, stop, left)
    else:
        _pack_rows_of(x, rows, first, start, stop, left)


@overload(_pack_left)
def _pack_left_as(x, rows, transposed, first, start, stop, left):
    return _left_into(element_type(left))


@njit
def _pack_rows_of(x, rows, first, start, stop, left):
    """left[p, k − start, r] = element k of row rows[first + p · MR + r], 0 beyond the last."""
    height, stretch = mr(left), left.shape[1]
    for p in range(len(left)):
        here = first + p * height
        whole = start + (stop - start) // height * height if here + height <= len(rows) else start
        for i in range(here + height, min(here + 2 * height, len(rows))):
            prefetch_part(x, rows[i] * x.shape[1] + start, stop - start)
        for k in range(start, whole, height):
            transpose_rows(x, rows, here, k, left, (p * stretch + k - start) * height, height)
        for r in range(height):
            if here + r < len(rows):
                row = x[rows[here + r]]
                for k in range(whole, stop):
                    left[p, k - start, r] = row[k]
            else:
                left[p, : stop - start, r] = 0


@njit
def _pack_columns_of(x, rows, first, start, stop, left):
    """left[p, k − start, r] = element first + p · MR + r of row rows[k], 0 beyond the last element.

    A panel after the other for _ROWS values of k, because lines of several panels evict each other from the cache.
    Meanwhile the next rows are fetched, which come in any order.
    """
    height, stretch, columns = mr(left), left.shape[1], x.shape[1]
    whole = min(len(left), (columns - first) // height)
    for begin in range(start, stop, _ROWS):
        end = min(begin + _ROWS, stop)
        for k in range(end, min(end + _ROWS, stop)):
            prefetch_part(x, rows[k] * columns + first, whole * height)
        for p in range(whole):
            for k in range(begin, end):
                copy_part(x, rows[k], first + p * height, left, (p * stretch + k - start) * height)
    for p in range(whole, len(left)):
        for k in range(start, stop):
            for r in range(height):
                c = first + p * height + r
                left[p, k - start, r] = x[rows[k], c] if c < columns else 0
