"""Loops of the losses on graded pairs: their cosines, CoSENT's sums over pairs of pairs, and gradients."""

import numpy as np

from rvtrain._kernels import driver, kernel, njit
from rvtrain.losses._score_kernels import score_gradient


@kernel
def pair_gradients(start, stop, slopes, cosines, rows, others, out):
    """out[i] = slopes[i] · ∂cosines[i] / ∂row i.

    Shapes: slopes and cosines (n,), rows and others Rows of (n, d), out (n, d).
    """
    for i in range(start, stop):
        score_gradient(
            slopes[i], cosines[i], others.x[i], others.inverse[i], rows.x[i], rows.inverse[i], True, out[i]
        )


@driver
def cosent_terms(threads, order, grades, cosines, scale, slopes, value):
    """value[0] = log(1 + Σ e^{x_i − x_j}) over all i, j with grades[i] < grades[j], x = scale · cosines; (n,) each.

    slopes[i] = ∂value/∂cosines[i]; order sorts the grades. With lower_j = log Σ e^{x_i} over the lower grades and
    upper_i = log Σ e^{−x_j} over the higher ones, both running sums along `order`, the value is softplus(t) with
    t = log Σ_j e^{lower_j − x_j}, and slopes are scale · (e^{upper + x} − e^{lower − x}) / e^value. Sums are kept as
    logarithms, so that no scale overflows. It uses one thread, because sorting takes longer than the sums.
    """
    total = _running_sums(order, grades, cosines, scale, slopes)
    value[0] = max(total, 0.0) + np.log1p(np.exp(-abs(total)))
    for i in range(len(slopes)):  # slopes[i] still holds lower[i]
        slopes[i] = -scale * np.exp(slopes[i] - scale * cosines[i] - value[0])
    _add_upper(order, grades, cosines, scale, value[0], slopes)


@njit
def _running_sums(order, grades, cosines, scale, lower):
    """Returns t of `cosent_terms`; lower[i] = log Σ e^{x_j} over all j of lower grades, −inf if there are none."""
    top, total, all_top, all_total = -np.inf, 0.0, -np.inf, 0.0
    first, count = 0, len(order)
    while first < count:
        last, below = first, top + np.log(total)
        while last < count and grades[order[last]] == grades[order[first]]:
            i = order[last]
            lower[i] = below
            if first > 0:
                all_top, all_total = _added(all_top, all_total, below - scale * cosines[i])
            last += 1
        for k in range(first, last):
            top, total = _added(top, total, scale * cosines[order[k]])
        first = last
    return all_top + np.log(all_total)


@njit
def _add_upper(order, grades, cosines, scale, value, slopes):
    """slopes[i] += scale · e^{x_i + upper_i − value}, from the highest grade down."""
    top, total = -np.inf, 0.0
    last = len(order)
    while last > 0:
        first, above = last, top + np.log(total)
        while first > 0 and grades[order[first - 1]] == grades[order[last - 1]]:
            first -= 1
            i = order[first]
            slopes[i] += scale * np.exp(scale * cosines[i] + above - value)
        for k in range(first, last):
            top, total = _added(top, total, -scale * cosines[order[k]])
        last = first


@njit
def _added(top, total, x):
    """Add eˣ to the sum e^top · total; returns the new (top, total), where top is the largest x so far."""
    if x > top:
        return x, total * np.exp(top - x) + 1.0
    return top, total + np.exp(x - top)
