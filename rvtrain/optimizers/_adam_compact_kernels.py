"""Adam and AdamW on state in 16 or 8 bits: decoded, stepped and encoded block by block, in one pass over memory.

codes: a tuple of the codes of m, v and, under AMSGrad, top, each (n, d). scales: a tuple of theirs, each (n, blocks),
or () for bfloat16, which has none. The compiler knows the lengths of tuples, and leaves out the branches of other
state dtypes.
"""

import numpy as np

from rvtrain._engine._prefetch import prefetch_rows
from rvtrain._kernels import kernel, njit
from rvtrain.optimizers._adam_kernels import adam_constants, missed_steps
from rvtrain.optimizers._codes import (
    BLOCK,
    HALF_BLOCK,
    bfloat16,
    code,
    code_positive,
    decode,
    decode_bfloat16,
    decode_positive,
    decoded,
    decoded_positive,
    encode,
    encode_bfloat16,
    encode_positive,
    from_bfloat16,
    grown,
    magnitude,
    noise,
    noise_key,
    scale_of,
    shrunk,
    span,
)
from rvtrain.optimizers._elements import adam_moved, mixed, with_square

_S0, _S16 = np.uint32(0), np.uint32(16)


@kernel
def adam_compact(start, stop, p, g, codes, scales, c, name, wipe):
    """One step of p (n, d), or of p[g.rows], g a `Gradient`; c as in `adam_dense`.

    The range is that of the blocks (`blocks_of`), of one row after another. name: two integers, of array and step.
    wipe: leave zeros in g.
    """
    given, sums, source, rows = g
    width, constants = p.shape[1], adam_constants(c, p.dtype)
    length = span(codes[0])
    blocks = -(-width // length)
    scratch = np.zeros(3 * length, p.dtype)
    for item in range(start, stop):
        r, b = item // blocks, item % blocks
        if b == 0:
            prefetch_rows(rows, r, p, codes[0], codes[1])
        row = r if len(rows) == 0 else rows[r]
        s = r if len(rows) == 0 else source[r]
        low, high = b * length, min(width, (b + 1) * length)
        gradient = given[s, low:high] if s >= 0 else sums[-1 - s, low:high]
        part, mc, vc = p[row, low:high], codes[0][row, low:high], codes[1][row, low:high]
        if len(codes) == 3:
            tops, tc = scratch[2 * length : 2 * length + len(part)], codes[2][row, low:high]
        if len(scales) == 0:
            key = noise_key(name[0], name[1], row * blocks + b)
            if len(codes) == 3:
                decode_bfloat16(tc, tops)
            _half_block(part, gradient, mc, vc, scratch, constants, key)
            if len(codes) == 3:
                _half_top(tc, scratch, key)
        elif len(codes) == 3:
            decode_positive(tc, scales[2][row, b], tops)
            of_m, of_v = scales[0][row, b], scales[1][row, b]
            of_m, of_v, of_top = _byte_block(part, gradient, mc, vc, tc, of_m, of_v, scratch, constants)
            scales[0][row, b], scales[1][row, b], scales[2][row, b] = of_m, of_v, of_top
        else:
            of_m, of_v = scales[0][row, b], scales[1][row, b]
            of_m, of_v, _ = _byte_block(part, gradient, mc, vc, None, of_m, of_v, scratch, constants)
            scales[0][row, b], scales[1][row, b] = of_m, of_v
        if wipe:
            gradient[:] = 0


# The scratch is one flat array of m, v and top, where top is zeros without AMSGrad, because of more arrays than this
# the compiler does not check at run time that they are apart, and then it emits no vectors.


@njit
def _half_block(p, g, mc, vc, scratch, constants, key):
    """One step of a block of bfloat16, p, g, mc, vc (L,); the new v is left in the scratch."""
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = constants
    for k in range(len(p)):
        gradient = mixed(sign, g[k], decay, p[k])
        m = mixed(b1, from_bfloat16(mc[k]), n1, gradient)
        v = with_square(b2, from_bfloat16(vc[k]), n2, gradient)
        bits = noise(key, k)
        mc[k] = bfloat16(m, bits)
        vc[k] = bfloat16(v, np.uint32(bits << _S16))
        top = scratch[k + 2 * HALF_BLOCK]
        top = v if v > top else top
        scratch[k + HALF_BLOCK] = v
        p[k] = adam_moved(p[k], shrink, rate, m, top, root, eps)


@njit
def _half_top(tc, scratch, key):
    """The new top of a block of bfloat16, from v and the old one in the scratch; tc (L,)."""
    for k in range(len(tc)):
        v, top = scratch[k + HALF_BLOCK], scratch[k + 2 * HALF_BLOCK]
        tc[k] = bfloat16(v if v > top else top, np.uint32(noise(key, k) << _S16))


@njit
def _byte_block(p, g, mc, vc, tc, of_m, of_v, scratch, constants):
    """One step of a block of int8, p, g, mc, vc (L,), tc (L,) or None.

    Takes the scales of m and v, and returns the new ones of m, v and top.
    """
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = constants
    most_m, most_v, most_t = np.int32(0), np.int32(0), np.int32(0)
    for k in range(len(p)):
        gradient = mixed(sign, g[k], decay, p[k])
        m = mixed(b1, decoded(mc[k], of_m), n1, gradient)
        v = with_square(b2, decoded_positive(vc[k], of_v), n2, gradient)
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
    if tc is not None:
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
    if tc is not None:
        for k in range(len(tc)):
            tc[k] = code_positive(scratch[k + 2 * BLOCK], inverse_t)
    return scale_m, scale_v, scale_t


@kernel
def adam_compact_missed(start, stop, p, rows, codes, scales, first, history, table, name):
    """The idle steps of p[rows], as in `adam_missed`; the range is that of rows, name as in `adam_compact`."""
    width = p.shape[1]
    blocks = -(-width // BLOCK)
    scratch = np.empty((3, BLOCK), p.dtype)
    for r in range(start, stop):
        row = rows[r]
        for b in range(blocks if first[r] < len(history) else 0):
            low, high = b * BLOCK, min(width, (b + 1) * BLOCK)
            length, key = high - low, noise_key(name[0], name[1], row * blocks + b)
            m, v, top = scratch[0, :length], scratch[1, :length], scratch[2, :length]
            of_m, of_v, of_top = scratch[0:1], scratch[1:2], scratch[2:3]
            mc, vc = codes[0][row, low:high], codes[1][row, low:high]
            if len(scales) == 0:
                decode_bfloat16(mc, m)
                decode_bfloat16(vc, v)
            else:
                decode(mc, scales[0][row, b], m)
                decode_positive(vc, scales[1][row, b], v)
            if len(codes) == 3:
                tc = codes[2][row, low:high]
                if len(scales) == 0:
                    decode_bfloat16(tc, top)
                else:
                    decode_positive(tc, scales[2][row, b], top)
                missed_steps(p, row, low, of_m, of_v, of_top, 0, length, first[r], history, table, True)
                if len(scales) == 0:
                    encode_bfloat16(top, tc, key, _S16)
                else:
                    scales[2][row, b] = encode_positive(top, tc)
            else:
                missed_steps(p, row, low, of_m, of_v, of_v, 0, length, first[r], history, table, False)
            if len(scales) == 0:
                encode_bfloat16(m, mc, key, _S0)
                encode_bfloat16(v, vc, key, _S16)
            else:
                scales[0][row, b] = encode(m, mc)
                scales[1][row, b] = encode_positive(v, vc)
