"""Logarithms for kernels, written such that the compiler can vectorise them."""

import numpy as np

from rvtrain._engine._exp import exp
from rvtrain._kernels import element_type, overload, register_jitable


def log1p_of_unit(u):
    """log(1 + u) for u in [0, 1], to about one unit in the last place; NaN for NaN.

    It equals 2 artanh(y) with y = u / (2 + u) ≤ 1/3, summed as a power series: 8 terms for float32, 17 for float64.
    """
    return np.log1p(u)


@overload(log1p_of_unit)
def _log1p_of_unit(u):
    single = element_type(u) == np.float32
    real = np.float32 if single else np.float64
    two = real(2.0)
    terms = tuple(real(2.0 / (2 * k + 1)) for k in range(8 if single else 17))
    if single:
        c0, c1, c2, c3, c4, c5, c6, c7 = terms

        def tail(z):
            return c4 + z * (c5 + z * (c6 + z * c7))
    else:
        c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, c16 = terms

        def tail(z):
            high = c11 + z * (c12 + z * (c13 + z * (c14 + z * (c15 + z * c16))))
            return c4 + z * (c5 + z * (c6 + z * (c7 + z * (c8 + z * (c9 + z * (c10 + z * high))))))

    tail = register_jitable(tail)

    def implementation(u):
        y = u / (two + u)
        z = y * y
        return y * (c0 + z * (c1 + z * (c2 + z * (c3 + z * tail(z)))))

    return implementation


@register_jitable
def softplus_and_slope(x):
    """(log(1 + eˣ), its derivative 1 / (1 + e⁻ˣ)) of a float32 or float64, without over- or underflow."""
    u = exp(-abs(x))
    positive = x > 0
    share = u / (1 + u)
    return (x if positive else np.float32(0.0)) + log1p_of_unit(u), 1 - share if positive else share
