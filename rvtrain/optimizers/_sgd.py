"""Stochastic gradient descent."""

from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers import _sgd_kernels as kernels
from rvtrain.optimizers._base import Optimizer


class SGD(Optimizer):
    r"""Stochastic gradient descent with momentum; the semantics of ``torch.optim.SGD``.

    .. math::
        g &\leftarrow g + λ p, \qquad
        b \leftarrow \begin{cases} g & \text{at the first step} \\ μ b + (1 - d) g & \text{afterwards} \end{cases} \\
        p &\leftarrow p - η \cdot \begin{cases} g + μ b & \text{Nesterov} \\ b & \text{otherwise} \end{cases}

    Parameters
    ----------
    params : int, shape, array, or dict of these
        What will be optimised, by its shape: a length, a shape, or an array (which is not kept).
    lr : float
        η ≥ 0; readable and settable as `learning_rate`.
    momentum : float
        μ ≥ 0; 0: none.
    dampening : float
        d, which Nesterov momentum requires to be 0.
    weight_decay : float
        λ ≥ 0, as L2 in the gradient.
    nesterov : bool
        Look ahead; requires momentum.
    maximize : bool
        Ascend: the gradient is negated.
    lazy : {"idle", "exact"}
        What rows not named in ``step(..., rows=...)`` do: nothing; or, once they are touched, all that whole
        steps with zero gradients would have done to them.

    References
    ----------
    Sutskever, Martens, Dahl & Hinton (2013), On the importance of initialization and momentum in deep
    learning, ICML.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> params = np.array([1.0, 2.0])
    >>> optimizer = rt.SGD(params, lr=0.1, momentum=0.9)
    >>> optimizer.step(params, np.array([1.0, 0.0]))
    >>> optimizer.step(params, np.array([1.0, 0.0]))
    >>> params.round(6)
    array([0.71, 2.  ])
    """

    _options: tuple[str, ...] = ("momentum", "dampening", "weight_decay", "nesterov", "maximize", "lazy")
    _sign = 4

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
        *,
        lazy: str = "idle",
    ) -> None:
        super().__init__(params, lr, maximize, lazy)
        self.momentum = check.number("momentum", momentum, low=0.0)
        self.dampening = check.number("dampening", dampening)
        self.weight_decay = check.number("weight_decay", weight_decay, low=0.0)
        self.nesterov = check.flag("nesterov", nesterov)
        if self.nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            raise ValueError("nesterov needs momentum > 0 and dampening = 0")
        self._buffers = ("momentum_buffer",) if self.momentum else ()

    def _constants(self, step: int) -> np.ndarray:
        sign = -1.0 if self.maximize else 1.0
        rule = (self.momentum, 1.0 - self.dampening, self.weight_decay, sign)
        return np.array([self.learning_rate, *rule, float(self.nesterov), float(step == 1)])

    def _dense(self, p: np.ndarray, g: np.ndarray, buffers: list[np.ndarray], c: np.ndarray, wipe: bool) -> None:
        kernels.sgd_dense.sized(2 * p.size)(p, g, buffers[0] if buffers else p[:0], c, wipe)

    def _rows(
        self, table: np.ndarray, sums: np.ndarray, rows: np.ndarray, buffers: list[np.ndarray], c: np.ndarray
    ) -> None:
        kernels.sgd_rows.sized(8 * sums.size)(table, sums, rows, buffers[0] if buffers else table[:0], c)

    def _missed(
        self,
        table: np.ndarray,
        rows: np.ndarray,
        buffers: list[np.ndarray],
        first: np.ndarray,
        history: np.ndarray,
    ) -> None:
        work = 8 * int((len(history) - first).sum()) * table.shape[1]
        kernels.sgd_missed.sized(work)(table, rows, buffers[0] if buffers else table[:0], first, history)
