"""Optimizer state in 16 or 8 bits, decoded and encoded a block at a time inside the pass of a step.

bfloat16: the upper half of a float32, rounded up or down at random so that the mean is right. Rounded to the nearest,
an average that changes by a thousandth in each step would never change at all.

int8: 255 or 256 codes for a block of up to 256 elements of a row, beside the block's largest magnitude s in float32:

    momentum, signed      |c| = R₂(|m| / s), up to 127      R₂ is about the square root, R₄ about the fourth:
    squares, positive       c = R₄(v / s), up to 255        the bits of the float, as one integer, over 2 or 4

With a root, the steps between codes are small near zero, and relative errors are nearly even over four to nine
decades, as in the dynamic map of Dettmers et al. (2021, arXiv:2110.02861). That map is a table to be searched; a root
of the bits costs a shift and an addition each way, and decoding inverts it exactly.

Adam divides m by √v, so v may not become 0 where m does not: a square above 0 has a code above 0 (the zero-point
problem of Li et al., 2023, arXiv:2309.01507).

A scale is finite, and one huge gradient must not turn the codes of the 255 other elements into zeros: `grown` bounds
the growth of a scale in a step, and `shrunk` cuts the squares above it.
"""

import numpy as np

from rvtrain._engine._random import row_key
from rvtrain._kernels import njit

BLOCK = 256
"""Largest number of elements that share a scale."""
HALF_BLOCK = 512
"""The same for bfloat16, whose blocks share a noise key: small enough that the gradient of the next one
can be fetched meanwhile."""
INFINITE = np.float32(np.inf).view(np.int32)
"""The `magnitude` of infinity; those of NaN are above it."""

# Added to the bits of a root, so that s itself gets the largest code: its bits, less those of 1.0 over 2 or 4.
_SIGNED = np.int32(np.float32(127).view(np.int32) - (127 << 22))
_POSITIVE = np.int32(np.float32(255).view(np.int32) - (127 << 21))
_0, _1, _2 = np.int32(0), np.int32(1), np.int32(2)
_MAGNITUDE, _SIGN = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
_ZERO, _ONE = np.float32(0), np.float32(1)
# A block whose largest element is smaller than this becomes zeros, because 1 / s must be finite, and s times the
# least code above 0 a normal number.
_TINY = np.float32(1e-35)
_LARGEST = np.float32(np.finfo(np.float32).max)
# The factor by which a step may raise the scale s of a block of squares: 32 in √v. Codes reach from s down to 2⁻³² s,
# in steps that grow relative to v. Where v is smaller than s by this factor, a step between codes is 8 % of √v.
_GROWTH = np.float32(2.0**10)
_FEW = 32  # of L elements, 1 + L // _FEW may be outliers
_GOLDEN = np.uint32(0x9E3779B9)
_S16 = np.uint32(16)


@njit
def span(codes):
    """Elements of a block of these codes."""
    return HALF_BLOCK if codes.itemsize == 2 else BLOCK


@njit
def noise_key(name, step, block):
    """The key of the random bits of a block, uint32, which differs between arrays, steps and blocks."""
    return np.uint32(row_key(name, step, block) >> np.uint64(32))


@njit
def next_noise(bits):
    """The 32 random bits of the next element of a block, whose first ones are its key: they fill the range evenly."""
    return np.uint32(bits + _GOLDEN)


@njit
def decoded(code, scale):
    """Momentum from an int8 code and its block's scale."""
    bits = np.float32(code).view(np.int32)
    root = np.int32(np.int32(bits & _MAGNITUDE) - _SIGNED)
    x = np.int32(np.int32(root if root > _0 else _0) << _1)
    return np.int32(x | np.int32(bits & _SIGN)).view(np.float32) * scale


@njit
def decoded_positive(code, scale):
    """A square from a uint8 code and its block's scale."""
    root = np.int32(np.float32(code).view(np.int32) - _POSITIVE)
    return np.int32(np.int32(root if root > _0 else _0) << _2).view(np.float32) * scale


@njit
def from_bfloat16(bits):
    """The number of a bfloat16's bits."""
    return np.uint32(np.uint32(bits) << _S16).view(np.float32)


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
    """The uint8 code of x ≥ 0 in a block, at least 1 for x > 0."""
    root = np.int32((np.float32(np.float32(x) * inverse).view(np.int32) >> _2) + _POSITIVE).view(np.float32)
    nearest, bits = np.int32(np.rint(root)), np.float32(x).view(np.int32)
    least = bits if bits < _1 else _1
    return nearest if nearest > least else least


@njit
def magnitude(x):
    """The bits of |x|: integers in the order of the magnitudes. Comparisons of integers vectorise in a maximum."""
    return np.float32(abs(x)).view(np.int32)


@njit
def scale_of(most):
    """The scale of a block whose largest `magnitude` is `most`, and its inverse."""
    scale = np.int32(most).view(np.float32)
    return scale, _ZERO if scale < _TINY else _ONE / scale


@njit
def grown(scale):
    """The largest square that needs no `shrunk`, in a block whose squares had this scale: bits, as of `magnitude`."""
    return magnitude(min(scale * _GROWTH, _LARGEST))


@njit
def shrunk(scratch, length, scale):
    """Cut the squares of a block that outgrow the others; returns the largest magnitudes of m and v.

    scratch: m at [: length], v at [BLOCK : BLOCK + length]; scale: that of the block's squares before this step.

    The limit is a factor times the scale, or times the first v after the few largest if that is more, so that no v is
    cut where more than a few grow. An m shrinks with its √v, so that the element moves as without the cut. Where v is
    infinite, m becomes 0 and the element stands still, as it does with state in float32.
    """
    usual = np.int32(INFINITE + _1)
    for _ in range(2 + length // _FEW):
        below = _0
        for k in range(length):
            bits = magnitude(scratch[k + BLOCK])
            if below < bits < usual:
                below = bits
        if below == _0:
            break
        usual = below
    limit = min(max(scale, np.int32(usual).view(np.float32)) * _GROWTH, _LARGEST)
    most_m, most_v = _0, _0
    for k in range(length):
        m, v = scratch[k], scratch[k + BLOCK]
        if np.isnan(v) or np.isinf(v):
            scratch[k], scratch[k + BLOCK] = 0, 0 if np.isnan(v) else limit
        elif v > limit:
            scratch[k], scratch[k + BLOCK] = m * np.sqrt(limit / v), limit
        most_m, most_v = max(most_m, magnitude(scratch[k])), max(most_v, magnitude(scratch[k + BLOCK]))
    return most_m, most_v


@njit
def finite(values, length):
    """Make values[: length] finite, and 0 where they are NaN; returns the largest magnitude."""
    most = _0
    for k in range(length):
        x = values[k]
        if np.isnan(x):
            values[k] = 0
        elif magnitude(x) >= INFINITE:
            values[k] = _LARGEST if x > 0 else -_LARGEST
        most = max(most, magnitude(values[k]))
    return most


@njit
def decode(codes, scale, out):
    """out[k] = the momentum of codes[k]; both (L,)."""
    for k in range(len(out)):
        out[k] = decoded(codes[k], scale)


@njit
def decode_positive(codes, scale, out):
    """out[k] = the square of codes[k]; both (L,)."""
    for k in range(len(out)):
        out[k] = decoded_positive(codes[k], scale)


@njit
def decode_bfloat16(bits, out):
    """out[k] = the number of bits[k]; both (L,)."""
    for k in range(len(out)):
        out[k] = from_bfloat16(bits[k])


@njit
def encode(values, codes):
    """codes[k] = the code of the momentum values[k]; both (L,). Returns the scale."""
    scale, inverse = scale_of(_largest(values))
    for k in range(len(values)):
        codes[k] = code(values[k], inverse)
    return scale


@njit
def encode_positive(values, codes):
    """codes[k] = the code of the square values[k]; both (L,). Returns the scale."""
    scale, inverse = scale_of(_largest(values))
    for k in range(len(values)):
        codes[k] = code_positive(values[k], inverse)
    return scale


@njit
def encode_bfloat16(values, bits, key, shift):
    """bits[k] = the bits of values[k], rounded by the noise of the key, shifted left; both (L,)."""
    random = key
    for k in range(len(values)):
        bits[k] = bfloat16(values[k], np.uint32(random << shift))
        random = next_noise(random)


@njit
def _largest(values):
    """The largest `magnitude` of values (L,), which are made finite."""
    most = _0
    for k in range(len(values)):
        bits = magnitude(values[k])
        most = bits if bits > most else most
    return finite(values, len(values)) if most >= INFINITE else most
