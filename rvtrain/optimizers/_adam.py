"""Adam and AdamW."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rvtrain._kernels import njit
from rvtrain.optimizers import _array_rule as base
from rvtrain.optimizers._arrays import Params
from rvtrain.optimizers._base import Optimizer
from rvtrain.optimizers._options import Groups
from rvtrain.optimizers._rule import before, element, holds, idle, implements, implements_in_order


class Moments(NamedTuple):
    """The numbers of a step; those of a difference from 1 are computed before they are rounded."""

    eps: float
    b1: float
    n1: float
    """1 − β₁."""
    b2: float
    n2: float
    rate: float
    """lr / (1 − β₁ᵗ)."""
    root: float
    """√(1 − β₂ᵗ)."""
    inverse: float
    """1 / root."""
    decay: float
    """L2 decay."""
    shrink: float
    """1 − lr · decoupled decay."""
    sign: float


@implements_in_order(element, Moments)
def _(c, p, g, buffers):
    g = c.sign * g + c.decay * p
    m = c.b1 * buffers[0] + c.n1 * g
    v = largest = c.b2 * buffers[1] + c.n2 * g * g
    if len(buffers) == 3:
        largest = v if v > buffers[2] else buffers[2]
    p = c.shrink * p - c.rate * m / (np.sqrt(largest) * c.inverse + c.eps)
    if len(buffers) == 2:
        return p, (m, v)
    return p, (m, v, largest)


class Series(NamedTuple):
    """Idle steps: m and v only shrink, and with x = √v / root after step s,

        p ← D p − (m / √v) (S₀ − (ε/√v) S₁ + (ε/√v)² S₂ − …)        from 1 / (x + ε) = 1/x − ε/x² + ε²/x³ − …

    with sums S over the steps that do not depend on the element. S₃ bounds the remainder of the series. Where that is
    too large, and under L2 decay, the series does not hold. Under AMSGrad the largest v takes the place of v.
    """

    amsgrad: float
    left_out: float
    """The fraction of the movement that the series may leave out."""
    b1: float = 1.0
    b2: float = 1.0
    shrink: float = 1.0
    """D."""
    s0: float = 0.0
    s1: float = 0.0
    """ε S₁, and so on."""
    s2: float = 0.0
    s3: float = 0.0
    least: float = 0.0
    """The least v for which the series holds, with (ε/√v)³ S₃ / S₀ ≤ left_out."""
    decays: float = 0.0
    """Above 0 under L2 decay."""


@implements(before, Series)
def _(total, c):
    x = (
        1.0 if total.amsgrad > 0.0 else np.sqrt(c.b2)
    )  # a step multiplies √v by this, and leaves the largest v as it is
    now = total.shrink * c.rate * c.b1
    s0 = (now * c.root + c.b1 * total.s0) / x
    s1 = (now * c.root**2 * c.eps + c.b1 * total.s1) / x**2
    s2 = (now * (c.root * c.eps) ** 2 * c.root + c.b1 * total.s2) / x**3
    s3 = (now * (c.root * c.eps) ** 3 * c.root + c.b1 * total.s3) / x**4
    least = (s3 / s0 / total.left_out) ** (2.0 / 3.0) if s0 > 0.0 else 0.0  # no v exceeds NaN or infinity
    b1, b2, shrink = total.b1 * c.b1, total.b2 * c.b2, total.shrink * c.shrink
    return Series(total.amsgrad, total.left_out, b1, b2, shrink, s0, s1, s2, s3, least, total.decays + c.decay)


@implements(holds, Series)
def _(total, buffers):
    largest = buffers[len(buffers) - 1]
    return ((largest > total.least) | (buffers[0] == 0)) & (total.decays == 0)


@implements(idle, Series)
def _(total, p, buffers):
    return _idle(total, p, buffers)


@njit
def _idle(total, p, buffers):
    m, largest = buffers[0], buffers[len(buffers) - 1]
    zero, one = type(p)(0), type(p)(1)
    inverse = one / np.sqrt(largest) if largest > zero else zero
    p = total.shrink * p - m * inverse * (total.s0 - inverse * (total.s1 - inverse * total.s2))
    return p, (m * total.b1, buffers[1] * total.b2, *buffers[2:])


class Rule(base.Rule):
    constants, buffers = Moments, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    positive = buffers[1:]

    def names(self, o: Any) -> tuple[str, ...]:
        return self.buffers if o.amsgrad else self.buffers[:2]

    def decays(self, o: Any, rate: float) -> tuple[float, float]:
        """The factor of the L2 term in the gradient, and the factor of the parameters."""
        return o.weight_decay, 1.0

    def numbers(self, o: Any, step: int, state: base.State) -> Moments:
        (b1, b2), lr = o.betas, o._rate(step)
        rate, root = lr / (1.0 - b1**step), math.sqrt(1.0 - b2**step)
        sign = -1.0 if o.maximize else 1.0
        return Moments(o.eps, b1, 1.0 - b1, b2, 1.0 - b2, rate, root, 1.0 / root, *self.decays(o, lr), sign)

    def no_step(self, o: Any, left_out: float) -> Series:
        return Series(float(o.amsgrad), left_out)


class Decoupled(Rule):
    def decays(self, o: Any, rate: float) -> tuple[float, float]:
        return 0.0, 1.0 - rate * o.weight_decay


@dataclass(eq=False, repr=False)
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

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    maximize: bool = False

    _rule = Rule()


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

    _rule = Decoupled()

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
