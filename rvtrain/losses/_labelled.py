"""Base class of losses on labelled embeddings, each compared with all others."""

from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain._engine._scratch import Scratch, scratch
from rvtrain.losses._arguments import REDUCTIONS, like_wrt, parse_wrt
from rvtrain.losses.base import Floats


class LabelledLoss:
    """Base of losses on embeddings (n, d) and their labels (n,).

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Over the rows; "none" gives one value each (and gradients of their sum).
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = check.choice("reduction", reduction, REDUCTIONS)

    def _evaluate(
        self, rows: Rows, labels: np.ndarray, gradient: bool, memory: Scratch
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Losses (n,), their weights in the total, and the gradient to the embeddings."""
        raise NotImplementedError

    def compute(self, embeddings: ArrayLike, labels: ArrayLike) -> float | Floats:
        """The loss alone.

        Parameters
        ----------
        embeddings : array of shape (n, d), float32 or float64
        labels : integer array of shape (n,)

        Returns
        -------
        float, or array of shape (n,) where the reduction is "none"

        Raises
        ------
        TypeError
            If embeddings are not float32 or float64, or labels are not integers.
        ValueError
            If shapes do not fit, or embeddings are empty or not finite.
        """
        return self._run(embeddings, labels, False)[0]

    @overload
    def compute_with_gradients(
        self, embeddings: ArrayLike, labels: ArrayLike, *, wrt: str = "embeddings"
    ) -> tuple[float | Floats, Floats]: ...

    @overload
    def compute_with_gradients(
        self, embeddings: ArrayLike, labels: ArrayLike, *, wrt: tuple[str, ...]
    ) -> tuple[float | Floats, tuple[Floats, ...]]: ...

    def compute_with_gradients(
        self, embeddings: ArrayLike, labels: ArrayLike, *, wrt: str | tuple[str, ...] = "embeddings"
    ) -> tuple[Any, Any]:
        """The loss and its gradient.

        Parameters
        ----------
        embeddings, labels
            As in `compute`.
        wrt : "embeddings" or tuple of it
            A name returns one gradient, a tuple returns a tuple.

        Returns
        -------
        value : float, or array of shape (n,) where the reduction is "none"
        gradient : array of shape (n, d)

        Raises
        ------
        TypeError, ValueError
            As `compute`.
        """
        parse_wrt(wrt, ("embeddings",))
        value, gradient = self._run(embeddings, labels, True)
        return value, like_wrt(wrt, {"embeddings": gradient})

    def _run(self, embeddings: ArrayLike, labels: ArrayLike, gradient: bool) -> tuple[Any, Any]:
        rows, codes = parse_labelled("embeddings", embeddings, "labels", labels)
        with scratch() as memory:
            losses, weights, out = self._evaluate(rows, codes, gradient, memory)
        return total(losses, weights, self.reduction, rows.x.dtype), out


def parse_labelled(name: str, x: ArrayLike, labels_name: str, labels: ArrayLike) -> tuple[Rows, np.ndarray]:
    """Check embeddings and their labels, and compute the inverse norms."""
    array = check.readable(check.float_array(name, x, 2))
    codes = check.integer_array(labels_name, labels, (len(array),))
    return Rows(array, checked_inverse_norms(name, array)), codes


def total(losses: np.ndarray, weights: np.ndarray, reduction: str, dtype: np.dtype) -> Any:
    """Reduce losses by mean, sum or none; `weights` are the weights of the rows in the mean, which sum to 1."""
    if reduction == "none":
        return losses.astype(dtype)
    return float((losses * weights).sum())


def mean_weights(counted: np.ndarray, reduction: str) -> np.ndarray:
    """Weight of each row's loss: 1 / (number of counted rows) for a mean, else 1; 0 for rows not counted."""
    count = np.count_nonzero(counted)
    return counted / max(count, 1) if reduction == "mean" else counted.astype(np.float64)
