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
# Products of scores read panels; the gradients read the very blocks that the scores were written to. For these there
# is a second tile, narrower by one vector, so that any dim is a few of either side by side, with no room wasted:
# on AVX2, 128 = 4 · 24 + 2 · 16.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from rvtrain._kernels import cpu_features, intrinsic, overload


def vector_bytes() -> int:
    """Width of the vector registers that kernels are compiled for."""
    features = cpu_features()
    return 64 if "avx512f" in features else 32 if "avx2" in features else 16


def tile_shape(dtype: Any) -> tuple[int, int, int]:
    """(MR, NR, lanes) for an element type: enough accumulators to hide the latency of an FMA, none spilt.

    MR divides NR, so that a block of scores can be read along its rows and along its columns.
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
    """How many tiles of NR, and how many one vector narrower, cover `dim` columns and as few more as can be."""
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
    rows = tile_shape(str(array.dtype))[0]
    return lambda array: rows


@overload(nr)
def _nr(array):
    columns = tile_shape(str(array.dtype))[1]
    return lambda array: columns


@overload(narrow_nr)
def _narrow_nr(array):
    _, columns, lanes = tile_shape(str(array.dtype))
    narrow = columns - lanes
    return lambda array: narrow


def _microkernel(name, strides, narrow=False):
    """An intrinsic ``name(left, at, step, right, right_at, steps, out, out_at, out_stride, add)``.

    out[r, c] (+)= Σ_k left[r, k] right[k, c] for k over `steps` blocks of the left operand, `step` apart. The
    ``…at`` are element offsets into C-contiguous arrays. `strides` gives, from (MR, NR), the left operand's
    row stride and k stride, how many k a block has, and how many k are unrolled. More than about ten, and the
    compiler moves all broadcasts to the front and spills them; fewer than four, and counting shows.
    """

    def interpreted(left, at, step, right, right_at, steps, out, out_at, out_stride, add):
        rows, columns, lanes = tile_shape(left.dtype)
        row_stride, k_stride, deep, _ = strides(rows, columns)
        columns -= lanes * narrow
        k, r = np.arange(steps * deep), np.arange(rows)[:, np.newaxis]
        a = left.reshape(-1)[at + r * row_stride + k // deep * step + k % deep * k_stride]
        b = right.reshape(-1)[right_at : right_at + len(k) * columns].reshape(len(k), columns)
        target, places = out.reshape(-1), out_at + r * out_stride + np.arange(columns)
        target[places] = a @ b + (target[places] if add else 0)

    def typing(typingctx, left, at, step, right, right_at, steps, out, out_at, out_stride, add):
        rows, columns, lanes = tile_shape(str(left.dtype))
        row_stride, k_stride, deep, unrolled = strides(rows, columns)
        columns -= lanes * narrow
        index = types.intp
        signature = types.void(left, index, index, right, index, index, out, index, index, types.boolean)

        def generate(context, builder, sig, args):
            element = context.get_value_type(left.dtype)
            size = 4 if left.dtype == types.float32 else 8
            vector = ir.VectorType(element, lanes)
            i64, i32 = ir.IntType(64), ir.IntType(32)
            undefined = ir.Constant(vector, ir.Undefined)
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f{8 * size}"
            )

            def pointer(which, offset):
                array = cgutils.create_struct_proxy(sig.args[which])(context, builder, args[which])
                return builder.gep(array.data, [args[offset]])

            def load(base, offset):
                place = builder.bitcast(builder.gep(base, [i64(offset)]), vector.as_pointer())
                return builder.load(place, align=size)

            def broadcast(base, offset):
                value = builder.load(builder.gep(base, [i64(offset)]), align=size)
                one = builder.insert_element(undefined, value, i32(0))
                return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(i32, lanes), [0] * lanes))

            starts = pointer(0, 1), pointer(3, 4)

            def accumulate(tile, first, stop, together):
                """The tile after k from `first` up to `stop`, so many together."""
                before = builder.basic_block
                head, body, after = (builder.append_basic_block(f"{name}.{part}") for part in ("head", "k", "after"))
                builder.branch(head)

                builder.position_at_end(head)
                k = builder.phi(i64)
                k.add_incoming(first, before)
                total = [[builder.phi(vector) for _ in row] for row in tile]
                for row, values in zip(total, tile, strict=True):
                    for phi, value in zip(row, values, strict=True):
                        phi.add_incoming(value, before)
                builder.cbranch(builder.icmp_signed("<", k, stop), body, after)

                builder.position_at_end(body)
                block = builder.mul(builder.udiv(k, i64(deep)), args[2])
                within = builder.mul(builder.urem(k, i64(deep)), i64(k_stride))
                a = builder.gep(starts[0], [builder.add(block, within)])
                b = builder.gep(starts[1], [builder.mul(k, i64(columns))])
                sums = [list(row) for row in total]
                for i in range(together):
                    right_row = [load(b, i * columns + c) for c in range(0, columns, lanes)]
                    for r in range(rows):
                        value = broadcast(a, r * row_stride + i * k_stride)
                        sums[r] = [builder.call(fma, [value, x, t]) for x, t in zip(right_row, sums[r], strict=True)]
                for row, values in zip(total, sums, strict=True):
                    for phi, value in zip(row, values, strict=True):
                        phi.add_incoming(value, body)
                k.add_incoming(builder.add(k, i64(together)), body)
                builder.branch(head)

                builder.position_at_end(after)
                return total

            total = [[ir.Constant(vector, [0.0] * lanes)] * (columns // lanes)] * rows
            stop = builder.mul(args[5], i64(deep))
            whole = builder.sub(stop, builder.urem(stop, i64(unrolled)))
            total = accumulate(total, i64(0), whole, unrolled)
            if deep % unrolled:
                total = accumulate(total, whole, stop, 1)
            target = pointer(6, 7)

            def store(combine):
                for r, sums in enumerate(total):
                    line = builder.gep(target, [builder.mul(i64(r), args[8])])
                    for c, value in enumerate(sums):
                        place = builder.bitcast(builder.gep(line, [i64(c * lanes)]), vector.as_pointer())
                        builder.store(combine(value, place), place, align=size)

            with builder.if_else(args[9]) as (then, otherwise):
                with then:
                    store(lambda value, place: builder.fadd(value, builder.load(place, align=size)))
                with otherwise:
                    store(lambda value, place: value)
            return context.get_dummy_value()

        return signature, generate

    typing.__name__ = name
    return intrinsic(interpreted)(typing)


def _panel(rows, columns):
    return 1, rows, 1, 4


def _rows(rows, columns):
    return columns, 1, columns, rows


def _columns(rows, columns):
    return 1, columns, rows, rows


tile_panels = _microkernel("tile_panels", _panel)
tile_rows = _microkernel("tile_rows", _rows)
tile_columns = _microkernel("tile_columns", _columns)
narrow_tile_rows = _microkernel("narrow_tile_rows", _rows, narrow=True)
narrow_tile_columns = _microkernel("narrow_tile_columns", _columns, narrow=True)
