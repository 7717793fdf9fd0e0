"""Log-sum-exp, cosine similarity and codes of few bits as functions."""

from typing import Any, overload

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


PRECISIONS = ("int8", "uint8", "binary", "ubinary")
_QUANTIZED_AT_ONCE = 1 << 20
"""Number of elements, so that what is between them and their codes stays in the cache."""


def quantize(x: ArrayLike, precision: str, ranges: ArrayLike | None = None) -> NDArray[np.int8] | NDArray[np.uint8]:
    r"""Vectors as codes of 8 bits or of one bit per column: a quarter, or a thirty-second, of the memory.

    .. math:: c = \left\lfloor 255 \frac{x - l}{h - l} \right\rfloor - 128 \text{ in } [-128, 127], \qquad
        b = [x > 0]

    with the least and greatest value l, h of each column. Bits are packed, eight to a byte, the first column in the
    highest bit. The codes are those of ``quantize_embeddings`` of sentence-transformers, to the bit.

    Parameters
    ----------
    x : array of shape (n, d)
        Of any real type, also an ``np.memmap``; n may be 0.
    precision : {"int8", "uint8", "binary", "ubinary"}
        "uint8" is "int8" without the 128. "ubinary" has bytes of bits, and "binary" has 128 less in each.
    ranges : array of shape (2, d), optional
        l and h of each column, for "int8" and "uint8": ``[x.min(axis=0), x.max(axis=0)]`` of vectors as those to
        come. Values beyond them have the code of the nearer end. None: those of x.

    Returns
    -------
    int8 or uint8 array of shape (n, d), or (n, ⌈d/8⌉) of bits

    Raises
    ------
    TypeError
        If x is not of real numbers.
    ValueError
        If shapes do not fit, something is not finite, there is no such precision, or x has no row and no ranges.

    References
    ----------
    Jégou, Douze & Schmid (2011), Product Quantization for Nearest Neighbor Search, IEEE TPAMI 33(1), for codes and
    the comparison of queries in floating point with them.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> x = np.array([[0.0, -1.0], [100.0, 1.0], [255.0, 254.0]], np.float32)
    >>> rt.quantize(x, "int8")
    array([[-128, -128],
           [ -28, -126],
           [ 127,  127]], dtype=int8)
    >>> rt.quantize(x, "ubinary").ravel() >> 6  # of each row the bits of both columns
    array([0, 3, 3], dtype=uint8)
    """
    check.choice("precision", precision, PRECISIONS)
    rows = np.asarray(x)
    dtype = check.computed_dtype("x", rows)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"x must have shape (n, d) with d ≥ 1, got {rows.shape}")
    of_bits = precision.endswith("binary")
    if not of_bits:
        if ranges is None and not len(rows):
            raise ValueError("ranges must be given where x has no row")
        if ranges is None:
            ranges = np.stack([rows.min(axis=0), rows.max(axis=0)])
            if not np.isfinite(ranges).all():
                check.finite("x", rows)
        low, high = checked_ranges(ranges, rows.shape[1])
        steps = (high - low) / 255
        steps = np.where(steps == 0, 1, steps)
    offset = 0 if precision.startswith("u") else 128
    kind: Any = np.uint8 if precision.startswith("u") else np.int8
    out = np.empty((len(rows), -(-rows.shape[1] // 8) if of_bits else rows.shape[1]), kind)
    together = max(1, _QUANTIZED_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), together):
        block = np.asarray(rows[start : start + together], dtype)
        check.finite("x", block)
        if of_bits:
            bits = np.packbits(block > 0, axis=1)
            out[start : start + together] = (bits ^ np.uint8(offset)).view(kind)
        else:
            values = np.clip(np.floor((block - low) / steps), 0, 255)
            out[start : start + together] = (values - offset).astype(kind)
    return out


def checked_ranges(ranges: ArrayLike, dim: int, name: str = "ranges") -> NDArray[np.float32]:
    """Least and greatest value of each column, of shape (2, dim); errors name the argument `name`."""
    found = np.asarray(ranges)
    check.same_shape(name, found, "the least and greatest value of each column", (2, dim))
    found = check.readable(found, check.computed_dtype(name, found)).astype(np.float32)
    check.finite(name, found)
    if (found[0] > found[1]).any():
        column = int(np.argmax(found[0] > found[1]))
        raise ValueError(f"{name} must not descend, got {found[0, column]} to {found[1, column]} in column {column}")
    return found
