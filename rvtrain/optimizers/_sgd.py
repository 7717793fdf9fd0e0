"""Stochastic gradient descent."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from rvtrain.optimizers import _array_rule as base
from rvtrain.optimizers._base import Optimizer
from rvtrain.optimizers._rule import always, before, element, idle, implements, implements_in_order


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


@implements_in_order(element, Momentum)
def _(c, p, g, buffers):
    g = c.sign * g + c.decay * p
    if len(buffers) == 0:
        return p - c.rate * g, buffers
    b = c.mu * buffers[0] + c.fresh * g
    return p - c.rate * (c.of_g * g + c.of_b * b), (b,)


@always
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


@implements_in_order(idle, Matrix)
def _(total, p, buffers):
    if len(buffers) == 0:
        return total.pp * p, buffers
    return total.pp * p + total.pb * buffers[0], (total.bp * p + total.bb * buffers[0],)


class Rule(base.Rule):
    constants, buffers = Momentum, ("momentum_buffer",)

    def check(self, o: Any) -> None:
        if o.nesterov and (o.momentum == 0.0 or o.dampening != 0.0):
            raise ValueError("nesterov needs momentum > 0 and dampening = 0")

    def names(self, o: Any) -> tuple[str, ...]:
        return self.buffers if o.momentum else ()

    def numbers(self, o: Any, step: int, state: base.State) -> Momentum:
        mu, fresh = (0.0, 1.0) if step == 1 else (o.momentum, 1.0 - o.dampening)
        of_g, of_b = (1.0, o.momentum) if o.nesterov else (0.0, 1.0)
        return Momentum(o._rate(step), mu, fresh, o.weight_decay, -1.0 if o.maximize else 1.0, of_g, of_b)

    def no_step(self, o: Any, left_out: float) -> Matrix:
        return Matrix(momentum=float(bool(o.momentum)))


@dataclass(eq=False, repr=False)
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

    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False

    _rule = Rule()
