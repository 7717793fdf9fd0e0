"""Kernels for measuring the machine: independent FMAs, and the microkernel over and over."""

import numpy as np

from rvtrain._engine._tile import tile_panels, vector_bytes
from rvtrain._kernels import emitted, kernel

INDEPENDENT = 12
"""FMAs in flight: more than latency times throughput, fewer than registers."""


def flops_of_a_round() -> int:
    """Arithmetic of one round of `_fmas`."""
    return 2 * INDEPENDENT * vector_bytes() // 4


@emitted(lambda rounds, out, thread: None)  # without compiled code there is no peak to measure
def _fmas(emit, rounds, out, thread):
    """Rounds of independent vector FMAs; writes a number that depends on all of them to out[thread]."""
    lanes = vector_bytes() // 4
    factor = rounds.astype(np.float32).broadcast(lanes)
    starts = [emit.constant(float(i), np.float32, lanes) for i in range(INDEPENDENT)]
    first, *rest = emit.loop(
        emit.constant(0), rounds, 1, starts, lambda i, *sums: [emit.fma(total, factor, factor) for total in sums]
    )
    for value in rest:
        first = first + value
    (out + thread * lanes).store(first)


@kernel
def repeat_fmas(start, stop, rounds, out):
    """`rounds` of independent FMAs for each of a thread's indices; out (threads, lanes)."""
    for thread in range(start, stop):
        _fmas(rounds, out, thread)


@kernel
def repeat_tiles(start, stop, left, right, times, out):
    """The same tile again and again, one for each of a thread's indices; left (t, k, MR), right (t, k, NR)."""
    steps, height, width = left.shape[1], left.shape[2], right.shape[2]
    for t in range(start, stop):
        for _ in range(times):
            a, b, c = t * steps * height, t * steps * width, t * height * width
            tile_panels(left, a, height, right, b, steps, out, c, width, False)
