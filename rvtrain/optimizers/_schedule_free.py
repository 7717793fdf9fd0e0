"""Schedule-Free AdamW."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rvtrain.optimizers._array_rule import State
from rvtrain.optimizers._rule import always, before, element, idle, implements, implements_in_order
from rvtrain.optimizers._state import Layout
from rvtrain.optimizers._two_points import RuleOfTwoPoints, TwoPoints


class Average(NamedTuple):
    """The numbers of a step."""

    b2: float
    n2: float
    """1 − β₂."""
    inverse: float
    """1 / √(1 − β₂ᵗ)."""
    eps: float
    decay: float
    part: float
    """c."""
    of_y: float
    """η (1 − β₁ (1 − c)): what x ← (1 − c) x + c z makes of the step of z, seen from y."""
    rate: float
    sign: float


@implements_in_order(element, Average)
def _(c, y, g, buffers):
    g = c.sign * g
    z, v = buffers[0], c.b2 * buffers[1] + c.n2 * g * g
    u = g / (np.sqrt(v) * c.inverse + c.eps) + c.decay * y
    return y + c.part * (z - y) - c.of_y * u, (z - c.rate * u, v)


@always
class Averages(NamedTuple):
    """Idle steps: (y, z) ← matrix · (y, z), v ← v · b2. Those of no step."""

    yy: float = 1.0
    yz: float = 0.0
    zy: float = 0.0
    zz: float = 1.0
    b2: float = 1.0


@implements(before, Averages)
def _(total, c):
    yy, yz, zy, zz, b2 = total
    of_y, to_z = 1.0 - c.part - c.of_y * c.decay, -c.rate * c.decay
    return Averages(yy * of_y + yz * to_z, yy * c.part + yz, zy * of_y + zz * to_z, zy * c.part + zz, b2 * c.b2)


@implements_in_order(idle, Averages)
def _(total, y, buffers):
    z, v = buffers[0], buffers[1]
    return total.yy * y + total.yz * z, (total.zy * y + total.zz * z, total.b2 * v)


class Rule(RuleOfTwoPoints):
    constants, buffers, idle_steps = Average, ("z", "exp_avg_sq"), Averages

    def layout(self, o: Any, shape: tuple[int, ...]) -> Layout:
        return super().layout(o, shape) | {"weight_sum": ((), np.float64)}

    def numbers(self, o: Any, step: int, state: State) -> Average:
        (b1, b2), rate = o.betas, o._rate(step) * min(1.0, step / max(o.warmup_steps, 1))
        state["weight_sum"] += rate**2
        total = float(state["weight_sum"])
        part = rate * rate / total if total > 0.0 else 0.0
        root, of_y = math.sqrt(1.0 - b2**step), rate * (1.0 - b1 * (1.0 - part))
        return Average(b2, 1.0 - b2, 1.0 / root, o.eps, o.weight_decay, part, of_y, rate, 1.0)


@dataclass(eq=False, repr=False)
class ScheduleFreeAdamW(TwoPoints):
    r"""AdamW with an average in the place of a schedule that ends: any step may be the last one.

    .. math::
        y &= (1 - β_1) z + β_1 x, \qquad v \leftarrow β_2 v + (1 - β_2) g^2, \qquad
        u = \frac{g}{\sqrt{v / (1 - β_2^t)} + ε} + λ y \\
        z &\leftarrow z - η_t u, \qquad x \leftarrow (1 - c) x + c z, \qquad c = η_t^2 / \textstyle\sum_{s ≤ t} η_s^2

    with gradients g at y. The parameters are y while training. Call ``optimizer.eval(params)`` before you use or save
    them, which makes them x, and ``optimizer.train(params)`` before the next step. `Trainer` does both.

    Parameters
    ----------
    params, lr, eps, lazy, nonfinite, groups
        As in `Adam`. The learning rate stays as it is, without a schedule.
    betas : tuple of two floats
        β₁ in (0, 1) and β₂ in [0, 1).
    weight_decay : float
        λ ≥ 0.
    warmup_steps : int
        η_t = η · min(1, t / warmup_steps).

    References
    ----------
    Defazio et al. (2024), The Road Less Scheduled, arXiv:2405.15682.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> params = np.array([1.0, 2.0])
    >>> optimizer = rt.ScheduleFreeAdamW(params, lr=0.1)
    >>> for _ in range(100):
    ...     optimizer.step(params, 2 * params)
    >>> optimizer.eval(params)
    >>> bool(np.abs(params).max() < 0.3)
    True
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0
    state_dtype: str = field(default="float32", init=False)

    _rule = Rule()
