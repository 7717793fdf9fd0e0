"""Adam and AdamW, element by element: one pass over memory a step.

constants c (float64): 0 lr / (1 − β₁ᵗ), 1 √(1 − β₂ᵗ), 2 β₁, 3 β₂, 4 ε, 5 L2 decay, 6 1 − lr · decoupled decay, 7 ±1.

    g ← ±g + c₅ p        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²        p ← c₆ p − c₀ m / (√v / c₁ + ε)

With AMSGrad, the largest v so far (`top`) takes v's place in the last; without it `top` is empty.
"""

import numpy as np

from rvtrain._jit import kernel, njit, prange


@njit
def _constants(c, dtype):
    """The constants of a step in the type of the array, with 1 − β₁ and 1 − β₂ taken before rounding."""
    return (
        dtype.type(c[0]),
        dtype.type(1.0 / c[1]),
        dtype.type(c[2]),
        dtype.type(1.0 - c[2]),
        dtype.type(c[3]),
        dtype.type(1.0 - c[3]),
        dtype.type(c[4]),
        dtype.type(c[5]),
        dtype.type(c[6]),
        dtype.type(c[7]),
    )


@kernel
def adam_dense(p, g, m, v, top, c, wipe):
    """One step of all elements; p, g, m, v (n,), top (n,) or empty, c (8,); wipe: leave zeros in g."""
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = _constants(c, p.dtype)
    if len(top) == 0:
        for i in prange(len(p)):
            gradient = sign * g[i] + decay * p[i]
            if wipe:
                g[i] = 0
            m[i] = b1 * m[i] + n1 * gradient
            v[i] = b2 * v[i] + n2 * gradient * gradient
            p[i] = shrink * p[i] - rate * m[i] / (np.sqrt(v[i]) * root + eps)
    else:
        for i in prange(len(p)):
            gradient = sign * g[i] + decay * p[i]
            if wipe:
                g[i] = 0
            m[i] = b1 * m[i] + n1 * gradient
            v[i] = b2 * v[i] + n2 * gradient * gradient
            top[i] = v[i] if v[i] > top[i] else top[i]
            p[i] = shrink * p[i] - rate * m[i] / (np.sqrt(top[i]) * root + eps)


@kernel
def adam_rows(p, g, rows, m, v, top, c):
    """One step of p[rows] by g; p, m, v (n, d), g (R, d), rows (R,) distinct, top (n, d) or empty."""
    for r in prange(len(rows)):
        _row(p[rows[r]], g[r], m[rows[r]], v[rows[r]], top, rows[r], c)


@kernel
def adam_missed(p, rows, m, v, top, first, history):
    """Steps first[r] … with zero gradient for p[rows[r]]; history (T, 8) are the constants of each step."""
    for r in prange(len(rows)):
        for step in range(first[r], len(history)):
            _row(p[rows[r]], p[rows[r], :0], m[rows[r]], v[rows[r]], top, rows[r], history[step])


@njit
def _row(p, g, m, v, top, row, c):
    """One step of a row; an empty g is a zero gradient."""
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = _constants(c, p.dtype)
    for k in range(len(p)):
        gradient = decay * p[k]
        if len(g) > 0:
            gradient += sign * g[k]
        m[k] = b1 * m[k] + n1 * gradient
        v[k] = b2 * v[k] + n2 * gradient * gradient
        largest = v[k]
        if top.size > 0:
            largest = v[k] if v[k] > top[row, k] else top[row, k]
            top[row, k] = largest
        p[k] = shrink * p[k] - rate * m[k] / (np.sqrt(largest) * root + eps)
