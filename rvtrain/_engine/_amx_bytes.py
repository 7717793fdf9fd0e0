"""The microkernel of 8-bit products on tile registers: 32 rows times 32 columns of int32 words of four signed bytes.

# Design: the four sums of `_amx_tile.py`, by tdpbssd. Left operands come in pairs of tiles of 16 words, one pair for
# every step:
#
#     left  [words / 16][32 rows][16]        right  [words][32 columns]
#
# Both sides are signed, so that the sums need no start. Without tile registers, vectors compute the same integers.
"""

import numpy as np

from rvtrain._engine._amx import SIDE, has_amx, multiply_tiles

SQUARE = 2 * SIDE
"""Rows of a left operand and columns of a right one."""


def multiply_bytes(emit, left, right, steps, out):
    """out (SQUARE, SQUARE) int32 = Σ over `steps` words and over their bytes of left · right; SIDE divides steps."""
    if has_amx():
        tile = SIDE * SIDE
        multiply_tiles(emit, "llvm.x86.tdpbssd", left, tile, 2 * tile, right, steps // SIDE, out)
        return
    lanes = SIDE

    def row(r):
        def add(k, *totals):
            sums = list(totals)
            word = (left + (k // SIDE * (SQUARE * SIDE) + r * SIDE + k % SIDE)).load().broadcast(lanes)
            columns = [(right + (k * SQUARE + c)).load(lanes) for c in range(0, SQUARE, lanes)]
            for byte in range(4):
                of_row = _bytes(word, byte)
                sums = [total + of_row * _bytes(x, byte) for total, x in zip(sums, columns, strict=True)]
            return sums

        zeros = [emit.constant(0, np.int32, lanes) for _ in range(0, SQUARE, lanes)]
        for c, total in enumerate(emit.loop(emit.constant(0), steps, 1, zeros, add)):
            (out + (r * SQUARE + c * lanes)).store(total)
        return []

    emit.loop(emit.constant(0), emit.constant(SQUARE), 1, [], row, empty=False)


def _bytes(words, which):
    """One byte of each word of a vector, as int32."""
    picks = range(which, 4 * words.lanes, 4)
    parts = words.view(np.int8)
    return parts.shuffle(parts, picks).astype(np.int32)
