"""Adam and AdamW, element by element: one pass over memory a step.

constants c (float64): 0 lr / (1 − β₁ᵗ), 1 √(1 − β₂ᵗ), 2 β₁, 3 β₂, 4 ε, 5 L2 decay, 6 1 − lr · decoupled decay, 7 ±1.

    g ← ±g + c₅ p        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²        p ← c₆ p − c₀ m / (√v / c₁ + ε)

With AMSGrad, the largest v so far (`top`) takes v's place in the last; without it `top` has no columns.

A row idle for many steps owes those with g = 0, where m and v only shrink. With x = √v / c₁ after step s,

    p ← D p − (m / √v) (S₀ − (ε/√v) S₁ + (ε/√v)² S₂ − …)        from 1 / (x + ε) = 1/x − ε/x² + ε²/x³ − …

with sums S over the steps that depend on no element, so one table serves all rows. S₃ bounds what the series leaves
out; where that is too much, and under L2 decay, the steps are made one by one.
"""

import numpy as np

from rvtrain._jit import kernel, njit, prange
from rvtrain._primitives._prefetch import prefetch_rows

COLUMNS = 7
"""Of the table: 0 Π β₁, 1 Π β₂, 2 D, 3 S₀, 4 ε S₁, 5 ε² S₂, 6 the least v for which that will do."""


@njit
def adam_constants(c, dtype):
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
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = adam_constants(c, p.dtype)
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
def adam_rows(p, g, m, v, top, c, first, history, table):
    """One step of p[g.rows], g a `Gradient`; p, m, v (n, d), top (n, d) or (n, 0).

    Unless `first` is empty, the idle steps that the rows owe come before, as in `adam_missed`: each row is read once.
    """
    for r in prange(len(g.rows)):
        prefetch_rows(g.rows, r, p, m, v)
        row, s = g.rows[r], g.source[r]
        if len(first) > 0:
            missed_elements(p[row], m[row], v[row], top[row], first[r], history, table)
        adam_elements(p[row], g.given[s] if s >= 0 else g.sums[-1 - s], m[row], v[row], top[row], c, False)


@kernel
def adam_missed(p, rows, m, v, top, first, history, table):
    """Steps first[r] … with zero gradient for p[rows[r]]; history (T, 8) are the constants of each step."""
    for r in prange(len(rows)):
        prefetch_rows(rows, r, p, m, v)
        row = rows[r]
        missed_elements(p[row], m[row], v[row], top[row], first[r], history, table)


@njit
def adam_elements(p, g, m, v, top, c, wipe):
    """One step of some elements: p, g, m, v (L,), top (L,) or empty; an empty g is a zero gradient."""
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = adam_constants(c, p.dtype)
    for k in range(len(p)):
        gradient = decay * p[k]
        if len(g) > 0:
            gradient += sign * g[k]
            if wipe:
                g[k] = 0
        m[k] = b1 * m[k] + n1 * gradient
        v[k] = b2 * v[k] + n2 * gradient * gradient
        largest = v[k]
        if len(top) > 0:
            largest = v[k] if v[k] > top[k] else top[k]
            top[k] = largest
        p[k] = shrink * p[k] - rate * m[k] / (np.sqrt(largest) * root + eps)


@kernel
def idle_table(history, amsgrad, left_out, table):
    """table[s], (T, 7): what the steps s, s + 1, …, T − 1 do to an idle row, from the last one back.

    left_out: how much of the movement the series may leave out.
    """
    b1_all, b2_all, shrink_all, s0, s1, s2, s3 = 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0
    for s in range(len(history) - 1, -1, -1):
        c = history[s]
        eps = c[4]
        b1, x = c[2], 1.0 if amsgrad else np.sqrt(c[3])  # √v and with it x shrink by this a step; `top` stays
        now = shrink_all * c[0] * b1
        s0 = (now * c[1] + b1 * s0) / x
        s1 = (now * c[1] ** 2 * eps + b1 * s1) / x**2
        s2 = (now * (c[1] * eps) ** 2 * c[1] + b1 * s2) / x**3
        s3 = (now * (c[1] * eps) ** 3 * c[1] + b1 * s3) / x**4
        b1_all, b2_all, shrink_all = b1_all * b1, b2_all * c[3], shrink_all * c[6]
        table[s, 0], table[s, 1], table[s, 2] = b1_all, b2_all, shrink_all
        table[s, 3], table[s, 4], table[s, 5] = s0, s1, s2
        # (ε/√v)³ S₃ / S₀ ≤ what may be left out: v must be at least this. NaN and ∞ are a no.
        table[s, 6] = (s3 / s0 / left_out) ** (2.0 / 3.0) if s0 > 0.0 else 0.0


@njit
def missed_elements(p, m, v, top, first, history, table):
    """The idle steps from `first` on of some elements, by the table where it is accurate, else one by one."""
    if first == len(history):
        return
    at = table[first]
    least = p.dtype.type(at[6])
    accurate = history[first, 5] == 0.0
    for k in range(len(p)):
        largest = top[k] if len(top) > 0 else v[k]
        accurate &= (largest > least) | (m[k] == 0)
    if not accurate:
        for step in range(first, len(history)):
            adam_elements(p, p[:0], m, v, top, history[step], False)
        return
    zero, one = p.dtype.type(0), p.dtype.type(1)
    b1, b2, shrink = p.dtype.type(at[0]), p.dtype.type(at[1]), p.dtype.type(at[2])
    s0, s1, s2 = p.dtype.type(at[3]), p.dtype.type(at[4]), p.dtype.type(at[5])
    for k in range(len(p)):
        largest = top[k] if len(top) > 0 else v[k]
        inverse = one / np.sqrt(largest) if largest > zero else zero
        p[k] = shrink * p[k] - m[k] * inverse * (s0 - inverse * (s1 - inverse * s2))
        m[k] *= b1
        v[k] *= b2
