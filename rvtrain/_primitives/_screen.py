"""Screens: which of a line of scores pass, compared in vectors.

# Design: a loop that gathers comparisons into one, left to the compiler, may be scalar in vectors of 256 bits: ten
# times as long. Here comparisons stay in vectors until they become the bits of one number, 32 at most.
"""

from llvmlite import ir
from numba.core import cgutils, types

from rvtrain._jit import intrinsic
from rvtrain._primitives._byte_tile import COLUMNS
from rvtrain._primitives._tile import tile_shape


@intrinsic
def between(typingctx, values, at, low, high):
    """Bits of the NR values from element `at` on of which low < x < high: bit q for the q-th.

    values is C-contiguous and of the bounds' type; not a view, which would be counted in and out for every line.
    """
    if values.layout != "C":
        return None
    _, columns, lanes = tile_shape(str(values.dtype))
    signature = types.uint32(values, types.intp, values.dtype, values.dtype)

    def generate(context, builder, sig, args):
        i32 = ir.IntType(32)
        vector = ir.VectorType(context.get_value_type(values.dtype), lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        base = builder.gep(cgutils.create_struct_proxy(sig.args[0])(context, builder, args[0]).data, [args[1]])

        def broadcast(x):
            one = builder.insert_element(undefined, x, i32(0))
            return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(i32, lanes), [0] * lanes))

        least, most = broadcast(args[2]), broadcast(args[3])
        bits = i32(0)
        for c in range(0, columns, lanes):
            place = builder.bitcast(builder.gep(base, [i32(c)]), vector.as_pointer())
            x = builder.load(place, align=values.dtype.bitwidth // 8)
            hits = builder.and_(builder.fcmp_ordered(">", x, least), builder.fcmp_ordered("<", x, most))
            here = builder.zext(builder.bitcast(hits, ir.IntType(lanes)), i32)
            bits = builder.or_(bits, builder.shl(here, i32(c)))
        return bits

    return signature, generate


@intrinsic
def at_least(typingctx, tile, r, scales, errors, j, scale, spread, bound):
    """Bits of the columns of which tile[r] · scales[j] · scale + spread · errors[j] ≥ bound: bit c for column c.

    tile (ROWS, COLUMNS) int32, scales and errors (panels, COLUMNS) float32, C-contiguous; the rest float32.
    """
    real = types.float32
    signature = types.uint32(tile, types.intp, scales, errors, types.intp, real, real, real)

    def generate(context, builder, sig, args):
        i32, i64 = ir.IntType(32), ir.IntType(64)
        whole, reals = ir.VectorType(i32, COLUMNS), ir.VectorType(ir.FloatType(), COLUMNS)
        undefined = ir.Constant(reals, ir.Undefined)
        fused = ("contract",)

        def line(which, at, vector):
            array = cgutils.create_struct_proxy(sig.args[which])(context, builder, args[which])
            place = builder.gep(array.data, [builder.mul(at, i64(COLUMNS))])
            return builder.load(builder.bitcast(place, vector.as_pointer()), align=4)

        def broadcast(x):
            one = builder.insert_element(undefined, x, i32(0))
            return builder.shuffle_vector(one, undefined, ir.Constant(whole, [0] * COLUMNS))

        products = builder.sitofp(line(0, args[1], whole), reals)
        about = builder.fmul(builder.fmul(products, line(2, args[4], reals), fused), broadcast(args[5]), fused)
        half = builder.fmul(line(3, args[4], reals), broadcast(args[6]), fused)
        hits = builder.fcmp_ordered(">=", builder.fadd(about, half, fused), broadcast(args[7]))
        bits = builder.bitcast(hits, ir.IntType(COLUMNS))
        return bits if COLUMNS == 32 else builder.zext(bits, i32)

    return signature, generate
