"""An exponential that the compiler can vectorise, from kernels.

exp(x) = 2ⁿ eʳ with n = round(x / ln 2) and |r| ≤ ½ ln 2, where eʳ is its Taylor polynomial: degree 7 leaves
5e-9 for float32, degree 13 leaves 4e-18 for float64. All constants are of x's type: one Python float would
turn a float32 loop into a float64 one.
"""

import math

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from rvtrain._jit import intrinsic, overload, register_jitable


def exp(x):
    """exp(x) to about one unit in the last place; 0 where it would be subnormal, x NaN gives NaN.

    For x ≤ 88 (float32), 709 (float64): above, 2ⁿ overflows and the result is meaningless.
    """
    raise NotImplementedError("only callable from kernels")


@intrinsic
def _float_of_bits(typingctx, bits):
    """The float32 or float64 that has the bits of an int32 or int64."""
    result, kind = (types.float32, ir.FloatType()) if bits == types.int32 else (types.float64, ir.DoubleType())
    return result(bits), lambda context, builder, signature, args: builder.bitcast(args[0], kind)


@intrinsic
def fused(typingctx, a, b, c):
    """a b + c as it stands: what the fastmath flags allow with a product and a sum is not done to it."""

    def generate(context, builder, signature, args):
        kind = args[0].type
        name = f"llvm.fmuladd.f{a.bitwidth}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name), args
        )

    return a(a, b, c), generate


@overload(exp)
def _exp(x):
    single = x == types.float32
    real, integer = (np.float32, np.int32) if single else (np.float64, np.int64)
    lowest = real(-87.0 if single else -708.0)  # the smallest whole exponent whose power is normal
    zero, per_octave = real(0.0), real(1.0 / math.log(2.0))
    # ln 2 in two parts: a multiple of the first by a small integer is exact.
    octave = 0.693359375 if single else 0.693147180369123816490
    minus_octave = real(-octave)
    minus_rest = real(octave - math.log(2.0) if single else -1.90821492927058770002e-10)
    bias, mantissa = integer(127 if single else 1023), integer(23 if single else 52)
    c0, c1, c2, c3, c4, c5, c6, c7 = (real(1.0 / math.factorial(k)) for k in range(8))
    c8, c9, c10, c11, c12, c13 = (real(1.0 / math.factorial(k)) for k in range(8, 14))

    if single:

        def tail(r):
            return c7
    else:

        def tail(r):
            return c7 + r * (c8 + r * (c9 + r * (c10 + r * (c11 + r * (c12 + r * c13)))))

    tail = register_jitable(tail)

    def implementation(x):
        clamped = lowest if x < lowest else x
        n = np.rint(clamped * per_octave)
        r = fused(n, minus_rest, fused(n, minus_octave, clamped))
        e_r = c0 + r * (c1 + r * (c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * tail(r)))))))
        power = _float_of_bits(integer((integer(n) + bias) << mantissa))
        return zero if x < lowest else e_r * power

    return implementation
