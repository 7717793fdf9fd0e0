"""Kernels of SGD: a step is one pass over memory.

Constants c of a step (float64): 0 lr, 1 momentum μ, 2 1 − dampening, 3 weight decay, 4 ±1, 5 Nesterov, 6 first step.

    g ← ±g + c₃ p        b ← g at the first step, else μ b + c₂ g        p ← p − lr · (g + μ b if Nesterov, else b)

Without momentum `b` is None and p ← p − lr · g. A step with g = 0 is linear in (p, b), by one 2 × 2 matrix for all
elements, so that the steps that an idle row has missed are a product of such matrices.
"""

import numpy as np

from rvtrain._engine._prefetch import prefetch_rows
from rvtrain._kernels import driver, in_order, inlined, kernel, njit
from rvtrain.optimizers._codes import (
    BLOCK,
    bfloat16,
    decode,
    decode_bfloat16,
    decoded,
    encode,
    encode_bfloat16,
    from_bfloat16,
    noise,
    noise_key,
    span,
)
from rvtrain.optimizers._elements import less, mixed

COLUMNS = 4
"""Columns of the table: the matrix entries p from p, p from b, b from p, b from b."""
_S0 = np.uint32(0)


@njit
def _numbers(c):
    """lr, μ, 1 − dampening, decay, sign, and the weights of g and of b in the update.

    The first step, where b = g, is one with μ = 0 and without dampening.
    """
    first, nesterov = c[6] > 0.0, c[5] > 0.0
    mu, fresh = (0.0, 1.0) if first else (c[1], c[2])
    of_g, of_b = (1.0, c[1]) if nesterov else (0.0, 1.0)
    return c[0], mu, fresh, c[3], c[4], of_g, of_b


@njit
def _constants(c, dtype):
    """The same in the dtype of the array."""
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
    """One step of all elements.

    Shapes: p, g (n,), b (n,) or None, c (7,); the range is that of the elements. wipe: leave zeros in g.
    """
    rate, mu, fresh, decay, sign, of_g, of_b = _constants(c, p.dtype)
    p, g = p[start:stop], g[start:stop]
    if b is None:
        for i in range(len(p)):
            p[i] = _moved(p[i], g[i], p[i], rate, sign, decay)
            if wipe:
                g[i] = 0
    else:
        buffer = b[start:stop]
        for i in range(len(p)):
            gradient = mixed(sign, g[i], decay, p[i])
            if wipe:
                g[i] = 0
            momentum = mixed(mu, buffer[i], fresh, gradient)
            buffer[i] = momentum
            p[i] = _moved(p[i], gradient, momentum, rate, of_g, of_b)


@kernel
def sgd_rows(start, stop, p, g, b, c):
    """One step of p[g.rows], g a `Gradient`; p (n, d), b (n, d) or None. The range is that of g.rows."""
    constants = _constants(c, p.dtype)
    given, sums, source, rows = g
    for r in range(start, stop):
        row, s = rows[r], source[r]
        if b is None:
            prefetch_rows(rows, r, p, p, p)
            if s >= 0:
                _step_row(p, row, given, s, constants)
            else:
                _step_row(p, row, sums, -1 - s, constants)
        else:
            prefetch_rows(rows, r, p, b, b)
            if s >= 0:
                _step_row_momentum(p, row, given, s, b, constants)
            else:
                _step_row_momentum(p, row, sums, -1 - s, b, constants)


@inlined
def _step_row(p, row, g, s, constants):
    """One step of p[row] by g[s]."""
    rate, _, _, decay, sign, _, _ = constants
    for k in range(p.shape[1]):
        p[row, k] = _moved(p[row, k], g[s, k], p[row, k], rate, sign, decay)


@inlined
def _step_row_momentum(p, row, g, s, b, constants):
    """The same with momentum b[row]."""
    rate, mu, fresh, decay, sign, of_g, of_b = constants
    for k in range(p.shape[1]):
        gradient = mixed(sign, g[s, k], decay, p[row, k])
        momentum = mixed(mu, b[row, k], fresh, gradient)
        b[row, k] = momentum
        p[row, k] = _moved(p[row, k], gradient, momentum, rate, of_g, of_b)


@kernel
def sgd_compact(start, stop, p, g, codes, scales, c, name, wipe):
    """One step of p (n, d), or of p[g.rows], g a `Gradient`; codes of b (n, d).

    scales: a tuple of theirs, (n, blocks), or () for bfloat16, which has none. The range is that of the blocks
    (`blocks_of`), of one row after another. name: two integers, of array and step. wipe: leave zeros in g.
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
        part, bits = p[row, low:high], codes[row, low:high]
        if len(scales) == 0:
            _half_block(part, gradient, bits, constants, noise_key(name[0], name[1], row * blocks + block))
        else:
            scales[0][row, block] = _byte_block(part, gradient, bits, scales[0][row, block], scratch, constants)
        if wipe:
            gradient[:] = 0


@njit
def _half_block(p, g, codes, constants, key):
    """One step of a block of bfloat16; p, g and codes (L,)."""
    rate, mu, fresh, decay, sign, of_g, of_b = constants
    for k in range(len(p)):
        gradient = mixed(sign, g[k], decay, p[k])
        b = mixed(mu, from_bfloat16(codes[k]), fresh, gradient)
        p[k] = _moved(p[k], gradient, b, rate, of_g, of_b)
        codes[k] = bfloat16(b, noise(key, k))


@njit
def _byte_block(p, g, codes, scale, scratch, constants):
    """One step of a block of int8; p, g and codes (L,). Returns its new scale."""
    rate, mu, fresh, decay, sign, of_g, of_b = constants
    for k in range(len(p)):
        gradient = mixed(sign, g[k], decay, p[k])
        b = mixed(mu, decoded(codes[k], scale), fresh, gradient)
        p[k] = _moved(p[k], gradient, b, rate, of_g, of_b)
        scratch[k] = b
    return encode(scratch[: len(p)], codes)


@driver
def idle_table(threads, history, momentum, table):
    """table[s] = the matrix of the steps s, s + 1, …, T − 1 with g = 0 together; history (T, 7), table (T, 4)."""
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
    """The steps first[r], first[r] + 1, … with g = 0 of p[rows[r]].

    Shapes: p (n, d), b (n, d) or None, rows and first (R,), table (T, 4); the range is that of rows.
    """
    for r in range(start, stop):
        if first[r] < len(table):
            if b is None:
                _missed(p[rows[r]], None, table[first[r]])
            else:
                _missed(p[rows[r]], b[rows[r]], table[first[r]])


@kernel
def sgd_compact_missed(start, stop, p, rows, codes, scales, first, table, name):
    """The same with codes of b; codes, scales and name as in `sgd_compact`."""
    width = p.shape[1]
    blocks = -(-width // BLOCK)
    scratch = np.empty(BLOCK, p.dtype)
    for r in range(start, stop):
        row = rows[r]
        for block in range(blocks if first[r] < len(table) else 0):
            low, high = block * BLOCK, min(width, (block + 1) * BLOCK)
            b, bits = scratch[: high - low], codes[row, low:high]
            if len(scales) == 0:
                decode_bfloat16(bits, b)
            else:
                decode(bits, scales[0][row, block], b)
            _missed(p[row, low:high], b, table[first[r]])
            if len(scales) == 0:
                encode_bfloat16(b, bits, noise_key(name[0], name[1], row * blocks + block), _S0)
            else:
                scales[0][row, block] = encode(b, bits)


@njit
def _missed(p, b, matrix):
    """(p, b) ← matrix · (p, b); p (d,), b (d,) or None, matrix (4,) a row of the table."""
    pp, pb = p.dtype.type(matrix[0]), p.dtype.type(matrix[1])
    bp, bb = p.dtype.type(matrix[2]), p.dtype.type(matrix[3])
    if b is None:
        for k in range(len(p)):
            p[k] = pp * p[k]
    else:
        for k in range(len(p)):
            old = p[k]
            p[k] = mixed(pp, old, pb, b[k])
            b[k] = mixed(bp, old, bb, b[k])
