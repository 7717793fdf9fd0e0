"""Kernels for measuring the machine: independent FMAs, and the microkernel over and over."""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from rvtrain._engine._tile import tile_panels, vector_bytes
from rvtrain._kernels import kernel, prange

INDEPENDENT = 12
"""FMAs in flight: more than latency times throughput, fewer than registers."""


def flops_of_a_round() -> int:
    """Arithmetic of one round of `_fmas`."""
    return 2 * INDEPENDENT * vector_bytes() // 4


@intrinsic
def _fmas(typingctx, rounds):
    """Rounds of independent vector FMAs; returns something that depends on all of them."""
    lanes = vector_bytes() // 4
    vector, i64 = ir.VectorType(ir.FloatType(), lanes), ir.IntType(64)

    def generate(context, builder, signature, args):
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f32"
        )
        before, body = builder.basic_block, builder.append_basic_block("round")
        after = builder.append_basic_block("after")
        number = builder.sitofp(args[0], ir.FloatType())
        undefined = ir.Constant(vector, ir.Undefined)
        factor = builder.shuffle_vector(
            builder.insert_element(undefined, number, ir.IntType(32)(0)),
            undefined,
            ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes),
        )
        builder.branch(body)
        builder.position_at_end(body)
        count = builder.phi(i64)
        count.add_incoming(i64(0), before)
        sums = [builder.phi(vector) for _ in range(INDEPENDENT)]
        following = [builder.call(fma, [total, factor, factor]) for total in sums]
        for i, (total, value) in enumerate(zip(sums, following, strict=True)):
            total.add_incoming(ir.Constant(vector, [float(i)] * lanes), before)
            total.add_incoming(value, body)
        more = builder.add(count, i64(1))
        count.add_incoming(more, body)
        builder.cbranch(builder.icmp_signed("<", more, args[0]), body, after)
        builder.position_at_end(after)
        total = following[0]
        for value in following[1:]:
            total = builder.fadd(total, value)
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(rounds), generate


@kernel
def repeat_fmas(out, rounds):
    """`rounds` of independent FMAs on each of len(out) threads."""
    for thread in prange(len(out)):
        out[thread] = _fmas(np.int64(rounds))


@kernel
def repeat_tiles(left, right, out, times):
    """The same tile again and again, one on each of len(out) threads; left (t, k, MR), right (t, k, NR)."""
    steps, height, width = left.shape[1], left.shape[2], right.shape[2]
    for thread in prange(len(out)):
        t = np.int64(thread)
        for _ in range(times):
            a, b, c = t * steps * height, t * steps * width, t * height * width
            tile_panels(left, a, height, right, b, steps, out, c, width, False)
