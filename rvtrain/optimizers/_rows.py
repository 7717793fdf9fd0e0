"""Row updates of tables: repeated rows summed first, in an order that no thread decides."""

import numpy as np

from rvtrain._jit import kernel, prange


def summed_rows(gradient: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows, ascending, and for each the sum of its gradients in the order given."""
    order = np.argsort(rows, kind="stable")
    distinct, first = np.unique(rows[order], return_index=True)
    sums = np.empty((len(distinct), gradient.shape[1]), gradient.dtype)
    _sum_rows.sized(2 * gradient.size)(gradient, order, np.append(first, len(rows)), sums)
    return distinct, sums


@kernel
def _sum_rows(gradient, order, bounds, sums):
    """sums[r] = Σ gradient[order[s]] for s in [bounds[r], bounds[r + 1]); gradient (m, d), sums (R, d)."""
    for r in prange(len(sums)):
        for k in range(sums.shape[1]):
            total = gradient[order[bounds[r]], k]
            for s in range(bounds[r] + 1, bounds[r + 1]):
                total += gradient[order[s], k]
            sums[r, k] = total
