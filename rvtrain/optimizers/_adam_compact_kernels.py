"""Adam and AdamW on state in 16 or 8 bits: decoded, stepped and encoded block by block, in one pass over memory."""

import numpy as np

from rvtrain._engine._prefetch import prefetch_rows
from rvtrain._kernels import inlined, kernel, njit
from rvtrain.optimizers._adam_kernels import adam_constants, missed_steps
from rvtrain.optimizers._codes import (
    BLOCK,
    HALF_BLOCK,
    at,
    bfloat16,
    code,
    code_positive,
    decode,
    decoded,
    decoded_positive,
    encode,
    grown,
    magnitude,
    noise,
    noise_key,
    scale_of,
    shrunk,
    span,
)
from rvtrain.optimizers._elements import adam_moved, mixed, with_square

_S16 = np.uint32(16)
_ONE = np.float32(1)


@kernel
def adam_compact(start, stop, p, g, codes, scales, c, name, wipe):
    """One step of p (n, d), or of p[g.rows], g a `Gradient`; codes of m, v and top (n, d), scales (n, blocks).

    The range counts the `blocks_of` all rows, or of g.rows, one row's after the other's.

    Without AMSGrad those of top have no columns, and bfloat16 has no scales. name: two integers, of array and step.
    """
    given, sums, source, rows = g
    width, constants = p.shape[1], adam_constants(c, p.dtype)
    block = span(codes[0])
    blocks = -(-width // block)
    scratch = np.zeros(3 * block, p.dtype)
    for item in range(start, stop):
        r, b = item // blocks, item % blocks
        if b == 0:
            prefetch_rows(rows, r, p, codes[0], codes[1])
        row = r if len(rows) == 0 else rows[r]
        s = r if len(rows) == 0 else source[r]
        low, high = b * block, min(width, (b + 1) * block)
        gradient = given[s, low:high] if s >= 0 else sums[-1 - s, low:high]
        key = noise_key(name[0], name[1], row * blocks + b)
        mc, vc = codes[0][row, low:high], codes[1][row, low:high]
        tc = codes[2][row, low : high if codes[2].shape[1] > 0 else low]
        before = at(scales[0], row, b), at(scales[1], row, b), at(scales[2], row, b)
        after = _block(p[row, low:high], gradient, mc, vc, tc, before, scratch, constants, key, wipe)
        if scales[0].size > 0:
            scales[0][row, b], scales[1][row, b] = after[0], after[1]
            if len(tc) > 0:
                scales[2][row, b] = after[2]


@inlined
def _block(p, g, mc, vc, tc, scales, scratch, constants, key, wipe):
    """One step of a block, p and g (L,), codes (L,); returns its new scales."""
    for k in range(len(tc)):
        scratch[k + span(tc) * 2] = decoded_positive(tc[k], tc.itemsize == 2, scales[2])
    if mc.itemsize == 2:
        _half_block(p, g, mc, vc, scratch, constants, key)
        after = scales
    else:
        after = _byte_block(p, g, mc, vc, tc, scales, scratch, constants)
    if tc.itemsize == 2:
        for k in range(len(tc)):
            v, top = scratch[k + HALF_BLOCK], scratch[k + 2 * HALF_BLOCK]
            tc[k] = bfloat16(v if v > top else top, np.uint32(noise(key, k) << _S16))
    if wipe:
        g[:] = 0
    return after


# Scratch is one flat array of m, v and top, the last zeros without AMSGrad: of more arrays than this the compiler
# does not check at run time that they are apart, and gives up vectors.


@njit
def _half_block(p, g, mc, vc, scratch, constants, key):
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = constants
    for k in range(len(p)):
        gradient = mixed(sign, g[k], decay, p[k])
        m = mixed(b1, decoded(mc[k], True, _ONE), n1, gradient)
        v = with_square(b2, decoded_positive(vc[k], True, _ONE), n2, gradient)
        bits = noise(key, k)
        mc[k] = bfloat16(m, bits)
        vc[k] = bfloat16(v, np.uint32(bits << _S16))
        top = scratch[k + 2 * HALF_BLOCK]
        top = v if v > top else top
        scratch[k + HALF_BLOCK] = v
        p[k] = adam_moved(p[k], shrink, rate, m, top, root, eps)


@njit
def _byte_block(p, g, mc, vc, tc, scales, scratch, constants):
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = constants
    of_m, of_v = scales[0], scales[1]
    most_m, most_v, most_t = np.int32(0), np.int32(0), np.int32(0)
    for k in range(len(p)):
        gradient = mixed(sign, g[k], decay, p[k])
        m = mixed(b1, decoded(mc[k], False, of_m), n1, gradient)
        v = with_square(b2, decoded_positive(vc[k], False, of_v), n2, gradient)
        scratch[k] = m
        scratch[k + BLOCK] = v
        bits_m, bits_v = magnitude(m), magnitude(v)
        most_m = bits_m if bits_m > most_m else most_m
        most_v = bits_v if bits_v > most_v else most_v
        top = scratch[k + 2 * BLOCK]
        top = v if v > top else top
        p[k] = adam_moved(p[k], shrink, rate, m, top, root, eps)
    if most_v > grown(of_v):
        most_m, most_v = shrunk(scratch, len(p), of_v)
    for k in range(len(tc)):
        v, top = scratch[k + BLOCK], scratch[k + 2 * BLOCK]
        top = v if v > top else top
        scratch[k + 2 * BLOCK] = top
        bits = magnitude(top)
        most_t = bits if bits > most_t else most_t
    scale_m, inverse_m = scale_of(most_m)
    scale_v, inverse_v = scale_of(most_v)
    inverse_m = inverse_m if inverse_v > 0 else inverse_v  # no m without a v
    scale_t, inverse_t = scale_of(most_t)
    for k in range(len(p)):
        mc[k] = code(scratch[k], inverse_m)
        vc[k] = code_positive(scratch[k + BLOCK], inverse_v)
    for k in range(len(tc)):
        tc[k] = code_positive(scratch[k + 2 * BLOCK], inverse_t)
    return scale_m, scale_v, scale_t


@kernel
def adam_compact_missed(start, stop, p, rows, codes, scales, first, history, table, name):
    """The idle steps of p[rows] as in `adam_missed`."""
    width = p.shape[1]
    blocks = -(-width // BLOCK)
    scratch = np.empty((3, BLOCK), p.dtype)
    for r in range(start, stop):
        row = rows[r]
        for b in range(blocks if first[r] < len(history) else 0):
            low, high = b * BLOCK, min(width, (b + 1) * BLOCK)
            m, v = scratch[0, : high - low], scratch[1, : high - low]
            top = scratch[2, : high - low if codes[2].shape[1] > 0 else 0]
            decode(codes[0], scales[0], row, b, m, False)
            decode(codes[1], scales[1], row, b, v, True)
            decode(codes[2], scales[2], row, b, top, True)
            of_m, of_v, of_top = scratch[0:1], scratch[1:2], scratch[2:3, : len(top)]
            missed_steps(p, row, low, of_m, of_v, of_top, 0, high - low, first[r], history, table)
            key = noise_key(name[0], name[1], row * blocks + b)
            encode(m, codes[0], scales[0], row, b, False, key)
            encode(v, codes[1], scales[1], row, b, True, key)
            if len(top) > 0:
                encode(top, codes[2], scales[2], row, b, True, key)
