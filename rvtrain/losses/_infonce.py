"""InfoNCE: tell the positive from the negatives by a softmax over cosines."""

from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.losses._arguments import REDUCTIONS, Pairs, like_wrt, parse, parse_wrt, reduced
from rvtrain.losses._infonce_call import Call

WRT = ("anchors", "positives", "negatives", "temperature")


class InfoNCELoss:
    r"""InfoNCE (NT-Xent) loss on cosine similarities, with analytic gradients.

    For an anchor a with positive p and negatives n₁ … n_N,

    .. math:: \ell = \log\Big(e^{s^+} + \sum_j e^{s_j}\Big) - s^+,
        \qquad s = \cos(\cdot, \cdot) / \tau,
        \qquad \cos(a, b) = \frac{a \cdot b}{\max(\|a\|, ε)\,\max(\|b\|, ε)}

    with ε = 1e-8. The positive is in the denominator. The loss is computed as softplus of the log-sum-exp of
    the negatives over the positive: it is never capped, and exact to rounding at both ends.

    Parameters
    ----------
    temperature : float
        τ > 0, typically 0.07 to 0.5. May be set between calls.
    reduction : {"mean", "sum", "none"}
        Over the anchors; "none" gives one value each (and gradients of their sum).
    symmetric : bool
        In-batch only: the mean of the losses from anchors to positives and from positives to anchors.

    References
    ----------
    van den Oord, Li & Vinyals (2018), Representation Learning with Contrastive Predictive Coding,
    arXiv:1807.03748. The symmetric form is that of Radford et al. (2021), arXiv:2103.00020.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> loss = rt.InfoNCELoss(temperature=1.0)
    >>> anchors = np.eye(2)
    >>> round(loss.compute(anchors, anchors), 6)  # log(1 + exp(0 - 1))
    0.313262
    >>> value, gradient = loss.compute_with_gradients(anchors, anchors, wrt="positives")
    >>> gradient.round(4)
    array([[0.    , 0.1345],
           [0.1345, 0.    ]])
    """

    def __init__(self, temperature: float = 0.07, reduction: str = "mean", symmetric: bool = False) -> None:
        self.temperature = temperature
        self.reduction = check.choice("reduction", reduction, REDUCTIONS)
        self.symmetric = check.flag("symmetric", symmetric)

    @property
    def temperature(self) -> float:
        """τ, by which the cosines are divided."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = check.temperature(value)

    def __repr__(self) -> str:
        return (
            f"InfoNCELoss(temperature={self.temperature:g}, reduction={self.reduction!r}, symmetric={self.symmetric})"
        )

    def compute(
        self,
        anchors: Any,
        positives: Any,
        negatives: Any = None,
        *,
        negative_indices: Any = None,
        anchor_ids: Any = None,
        positive_ids: Any = None,
        negative_ids: Any = None,
    ) -> Any:
        """The loss alone.

        Parameters
        ----------
        anchors, positives : array of shape (B, d), or (d,) for one pair
            float32 or float64, like all arrays here; mixed types are promoted.
        negatives : array, optional
            None: the other rows' positives (in-batch). (N, d): one pool shared by all anchors. (B, N, d):
            each anchor's own. For one anchor: (N, d).
        negative_indices : integer array of shape (B, k), or (k,) for one anchor, optional
            Each anchor's own negatives as rows of `negatives`, which is then a pool (M, d); they are read
            where they stand. −1: no negative there.
        anchor_ids, positive_ids : integer array of shape (B,), optional
        negative_ids : integer array of shape (N,), (B, N) or (M,), as `negatives`, optional
            Or of shape (N, c) or (M, c), for a pool whose rows have several ids each. A negative that shares an
            id with the row's anchor or positive is not counted. In-batch, a row's positive carries both of its
            row's ids.

        Returns
        -------
        float, or array of shape (B,) where the reduction is "none"

        Raises
        ------
        TypeError
            If an array is not float32 or float64, or ids or indices are not integers.
        ValueError
            If shapes do not fit, something is empty or not finite, or an index is out of range.
        """
        pairs = parse(anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids)
        losses, _ = self._evaluate(pairs, ())
        return reduced(losses, self.reduction, pairs)

    def compute_with_gradients(
        self,
        anchors: Any,
        positives: Any,
        negatives: Any = None,
        *,
        wrt: str | tuple[str, ...] = "anchors",
        negative_indices: Any = None,
        anchor_ids: Any = None,
        positive_ids: Any = None,
        negative_ids: Any = None,
    ) -> tuple[Any, Any]:
        """The loss and its gradients.

        Parameters
        ----------
        wrt : {"anchors", "positives", "negatives", "temperature"} or tuple of these
            Which gradients: a name gives one, a tuple gives a tuple. Only what is asked for is computed.
        anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids
            As in `compute`.

        Returns
        -------
        value : float, or array of shape (B,) where the reduction is "none"
        gradient : array of its input's shape, a float for the temperature, or a tuple of these

        Raises
        ------
        TypeError, ValueError
            As `compute`, and if `wrt` names something unknown, or negatives where there are none.
        """
        names = parse_wrt(wrt, WRT)
        pairs = parse(anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids)
        if "negatives" in names and pairs.negatives is None:
            raise ValueError("wrt names negatives, but negatives is None (in-batch): ask for positives")
        losses, gradients = self._evaluate(pairs, names)
        shaped = {name: g if name == "temperature" else pairs.restore(name, g) for name, g in gradients.items()}
        return reduced(losses, self.reduction, pairs), like_wrt(wrt, shaped)

    def _evaluate(self, pairs: Pairs, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Losses of the anchors, and the gradients named, in the parsed shapes."""
        if self.symmetric and pairs.negatives is not None:
            raise ValueError("symmetric needs in-batch negatives (negatives=None)")
        call = Call(pairs, self.temperature, 1.0 / len(pairs.anchors) if self.reduction == "mean" else 1.0)
        if pairs.negatives is None:
            return call.in_batch(names, self.symmetric)
        if pairs.negatives.ndim == 2 and pairs.indices is None:
            return call.pool(names)
        return call.gathered(names)
