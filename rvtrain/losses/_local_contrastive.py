"""Local contrastive loss: near what is alike, at least a margin from what is not."""

from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.losses import _local_contrastive_graph as graph
from rvtrain.losses import _local_contrastive_kernels as kernels
from rvtrain.losses._arguments import REDUCTIONS, Pairs, inverse_index, like_wrt, parse, parse_wrt, reduced
from rvtrain.losses._graph import scratch_rows

FORMS = ("pairwise", "triplet")
WRT = ("anchors", "positives", "negatives")


class LocalContrastiveLoss:
    r"""Contrastive loss on Euclidean distances with a margin, pairwise or triplet, with analytic gradients.

    For an anchor a with positive p and negatives n₁ … n_N, and d the Euclidean distance,

    .. math::
        \text{pairwise:} \quad & d(a, p)^2 + \frac{1}{N} \sum_n \max(0, m - d(a, n))^2 \\
        \text{triplet:} \quad & \frac{1}{N} \sum_n \max(0, d(a, p) - d(a, n) + m)

    N counts the negatives present, active or not; without any, the loss is d(a, p)², or 0 as a triplet. At
    distance 0 and at the kink the subgradient is 0. Distances come from differences, not from an expansion
    into dot products, which would lose the small ones.

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
        """m, the distance that negatives are to keep."""
        return self._margin

    @margin.setter
    def margin(self, value: float) -> None:
        self._margin = check.margin(value)

    def __repr__(self) -> str:
        return f"LocalContrastiveLoss(margin={self.margin:g}, reduction={self.reduction!r}, form={self.form!r})"

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
            Each anchor's own negatives as rows of `negatives`, which is then a pool (M, d). −1: none there.
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
        wrt : {"anchors", "positives", "negatives"} or tuple of these
            Which gradients: a name gives one, a tuple gives a tuple. Only what is asked for is computed.
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

    def compute_graph(self, embeddings: Any, edges: Any, negative_edges: Any = None) -> Any:
        """The loss over edge lists.

        Pairwise: the mean over edges of d² plus the mean over negative edges of max(0, m − d)². Triplet: the
        mean over edges (i, j) of the triplet term, whose negatives are all n with a negative edge (i, n).

        Parameters
        ----------
        embeddings : array of shape (n, d), float32 or float64
            One row for each node.
        edges : integer array of shape (E, 2), E ≥ 1
        negative_edges : integer array of shape (F, 2), optional
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
        self, embeddings: Any, edges: Any, negative_edges: Any = None
    ) -> tuple[Any, np.ndarray]:
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

    def _evaluate(self, pairs: Pairs, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Losses of the anchors, and the gradients named, in the parsed shapes."""
        batch = self._batch(pairs)
        count, dim = pairs.anchors.shape
        weight = 1.0 / count if self.reduction == "mean" else 1.0
        losses, reaches, shares = np.empty((3, count))
        gradients = {}
        for name, array in (("anchors", batch.anchors), ("positives", batch.positives)):
            gradients[name] = np.empty_like(array) if name in names else array[:0].copy()
        work = 8 * count * (1 + batch.indices.shape[1]) * dim
        scratch = scratch_rows(count, dim)
        kernels.row_terms.sized(work)(
            len(scratch),
            batch,
            weight,
            scratch,
            losses,
            reaches,
            shares,
            gradients["anchors"],
            gradients["positives"],
        )
        if not np.isfinite(losses).all():
            _refuse(batch, int(np.argmin(np.isfinite(losses))))
        if "negatives" in names:
            gradients["negatives"] = np.zeros_like(batch.pool)
        to_pool = "positives" if batch.in_batch else "negatives"
        if to_pool in names:
            columns = _columns(pairs, batch)
            scratch = scratch_rows(len(columns.named), dim)
            kernels.column_terms.sized(work)(
                len(scratch), batch, reaches, shares, columns, scratch, gradients[to_pool]
            )
        if pairs.negatives is not None and "negatives" in names:
            gradients["negatives"] = gradients["negatives"].reshape(pairs.negatives.shape)
        return losses, {name: gradients[name] for name in names}

    def _batch(self, pairs: Pairs) -> kernels.Batch:
        """The four places that negatives come from, as rows of one pool."""
        dim = pairs.anchors.shape[1]
        pool = pairs.positives if pairs.negatives is None else pairs.negatives.reshape(-1, dim)
        indices = pairs.indices
        if indices is None:
            own = pairs.negatives is not None and pairs.negatives.ndim == 3
            indices = np.arange(len(pool)).reshape(len(pairs.anchors) if own else 1, -1)
        column_ids = pairs.column_ids.reshape(len(pool), -1)
        return kernels.Batch(
            pairs.anchors,
            pairs.positives,
            pool,
            indices,
            pairs.row_ids,
            column_ids,
            pairs.negatives is None,
            self.margin,
            self.form == "triplet",
        )

    def _evaluate_graph(
        self, embeddings: Any, edges: Any, negative_edges: Any
    ) -> tuple[Any, graph.Lengths, np.ndarray]:
        """The value, the edges, and the derivatives of what is returned by their lengths."""
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


def _columns(pairs: Pairs, batch: kernels.Batch) -> kernels.Columns:
    """For each pool row that is anyone's negative, whose."""
    count = len(pairs.anchors)
    if len(batch.indices) == 1 and pairs.indices is None:
        every = np.arange(len(batch.pool))
        return kernels.Columns(every, np.zeros_like(every), np.full_like(every, count), np.arange(count))
    order, bounds, named = inverse_index(batch.indices)
    return kernels.Columns(named, bounds[:-1], bounds[1:], order // max(batch.indices.shape[1], 1))


def _refuse(batch: kernels.Batch, row: int) -> None:
    """Name what made the distances of this row NaN or infinite."""
    check.finite("anchors", batch.anchors)
    check.finite("positives", batch.positives)
    candidates = batch.indices[row % len(batch.indices)]
    candidates = candidates[candidates >= 0]
    bad = candidates[~np.isfinite(batch.pool[candidates]).all(axis=1)]
    if len(bad):
        raise NotFiniteError(f"negatives must be finite, got a NaN or an infinity in row {bad[0]}")
    raise NotFiniteError(
        f"anchors must be within 1e150 of positives and negatives, got a longer distance in row {row}"
    )
