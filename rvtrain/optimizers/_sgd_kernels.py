"""SGD, element by element: one pass over memory a step.

constants c (float64): 0 lr, 1 momentum μ, 2 1 − dampening, 3 weight decay, 4 ±1, 5 Nesterov, 6 first step.

    g ← ±g + c₃ p        b ← g at the first step, else μ b + c₂ g        p ← p − lr · (g + μ b if Nesterov, else b)

Without momentum `b` has no columns and p ← p − lr · g. With g = 0 a step is linear in (p, b), the same for all
elements: what an idle row owes is a product of 2 × 2 matrices.
"""

import numpy as np

from rvtrain._engine._prefetch import prefetch_rows
from rvtrain._kernels import driver, in_order, kernel, njit
from rvtrain.optimizers._codes import (
    BLOCK,
    INFINITE,
    at,
    bfloat16,
    code,
    decode,
    decoded,
    encode,
    finite,
    magnitude,
    noise,
    noise_key,
    scale_of,
    span,
)
from rvtrain.optimizers._elements import less, mixed

COLUMNS = 4
"""Of the table: p from p, p from b, b from p, b from b."""


@njit
def _numbers(c):
    """lr, μ, 1 − dampening, decay, sign, weight of g and weight of b in the update.

    At the first step b = g, which is μ = 0 and no dampening.
    """
    first, nesterov = c[6] > 0.0, c[5] > 0.0
    mu, fresh = (0.0, 1.0) if first else (c[1], c[2])
    of_g, of_b = (1.0, c[1]) if nesterov else (0.0, 1.0)
    return c[0], mu, fresh, c[3], c[4], of_g, of_b


@njit
def _constants(c, dtype):
    """The same in the array's type."""
    rate, mu, fresh, decay, sign, of_g, of_b = _numbers(c)
    return (
        dtype.type(rate),
        dtype.type(mu),
        dtype.type(fresh),
        dtype.type(decay),
        dtype.type(sign),
        dtype.type(of_g),
        dtype.type(of_b),
    )


@in_order
def _moved(p, gradient, b, rate, of_g, of_b):
    return less(p, rate, mixed(of_g, gradient, of_b, b))


@kernel
def sgd_dense(start, stop, p, g, b, c, wipe):
    """One step of all elements; p and g (n,), b (n,) or empty, c (7,); wipe: leave zeros in g."""
    rate, mu, fresh, decay, sign, of_g, of_b = _constants(c, p.dtype)
    p, g, b = p[start:stop], g[start:stop], b[start:stop]
    if len(b) == 0:
        for i in range(len(p)):
            p[i] = _moved(p[i], g[i], p[i], rate, sign, decay)
            if wipe:
                g[i] = 0
    else:
        for i in range(len(p)):
            gradient = mixed(sign, g[i], decay, p[i])
            if wipe:
                g[i] = 0
            b[i] = mixed(mu, b[i], fresh, gradient)
            p[i] = _moved(p[i], gradient, b[i], rate, of_g, of_b)


@kernel
def sgd_rows(start, stop, p, g, b, c):
    """One step of p[g.rows], g a `Gradient`; p (n, d), b (n, d) or (n, 0)."""
    for r in range(start, stop):
        prefetch_rows(g.rows, r, p, b, b)
        row, s = g.rows[r], g.source[r]
        _elements(p[row], g.given[s] if s >= 0 else g.sums[-1 - s], b[row], c)


@kernel
def sgd_compact(start, stop, p, g, codes, scales, c, name, wipe):
    """One step of p (n, d), or of p[g.rows], g a `Gradient`; codes of b (n, d), scales (n, blocks) or none.

    name: two integers, of array and step. The range counts the `blocks_of` all rows, or of g.rows, one row's after
    the other's.
    """
    given, sums, source, rows = g
    width, constants = p.shape[1], _constants(c, p.dtype)
    length = span(codes)
    blocks = -(-width // length)
    scratch = np.empty(length, p.dtype)
    for item in range(start, stop):
        r, block = item // blocks, item % blocks
        if block == 0:
            prefetch_rows(rows, r, p, codes, codes)
        row = r if len(rows) == 0 else rows[r]
        s = r if len(rows) == 0 else source[r]
        low, high = block * length, min(width, (block + 1) * length)
        gradient = given[s, low:high] if s >= 0 else sums[-1 - s, low:high]
        key = noise_key(name[0], name[1], row * blocks + block)
        scale = at(scales, row, block)
        scale = _block(p[row, low:high], gradient, codes[row, low:high], scale, scratch, constants, key, wipe)
        if scales.size > 0:
            scales[row, block] = scale


@njit
def _block(p, g, codes, scale, scratch, constants, key, wipe):
    """One step of a block, p, g and codes (L,); returns its new scale."""
    rate, mu, fresh, decay, sign, of_g, of_b = constants
    half = codes.itemsize == 2
    most = np.int32(0)
    for k in range(len(p)):
        gradient = mixed(sign, g[k], decay, p[k])
        if wipe:
            g[k] = 0
        b = mixed(mu, decoded(codes[k], half, scale), fresh, gradient)
        p[k] = _moved(p[k], gradient, b, rate, of_g, of_b)
        if half:
            codes[k] = bfloat16(b, noise(key, k))
        else:
            scratch[k] = b
            bits = magnitude(b)
            most = bits if bits > most else most
    if most >= INFINITE:
        most = finite(scratch, len(p))
    scale, inverse = scale_of(most)
    if not half:
        for k in range(len(p)):
            codes[k] = code(scratch[k], inverse)
    return scale


@njit
def _elements(p, g, b, c):
    rate, mu, fresh, decay, sign, of_g, of_b = _constants(c, p.dtype)
    for k in range(len(p)):
        gradient = mixed(sign, g[k], decay, p[k])
        if len(b) > 0:
            b[k] = mixed(mu, b[k], fresh, gradient)
            p[k] = _moved(p[k], gradient, b[k], rate, of_g, of_b)
        else:
            p[k] = less(p[k], rate, gradient)


@driver
def idle_table(threads, history, momentum, table):
    """table[s], (T, 4): the matrix that the steps s, s + 1, …, T − 1 with zero gradient make together."""
    pp, pb, bp, bb = 1.0, 0.0, 0.0, 1.0
    for s in range(len(history) - 1, -1, -1):
        rate, mu, fresh, decay, _, of_g, of_b = _numbers(history[s])
        if momentum:
            one_pp, one_pb = 1.0 - rate * (of_g + of_b * fresh) * decay, -rate * of_b * mu
        else:
            one_pp, one_pb = 1.0 - rate * decay, 0.0
        one_bp, one_bb = fresh * decay, mu
        pp, pb, bp, bb = (
            pp * one_pp + pb * one_bp,
            pp * one_pb + pb * one_bb,
            bp * one_pp + bb * one_bp,
            bp * one_pb + bb * one_bb,
        )
        table[s, 0], table[s, 1], table[s, 2], table[s, 3] = pp, pb, bp, bb


@kernel
def sgd_missed(start, stop, p, rows, b, first, table):
    """Steps first[r] … with zero gradient for p[rows[r]], b (n, d) or (n, 0)."""
    for r in range(start, stop):
        if first[r] < len(table):
            _missed(p[rows[r]], b[rows[r]], table[first[r]])


@kernel
def sgd_compact_missed(start, stop, p, rows, codes, scales, first, table, name):
    """The same on codes of b."""
    width = p.shape[1]
    blocks = -(-width // BLOCK)
    scratch = np.empty(BLOCK, p.dtype)
    for r in range(start, stop):
        row = rows[r]
        for block in range(blocks if first[r] < len(table) else 0):
            low, high = block * BLOCK, min(width, (block + 1) * BLOCK)
            b = scratch[: high - low]
            decode(codes, scales, row, block, b, False)
            _missed(p[row, low:high], b, table[first[r]])
            encode(b, codes, scales, row, block, False, noise_key(name[0], name[1], row * blocks + block))


@njit
def _missed(p, b, matrix):
    pp, pb = p.dtype.type(matrix[0]), p.dtype.type(matrix[1])
    bp, bb = p.dtype.type(matrix[2]), p.dtype.type(matrix[3])
    for k in range(len(p)):
        old = p[k]
        if len(b) > 0:
            p[k] = mixed(pp, old, pb, b[k])
            b[k] = mixed(bp, old, bb, b[k])
        else:
            p[k] = pp * old
