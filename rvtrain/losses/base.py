"""Base class of losses on pairs and their negatives, from which new losses can be derived.

A loss that scores anchors against negatives consists of a *treatment* of a score (`rvtrain/_engine/_treatment.py`)
and a class that creates it. `ContrastiveLoss` does the rest: arguments, in-batch negatives, pools, own and gathered
negatives, ids, weights, reductions, gradients.
"""

from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._scratch import scratch
from rvtrain._engine._treatment import close, implements, visit, weigh
from rvtrain.distributed._ranks import Communicator, OfRanks
from rvtrain.losses._arguments import REDUCTIONS, Pairs, like_wrt, parse, parse_wrt, reduced, row_weights
from rvtrain.losses._contrast import INPUTS, Contrast, Outcome
from rvtrain.losses._shared import parse_shared, shared_value, shared_weights

__all__ = ["ContrastiveLoss", "close", "implements", "visit", "weigh"]

Floats = NDArray[np.floating]


class ContrastiveLoss(OfRanks):
    """Base of losses on anchors, positives and negatives; a subclass defines `treatment`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Over the anchors; "none" gives one value each (and gradients of their sum).
    comm : mpi4py.MPI.Comm, optional
        Each rank gives its rows of one global batch: see `InfoNCELoss`.
    """

    WRT: tuple[str, ...] = ("anchors", "positives", "negatives")
    """Names that `wrt` may have."""

    def __init__(self, reduction: str = "mean", comm: Communicator | None = None) -> None:
        self.reduction = check.choice("reduction", reduction, REDUCTIONS)
        self.comm = comm

    def treatment(self, dtype: np.dtype) -> tuple[Any, ...]:
        """The treatment of scores of this type, a named tuple."""
        raise NotImplementedError

    @property
    def bounded(self) -> bool:
        """Whether exponents relative to cosine 1 stay in range; if not, they are relative to the row maximum."""
        return True

    def evaluate(self, contrast: Contrast) -> Outcome:
        """Losses of the rows, and the sums from which gradients are computed."""
        return contrast.evaluate(self.treatment(contrast.dtype), self.bounded)

    def parameter_gradients(self, outcome: Outcome, along: float) -> dict[str, float]:
        """Gradients to the loss's own parameters; along = Σ over all scores of score · dL/dscore."""
        return {}

    def compute(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike | None = None,
        *,
        negative_indices: ArrayLike | None = None,
        anchor_ids: ArrayLike | None = None,
        positive_ids: ArrayLike | None = None,
        negative_ids: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float | Floats:
        """The loss alone.

        Parameters
        ----------
        anchors, positives : array of shape (B, d), or (d,) for one pair
            float32 or float64, like all arrays here; mixed types are promoted.
        negatives : array, optional
            None: the other rows' positives (in-batch). (N, d): one pool shared by all anchors. (B, N, d):
            each anchor's own. For one anchor: (N, d).
        negative_indices : integer array of shape (B, k), or (k,) for one anchor, optional
            Each anchor's own negatives as rows of `negatives`, which is then a pool (M, d) and is not copied.
            −1 means no negative.
        anchor_ids, positive_ids : integer array of shape (B,), optional
        negative_ids : integer array of shape (N,), (B, N) or (M,), as `negatives`, optional
            Or of shape (N, c) or (M, c), for a pool whose rows have several ids each. A negative that shares an
            id with the row's anchor or positive is not counted. In-batch, a row's positive carries both of its
            row's ids.
        sample_weight : array of shape (B,), optional
            Weights of the anchors, ≥ 0: for a weighted mean, a weighted sum, or weighted values.

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
        given = anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids
        return self._run(self._parsed(given, (), sample_weight), (), sample_weight)[0]

    @overload
    def compute_with_gradients(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike | None = None,
        *,
        wrt: str = "anchors",
        negative_indices: ArrayLike | None = None,
        anchor_ids: ArrayLike | None = None,
        positive_ids: ArrayLike | None = None,
        negative_ids: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> tuple[float | Floats, Floats]: ...

    @overload
    def compute_with_gradients(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike | None = None,
        *,
        wrt: tuple[str, ...],
        negative_indices: ArrayLike | None = None,
        anchor_ids: ArrayLike | None = None,
        positive_ids: ArrayLike | None = None,
        negative_ids: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> tuple[float | Floats, tuple[Floats, ...]]: ...

    def compute_with_gradients(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike | None = None,
        *,
        wrt: str | tuple[str, ...] = "anchors",
        negative_indices: ArrayLike | None = None,
        anchor_ids: ArrayLike | None = None,
        positive_ids: ArrayLike | None = None,
        negative_ids: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> tuple[Any, Any]:
        """The loss and its gradients.

        Parameters
        ----------
        wrt : str or tuple of str
            The gradients to return: a name gives one, a tuple gives a tuple. Names are "anchors", "positives",
            "negatives", and the loss's learnable parameters. Others are not computed.
        anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids, sample_weight
            As in `compute`.

        Returns
        -------
        value : float, or array of shape (B,) where the reduction is "none"
        gradient : array of its input's shape, a float for a parameter, or a tuple of these

        Raises
        ------
        TypeError, ValueError
            As `compute`, and if `wrt` names something unknown, or negatives where there are none.
        """
        names = parse_wrt(wrt, self.WRT)
        given = anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids
        value, gradients = self._run(self._parsed(given, names, sample_weight), names, sample_weight)
        return value, like_wrt(wrt, gradients)

    def _parsed(self, given: tuple[Any, ...], names: tuple[str, ...], sample_weight: Any, **options: Any) -> Pairs:
        """The arguments of `parse`, checked; with comm, the other arguments are compared between ranks."""
        if self._ranks is None:
            return parse(*given)
        return parse_shared(self._ranks, self, given, names, {"sample_weight": sample_weight, **options})

    def _run(
        self, pairs: Pairs, names: tuple[str, ...], sample_weight: Any, **options: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The value, and the wanted gradients by name; options are passed to the subclass's `_measured`."""
        if "negatives" in names and pairs.negatives is None:
            raise ValueError("wrt names negatives, but negatives is None (in-batch): ask for positives")
        batch = pairs.batch
        if batch is None:
            weights, scale = row_weights(sample_weight, len(pairs.anchors), self.reduction)
        else:
            weights, scale = shared_weights(batch, sample_weight, self.reduction)
        with scratch() as memory:
            if batch is None:
                contrast = self._measured(pairs, weights, names, memory, **options)
            else:
                with batch.ranks.together():
                    contrast = self._measured(pairs, weights, names, memory, **options)
            outcome = self.evaluate(contrast)
            if batch is None:
                value = reduced(outcome.losses, self.reduction, pairs, scale)
            else:
                value = shared_value(outcome.losses, batch, self.reduction, scale, contrast.dtype)
            if not names:
                return value, {}
            gradients, along = contrast.gradients(outcome)
            shaped: dict[str, Any] = {name: pairs.restore(name, g) for name, g in gradients.items()}
            if not INPUTS.issuperset(names):
                shaped |= self.parameter_gradients(contrast.whole(outcome), along)
        return value, shaped

    def _measured(self, pairs: Pairs, weights: np.ndarray, names: tuple[str, ...], memory: Any) -> Contrast:
        return Contrast(pairs, weights, names, memory)
