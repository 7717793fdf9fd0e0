"""A map of embeddings with one hidden layer."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._matmul import product, product_with_transpose, transposed_product
from rvtrain.training import _adapter_kernels as kernels
from rvtrain.training._adapters import Adapter, Saved, random_weight
from rvtrain.training._models import Floats, Params


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
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._begin(in_features, out_features, residual, dtype)
        self.hidden = check.integer("hidden", self.in_features if hidden is None else hidden, low=1)
        rng = np.random.default_rng(check.integer("seed", seed, low=0))
        last = (self.hidden, self.out_features)
        self.params = {
            "gain": np.ones(self.in_features, self.dtype),
            "shift": np.zeros(self.in_features, self.dtype),
            "weight1": random_weight(rng, self.in_features, self.hidden, self.dtype),
            "bias1": np.zeros(self.hidden, self.dtype),
            "weight2": np.zeros(last, self.dtype) if self.residual else random_weight(rng, *last, self.dtype),
            "bias2": np.zeros(self.out_features, self.dtype),
        }

    def __repr__(self) -> str:
        return f"MLPAdapter({self.in_features}, {self.out_features}, hidden={self.hidden}, residual={self.residual})"

    def _forward(self, x: Floats, rows: NDArray[np.int64] | None) -> tuple[Floats, Saved]:
        p = self.params
        table = check.readable(x if rows is None else x[rows])
        normal, scaled, inverses = np.empty_like(table), np.empty_like(table), np.empty(len(table), table.dtype)
        work = 10 * table.size
        kernels.layer_norm.sized(work)(len(table), table, p["gain"], p["shift"], normal, inverses, scaled)
        z = product(scaled, None, p["weight1"])
        z += p["bias1"]
        h = np.empty_like(z)
        kernels.gelu.sized(30 * z.size)(len(z), z, h)
        y = product(h, None, p["weight2"])
        y += p["bias2"]
        if self.residual:
            y += table
        return y, Saved(table, None, (normal, inverses, scaled, z, h))

    def _backward(self, saved: Saved, grad: Floats, to_input: bool) -> tuple[Params, Any]:
        normal, inverses, scaled, z, h = saved.inner
        to_h = product_with_transpose(grad, self.params["weight2"])
        kernels.gelu_backward.sized(40 * z.size)(len(z), z, to_h)
        to_scaled = product_with_transpose(to_h, self.params["weight1"])
        grads = {
            "gain": (to_scaled * normal).sum(axis=0),
            "shift": to_scaled.sum(axis=0),
            "weight1": transposed_product(scaled, None, to_h),
            "bias1": to_h.sum(axis=0),
            "weight2": transposed_product(h, None, grad),
            "bias2": grad.sum(axis=0),
        }
        if not to_input:
            return grads, None
        back = np.empty_like(to_scaled)
        work = 10 * back.size
        kernels.layer_norm_backward.sized(work)(len(back), to_scaled, self.params["gain"], normal, inverses, back)
        if self.residual:
            back += grad
        return grads, back
