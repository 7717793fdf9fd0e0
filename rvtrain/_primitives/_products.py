"""Products of two matrices of row vectors, without BLAS."""

import numpy as np

from rvtrain._jit import kernel, prange


@kernel
def row_products(a, b, out):
    """out[i, j] = Σ_k a[i, k] b[j, k]; a (n, d), b (m, d), out (n, m).

    Each sum runs over k in the same order wherever its rows stand, so equal rows give equal bits.
    """
    n, d = a.shape
    m = b.shape[0]
    for i in prange(n):
        for j in range(m):
            s = np.zeros(1, a.dtype)[0]
            for k in range(d):
                s += a[i, k] * b[j, k]
            out[i, j] = s
