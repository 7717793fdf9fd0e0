"""Losses that teach embeddings the scores of another model: MarginMSE, KL divergence, ListNet."""

from typing import ClassVar, overload

from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain.losses import _distillation_kernels as kernels
from rvtrain.losses._arguments import REDUCTIONS, Pairs, like_wrt, parse_wrt, reduced, row_weights
from rvtrain.losses._distillation_call import evaluate, parse_lists
from rvtrain.losses.base import Floats

WRT = ("anchors", "positives", "negatives")
SIMILARITIES = ("cosine", "dot")


class TeacherLoss:
    """Base of losses on a teacher's scores of lists; a list is an anchor's positive and its negatives."""

    _kind: ClassVar[int]
    temperature: float = 1.0

    def __init__(self, reduction: str, similarity: str) -> None:
        self.reduction = check.choice("reduction", reduction, REDUCTIONS)
        self.similarity = check.choice("similarity", similarity, SIMILARITIES)

    def compute(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike,
        teacher_scores: ArrayLike,
        *,
        negative_indices: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float | Floats:
        """The loss alone.

        Parameters
        ----------
        anchors, positives : array of shape (B, d), or (d,) for one anchor
            float32 or float64, as `negatives`; mixed types are promoted.
        negatives : array of shape (B, N, d), (N, d) or (M, d)
            Each anchor's own, one pool shared by all anchors, or the pool that `negative_indices` index. For one
            anchor: (N, d).
        teacher_scores : array of shape (B, 1 + N), or (1 + N,) for one anchor
            Any numbers: the teacher's score of the positive first, then its scores of the negatives in their order,
            as in sentence-transformers. Where an index is −1, the score is ignored.
        negative_indices : integer array of shape (B, N), or (N,) for one anchor, optional
            Rows of `negatives`; −1 means no negative.
        sample_weight : array of shape (B,), optional
            Weights of the anchors, ≥ 0: for a weighted mean, a weighted sum, or weighted values.

        Returns
        -------
        float, or array of shape (B,) if the reduction is "none"

        Raises
        ------
        TypeError
            If an array is not float32 or float64, the teacher's scores are not numbers, or indices not integers.
        ValueError
            If shapes do not fit, something is empty or not finite, or an index is out of range.
        """
        lists = parse_lists(anchors, positives, negatives, negative_indices, teacher_scores)
        return self._evaluate(*lists, sample_weight, ())[0]

    @overload
    def compute_with_gradients(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike,
        teacher_scores: ArrayLike,
        *,
        wrt: str = "anchors",
        negative_indices: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> tuple[float | Floats, Floats]: ...
    @overload
    def compute_with_gradients(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike,
        teacher_scores: ArrayLike,
        *,
        wrt: tuple[str, ...],
        negative_indices: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> tuple[float | Floats, tuple[Floats, ...]]: ...
    def compute_with_gradients(
        self,
        anchors: ArrayLike,
        positives: ArrayLike,
        negatives: ArrayLike,
        teacher_scores: ArrayLike,
        *,
        wrt: str | tuple[str, ...] = "anchors",
        negative_indices: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> tuple[float | Floats, Floats | tuple[Floats, ...]]:
        """The loss and its gradients.

        Parameters
        ----------
        anchors, positives, negatives, teacher_scores, negative_indices, sample_weight
            As in `compute`.
        wrt : {"anchors", "positives", "negatives"} or tuple of these
            The gradients to return: a name gives one, a tuple gives a tuple. Others are not computed.

        Returns
        -------
        value : float, or array of shape (B,) if the reduction is "none"
        gradient : array of its input's shape, or a tuple of these

        Raises
        ------
        TypeError, ValueError
            As `compute`, and if `wrt` names something unknown.
        """
        names = parse_wrt(wrt, WRT)
        lists = parse_lists(anchors, positives, negatives, negative_indices, teacher_scores)
        value, gradients = self._evaluate(*lists, sample_weight, names)
        return value, like_wrt(wrt, gradients)

    def _evaluate(
        self, pairs: Pairs, teacher: Floats, sample_weight: ArrayLike | None, names: tuple[str, ...]
    ) -> tuple[float | Floats, dict[str, Floats]]:
        weights, scale = row_weights(sample_weight, len(pairs.anchors), self.reduction)
        rule = kernels.Rule(self._kind, self.temperature, self.similarity == "cosine")
        losses, gradients = evaluate(pairs, teacher, weights, rule, names)
        value = reduced(losses, self.reduction, pairs, scale)
        return value, {name: pairs.restore(name, g) for name, g in gradients.items()}


class MarginMSELoss(TeacherLoss):
    r"""Mean squared error of the margins of the positive over each negative, against a teacher's margins.

    For an anchor with scores c⁺ and c₁ … c_N, and its teacher's t⁺ and t₁ … t_N,

    .. math:: \ell = \frac1N \sum_k \big((c^+ - c_k) - (t^+ - t_k)\big)^2

    N counts the negatives present; without any, ℓ is 0.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Over the anchors; "none" gives one value each, and gradients of their sum.
    similarity : {"cosine", "dot"}
        The scores c. sentence-transformers takes dot products by default, because margins of a cross-encoder may
        exceed 2, the greatest difference of two cosines.

    References
    ----------
    Hofstätter et al. (2020), Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation, arXiv:2010.02666.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> anchor, positive, negatives = np.array([1.0, 0.0]), np.array([2.0, 0.0]), np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> rt.MarginMSELoss().compute(anchor, positive, negatives, [0.9, 0.4, 0.4])  # ((1 − 0.5)² + (2 − 0.5)²) / 2
    1.25
    """

    _kind = kernels.MARGIN

    def __init__(self, reduction: str = "mean", *, similarity: str = "cosine") -> None:
        super().__init__(reduction, similarity)

    def __repr__(self) -> str:
        return f"MarginMSELoss(reduction={self.reduction!r}, similarity={self.similarity!r})"


class _SoftenedLoss(TeacherLoss):
    """A loss on softmaxes of scores at a temperature."""

    def __init__(self, temperature: float = 1.0, reduction: str = "mean", *, similarity: str = "cosine") -> None:
        super().__init__(reduction, similarity)
        self.temperature = temperature

    @property
    def temperature(self) -> float:
        """T, the divisor of the scores of both models. May be set between calls."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = check.temperature(value)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(temperature={self.temperature:g}, reduction={self.reduction!r}, "
            f"similarity={self.similarity!r})"
        )


class DistillKLLoss(_SoftenedLoss):
    r"""Kullback-Leibler divergence of the softmax of an anchor's scores from that of its teacher's.

    With p = softmax(t / T) and q = softmax(c / T) over the positive and the negatives present,

    .. math:: \ell = T^2 \sum_k p_k \log \frac{p_k}{q_k}

    The factor T² keeps the size of the gradients independent of T (Hinton et al. 2015). As in sentence-transformers,
    the mean is over anchors ("batchmean"), and both models have the same T.

    Parameters
    ----------
    temperature : float
        T > 0. May be set between calls.
    reduction : {"mean", "sum", "none"}
        Over the anchors; "none" gives one value each, and gradients of their sum.
    similarity : {"cosine", "dot"}
        The scores c. sentence-transformers takes dot products by default.

    References
    ----------
    Lin, Yang & Lin (2020), Distilling Dense Representations for Ranking using Tightly-Coupled Teachers,
    arXiv:2010.11386. Hinton, Vinyals & Dean (2015), Distilling the Knowledge in a Neural Network, arXiv:1503.02531.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> anchor, positive, negatives = np.array([1.0, 0.0]), np.array([2.0, 0.0]), np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> rt.DistillKLLoss().compute(anchor, positive, negatives, [3.0, 2.0, 1.0])  # the same differences as 1, 0, −1
    0.0
    """

    _kind = kernels.DIVERGENCE


class ListNetLoss(_SoftenedLoss):
    r"""ListNet: cross-entropy of the softmax of an anchor's scores to that of its teacher's.

    With p = softmax(t / T) and q = softmax(c / T) over the positive and the negatives present,

    .. math:: \ell = -\sum_k p_k \log q_k

    The teacher's scores may be relevance grades. As in sentence-transformers, where T is 1, the mean is over anchors.

    Parameters
    ----------
    temperature : float
        T > 0. May be set between calls.
    reduction : {"mean", "sum", "none"}
        Over the anchors; "none" gives one value each, and gradients of their sum.
    similarity : {"cosine", "dot"}
        The scores c. sentence-transformers uses scores of a cross-encoder instead.

    References
    ----------
    Cao et al. (2007), Learning to Rank: From Pairwise Approach to Listwise Approach, ICML.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> anchor, positive, negatives = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([[0.0, 2.0]])
    >>> round(rt.ListNetLoss().compute(anchor, positive, negatives, [5.0, 1.0]), 6)  # log 2: q is even
    0.693147
    """

    _kind = kernels.ENTROPY
