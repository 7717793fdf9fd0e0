"""Lion."""

from typing import NamedTuple

from rvtrain import _validation as check
from rvtrain._kernels import in_order
from rvtrain.optimizers._arrays import Params
from rvtrain.optimizers._base import Groups, Optimizer, checked_betas
from rvtrain.optimizers._rule import before, element, holds, idle, implements
from rvtrain.optimizers._steps import dense_step_of


class Direction(NamedTuple):
    """The numbers of a step."""

    rate: float
    shrink: float
    """1 − η λ."""
    b1: float
    n1: float
    """1 − β₁."""
    b2: float
    n2: float
    sign: float


@implements(element, Direction)
def _(c, p, g, buffers):
    return _moved(c, p, g, buffers)


@in_order
def _moved(c, p, g, buffers):
    g = c.sign * g
    u = c.b1 * buffers[0] + c.n1 * g
    u = c.rate if u > 0 else -c.rate if u < 0 else u  # 0 and NaN stay
    return c.shrink * p - u, (c.b2 * buffers[0] + c.n2 * g,)


class Directions(NamedTuple):
    """Idle steps, in which m keeps its sign: p ← shrink · p − moved · sign(m), m ← b2 · m. Those of no step."""

    shrink: float = 1.0
    moved: float = 0.0
    b2: float = 1.0


@implements(before, Directions)
def _(total, c):
    later = total.moved if c.b2 > 0.0 else 0.0
    now = total.shrink * c.rate if c.b1 > 0.0 else 0.0
    return Directions(total.shrink * c.shrink, later + now, total.b2 * c.b2)


@implements(holds, Directions)
def _(total, buffers):
    return True


@implements(idle, Directions)
def _(total, p, buffers):
    return _idle(total, p, buffers)


@in_order
def _idle(total, p, buffers):
    m = buffers[0]
    u = total.moved if m > 0 else -total.moved if m < 0 else m
    return total.shrink * p - u, (total.b2 * m,)


class Lion(Optimizer):
    r"""Lion: steps of one length in every element, in the direction of an average.

    .. math::
        u = \operatorname{sign}(β_1 m + (1 - β_1) g), \qquad
        p \leftarrow p - η (u + λ p), \qquad m \leftarrow β_2 m + (1 - β_2) g

    The authors take an η 3 to 10 times smaller than AdamW's, and a λ as many times larger.

    Parameters
    ----------
    params, lr, betas, lazy, state_dtype, nonfinite, groups
        As in `Adam`.
    weight_decay : float
        λ ≥ 0, decoupled.

    References
    ----------
    Chen et al. (2023), Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> params = np.array([1.0, 2.0])
    >>> rt.Lion(params, lr=0.1).step(params, np.array([0.5, -3.0]))
    >>> params
    array([0.9, 2.1])
    """

    _options = ("betas", "weight_decay", "lazy", "state_dtype", "nonfinite", "groups")
    _dense_step = dense_step_of(Direction)
    _buffers = ("exp_avg",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        lazy: str = "idle",
        state_dtype: str = "float32",
        nonfinite: str = "raise",
        groups: Groups | None = None,
    ) -> None:
        super().__init__(params, lr, lazy=lazy, state_dtype=state_dtype, nonfinite=nonfinite, groups=groups)
        self.betas = checked_betas(betas)
        self.weight_decay = check.number("weight_decay", weight_decay, low=0.0)
        self._make_rules()

    def _numbers(self, step: int, state: object = None) -> Direction:
        (b1, b2), rate = self.betas, self.learning_rate
        return Direction(rate, 1.0 - rate * self.weight_decay, b1, 1.0 - b1, b2, 1.0 - b2, 1.0)

    def _no_step(self, left_out: float) -> Directions:
        return Directions()
