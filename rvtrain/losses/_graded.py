"""Losses on graded pairs: their cosines should agree with given scores in value or in order."""

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._norms import measured_pairs
from rvtrain.losses import _graded_kernels as kernels
from rvtrain.losses._arguments import REDUCTIONS, Pairs, like_wrt, parse_wrt, reduced
from rvtrain.losses.base import Floats

WRT = ("a", "b")
Doubles = NDArray[np.float64]


class GradedLoss:
    """Base of losses on graded pairs."""

    reduction: str = "sum"

    def compute(self, a: ArrayLike, b: ArrayLike, scores: ArrayLike) -> float | Floats:
        """The loss alone.

        Parameters
        ----------
        a, b : array of shape (n, d), or (d,) for one pair
            float32 or float64; mixed types are promoted. Row i of a and row i of b are a pair.
        scores : array of shape (n,), or a number for one pair
            Similarities of the pairs, any numbers.

        Returns
        -------
        float, or array of shape (n,) if the loss has a reduction and it is "none"

        Raises
        ------
        TypeError
            If a or b is not float32 or float64, or scores are not numbers.
        ValueError
            If shapes do not fit, or something is empty or not finite.
        """
        return self._evaluate(a, b, scores, ())[0]

    @overload
    def compute_with_gradients(
        self, a: ArrayLike, b: ArrayLike, scores: ArrayLike, *, wrt: str = "a"
    ) -> tuple[float | Floats, Floats]: ...
    @overload
    def compute_with_gradients(
        self, a: ArrayLike, b: ArrayLike, scores: ArrayLike, *, wrt: tuple[str, ...]
    ) -> tuple[float | Floats, tuple[Floats, ...]]: ...
    def compute_with_gradients(
        self, a: ArrayLike, b: ArrayLike, scores: ArrayLike, *, wrt: str | tuple[str, ...] = "a"
    ) -> tuple[float | Floats, Floats | tuple[Floats, ...]]:
        """The loss and its gradients.

        Parameters
        ----------
        a, b, scores
            As in `compute`.
        wrt : {"a", "b"} or tuple of these
            The gradients to return: a name gives one, a tuple gives a tuple.

        Returns
        -------
        value : float, or array of shape (n,) if the loss has a reduction and it is "none"
        gradient : array of its input's shape, or a tuple of these

        Raises
        ------
        TypeError, ValueError
            As `compute`, and if `wrt` names something unknown.
        """
        value, gradients = self._evaluate(a, b, scores, parse_wrt(wrt, WRT))
        return value, like_wrt(wrt, gradients)

    def _evaluate(
        self, a: ArrayLike, b: ArrayLike, scores: ArrayLike, names: tuple[str, ...]
    ) -> tuple[float | Floats, dict[str, Floats]]:
        first = check.float_array("a", a, (1, 2))
        second = check.float_array("b", b, first.ndim)
        check.same_shape("b", second, "a", first.shape)
        grades = check.stored_array("scores", scores, first.ndim - 1)
        check.same_shape("scores", grades, "a without its last axis", first.shape[:-1])
        check.finite("scores", grades)
        single, grades = first.ndim == 1, np.atleast_1d(grades).astype(np.float64)
        x, y = check.promoted(np.atleast_2d(first), np.atleast_2d(second))
        of_x, of_y, cosines = measured_pairs("a", x, "b", y)
        losses, slopes = self._terms(cosines, grades)
        no_ids = np.empty((len(x), 0), np.int64)
        pairs = Pairs(x, y, None, None, no_ids, no_ids, single)
        gradients = {}
        for name, rows, others in (("a", Rows(x, of_x), Rows(y, of_y)), ("b", Rows(y, of_y), Rows(x, of_x))):
            if name in names:
                gradients[name] = np.empty_like(x)
                kernels.pair_gradients.sized(6 * x.size)(len(x), slopes, cosines, rows, others, gradients[name])
        value = reduced(losses, self.reduction, pairs)
        return value, {name: pairs.restore(name, gradient) for name, gradient in gradients.items()}

    def _terms(self, cosines: Doubles, grades: Doubles) -> tuple[Doubles, Doubles]:
        """Losses, and the derivatives of the reduced value by the cosines; subclasses define it."""
        raise NotImplementedError


class CoSENTLoss(GradedLoss):
    r"""CoSENT: pairs with a higher score should have a higher cosine, over all pairs of pairs.

    With c the cosines and y the scores of the pairs,

    .. math:: \ell = \log\Big(1 + \sum_{y_i < y_j} e^{λ (c_i - c_j)}\Big)

    Only the order of the scores matters, and pairs with equal scores are not compared. The sum over i is a running
    sum along the sorted scores, so n pairs take O(n log n) time and O(n) memory. There is one value for all pairs,
    and therefore no reduction. It agrees with CoSENTLoss of sentence-transformers, which builds an n × n matrix.

    Parameters
    ----------
    scale : float
        λ > 0, the inverse of a temperature. May be set between calls.

    References
    ----------
    Huang et al. (2024), CoSENT: Consistent Sentence Embedding via Similarity Ranking, IEEE/ACM TASLP,
    doi:10.1109/TASLP.2024.3402087.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> a = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> b = np.array([[0.0, 1.0], [0.0, 2.0]])  # both cosines are 0, the first should be lower
    >>> round(rt.CoSENTLoss(scale=20.0).compute(a, b, [0.1, 0.9]), 6)  # log(1 + e⁰)
    0.693147
    """

    def __init__(self, scale: float = 20.0) -> None:
        self.scale = scale

    @property
    def scale(self) -> float:
        """λ, the factor of the cosines."""
        return self._scale

    @scale.setter
    def scale(self, value: float) -> None:
        self._scale = check.number("scale", value, low=1e-15, high=1e15)

    def __repr__(self) -> str:
        return f"CoSENTLoss(scale={self.scale:g})"

    def _terms(self, cosines: Doubles, grades: Doubles) -> tuple[Doubles, Doubles]:
        value, slopes = np.empty(1), np.empty(len(cosines))
        order = np.argsort(grades, kind="stable")
        kernels.cosent_terms.serial(order, grades, cosines, self.scale, slopes, value)
        return value, slopes


class CosineSimilarityLoss(GradedLoss):
    r"""Squared error of the cosine of each pair against its score.

    .. math:: \ell_i = (\cos(a_i, b_i) - y_i)^2

    The mean over the pairs is the mean squared error, as in CosineSimilarityLoss of sentence-transformers. Scores are
    not rescaled: bring them into [−1, 1], the range of cosines, before the call.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Over the pairs; "none" gives one value each, and gradients of their sum.

    References
    ----------
    Reimers & Gurevych (2019), Sentence-BERT, arXiv:1908.10084 (the regression objective).

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> loss = rt.CosineSimilarityLoss()
    >>> loss.compute(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]), [-0.5])  # (0 + 0.5)²
    0.25
    >>> loss.compute_with_gradients(np.array([1.0, 0.0]), np.array([0.0, 2.0]), -0.5)[1]
    array([0., 1.])
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = check.choice("reduction", reduction, REDUCTIONS)

    def __repr__(self) -> str:
        return f"CosineSimilarityLoss(reduction={self.reduction!r})"

    def _terms(self, cosines: Doubles, grades: Doubles) -> tuple[Doubles, Doubles]:
        errors = cosines - grades
        return errors * errors, errors * (2.0 / len(errors) if self.reduction == "mean" else 2.0)
