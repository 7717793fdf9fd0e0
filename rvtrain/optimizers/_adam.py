"""Adam and AdamW."""

import math
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers import _adam_compact_kernels as compact_kernels
from rvtrain.optimizers import _adam_kernels as kernels
from rvtrain.optimizers._arrays import Params
from rvtrain.optimizers._base import Groups, Optimizer
from rvtrain.optimizers._rows import Gradient, Idle, by_table
from rvtrain.optimizers._state import as_table, blocks_of, compact, flat, noise


class Adam(Optimizer):
    r"""Adam, with weight decay as L2 in the gradient; the semantics of ``torch.optim.Adam``.

    .. math::
        g &\leftarrow g + λ p, \qquad
        m \leftarrow β_1 m + (1 - β_1) g, \qquad v \leftarrow β_2 v + (1 - β_2) g^2 \\
        p &\leftarrow p - η \, \frac{m / (1 - β_1^t)}{\sqrt{v / (1 - β_2^t)} + ε}

    Parameters
    ----------
    params : int, tuple of int, array, or dict of these
        The parameters' shapes: a length, a shape, or an array, of which only the shape is read.
    lr : float
        η ≥ 0; readable and settable as `learning_rate`.
    betas : tuple of two floats
        β₁ and β₂ in [0, 1).
    eps : float
        ε ≥ 0, added to the root of the corrected v.
    weight_decay : float
        λ ≥ 0.
    amsgrad : bool
        AMSGrad: the largest v so far takes the place of v in the denominator.
    maximize : bool
        Ascend: the gradient is negated.
    lazy : {"idle", "exact"}
        Treatment of the rows that ``step(..., rows=...)`` does not name. "idle": they keep their values and state,
        as in ``torch.optim.SparseAdam``. "exact": they get the same steps with gradient zero as in a dense step,
        made up for when the row is next named, or by `catch_up`.
    state_dtype : {"float32", "bfloat16", "int8"}
        Storage of the moments. "float32": in the dtype of the parameters. "bfloat16": in 16 bits, rounded at random
        so that the mean is right. "int8": in 8 bits, with a scale for each block of 256 elements of a row. Steps are
        computed in the dtype of the parameters. In 8 bits, v may exceed the rest of its block by a factor of 2¹⁰
        more in each step, and m in proportion to √v, so that one huge gradient costs the other elements of its block
        no more than some precision.
    nonfinite : {"raise", "skip", "ignore"}
        Treatment of a gradient with a NaN or an infinity. "raise": ValueError. "skip": the step changes nothing, and
        is counted in `skipped`. "ignore": as in torch, the step computes with it; gradients are not checked, which
        saves one pass that reads them.
    groups : dict of dicts, optional
        Other options for single arrays of a dict, as ``{"bias": {"weight_decay": 0.0}}``. A group's lr keeps its
        ratio to `learning_rate`.

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

    _options: tuple[str, ...] = (
        "betas",
        "eps",
        "weight_decay",
        "amsgrad",
        "maximize",
        "lazy",
        "state_dtype",
        "nonfinite",
        "groups",
    )
    _positive = ("exp_avg_sq", "max_exp_avg_sq")
    _sign = 7

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
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
        self._make_rules()

    def _decays(self) -> tuple[float, float]:
        """The factor of the L2 term in the gradient, and the factor of the parameters."""
        return self.weight_decay, 1.0

    def _constants(self, step: int) -> np.ndarray:
        b1, b2 = self.betas
        rate = self.learning_rate / (1.0 - b1**step)
        root = math.sqrt(1.0 - b2**step)
        return np.array([rate, root, b1, b2, self.eps, *self._decays(), -1.0 if self.maximize else 1.0])

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
        if self.state_dtype == "float32" and not len(g.rows):
            values, gradient, m, v = flat(p, g.given, state["exp_avg"], state["exp_avg_sq"])
            top = state["max_exp_avg_sq"].reshape(-1) if self.amsgrad else None
            kernels.adam_dense.sized(4 * p.size)(p.size, values, gradient, m, v, top, c, wipe)
            return
        work = 20 * (len(g.rows) * p.shape[1] if len(g.rows) else p.size)
        if self.state_dtype == "float32":
            missed = (None, None, None) if idle is None else (*idle, self._idle_table(idle.history, p))
            kernels.adam_rows.sized(work)(len(g.rows), p, g, *self._tables(state), c, *missed)
            return
        if idle is not None:
            self._missed(p, g.rows, state, idle, name)
        codes, scales = compact(state, self._buffers, p.shape)
        table = as_table(p)
        compact_kernels.adam_compact.sized(work)(
            blocks_of(table, g.rows, codes[0]),
            table,
            by_table(g),
            codes,
            scales,
            c,
            noise(name, state["step"]),
            wipe,
        )

    def _missed(self, p: np.ndarray, rows: np.ndarray, state: dict[str, Any], idle: Idle, name: str) -> None:
        first, history = idle
        if not len(history):
            return
        table = self._idle_table(history, p)
        work = 20 * len(rows) * p.shape[1]
        if self.state_dtype == "float32":
            kernels.adam_missed.sized(work)(len(rows), p, rows, *self._tables(state), first, history, table)
        else:
            codes, scales = compact(state, self._buffers, p.shape)
            compact_kernels.adam_compact_missed.sized(work)(
                len(rows), p, rows, codes, scales, first, history, table, noise(name, state["step"], idle=True)
            )

    def _idle_table(self, history: np.ndarray, p: np.ndarray) -> np.ndarray:
        table = np.empty((len(history), kernels.COLUMNS))
        if len(history):
            left_out = 0.1 * float(np.finfo(p.dtype).eps)  # a tenth of the rounding of the movement
            kernels.idle_table.serial(history, self.amsgrad, left_out, table)
        return table

    def _tables(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        return state["exp_avg"], state["exp_avg_sq"], state["max_exp_avg_sq"] if self.amsgrad else None


class AdamW(Adam):
    r"""Adam with decoupled weight decay; the semantics of ``torch.optim.AdamW``.

    .. math:: p \leftarrow (1 - η λ)\, p, \qquad \text{then a step of Adam without decay.}

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, maximize, lazy, state_dtype, nonfinite, groups
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
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        amsgrad: bool = False,
        maximize: bool = False,
        *,
        lazy: str = "idle",
        state_dtype: str = "float32",
        nonfinite: str = "raise",
        groups: Groups | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize,
            lazy=lazy,
            state_dtype=state_dtype,
            nonfinite=nonfinite,
            groups=groups,
        )

    def _decays(self) -> tuple[float, float]:
        return 0.0, 1.0 - self.learning_rate * self.weight_decay
