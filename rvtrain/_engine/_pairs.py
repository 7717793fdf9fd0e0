"""Dot products of single pairs, bit-identical to the scores of the tile engine."""

from rvtrain._engine._blocks import CHUNK
from rvtrain._engine._exp import fused
from rvtrain._kernels import in_order, kernel, njit

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
