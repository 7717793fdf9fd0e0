"""How rows become packed panels: MR elements in a register at a time, as they are or turned on their side.

# Design: MR rows, MR elements of each, one vector a row. In round s = 1, 2, 4, … the blocks of s × s across the
# diagonal of each block of 2s × 2s change places; after all of them, vector c holds element c of every row:
#
#     a0 a1 a2 a3        a0 b0 a2 b2        a0 b0 c0 d0
#     b0 b1 b2 b3   s=1  a1 b1 a3 b3   s=2  a1 b1 c1 d1
#     c0 c1 c2 c3   ──▶  c0 d0 c2 d2   ──▶  a2 b2 c2 d2
#     d0 d1 d2 d3        c1 d1 c3 d3        a3 b3 c3 d3
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from rvtrain._engine._tile import tile_shape
from rvtrain._kernels import intrinsic


def _copy_part(x, row, c, target, at):
    size = tile_shape(x.dtype)[0]
    target.reshape(-1)[at : at + size] = x[row, c : c + size]


@intrinsic(_copy_part)
def copy_part(typingctx, x, row, c, target, at):
    """target[at + r] = x[row, c + r] for r < MR; x (n, d), target C-contiguous, `at` in elements.

    Views of rows would do the same, each for the price of the copy.
    """
    size = tile_shape(str(x.dtype))[0]
    signature = types.void(x, types.intp, types.intp, target, types.intp)

    def generate(context, builder, sig, args):
        vector = ir.VectorType(context.get_value_type(x.dtype), size).as_pointer()
        table, out = (context.make_array(sig.args[n])(context, builder, args[n]) for n in (0, 3))
        dim = cgutils.unpack_tuple(builder, table.shape)[1]
        source = builder.gep(table.data, [builder.add(builder.mul(args[1], dim), args[2])])
        align = 4 if x.dtype == types.float32 else 8
        values = builder.load(builder.bitcast(source, vector), align=align)
        builder.store(values, builder.bitcast(builder.gep(out.data, [args[4]]), vector), align=align)
        return context.get_dummy_value()

    return signature, generate


def _transposing(scaled):
    """The intrinsic that reads rows of a table by number, or with `scaled`, rows that follow each other."""

    def interpreted(x, of_row, i, k, target, at, stride):
        size = tile_shape(x.dtype)[0]
        numbers, places = of_row[i : i + size], at + np.arange(size)[:, np.newaxis] * stride + np.arange(size)
        rows = x[i : i + size] * numbers[:, np.newaxis] if scaled else x[numbers]
        target.reshape(-1)[places] = rows[:, k : k + size].T

    def _transpose(typingctx, x, of_row, i, k, target, at, stride):
        element, size = x.dtype, tile_shape(str(x.dtype))[0]
        index = types.intp
        signature = types.void(x, of_row, index, index, target, index, index)

        def generate(context, builder, sig, args):
            i32, i64 = ir.IntType(32), ir.IntType(64)
            real, double = context.get_value_type(element), ir.DoubleType()
            vector, wide = ir.VectorType(real, size), ir.VectorType(double, size)
            align = 4 if element == types.float32 else 8
            table = context.make_array(sig.args[0])(context, builder, args[0])
            numbers = context.make_array(sig.args[1])(context, builder, args[1])
            out = context.make_array(sig.args[4])(context, builder, args[4])
            dim = cgutils.unpack_tuple(builder, table.shape)[1]

            def load(r):
                row = builder.add(args[2], i64(r))
                number = builder.load(builder.gep(numbers.data, [row]))
                place = builder.gep(table.data, [builder.add(builder.mul(row if scaled else number, dim), args[3])])
                values = builder.load(builder.bitcast(place, vector.as_pointer()), align=align)
                if not scaled:
                    return values
                undefined = ir.Constant(wide, ir.Undefined)
                scale = builder.insert_element(undefined, number, i32(0))
                scale = builder.shuffle_vector(scale, undefined, ir.Constant(ir.VectorType(i32, size), [0] * size))
                if real == double:
                    return builder.fmul(values, scale)
                return builder.fptrunc(builder.fmul(builder.fpext(values, wide), scale), vector)

            rows, s = [load(r) for r in range(size)], 1
            while s < size:
                upper, lower = (
                    ir.Constant(ir.VectorType(i32, size), [pick(j, s) for j in range(size)])
                    for pick in (
                        lambda j, s: size + j - s if j & s else j,
                        lambda j, s: size + j if j & s else j + s,
                    )
                )
                for r in (r for r in range(size) if not r & s):
                    a, b = rows[r], rows[r + s]
                    rows[r], rows[r + s] = builder.shuffle_vector(a, b, upper), builder.shuffle_vector(a, b, lower)
                s *= 2
            for c, values in enumerate(rows):
                place = builder.gep(out.data, [builder.add(args[5], builder.mul(args[6], i64(c)))])
                builder.store(values, builder.bitcast(place, vector.as_pointer()), align=align)
            return context.get_dummy_value()

        return signature, generate

    return intrinsic(interpreted)(_transpose)


transpose_rows = _transposing(scaled=False)
"""``(x, rows, i, k, target, at, stride)``: target[at + c · stride + r] = x[rows[i + r], k + c] for r, c < MR.

x (n, d), rows (m,) int64; target C-contiguous, offsets in elements.
"""
transpose_scaled = _transposing(scaled=True)
"""``(x, inverse, i, k, target, at, stride)``: the same of x[i + r] · inverse[i + r], multiplied in float64."""
