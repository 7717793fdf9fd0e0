"""The microkernel on tile registers: 4 MR rows times NR columns, of words of two bfloat16 numbers.

# Design: with AVX-512, MR is 8 and NR 32, so the product is of 2 × 2 registers: four sums, for whose every step two
# registers of each operand are loaded, which takes half as long as their products.
#
#                         right [words][NR]           each step, of 16 words:
#                        ┌───────┬───────┐
#                        │ tmm6  │ tmm7  │               tmm0 += tmm4 · tmm6     tmm1 += tmm4 · tmm7
#        left            ├───────┼───────┤               tmm2 += tmm5 · tmm6     tmm3 += tmm5 · tmm7
#       ┌───────┐        ├───────┼───────┤
#       │ tmm4  │        │ tmm0  │ tmm1  │
#       ├───────┤        ├───────┼───────┤            The right operand is packed as for vectors (`_bfloat16.py`).
#       │ tmm5  │        │ tmm2  │ tmm3  │
#       └───────┘        └───────┴───────┘
#
# A *left tile* is what one register holds, contiguous: 2 MR rows of 2 MR words. It comes in three orders:
#
#    panel_tiles    packed rows, [words / 2 MR][4 MR][2 MR]: a pair of tiles for every step
#    row_tiles      weights, in place of MR × NR blocks of scores: the first and the second of four blocks one above
#                   the other hold their 4 MR rows as two tiles of NR / 2 words, neighbouring columns in a word
#    column_tiles   in the third and the fourth block, the same weights: two tiles of NR / 2 columns, each with 2 MR
#                   words of neighbouring rows
#
# A product starts from zero, is stored to the stack, and from there copied or added to the output by vectors, because
# the rows of a block of scores are not at equal distances. Without tile registers the same function computes the same
# bits with vectors: for each word of a step one product is added to a sum of first numbers and one to a sum of second
# numbers, then both sums to the result. They differ below 1.2e-38 in magnitude, which tile registers take for 0. With
# narrower vectors, tiles are smaller, but of these shapes; tests run them on every processor.
"""

import numpy as np

from rvtrain._engine._amx import has_amx, multiply_tiles
from rvtrain._engine._bfloat16 import halves
from rvtrain._engine._tile import tile_shape
from rvtrain._kernels import emitted

_UPPER = 0xFFFF0000


def left_tile(of_panels: bool, of_columns: bool = False) -> tuple[int, int]:
    """Rows and words of a left tile."""
    rows, columns, _ = tile_shape(np.float32)
    if of_columns:
        return columns // 2, 2 * rows
    return 2 * rows, 2 * rows if of_panels else columns // 2


def _microkernel(of_panels, of_columns=False):
    """A function ``(left, at, second, step, right, right_at, steps, out, out_at, out_stride, out_step, add)``.

    out row r (+)= Σ_w left[r, w] · right[w] for the words w of `steps` left tiles, for r below twice the rows of a
    tile. The tiles of the upper rows start at `at`, those of the lower rows at at + second, the next ones `step` on.
    Row r of the product goes to out_at + r // MR · out_step + r % MR · out_stride. All are element offsets into
    C-contiguous arrays.
    """

    def interpreted(left, at, second, step, right, right_at, steps, out, out_at, out_stride, out_step, add):
        (rows, columns, _), (high, deep) = tile_shape(out.dtype), left_tile(of_panels, of_columns)
        r, k = np.arange(2 * high)[:, np.newaxis], np.arange(steps * deep)
        a = left.reshape(-1)[at + r // high * second + r % high * deep + k // deep * step + k % deep]
        b = right.reshape(-1)[right_at : right_at + len(k) * columns].reshape(len(k), columns)
        places = out_at + r // rows * out_step + r % rows * out_stride + np.arange(columns)
        target = out.reshape(-1)
        product = sum(x @ y for x, y in zip(halves(a), halves(b), strict=True))
        target[places] = product + (target[places] if add else 0)

    @emitted(interpreted)
    def microkernel(emit, left, at, second, step, right, right_at, steps, out, out_at, out_stride, out_step, add):
        rows, columns, lanes = tile_shape(out.dtype)
        high, deep = left_tile(of_panels, of_columns)
        product = emit.room(out.dtype, 2 * high * columns)
        multiply = _by_registers if has_amx() else _by_vectors
        multiply(emit, (high, deep), left + at, second, step, right + right_at, steps, product)
        target = out + out_at

        def copy(adding):
            def row(r):
                place = target + (r // rows * out_step + r % rows * out_stride)
                for c in range(0, columns, lanes):
                    total = (product + (r * columns + c)).load(lanes)
                    (place + c).store(total + (place + c).load(lanes) if adding else total)
                return []

            emit.loop(emit.constant(0), emit.constant(2 * high), 1, [], row, empty=False)

        emit.either(add, lambda: copy(True), lambda: copy(False))

    return microkernel


def _by_registers(emit, shape, left, second, step, right, steps, product):
    multiply_tiles(emit, "llvm.x86.tdpbf16ps", left, second, step, right, steps, product)


def _by_vectors(emit, shape, left, second, step, right, steps, product):
    (high, deep), (_, columns, lanes) = shape, tile_shape(np.float32)
    vectors = range(0, columns, lanes)
    zeros = [emit.constant(0.0, np.float32, lanes)] * len(vectors)

    def row(r):
        place = left + (r // high * second + r % high * deep)

        def body(k, *totals):
            firsts, seconds = list(zeros), list(zeros)
            for w in range(deep):
                word = (place + (k * step + w)).load()
                lower, upper = (x.view(np.float32).broadcast(lanes) for x in (word << 16, word & _UPPER))
                for i, c in enumerate(vectors):
                    words = (right + ((k * deep + w) * columns + c)).load(lanes)
                    firsts[i] = emit.fma(lower, (words << 16).view(np.float32), firsts[i])
                    seconds[i] = emit.fma(upper, (words & _UPPER).view(np.float32), seconds[i])
            return [total + (a + b) for total, a, b in zip(totals, firsts, seconds, strict=True)]

        for c, total in zip(vectors, emit.loop(emit.constant(0), steps, 1, zeros, body), strict=True):
            (product + (r * columns + c)).store(total)
        return []

    emit.loop(emit.constant(0), emit.constant(2 * high), 1, [], row, empty=False)


panel_tiles = _microkernel(of_panels=True)
row_tiles = _microkernel(of_panels=False)
column_tiles = _microkernel(of_panels=False, of_columns=True)
