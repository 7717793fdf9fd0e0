"""Local contrastive loss: penalises distances to positives, and distances below a margin to negatives."""

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.losses import _local_contrastive_graph as graph
from rvtrain.losses import _local_contrastive_kernels as kernels
from rvtrain.losses import _local_pool as pool
from rvtrain.losses._arguments import REDUCTIONS, Pairs, inverse_index, like_wrt, parse, parse_wrt, reduced
from rvtrain.losses._graph import scratch_rows

Floats = NDArray[np.floating]

FORMS = ("pairwise", "triplet")
WRT = ("anchors", "positives", "negatives")


class LocalContrastiveLoss:
    r"""Contrastive loss on Euclidean distances with a margin, pairwise or triplet, with analytic gradients.

    For an anchor a with positive p and negatives n₁ … n_N, and d the Euclidean distance,

    .. math::
        \text{pairwise:} \quad & d(a, p)^2 + \frac{1}{N} \sum_n \max(0, m - d(a, n))^2 \\
        \text{triplet:} \quad & \frac{1}{N} \sum_n \max(0, d(a, p) - d(a, n) + m)

    N is the number of negatives of the anchor, including those whose term is 0. If N = 0, the loss is d(a, p)²
    (pairwise) or 0 (triplet). At distance 0 and at the kink of the maximum the subgradient is 0. For in-batch
    negatives and pools, most distances are computed from dot products, ‖a‖² + ‖n‖² − 2 a · n. They are computed from
    the differences where this sum would cancel, and where a triplet is so near to the kink that its side is not
    certain.

    Parameters
    ----------
    margin : float
        m > 0, typically 1 to 2. May be set between calls.
    reduction : {"mean", "sum", "none"}
        Over the anchors (or edges); "none" gives one value each, and gradients of their sum.
    form : {"pairwise", "triplet"}

    References
    ----------
    Hadsell, Chopra & LeCun (2006), Dimensionality Reduction by Learning an Invariant Mapping, CVPR.
    Schroff, Kalenichenko & Philbin (2015), FaceNet, arXiv:1503.03832.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> loss = rt.LocalContrastiveLoss(margin=1.0)
    >>> anchor, positive, negatives = np.zeros(2), np.array([0.5, 0.0]), np.array([[0.0, 0.75], [3.0, 4.0]])
    >>> loss.compute(anchor, positive, negatives)  # 0.5² + (0.25² + 0) / 2
    0.28125
    >>> loss.compute_with_gradients(anchor, positive, negatives)[1]
    array([-1.  ,  0.25])
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean", form: str = "pairwise") -> None:
        self.margin = margin
        self.reduction = check.choice("reduction", reduction, REDUCTIONS)
        self.form = check.choice("form", form, FORMS)

    @property
    def margin(self) -> float:
        """m, the distance from which on a negative has no loss (pairwise)."""
        return self._margin

    @margin.setter
    def margin(self, value: float) -> None:
        self._margin = check.margin(value)

    def __repr__(self) -> str:
        return f"LocalContrastiveLoss(margin={self.margin:g}, reduction={self.reduction!r}, form={self.form!r})"

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
            Each anchor's own negatives as rows of `negatives`, which is then a pool (M, d). −1 means no negative.
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
        values, _ = self._evaluate(pairs, ())
        return reduced(values, self.reduction, pairs)

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
    ) -> tuple[float | Floats, Floats | tuple[Floats, ...]]:
        """The loss and its gradients.

        Parameters
        ----------
        wrt : {"anchors", "positives", "negatives"} or tuple of these
            The gradients to return: a name gives one, a tuple gives a tuple. Others are not computed.
        anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids
            As in `compute`.

        Returns
        -------
        value : float, or array of shape (B,) where the reduction is "none"
        gradient : array of its input's shape, or a tuple of these

        Raises
        ------
        TypeError, ValueError
            As `compute`, and if `wrt` names something unknown, or negatives where there are none.
        """
        names = parse_wrt(wrt, WRT)
        pairs = parse(anchors, positives, negatives, negative_indices, anchor_ids, positive_ids, negative_ids)
        if "negatives" in names and pairs.negatives is None:
            raise ValueError("wrt names negatives, but negatives is None (in-batch): ask for positives")
        values, gradients = self._evaluate(pairs, names)
        shaped = {name: pairs.restore(name, gradient) for name, gradient in gradients.items()}
        return reduced(values, self.reduction, pairs), like_wrt(wrt, shaped)

    def compute_graph(
        self, embeddings: ArrayLike, edges: graph.Edges, negative_edges: graph.Edges | None = None
    ) -> float | Floats:
        """The loss over edge lists.

        Pairwise: the mean over edges of d² plus the mean over negative edges of max(0, m − d)². Triplet: the
        mean over edges (i, j) of the triplet term, whose negatives are all n with a negative edge (i, n).

        Parameters
        ----------
        embeddings : array of shape (n, d), float32 or float64
            One row for each node.
        edges : integer array of shape (E, 2), E ≥ 1, or Graph
            A `Graph` stands for its edges as they were listed. Weights are ignored.
        negative_edges : integer array of shape (F, 2), or Graph, optional
            Pairs to keep apart. Required by the triplet form.

        Returns
        -------
        float, or an array where the reduction is "none"
            Then one value for each edge; in the pairwise form those of the negative edges follow.

        Raises
        ------
        TypeError
            If embeddings are not float32 or float64, or edges are not integers.
        ValueError
            If shapes do not fit, embeddings or edges are empty, embeddings are not finite, a node is out of
            range, or the triplet form has no negative_edges.

        Examples
        --------
        >>> import numpy as np
        >>> import rvtrain as rt
        >>> embeddings = np.array([[0.0], [0.5], [0.75]])
        >>> rt.LocalContrastiveLoss(margin=1.0).compute_graph(embeddings, [[0, 1]], [[0, 2]])  # 0.5² + 0.25²
        0.3125
        """
        return self._evaluate_graph(embeddings, edges, negative_edges)[0]

    def compute_graph_with_gradients(
        self, embeddings: ArrayLike, edges: graph.Edges, negative_edges: graph.Edges | None = None
    ) -> tuple[float | Floats, Floats]:
        """The loss over edge lists and its gradient to the embeddings.

        Parameters
        ----------
        embeddings, edges, negative_edges
            As in `compute_graph`.

        Returns
        -------
        value : float, or an array where the reduction is "none"
        gradient : array of shape (n, d)

        Raises
        ------
        TypeError, ValueError
            As `compute_graph`.
        """
        value, lengths, slopes = self._evaluate_graph(embeddings, edges, negative_edges)
        return value, graph.gradient(lengths, slopes)

    def _evaluate(self, pairs: Pairs, names: tuple[str, ...]) -> tuple[Floats, dict[str, Floats]]:
        """Losses of the anchors, and the named gradients, in the parsed shapes."""
        weight = 1.0 / len(pairs.anchors) if self.reduction == "mean" else 1.0
        shared = pairs.indices is None and (pairs.negatives is None or pairs.negatives.ndim == 2)
        if shared and len(pairs.anchors) > 1:  # tiles do not pay for a single row, which uses each column once
            losses, gradients = pool.evaluate(pairs, self.margin, self.form == "triplet", weight, names)
            if not np.isfinite(losses).all():
                raise pool.too_far(int(np.argmin(np.isfinite(losses))))
            return losses, gradients
        return self._evaluate_own(self._batch(pairs), pairs, weight, names)

    def _evaluate_own(
        self, batch: kernels.Batch, pairs: Pairs, weight: float, names: tuple[str, ...]
    ) -> tuple[Floats, dict[str, Floats]]:
        """The same for rows with their own negatives."""
        count, dim = pairs.anchors.shape
        losses, scratch = np.empty(count), scratch_rows(count, dim)
        pushes = np.empty(batch.indices.shape if "negatives" in names else (0, batch.indices.shape[1]))
        gradients = {name: np.empty((count if name in names else 0, dim), batch.anchors.dtype) for name in WRT[:2]}
        work = 8 * count * (1 + batch.indices.shape[1]) * dim
        kernels.row_terms.sized(work)(
            len(scratch), batch, weight, scratch, losses, pushes, gradients["anchors"], gradients["positives"]
        )
        if not np.isfinite(losses).all():
            _refuse(batch, int(np.argmin(np.isfinite(losses))))
        if "negatives" in names:
            places, out = _places(pairs, batch), np.zeros_like(batch.pool)
            scratch = scratch_rows(len(places.named), dim)
            kernels.pool_terms.sized(work)(len(scratch), batch.anchors, batch.pool, pushes, places, scratch, out)
            gradients["negatives"] = out if pairs.negatives is None else out.reshape(pairs.negatives.shape)
        return losses, {name: gradients[name] for name in names}

    def _batch(self, pairs: Pairs) -> kernels.Batch:
        """The rows, a pool, and for each row the pool rows that are its negatives."""
        count, dim = pairs.anchors.shape
        negatives = pairs.positives[:0] if pairs.negatives is None else pairs.negatives.reshape(-1, dim)
        indices = pairs.indices
        if indices is None:
            indices = np.arange(len(negatives)).reshape(count, -1)
        column_ids = pairs.column_ids[: len(negatives)] if pairs.negatives is None else pairs.column_ids
        return kernels.Batch(
            pairs.anchors,
            pairs.positives,
            negatives,
            indices,
            pairs.row_ids,
            column_ids.reshape(len(negatives), -1) if len(negatives) else pairs.row_ids[:0],
            self.margin,
            self.form == "triplet",
        )

    def _evaluate_graph(
        self, embeddings: ArrayLike, edges: graph.Edges, negative_edges: graph.Edges | None
    ) -> tuple[float | Floats, graph.Lengths, np.ndarray]:
        """The value, the edges, and the derivatives of the value, or of the sum of the values, by their lengths."""
        if self.form == "triplet" and negative_edges is None:
            raise ValueError("negative_edges must be given in the triplet form, got None")
        lengths = graph.measure(embeddings, edges, negative_edges)
        terms = graph.triplet if self.form == "triplet" else graph.pairwise
        values, slopes = terms(lengths, self.margin)
        if self.reduction == "none":
            return values.astype(lengths.z.dtype), lengths, slopes
        if self.reduction == "mean":
            positive, negative = lengths.positive, len(slopes) - lengths.positive
            of_negative = positive if self.form == "triplet" else max(negative, 1)
            weights = np.repeat([1.0 / positive, 1.0 / of_negative], [positive, negative])
            values *= weights[: len(values)]
            slopes *= weights
        return float(values.sum()), lengths, slopes


def _places(pairs: Pairs, batch: kernels.Batch) -> kernels.Places:
    """Where each pool row that is a negative of any row is used."""
    if pairs.indices is None:
        every = np.arange(len(batch.pool))
        return kernels.Places(every, every, every + 1, every)
    order, bounds, named = inverse_index(batch.indices)
    return kernels.Places(named, bounds[:-1], bounds[1:], order)


def _refuse(batch: kernels.Batch, row: int) -> None:
    """Raise the error that names the input which made distances of this row NaN or infinite."""
    check.finite("anchors", batch.anchors)
    check.finite("positives", batch.positives)
    candidates = batch.indices[row]
    candidates = candidates[candidates >= 0]
    bad = candidates[~np.isfinite(batch.pool[candidates]).all(axis=1)]
    if len(bad):
        raise NotFiniteError(f"negatives must be finite, got a NaN or an infinity in row {bad[0]}")
    raise pool.too_far(row)
