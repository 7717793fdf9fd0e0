"""Small maps from embeddings to better ones, with analytic gradients."""

from typing import Any, NamedTuple

import numpy as np

from rvtrain import _validation as check
from rvtrain._engine._matmul import product, product_with_transpose, transposed_product
from rvtrain.training import _adapter_kernels as kernels

_BLOCK_ROWS = 4096


class Saved(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    x: np.ndarray
    rows: np.ndarray | None
    inner: tuple[np.ndarray, ...] = ()


class Adapter:
    """Base of the adapters: their parameters, and what is the same for all."""

    params: dict[str, np.ndarray]
    in_features: int
    out_features: int

    def _begin(self, in_features: int, out_features: int | None, residual: bool | None, dtype: Any) -> None:
        self.in_features = check.integer("in_features", in_features, low=1)
        self.out_features = check.integer(
            "out_features", in_features if out_features is None else out_features, low=1
        )
        same = self.in_features == self.out_features
        self.residual = same if residual is None else check.flag("residual", residual)
        if self.residual and not same:
            raise ValueError(f"residual needs in_features == out_features, got {in_features} and {out_features}")
        self.dtype = np.dtype(dtype)
        if self.dtype.type not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {self.dtype}")

    def forward(self, x: Any, rows: Any = None) -> tuple[np.ndarray, Saved]:
        """The outputs for x[rows], and what `backward` needs.

        Parameters
        ----------
        x : array of shape (n, in_features)
            A table of any real type, of which only the rows asked for are read and converted to the adapter's dtype.
        rows : integer array of shape (m,), optional
            None: all.

        Returns
        -------
        array of shape (m, out_features), and an object for `backward`

        Raises
        ------
        TypeError, ValueError
            If x or rows are not that.
        """
        table = check.stored_array("x", x, 2)
        if table.shape[1] != self.in_features:
            raise ValueError(f"x must have shape (n, {self.in_features}), got {table.shape}")
        if rows is not None:
            rows = check.indices("rows", rows, (None,), len(table))
            if not len(rows):
                raise ValueError("rows must not be empty")
        if table.dtype != self.dtype:
            table, rows = (table if rows is None else table[rows]).astype(self.dtype), None
        return self._forward(table, rows)

    def backward(self, saved: Saved, grad: Any) -> dict[str, np.ndarray]:
        """Gradients to the parameters, from the gradient to the outputs of `forward`.

        Parameters
        ----------
        saved
            As `forward` returned it.
        grad : array of shape (m, out_features)

        Returns
        -------
        dict of arrays, with the keys and shapes of `params`
        """
        g = np.ascontiguousarray(check.float_array("grad", grad, 2), self.dtype)
        count = len(saved.x if saved.rows is None else saved.rows)
        check.same_shape("grad", g, "the outputs", (count, self.out_features))
        return self._backward(saved, g)

    def transform(self, x: Any) -> np.ndarray:
        """The outputs for all of x, (n, out_features), a block at a time; x as in `forward`, and may have no row."""
        table = np.asanyarray(x)
        if table.ndim != 2 or table.shape[1] != self.in_features:
            raise ValueError(f"x must have shape (n, {self.in_features}), got {table.shape}")
        check.computed_dtype("x", table)
        out = np.empty((len(table), self.out_features), self.dtype)
        for start in range(0, len(table), _BLOCK_ROWS):
            out[start : start + _BLOCK_ROWS], _ = self.forward(table[start : start + _BLOCK_ROWS])
        return out

    def _forward(self, x: np.ndarray, rows: np.ndarray | None) -> tuple[np.ndarray, Saved]:
        raise NotImplementedError

    def _backward(self, saved: Saved, grad: np.ndarray) -> dict[str, np.ndarray]:
        raise NotImplementedError


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
        dtype: Any = np.float32,
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

    def _start(self, rng: np.random.Generator, high: int, wide: int, zero: bool) -> np.ndarray:
        return np.zeros((high, wide), self.dtype) if zero else _random(rng, high, wide, self.dtype)

    def _forward(self, x: np.ndarray, rows: np.ndarray | None) -> tuple[np.ndarray, Saved]:
        inner: tuple[np.ndarray, ...] = ()
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

    def _backward(self, saved: Saved, grad: np.ndarray) -> dict[str, np.ndarray]:
        x, rows, inner = saved
        if self.rank is None:
            grads = {"weight": transposed_product(x, rows, grad)}
        else:
            to_inner = product_with_transpose(grad, self.params["up"])
            grads = {
                "down": transposed_product(x, rows, to_inner),
                "up": transposed_product(inner[0], None, grad),
            }
        if self.bias:
            grads["bias"] = grad.sum(axis=0)
        return grads


class MLPAdapter(Adapter):
    r"""A map with one hidden layer: normalised, then GELU.

    .. math:: f(x) = [x +]\; \mathrm{GELU}(\hat x W_1 + b_1)\, W_2 + b_2, \qquad
        \hat x = \gamma \frac{x - \bar x}{\sqrt{\mathrm{var}(x) + 10^{-5}}} + \beta

    with :math:`\mathrm{GELU}(z) = \frac z2 (1 + \tanh(\sqrt{2/\pi}\,(z + 0.044715 z^3)))`, the form that the paper
    gives for speed (``approximate="tanh"`` in torch). With a residual, W₂ starts at zero, and f at the identity.

    Parameters
    ----------
    in_features : int
    out_features : int, optional
        None: as many.
    hidden : int, optional
        Width of the hidden layer. None: in_features.
    residual : bool, optional
        None: where both sizes are equal.
    seed : int
    dtype : float32 or float64

    Attributes
    ----------
    params : dict of arrays
        ``gain``, ``shift``, ``weight1``, ``bias1``, ``weight2``, ``bias2``.

    References
    ----------
    Hendrycks & Gimpel (2016), Gaussian Error Linear Units, arXiv:1606.08415.
    Ba, Kiros & Hinton (2016), Layer Normalization, arXiv:1607.06450.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> adapter = rt.MLPAdapter(4, hidden=8)
    >>> adapter.transform(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32))
    array([[1., 2., 3., 4.]], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int | None = None,
        *,
        hidden: int | None = None,
        residual: bool | None = None,
        seed: int = 0,
        dtype: Any = np.float32,
    ) -> None:
        self._begin(in_features, out_features, residual, dtype)
        self.hidden = check.integer("hidden", self.in_features if hidden is None else hidden, low=1)
        rng = np.random.default_rng(check.integer("seed", seed, low=0))
        last = (self.hidden, self.out_features)
        self.params = {
            "gain": np.ones(self.in_features, self.dtype),
            "shift": np.zeros(self.in_features, self.dtype),
            "weight1": _random(rng, self.in_features, self.hidden, self.dtype),
            "bias1": np.zeros(self.hidden, self.dtype),
            "weight2": np.zeros(last, self.dtype) if self.residual else _random(rng, *last, self.dtype),
            "bias2": np.zeros(self.out_features, self.dtype),
        }

    def __repr__(self) -> str:
        return f"MLPAdapter({self.in_features}, {self.out_features}, hidden={self.hidden}, residual={self.residual})"

    def _forward(self, x: np.ndarray, rows: np.ndarray | None) -> tuple[np.ndarray, Saved]:
        p = self.params
        table = np.ascontiguousarray(x if rows is None else x[rows])
        normal, scaled = np.empty_like(table), np.empty_like(table)
        kernels.layer_norm.sized(10 * table.size)(len(table), table, p["gain"], p["shift"], normal, scaled)
        z = product(scaled, None, p["weight1"])
        z += p["bias1"]
        h = np.empty_like(z)
        kernels.gelu.sized(30 * z.size)(len(z), z, h)
        y = product(h, None, p["weight2"])
        y += p["bias2"]
        if self.residual:
            y += table
        return y, Saved(table, None, (normal, scaled, z, h))

    def _backward(self, saved: Saved, grad: np.ndarray) -> dict[str, np.ndarray]:
        normal, scaled, z, h = saved.inner
        to_h = product_with_transpose(grad, self.params["weight2"])
        kernels.gelu_backward.sized(40 * z.size)(len(z), z, to_h)
        to_scaled = product_with_transpose(to_h, self.params["weight1"])
        return {
            "gain": (to_scaled * normal).sum(axis=0),
            "shift": to_scaled.sum(axis=0),
            "weight1": transposed_product(scaled, None, to_h),
            "bias1": to_h.sum(axis=0),
            "weight2": transposed_product(h, None, grad),
            "bias2": grad.sum(axis=0),
        }


def _random(rng: np.random.Generator, high: int, wide: int, dtype: np.dtype) -> np.ndarray:
    """Normal, such that outputs are about as long as inputs."""
    return (rng.normal(size=(high, wide)) / np.sqrt(high)).astype(dtype)
