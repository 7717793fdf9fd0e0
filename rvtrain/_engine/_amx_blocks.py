"""Blocks of scores and their weighted sums on tile registers; operands are arrays of uint32 (`_amx_tile.py`).

# Design: a pass takes 4 MR rows of the left operand and a chunk of words, 16 or 24 KiB, at most half of the first
# cache of the processors with AMX. They stay there while the right operand comes from the second cache: 2 KiB for
# four products, which take 64 cycles, so half of what that cache delivers. Rows, columns and blocks are those of
# `_blocks.py`, and so are the arrays, but for the order within the left operands. Chunks are longer than those of
# vectors, because a product of registers passes through the stack, and still the same on every machine.
"""

from rvtrain._engine._amx import begin_tiles, end_tiles
from rvtrain._engine._amx_tile import column_tiles, panel_tiles, row_tiles
from rvtrain._engine._tile import mr, nr
from rvtrain._kernels import body

SCORED = 192
"""Number of words of a row that are summed from zero."""

SUMMED = 256
"""Number of weights that are summed from zero, in half as many words. Blocks and slabs consist of whole chunks."""


@body
def score_block(left, panels, start, stop, slab, top, origin):
    """slab[top + p, j − origin] = rows of panel p of left · panels[j], for all p and for j in [start, stop)."""
    height, width, depth, across = mr(left), nr(left), left.shape[1], slab.shape[1]
    deep, size = 2 * height, height * width
    begin_tiles()
    for p in range(0, len(left), 4):
        for k in range(0, depth, SCORED):
            a, steps = (p * depth + 4 * k) * height, min(SCORED, depth - k) // deep
            for j in range(start, stop):
                b, at = (j * depth + k) * width, ((top + p) * across + j - origin) * size
                panel_tiles(
                    left, a, deep * deep, 2 * deep * deep, panels, b, steps, slab, at, width, across * size, k > 0
                )
    end_tiles()


@body
def add_weighted_columns(slab, top, start, stop, origin, strips, sums):
    """As in `_blocks.py`; slab as `narrow_tiles_of_block` writes it, strips (d padded or twice that, rows / 2)."""
    height, width = mr(slab), nr(slab)
    parts, across, padded, long = slab.shape[2] // height, slab.shape[1], sums.shape[2], strips.shape[1]
    deep, tile, size, per_chunk = width // 2, height * width, parts * height * width, SUMMED // width
    begin_tiles()
    for j in range(start, stop, per_chunk):
        steps = min(per_chunk, stop - j)
        for p in range(0, len(sums), 4):
            block, out = ((top + p) * across + j - origin) * size, p * height * padded
            for c in range(0, padded, width):
                for term in range(2 * parts - 1):
                    a = block + term // 2 * tile
                    b = (term % 2 * padded + c) * long + j * deep * width
                    row_tiles(
                        slab, a, across * size, size, strips, b, steps, sums, out + c, padded, height * padded,
                        j + term > 0,
                    )  # fmt: skip
    end_tiles()


@body
def add_weighted_rows(slab, j, strips, sums, first):
    """As in `_blocks.py`; slab as `narrow_tiles_of_block` writes it, strips (d padded or twice that, rows / 2)."""
    height, width = mr(slab), nr(slab)
    parts, across, padded, long = slab.shape[2] // height, slab.shape[1], sums.shape[1], strips.shape[1]
    tile, size, per_chunk = height * width, parts * height * width, SUMMED // height
    begin_tiles()
    for i in range(0, len(slab), per_chunk):
        steps, block = min(per_chunk, len(slab) - i) // 4, ((i + 2) * across + j) * size
        for c in range(0, padded, width):
            out = j * width * padded + c
            for term in range(2 * parts - 1):
                a = block + term // 2 * tile
                b = (term % 2 * padded + c) * long + i * height // 2 * width
                column_tiles(
                    slab, a, across * size, 4 * across * size, strips, b, steps, sums, out, padded, height * padded,
                    first + i + term > 0,
                )  # fmt: skip
    end_tiles()
