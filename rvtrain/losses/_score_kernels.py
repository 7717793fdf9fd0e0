"""Scores of pairs of vectors, cosines or dot products, and their gradients, for kernels that process single pairs.

A score is the dot product of two vectors x · inverse, where inverse = 1 / max(‖x‖, ε) for a cosine and 1 for a dot
product. With c = â · x̂, the gradient of a cosine to x is (â − c x̂) / ‖x‖, or â / ε if ‖x‖ ≤ ε.
"""

import numpy as np

from rvtrain._engine._norms import EPS, inverse_norm
from rvtrain._kernels import njit

_LONG = 1e-20
"""Inverse norm below which a factor would lose digits in float32, and is kept in float64."""


@njit
def inverse_of(x, cosine):
    """The factor of a vector in a score: 1 / max(‖x‖, ε), or 1 if not `cosine`; NaN if x is not finite."""
    inverse = inverse_norm(x, EPS)
    return inverse if cosine or np.isnan(inverse) else 1.0


@njit
def add_scaled(factor, inverse, x, out):
    """out += factor · inverse · x."""
    if inverse > _LONG:
        scale = out.dtype.type(factor * inverse)
        for k in range(len(x)):
            out[k] += scale * x[k]
    else:
        for k in range(len(x)):
            out[k] += factor * (inverse * x[k])


@njit
def score_gradient(slope, c, a, inverse_a, x, inverse, cosine, out):
    """out = slope · ∂c/∂x for the score c of a and x."""
    along = inverse * c if cosine and inverse < 1.0 / EPS else 0.0
    factor = slope * inverse if cosine else slope
    for k in range(len(out)):
        out[k] = factor * (inverse_a * a[k] - along * x[k])


@njit
def through_norm(x, inverse, cosine, out):
    """Turn out, a gradient to x · inverse, into the gradient to x."""
    if cosine:
        along = 0.0
        if inverse < 1.0 / EPS:
            for k in range(len(x)):
                along += (x[k] * inverse) * out[k]
        for k in range(len(x)):
            out[k] = (out[k] - (x[k] * inverse) * along) * inverse
