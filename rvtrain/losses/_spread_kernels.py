"""The loops of the spread regularization between its matrix products."""

import numpy as np

from rvtrain._engine._norms import EPS
from rvtrain._kernels import kernel


@kernel
def unit_rows(start, stop, x, inverse, out, squares):
    """out[i] = x[i] · inverse[i], and squares[i] = ‖out[i]‖²; x and out (n, d), squares (n,) float64."""
    for i in range(start, stop):
        total = 0.0
        for k in range(x.shape[1]):
            value = out.dtype.type(x[i, k] * inverse[i])
            out[i, k] = value
            total += np.float64(value) * np.float64(value)
        squares[i] = total


@kernel
def row_squares(start, stop, gram, without_diagonal, out):
    """out[i] = Σ_j gram[i, j]²; without the diagonal, which is then set to 0. gram (m, m), out (m,) float64."""
    for i in range(start, stop):
        if without_diagonal:
            gram[i, i] = 0
        total = 0.0
        for j in range(gram.shape[1]):
            total += np.float64(gram[i, j]) * np.float64(gram[i, j])
        out[i] = total


@kernel
def finish(start, stop, unit, squares, inverse, factor, out):
    """Turn out[i] = Σ_j c_ij ẑ_j into factor · (Σ_{j≠i} c_ij ẑ_j), taken back through the normalisation.

    squares (n,): c_ii, that is to be taken off, 0 where it is not in the sum; unit and out (n, d).
    """
    for i in range(start, stop):
        along = squares[i]
        if inverse[i] < 1.0 / EPS:
            along = 0.0
            for k in range(unit.shape[1]):
                along += np.float64(unit[i, k]) * np.float64(out[i, k])
        scale = factor * inverse[i]
        for k in range(unit.shape[1]):
            out[i, k] = scale * (out[i, k] - along * unit[i, k])
