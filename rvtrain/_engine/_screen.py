"""Screens: which of a line of scores pass, compared in vectors.

# Design: a loop that gathers comparisons into one, left to the compiler, may be scalar in vectors of 256 bits: ten
# times as long. Here comparisons stay in vectors until they become the bits of one number, 32 at most.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from rvtrain._engine._byte_tile import COLUMNS, LANES, ROWS
from rvtrain._engine._tile import tile_shape
from rvtrain._kernels import intrinsic


def _between(values, at, low, high):
    x = values.reshape(-1)[at : at + tile_shape(values.dtype)[1]]
    return _bits((x > low) & (x < high))


@intrinsic(_between)
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


def _any_at_least(tile, scales, errors, j, spreads, bounds, at):
    spread, bound = (x[at : at + ROWS, np.newaxis] for x in (spreads, bounds))
    return bool((tile * scales[j] + spread * errors[j] >= bound).any())


@intrinsic(_any_at_least)
def any_at_least(typingctx, tile, scales, errors, j, spreads, bounds, at):
    """Whether any column of any row r has tile[r] · scales[j] + spreads[at + r] · errors[j] ≥ bounds[at + r].

    tile (ROWS, COLUMNS) int32; scales and errors (panels, COLUMNS), spreads and bounds float32; C-contiguous.
    """
    signature = types.boolean(tile, scales, errors, types.intp, spreads, bounds, types.intp)

    def generate(context, builder, sig, args):
        lines = _Lines(context, builder, sig, args, LANES)
        rows = [[lines.broadcast(lines.load_one(w, args[6], r)) for w in (4, 5)] for r in range(ROWS)]
        start = builder.mul(args[3], ir.IntType(64)(COLUMNS))
        found = None
        for c in range(0, COLUMNS, LANES):
            scale, error = lines.load(1, start, c), lines.load(2, start, c)
            for r, (spread, bound) in enumerate(rows):
                hits = lines.reaches(lines.load(0, ir.IntType(64)(r * COLUMNS), c), scale, error, spread, bound)
                found = hits if found is None else builder.or_(found, hits)
        bits = builder.bitcast(found, ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return signature, generate


def _at_least(tile, r, scales, errors, j, spread, bound):
    return _bits(tile[r] * scales[j] + spread * errors[j] >= bound)


@intrinsic(_at_least)
def at_least(typingctx, tile, r, scales, errors, j, spread, bound):
    """Bits of the columns of which tile[r] · scales[j] + spread · errors[j] ≥ bound: bit c for column c.

    tile (ROWS, COLUMNS) int32, scales and errors (panels, COLUMNS) float32, C-contiguous; the rest float32.
    """
    real = types.float32
    signature = types.uint32(tile, types.intp, scales, errors, types.intp, real, real)

    def generate(context, builder, sig, args):
        lines = _Lines(context, builder, sig, args, COLUMNS)
        row, start = (builder.mul(x, ir.IntType(64)(COLUMNS)) for x in (args[1], args[4]))
        of_columns = lines.load(0, row), lines.load(2, start), lines.load(3, start)
        hits = lines.reaches(*of_columns, lines.broadcast(args[5]), lines.broadcast(args[6]))
        bits = builder.bitcast(hits, ir.IntType(COLUMNS))
        return bits if COLUMNS == 32 else builder.zext(bits, ir.IntType(32))

    return signature, generate


def _bits(hits):
    """Bit q for the q-th of these, as the compiled screens give them."""
    return np.uint32(sum(1 << int(q) for q in np.flatnonzero(hits)))


class _Lines:
    """Vectors of so many columns, of the arrays that an intrinsic is given."""

    def __init__(self, context, builder, sig, args, width):
        self.builder, self.width = builder, width
        self.types = {types.int32: ir.IntType(32), types.float32: ir.FloatType()}
        self.kinds = [x.dtype if isinstance(x, types.Array) else None for x in sig.args]
        self.bases = [
            cgutils.create_struct_proxy(x)(context, builder, value).data if isinstance(x, types.Array) else None
            for x, value in zip(sig.args, args, strict=True)
        ]

    def load(self, which, at, offset=0):
        place = self.builder.gep(self.bases[which], [self.builder.add(at, ir.IntType(64)(offset))])
        vector = ir.VectorType(self.types[self.kinds[which]], self.width)
        return self.builder.load(self.builder.bitcast(place, vector.as_pointer()), align=4)

    def load_one(self, which, at, offset):
        place = self.builder.gep(self.bases[which], [self.builder.add(at, ir.IntType(64)(offset))])
        return self.builder.load(place, align=4)

    def broadcast(self, x):
        undefined = ir.Constant(ir.VectorType(x.type, self.width), ir.Undefined)
        one = self.builder.insert_element(undefined, x, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def reaches(self, products, scales, errors, spread, bound):
        b, fused = self.builder, ("contract",)
        about = b.fmul(b.sitofp(products, scales.type), scales, flags=fused)
        half = b.fmul(errors, spread, flags=fused)
        return b.fcmp_ordered(">=", b.fadd(about, half, flags=fused), bound)
