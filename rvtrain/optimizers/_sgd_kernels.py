"""SGD, element by element: one pass over memory a step.

constants c (float64): 0 lr, 1 momentum μ, 2 1 − dampening, 3 weight decay, 4 ±1, 5 Nesterov, 6 first step.

    g ← ±g + c₃ p        b ← g at the first step, else μ b + c₂ g        p ← p − lr · (g + μ b if Nesterov, else b)

Without momentum `b` is empty and p ← p − lr · g.
"""

from rvtrain._jit import kernel, njit, prange


@njit
def _constants(c, dtype):
    """lr, μ, 1 − dampening, decay, sign, weight of g and weight of b in the update, in the array's type.

    At the first step b = g, which is μ = 0 and no dampening.
    """
    first, nesterov = c[6] > 0.0, c[5] > 0.0
    return (
        dtype.type(c[0]),
        dtype.type(0.0 if first else c[1]),
        dtype.type(1.0 if first else c[2]),
        dtype.type(c[3]),
        dtype.type(c[4]),
        dtype.type(1.0 if nesterov else 0.0),
        dtype.type(c[1] if nesterov else 1.0),
    )


@kernel
def sgd_dense(p, g, b, c, wipe):
    """One step of all elements; p and g (n,), b (n,) or empty, c (7,); wipe: leave zeros in g."""
    rate, mu, fresh, decay, sign, of_g, of_b = _constants(c, p.dtype)
    if len(b) == 0:
        for i in prange(len(p)):
            p[i] -= rate * (sign * g[i] + decay * p[i])
            if wipe:
                g[i] = 0
    else:
        for i in prange(len(p)):
            gradient = sign * g[i] + decay * p[i]
            if wipe:
                g[i] = 0
            b[i] = mu * b[i] + fresh * gradient
            p[i] -= rate * (of_g * gradient + of_b * b[i])


@kernel
def sgd_rows(p, g, rows, b, c):
    """One step of p[rows] by g; p (n, d), g (R, d), rows (R,) distinct, b (n, d) or empty."""
    for r in prange(len(rows)):
        _row(p[rows[r]], g[r], b, rows[r], c)


@kernel
def sgd_missed(p, rows, b, first, history):
    """Steps first[r] … with zero gradient for p[rows[r]]; history (T, 7) are the constants of each step."""
    for r in prange(len(rows)):
        for step in range(first[r], len(history)):
            _row(p[rows[r]], p[rows[r], :0], b, rows[r], history[step])


@njit
def _row(p, g, b, row, c):
    """One step of a row; an empty g is a zero gradient."""
    rate, mu, fresh, decay, sign, of_g, of_b = _constants(c, p.dtype)
    for k in range(len(p)):
        gradient = decay * p[k]
        if len(g) > 0:
            gradient += sign * g[k]
        move = gradient
        if b.size > 0:
            b[row, k] = mu * b[row, k] + fresh * gradient
            move = of_g * gradient + of_b * b[row, k]
        p[k] -= rate * move
