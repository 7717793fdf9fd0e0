"""Small maps from embeddings to better ones, with analytic gradients: their base."""

from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rvtrain import _validation as check
from rvtrain.training._models import BLOCK_ROWS, Floats, Params
from rvtrain.training._sparse import dense_only


class Saved(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    x: Floats
    rows: NDArray[np.int64] | None
    inner: tuple[Floats, ...] = ()


class Adapter:
    """Base of the adapters: their parameters, and what is the same for all."""

    params: Params
    in_features: int
    out_features: int
    dtype: np.dtype[Any]

    def _begin(self, in_features: int, out_features: int | None, residual: bool | None, dtype: DTypeLike) -> None:
        self.in_features = check.integer("in_features", in_features, low=1)
        self.out_features = check.integer(
            "out_features", in_features if out_features is None else out_features, low=1
        )
        same = self.in_features == self.out_features
        self.residual = same if residual is None else check.flag("residual", residual)
        if self.residual and not same:
            raise ValueError(f"residual needs in_features == out_features, got {in_features} and {out_features}")
        self.dtype = model_dtype(dtype)

    def forward(self, x: ArrayLike) -> tuple[Floats, Saved]:
        """The outputs for all rows of x, and what `backward` needs.

        Parameters
        ----------
        x : array of shape (n, in_features)
            Of any real type; converted to the adapter's dtype.

        Returns
        -------
        outputs : array of shape (n, out_features)
        saved : an object for `backward`

        Raises
        ------
        TypeError, ValueError
            If x is not that, or has no row.
        """
        return self._forward(self._table(x).astype(self.dtype, copy=False), None)

    def forward_rows(self, table: ArrayLike, rows: ArrayLike) -> tuple[Floats, Saved]:
        """The outputs for table[rows], and what `backward` needs; only these rows are read.

        Parameters
        ----------
        table : array of shape (n, in_features)
            Of any real type, also an ``np.memmap``. Rows of another dtype than the adapter's are converted; others
            are read where they stand, so the table must not change before `backward`.
        rows : integer array of shape (m,)
            May repeat.

        Returns
        -------
        outputs : array of shape (m, out_features)
        saved : an object for `backward`

        Raises
        ------
        TypeError, ValueError
            If the arguments are not that, or there is no row.
        """
        source = self._table(table)
        which = check.indices("rows", rows, (None,), len(source))
        if not len(which):
            raise ValueError("rows must not be empty")
        if source.dtype != self.dtype:
            return self._forward(source[which].astype(self.dtype), None)
        return self._forward(source, which)

    @overload
    def backward(self, saved: Saved, grad: ArrayLike, to_input: Literal[False] = False) -> Params: ...

    @overload
    def backward(self, saved: Saved, grad: ArrayLike, to_input: Literal[True]) -> tuple[Params, Floats]: ...

    @overload
    def backward(self, saved: Saved, grad: ArrayLike, to_input: bool = ...) -> Params | tuple[Params, Floats]: ...

    def backward(self, saved: Saved, grad: ArrayLike, to_input: bool = False) -> Params | tuple[Params, Floats]:
        """Gradients to the parameters, from the gradient to the outputs of `forward`.

        Parameters
        ----------
        saved
            As `forward` or `forward_rows` returned it.
        grad : array of shape (m, out_features)
        to_input : bool
            Also return the gradient to the inputs, as the model before this one in a `Sequential` needs it.

        Returns
        -------
        grads : dict of arrays, with the keys and shapes of `params`
        to_input : array of shape (m, in_features)
            Where asked for: of the rows that were read, in their order.

        Raises
        ------
        TypeError, ValueError
            If grad is not float32 or float64, or not of the shape of the outputs.
        """
        g = check.readable(check.float_array("grad", grad, 2), self.dtype)
        count = len(saved.x if saved.rows is None else saved.rows)
        check.same_shape("grad", g, "the outputs", (count, self.out_features))
        grads, back = self._backward(saved, g, check.flag("to_input", to_input))
        return (grads, back) if to_input else grads

    def transform(self, x: ArrayLike) -> Floats:
        """The outputs for all of x, a block of rows at a time.

        Parameters
        ----------
        x : array of shape (n, in_features)
            As in `forward`; n may be 0.

        Returns
        -------
        array of shape (n, out_features)
        """
        dense_only("x", x, type(self).__name__)
        table = np.asanyarray(x)
        if table.ndim != 2 or table.shape[1] != self.in_features:
            raise ValueError(f"x must have shape (n, {self.in_features}), got {table.shape}")
        check.computed_dtype("x", table)
        out = np.empty((len(table), self.out_features), self.dtype)
        for start in range(0, len(table), BLOCK_ROWS):
            out[start : start + BLOCK_ROWS], _ = self.forward(table[start : start + BLOCK_ROWS])
        return out

    def encode(self, x: ArrayLike) -> Floats:
        """The same as `transform`."""
        return self.transform(x)

    def _table(self, x: ArrayLike) -> NDArray[Any]:
        dense_only("x", x, type(self).__name__)
        table = check.stored_array("x", x, 2)
        if table.shape[1] != self.in_features:
            raise ValueError(f"x must have shape (n, {self.in_features}), got {table.shape}")
        return table

    def _forward(self, x: Floats, rows: NDArray[np.int64] | None) -> tuple[Floats, Saved]:
        raise NotImplementedError

    def _backward(self, saved: Saved, grad: Floats, to_input: bool) -> tuple[Params, Any]:
        """The gradients to the parameters, and that to the inputs if asked for."""
        raise NotImplementedError


def model_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """A dtype that models have: float32 or float64."""
    found = np.dtype(dtype)
    if found.type not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {found}")
    return found


def random_weight(rng: np.random.Generator, high: int, wide: int, dtype: np.dtype[Any]) -> Floats:
    """Normal, such that outputs are about as long as inputs."""
    weight: Floats = (rng.normal(size=(high, wide)) / np.sqrt(high)).astype(dtype)
    return weight
