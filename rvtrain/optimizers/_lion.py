"""Lion."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from rvtrain.optimizers import _array_rule as base
from rvtrain.optimizers._base import Optimizer
from rvtrain.optimizers._rule import always, before, element, idle, implements, implements_in_order


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


@implements_in_order(element, Direction)
def _(c, p, g, buffers):
    g = c.sign * g
    u = c.b1 * buffers[0] + c.n1 * g
    u = c.rate if u > 0 else -c.rate if u < 0 else u  # 0 and NaN stay
    return c.shrink * p - u, (c.b2 * buffers[0] + c.n2 * g,)


@always
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


@implements_in_order(idle, Directions)
def _(total, p, buffers):
    m = buffers[0]
    u = total.moved if m > 0 else -total.moved if m < 0 else m
    return total.shrink * p - u, (total.b2 * m,)


class Rule(base.Rule):
    constants, buffers, idle_steps = Direction, ("exp_avg",), Directions

    def numbers(self, o: Any, step: int, state: base.State) -> Direction:
        (b1, b2), rate = o.betas, o._rate(step)
        return Direction(rate, 1.0 - rate * o.weight_decay, b1, 1.0 - b1, b2, 1.0 - b2, 1.0)


@dataclass(eq=False, repr=False)
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

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0

    _rule = Rule()
