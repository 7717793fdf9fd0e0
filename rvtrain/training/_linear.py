"""A linear map of embeddings."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._matmul import product, product_with_transpose, transposed_product
from rvtrain.training._adapters import Adapter, Saved, random_weight
from rvtrain.training._models import Floats, Params


class LinearAdapter(Adapter):
    r"""A linear map of embeddings, that starts as the identity where it can.

    .. math:: f(x) = x W + b, \qquad f(x) = x + x W + b \text{ with a residual}, \qquad W = A B \text{ at low rank}

    With a residual, W (or B) starts at zero, so that weight decay pulls towards the identity; without, W is random.

    Parameters
    ----------
    in_features : int
    out_features : int, optional
        None: as many.
    rank : int, optional
        W = A B with A (in_features, rank) and B (rank, out_features).
    bias : bool
    residual : bool, optional
        None: where both sizes are equal.
    seed : int
    dtype : float32 or float64

    Attributes
    ----------
    params : dict of arrays
        ``weight``, or ``down`` and ``up``; ``bias``.

    References
    ----------
    Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models, ICLR, for the low rank.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> adapter = rt.LinearAdapter(3)
    >>> x = np.array([[1.0, 2.0, 3.0]], np.float32)
    >>> y, saved = adapter.forward(x)
    >>> y
    array([[1., 2., 3.]], dtype=float32)
    >>> adapter.backward(saved, np.ones_like(y))["weight"]
    array([[1., 1., 1.],
           [2., 2., 2.],
           [3., 3., 3.]], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int | None = None,
        *,
        rank: int | None = None,
        bias: bool = False,
        residual: bool | None = None,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._begin(in_features, out_features, residual, dtype)
        self.rank = None if rank is None else check.integer("rank", rank, low=1)
        self.bias = check.flag("bias", bias)
        rng = np.random.default_rng(check.integer("seed", seed, low=0))
        if self.rank is None:
            self.params = {"weight": self._start(rng, self.in_features, self.out_features, self.residual)}
        else:
            self.params = {
                "down": self._start(rng, self.in_features, self.rank, False),
                "up": self._start(rng, self.rank, self.out_features, self.residual),
            }
        if self.bias:
            self.params["bias"] = np.zeros(self.out_features, self.dtype)

    def __repr__(self) -> str:
        return (
            f"LinearAdapter({self.in_features}, {self.out_features}, rank={self.rank}, bias={self.bias}, "
            f"residual={self.residual})"
        )

    def _start(self, rng: np.random.Generator, high: int, wide: int, zero: bool) -> Floats:
        return np.zeros((high, wide), self.dtype) if zero else random_weight(rng, high, wide, self.dtype)

    def _forward(self, x: Floats, rows: NDArray[np.int64] | None) -> tuple[Floats, Saved]:
        inner: tuple[Floats, ...] = ()
        if self.rank is None:
            y = product(x, rows, self.params["weight"], residual=self.residual)
        else:
            inner = (product(x, rows, self.params["down"]),)
            y = product(inner[0], None, self.params["up"])
            if self.residual:
                y += x if rows is None else x[rows]
        if self.bias:
            y += self.params["bias"]
        return y, Saved(x, rows, inner)

    def _backward(self, saved: Saved, grad: Floats, to_input: bool) -> tuple[Params, Floats | None]:
        x, rows, inner = saved
        back: Any = None
        if self.rank is None:
            grads = {"weight": transposed_product(x, rows, grad)}
            if to_input:
                back = product_with_transpose(grad, self.params["weight"], residual=self.residual)
        else:
            to_inner = product_with_transpose(grad, self.params["up"])
            grads = {
                "down": transposed_product(x, rows, to_inner),
                "up": transposed_product(inner[0], None, grad),
            }
            if to_input:
                back = product_with_transpose(to_inner, self.params["down"])
                if self.residual:
                    back += grad
        if self.bias:
            grads["bias"] = grad.sum(axis=0)
        return grads, back
