"""Dot products of single pairs, bit-identical to the scores of the tile engine."""

import numpy as np

from rvtrain._engine._blocks import CHUNK
from rvtrain._engine._exp import fused
from rvtrain._engine._packing import turned
from rvtrain._engine._tile import vector_bytes
from rvtrain._kernels import emitted, in_order, kernel, njit

TOGETHER = 8
"""Number of pairs computed at once; independent sums hide the latency of each addition."""


@in_order
def dots(x, others, out):
    """out[c] = x · others[c], summed in the order of `score_block` with CHUNK.

    Shapes: x (d,), others (TOGETHER, d), out (TOGETHER,).
    """
    zero, dim = x.dtype.type(0), len(x)
    for start in range(0, dim, CHUNK):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zero
        for k in range(start, min(start + CHUNK, dim)):
            a = x[k]
            s0, s1 = fused(a, others[0, k], s0), fused(a, others[1, k], s1)
            s2, s3 = fused(a, others[2, k], s2), fused(a, others[3, k], s3)
            s4, s5 = fused(a, others[4, k], s4), fused(a, others[5, k], s5)
            s6, s7 = fused(a, others[6, k], s6), fused(a, others[7, k], s7)
        sums = (s0, s1, s2, s3, s4, s5, s6, s7)
        for c in range(TOGETHER):
            out[c] = out[c] + sums[c] if start > 0 else sums[c]


SCORED = vector_bytes() // 4
"""Number of rows that `scores_of_rows` scores at once: the float32 lanes of a vector."""


def _scores_of_rows(x, inverse, rows, first, unit, out):
    picked = rows.reshape(-1)[first : first + SCORED]
    units = (x[picked] * inverse[picked, np.newaxis]).astype(x.dtype)
    for start in range(0, x.shape[1], CHUNK):
        sums = np.zeros(SCORED, x.dtype)
        for k in range(start, min(start + CHUNK, x.shape[1])):
            sums += unit[k] * units[:, k]
        out[:SCORED] = out[:SCORED] + sums if start > 0 else sums


@emitted(_scores_of_rows)
def scores_of_rows(emit, x, inverse, rows, first, unit, out):
    """out[r] = unit · (x[i] · inverse[i]), i = rows[first + r], for r < SCORED, summed as `dots` does.

    x (n, d) float32, inverse (n,) float64, rows int64, read from this element on, unit (d,); C-contiguous. Rows are
    turned in registers, so that a lane of the sums is that of a row.
    """
    dim, whole = x.shape[1], x.shape[1] - x.shape[1] % SCORED
    numbers = [(rows + (first + r)).load() for r in range(SCORED)]
    places = [x + i * dim for i in numbers]
    factors = emit.joined([(inverse + i).load() for i in numbers])

    def add(column, k, total):
        scaled = (column.astype(np.float64) * factors).astype(np.float32)
        return emit.fma((unit + k).load().broadcast(SCORED), scaled, total)

    def several(k, total):
        for n, column in enumerate(turned([(place + k).load(SCORED) for place in places])):
            total = add(column, k + n, total)
        return [total]

    def single(k, total):
        return [add(emit.joined([(place + k).load() for place in places]), k, total)]

    def chunk(start, total):
        end = (start + CHUNK < dim).choose(start + CHUNK, dim)
        last = (end < whole).choose(end, whole)
        sums = emit.loop(start, last, SCORED, [emit.constant(0.0, np.float32, SCORED)], several)
        (part,) = emit.loop((start > whole).choose(start, last), end, 1, sums, single)
        return [total + part]

    nothing = emit.constant(-0.0, np.float32, SCORED)  # −0 + s = s, to the bit
    (total,) = emit.loop(emit.constant(0), dim, CHUNK, [nothing], chunk)
    out.store(total)


@njit
def unit_row(rows, i, out):
    """out = row i times its inverse norm, rounded as in the packed copies."""
    x, inverse = rows.x[i], rows.inverse[i]
    for k in range(len(out)):
        out[k] = x[k] * inverse


@kernel
def paired_cosines(start, stop, a, b, chunk, out):
    """out[i] = unit row i of a · unit row i of b; a and b Rows of (n, d), out (n,).

    Bit-identical to the scores of `score_block` with the same `chunk`.
    """
    for i in range(start, stop):
        out[i] = _dot(a.x[i], a.inverse[i], b.x[i], b.inverse[i], chunk)


@in_order
def _dot(x, scale, y, other, chunk):
    """(scale x) · (other y), summed in the order of `dots`; scaled numbers are rounded as in `unit_row`."""
    real = x.dtype.type
    total, dim = real(0), len(x)
    for start in range(0, dim, chunk):
        partial = real(0)
        for k in range(start, min(start + chunk, dim)):
            partial = fused(real(x[k] * scale), real(y[k] * other), partial)
        total = total + partial if start > 0 else partial
    return total
