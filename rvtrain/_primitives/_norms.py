"""Euclidean norms of rows, and rows brought to length one."""

import numpy as np

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


@kernel
def unit_rows(x, eps, out, norms):
    """out[i] = x[i] / max(‖x[i]‖, eps), norms[i] = ‖x[i]‖; x and out (n, d), norms (n,) float64."""
    for i in prange(len(x)):
        norms[i] = norm(x[i])
        inverse = 1.0 / max(norms[i], eps)
        for k in range(x.shape[1]):
            out[i, k] = x[i, k] * inverse


def checked_unit_rows(name: str, x: np.ndarray, eps: float = EPS) -> tuple[np.ndarray, np.ndarray]:
    """The rows of x (n, d) at length one and their norms; ValueError if a row is not finite.

    No pass over memory is spent on looking: a NaN or an infinity shows in the norm.
    """
    units, norms = np.empty_like(x), np.empty(len(x))
    unit_rows.sized(4 * x.size)(x, eps, units, norms)
    require_finite_rows(name, norms)
    return units, norms


def require_finite_rows(name: str, norms: np.ndarray) -> None:
    """Raise if any of the norms is not finite, naming the first such row."""
    good = np.isfinite(norms)
    if not good.all():
        raise ValueError(f"{name} must be finite, got a NaN or an infinity in row {int(np.argmin(good))}")
