"""Spread regularization: penalises embeddings that fill only a cone of the sphere."""

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._inputs import to_inputs, unscaled
from rvtrain._engine._matmul import product, product_with_transpose, transposed_product
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain.losses import _spread_kernels as kernels
from rvtrain.losses._arguments import like_wrt, parse_wrt
from rvtrain.losses.base import Floats

WRT = ("embeddings",)


class SpreadRegularization:
    r"""Penalty on cosines whose second moment is above that of the uniform distribution on the sphere.

    For n embeddings of dimension d, with c_ij their cosines,

    .. math:: λ \max\Big(0, \frac{1}{n (n - 1)} \sum_{i \ne j} c_{ij}^2 - \frac1d\Big)

    The sum of squares is ‖ẐᵀẐ‖² of the unit rows Ẑ minus the diagonal of ẐẐᵀ, which takes O(n d²) operations and
    O(n d + d²) memory. If n < d, ẐẐᵀ is computed instead, in O(n² d) operations. It is the second-moment term of
    GlobalOrthogonalRegularizationLoss of sentence-transformers, which builds an n × n matrix. The value of a single
    row is 0.

    Parameters
    ----------
    weight : float
        λ ≥ 0. May be set between calls.

    References
    ----------
    Zhang et al. (2017), Learning Spread-out Local Feature Descriptors, arXiv:1708.06320 (GOR). Schechter Vera et al.
    (2025), EmbeddingGemma, arXiv:2509.20354.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> loss = rt.SpreadRegularization()
    >>> loss.compute(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]))  # 2 of 6 cosines are 1: less than 1/2
    0.0
    >>> loss.compute(np.array([[1.0, 0.0], [2.0, 0.0]]))  # 1 − 1/2
    0.5
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    @property
    def weight(self) -> float:
        """λ, the factor of the penalty."""
        return self._weight

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight = check.number("weight", value, low=0.0, high=1e15)

    def __repr__(self) -> str:
        return f"SpreadRegularization(weight={self.weight:g})"

    def compute(self, embeddings: ArrayLike) -> float:
        """The penalty alone.

        Parameters
        ----------
        embeddings : array of shape (n, d), float32 or float64

        Returns
        -------
        float

        Raises
        ------
        TypeError
            If embeddings are not float32 or float64.
        ValueError
            If embeddings do not have two dimensions, are empty or not finite.
        """
        return self._evaluate(embeddings, False)[0]

    @overload
    def compute_with_gradients(self, embeddings: ArrayLike, *, wrt: str = "embeddings") -> tuple[float, Floats]: ...
    @overload
    def compute_with_gradients(
        self, embeddings: ArrayLike, *, wrt: tuple[str, ...]
    ) -> tuple[float, tuple[Floats, ...]]: ...
    def compute_with_gradients(
        self, embeddings: ArrayLike, *, wrt: str | tuple[str, ...] = "embeddings"
    ) -> tuple[float, Floats | tuple[Floats, ...]]:
        """The penalty and its gradient, which is 0 if the penalty is 0.

        Parameters
        ----------
        embeddings
            As in `compute`.
        wrt : "embeddings" or ("embeddings",)

        Returns
        -------
        value : float
        gradient : array of shape (n, d), or a tuple of it

        Raises
        ------
        TypeError, ValueError
            As `compute`, and if `wrt` names something else.
        """
        parse_wrt(wrt, WRT)
        value, gradient = self._evaluate(embeddings, True)
        return value, like_wrt(wrt, {"embeddings": gradient})

    def _evaluate(self, embeddings: ArrayLike, wanted: bool) -> tuple[float, Floats]:
        z = check.readable(check.float_array("embeddings", embeddings, 2))
        inverse = checked_inverse_norms("embeddings", z)
        (count, dim), pairs = z.shape, len(z) * (len(z) - 1)
        unit, squares = np.empty_like(z), np.empty(count)
        kernels.unit_rows.sized(2 * z.size)(count, z, inverse, unit, squares)
        by_rows = count <= dim
        gram = product_with_transpose(unit, unit) if by_rows else transposed_product(unit, None, unit)
        squared = np.empty(len(gram))
        kernels.row_squares.sized(2 * gram.size)(len(gram), gram, by_rows, squared)
        own: NDArray[np.float64] = np.zeros(count) if by_rows else squares
        excess = (float(squared.sum()) - float((own * own).sum())) / max(pairs, 1) - 1.0 / dim
        if not (wanted and excess > 0.0):
            return self.weight * max(excess, 0.0), np.zeros_like(z)
        factor = 4.0 * self.weight / pairs
        gram *= z.dtype.type(factor)
        sums = product(gram, None, unit) if by_rows else product(unit, None, gram)
        gradient, _ = to_inputs(sums, Rows(z, inverse), -factor * own, unscaled(unit))
        return self.weight * excess, gradient
