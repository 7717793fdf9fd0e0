"""Products of matrices of row vectors, without BLAS. Each sum has one fixed order."""

from rvtrain._jit import kernel, prange


@kernel
def row_products(a, b, out):
    """out[i, j] = Σ_k a[i, k] b[j, k]; a (n, d), b (m, d), out (n, m).

    Each sum runs over k in the same order wherever its rows stand, so equal rows give equal bits.
    """
    for i in prange(len(a)):
        for j in range(len(b)):
            total = a.dtype.type(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[j, k]
            out[i, j] = total


@kernel
def weighted_rows(weights, b, out):
    """out[i] = Σ_j weights[i, j] b[j]; weights (n, m), b (m, d), out (n, d)."""
    for i in prange(len(weights)):
        for k in range(b.shape[1]):
            out[i, k] = 0
        for j in range(len(b)):
            for k in range(b.shape[1]):
                out[i, k] += weights[i, j] * b[j, k]


@kernel
def add_weighted_columns(weights, a, out):
    """out[j] += Σ_i weights[i, j] a[i]; weights (n, m), a (n, d), out (m, d)."""
    for j in prange(len(out)):
        for i in range(len(a)):
            for k in range(a.shape[1]):
                out[j, k] += weights[i, j] * a[i, k]
