"""Exponentials for kernels, written such that the compiler can vectorise them.

2ˣ = 2ⁿ 2ʳ with n = round(x) and |r| ≤ ½. 2ʳ is a polynomial: for float32 the best of degree 6, error 2e-9; for
float64 the Taylor polynomial of degree 13, error 4e-18. The integer n is put into the exponent bits of a float; the
smallest n makes that float 0. All constants are of x's type, because one Python float would turn a float32 loop into
a float64 loop. There are few constants, because AVX2's sixteen registers have to hold them all.
"""

import math

import numpy as np

from rvtrain._kernels import element_type, emitted, overload, register_jitable


def exp2(x):
    """2ˣ to about one unit in the last place of 2ʳ; 0 for x < −126.5 (float32), −1022.5; x NaN gives NaN.

    Valid for x < 127.5 (float32), 1023.5. Computing eʸ as 2^(y log₂ e) adds an error of |y| units in the last place,
    which is negligible in a sum of exponentials whose largest term is 1.
    """
    return np.exp2(x) * (x > (-126.5 if x.dtype == np.float32 else -1022.5))


def exp(x):
    """eˣ to about one unit in the last place; 0 for x < −87.7 (float32), −708.7; x NaN gives NaN.

    Valid for x ≤ 88 (float32), 709.
    """
    return np.exp(x)


def _float_of(bits):
    return np.float32 if bits == np.int32 else np.float64


@emitted(lambda bits: bits.view(_float_of(bits.dtype)), _float_of)
def float_of_bits(emit, bits):
    """The float32 or float64 that has the bits of an int32 or int64."""
    return bits.view(_float_of(bits.dtype))


@emitted(lambda a, b, c: a * b + c, lambda a, b, c: a)
def fused(emit, a, b, c):
    """a b + c, one fused operation if the processor has it; fastmath flags do not regroup it."""
    return emit.fma(a, b, c)


LOG2_E = 1.0 / math.log(2.0)

# Coefficients with the least maximum of the relative error on [−½, ½] (Remez), the first fixed at 1.
_BEST = (1.0, 0.693147205737, 0.240226468906, 0.05550328777, 0.00961848895652, 0.00133999312095, 0.000153458121587)


def _parts(single):
    """The smallest exponent of float32 or float64, and the function (n, r) ↦ 2ⁿ 2ʳ."""
    real, integer = (np.float32, np.int32) if single else (np.float64, np.int64)
    bias, mantissa = integer(127 if single else 1023), integer(23 if single else 52)
    taylor = tuple(real(math.log(2.0) ** k / math.factorial(k)) for k in range(14))
    c0, c1, c2, c3, c4, c5, c6 = (real(c) for c in _BEST) if single else taylor[:7]
    c7, c8, c9, c10, c11, c12, c13 = taylor[7:]

    if single:

        def tail(r):
            return c6
    else:

        def tail(r):
            return c6 + r * (c7 + r * (c8 + r * (c9 + r * (c10 + r * (c11 + r * (c12 + r * c13))))))

    tail = register_jitable(tail)

    def scaled(n, r):
        power = float_of_bits(integer((integer(n) + bias) << mantissa))
        return power * (c0 + r * (c1 + r * (c2 + r * (c3 + r * (c4 + r * (c5 + r * tail(r)))))))

    return real(-bias), register_jitable(scaled)


@overload(exp2)
def _exp2(x):
    lowest, scaled = _parts(element_type(x) == np.float32)

    def implementation(x):
        clamped = lowest if x < lowest else x
        n = np.rint(clamped)
        return scaled(n, clamped - n)

    return implementation


@overload(exp)
def _exp(x):
    single = element_type(x) == np.float32
    real = np.float32 if single else np.float64
    smallest, scaled = _parts(single)
    lowest, per_octave = real(float(smallest) * math.log(2.0)), real(LOG2_E)
    # ln 2 as a sum of two parts; the product of the first with a small integer is exact.
    octave = 0.693359375 if single else 0.693147180369123816490
    minus_octave = real(-octave)
    minus_rest = real(octave - math.log(2.0) if single else -1.90821492927058770002e-10)

    def implementation(x):
        clamped = lowest if x < lowest else x
        n = np.rint(clamped * per_octave)
        r = fused(n, minus_rest, fused(n, minus_octave, clamped))
        return scaled(n, r * per_octave)

    return implementation
