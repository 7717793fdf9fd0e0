"""Hard-negative and debiased contrastive losses: negatives weighted by their own hardness."""

from typing import Any, NamedTuple

import numpy as np

from rvtrain import _validation as check
from rvtrain._engine._exp import LOG2_E, exp2
from rvtrain._engine._treatment import close, implements, visit, weigh
from rvtrain._kernels import njit
from rvtrain.distributed._ranks import Communicator
from rvtrain.losses._softmax import BOUND
from rvtrain.losses.base import ContrastiveLoss


class HardNegative(NamedTuple):
    """r = N Σ e^{(1+β)s} / Σ e^{βs}, with the addends e^{(1+β)s} and e^{βs}."""

    both: np.floating
    """(1+β) / (τ ln 2), of the type of the scores"""
    hard: np.floating
    """β / (τ ln 2)"""
    temperature: float
    beta: float
    tau_plus: float

    SUMS, SEPARABLE, EQUAL, COUNTS = 2, False, False, True  # type: ignore[misc]


@implements(visit, HardNegative)
def _visit(t, s, shift, equal):
    both, hard = _exponentials(t, s, shift)
    return s, both, hard


@implements(weigh, HardNegative)
def _weigh(t, kept, shift, first, second):
    both, hard = _exponentials(t, kept, shift)
    return first * both + second * hard


@njit
def _exponentials(t, s, shift):
    """e^{(1+β)(s − shift)} and e^{β(s − shift)}; both are 0 for a masked score, also if β is 0."""
    counts = s > -np.inf
    d = s - shift if counts else np.float32(0.0)
    both, hard = exp2(d * t.both), exp2(d * t.hard)
    return both if counts else np.float32(0.0), hard if counts else np.float32(0.0)


@implements(close, HardNegative)
def _close(t, i, shift, total, second, own, to):
    """With x = log r and p = s⁺: u = log((r − N τ⁺ e^p) / (1 − τ⁺)), not below log N − 1/τ; ℓ = softplus(u − p)."""
    count, positive, w = own.counts[i], own.scores[i] / t.temperature, own.weights[i]
    to.losses[i], to.slopes[i], to.first[i], to.second[i] = 0.0, 0.0, 0.0, 0.0
    if count == 0.0:
        return
    log_count = np.log(count)
    ratio = log_count + np.log(total) - np.log(second) + shift / t.temperature  # log r
    floor = log_count - 1.0 / t.temperature
    bias = t.tau_plus * np.exp(log_count + positive - ratio)  # N τ⁺ e^p / r
    free = 1.0 - bias > 0.0
    u = ratio + np.log1p(-bias) - np.log(1.0 - t.tau_plus) if free else -np.inf
    free = free and u > floor
    g = u if free else floor
    difference = g - positive
    to.losses[i] = max(difference, 0.0) + np.log1p(np.exp(-abs(difference)))
    share = w / (t.temperature * (1.0 + np.exp(-difference)))
    to.slopes[i] = -share
    if free:
        by_ratio = share / (1.0 - bias)  # dL/d log r, over τ
        to.slopes[i] -= by_ratio * bias
        to.first[i] = by_ratio * (1.0 + t.beta) / total
        to.second[i] = -by_ratio * t.beta / second


class HardNegativeContrastiveLoss(ContrastiveLoss):
    r"""Contrastive loss that gives hard negatives more weight and corrects for false ones, with analytic gradients.

    .. math:: \ell = -\log \frac{e^{s^+}}{e^{s^+} + g}, \quad
        g = \max\Big(\frac{r - N τ^+ e^{s^+}}{1 - τ^+},\, N e^{-1/τ}\Big), \quad
        r = N \frac{\sum_j e^{β s_j} e^{s_j}}{\sum_j e^{β s_j}}, \quad s = \cos / τ

    The weights :math:`e^{β s}` are differentiated too, as in the authors' code. If the maximum is its second
    argument, g is a constant. A row without any negative has value 0. Methods take the arguments of `InfoNCELoss`
    except log_q and guide.

    Parameters
    ----------
    temperature : float
        τ > 0. May be set between calls.
    beta : float
        β ≥ 0, concentration on hard negatives. β = 0 gives the debiased loss of Chuang et al., and InfoNCE if also
        tau_plus = 0.
    tau_plus : float
        τ⁺ in [0, 1), the probability that a negative belongs to the anchor's class.
    reduction : {"mean", "sum", "none"}
        Over the anchors; "none" gives one value each (and gradients of their sum).
    comm : mpi4py.MPI.Comm, optional
        Each rank gives its rows of one global batch: see `InfoNCELoss`.

    References
    ----------
    Robinson, Chuang, Sra & Jegelka (2021), Contrastive Learning with Hard Negative Samples, arXiv:2010.04592.
    Chuang, Robinson, Lin, Torralba & Jegelka (2020), Debiased Contrastive Learning, arXiv:2007.00224.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> anchors = np.eye(2)
    >>> round(rt.HardNegativeContrastiveLoss(1.0, beta=0.0, tau_plus=0.0).compute(anchors, anchors), 6)
    0.313262
    """

    def __init__(
        self,
        temperature: float = 0.5,
        beta: float = 1.0,
        tau_plus: float = 0.1,
        reduction: str = "mean",
        comm: Communicator | None = None,
    ) -> None:
        super().__init__(reduction, comm)
        self.temperature = temperature
        self.beta = check.number("beta", beta, low=0.0, high=1e6)
        self.tau_plus = check.number("tau_plus", tau_plus, low=0.0, high=1.0, open_high=True)

    @property
    def temperature(self) -> float:
        """τ, the divisor of the cosines."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = check.temperature(value)

    def __repr__(self) -> str:
        return (
            f"HardNegativeContrastiveLoss(temperature={self.temperature:g}, beta={self.beta:g}, "
            f"tau_plus={self.tau_plus:g}, reduction={self.reduction!r})"
        )

    def treatment(self, dtype: np.dtype) -> tuple[Any, ...]:
        """Two exponentials of a score."""
        scale = LOG2_E / self.temperature
        return HardNegative(
            dtype.type(scale * (1.0 + self.beta)),
            dtype.type(scale * self.beta),
            self.temperature,
            self.beta,
            self.tau_plus,
        )

    @property
    def bounded(self) -> bool:
        """Whether exponents relative to cosine 1 stay in range."""
        return 2.0 * (1.0 + self.beta) / self.temperature <= BOUND
