"""Optimizer state in 16 or 8 bits, decoded and encoded a block at a time inside the pass of a step.

bfloat16: the upper half of a float32, rounded up or down at random so that the mean is right. To the nearest, an
average that moves by a thousandth a step would never leave its place.

int8: 255 or 256 codes for a block of up to 256 elements of a row, beside the block's largest magnitude s in float32:

    momentum, signed      |c| = R₂(|m| / s), up to 127      R₂ is about the square root, R₄ about the fourth:
    squares, positive       c = R₄(v / s), up to 255        the bits of the float, as one integer, over 2 or 4

A root makes the steps between codes small near zero and relative errors nearly even over four to nine decades, as the
dynamic map of Dettmers et al. (2021, arXiv:2110.02861) does by a table. Taken on the bits it costs a shift and an
addition each way instead of a search, and it is undone exactly.
"""

import numpy as np

from rvtrain._jit import njit
from rvtrain._primitives._random import row_key

BLOCK = 256
"""Elements that share a scale, at most."""
HALF_BLOCK = 2048
"""Of bfloat16, those that share a key: as many as keep the first cache free for what streams by."""

# Added after the division, so that s has the largest code: the bits of that less those of 1.0 over 2 or 4.
_SIGNED = np.int32(np.float32(127).view(np.int32) - (127 << 22))
_POSITIVE = np.int32(np.float32(255).view(np.int32) - (127 << 21))
_0, _1, _2 = np.int32(0), np.int32(1), np.int32(2)
_MAGNITUDE, _SIGN = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
_ZERO, _ONE = np.float32(0), np.float32(1)
# A block whose largest element is below this is all zeros: 1 / s must be finite.
_TINY = np.float32(1e-37)
_GOLDEN = np.uint32(0x9E3779B9)
_S16 = np.uint32(16)


@njit
def span(codes):
    """Elements of a block of these codes."""
    return HALF_BLOCK if codes.itemsize == 2 else BLOCK


@njit
def noise_key(name, step, block):
    """The key of a block's random bits, uint32: another for every array, step and block."""
    return np.uint32(row_key(name, step, block) >> np.uint64(32))


@njit
def noise(key, k):
    """32 bits for element k of a block, uniform in the key: the key plus a sequence that fills the range evenly."""
    return np.uint32(key + np.uint32(np.uint32(k) * _GOLDEN))


@njit
def decoded(code, half, scale):
    """Momentum from an int8 code and its block's scale, or with `half` from a bfloat16's bits."""
    if half:
        return np.uint32(np.uint32(code) << _S16).view(np.float32)
    bits = np.float32(code).view(np.int32)
    root = np.int32(np.int32(bits & _MAGNITUDE) - _SIGNED)
    x = np.int32(np.int32(root if root > _0 else _0) << _1)
    return np.int32(x | np.int32(bits & _SIGN)).view(np.float32) * scale


@njit
def decoded_positive(code, half, scale):
    """The same for squares, of uint8 codes."""
    if half:
        return np.uint32(np.uint32(code) << _S16).view(np.float32)
    root = np.int32(np.float32(code).view(np.int32) - _POSITIVE)
    return np.int32(np.int32(root if root > _0 else _0) << _2).view(np.float32) * scale


@njit
def bfloat16(x, bits):
    """The bits of x as a bfloat16, rounded by the upper half of `bits`."""
    return np.uint32(np.uint32(np.float32(x).view(np.uint32) + (bits >> _S16)) >> _S16)


@njit
def code(x, inverse):
    """The int8 code of x in a block; inverse: 1 / scale."""
    bits = np.float32(np.float32(x) * inverse).view(np.int32)
    root = np.int32(np.int32(np.int32(bits & _MAGNITUDE) >> _1) + _SIGNED)
    return np.int32(np.rint(np.int32(root | np.int32(bits & _SIGN)).view(np.float32)))


@njit
def code_positive(x, inverse):
    """The uint8 code of x ≥ 0 in a block."""
    root = np.int32((np.float32(np.float32(x) * inverse).view(np.int32) >> _2) + _POSITIVE).view(np.float32)
    return np.int32(np.rint(root))


@njit
def magnitude(x):
    """The bits of |x|: integers in the order of the magnitudes, which are compared in vectors."""
    return np.float32(abs(x)).view(np.int32)


@njit
def scale_of(most):
    """The scale of a block whose largest `magnitude` is `most`, and its inverse."""
    scale = np.int32(most).view(np.float32)
    return scale, _ZERO if scale < _TINY else _ONE / scale


@njit
def at(scales, row, block):
    """A block's scale; bfloat16 has none."""
    return scales[row, block] if scales.size > 0 else _ZERO


@njit
def decode(codes, scales, row, block, out, positive):
    """The state of a block, out (L,), from codes (n, d) and scales (n, blocks)."""
    half, scale, low = codes.itemsize == 2, at(scales, row, block), block * BLOCK
    for k in range(len(out)):
        if positive:
            out[k] = decoded_positive(codes[row, low + k], half, scale)
        else:
            out[k] = decoded(codes[row, low + k], half, scale)


@njit
def encode(values, codes, scales, row, block, positive, key):
    """The inverse; bits from the key round bfloat16, squares by others than momentum."""
    low, half = block * BLOCK, codes.itemsize == 2
    most = np.int32(0)
    for k in range(len(values)):
        bits = magnitude(values[k])
        most = bits if bits > most else most
    scale, inverse = scale_of(most)
    for k in range(len(values)):
        if half:
            bits = noise(key, k)
            codes[row, low + k] = bfloat16(values[k], np.uint32(bits << _S16) if positive else bits)
        elif positive:
            codes[row, low + k] = code_positive(values[k], inverse)
        else:
            codes[row, low + k] = code(values[k], inverse)
    if scales.size > 0:
        scales[row, block] = scale
