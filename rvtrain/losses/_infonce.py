"""InfoNCE: tell the positive from the negatives by a softmax over cosines."""

from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain._primitives._norms import checked_unit_rows
from rvtrain._primitives._products import add_weighted_columns, row_products, weighted_rows
from rvtrain.losses import _infonce_kernels as kernels
from rvtrain.losses._arguments import REDUCTIONS, Pairs, like_wrt, parse, parse_wrt, reduced

WRT = ("anchors", "positives", "negatives", "temperature")
# Scores held at a time: a slab of rows that stays in the second-level cache, never the square matrix.
_SLAB_SCORES = 1 << 17


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
    array([[ 0.    , -0.1345],
           [-0.1345,  0.    ]])
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
        self._temperature = check.number("temperature", value, low=0.0, open_low=True)

    def __repr__(self) -> str:
        return (
            f"InfoNCELoss(temperature={self.temperature:g}, reduction={self.reduction!r}, "
            f"symmetric={self.symmetric})"
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
            A negative that shares an id with the row's anchor or positive is not counted. In-batch, a row's
            positive carries both of its row's ids.

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
        call = _Call(pairs, self.temperature, 1.0 / len(pairs.anchors) if self.reduction == "mean" else 1.0)
        if pairs.negatives is None:
            return call.in_batch(names, self.symmetric)
        if pairs.negatives.ndim == 2 and pairs.indices is None:
            return call.pool(names)
        return call.gathered(names)


class _Call:
    """One evaluation: the normalised inputs, and a method for each place that negatives come from."""

    def __init__(self, pairs: Pairs, temperature: float, weight: float) -> None:
        self.pairs = pairs
        self.temperature = temperature
        self.weight = weight
        self.units, self.norms = checked_unit_rows("anchors", pairs.anchors)
        self.positive_units, self.positive_norms = checked_unit_rows("positives", pairs.positives)
        self.positives = np.empty(len(self.units))
        kernels.paired_cosines.sized(2 * self.units.size)(self.units, self.positive_units, self.positives)

    def in_batch(self, names: tuple[str, ...], symmetric: bool) -> tuple[np.ndarray, dict[str, Any]]:
        """Negatives of row i: the other rows' positives."""
        to_anchors, to_positives = _wants(names, "anchors", "temperature"), "positives" in names
        a, p = self.units, self.positive_units
        losses, slopes, ga, gp = self._slabs(a, p, True, to_anchors, to_positives)
        if symmetric:
            back, back_slopes, gp_back, ga_back = self._slabs(p, a, True, to_positives, to_anchors)
            losses, slopes = (losses + back) / 2, (slopes + back_slopes) / 2
            ga, gp = (ga + ga_back) / 2, (gp + gp_back) / 2
        return losses, self._gradients(names, slopes, ga, gp)

    def pool(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Negatives shared by all rows."""
        negatives = self.pairs.negatives
        assert negatives is not None
        units, norms = checked_unit_rows("negatives", negatives)
        to_anchors, to_negatives = _wants(names, "anchors", "temperature"), "negatives" in names
        losses, slopes, ga, gn = self._slabs(self.units, units, False, to_anchors, to_negatives)
        gradients = self._gradients(names, slopes, ga, np.zeros_like(self.units))
        if to_negatives:
            kernels.through_normalisation.sized(8 * gn.size)(units, norms, gn)
            gradients["negatives"] = gn
        return losses, gradients

    def gathered(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Each row's own negatives: rows of a pool, by index; (B, N, d) is such a pool, laid out in order."""
        pairs = self.pairs
        assert pairs.negatives is not None
        dim = pairs.anchors.shape[1]
        pool = pairs.negatives.reshape(-1, dim)
        ids = pairs.column_ids.reshape(len(pool), -1)
        indices = pairs.indices
        if indices is None:
            indices = np.arange(len(pool)).reshape(pairs.negatives.shape[:2])
        work = 4 * indices.size * dim
        slopes_in = np.empty(indices.shape, self.units.dtype)
        norms = np.empty(indices.shape)
        kernels.gathered_cosines.sized(work)(self.units, pool, indices, slopes_in, norms)
        if not np.isfinite(norms).all():
            _raise_gathered(indices, norms)
        if pairs.row_ids.size and ids.size:
            same = pairs.row_ids[:, np.newaxis, :, np.newaxis] == ids[indices][:, :, np.newaxis, :]
            slopes_in[same.any(axis=(2, 3))] = -np.inf
        losses, slopes = self._contrast(slopes_in, self.positives)
        ga = np.zeros_like(self.units)
        if _wants(names, "anchors", "temperature"):
            kernels.gathered_anchor_gradient.sized(work)(slopes_in, pool, indices, norms, ga)
        gradients = self._gradients(names, slopes, ga, np.zeros_like(self.units))
        if "negatives" in names:
            flat = indices.ravel()
            order = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
            rows, first = np.unique(flat[order], return_index=True)
            gn = np.zeros_like(pool)
            kernels.gathered_negative_gradient.sized(work)(
                slopes_in, self.units, pool, order, np.append(first, len(order)), rows, gn
            )
            gradients["negatives"] = gn.reshape(pairs.negatives.shape)
        return losses, gradients

    def _slabs(
        self, rows: np.ndarray, columns: np.ndarray, in_batch: bool, to_rows: bool, to_columns: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Every row against every column: losses, slopes of the positives, gradients to both sides.

        The scores exist one slab of rows at a time.
        """
        losses, slopes = np.empty(len(rows)), np.empty(len(rows), rows.dtype)
        to_r, to_c = np.zeros_like(rows), np.zeros_like(columns)
        order, starts, stops = _equal_ids(self.pairs.row_ids, self.pairs.column_ids)
        height = max(8, _SLAB_SCORES // len(columns))
        for start in range(0, len(rows), height):
            part = slice(start, min(start + height, len(rows)))
            scores = np.empty((part.stop - start, len(columns)), rows.dtype)
            work = scores.size * rows.shape[1]
            row_products.sized(work)(rows[part], columns, scores)
            kernels.hide.sized(scores.size)(scores, start, in_batch, order, starts, stops)
            losses[part], slopes[part] = self._contrast(scores, self.positives[part])
            if to_rows:
                weighted_rows.sized(work)(scores, columns, to_r[part])
            if to_columns:
                add_weighted_columns.sized(work)(scores, rows[part], to_c)
        return losses, slopes, to_r, to_c

    def _contrast(self, cosines: np.ndarray, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        losses, slopes = np.empty(len(cosines)), np.empty(len(cosines), cosines.dtype)
        kernels.contrast.sized(20 * cosines.size)(
            cosines, positives, self.temperature, self.weight, losses, slopes
        )
        return losses, slopes

    def _gradients(
        self, names: tuple[str, ...], slopes: np.ndarray, ga: np.ndarray, gp: np.ndarray
    ) -> dict[str, Any]:
        """Add the positives' part to the gradients of the units, and take them back to the inputs."""
        gradients: dict[str, Any] = {}
        work = 8 * ga.size
        if _wants(names, "anchors", "temperature"):
            kernels.add_positives.sized(work)(slopes, self.positive_units, ga)
        if "temperature" in names:
            slope = np.einsum("id,id->", self.units, ga, dtype=np.float64)
            gradients["temperature"] = -float(slope) / self.temperature
        if "anchors" in names:
            kernels.through_normalisation.sized(work)(self.units, self.norms, ga)
            gradients["anchors"] = ga
        if "positives" in names:
            kernels.add_positives.sized(work)(slopes, self.units, gp)
            kernels.through_normalisation.sized(work)(self.positive_units, self.positive_norms, gp)
            gradients["positives"] = gp
        return gradients


def _wants(names: tuple[str, ...], *options: str) -> bool:
    return any(option in names for option in options)


def _equal_ids(row_ids: np.ndarray, column_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each row the columns that share an id with it, as segments order[starts[i, r]: stops[i, r]].

    row_ids (B, r), column_ids (N, c). Memory is linear even if all ids are equal.
    """
    flat = column_ids.ravel()
    by_id = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[by_id], row_ids, side="left")
    stops = np.searchsorted(flat[by_id], row_ids, side="right")
    return by_id // max(column_ids.shape[1], 1), starts, stops


def _raise_gathered(indices: np.ndarray, norms: np.ndarray) -> None:
    row = indices[~np.isfinite(norms)][0]
    raise ValueError(f"negatives must be finite, got a NaN or an infinity in row {row}")
