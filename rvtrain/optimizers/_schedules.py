"""Learning-rate schedules: functions of the step, counted from 0, that can be compared, printed and pickled."""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

from rvtrain import _validation as check


@dataclass(frozen=True, repr=False)
class Schedule:
    """Base of the schedules: called with a step, it returns the learning rate of this step.

    A schedule is a frozen dataclass of the arguments of the function that makes it, and prints as its call.
    """

    _made_by: ClassVar[str]

    def __call__(self, step: int) -> float:
        return self._at(check.integer("step", step, low=0))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return f"{self._made_by}({arguments})"

    def _at(self, t: int) -> float:
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class _Constant(Schedule):
    _made_by: ClassVar[str] = "constant"
    lr: float

    def _at(self, t: int) -> float:
        return self.lr


@dataclass(frozen=True, repr=False)
class _Warmup(Schedule):
    """A linear rise to the peak, then a fall to the end: `_left` is the part of the way that is left, from 1 to 0."""

    peak: float
    warmup_steps: int
    total_steps: int
    end: float

    def _at(self, t: int) -> float:
        w, total = self.warmup_steps, self.total_steps
        if t < w:
            return self.peak * (t + 1) / (w + 1)
        return self.end + (self.peak - self.end) * self._left((t - w) / (total - w)) if t < total else self.end

    def _left(self, p: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class _WarmupCosine(_Warmup):
    _made_by: ClassVar[str] = "warmup_cosine"

    def _left(self, p: float) -> float:
        return (1.0 + math.cos(math.pi * p)) / 2.0


@dataclass(frozen=True, repr=False)
class _WarmupLinear(_Warmup):
    _made_by: ClassVar[str] = "warmup_linear"

    def _left(self, p: float) -> float:
        return 1.0 - p


@dataclass(frozen=True, repr=False)
class _ExponentialDecay(Schedule):
    _made_by: ClassVar[str] = "exponential_decay"
    lr: float
    decay_rate: float
    decay_steps: int

    def _at(self, t: int) -> float:
        return float(self.lr * self.decay_rate ** (t / self.decay_steps))


@dataclass(frozen=True, repr=False)
class _StepDecay(Schedule):
    _made_by: ClassVar[str] = "step_decay"
    lr: float
    factor: float
    every: int

    def _at(self, t: int) -> float:
        return self.lr * self.factor ** (t // self.every)


def constant(lr: float) -> Schedule:
    """The same learning rate at every step: η(t) = η.

    Parameters
    ----------
    lr : float
        η ≥ 0.

    Returns
    -------
    Schedule
        A function of the step, an int ≥ 0, to the learning rate.

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
    return _Constant(check.number("lr", lr, low=0.0))


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int, end: float = 0.0) -> Schedule:
    r"""Linear rise to the peak, reached after w steps, then half a cosine down to the end at T.

    .. math:: η(t) = \begin{cases} η_1 \frac{t + 1}{w + 1} & t < w \\
        η_2 + (η_1 - η_2)(1 + \cos π \frac{t - w}{T - w}) / 2 & w ≤ t < T \\ η_2 & t ≥ T \end{cases}

    The first of T steps has a rate above 0, and so has the last, t = T − 1.

    Parameters
    ----------
    peak, end : float
        η₁ and η₂, both ≥ 0.
    warmup_steps, total_steps : int
        w ≥ 0 and T > w.

    Returns
    -------
    Schedule
        A function of the step, an int ≥ 0, to the learning rate.

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
    [0.091, 0.545, 1.0, 0.5, 0.0, 0.0]
    """
    return _WarmupCosine(*_warmup(peak, warmup_steps, total_steps, end))


def warmup_linear(peak: float, warmup_steps: int, total_steps: int, end: float = 0.0) -> Schedule:
    r"""Linear rise to the peak, reached after w steps, then a line down to the end at T.

    .. math:: η(t) = \begin{cases} η_1 \frac{t + 1}{w + 1} & t < w \\
        η_1 + (η_2 - η_1) \frac{t - w}{T - w} & w ≤ t < T \\ η_2 & t ≥ T \end{cases}

    The first of T steps has a rate above 0, and so has the last, t = T − 1.

    Parameters
    ----------
    peak, end : float
        η₁ and η₂, both ≥ 0.
    warmup_steps, total_steps : int
        w ≥ 0 and T > w.

    Returns
    -------
    Schedule
        A function of the step, an int ≥ 0, to the learning rate.

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
    [0.091, 0.545, 1.0, 0.6, 0.2, 0.2]
    >>> schedule
    warmup_linear(peak=1.0, warmup_steps=10, total_steps=110, end=0.2)
    """
    return _WarmupLinear(*_warmup(peak, warmup_steps, total_steps, end))


def exponential_decay(lr: float, decay_rate: float, decay_steps: int = 1) -> Schedule:
    r"""Exponential decay, by the factor γ in s steps: :math:`η(t) = η_0 γ^{t / s}`.

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
    Schedule
        A function of the step, an int ≥ 0, to the learning rate.

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
    return _ExponentialDecay(lr, decay_rate, decay_steps)


def step_decay(lr: float, factor: float, every: int) -> Schedule:
    r"""Decay in stairs, by the factor γ at every s-th step: :math:`η(t) = η_0 γ^{⌊t / s⌋}`.

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
    Schedule
        A function of the step, an int ≥ 0, to the learning rate.

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
    return _StepDecay(lr, factor, every)


def _warmup(peak: float, warmup_steps: int, total_steps: int, end: float) -> tuple[float, int, int, float]:
    """The arguments of a schedule with a warm-up, checked."""
    peak = check.number("peak", peak, low=0.0)
    end = check.number("end", end, low=0.0)
    warmup = check.integer("warmup_steps", warmup_steps, low=0)
    return peak, warmup, check.integer("total_steps", total_steps, low=warmup + 1), end
