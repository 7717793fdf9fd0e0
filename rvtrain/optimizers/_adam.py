"""Adam and AdamW."""

import math
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers import _adam_kernels as kernels
from rvtrain.optimizers._base import Optimizer


class Adam(Optimizer):
    r"""Adam, with weight decay as L2 in the gradient; the semantics of ``torch.optim.Adam``.

    .. math::
        g &\leftarrow g + λ p, \qquad
        m \leftarrow β_1 m + (1 - β_1) g, \qquad v \leftarrow β_2 v + (1 - β_2) g^2 \\
        p &\leftarrow p - η \, \frac{m / (1 - β_1^t)}{\sqrt{v / (1 - β_2^t)} + ε}

    Parameters
    ----------
    params : int, shape, array, or dict of these
        What will be optimised, by its shape: a length, a shape, or an array (which is not kept).
    lr : float
        η ≥ 0; readable and settable as `learning_rate`.
    betas : tuple of two floats
        β₁ and β₂ in [0, 1).
    eps : float
        ε ≥ 0, added to the corrected root.
    weight_decay : float
        λ ≥ 0.
    amsgrad : bool
        Use the largest v so far in the denominator.
    maximize : bool
        Ascend: the gradient is negated.
    lazy : {"idle", "exact"}
        What rows not named in ``step(..., rows=...)`` do: nothing, as in ``torch.optim.SparseAdam``; or, once
        they are touched, all that whole steps with zero gradients would have done to them.

    References
    ----------
    Kingma & Ba (2015), Adam: A Method for Stochastic Optimization, arXiv:1412.6980.
    Reddi, Kale & Kumar (2018), On the Convergence of Adam and Beyond (AMSGrad).

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> params = np.array([1.0, 2.0])
    >>> optimizer = rt.Adam(params, lr=0.1)
    >>> optimizer.step(params, np.array([0.5, -3.0]))
    >>> params.round(6)
    array([0.9, 2.1])
    """

    _options: tuple[str, ...] = ("betas", "eps", "weight_decay", "amsgrad", "maximize", "lazy")
    _sign = 7

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        maximize: bool = False,
        *,
        lazy: str = "idle",
    ) -> None:
        super().__init__(params, lr, maximize, lazy)
        if not isinstance(betas, tuple) or len(betas) != 2:
            raise TypeError(f"betas must be a tuple of two numbers, got {betas!r}")
        first, second = (
            check.number(f"betas[{i}]", b, low=0.0, high=1.0, open_high=True) for i, b in enumerate(betas)
        )
        self.betas = (first, second)
        self.eps = check.number("eps", eps, low=0.0)
        self.weight_decay = check.number("weight_decay", weight_decay, low=0.0)
        self.amsgrad = check.flag("amsgrad", amsgrad)
        self._buffers = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if self.amsgrad else ("exp_avg", "exp_avg_sq")

    def _decays(self) -> tuple[float, float]:
        """The L2 term in the gradient, and what the parameters are multiplied by."""
        return self.weight_decay, 1.0

    def _constants(self, step: int) -> np.ndarray:
        b1, b2 = self.betas
        rate = self.learning_rate / (1.0 - b1**step)
        root = math.sqrt(1.0 - b2**step)
        return np.array([rate, root, b1, b2, self.eps, *self._decays(), -1.0 if self.maximize else 1.0])

    def _tops(self, buffers: list[np.ndarray]) -> list[np.ndarray]:
        return buffers if self.amsgrad else [*buffers, buffers[0][:0]]

    def _dense(self, p: np.ndarray, g: np.ndarray, buffers: list[np.ndarray], c: np.ndarray, wipe: bool) -> None:
        kernels.adam_dense.sized(4 * p.size)(p, g, *self._tops(buffers), c, wipe)

    def _rows(
        self, table: np.ndarray, sums: np.ndarray, rows: np.ndarray, buffers: list[np.ndarray], c: np.ndarray
    ) -> None:
        kernels.adam_rows.sized(20 * sums.size)(table, sums, rows, *self._tops(buffers), c)

    def _missed(
        self,
        table: np.ndarray,
        rows: np.ndarray,
        buffers: list[np.ndarray],
        first: np.ndarray,
        history: np.ndarray,
    ) -> None:
        work = 20 * int((len(history) - first).sum()) * table.shape[1]
        kernels.adam_missed.sized(work)(table, rows, *self._tops(buffers), first, history)


class AdamW(Adam):
    r"""Adam with decoupled weight decay; the semantics of ``torch.optim.AdamW``.

    .. math:: p \leftarrow (1 - η λ)\, p, \qquad \text{then a step of Adam without decay.}

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, maximize, lazy
        As in `Adam`.
    weight_decay : float
        λ ≥ 0.

    References
    ----------
    Loshchilov & Hutter (2019), Decoupled Weight Decay Regularization, arXiv:1711.05101.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> params = {"weight": np.ones((2, 2)), "bias": np.zeros(2)}
    >>> optimizer = rt.AdamW(params, lr=0.1, weight_decay=0.5)
    >>> optimizer.step(params, {"weight": np.zeros((2, 2)), "bias": np.ones(2)})
    >>> params["weight"][0, 0].round(6), params["bias"].round(6)
    (np.float64(0.95), array([-0.1, -0.1]))
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        amsgrad: bool = False,
        maximize: bool = False,
        *,
        lazy: str = "idle",
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize, lazy=lazy)

    def _decays(self) -> tuple[float, float]:
        return 0.0, 1.0 - self.learning_rate * self.weight_decay
