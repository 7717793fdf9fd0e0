"""The global norm of gradients, and clipping by it."""

import math
from collections.abc import Mapping
from typing import NoReturn

import numpy as np

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain._kernels import Kernel, kernel, njit
from rvtrain.optimizers._arrays import Arrays, overlaps

_PIECE = 1 << 14
"""Elements of a partial sum: a fixed number, so that the order of a sum does not depend on the threads."""
SMALL = 10_000
"""Elements up to which NumPy's dot product is quicker than a call of a kernel; above it BLAS uses threads."""


def is_finite(x: np.ndarray) -> bool:
    """Whether a C-contiguous array holds no NaN and no infinity, in one pass at memory speed."""
    if x.size <= SMALL and math.isfinite(np.vdot(x, x)):  # unlike x.dot(x), it never warns
        return True
    return _sums(_zero_products, x) == 0.0


def clip_grad_norm(grads: Arrays, max_norm: float) -> float:
    r"""Scale gradients in place so that their global norm is at most `max_norm`.

    .. math:: g \leftarrow g \cdot \min\Big(1, \frac{c}{\|g\|_2 + 10^{-6}}\Big),
        \qquad \|g\|_2 = \sqrt{\textstyle\sum_{\text{all arrays}} g_i^2}

    as ``torch.nn.utils.clip_grad_norm_`` does; the norm is summed in float64.

    Parameters
    ----------
    grads : array of float32 or float64, or dict of arrays
        Changed in place.
    max_norm : float
        c > 0.

    Returns
    -------
    float
        The norm before clipping.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or cannot be changed in place.
    ValueError
        If `max_norm` ≤ 0, an array is read-only, or the norm is not finite; the arrays are unchanged then.

    References
    ----------
    Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, ICML.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> gradient = np.array([3.0, 4.0])
    >>> rt.clip_grad_norm(gradient, 1.0)
    5.0
    >>> gradient.round(4)
    array([0.6, 0.8])
    """
    max_norm = check.number("max_norm", max_norm, low=0.0, open_low=True)
    named = {f"grads[{k!r}]": v for k, v in grads.items()} if isinstance(grads, Mapping) else {"grads": grads}
    arrays = {name: check.writeable_array(name, value) for name, value in named.items()}
    total = 0.0
    for name, array in arrays.items():
        part = squares(np.ascontiguousarray(array))
        if not math.isfinite(part):
            refuse(name, array)
        total += part
    norm = math.sqrt(total)
    scale = max_norm / (norm + 1e-6)
    if scale < 1.0:
        if overlaps(list(arrays.values())):  # memory that two arrays share is scaled once
            for array, scaled in [(array, array * array.dtype.type(scale)) for array in arrays.values()]:
                array[...] = scaled
        else:
            for array in arrays.values():
                np.multiply(array, array.dtype.type(scale), out=array)
    return norm


def squares(x: np.ndarray) -> float:
    """Σ x² of a C-contiguous array, in float64; not finite if an element is not."""
    return _sums(_squares, x)


def refuse(name: str, x: np.ndarray) -> NoReturn:
    """Raise for an array whose sum of squares is not finite."""
    check.finite(name, x)
    raise NotFiniteError(f"{name} must have a norm that float64 can hold, got elements as large as {abs(x).max()}")


def _sums(pieces: Kernel, x: np.ndarray) -> float:
    flat = x.reshape(-1)
    partial = np.empty(-(-flat.size // _PIECE))
    pieces.sized(4 * flat.size)(len(partial), flat, partial)  # bound by memory, as a fresh gradient is in many caches
    return float(partial[0] if len(partial) == 1 else partial.sum())


@kernel
def _zero_products(start, stop, x, partial):
    """partial[p] = Σ 0 · x over piece p: 0, or NaN if anything in it is not finite; x (n,)."""
    for p in range(start, stop):
        partial[p] = _zero_product(x[p * _PIECE : (p + 1) * _PIECE])


@njit
def _zero_product(piece):
    zero = piece.dtype.type(0)
    total = zero
    for i in range(len(piece)):
        total += piece[i] * zero
    return total


@kernel
def _squares(start, stop, x, partial):
    """partial[p] = Σ x² over piece p, in float64; x (n,)."""
    for p in range(start, stop):
        partial[p] = _square(x[p * _PIECE : (p + 1) * _PIECE])


@njit
def _square(piece):
    total = 0.0
    for i in range(len(piece)):
        total += np.float64(piece[i]) * np.float64(piece[i])
    return total
