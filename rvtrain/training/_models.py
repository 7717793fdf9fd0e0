"""What a model is, by what it can do; and how code that is given one uses it, whatever its class."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain.training._sparse import as_csr, dense_only, is_sparse

Floats: TypeAlias = NDArray[np.floating]
Params: TypeAlias = dict[str, Floats]

BLOCK_ROWS = 4096
"""Rows that pass a model at once where all rows of a table are embedded."""


@runtime_checkable
class Model(Protocol):
    """What the package asks of a model: parameters, a forward pass, and its gradients.

    Any object with these three members is a model: alone, as a tower of a `TwoTower`, or as a link of a `Sequential`.
    It need not inherit from this class. A model may also have, and the package then uses,

    - ``forward_rows(table, rows)``: ``forward`` of those rows of a table, read where they stand. Without it the rows
      are copied, and converted to the model's dtype;
    - ``transform(x)``: the outputs alone, for any number of rows. Without it x passes ``forward`` in blocks;
    - ``accepts_sparse = True``: ``forward`` takes rows in CSR form too, as scipy.sparse makes them: canonical, and in
      the model's dtype. Models without it are never given sparse rows, and none is asked for a gradient to them;
    - ``featurize(x, name)``: rows in the form that ``forward`` reads, as `BagEncoder` makes them of strings. It is
      called once for the rows of a training; `name` is that of the argument, for errors. Without it a model is never
      given strings. ``features``: an object with ``fit(texts)`` and ``is_fitted``, which a training fits where
      nothing has been fitted yet;
    - ``rows_read(table, rows)``: by names of `params`, the rows that ``forward_rows`` reads of tables whose gradient
      is a `RowGradient`, which ``backward`` may return. An optimizer with ``lazy="exact"`` brings these up to date
      before they are read; without it, all rows;
    - ``in_features``, ``out_features``, ``dtype``: the columns of the inputs and of the outputs, and the dtype of the
      outputs, by which errors are found before anything is computed. Without ``dtype``, that of the parameters.

    References
    ----------
    Levkivskyi, Lehtosalo & Langa (2017), PEP 544: Protocols, structural subtyping.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> class Scale:
    ...     def __init__(self, features):
    ...         self.params = {"scale": np.ones(features, np.float32)}
    ...
    ...     def forward(self, x):
    ...         return x * self.params["scale"], x
    ...
    ...     def backward(self, saved, grad, to_input=False):
    ...         grads = {"scale": (saved * grad).sum(axis=0)}
    ...         return (grads, grad * self.params["scale"]) if to_input else grads
    >>> isinstance(Scale(4), rt.Model)
    True
    >>> rt.Sequential(Scale(4), rt.LinearAdapter(4, 2)).transform(np.ones((5, 4))).shape
    (5, 2)
    """

    @property
    def params(self) -> Mapping[str, NDArray[Any]]:
        """Arrays by name, which an optimizer changes in place; empty where there is nothing to train."""

    def forward(self, x: Any, /) -> tuple[NDArray[Any], Any]:
        """The outputs (n, out_features) for the rows of x, and what `backward` needs."""

    def backward(self, saved: Any, grad: Any, /, to_input: bool = False) -> Any:
        """The gradients by the names of `params`, from the gradient to the outputs (n, out_features).

        With `to_input` a tuple: these, and the gradient to x. Only models behind another one in a `Sequential` are
        asked for it.
        """


def checked_model(name: str, value: Any, wanted: str = "a model") -> None:
    """Raise TypeError unless the value is a model, naming what it lacks."""
    if isinstance(value, type):
        raise TypeError(f"{name} must be {wanted}, got the class {value.__name__}, not an object of it")
    lacking = [part for part in ("forward", "backward") if not callable(getattr(value, part, None))]
    if not isinstance(getattr(value, "params", None), dict):
        lacking.insert(0, "params (a dict of arrays)")
    if lacking:
        is_plain = value is None or isinstance(value, (str, int, float))
        shown = f"{value!r}" if is_plain else f"{type(value).__name__} without {', '.join(lacking)}"
        raise TypeError(f"{name} must be {wanted}, got {shown}")
    for key, array in value.params.items():
        check.writeable_array(f"{name}.params[{key!r}]", array)


def dtype_of(model: Any) -> np.dtype[Any] | None:
    """The dtype of a model's outputs; None where neither it nor its parameters tell."""
    dtype = getattr(model, "dtype", None)
    if dtype is not None:
        return np.dtype(dtype)
    return np.result_type(*model.params.values()) if model.params else None


def features_of(model: Any, side: str) -> int | None:
    """``in_features`` or ``out_features`` of a model, for side "in" or "out"; None where it does not tell."""
    return getattr(model, f"{side}_features", None)


def differ(one: Any, other: Any) -> bool:
    """Whether two features or two dtypes are both known and not equal. (To NumPy float64 and None are equal.)"""
    return one is not None and other is not None and one != other


def takes_sparse(model: Any) -> bool:
    """Whether a model says that it takes sparse rows."""
    return getattr(model, "accepts_sparse", False) is True


def as_table(x: Any) -> Any:
    """x as an array, uncopied if possible, where NumPy can read it; a sparse matrix as CSR; all else as it is."""
    if is_sparse(x):
        return as_csr("x", x)
    return np.asanyarray(x) if isinstance(x, (list, tuple)) or hasattr(x, "__array__") else x


def readable_rows(model: Any, x: Any) -> Any:
    """Rows as a model reads them: C-contiguous and in its dtype, uncopied where they are; x itself if not numbers.

    A read-only array stays read-only, so that a model that writes to it raises an error: it may be a file in memory.
    Sparse rows are CSR and in its dtype.
    """
    x = as_table(x)
    if is_sparse(x):
        if not takes_sparse(model):
            dense_only("x", x, type(model).__name__)
        dtype = dtype_of(model)
        return x.astype(check.computed_dtype("x", x) if dtype is None else dtype, copy=False)
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiu":
        return x
    dtype = dtype_of(model)
    return np.ascontiguousarray(x, check.computed_dtype("x", x) if dtype is None else dtype)


def forward_rows(model: Any, table: Any, rows: NDArray[np.integer]) -> tuple[Any, Any]:
    """`forward` of these rows of a table, by the model's own ``forward_rows`` where it has one."""
    own = getattr(model, "forward_rows", None)
    result = own(table, rows) if own is not None else model.forward(readable_rows(model, as_table(table)[rows]))
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        given = type(result).__name__
        raise TypeError(f"forward of {type(model).__name__} must return a tuple (outputs, saved), got {given}")
    if np.shape(result[0])[:1] != (len(rows),):
        raise ValueError(
            f"forward of {type(model).__name__} must return outputs of {len(rows)} rows, as many as it is given, got "
            f"shape {np.shape(result[0])}"
        )
    return result[0], result[1]


def outputs(model: Any, x: Any) -> Any:
    """The outputs for all rows of x, by the model's own ``transform`` where it has one, else in blocks."""
    if is_sparse(x) and not takes_sparse(model):
        dense_only("x", x, type(model).__name__)
    own = getattr(model, "transform", None)
    if own is not None:
        return own(x)
    return by_blocks(lambda block: model.forward(readable_rows(model, block))[0], x)


def by_blocks(function: Callable[[Any], Any], x: Any) -> Any:
    """The results of a function of some rows, for all rows of x a block at a time; x may have no row."""
    table = as_table(x)
    starts = range(0, max(table.shape[0], 1), BLOCK_ROWS)
    results = [function(table[start : start + BLOCK_ROWS]) for start in starts]
    return results[0] if len(results) == 1 else np.concatenate(results)


def output_kind(model: Any, table: Any) -> tuple[int, np.dtype[Any]]:
    """Columns and dtype of a model's outputs for a table; where it does not tell, from those of the first row."""
    width, dtype = features_of(model, "out"), dtype_of(model)
    if width is None or dtype is None:
        first = outputs(model, table[:1])
        width, dtype = first.shape[1], first.dtype
    return width, dtype
