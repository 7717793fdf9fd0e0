"""The microkernel of 8-bit products: one register tile of sums of bytes, four at a time.

# Design: as `_tile.py`, but a lane of the accumulators takes four products of unsigned and signed bytes at a time.
# Both operands are packed as int32 words of four consecutive codes:
#
#     left  [k / 4][ROWS]   signed codes, one word broadcast        right [k / 4][COLUMNS]   codes + 128, unsigned
#
# The 128 is taken back by where the accumulators start: at −128 Σ left codes. With AVX-512 VNNI the four products are
# one instruction (vpdpbusd). AVX2 takes three: vpmaddubsw adds pairs of products into int16, and saturates; so left
# codes have fewer levels there, and 2 · 255 · 64 < 2¹⁵. vpmaddwd with ones adds the pairs, vpaddd the sum.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from rvtrain._jit import cpu_features, intrinsic


class ByteTile(NamedTuple):
    """What the processor makes of the microkernel."""

    instructions: str
    rows: int
    columns: int
    lanes: int
    """int32 numbers of a vector"""
    left_levels: int
    """left codes lie within ± this; right codes within ±127 everywhere"""


VNNI = ByteTile("AVX-512 VNNI", 12, 32, 16, 127)
"""24 accumulators, two vectors of the right operand, and room for the broadcasts."""
AVX2 = ByteTile("AVX2", 4, 16, 8, 64)
"""8 accumulators, two vectors of the right operand, the ones, a broadcast and the pairs."""


def byte_tile() -> ByteTile | None:
    """The tile of the processor that kernels are compiled for, if its products of bytes are faster than its floats'.

    In vectors of 512 bits without VNNI they are not.
    """
    features = cpu_features()
    if {"avx512vnni", "avx512f", "avx512bw"} <= features:
        return VNNI
    return AVX2 if "avx2" in features and "avx512f" not in features else None


TILE = byte_tile() or AVX2
ROWS, COLUMNS, LANES = TILE.rows, TILE.columns, TILE.lanes


@intrinsic
def tile_bytes(typingctx, left, at, right, right_at, steps, start, start_at, out):
    """out[r, c] = start[r] + Σ over bytes of left word [k, r] · right word [k, c], for k < steps.

    left, right, start and out are C-contiguous int32 arrays, read from element offsets `…at`; out (ROWS, COLUMNS).
    """
    index = types.intp
    signature = types.void(left, index, right, index, index, start, index, out)

    def generate(context, builder, sig, args):
        i32, i64 = ir.IntType(32), ir.IntType(64)
        vector = ir.VectorType(i32, LANES)
        undefined = ir.Constant(vector, ir.Undefined)
        add_products = _vpdpbusd(builder, vector) if TILE is VNNI else _pairs(builder, vector)

        def pointer(which, offset):
            array = cgutils.create_struct_proxy(sig.args[which])(context, builder, args[which])
            return builder.gep(array.data, [offset])

        def load(base, offset):
            return builder.load(builder.bitcast(builder.gep(base, [i64(offset)]), vector.as_pointer()), align=4)

        def broadcast(base, offset):
            one = builder.insert_element(undefined, builder.load(builder.gep(base, [i64(offset)]), align=4), i32(0))
            return builder.shuffle_vector(one, undefined, ir.Constant(vector, [0] * LANES))

        starts = pointer(0, args[1]), pointer(2, args[3])
        begin = pointer(5, args[6])
        first = [broadcast(begin, r) for r in range(ROWS)]
        before = builder.basic_block
        body, after = builder.append_basic_block("bytes.k"), builder.append_basic_block("bytes.out")
        builder.branch(body)

        builder.position_at_end(body)
        k, a, b = builder.phi(i64), builder.phi(starts[0].type), builder.phi(starts[1].type)
        tile = [[builder.phi(vector) for _ in range(COLUMNS // LANES)] for _ in range(ROWS)]
        row = [load(b, LANES * c) for c in range(COLUMNS // LANES)]
        total = []
        for r in range(ROWS):
            word = broadcast(a, r)
            total.append([add_products(t, x, word) for t, x in zip(tile[r], row, strict=True)])
        k_next = builder.add(k, i64(1))
        for phi, initial, value in (
            (k, i64(0), k_next),
            (a, starts[0], builder.gep(a, [i64(ROWS)])),
            (b, starts[1], builder.gep(b, [i64(COLUMNS)])),
            *((t, first[r], total[r][c]) for r, line in enumerate(tile) for c, t in enumerate(line)),
        ):
            phi.add_incoming(initial, before)
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed("<", k_next, args[4]), body, after)

        builder.position_at_end(after)
        target = pointer(7, i64(0))
        for r, line in enumerate(total):
            for c, value in enumerate(line):
                place = builder.gep(target, [i64(r * COLUMNS + LANES * c)])
                builder.store(value, builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate


def _vpdpbusd(builder, vector):
    """(sums, unsigned, signed) ↦ sums + the four products of each lane."""
    call = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), "llvm.x86.avx512.vpdpbusd.512"
    )
    return lambda sums, unsigned, signed: builder.call(call, [sums, unsigned, signed])


def _pairs(builder, vector):
    """The same without VNNI, in vectors of 256 bits."""
    of_bytes, of_shorts = ir.VectorType(ir.IntType(8), 4 * LANES), ir.VectorType(ir.IntType(16), 2 * LANES)
    multiply, add = (
        cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [given] * 2), name)
        for result, given, name in (
            (of_shorts, of_bytes, "llvm.x86.avx2.pmadd.ub.sw"),
            (vector, of_shorts, "llvm.x86.avx2.pmadd.wd"),
        )
    )
    ones = ir.Constant(of_shorts, [1] * 2 * LANES)

    def add_products(sums, unsigned, signed):
        pairs = builder.call(multiply, [builder.bitcast(x, of_bytes) for x in (unsigned, signed)])
        return builder.add(sums, builder.call(add, [pairs, ones]))

    return add_products


def words(dim: int) -> int:
    """int32 words of four codes that a row of this dimension takes."""
    return -(-dim // 4)


def packed_shape(count: int, dim: int, width: int) -> tuple[int, int, int]:
    """Shape of so many rows packed in panels of `width`, as int32 words."""
    return -(-count // width), words(dim), width


WORD = np.dtype(np.int32)
