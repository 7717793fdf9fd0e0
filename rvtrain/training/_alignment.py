"""Alignment of pairs of embeddings, and uniformity of embeddings on the sphere."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain.functional import cosine_similarity, logsumexp

_ROWS, _COLUMNS = 256, 2048
"""Size of a block of pairs of rows."""


def alignment(x: ArrayLike, y: ArrayLike, alpha: float = 2.0) -> float:
    r"""Alignment of pairs of unit vectors: the mean of :math:`\|\hat x_i - \hat y_i\|^α`.

    Parameters
    ----------
    x, y : arrays of shape (n, d)
        Of any real type; computed in float64.
    alpha : float
        α in (0, 1000].

    Returns
    -------
    float
        0 where all pairs coincide; smaller is better.

    Raises
    ------
    TypeError, ValueError
        If shapes differ, something is empty or not finite, or α ≤ 0.

    References
    ----------
    Wang & Isola (2020), Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere, arXiv:2005.10242.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rt.alignment(np.eye(2), np.eye(2)[::-1])
    2.0000000000000004
    """
    x, y = check.stored_array("x", x, 2), check.stored_array("y", y, 2)
    check.same_shape("y", y, "x", x.shape)
    alpha = check.number("alpha", alpha, low=0.0, high=1000.0, open_low=True)
    total = 0.0
    for start in range(0, len(x), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        difference = _unit("x", x[part], start) - _unit("y", y[part], start)
        total += float((np.linalg.norm(difference, axis=1) ** alpha).sum())
    return total / len(x)


def uniformity(x: ArrayLike, t: float = 2.0) -> float:
    r"""Uniformity of unit vectors: :math:`\log` of the mean of :math:`e^{-t \|\hat x_i - \hat x_j\|^2}`.

    The mean is over all pairs i < j. Memory grows with n, not with n². A zero vector has distance 0 from other zero
    vectors, and distance 1 from all other vectors.

    Parameters
    ----------
    x : array of shape (n, d), n ≥ 2
        Of any real type; computed in float64.
    t : float
        t > 0.

    Returns
    -------
    float
        At most 0, the value where all rows coincide; smaller is better.

    Raises
    ------
    TypeError, ValueError
        If x has fewer than two rows or is not finite, or t ≤ 0.

    References
    ----------
    Wang & Isola (2020), arXiv:2005.10242.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rt.uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    -8.0
    """
    x = check.stored_array("x", x, 2)
    t = check.number("t", t, low=0.0, open_low=True)
    if len(x) < 2:
        raise ValueError(f"x must have at least two rows, got shape {x.shape}")
    squares = np.concatenate([_squares(x[start : start + _COLUMNS], start) for start in range(0, len(x), _COLUMNS)])
    parts = []
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        for other in range(start, len(x), _COLUMNS):
            columns = slice(other, other + _COLUMNS)
            products = cosine_similarity(x[rows].astype(np.float64), x[columns].astype(np.float64))
            distances = squares[rows, np.newaxis] + squares[columns] - 2.0 * products
            exponents = -t * np.maximum(distances, 0.0)
            if other == start:
                exponents[np.tri(*exponents.shape, dtype=np.bool_)] = -np.inf
            parts.append(logsumexp(exponents, axis=None))
    return float(logsumexp(np.array(parts)) - np.log(len(x) * (len(x) - 1.0) / 2.0))


def _unit(name: str, rows: np.ndarray, first: int) -> NDArray[np.float64]:
    """Rows divided by their norms, or by ε where these are below it; `first` is the index of the first row."""
    wide = check.readable(rows, np.float64)
    return wide * checked_inverse_norms(name, wide, first=first)[:, np.newaxis]


def _squares(rows: np.ndarray, first: int) -> NDArray[np.float64]:
    """The squared norms of `_unit` rows: 1, or 0 for zero rows."""
    unit = _unit("x", rows, first)
    squares = np.einsum("nd,nd->n", unit, unit)
    return np.where(squares > 0.5, 1.0, squares)
