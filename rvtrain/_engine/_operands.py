"""What the sweep asks of the tiles: pack rows, scores of a block, weights as operands, sums to rows and to columns.

# Design: one implementation for each type of the packed operands, which is that of the arrays:
#
#     float32, float64   numbers                    `_blocks.py`
#     int32              words of two bfloat16      `_blocks.py`, with `narrow_block` of `_word_packing.py`
#     uint32             the same for tile registers, in other orders   `_amx_blocks.py`, `_amx_packing.py`
#
# Right operands are packed by `pack_columns` and `pack_strips` of `_blocks.py` for all of them.
"""

from rvtrain._engine import _amx_blocks, _blocks
from rvtrain._engine._amx_packing import narrow_tiles_of_block, pack_left_tiles
from rvtrain._engine._bfloat16 import TILED, WORD
from rvtrain._engine._word_packing import narrow_block
from rvtrain._kernels import element_type, overload


def pack_left(rows, first, left):
    """Pack the rows from `first` on, as many as `left` has, as left operand of their scores."""
    _packing(left.dtype)(rows, first, left)


def _packing(dtype):
    return _tiled_left if dtype == TILED else _left


def _tiled_left(rows, first, left):
    pack_left_tiles(rows, first, left)


def _left(rows, first, left):
    _blocks.pack_left(rows, first, left)


@overload(pack_left)
def _pack_left(rows, first, left):
    return _packing(element_type(left))


def score_block(left, panels, start, stop, slab, top, origin, chunk):
    """slab[top + p, j − origin] = scores of row panel p with column panels j in [start, stop), for all p.

    Sums of numbers and words start again from zero after `chunk` k; in tile registers after a number of their own.
    """
    _scoring(left.dtype)(left, panels, start, stop, slab, top, origin, chunk)


def _scoring(dtype):
    return _tiled_scores if dtype == TILED else _scores


def _tiled_scores(left, panels, start, stop, slab, top, origin, chunk):
    _amx_blocks.score_block(left, panels, start, stop, slab, top, origin)


def _scores(left, panels, start, stop, slab, top, origin, chunk):
    _blocks.score_block(left, panels, start, stop, slab, top, origin, chunk)


@overload(score_block)
def _score_block(left, panels, start, stop, slab, top, origin, chunk):
    return _scoring(element_type(left))


def narrow_weights(slab, weights, top, panels, begin, end, origin):
    """Make a block of weights what the sums read: words if `weights` are integers, in the place of numbers or not."""
    _narrowing(weights.dtype)(slab, weights, top, panels, begin, end, origin)


def _narrowing(dtype):
    return {WORD: _narrow, TILED: _narrow_tiles}.get(dtype, _leave)


def _narrow(slab, weights, top, panels, begin, end, origin):
    narrow_block(slab, top, panels, begin, end, origin)


def _narrow_tiles(slab, weights, top, panels, begin, end, origin):
    narrow_tiles_of_block(slab, weights, top, panels, begin, end, origin)


def _leave(slab, weights, top, panels, begin, end, origin):
    pass


@overload(narrow_weights)
def _narrow_weights(slab, weights, top, panels, begin, end, origin):
    return _narrowing(element_type(weights))


def add_weighted_columns(slab, top, start, stop, origin, strips, sums):
    """sums[p] += weights of row panel p and column panels [start, stop) · columns; if start is 0, they are set."""
    _to_rows(slab.dtype)(slab, top, start, stop, origin, strips, sums)


def _to_rows(dtype):
    return _tiled_to_rows if dtype == TILED else _numbers_to_rows


def _tiled_to_rows(slab, top, start, stop, origin, strips, sums):
    _amx_blocks.add_weighted_columns(slab, top, start, stop, origin, strips, sums)


def _numbers_to_rows(slab, top, start, stop, origin, strips, sums):
    _blocks.add_weighted_columns(slab, top, start, stop, origin, strips, sums)


@overload(add_weighted_columns)
def _add_weighted_columns(slab, top, start, stop, origin, strips, sums):
    return _to_rows(element_type(slab))


def add_weighted_rows(slab, j, strips, sums, first):
    """sums[c] += Σ_i weight of row i and column c · row i, for columns c of panel j; if first is 0, they are set."""
    _to_columns(slab.dtype)(slab, j, strips, sums, first)


def _to_columns(dtype):
    return _tiled_to_columns if dtype == TILED else _numbers_to_columns


def _tiled_to_columns(slab, j, strips, sums, first):
    _amx_blocks.add_weighted_rows(slab, j, strips, sums, first)


def _numbers_to_columns(slab, j, strips, sums, first):
    _blocks.add_weighted_rows(slab, j, strips, sums, first)


@overload(add_weighted_rows)
def _add_weighted_rows(slab, j, strips, sums, first):
    return _to_columns(element_type(slab))
