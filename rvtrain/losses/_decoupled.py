"""DCL: InfoNCE without the positive in the denominator."""

from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.distributed._ranks import Communicator
from rvtrain.losses._contrast import Outcome
from rvtrain.losses._softmax import Decoupled, in_range, octaves
from rvtrain.losses.base import ContrastiveLoss


class DecoupledContrastiveLoss(ContrastiveLoss):
    r"""Decoupled contrastive loss (DCL), with analytic gradients.

    .. math:: \ell = \log \sum_j e^{s_j} - s^+, \qquad s = \cos(\cdot, \cdot) / \tau

    The sum is over the negatives j alone: the positive is not in the denominator. A row without any negative has
    value 0 and gradient 0. Methods take the arguments of `InfoNCELoss` except log_q and guide.

    Parameters
    ----------
    temperature : float
        τ > 0. May be set between calls.
    reduction : {"mean", "sum", "none"}
        Over the anchors; "none" gives one value each (and gradients of their sum).
    comm : mpi4py.MPI.Comm, optional
        Each rank gives its rows of one global batch: see `InfoNCELoss`.

    References
    ----------
    Yeh, Hong, Hsu, Liu, Chen & LeCun (2021), Decoupled Contrastive Learning, arXiv:2110.06848. This class leaves out
    the weighting of equation 6. The authors sum the losses of both views, which takes two calls here.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> anchors = np.eye(2)
    >>> rt.DecoupledContrastiveLoss(temperature=1.0).compute(anchors, anchors)  # log(exp(0)) - 1
    -1.0
    """

    WRT = ("anchors", "positives", "negatives", "temperature")

    def __init__(self, temperature: float = 0.07, reduction: str = "mean", comm: Communicator | None = None) -> None:
        super().__init__(reduction, comm)
        self.temperature = temperature

    @property
    def temperature(self) -> float:
        """τ, the divisor of the cosines."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = check.temperature(value)

    def __repr__(self) -> str:
        return f"DecoupledContrastiveLoss(temperature={self.temperature:g}, reduction={self.reduction!r})"

    def treatment(self, dtype: np.dtype) -> tuple[Any, ...]:
        """A softmax over the negatives alone."""
        return Decoupled(octaves(dtype, self.temperature), self.temperature, 0.0)

    @property
    def bounded(self) -> bool:
        """Whether exponents relative to cosine 1 stay in range."""
        return in_range(self.temperature)

    def parameter_gradients(self, outcome: Outcome, along: float) -> dict[str, float]:
        """dL/dτ = −(Σ cos · dL/dcos) / τ."""
        return {"temperature": -along / self.temperature}
