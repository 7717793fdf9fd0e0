"""Euclidean norms of rows, and what brings them to length one."""

import numpy as np

from rvtrain._errors import NotFiniteError
from rvtrain._jit import kernel, njit, prange

EPS = 1e-8
"""The smallest norm that a row is divided by: a zero vector has cosine 0 with everything."""


@njit
def norm(x):
    """‖x‖ of a vector as float64, right wherever it can be represented: NaN or inf only if x has one."""
    total = 0.0
    for k in range(len(x)):
        total += np.float64(x[k]) * np.float64(x[k])
    if 1e-280 < total < 1e300 or len(x) == 0:
        return np.sqrt(total)
    top = 0.0
    for k in range(len(x)):
        if np.isnan(x[k]) or np.isinf(x[k]):
            return np.nan
        top = max(top, np.float64(abs(x[k])))
    if top == 0.0:
        return 0.0
    total = 0.0
    for k in range(len(x)):
        total += (x[k] / top) ** 2
    return top * np.sqrt(total)


@njit
def inverse_norm(x, eps):
    """1 / max(‖x‖, eps) of a vector, NaN if it is not finite."""
    length = norm(x)
    return 1.0 / max(length, eps) if length < np.inf else np.nan


@kernel
def inverse_norms(x, eps, out):
    """out[i] = 1 / max(‖x[i]‖, eps), NaN if the row is not finite; x (n, d), out (n,) float64."""
    for i in prange(len(x)):
        out[i] = inverse_norm(x[i], eps)


def checked_inverse_norms(name: str, x: np.ndarray, eps: float = EPS, first: int = 0) -> np.ndarray:
    """What brings the rows of x (n, d) to length one, float64; ValueError if a row is not finite.

    x are the rows from `first` on of what has that name. No pass over memory is spent on looking: a NaN or an
    infinity shows in the norm.
    """
    out = np.empty(len(x))
    inverse_norms.sized(2 * x.size)(x, eps, out)
    check_rows_finite(name, out, first)
    return out


def check_rows_finite(name: str, inverse: np.ndarray, first: int = 0) -> None:
    """ValueError that names the first row, counted from `first` on, whose inverse norm is NaN."""
    bad = np.isnan(inverse)
    if bad.any():
        raise NotFiniteError(f"{name} must be finite, got a NaN or an infinity in row {first + int(np.argmax(bad))}")
