"""Learning-rate schedules: each call returns a plain function of the step, counted from 0."""

import math
from collections.abc import Callable

from rvtrain import _validation as check

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """The same learning rate at every step: η(t) = η.

    Parameters
    ----------
    lr : float
        η ≥ 0.

    Returns
    -------
    function of the step, an int ≥ 0, to the learning rate

    Raises
    ------
    TypeError, ValueError
        If `lr` is no number, or negative.

    References
    ----------
    As ``torch.optim.lr_scheduler.ConstantLR`` with factor 1.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.constant(0.1)(1000)
    0.1
    """
    lr = check.number("lr", lr, low=0.0)

    def schedule(step: int) -> float:
        _at(step)
        return lr

    return schedule


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int, end: float = 0.0) -> Schedule:
    r"""Linear rise from 0 to the peak over w steps, then half a cosine down to the end at T.

    .. math:: η(t) = \begin{cases} η_1 t / w & t < w \\
        η_2 + (η_1 - η_2)(1 + \cos π \frac{t - w}{T - w}) / 2 & w ≤ t < T \\ η_2 & t ≥ T \end{cases}

    Parameters
    ----------
    peak, end : float
        η₁ and η₂, both ≥ 0.
    warmup_steps, total_steps : int
        w ≥ 0 and T > w.

    Returns
    -------
    function of the step, an int ≥ 0, to the learning rate

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    References
    ----------
    Loshchilov & Hutter (2017), SGDR: Stochastic Gradient Descent with Warm Restarts, arXiv:1608.03983.

    Examples
    --------
    >>> import rvtrain as rt
    >>> schedule = rt.warmup_cosine(1.0, warmup_steps=10, total_steps=110)
    >>> [round(schedule(step), 3) for step in (0, 5, 10, 60, 110, 200)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    return _warmup(peak, warmup_steps, total_steps, end, lambda p: (1.0 + math.cos(math.pi * p)) / 2.0)


def warmup_linear(peak: float, warmup_steps: int, total_steps: int, end: float = 0.0) -> Schedule:
    r"""Linear rise from 0 to the peak over w steps, then a line down to the end at T.

    .. math:: η(t) = \begin{cases} η_1 t / w & t < w \\
        η_1 + (η_2 - η_1) \frac{t - w}{T - w} & w ≤ t < T \\ η_2 & t ≥ T \end{cases}

    Parameters
    ----------
    peak, end : float
        η₁ and η₂, both ≥ 0.
    warmup_steps, total_steps : int
        w ≥ 0 and T > w.

    Returns
    -------
    function of the step, an int ≥ 0, to the learning rate

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    References
    ----------
    Devlin et al. (2019), BERT, arXiv:1810.04805, appendix A.2.

    Examples
    --------
    >>> import rvtrain as rt
    >>> schedule = rt.warmup_linear(1.0, warmup_steps=10, total_steps=110, end=0.2)
    >>> [round(schedule(step), 3) for step in (0, 5, 10, 60, 110, 200)]
    [0.0, 0.5, 1.0, 0.6, 0.2, 0.2]
    """
    return _warmup(peak, warmup_steps, total_steps, end, lambda p: 1.0 - p)


def exponential_decay(lr: float, decay_rate: float, decay_steps: int = 1) -> Schedule:
    r"""A constant factor every so many steps, continuously: :math:`η(t) = η_0 γ^{t / s}`.

    Parameters
    ----------
    lr : float
        η₀ ≥ 0.
    decay_rate : float
        γ > 0.
    decay_steps : int
        s ≥ 1: steps in which the rate falls by γ.

    Returns
    -------
    function of the step, an int ≥ 0, to the learning rate

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    References
    ----------
    As ``optax.exponential_decay``; with s = 1, ``torch.optim.lr_scheduler.ExponentialLR``.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.exponential_decay(1.0, decay_rate=0.25, decay_steps=100)(50)
    0.5
    """
    lr = check.number("lr", lr, low=0.0)
    decay_rate = check.number("decay_rate", decay_rate, low=0.0, open_low=True)
    decay_steps = check.integer("decay_steps", decay_steps, low=1)
    return lambda step: lr * decay_rate ** (_at(step) / decay_steps)


def step_decay(lr: float, factor: float, every: int) -> Schedule:
    r"""A constant factor at every s-th step: :math:`η(t) = η_0 γ^{⌊t / s⌋}`.

    Parameters
    ----------
    lr : float
        η₀ ≥ 0.
    factor : float
        γ > 0.
    every : int
        s ≥ 1.

    Returns
    -------
    function of the step, an int ≥ 0, to the learning rate

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    References
    ----------
    As ``torch.optim.lr_scheduler.StepLR``.

    Examples
    --------
    >>> import rvtrain as rt
    >>> schedule = rt.step_decay(1.0, factor=0.5, every=10)
    >>> [schedule(step) for step in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """
    lr = check.number("lr", lr, low=0.0)
    factor = check.number("factor", factor, low=0.0, open_low=True)
    every = check.integer("every", every, low=1)
    return lambda step: lr * factor ** (_at(step) // every)


def _warmup(peak: float, warmup: int, total: int, end: float, shape: Callable[[float], float]) -> Schedule:
    """A rise, then from the peak to the end as `shape` falls from 1 to 0 over [0, 1]."""
    peak = check.number("peak", peak, low=0.0)
    end = check.number("end", end, low=0.0)
    warmup = check.integer("warmup_steps", warmup, low=0)
    total = check.integer("total_steps", total, low=warmup + 1)

    def schedule(step: int) -> float:
        t = _at(step)
        if t < warmup:
            return peak * t / warmup
        return end + (peak - end) * shape((t - warmup) / (total - warmup)) if t < total else end

    return schedule


def _at(step: int) -> int:
    return check.integer("step", step, low=0)
