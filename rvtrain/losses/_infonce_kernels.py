"""The loops of InfoNCE. Cosines come in, −inf where a column is no negative of that row.

With t = lse_j(cos_ij / τ) − cos⁺_i / τ over the negatives alone, the loss is softplus(t) and the softmax
weight of all negatives together is σ(t): neither cancels when the positive is far ahead, and neither
is capped when it is hopeless. All gradients follow from the slopes G = ∂L/∂cos:

    ∂L/∂â_i = Σ_j G_ij ĉ_j + G⁺_i p̂_i        ∂L/∂ĉ_j = Σ_i G_ij â_i        ∂L/∂τ = −(1/τ) Σ_i â_i · ∂L/∂â_i
"""

import numpy as np

from rvtrain._kernels import kernel, njit
from rvtrain._engine._exp import LOG2_E, exp2
from rvtrain._engine._largest import largest
from rvtrain._engine._norms import EPS, cosine, inverse_norm


@kernel
def contrast(start, stop, cosines, positives, temperature, weight, losses, slopes):
    """Row by row, the loss and its slopes, which overwrite the cosines.

    cosines (n, m) and positives (n,) float64 → losses[i] = softplus(t_i); slopes[i] = ∂/∂cos⁺ = −w σ(t_i) / τ;
    cosines[i, j] = ∂/∂cos_ij = w σ(t_i) / τ · softmax_j(cos_i / τ); w is the weight of a row in the total.
    """
    octaves = cosines.dtype.type(LOG2_E / temperature)
    for i in range(start, stop):
        row = cosines[i]
        top = largest(row)
        shift, total = top if top > -np.inf else octaves * 0, 0.0  # of −inf alone, no difference is NaN
        for j in range(len(row)):
            row[j] = exp2((row[j] - shift) * octaves)
            total += row[j]
        t = (np.float64(top) - positives[i]) / temperature + np.log(total)
        losses[i] = max(t, 0.0) + np.log1p(np.exp(-abs(t)))
        slope = weight / (temperature * (1.0 + np.exp(-t)))
        slopes[i] = -slope
        share = cosines.dtype.type(slope / total if total > 0.0 else 0.0)
        for j in range(len(row)):
            row[j] *= share


@kernel
def measure_pairs(start, stop, a, b, inverse_a, inverse_b, cosines):
    """What brings each row of a and b (n, d) to length one, NaN if it is not finite, and cosines[i] = â_i · b̂_i.

    All outputs (n,) float64.
    """
    for i in range(start, stop):
        inverse_a[i], inverse_b[i] = inverse_norm(a[i], EPS), inverse_norm(b[i], EPS)
        cosines[i] = cosine(a[i], inverse_a[i], b[i], inverse_b[i])


@kernel
def gathered_cosines(start, stop, rows, pool, indices, cosines, inverses):
    """cosines[i, j] of row i with pool[indices[i, j]], −inf where the index is −1.

    rows Rows of (B, d), pool (M, d), indices and cosines (B, k). inverses (B, k) float64: what brings the pool rows
    to length one, 0 where the index is −1, NaN if a row is not finite.
    """
    for i in range(start, stop):
        for j in range(indices.shape[1]):
            cosines[i, j] = -np.inf
            inverses[i, j] = 0.0
            if indices[i, j] >= 0:
                x = pool[indices[i, j]]
                inverses[i, j] = inverse_norm(x, EPS)
                cosines[i, j] = cosine(rows.x[i], rows.inverse[i], x, inverses[i, j])


@kernel
def gathered_anchor_gradient(start, stop, slopes, pool, indices, inverses, out):
    """out[i] = Σ_j slopes[i, j] · pool[indices[i, j]] · inverses[i, j], to the normalised anchors (B, d).

    A row so long that its scale would lose digits in float32 is scaled in float64.
    """
    for i in range(start, stop):
        out[i] = 0
        for j in range(slopes.shape[1]):
            if indices[i, j] >= 0:
                scale = slopes[i, j] * inverses[i, j]
                if inverses[i, j] > 1e-20:
                    _add_scaled(out.dtype.type(scale), pool[indices[i, j]], out[i])
                else:
                    _add_scaled(scale, pool[indices[i, j]], out[i])


@kernel
def gathered_negative_gradient(start, stop, slopes, rows, pool, order, bounds, named, out):
    """out[named[r]] = the gradient to pool[named[r]]; order[bounds[r]: bounds[r + 1]] says who named it.

    slopes (B, k), rows Rows of (B, d), pool (M, d); order holds flat positions in (B, k), those of one pool
    row together and ascending, so that the sum is the same whoever does it; out (M, d) is 0 elsewhere.
    """
    width = slopes.shape[1]
    for r in range(start, stop):
        total = out[named[r]]
        total[:] = 0
        for s in range(bounds[r], bounds[r + 1]):
            i, j = order[s] // width, order[s] % width
            _add_scaled(slopes[i, j] * rows.inverse[i], rows.x[i], total)
        x = pool[named[r]]
        inverse, along = inverse_norm(x, EPS), 0.0
        if inverse < 1.0 / EPS:
            for k in range(len(x)):
                along += x[k] * inverse * total[k]
        for k in range(len(x)):
            total[k] = (total[k] - x[k] * inverse * along) * inverse


@njit
def _add_scaled(scale, x, out):
    for k in range(len(x)):
        out[k] += scale * x[k]
