"""Log-sum-exp and cosine similarity as functions."""

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._exp import LOG2_E, exp2
from rvtrain._engine._largest import largest
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain._engine._products import packed_columns, row_products
from rvtrain._engine._scratch import scratch
from rvtrain._kernels import kernel, njit


@overload
def logsumexp(x: ArrayLike, axis: None) -> np.floating: ...


@overload
def logsumexp(x: ArrayLike, axis: int = ...) -> np.floating | NDArray[np.floating]: ...


def logsumexp(x: ArrayLike, axis: int | None = -1) -> np.floating | NDArray[np.floating]:
    r"""log Σ exp(xᵢ) along an axis, without overflow.

    .. math:: \operatorname{lse}(x) = m + \log \sum_i e^{x_i - m}, \qquad m = \max_i x_i

    Parameters
    ----------
    x : array of float32 or float64, of any shape
    axis : int, or None for all elements

    Returns
    -------
    array of x's dtype without that axis, or a scalar if none is left
        −inf of no elements, and where all are −inf; +inf where one is +inf; NaN where one is NaN.

    Raises
    ------
    TypeError
        If x is not float32 or float64, or axis is not an integer.
    ValueError
        If x has no such axis.

    References
    ----------
    Blanchard, Higham & Higham (2021), Accurately computing the log-sum-exp and softmax functions, IMA J.
    Numer. Anal. 41(4).

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rt.logsumexp(np.array([1000.0, 1000.0])).round(6)
    np.float64(1000.693147)
    """
    values = check.any_float_array("x", x)
    if axis is None:
        values, axis = values.reshape(-1), -1
    axis = check.integer("axis", axis)
    if not -values.ndim <= axis < values.ndim:
        raise ValueError(f"axis must be in [{-values.ndim}, {values.ndim - 1}] for shape {values.shape}, got {axis}")
    last = np.moveaxis(values, axis, -1)
    rows = check.readable(last).reshape(int(np.prod(last.shape[:-1])), last.shape[-1])
    out = np.empty(len(rows), values.dtype)
    _logsumexp_rows.sized(20 * rows.size)(len(rows), rows, out)
    return out.reshape(last.shape[:-1])[()]


@kernel
def _logsumexp_rows(start, stop, x, out):
    """out[i] = m + log Σ_j exp(x[i, j] − m), m = max_j x[i, j]; x (n, m), out (n,)."""
    for i in range(start, stop):
        out[i] = _logsumexp(x[i])


@njit
def _logsumexp(x):
    """The log-sum-exp of a vector.

    A NaN may count as less than −inf for `largest`: it makes the sum NaN, and is searched for where there is no sum.
    """
    octaves = x.dtype.type(LOG2_E)
    maximum = largest(x)
    if maximum == -np.inf and not _any_nan(x):
        return maximum
    if maximum == np.inf:
        return x.dtype.type(np.nan) if _any_nan(x) else maximum
    total = x.dtype.type(0)
    for j in range(len(x)):
        total += exp2((x[j] - maximum) * octaves)
    return x.dtype.type(maximum + np.log(np.float64(total)))


@njit
def _any_nan(x):
    for j in range(len(x)):
        if np.isnan(x[j]):
            return True
    return False


def cosine_similarity(a: ArrayLike, b: ArrayLike, eps: float = 1e-8) -> NDArray[np.floating]:
    r"""Cosine of every row of a with every row of b.

    .. math:: \cos(a, b) = \frac{a \cdot b}{\max(\|a\|, ε)\,\max(\|b\|, ε)}

    Parameters
    ----------
    a : array of shape (B, d), float32 or float64
    b : array of shape (N, d)
    eps : float
        ε ≥ 1e-300. A norm below ε counts as ε, so that a zero vector has cosine 0 with every vector.

    Returns
    -------
    array of shape (B, N), of the promoted dtype

    Raises
    ------
    TypeError
        If an array is not float32 or float64.
    ValueError
        If shapes do not fit, something is empty or not finite, or eps is below 1e-300.

    References
    ----------
    Manning, Raghavan & Schütze (2008), Introduction to Information Retrieval, section 6.3.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rt.cosine_similarity(np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [4.0, 3.0], [0.0, 0.0]]))
    array([[1.  , 0.96, 0.  ]])
    """
    left, right = check.float_array("a", a, 2), check.float_array("b", b, 2)
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"b must have {left.shape[1]} columns like a, got shape {right.shape}")
    eps = check.number("eps", eps, low=1e-300)
    left, right = check.promoted(left, right)
    rows = Rows(left, checked_inverse_norms("a", left, eps))
    columns = Rows(right, checked_inverse_norms("b", right, eps))
    out = np.empty((len(left), len(right)), left.dtype)
    with scratch() as memory:
        row_products(rows, packed_columns(columns, memory), out)
    return out
