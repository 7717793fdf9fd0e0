"""Stochastic gradient descent."""

from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers import _sgd_kernels as kernels
from rvtrain.optimizers._arrays import Params
from rvtrain.optimizers._base import Groups, Optimizer
from rvtrain.optimizers._rows import Gradient, Idle, by_table
from rvtrain.optimizers._state import as_table, blocks_of, compact, flat, noise


class SGD(Optimizer):
    r"""Stochastic gradient descent with momentum; the semantics of ``torch.optim.SGD``.

    .. math::
        g &\leftarrow g + λ p, \qquad
        b \leftarrow \begin{cases} g & \text{at the first step} \\ μ b + (1 - d) g & \text{afterwards} \end{cases} \\
        p &\leftarrow p - η \cdot \begin{cases} g + μ b & \text{Nesterov} \\ b & \text{otherwise} \end{cases}

    Parameters
    ----------
    params : int, tuple of int, array, or dict of these
        The parameters' shapes: a length, a shape, or an array, of which only the shape is read.
    lr : float
        η ≥ 0; readable and settable as `learning_rate`.
    momentum : float
        μ ≥ 0; 0: no momentum, and no state.
    dampening : float
        d; 0 if `nesterov`.
    weight_decay : float
        λ ≥ 0, as L2 in the gradient.
    nesterov : bool
        Nesterov momentum: the step is that of g + μ b; requires μ > 0.
    maximize : bool
        Ascend: the gradient is negated.
    lazy : {"idle", "exact"}
        Treatment of the rows that ``step(..., rows=...)`` does not name. "idle": they keep their values and state.
        "exact": they get the same steps with gradient zero as in a dense step, made up for when the row is next
        named, or by `catch_up`.
    state_dtype : {"float32", "bfloat16", "int8"}
        Storage of the momentum. "float32": in the dtype of the parameters. "bfloat16": in 16 bits, rounded at random
        so that the mean is right. "int8": in 8 bits, with a scale for each block of 256 elements of a row. Steps are
        computed in the dtype of the parameters.
    nonfinite : {"raise", "skip", "ignore"}
        Treatment of a gradient with a NaN or an infinity. "raise": ValueError. "skip": the step changes nothing, and
        is counted in `skipped`. "ignore": as in torch, the step computes with it; gradients are not checked, which
        saves one pass that reads them.
    groups : dict of dicts, optional
        Other options for single arrays of a dict, as ``{"bias": {"weight_decay": 0.0}}``. A group's lr keeps its
        ratio to `learning_rate`.

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

    _options: tuple[str, ...] = (
        "momentum",
        "dampening",
        "weight_decay",
        "nesterov",
        "maximize",
        "lazy",
        "state_dtype",
        "nonfinite",
        "groups",
    )
    _sign = 4

    def __init__(
        self,
        params: Params,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
        *,
        lazy: str = "idle",
        state_dtype: str = "float32",
        nonfinite: str = "raise",
        groups: Groups | None = None,
    ) -> None:
        super().__init__(
            params, lr, maximize=maximize, lazy=lazy, state_dtype=state_dtype, nonfinite=nonfinite, groups=groups
        )
        self.momentum = check.number("momentum", momentum, low=0.0)
        self.dampening = check.number("dampening", dampening)
        self.weight_decay = check.number("weight_decay", weight_decay, low=0.0)
        self.nesterov = check.flag("nesterov", nesterov)
        if self.nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            raise ValueError("nesterov needs momentum > 0 and dampening = 0")
        self._buffers = ("momentum_buffer",) if self.momentum else ()
        self._make_rules()

    def _constants(self, step: int) -> np.ndarray:
        sign = -1.0 if self.maximize else 1.0
        rule = (self.momentum, 1.0 - self.dampening, self.weight_decay, sign)
        return np.array([self.learning_rate, *rule, float(self.nesterov), float(step == 1)])

    def _apply(
        self,
        p: np.ndarray,
        g: Gradient,
        state: dict[str, Any],
        c: np.ndarray,
        idle: Idle | None,
        name: str,
        wipe: bool,
    ) -> None:
        if idle is not None:
            self._missed(p, g.rows, state, idle, name)
        work = 8 * (len(g.rows) * p.shape[1] if len(g.rows) else p.size)
        if self._buffers and self.state_dtype != "float32":
            (codes,), scales = compact(state, self._buffers, p.shape)
            table = as_table(p)
            kernels.sgd_compact.sized(work)(
                blocks_of(table, g.rows, codes),
                table,
                by_table(g),
                codes,
                scales,
                c,
                noise(name, state["step"]),
                wipe,
            )
        elif len(g.rows):
            kernels.sgd_rows.sized(work)(len(g.rows), p, g, self._buffer(state), c)
        else:
            values, gradient = flat(p, g.given)
            b = state["momentum_buffer"].reshape(-1) if self._buffers else None
            kernels.sgd_dense.sized(2 * p.size)(p.size, values, gradient, b, c, wipe)

    def _missed(self, p: np.ndarray, rows: np.ndarray, state: dict[str, Any], idle: Idle, name: str) -> None:
        if not len(idle.history):
            return
        table = np.empty((len(idle.history), kernels.COLUMNS))
        kernels.idle_table.serial(idle.history, bool(self._buffers), table)
        work = 8 * len(rows) * p.shape[1]
        if self._buffers and self.state_dtype != "float32":
            (codes,), scales = compact(state, self._buffers, p.shape)
            kernels.sgd_compact_missed.sized(work)(
                len(rows),
                p,
                rows,
                codes,
                scales,
                idle.first,
                table,
                noise(name, state["step"], idle=True),
            )
        else:
            kernels.sgd_missed.sized(work)(len(rows), p, rows, self._buffer(state), idle.first, table)

    def _buffer(self, state: dict[str, Any]) -> np.ndarray | None:
        return state["momentum_buffer"] if self._buffers else None
