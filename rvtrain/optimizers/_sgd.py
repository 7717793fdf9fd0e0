"""Stochastic gradient descent."""

from typing import NamedTuple

from rvtrain import _validation as check
from rvtrain._kernels import in_order
from rvtrain.optimizers._arrays import Params
from rvtrain.optimizers._base import Groups, Optimizer
from rvtrain.optimizers._rule import before, element, holds, idle, implements
from rvtrain.optimizers._steps import dense_step_of


class Momentum(NamedTuple):
    """The numbers of a step. The first step, where b = g, is one with mu = 0 and fresh = 1."""

    rate: float
    mu: float
    fresh: float
    """1 − dampening."""
    decay: float
    sign: float
    of_g: float
    """The weights of g and b in the update: 0 and 1, or 1 and μ for Nesterov."""
    of_b: float


@implements(element, Momentum)
def _(c, p, g, buffers):
    return _moved(c, p, g, buffers)


@in_order
def _moved(c, p, g, buffers):
    g = c.sign * g + c.decay * p
    if len(buffers) == 0:
        return p - c.rate * g, buffers
    b = c.mu * buffers[0] + c.fresh * g
    return p - c.rate * (c.of_g * g + c.of_b * b), (b,)


class Matrix(NamedTuple):
    """Idle steps: a step with g = 0 is linear in (p, b), by one 2 × 2 matrix for all elements. That of no step."""

    pp: float = 1.0
    pb: float = 0.0
    bp: float = 0.0
    bb: float = 1.0
    momentum: float = 1.0
    """1 if there is a b, else 0."""


@implements(before, Matrix)
def _(total, c):
    pp, pb = 1.0 - c.rate * c.decay, 0.0
    if total.momentum > 0.0:
        pp, pb = 1.0 - c.rate * (c.of_g + c.of_b * c.fresh) * c.decay, -c.rate * c.of_b * c.mu
    bp, bb = c.fresh * c.decay, c.mu
    return Matrix(
        total.pp * pp + total.pb * bp,
        total.pp * pb + total.pb * bb,
        total.bp * pp + total.bb * bp,
        total.bp * pb + total.bb * bb,
        total.momentum,
    )


@implements(holds, Matrix)
def _(total, buffers):
    return True


@implements(idle, Matrix)
def _(total, p, buffers):
    return _idle(total, p, buffers)


@in_order
def _idle(total, p, buffers):
    if len(buffers) == 0:
        return total.pp * p, buffers
    return total.pp * p + total.pb * buffers[0], (total.bp * p + total.bb * buffers[0],)


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

    _dense_step = dense_step_of(Momentum)

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

    def _numbers(self, step: int, state: object = None) -> Momentum:
        mu, fresh = (0.0, 1.0) if step == 1 else (self.momentum, 1.0 - self.dampening)
        of_g, of_b = (1.0, self.momentum) if self.nesterov else (0.0, 1.0)
        sign = -1.0 if self.maximize else 1.0
        return Momentum(self.learning_rate, mu, fresh, self.weight_decay, sign, of_g, of_b)

    def _no_step(self, left_out: float) -> Matrix:
        return Matrix(momentum=float(bool(self._buffers)))
