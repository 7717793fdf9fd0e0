"""Gradients of the inputs from the sums of a sweep: the chain rule through the normalisation."""

import numpy as np

from rvtrain._engine._blocks import Rows
from rvtrain._engine._norms import EPS
from rvtrain._engine._sweep_kernels import NO_SHARES
from rvtrain._kernels import kernel


def to_inputs(
    sums: np.ndarray | None,
    rows: Rows,
    slopes: np.ndarray,
    own: Rows,
    shares: np.ndarray = NO_SHARES,
    normalised: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient to the rows as given, (n, d), and â_i · g_i of each row, where g is the gradient to the unit rows.

    g_i = shares[i] · sums[i] + slopes[i] · own_i. If shares are None the factor is 1, and if sums are None the first
    term is 0. Rows that are not normalised have inverse 1 and are their own unit rows.
    """
    out, along = _apart(rows.x), np.empty(len(rows.x))
    if sums is None:  # those of any rows, none of which counts: a fresh array of zeros would cost more
        sums, shares = own.x, np.zeros(len(rows.x))
    _to_inputs.sized(8 * out.size)(len(out), sums, shares, slopes, own, rows, normalised, along, out)
    return out, along


def _apart(like: np.ndarray) -> np.ndarray:
    """An array of the same shape that is not within 512 bytes of another one.

    Where an input is nearer to the output, the loops of the kernel run in scalar code, which adds in another order.
    Larger arrays are never so near, row by row.
    """
    if like.nbytes >= 1024:
        return np.empty_like(like)
    room = 512 // like.itemsize
    return np.empty(like.size + 2 * room, like.dtype)[room : room + like.size].reshape(like.shape)


def unscaled(x: np.ndarray) -> Rows:
    """Rows that are not normalised: their scores are dot products."""
    return Rows(x, np.ones(len(x)))


@kernel
def _to_inputs(start, stop, sums, shares, slopes, others, rows, normalised, along, out):
    """As `to_inputs`: out[i] = (g − â_i along[i]) / ‖a_i‖, or g / ε where ‖a_i‖ ≤ ε.

    Shapes: sums (≥ n, ≥ d), others and rows Rows of (n, d).
    """
    for i in range(start, stop):
        inverse, other = rows.inverse[i], others.inverse[i] * slopes[i]
        share = shares[i] if len(shares) > 0 else 1.0
        total = 0.0
        for k in range(out.shape[1]):
            g = share * sums[i, k] + other * others.x[i, k]
            out[i, k] = g
            total += g * (rows.x[i, k] * inverse)
        along[i] = total
        total = total * inverse if normalised and inverse < 1.0 / EPS else 0.0
        for k in range(out.shape[1]):
            out[i, k] = (out[i, k] - total * rows.x[i, k]) * inverse
