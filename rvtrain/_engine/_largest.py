"""Maximum of a vector by comparisons of integers, because comparisons of floats do not vectorise (due to NaN).

The bits of positive floats, read as integers, have the order of the floats. The bits of negative floats have the
reverse order, which flipping all bits but the sign corrects.
"""

import numpy as np

from rvtrain._engine._exp import float_of_bits
from rvtrain._kernels import element_type, overload


def largest(x):
    """max(x), −inf if empty, for contiguous x (n,) of float32 or float64.

    A NaN with a positive sign counts as more than inf, one with a negative sign as less than −inf.
    """
    return x.max(initial=-np.inf)


@overload(largest)
def _largest(x):
    single = element_type(x) == np.float32
    real, integer = (np.float32, np.int32) if single else (np.float64, np.int64)
    sign, all_but_sign = integer(31 if single else 63), integer(np.iinfo(integer).max)
    lowest = integer(np.array(-np.inf, real).view(integer)) ^ all_but_sign

    def implementation(x):
        bits, top = x.view(integer), lowest
        for j in range(len(bits)):
            key = integer(bits[j] ^ ((bits[j] >> sign) & all_but_sign))
            top = key if key > top else top
        return float_of_bits(integer(top ^ ((top >> sign) & all_but_sign)))

    return implementation
