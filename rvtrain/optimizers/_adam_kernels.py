"""Kernels of Adam and AdamW: a step is one pass over memory.

Constants c of a step (float64): 0 lr / (1 − β₁ᵗ), 1 √(1 − β₂ᵗ), 2 β₁, 3 β₂, 4 ε, 5 L2 decay,
6 1 − lr · decoupled decay, 7 ±1.

    g ← ±g + c₅ p        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²        p ← c₆ p − c₀ m / (√v / c₁ + ε)

Under AMSGrad, the largest v so far (`top`) takes the place of v in the last of these; without it `top` is None.

An idle row is one that several steps did not name: it has missed as many steps with g = 0, in which m and v only
shrink. With x = √v / c₁ after step s,

    p ← D p − (m / √v) (S₀ − (ε/√v) S₁ + (ε/√v)² S₂ − …)        from 1 / (x + ε) = 1/x − ε/x² + ε²/x³ − …

with sums S over the steps that do not depend on the element, so that one table serves all rows. S₃ bounds the
remainder of the series. Where that is too large, and under L2 decay, the steps are made one by one.
"""

import numpy as np

from rvtrain._engine._prefetch import prefetch_rows
from rvtrain._kernels import driver, inlined, kernel, njit
from rvtrain.optimizers._elements import adam_moved, mixed, with_square

COLUMNS = 7
"""Columns of the table: 0 Π β₁, 1 Π β₂, 2 D, 3 S₀, 4 ε S₁, 5 ε² S₂, 6 the least v for which the series will do."""


@njit
def adam_constants(c, dtype):
    """The constants of a step in the dtype of the array; 1 − β₁ and 1 − β₂ are computed before they are rounded."""
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
def adam_dense(start, stop, p, g, m, v, top, c, wipe):
    """One step of all elements.

    Shapes: p, g, m, v (n,), top (n,) or None, c (8,); the range is that of the elements. wipe: leave zeros in g.
    """
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = adam_constants(c, p.dtype)
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    if top is None:
        for i in range(len(p)):
            gradient = mixed(sign, g[i], decay, p[i])
            if wipe:
                g[i] = 0
            mean = mixed(b1, m[i], n1, gradient)
            square = with_square(b2, v[i], n2, gradient)
            m[i], v[i] = mean, square
            p[i] = adam_moved(p[i], shrink, rate, mean, square, root, eps)
    else:
        tops = top[start:stop]
        for i in range(len(p)):
            gradient = mixed(sign, g[i], decay, p[i])
            if wipe:
                g[i] = 0
            mean = mixed(b1, m[i], n1, gradient)
            square = with_square(b2, v[i], n2, gradient)
            m[i], v[i] = mean, square
            largest = square if square > tops[i] else tops[i]
            tops[i] = largest
            p[i] = adam_moved(p[i], shrink, rate, mean, largest, root, eps)


# An argument that is None is known to the compiler, which leaves out the branches of the other case. A kernel selects
# the branch itself, because in functions that are inlined the compiler looks too late.
#
# Rows are named by table and number, and their functions inlined, because each view of a row and each array given to
# a function counts a reference, up and down, by additions that threads contend for. They took a fifth of all time.


@kernel
def adam_rows(start, stop, p, g, m, v, top, c, first, history, table):
    """One step of p[g.rows], g a `Gradient`, after the idle steps that these rows have missed, as in `adam_missed`.

    Shapes: p, m, v (n, d), top (n, d) or None; the range is that of g.rows. first, history and table are None if
    idle rows miss no steps. Both kinds of steps are in one kernel, so that each row is read once.
    """
    constants = adam_constants(c, p.dtype)
    given, sums, source, rows = g
    for r in range(start, stop):
        prefetch_rows(rows, r, p, m, v)
        row, s = rows[r], source[r]
        if first is not None and first[r] < len(history):
            if top is None:
                missed_steps(p, row, 0, m, v, v, row, p.shape[1], first[r], history, table, False)
            else:
                missed_steps(p, row, 0, m, v, top, row, p.shape[1], first[r], history, table, True)
        if top is None:
            if s >= 0:
                _step_row(p, row, given, s, m, v, constants)
            else:
                _step_row(p, row, sums, -1 - s, m, v, constants)
        else:
            if s >= 0:
                _step_row_amsgrad(p, row, given, s, m, v, top, constants)
            else:
                _step_row_amsgrad(p, row, sums, -1 - s, m, v, top, constants)


@inlined
def _step_row(p, row, g, s, m, v, constants):
    """One step of p[row] by g[s]."""
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = constants
    for k in range(p.shape[1]):
        gradient = mixed(sign, g[s, k], decay, p[row, k])
        mean = mixed(b1, m[row, k], n1, gradient)
        square = with_square(b2, v[row, k], n2, gradient)
        m[row, k], v[row, k] = mean, square
        p[row, k] = adam_moved(p[row, k], shrink, rate, mean, square, root, eps)


@inlined
def _step_row_amsgrad(p, row, g, s, m, v, top, constants):
    """The same under AMSGrad."""
    rate, root, b1, n1, b2, n2, eps, decay, shrink, sign = constants
    for k in range(p.shape[1]):
        gradient = mixed(sign, g[s, k], decay, p[row, k])
        mean = mixed(b1, m[row, k], n1, gradient)
        square = with_square(b2, v[row, k], n2, gradient)
        m[row, k], v[row, k] = mean, square
        largest = square if square > top[row, k] else top[row, k]
        top[row, k] = largest
        p[row, k] = adam_moved(p[row, k], shrink, rate, mean, largest, root, eps)


@kernel
def adam_missed(start, stop, p, rows, m, v, top, first, history, table):
    """The idle steps first[r], first[r] + 1, … of p[rows[r]]: those with gradient zero.

    Shapes: p, m, v (n, d), top (n, d) or None, rows and first (R,), history (T, 8): the constants of each step,
    table (T, 7): as `idle_table` writes it. The range is that of rows.
    """
    for r in range(start, stop):
        prefetch_rows(rows, r, p, m, v)
        if first[r] < len(history):
            if top is None:
                missed_steps(p, rows[r], 0, m, v, v, rows[r], p.shape[1], first[r], history, table, False)
            else:
                missed_steps(p, rows[r], 0, m, v, top, rows[r], p.shape[1], first[r], history, table, True)


@driver
def idle_table(threads, history, amsgrad, left_out, table):
    """table[s] = the effect on an idle row of the steps s, s + 1, …, T − 1 together.

    Shapes: history (T, 8), the constants of each step, and table (T, 7). left_out: the fraction of the movement that
    the series may leave out.
    """
    b1_all, b2_all, shrink_all, s0, s1, s2, s3 = 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0
    for s in range(len(history) - 1, -1, -1):
        c = history[s]
        eps = c[4]
        b1, x = c[2], 1.0 if amsgrad else np.sqrt(c[3])  # a step multiplies √v by this, and leaves `top` as it is
        now = shrink_all * c[0] * b1
        s0 = (now * c[1] + b1 * s0) / x
        s1 = (now * c[1] ** 2 * eps + b1 * s1) / x**2
        s2 = (now * (c[1] * eps) ** 2 * c[1] + b1 * s2) / x**3
        s3 = (now * (c[1] * eps) ** 3 * c[1] + b1 * s3) / x**4
        b1_all, b2_all, shrink_all = b1_all * b1, b2_all * c[3], shrink_all * c[6]
        table[s, 0], table[s, 1], table[s, 2] = b1_all, b2_all, shrink_all
        table[s, 3], table[s, 4], table[s, 5] = s0, s1, s2
        # The least v with (ε/√v)³ S₃ / S₀ ≤ left_out. No v exceeds NaN or infinity.
        table[s, 6] = (s3 / s0 / left_out) ** (2.0 / 3.0) if s0 > 0.0 else 0.0


@inlined
def missed_steps(p, row, low, m, v, top, at, width, first, history, table, amsgrad):
    """The steps from `first` on with g = 0 of p[row, low : low + width], by the table if it is accurate, else singly.

    The moments are m[at, :width], v[at, :width] and top[at, :width]; without AMSGrad, top is v.
    """
    real = p.dtype.type
    least = real(table[first, 6])
    accurate = history[first, 5] == 0.0
    for k in range(width):
        accurate &= (top[at, k] > least) | (m[at, k] == 0)
    if accurate:
        zero, one = real(0), real(1)
        b1, b2, shrink = real(table[first, 0]), real(table[first, 1]), real(table[first, 2])
        s0, s1, s2 = real(table[first, 3]), real(table[first, 4]), real(table[first, 5])
        for k in range(width):
            largest = top[at, k]
            inverse = one / np.sqrt(largest) if largest > zero else zero
            p[row, low + k] = shrink * p[row, low + k] - m[at, k] * inverse * (s0 - inverse * (s1 - inverse * s2))
            m[at, k] *= b1
            v[at, k] *= b2
    else:
        for step in range(first, len(history)):
            _idle_step(p, row, low, m, v, top, at, width, history, step, amsgrad)


@njit
def _idle_step(p, row, low, m, v, top, at, width, history, step, amsgrad):
    """One step with g = 0."""
    rate, root, b1, n1, b2, n2, eps, decay, shrink, _ = adam_constants(history[step], p.dtype)
    for k in range(width):
        gradient = decay * p[row, low + k]
        mean = mixed(b1, m[at, k], n1, gradient)
        square = with_square(b2, v[at, k], n2, gradient)
        m[at, k], v[at, k] = mean, square
        if amsgrad:
            square = square if square > top[at, k] else top[at, k]
            top[at, k] = square
        p[row, low + k] = adam_moved(p[row, low + k], shrink, rate, mean, square, root, eps)
