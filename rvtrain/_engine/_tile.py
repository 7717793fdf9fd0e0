"""The microkernel: one register tile of a matrix product, emitted as vector instructions.

# Design: an MR × NR block of accumulators stays in registers while k runs. Each step loads one row of the
# right operand (NR numbers, a few vectors) and multiplies it by MR numbers of the left, one at a time:
#
#                      right [k][NR]                  for each k:
#                     ┌──────────────┐                    b  = right[k, :]             (NR / lanes vectors)
#                   k │ ▓▓▓▓▓▓▓▓▓▓▓▓ │                    for r in 0 … MR:
#                     └──────────────┘                        acc[r] += left[r, k] · b   (one FMA per vector)
#           k
#         ┌───┐       ┌──────────────┐
#    left │ ▒ │       │ accumulators │ MR × NR, at the end written to, or added to, the output
#         │ ▒ │ MR    │ in registers │
#         └───┘       └──────────────┘
#
# The right operand is always packed so that the NR numbers of a step are contiguous. The left operand comes
# in three layouts, which differ in two strides alone: from row to row of the tile, and from step to step.
#
#    tile_panels   a packed panel [k][MR]: rows 1 apart, steps MR apart
#    tile_rows     blocks [MR][NR] side by side, k along a row:    rows NR apart, steps 1 apart, NR steps a block
#    tile_columns  blocks [MR][NR] one above the other, transposed: rows 1 apart, steps NR apart, MR steps a block
#
# Products of scores read panels; the gradients read the blocks that the scores were written to. For these there is a
# second tile, narrower by one vector, so that tiles of both widths side by side cover any dim with less than a vector
# of padding: on AVX2, 128 = 4 · 24 + 2 · 16.
#
# Operands of int32 are words of two bfloat16 numbers (`_bfloat16.py`). The blocks of scores then are written as words
# in the same place: in the first half of a block, for `tile_rows`, a word holds neighbouring columns, [MR][NR / 2];
# in the second, for `tile_columns`, neighbouring rows, [MR / 2][NR].
"""

from typing import Any

import numpy as np

from rvtrain._engine._bfloat16 import WORD, add_products, halves, per_element
from rvtrain._kernels import cpu_features, element_type, emitted, overload
from rvtrain._kernels._vectors import Emitter


def vector_bytes() -> int:
    """Width in bytes of the vector registers that kernels are compiled for."""
    features = cpu_features()
    return 64 if "avx512f" in features else 32 if "avx2" in features else 16


def tile_shape(dtype: Any) -> tuple[int, int, int]:
    """(MR, NR, lanes) for an element type: enough accumulators to hide the latency of an FMA, without spilling any.

    MR divides NR, so that a block of scores can be read along its rows or along its columns.
    """
    width, size = vector_bytes(), np.dtype(dtype).itemsize
    lanes = width // size
    many_registers = width == 64 or "neon" in cpu_features()  # 32 of them instead of 16
    if many_registers:
        rows, vectors = (8, 2) if lanes >= 4 else (4, 4)
    else:
        rows, vectors = (4, 3) if lanes >= 4 else (2, 3)
    return rows, vectors * lanes, lanes


def narrow_shape(dim: int, dtype: Any) -> tuple[int, int]:
    """Numbers of tiles of NR columns and of tiles one vector narrower that cover `dim` with the least padding."""
    _, columns, lanes = tile_shape(dtype)
    vectors = columns // lanes
    most = -(-dim // lanes)
    while (narrow := -most % vectors) * (vectors - 1) > most:
        most += 1
    return (most - narrow * (vectors - 1)) // vectors, narrow


def mr(array):
    """MR for the element type of an array; a constant of the compiled code."""
    return tile_shape(array.dtype)[0]


def nr(array):
    """NR for the element type of an array; a constant of the compiled code."""
    return tile_shape(array.dtype)[1]


def narrow_nr(array):
    """Columns of the narrower tile for the element type of an array; a constant of the compiled code."""
    _, columns, lanes = tile_shape(array.dtype)
    return columns - lanes


@overload(mr)
def _mr(array):
    rows = tile_shape(element_type(array))[0]
    return lambda array: rows


@overload(nr)
def _nr(array):
    columns = tile_shape(element_type(array))[1]
    return lambda array: columns


@overload(narrow_nr)
def _narrow_nr(array):
    _, columns, lanes = tile_shape(element_type(array))
    narrow = columns - lanes
    return lambda array: narrow


def _microkernel(strides, narrow=False):
    """A function ``(left, at, step, right, right_at, steps, out, out_at, out_stride, add)`` for kernels.

    out[r, c] (+)= Σ_k left[r, k] right[k, c] for k over `steps` blocks of the left operand, `step` apart. The
    ``…at`` are element offsets into C-contiguous arrays. `strides` gives, from MR, NR and the numbers in an element,
    where the left operand starts, its row stride and k stride, the number of k in a block, and the number of k that
    are unrolled; k counts elements. If more than about ten are unrolled, the compiler moves all broadcasts to the
    front and spills them; with fewer than four, the loop counter takes noticeable time.
    """

    def interpreted(left, at, step, right, right_at, steps, out, out_at, out_stride, add):
        rows, columns, lanes = tile_shape(left.dtype)
        start, row_stride, k_stride, deep, _ = strides(rows, columns, per_element(left))
        columns -= lanes * narrow
        at += start
        k, r = np.arange(steps * deep), np.arange(rows)[:, np.newaxis]
        a = left.reshape(-1)[at + r * row_stride + k // deep * step + k % deep * k_stride]
        b = right.reshape(-1)[right_at : right_at + len(k) * columns].reshape(len(k), columns)
        target, places = out.reshape(-1), out_at + r * out_stride + np.arange(columns)
        parts = zip(halves(a), halves(b), strict=True) if a.dtype == WORD else [(a, b)]
        target[places] = sum(x @ y for x, y in parts) + (target[places] if add else 0)

    @emitted(interpreted)
    def microkernel(emit, left, at, step, right, right_at, steps, out, out_at, out_stride, add):
        rows, columns, lanes = tile_shape(left.dtype)
        start, row_stride, k_stride, deep, unrolled = strides(rows, columns, per_element(left))
        columns -= lanes * narrow
        vectors = range(0, columns, lanes)
        first_a, first_b, target = left + at + start, right + right_at, out + out_at
        multiply = add_products if left.dtype == WORD else Emitter.fma

        def accumulate(together):
            """Add so many k to the tile, a list of vectors row by row."""

            def body(k, *tile):
                a, b = first_a + (k // deep * step + k % deep * k_stride), first_b + k * columns
                sums = list(tile)
                for i in range(together):
                    right_row = [(b + (i * columns + c)).load(lanes) for c in vectors]
                    for r in range(rows):
                        value = (a + (r * row_stride + i * k_stride)).load().broadcast(lanes)
                        for c, x in enumerate(right_row, r * len(vectors)):
                            sums[c] = multiply(emit, value, x, sums[c])
                return sums

            return body

        stop = steps * deep
        whole = stop - stop % unrolled
        tile = [emit.constant(0.0, out.dtype, lanes)] * (rows * len(vectors))
        tile = emit.loop(emit.constant(0), whole, unrolled, tile, accumulate(unrolled))
        if deep % unrolled:
            tile = emit.loop(whole, stop, 1, tile, accumulate(1))

        def store(adding):
            for i, total in enumerate(tile):
                place = target + out_stride * (i // len(vectors)) + i % len(vectors) * lanes
                place.store(total + place.load(lanes) if adding else total)

        emit.either(add, lambda: store(True), lambda: store(False))

    return microkernel


def _panel(rows, columns, numbers):
    return 0, 1, rows, 1, 4


def _rows(rows, columns, numbers):
    return 0, columns // numbers, 1, columns // numbers, rows


def _columns(rows, columns, numbers):
    start = 0 if numbers == 1 else rows * columns // 2
    return start, 1, columns, rows // numbers, rows // numbers


tile_panels = _microkernel(_panel)
tile_rows = _microkernel(_rows)
tile_columns = _microkernel(_columns)
narrow_tile_rows = _microkernel(_rows, narrow=True)
narrow_tile_columns = _microkernel(_columns, narrow=True)
