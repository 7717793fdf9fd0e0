"""The loops of the spread regularization between its matrix products."""

import numpy as np

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
    """out[i] = Σ_j gram[i, j]²; `without_diagonal` sets the diagonal to 0 first. gram (m, m), out (m,) float64."""
    for i in range(start, stop):
        if without_diagonal:
            gram[i, i] = 0
        total = 0.0
        for j in range(gram.shape[1]):
            total += np.float64(gram[i, j]) * np.float64(gram[i, j])
        out[i] = total
