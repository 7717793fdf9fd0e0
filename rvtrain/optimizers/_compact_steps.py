"""The kernels of all rules for state in 16 or 8 bits: decoded, stepped and encoded block by block, in one pass.

codes: a tuple of the codes of the buffers, each (n, d). scales: a tuple of theirs, each (n, blocks), or () for
bfloat16, which has none. The compiler knows the lengths of tuples, and leaves out the branches of other state dtypes.

A rule's buffers are one average; or an average and one of squares, by whose root the former is divided; or both and
the largest square so far.
"""

import numpy as np

from rvtrain._engine._prefetch import prefetch_part, prefetch_rows
from rvtrain._kernels import kernel, njit
from rvtrain.optimizers._codes import (
    BLOCK,
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
    next_noise,
    noise_key,
    scale_of,
    shrunk,
    span,
)
from rvtrain.optimizers._rule import element, numbers_of, unrolled
from rvtrain.optimizers._steps import idle_steps

_S0, _S16 = np.uint32(0), np.uint32(16)


@kernel
def compact_step(start, stop, p, g, codes, scales, c, name, wipe):
    """One step of p (n, d), or of p[g.rows], g a `Gradient`.

    The range is that of the blocks (`blocks_of`), of one row after another. name: two integers, of array and step.
    wipe: leave zeros in g.
    """
    given, sums, source, rows = g
    width, c = p.shape[1], numbers_of(c, c, p.dtype)
    length = span(codes[0])
    blocks = -(-width // length)
    scratch = np.zeros(3 * length, p.dtype)
    for item in range(start, stop):
        r, b = item // blocks, item % blocks
        if b == 0:
            if len(codes) == 1:
                prefetch_rows(rows, r, p, codes[0], codes[0])
            else:
                prefetch_rows(rows, r, p, codes[0], codes[1])
        row = r if len(rows) == 0 else rows[r]
        s = r if len(rows) == 0 else source[r]
        low, high = b * length, min(width, (b + 1) * length)
        gradient = given[s, low:high] if s >= 0 else sums[-1 - s, low:high]
        values, bits = p[row, low:high], views(codes, row, low, high)
        if len(rows) == 0:
            # Processors do not fetch the streams of such a step early enough. If the program asks for one or two of
            # them, a block ahead, a step of 20 million elements takes a sixth less time; if for all, it takes longer.
            if len(scales) == 0:
                prefetch_part(given, row * width + low + length, high - low)
            else:
                prefetch_codes(codes, row * width + low + length, high - low)
        if len(scales) == 0:
            _half_block(values, gradient, bits, c, noise_key(name[0], name[1], row * blocks + b))
        elif len(codes) == 1:
            scales[0][row, b] = _average_block(values, gradient, bits[0], scales[0][row, b], scratch, c)
        else:
            if len(codes) == 3:
                decode_positive(bits[2], scales[2][row, b], scratch[2 * length : 2 * length + len(values)])
            _ratio_block(values, gradient, bits, scales, row, b, scratch, c)
        if wipe:
            gradient[:] = 0


@unrolled(statement="prefetch_part(codes[{j}], at, size)")
def prefetch_codes(codes, at, size):
    """Begin to fetch `size` codes of each table, from place `at` on."""
    for x in codes:
        prefetch_part(x, at, size)


@unrolled("codes[{j}][row, low:high]")
def views(codes, row, low, high):
    """A part of a row of each table."""
    return tuple(x[row, low:high] for x in codes)


@njit
def _half_block(p, g, codes, c, key):
    """One step of a block of bfloat16; p, g and the codes (L,).

    The first buffer is rounded by the upper half of the random bits, the others by the lower half. The arrays have
    names, because the compiler emits no vectors for a loop that takes them out of the tuple.
    """
    bits = key
    if len(codes) == 1:
        one = codes[0]
        for k in range(len(p)):
            p[k], new = element(c, p[k], g[k], (from_bfloat16(one[k]),))
            one[k] = bfloat16(new[0], bits)
            bits = next_noise(bits)
    elif len(codes) == 2:
        one, two = codes[0], codes[1]
        for k in range(len(p)):
            p[k], new = element(c, p[k], g[k], (from_bfloat16(one[k]), from_bfloat16(two[k])))
            one[k], two[k] = bfloat16(new[0], bits), bfloat16(new[1], np.uint32(bits << _S16))
            bits = next_noise(bits)
    else:
        one, two, three = codes[0], codes[1], codes[2]
        for k in range(len(p)):
            old = from_bfloat16(one[k]), from_bfloat16(two[k]), from_bfloat16(three[k])
            p[k], new = element(c, p[k], g[k], old)
            one[k], two[k] = bfloat16(new[0], bits), bfloat16(new[1], np.uint32(bits << _S16))
            three[k] = bfloat16(new[2], np.uint32(bits << _S16))
            bits = next_noise(bits)


@njit
def _average_block(p, g, codes, scale, scratch, c):
    """One step of a block of int8 with one buffer; p, g and codes (L,). Returns its new scale."""
    for k in range(len(p)):
        p[k], new = element(c, p[k], g[k], (decoded(codes[k], scale),))
        scratch[k] = new[0]
    return encode(scratch[: len(p)], codes)


# The scratch is one flat array of m, v and top, because of more arrays than this the compiler does not check at run
# time that they are apart, and then it emits no vectors.


@njit
def _ratio_block(p, g, codes, scales, row, b, scratch, c):
    """One step of a block of int8 with averages m and squares v, or also the largest v; p, g and the codes (L,).

    The block's scales are scales[…][row, b]. The scratch has room for three blocks; the third holds the largest v.
    """
    of_m, of_v = scales[0][row, b], scales[1][row, b]
    mc, vc = codes[0], codes[1]
    most_m, most_v, most_t = np.int32(0), np.int32(0), np.int32(0)
    for k in range(len(p)):
        old_m, old_v = decoded(mc[k], of_m), decoded_positive(vc[k], of_v)
        if len(codes) == 2:
            p[k], new = element(c, p[k], g[k], (old_m, old_v))
        else:
            p[k], new = element(c, p[k], g[k], (old_m, old_v, scratch[k + 2 * BLOCK]))
        m, v = new[0], new[1]
        scratch[k] = m
        scratch[k + BLOCK] = v
        bits_m, bits_v = magnitude(m), magnitude(v)
        most_m = bits_m if bits_m > most_m else most_m
        most_v = bits_v if bits_v > most_v else most_v
    if most_v > grown(of_v):
        most_m, most_v = shrunk(scratch, len(p), of_v)
    if len(codes) == 3:
        for k in range(len(p)):
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
    if len(codes) == 3:
        for k in range(len(p)):
            codes[2][k] = code_positive(scratch[k + 2 * BLOCK], inverse_t)
    scales[0][row, b], scales[1][row, b] = scale_m, scale_v
    if len(codes) == 3:
        scales[2][row, b] = scale_t


@kernel
def compact_idle_steps(start, stop, p, rows, codes, scales, c, owed, name):
    """The idle steps of p[rows], as in `row_steps`; the range is that of rows, name as in `compact_step`."""
    first, history, total, table = owed
    width = p.shape[1]
    blocks = -(-width // BLOCK)
    scratch = np.empty((len(codes), BLOCK), p.dtype)
    buffers = _row_by_row(codes, scratch)
    for r in range(start, stop):
        row = rows[r]
        for b in range(blocks if first[r] < len(history) else 0):
            low, high = b * BLOCK, min(width, (b + 1) * BLOCK)
            length, key = high - low, noise_key(name[0], name[1], row * blocks + b)
            if len(scales) == 0:
                _decode_halves(codes, row, low, high, scratch)
            else:
                _decode_bytes(codes, scales, row, b, low, high, scratch)
            idle_steps(p, row, low, buffers, 0, length, c, first[r], history, total, table)
            if len(scales) == 0:
                _encode_halves(codes, row, low, high, scratch, key)
            else:
                _encode_bytes(codes, scales, row, b, low, high, scratch)


@unrolled(statement="decode_bfloat16(codes[{j}][row, low:high], scratch[{j}, : high - low])")
def _decode_halves(codes, row, low, high, scratch):
    """Decode a block of each table to a row of the scratch."""
    for x, out in zip(codes, scratch, strict=True):
        decode_bfloat16(x[row, low:high], out[: high - low])


@unrolled(
    statement="encode_bfloat16(scratch[{j}, : high - low], codes[{j}][row, low:high], key, _S16 if {j} else _S0)"
)
def _encode_halves(codes, row, low, high, scratch, key):
    """Encode the scratch, with the random bits of `_half_block`."""
    for j, (x, values) in enumerate(zip(codes, scratch, strict=True)):
        encode_bfloat16(values[: high - low], x[row, low:high], key, _S16 if j else _S0)


@unrolled(
    statement="(decode_positive if {j} else decode)"
    "(codes[{j}][row, low:high], scales[{j}][row, b], scratch[{j}, : high - low])"
)
def _decode_bytes(codes, scales, row, b, low, high, scratch):
    """Decode a block of each table to a row of the scratch; the first is signed."""
    for j, (x, scale, out) in enumerate(zip(codes, scales, scratch, strict=True)):
        (decode_positive if j else decode)(x[row, low:high], scale[row, b], out[: high - low])


@unrolled(
    statement="scales[{j}][row, b] = (encode_positive if {j} else encode)"
    "(scratch[{j}, : high - low], codes[{j}][row, low:high])"
)
def _encode_bytes(codes, scales, row, b, low, high, scratch):
    """Encode the scratch, and write the scales."""
    for j, (x, scale, values) in enumerate(zip(codes, scales, scratch, strict=True)):
        scale[row, b] = (encode_positive if j else encode)(values[: high - low], x[row, low:high])


@unrolled("scratch[{j} : {j} + 1]")
def _row_by_row(codes, scratch):
    """Row j of the scratch as a table, for the codes j."""
    return tuple(scratch[j : j + 1] for j in range(len(codes)))
