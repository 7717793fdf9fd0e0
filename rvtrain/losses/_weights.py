"""Weights of rows in a total: the reduction and the caller's weights in one array."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check

Floats = NDArray[np.floating]


def row_weights(reduction: str, sample_weight: ArrayLike | None, count: int) -> NDArray[np.float64]:
    """w of each row such that the value is Σ w ℓ: a weighted mean has Σ w = 1; without reduction, w as given."""
    if sample_weight is None:
        w = np.ones(count)
    else:
        given = check.stored_array("sample_weight", sample_weight, 1)
        if len(given) != count:
            raise ValueError(f"sample_weight must have shape ({count},), one weight a row, got {given.shape}")
        check.finite("sample_weight", given)
        w = given.astype(np.float64)
        if (w < 0).any():
            raise ValueError(f"sample_weight must not be negative, got {w[w < 0][0]:g}")
        if reduction == "mean" and w.sum() == 0:
            raise ValueError("sample_weight must not be 0 in all rows: a mean divides by its sum")
    return w / w.sum() if reduction == "mean" else w


def weighted(losses: Floats, weights: Floats, reduction: str, dtype: np.dtype, single: bool) -> float | Floats:
    """Σ w ℓ, or without reduction each w ℓ in that dtype: a number where the caller gave a single row."""
    terms = losses * weights
    if reduction != "none":
        return float(terms.sum())
    values: Floats = terms.astype(dtype)
    return values[0] if single else values
