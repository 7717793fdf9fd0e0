"""The microkernel of 8-bit products: one register tile of sums of bytes, four at a time.

# Design: as `_tile.py`, but a lane of the accumulators takes four products of unsigned and signed bytes at a time.
# Both operands are packed as int32 words of four consecutive codes:
#
#     left  [k / 4][ROWS]   signed codes, one word broadcast        right [k / 4][COLUMNS]   codes + 128, unsigned
#
# The 128 is taken back by where the accumulators start: at −128 Σ left codes. With AVX-512 VNNI the four products are
# one instruction (vpdpbusd). AVX2 has vpmaddubsw, which adds a pair of products into int16 and saturates; so left
# codes have fewer levels there: 2 · 255 · 64 < 2¹⁵. Pairs are summed in int16 too, for PARTIAL words: sums that wrap,
# but end right, since Σ left · right of a lane cannot leave int16 where neither side is longer than 181 there
# (Cauchy–Schwarz: 181² < 2¹⁵). Only then do vpmaddwd with ones and vpaddd make int32 of them:
#
#     word k:  b0 b1 │ b2 b3          lane 0 sums b0, b1 of PARTIAL words, lane 1 their b2, b3
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from rvtrain._kernels import cpu_features, intrinsic


class ByteTile(NamedTuple):
    """What the processor makes of the microkernel."""

    instructions: str
    rows: int
    columns: int
    lanes: int
    """int32 numbers of a vector"""
    left_levels: int
    """left codes lie within ± this; right codes within ±127 everywhere"""
    partial: int
    """words that are summed in 16 bits; 0: none"""


VNNI = ByteTile("AVX-512 VNNI", 12, 32, 16, 127, 0)
"""24 accumulators, two vectors of the right operand, and room for the broadcasts."""
AVX2 = ByteTile("AVX2", 4, 16, 8, 64, 16)
"""8 accumulators, two vectors of the right operand, a broadcast and the pairs."""


def byte_tile() -> ByteTile | None:
    """The tile of the processor that kernels are compiled for, if its products of bytes are faster than its floats'.

    In vectors of 512 bits without VNNI they are not.
    """
    features = cpu_features()
    if {"avx512vnni", "avx512f", "avx512bw"} <= features:
        return VNNI
    return AVX2 if "avx2" in features and "avx512f" not in features else None


TILE = byte_tile() or AVX2
ROWS, COLUMNS, LANES, PARTIAL = TILE.rows, TILE.columns, TILE.lanes, TILE.partial


def _tile_bytes(left, at, right, right_at, steps, start, start_at, out):
    words_a = left.reshape(-1)[at : at + steps * ROWS].reshape(steps, ROWS, 1)
    words_b = right.reshape(-1)[right_at : right_at + steps * COLUMNS].reshape(steps, COLUMNS, 1)
    of_lanes = (steps, -1, 2, 2) if PARTIAL else (steps, -1, 1, 4)
    a = words_a.view(np.int8).astype(np.int64).reshape(of_lanes)
    b = words_b.view(np.uint8).astype(np.int64).reshape(of_lanes)
    kind = np.int16 if PARTIAL else np.int32
    out[:] = 0
    for part, first in enumerate(range(0, steps, PARTIAL or steps)):
        k, begin = slice(first, first + (PARTIAL or steps)), start_at + part * ROWS
        of_rows = start.reshape(-1)[begin : begin + ROWS, np.newaxis].view(kind)[:, np.newaxis]
        sums = np.einsum("krlb,kclb->rcl", a[k], b[k]) + of_rows
        out += sums.astype(kind).sum(axis=2, dtype=np.int32)


@intrinsic(_tile_bytes)
def tile_bytes(typingctx, left, at, right, right_at, steps, start, start_at, out):
    """out[r, c] = start[r] + Σ over bytes of left word [k, r] · right word [k, c], for k < steps.

    left, right, start and out are C-contiguous int32 arrays, read from element offsets `…at`; out (ROWS, COLUMNS).
    start has ROWS words for each PARTIAL words of k, two int16 each where there are lanes for them.
    """
    index = types.intp
    signature = types.void(left, index, right, index, index, start, index, out)

    def generate(context, builder, sig, args):
        i32, i64 = ir.IntType(32), ir.IntType(64)
        vector = ir.VectorType(i32, LANES)
        undefined = ir.Constant(vector, ir.Undefined)
        sums, add_products, finish = _pairs(builder, vector) if PARTIAL else _vpdpbusd(builder, vector)

        def pointer(which, offset):
            array = cgutils.create_struct_proxy(sig.args[which])(context, builder, args[which])
            return builder.gep(array.data, [offset])

        def load(base, offset):
            return builder.load(builder.bitcast(builder.gep(base, [i64(offset)]), vector.as_pointer()), align=4)

        def broadcast(base, offset):
            one = builder.insert_element(undefined, builder.load(builder.gep(base, [i64(offset)]), align=4), i32(0))
            return builder.shuffle_vector(one, undefined, ir.Constant(vector, [0] * LANES))

        starts = i64(0), pointer(0, args[1]), pointer(2, args[3]), pointer(5, args[6])
        target = pointer(7, i64(0))
        nothing = ir.Constant(vector, [0] * LANES)
        places = [
            [
                builder.bitcast(builder.gep(target, [i64(r * COLUMNS + c)]), vector.as_pointer())
                for c in range(0, COLUMNS, LANES)
            ]
            for r in range(ROWS)
        ]
        for place in (place for line in places for place in line if PARTIAL):
            builder.store(nothing, place, align=4)
        before = builder.basic_block
        part, body, after, done = (
            builder.append_basic_block(f"bytes.{name}") for name in ("part", "k", "after", "out")
        )
        builder.branch(part)

        builder.position_at_end(part)
        of_part = [builder.phi(x.type) for x in starts]
        first, begin = of_part[0], of_part[3]
        initial = [builder.bitcast(broadcast(begin, r), sums) for r in range(ROWS)]
        last = args[4]
        if PARTIAL:
            limit = builder.add(first, i64(PARTIAL))
            last = builder.select(builder.icmp_signed("<", limit, last), limit, last)
        builder.branch(body)

        builder.position_at_end(body)
        k, a, b = (builder.phi(x.type) for x in starts[:3])
        tile = [[builder.phi(sums) for _ in range(COLUMNS // LANES)] for _ in range(ROWS)]
        row = [load(b, LANES * c) for c in range(COLUMNS // LANES)]
        total = []
        for r in range(ROWS):
            word = broadcast(a, r)
            total.append([add_products(t, x, word) for t, x in zip(tile[r], row, strict=True)])
        following = builder.add(k, i64(1)), builder.gep(a, [i64(ROWS)]), builder.gep(b, [i64(COLUMNS)])
        for phi, value, next_value in (
            *zip((k, a, b), of_part[:3], following, strict=True),
            *((t, initial[r], total[r][c]) for r, line in enumerate(tile) for c, t in enumerate(line)),
        ):
            phi.add_incoming(value, part)
            phi.add_incoming(next_value, body)
        builder.cbranch(builder.icmp_signed("<", following[0], last), body, after)

        builder.position_at_end(after)
        for place, value in ((p, v) for line in zip(places, total, strict=True) for p, v in zip(*line, strict=True)):
            result = finish(value)
            if PARTIAL:
                result = builder.add(builder.load(place, align=4), result)
            builder.store(result, place, align=4)
        for phi, value, next_value in zip(
            of_part, starts, (*following, builder.gep(begin, [i64(ROWS)])), strict=True
        ):
            phi.add_incoming(value, before)
            phi.add_incoming(next_value, after)
        builder.cbranch(builder.icmp_signed("<", following[0], args[4]), part, done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


def _vpdpbusd(builder, vector):
    """The type of the sums; (sums, unsigned, signed) ↦ sums + the four products of each lane; sums ↦ int32."""
    call = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), "llvm.x86.avx512.vpdpbusd.512"
    )
    return vector, lambda sums, unsigned, signed: builder.call(call, [sums, unsigned, signed]), lambda sums: sums


def _pairs(builder, vector):
    """The same without VNNI, in vectors of 256 bits, the sums in int16."""
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
        return builder.add(sums, builder.call(multiply, [builder.bitcast(x, of_bytes) for x in (unsigned, signed)]))

    return of_shorts, add_products, lambda sums: builder.call(add, [sums, ones])


def words(dim: int) -> int:
    """int32 words of four codes that a row of this dimension takes."""
    return -(-dim // 4)


def parts(dim: int) -> int:
    """Sums of words, each with its start, that a row of this dimension takes."""
    return -(-words(dim) // PARTIAL) if PARTIAL else 1


def packed_shape(count: int, dim: int, width: int) -> tuple[int, int, int]:
    """Shape of so many rows packed in panels of `width`, as int32 words."""
    return -(-count // width), words(dim), width


WORD = np.dtype(np.int32)
