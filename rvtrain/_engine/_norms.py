"""Euclidean norms of rows, their inverses, and cosines."""

import math

import numpy as np

from rvtrain._errors import NotFiniteError
from rvtrain._kernels import in_order, kernel, njit

EPS = 1e-8
"""The smallest norm that a row is divided by, so that the cosine of a zero vector with any other is 0."""


@njit
def _dot(x, y):
    total = 0.0
    for k in range(len(x)):
        total += np.float64(x[k]) * np.float64(y[k])
    return total


@njit
def norm(x):
    """‖x‖ of a vector as float64, without over- or underflow of the squares; NaN if x is not finite."""
    total = 0.0  # a loop of its own, because two arguments for one array compile to slower code
    for k in range(len(x)):
        total += np.float64(x[k]) * np.float64(x[k])
    if 1e-280 < total < 1e300:
        return np.sqrt(total)
    top, rest = _factors(x)
    return top * rest


@njit
def inverse_norm(x, eps):
    """1 / max(‖x‖, eps) of a vector, NaN if it is not finite."""
    length = norm(x)
    return 1.0 / max(length, eps) if length < np.inf else _inverse_beyond(x)


@in_order
def _factors(x):
    """(t, ‖x‖ / t) with t the largest magnitude in x, for squares outside float64; NaN if x is not finite."""
    top = 0.0
    for k in range(len(x)):
        magnitude = abs(np.float64(x[k]))
        if not magnitude < np.inf:
            return np.nan, 1.0
        top = max(top, magnitude)
    if top == 0.0:
        return 0.0, 0.0
    total = 0.0
    for k in range(len(x)):
        ratio = np.float64(x[k]) / top
        total += ratio * ratio
    return top, np.sqrt(total)


@in_order
def _inverse_beyond(x):
    """1 / ‖x‖ of a vector whose norm float64 cannot hold; NaN if the vector is not finite."""
    top, rest = _factors(x)
    return 1.0 / top / rest


@njit
def cosine(a, inverse_a, b, inverse_b):
    """a · b of the unit vectors, summed in float64, because division by τ magnifies the error of a float32 sum.

    Multiplies by the inverse norms after the sum, unless the sum of the raw products overflows float64.
    """
    total = 0.0
    for k in range(len(a)):
        total += np.float64(a[k]) * np.float64(b[k])
    if abs(total) < 1e300:
        return product(total, inverse_a, inverse_b)
    return _unit_product(a, inverse_a, b, inverse_b)


@in_order
def product(a, b, c):
    """(a b) c, in this order."""
    return a * b * c


@in_order
def _unit_product(a, inverse_a, b, inverse_b):
    total = 0.0
    for k in range(len(a)):
        total += (np.float64(a[k]) * inverse_a) * (np.float64(b[k]) * inverse_b)
    return total


@kernel
def measure_pairs(start, stop, a, b, inverse_a, inverse_b, cosines):
    """What brings each row of a and b (n, d) to length one, and cosines[i] = â_i · b̂_i; all outputs (n,) float64.

    NaN for a row that is not finite, or whose sum of squares float64 does not hold well: `measure_far_pairs` is for
    these, because its code takes as long to compile as a tenth of a loss, and few need it.
    """
    for i in range(start, stop):
        of_a, of_b = _dot(a[i], a[i]), _dot(b[i], b[i])
        inverse_a[i] = 1.0 / max(np.sqrt(of_a), EPS) if of_a < 1e300 else np.nan
        inverse_b[i] = 1.0 / max(np.sqrt(of_b), EPS) if of_b < 1e300 else np.nan
        cosines[i] = product(_dot(a[i], b[i]), inverse_a[i], inverse_b[i])


@kernel
def measure_far_pairs(start, stop, a, b, inverse_a, inverse_b, cosines):
    """The same for the rows without a cosine so far."""
    for i in range(start, stop):
        if np.isnan(cosines[i]):
            inverse_a[i], inverse_b[i] = inverse_norm(a[i], EPS), inverse_norm(b[i], EPS)
            cosines[i] = cosine(a[i], inverse_a[i], b[i], inverse_b[i])


def measured_pairs(
    a_name: str, a: np.ndarray, b_name: str, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1 / max(‖a_i‖, ε), the same of b, and cosines of the pairs, (n,) float64; ValueError if a row is not finite."""
    out = np.empty((3, len(a)))
    measure_pairs.sized(6 * a.size)(len(a), a, b, *out)
    if math.isnan(out.sum()):
        far = np.isnan(out[2])
        if np.isfinite(a[far]).all() and np.isfinite(b[far]).all():
            measure_far_pairs(len(a), a, b, *out)
        check_rows_finite(a_name, out[0])
        check_rows_finite(b_name, out[1])
    return out[0], out[1], out[2]


@kernel
def inverse_norms(start, stop, x, eps, out):
    """out[i] = 1 / max(‖x[i]‖, eps), NaN if the row is not finite; x (n, d), out (n,) float64."""
    for i in range(start, stop):
        out[i] = inverse_norm(x[i], eps)


def checked_inverse_norms(name: str, x: np.ndarray, eps: float = EPS, first: int = 0) -> np.ndarray:
    """1 / max(‖x[i]‖, eps) of the rows of x (n, d), float64; ValueError if a row is not finite.

    For the error message, x is the argument `name` from row `first` on. A NaN or an infinity makes the norm NaN, so
    finding it takes no second pass over memory.
    """
    out = np.empty(len(x))
    inverse_norms.sized(2 * x.size)(len(x), x, eps, out)
    check_rows_finite(name, out, first)
    return out


def check_rows_finite(name: str, inverse: np.ndarray, first: int = 0) -> None:
    """ValueError that names the first row, counted from `first` on, whose inverse norm is NaN."""
    bad = np.isnan(inverse)
    if bad.any():
        raise NotFiniteError(f"{name} must be finite, got a NaN or an infinity in row {first + int(np.argmax(bad))}")
