"""An encoder of bags: the weighted mean or sum of rows of a table."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rvtrain import _validation as check
from rvtrain.text._bags import MOST_ROWS, Bags
from rvtrain.text._ngrams import HashedNgrams
from rvtrain.text._texts import Texts, are_texts, checked_texts
from rvtrain.training import _bag_kernels as kernels
from rvtrain.training._adapters import model_dtype
from rvtrain.training._models import Floats, Params
from rvtrain.training._row_gradient import RowGradient
from rvtrain.training._sparse import SparseRows, is_sparse

MODES = ("mean", "sum")
BagRows = Texts | Bags | SparseRows
"""Strings, bags, or a matrix of scipy.sparse."""


class SavedBags(NamedTuple):
    """What a forward pass leaves for the backward pass: which of these bags were read, and the scale of each."""

    bags: Bags
    rows: NDArray[np.int64]
    scales: Floats


class BagEncoder:
    r"""The weighted mean, or sum, of the rows of a table that are in a bag: an embedding of a text by its n-grams.

    .. math:: f(\text{bag}) = \frac{\sum_e w_e T_{r_e}}{\sum_e |w_e|}, \qquad
        f(\text{bag}) = \sum_e w_e T_{r_e} \text{ with mode="sum"}

    An empty bag has the embedding 0. With `features` it takes strings: alone, as a tower of a `TwoTower`, or as the
    first model of a `Sequential`, where a `LinearAdapter` behind it is a linear head. `Trainer.fit` featurises the
    strings once, and fits the features on them if nothing has been fitted yet. Its gradients are of the rows that a
    batch has read, and so are the optimizer's steps; ``lazy="exact"`` makes up for those that rows have missed.

    Parameters
    ----------
    n_rows : int
        Rows of the table.
    dim : int
        Size of the embeddings.
    mode : {"mean", "sum"}
    features : HashedNgrams, optional
        What makes bags of strings; with `n_rows` rows. Two towers may share one. None: only bags are taken.
    scale : float, optional
        Standard deviation of the random start. None: 1/√dim, rows of about length one, so that the untrained model
        keeps the cosines of the bags' weights, as a random projection.
    seed : int
        Two encoders of one seed start with equal tables.
    dtype : float32 or float64

    Attributes
    ----------
    params : dict of arrays
        ``table``, of shape (n_rows, dim).
    in_features, out_features : int
        `n_rows` and `dim`.

    References
    ----------
    Joulin et al. (2017), Bag of Tricks for Efficient Text Classification, arXiv:1607.01759.
    Wieting et al. (2016), Charagram: Embedding Words and Sentences via Character n-grams, arXiv:1607.02789.

    Examples
    --------
    >>> import rvtrain as rt
    >>> questions = ["how to sort a list", "how to open a file", "how to join strings"]
    >>> answers = ["list sort method", "open built-in for a file", "join method of str"]
    >>> features = rt.HashedNgrams(2**12)
    >>> model = rt.TwoTower(rt.BagEncoder(2**12, 32, features=features), "shared")
    >>> trainer = rt.Trainer(model, epochs=5, progress=False).fit(questions, answers)
    >>> model.encode_query(["sorting lists"]).shape
    (1, 32)
    """

    accepts_sparse = True

    def __init__(
        self,
        n_rows: int,
        dim: int,
        mode: str = "mean",
        *,
        features: HashedNgrams | None = None,
        scale: float | None = None,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_features = check.integer("n_rows", n_rows, low=1, high=MOST_ROWS)
        self.out_features = check.integer("dim", dim, low=1)
        self.mode = check.choice("mode", mode, MODES)
        if features is not None and not callable(getattr(features, "transform", None)):
            raise TypeError(f"features must be a HashedNgrams or None, got {features!r}")
        self.features = features
        own = getattr(features, "n_rows", self.in_features)
        if own != self.in_features:
            raise ValueError(f"features must have n_rows={self.in_features} rows like the table, got {own}")
        self.dtype = model_dtype(dtype)
        deviation = dim**-0.5 if scale is None else check.number("scale", scale, low=0.0)
        rng = np.random.default_rng(check.integer("seed", seed, low=0))
        shape: Any = (self.in_features, self.out_features)
        self.params: Params = {"table": np.zeros(shape, self.dtype)}
        if deviation:
            draw: Any = rng.standard_normal(shape, self.dtype)
            self.params["table"] = np.multiply(draw, self.dtype.type(deviation), out=draw)

    def __repr__(self) -> str:
        return f"BagEncoder({self.in_features}, {self.out_features}, mode={self.mode!r}, features={self.features!r})"

    def featurize(self, x: BagRows, name: str = "x") -> Bags:
        """The bags of strings; and bags or sparse matrices as this model reads them, in its dtype.

        Parameters
        ----------
        x : sequence of strings, Bags, or sparse matrix of shape (n, n_rows)
        name : str
            Of the argument, for errors.

        Returns
        -------
        Bags

        Raises
        ------
        TypeError
            If x is none of these, or strings are given without `features`.
        ValueError
            If there are more or fewer columns than rows of the table, or a weight is not finite.
        """
        if isinstance(x, Bags):
            bags = x
        elif are_texts(x) or (isinstance(x, (list, tuple)) and not len(x)):
            if self.features is None:
                raise TypeError(f"{name} must be bags where the encoder has no features, got strings")
            bags = self.features.transform(checked_texts(name, x))
        elif is_sparse(x):
            bags = Bags.from_scipy(x)  # type: ignore[arg-type]
        else:
            raise TypeError(
                f"{name} must be a sequence of strings, Bags, or a matrix of scipy.sparse, got {type(x).__name__}"
            )
        if bags.shape[1] != self.in_features:
            raise ValueError(f"{name} must have {self.in_features} columns like the model's input, got {bags.shape}")
        return bags.astype(self.dtype)

    def forward(self, x: BagRows) -> tuple[Floats, SavedBags]:
        """The embeddings of all bags, and what `backward` needs.

        Parameters
        ----------
        x : sequence of strings, Bags, or sparse matrix of shape (n, n_rows)

        Returns
        -------
        embeddings : array of shape (n, dim)
        saved : an object for `backward`

        Raises
        ------
        TypeError, ValueError
            As `featurize`.
        """
        bags = self.featurize(x)
        return self._forward(bags, np.arange(len(bags)))

    def forward_rows(self, table: BagRows, rows: ArrayLike) -> tuple[Floats, SavedBags]:
        """The embeddings of the bags of these numbers, read where they stand, and what `backward` needs.

        Parameters
        ----------
        table : sequence of strings, Bags, or sparse matrix of shape (n, n_rows)
        rows : integer array of shape (m,)
            May repeat.

        Returns
        -------
        embeddings : array of shape (m, dim)
        saved : an object for `backward`

        Raises
        ------
        TypeError, ValueError
            As `featurize`, or if a number is not one of a bag.
        """
        bags = self.featurize(table, "table")
        return self._forward(bags, check.indices("rows", rows, (None,), len(bags)))

    def backward(self, saved: SavedBags, grad: ArrayLike, to_input: bool = False) -> dict[str, RowGradient]:
        """The gradient of the table, in the rows that were read.

        Parameters
        ----------
        saved
            As `forward` or `forward_rows` returned it.
        grad : array of shape (n, dim)
        to_input : bool
            Must be False: strings and sparse rows have no gradient.

        Returns
        -------
        dict
            ``table``: a `RowGradient`.

        Raises
        ------
        TypeError, ValueError
            If grad is not float32 or float64, or not of the shape of the embeddings.
        """
        if to_input:
            raise ValueError("to_input must be False: a BagEncoder has no gradient to its input")
        bags, rows, scales = saved
        g = check.any_float_array("grad", grad)
        check.same_shape("grad", g, "the embeddings", (len(rows), self.out_features))
        places = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(bags.offsets[rows + 1] - bags.offsets[rows], out=places[1:])
        entries, owners = np.empty((2, places[-1]), np.int32)
        weights = np.empty(places[-1], self.dtype)
        kernels.entries_of_bags.sized(4 * len(entries))(
            len(rows), bags.offsets, bags.indices, bags.weights, rows, scales, places, entries, owners, weights
        )
        shape = (self.in_features, self.out_features)
        made = RowGradient._made(shape, entries, owners, weights, check.readable(g, self.dtype))
        return {"table": made}

    def rows_read(self, table: Bags, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The rows of each of `params` that `forward_rows` of these bags reads."""
        return {"table": np.unique(self.featurize(table, "table")[rows].indices).astype(np.int64)}

    def transform(self, x: BagRows) -> Floats:
        """The embeddings of all bags.

        Parameters
        ----------
        x : sequence of strings, Bags, or sparse matrix of shape (n, n_rows)
            n may be 0.

        Returns
        -------
        array of shape (n, dim)

        Raises
        ------
        TypeError, ValueError
            As `featurize`.
        """
        return self.forward(x)[0]

    def encode(self, x: BagRows) -> Floats:
        """The same as `transform`."""
        return self.transform(x)

    def _forward(self, bags: Bags, rows: NDArray[np.int64]) -> tuple[Floats, SavedBags]:
        table = self.params["table"]
        out, scales = np.empty((len(rows), self.out_features), self.dtype), np.empty(len(rows), self.dtype)
        work = 2 * (bags.nnz // max(len(bags), 1) + 1) * out.size
        kernels.sum_bags.sized(work)(
            len(rows), check.readable(table), bags.offsets, bags.indices, bags.weights, rows, self.mode == "mean",
            scales, out,
        )  # fmt: skip
        return out, SavedBags(bags, rows, scales)
