"""A linear map of embeddings."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._matmul import product, product_with_transpose, transposed_product
from rvtrain.training import _closed_forms
from rvtrain.training._adapters import Adapter, Saved, random_weight
from rvtrain.training._models import Floats, Params


class LinearAdapter(Adapter):
    r"""A linear map of embeddings, that starts as the identity where it can.

    .. math:: f(x) = x W + b, \qquad f(x) = x + x W + b \text{ with a residual}, \qquad W = A B \text{ at low rank}

    With a residual, W (or B) starts at zero, so that weight decay pulls towards the identity; without, W is random.
    `procrustes`, `ridge`, `pca` and `whiten` make an adapter from data by a formula, for use or as a start.

    Parameters
    ----------
    in_features : int
    out_features : int, optional
        None: as many.
    rank : int, optional
        W = A B with A (in_features, rank) and B (rank, out_features).
    bias : bool
    residual : bool, optional
        None: where both sizes are equal.
    seed : int
    dtype : float32 or float64

    Attributes
    ----------
    params : dict of arrays
        ``weight``, or ``down`` and ``up``; ``bias``.

    References
    ----------
    Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models, ICLR, for the low rank.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> adapter = rt.LinearAdapter(3)
    >>> x = np.array([[1.0, 2.0, 3.0]], np.float32)
    >>> y, saved = adapter.forward(x)
    >>> y
    array([[1., 2., 3.]], dtype=float32)
    >>> adapter.backward(saved, np.ones_like(y))["weight"]
    array([[1., 1., 1.],
           [2., 2., 2.],
           [3., 3., 3.]], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int | None = None,
        *,
        rank: int | None = None,
        bias: bool = False,
        residual: bool | None = None,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._begin(in_features, out_features, residual, dtype)
        self.rank = None if rank is None else check.integer("rank", rank, low=1)
        self.bias = check.flag("bias", bias)
        rng = np.random.default_rng(check.integer("seed", seed, low=0))
        if self.rank is None:
            self.params = {"weight": self._start(rng, self.in_features, self.out_features, self.residual)}
        else:
            self.params = {
                "down": self._start(rng, self.in_features, self.rank, False),
                "up": self._start(rng, self.rank, self.out_features, self.residual),
            }
        if self.bias:
            self.params["bias"] = np.zeros(self.out_features, self.dtype)

    @classmethod
    def procrustes(
        cls, source: ArrayLike, target: ArrayLike, *, bias: bool = False, dtype: DTypeLike | None = None
    ) -> "LinearAdapter":
        r"""The rotation that brings the rows of `source` nearest to those of `target`.

        .. math:: W = U V^\top, \quad U S V^\top = \sum_i x_i^\top y_i, \qquad
            W = \arg\min_{W^\top W = I} \sum_i \|x_i W - y_i\|^2

        It keeps all distances and angles between rows, so that little data cannot spoil them: the map to try first
        from a new model's space into an old index. Of different sizes, W has orthonormal rows (d < m, still the
        minimum) or columns (d > m), and is that with the largest :math:`\sum_i x_i W \cdot y_i`.

        Parameters
        ----------
        source : array of shape (n, d)
        target : array of shape (n, m)
            Row i of both belong together. Of any real type, also an ``np.memmap``: read once, in blocks of rows, and
            summed in float64.
        bias : bool
            Centre both: rows are taken relative to the means, and :math:`b = \bar y - \bar x W`.
        dtype : float32 or float64, optional
            Of the adapter. None: float64 if an array needs it, else float32.

        Returns
        -------
        LinearAdapter
            Without a residual, so that weight decay makes outputs shorter and turns them nowhere.

        Raises
        ------
        TypeError, ValueError
            If the arrays are not of these shapes, hold other than finite real numbers, or have no row.

        References
        ----------
        Schönemann (1966), A generalized solution of the orthogonal Procrustes problem, Psychometrika 31.

        Examples
        --------
        >>> import numpy as np
        >>> import rvtrain as rt
        >>> old = np.random.default_rng(0).normal(size=(50, 3))
        >>> new = old[:, [2, 0, 1]]  # the same, in other coordinates
        >>> rt.LinearAdapter.procrustes(new, old).params["weight"].round(6) + 0.0
        array([[0., 0., 1.],
               [1., 0., 0.],
               [0., 1., 0.]])
        """
        found = _closed_forms.procrustes(source, target, check.flag("bias", bias))
        return cls._solved(*found, _closed_forms.common_dtype(source, target) if dtype is None else dtype)

    @classmethod
    def ridge(
        cls,
        source: ArrayLike,
        target: ArrayLike,
        alpha: float = 1.0,
        *,
        bias: bool = True,
        dtype: DTypeLike | None = None,
    ) -> "LinearAdapter":
        r"""The linear map that predicts the rows of `target` from those of `source` by penalised least squares.

        .. math:: \min_{W, b} \sum_i \|x_i W + b - y_i\|^2 + \alpha \|W\|^2, \qquad
            W = (\tilde X^\top \tilde X + \alpha I)^{-1} \tilde X^\top \tilde Y

        with centred :math:`\tilde X, \tilde Y`, as ``sklearn.linear_model.Ridge``. Other than `procrustes` it may
        stretch and drop directions: better where there are many more rows than columns.

        Parameters
        ----------
        source : array of shape (n, d)
        target : array of shape (n, m)
            As in `procrustes`.
        alpha : float
            α ≥ 0, beside a sum of squares over all rows: n unit rows of d columns have n / d in each direction.
        bias : bool
            Centre both, and :math:`b = \bar y - \bar x W`, which is not penalised. False: b = 0.
        dtype : float32 or float64, optional
            Of the adapter. None: float64 if an array needs it, else float32.

        Returns
        -------
        LinearAdapter
            Without a residual.

        Raises
        ------
        TypeError, ValueError
            As `procrustes`; and if α is too small for columns of `source` that depend linearly on each other.

        References
        ----------
        Hoerl & Kennard (1970), Ridge Regression: Biased Estimation for Nonorthogonal Problems, Technometrics 12.

        Examples
        --------
        >>> import numpy as np
        >>> import rvtrain as rt
        >>> source = np.array([[-1.0], [0.0], [1.0]])
        >>> adapter = rt.LinearAdapter.ridge(source, 3 * source + 5, alpha=1.0)
        >>> adapter.params["weight"], adapter.params["bias"]  # 6 / (2 + 1)
        (array([[2.]]), array([5.]))
        """
        found = _closed_forms.ridge(source, target, alpha, check.flag("bias", bias))
        return cls._solved(*found, _closed_forms.common_dtype(source, target) if dtype is None else dtype)

    @classmethod
    def pca(
        cls, x: ArrayLike, out_features: int | None = None, *, bias: bool = True, dtype: DTypeLike | None = None
    ) -> "LinearAdapter":
        r"""The projection onto the directions in which the rows of `x` vary most.

        .. math:: f(x) = (x - \bar x)\, U_m, \qquad \tfrac{1}{n - 1} \tilde X^\top \tilde X = U \Lambda U^\top

        with the m largest eigenvalues in descending order. Each column's largest element is positive, as in
        ``sklearn.decomposition.PCA``, with which outputs agree.

        Parameters
        ----------
        x : array of shape (n, d)
            Of any real type, also an ``np.memmap``: read once, in blocks of rows, and summed in float64.
        out_features : int, optional
            m ≤ d. None: d.
        bias : bool
            Centre: take off the mean, by :math:`b = -\bar x W`. False: the eigenvectors of
            :math:`X^\top X / n`, which lose least of dot products and cosines (a truncated SVD).
        dtype : float32 or float64, optional
            Of the adapter. None: float64 if x needs it, else float32.

        Returns
        -------
        LinearAdapter
            Without a residual. Cut its outputs or its ``weight`` to fewer columns for a smaller m.

        Raises
        ------
        TypeError, ValueError
            If x is not such an array, has fewer than two rows, or not out_features columns.

        References
        ----------
        Pearson (1901), On lines and planes of closest fit to systems of points in space, Philosophical Magazine 2.
        Hotelling (1933), Analysis of a complex of statistical variables into principal components, Journal of
        Educational Psychology 24.

        Examples
        --------
        >>> import numpy as np
        >>> import rvtrain as rt
        >>> adapter = rt.LinearAdapter.pca(np.array([[0.0, 1.0], [4.0, 4.0], [8.0, 7.0]]), 1)
        >>> adapter.transform(np.array([[4.0, 4.0], [8.0, 7.0]]))
        array([[0.],
               [5.]])
        """
        found = _closed_forms.principal(x, out_features, check.flag("bias", bias), False, 0.0)
        return cls._solved(*found, _closed_forms.common_dtype(x) if dtype is None else dtype)

    @classmethod
    def whiten(
        cls,
        x: ArrayLike,
        out_features: int | None = None,
        *,
        eps: float = 0.0,
        bias: bool = True,
        dtype: DTypeLike | None = None,
    ) -> "LinearAdapter":
        r"""The projection of `pca`, each output divided by its standard deviation.

        .. math:: f(x) = (x - \bar x)\, U_m (\Lambda_m + \varepsilon)^{-1/2}

        so that outputs have no correlation, and all directions count alike in a cosine. Sentence embeddings in which
        a few directions dominate are compared better so.

        Parameters
        ----------
        x, out_features, bias, dtype
            As in `pca`.
        eps : float
            ε ≥ 0, added to the variances, so that directions of almost none are not blown up.

        Returns
        -------
        LinearAdapter
            Without a residual.

        Raises
        ------
        TypeError, ValueError
            As `pca`; and if ε = 0 and x does not vary in so many directions.

        References
        ----------
        Su, Cao, Liu & Ou (2021), Whitening Sentence Representations for Better Semantics and Faster Retrieval,
        arXiv:2103.15316.

        Examples
        --------
        >>> import numpy as np
        >>> import rvtrain as rt
        >>> x = np.random.default_rng(0).normal(size=(500, 3)) @ np.array([[9, 0, 0], [5, 1, 0], [0, 2, 3]]) + 7
        >>> y = rt.LinearAdapter.whiten(x).transform(x)
        >>> bool(np.allclose(np.cov(y.T), np.eye(3)) and np.allclose(y.mean(axis=0), 0))
        True
        """
        found = _closed_forms.principal(x, out_features, check.flag("bias", bias), True, eps)
        return cls._solved(*found, _closed_forms.common_dtype(x) if dtype is None else dtype)

    @classmethod
    def _solved(
        cls, weight: NDArray[np.float64], bias: NDArray[np.float64] | None, dtype: DTypeLike
    ) -> "LinearAdapter":
        """The adapter of this weight and bias."""
        adapter = cls(*weight.shape, bias=bias is not None, residual=False, dtype=dtype)
        for name, value in (("weight", weight), *(() if bias is None else (("bias", bias),))):
            if np.abs(value).max() > np.finfo(adapter.dtype).max:
                raise ValueError(f"dtype must hold a {name} of {np.abs(value).max():g}, got {adapter.dtype}")
            np.copyto(adapter.params[name], value, casting="same_kind")
        return adapter

    def __repr__(self) -> str:
        return (
            f"LinearAdapter({self.in_features}, {self.out_features}, rank={self.rank}, bias={self.bias}, "
            f"residual={self.residual})"
        )

    def _start(self, rng: np.random.Generator, high: int, wide: int, zero: bool) -> Floats:
        return np.zeros((high, wide), self.dtype) if zero else random_weight(rng, high, wide, self.dtype)

    def _forward(self, x: Floats, rows: NDArray[np.int64] | None) -> tuple[Floats, Saved]:
        inner: tuple[Floats, ...] = ()
        if self.rank is None:
            y = product(x, rows, self.params["weight"], residual=self.residual)
        else:
            inner = (product(x, rows, self.params["down"]),)
            y = product(inner[0], None, self.params["up"])
            if self.residual:
                y += x if rows is None else x[rows]
        if self.bias:
            y += self.params["bias"]
        return y, Saved(x, rows, inner)

    def _backward(self, saved: Saved, grad: Floats, to_input: bool) -> tuple[Params, Any]:
        x, rows, inner = saved
        back: Any = None
        if self.rank is None:
            grads = {"weight": transposed_product(x, rows, grad)}
            if to_input:
                back = product_with_transpose(grad, self.params["weight"], residual=self.residual)
        else:
            to_inner = product_with_transpose(grad, self.params["up"])
            grads = {
                "down": transposed_product(x, rows, to_inner),
                "up": transposed_product(inner[0], None, grad),
            }
            if to_input:
                back = product_with_transpose(to_inner, self.params["down"])
                if self.residual:
                    back += grad
        if self.bias:
            grads["bias"] = grad.sum(axis=0)
        return grads, back
