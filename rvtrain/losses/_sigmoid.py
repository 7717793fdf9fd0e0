"""SigLIP: a binary classification of every pair."""

from typing import Any, NamedTuple

import numpy as np

from rvtrain import _validation as check
from rvtrain._engine._log import softplus_and_slope
from rvtrain._engine._treatment import close, implements, visit
from rvtrain.distributed._ranks import Communicator
from rvtrain.losses._contrast import Outcome
from rvtrain.losses.base import ContrastiveLoss


class Sigmoid(NamedTuple):
    """softplus(−z (t s + b)), z = 1 for pairs that share an id, else −1; addends: the loss, its derivative by b."""

    scale: np.floating
    bias: np.floating

    SUMS, SEPARABLE, EQUAL = 2, True, True  # type: ignore[misc]


@implements(visit, Sigmoid)
def _visit(t, s, shift, equal):
    x = s * t.scale + t.bias
    loss, slope = softplus_and_slope(-x if equal else x)
    signed = -slope if equal else slope
    return signed * t.scale, loss, signed


@implements(close, Sigmoid)
def _close(t, i, shift, total, second, own, to):
    """The own positive has z = 1; second = dL/db of the row."""
    scale, weight = np.float64(t.scale), own.weights[i]
    loss, slope = softplus_and_slope(-(own.scores[i] * scale + np.float64(t.bias)))
    to.losses[i] = total + loss
    to.slopes[i] = -weight * scale * slope
    to.first[i] = weight
    to.second[i] = weight * (second - slope)


class SigmoidLoss(ContrastiveLoss):
    r"""Sigmoid loss of SigLIP, with analytic gradients.

    .. math:: \ell_i = -\sum_j \log σ\big(z_{ij} (t \cos_{ij} + b)\big)

    z is 1 for an anchor and its own positive and for pairs that share an id, −1 for all other pairs. The mean over
    the B anchors is the loss of the paper. Methods take the arguments of `InfoNCELoss` except log_q and guide, but
    pairs with equal ids are positives here. If negatives are given, the sum for an anchor is over its own positive
    and its negatives.

    Parameters
    ----------
    scale, bias : float
        t > 0 and b. May be set between calls; `wrt` also takes "scale" and "bias".
    reduction : {"mean", "sum", "none"}
        Over the anchors; "none" gives one value each (and gradients of their sum).
    learn : bool
        Whether the `Trainer` learns t, by its logarithm, and b with the model, as the paper does. Calls do not
        depend on it.
    comm : mpi4py.MPI.Comm, optional
        Each rank gives its rows of one global batch: see `InfoNCELoss`.

    Attributes
    ----------
    learnable : tuple of str
        ("scale", "bias") with `learn`, else (): what `Trainer` learns.

    References
    ----------
    Zhai, Mustafa, Kolesnikov & Beyer (2023), Sigmoid Loss for Language Image Pre-Training, arXiv:2303.15343.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> anchors = np.eye(2)
    >>> loss = rt.SigmoidLoss(scale=1.0, bias=0.0)
    >>> round(loss.compute(anchors, anchors), 6)  # log(1 + exp(-1)) + log(1 + exp(0))
    1.006409
    """

    WRT = ("anchors", "positives", "negatives", "scale", "bias")

    def __init__(
        self,
        scale: float = 10.0,
        bias: float = -10.0,
        reduction: str = "mean",
        learn: bool = False,
        comm: Communicator | None = None,
    ) -> None:
        super().__init__(reduction, comm)
        self.scale, self.bias = scale, bias
        self.learn = check.flag("learn", learn)

    @property
    def scale(self) -> float:
        """t, the factor of the cosines."""
        return self._scale

    @scale.setter
    def scale(self, value: float) -> None:
        self._scale = check.number("scale", value, low=1e-15, high=1e15)

    @property
    def bias(self) -> float:
        """b, the addend after multiplication by the scale."""
        return self._bias

    @bias.setter
    def bias(self, value: float) -> None:
        self._bias = check.number("bias", value, low=-1e15, high=1e15)

    @property
    def learnable(self) -> tuple[str, ...]:
        """Names of the loss's own parameters that are learned with the model."""
        return ("scale", "bias") if self.learn else ()

    def __repr__(self) -> str:
        more = ", learn=True" if self.learn else ""
        return f"SigmoidLoss(scale={self.scale:g}, bias={self.bias:g}, reduction={self.reduction!r}{more})"

    def treatment(self, dtype: np.dtype) -> tuple[Any, ...]:
        """A softplus of each score."""
        return Sigmoid(dtype.type(self.scale), dtype.type(self.bias))

    def parameter_gradients(self, outcome: Outcome, along: float) -> dict[str, float]:
        """dL/dt = Σ cos · dL/dx and dL/db = Σ dL/dx over all x = t cos + b."""
        return {"scale": along / self.scale, "bias": float(outcome.second.sum())}
