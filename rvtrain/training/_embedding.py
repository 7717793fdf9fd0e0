"""Rows of a table through a model, and gradients back to its parameters."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.training._adapter_kernels import add_rows, take_rows
from rvtrain.training._models import (
    Floats,
    Model,
    Params,
    features_of,
    forward_rows,
    output_kind,
    outputs,
    takes_sparse,
)
from rvtrain.training._sparse import SparseRows, dense_only, finite_csr, in_dtype, is_sparse, stored_csr

_BLOCK_ROWS = 8192

Rows = NDArray[np.int64]


def stored_table(name: str, value: ArrayLike | SparseRows) -> Any:
    """A table (n, d) of real numbers as it is stored, C-contiguous or CSR; finite, unless it is a file."""
    if is_sparse(value):
        return stored_csr(name, value)
    table = check.stored_array(name, as_array(name, value), 2)
    if isinstance(value, np.memmap) and table.flags.c_contiguous:  # a file is checked where it is read
        return table
    table = np.ascontiguousarray(table)
    finite_rows(name, table)
    return table


def plain(value: Any) -> Any:
    """A value that NumPy reads: a torch tensor without its graph, bfloat16 as float32; all else as it is."""
    if hasattr(value, "detach"):
        value = value.detach()
        return value.float() if str(value.dtype).endswith("bfloat16") else value
    return value


def as_array(name: str, value: Any) -> NDArray[Any]:
    """The value as an array of any kind, uncopied if possible; an error of NumPy gets the name of the argument."""
    if is_sparse(value):
        raise TypeError(f"{name} must be an array, got a sparse matrix of shape {value.shape}")
    try:
        array = np.asarray(plain(value))
        return _numbers_of_frame(value) if array.dtype.kind == "O" and hasattr(value, "to_numpy") else array
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be an array, or what NumPy reads as one: {error}") from None


def _numbers_of_frame(value: Any) -> NDArray[Any]:
    """A frame or a series of pandas in its nullable dtypes, of which NumPy alone makes objects."""
    kinds = [getattr(each, "numpy_dtype", each) for each in np.ravel(getattr(value, "dtypes", []))]
    if not all(isinstance(each, np.dtype) and each.kind in "fiu" for each in kinds) or not kinds:
        return np.asarray(value)
    dtype = np.result_type(*kinds)
    return np.asarray(value.to_numpy(dtype=dtype, na_value=np.nan) if dtype.kind == "f" else value.to_numpy(dtype))


def finite_rows(name: str, table: Any, dtype: np.dtype[Any] | None = None) -> None:
    """Raise NotFiniteError if a row of the table is not finite, as it is or in this dtype; a block at a time."""
    if is_sparse(table):
        finite_csr(name, table, dtype)
        return
    for start in range(0, table.shape[0], _BLOCK_ROWS):
        block = table[start : start + _BLOCK_ROWS]
        with np.errstate(over="ignore"):
            good = np.isfinite(block if dtype is None else block.astype(dtype, copy=False))
        if not good.all():
            row = start + int(np.argmin(good.all(axis=1)))
            where = in_dtype(dtype, table)
            raise NotFiniteError(f"{name} must be finite{where}, got a NaN or an infinity in row {row}")


def check_table(name: str, table: Any, model: Model) -> None:
    """Raise unless the model takes the rows of this table, as far as it tells."""
    if is_sparse(table) and not takes_sparse(model):
        dense_only(name, table, type(model).__name__)
    wanted = features_of(model, "in")
    if wanted not in (None, table.shape[1]):
        raise ValueError(f"{name} must have {wanted} columns like the model's input, got {table.shape}")


def embed(
    model: Model, table: Any, rows: NDArray[np.int64], micro: int | None
) -> tuple[Floats, Callable[[Floats], Params]]:
    """Embeddings of these rows, and a function from the gradient to them to the gradients of the parameters.

    With `micro`, the rows pass the model in blocks of this size, and again for the way back: the gradient is that of
    all rows at once, the memory for intermediate results that of one block.
    """
    if micro is None or len(rows) <= micro:
        out, saved = forward_rows(model, table, rows)
        return out, lambda grad: model.backward(saved, grad)
    parts = [slice(start, start + micro) for start in range(0, len(rows), micro)]
    out = np.concatenate([forward_rows(model, table, rows[part])[0] for part in parts])

    def back(grad: Floats) -> Params:
        total: Params = {}
        for part in parts:
            for name, g in model.backward(forward_rows(model, table, rows[part])[1], grad[part]).items():
                total[name] = total[name] + g if name in total else g
        return total

    return out, back


def embed_distinct(
    model: Model, table: Any, rows: NDArray[np.int64], micro: int | None
) -> tuple[Floats, Callable[[Floats], Params]]:
    """`embed`, where a row that comes several times passes the model once."""
    distinct, places = np.unique(rows, return_inverse=True)
    if len(distinct) == len(rows):
        return embed(model, table, rows, micro)
    out, back = embed(model, table, distinct, micro)

    def back_from_all(grad: Floats) -> Params:
        total = np.zeros((len(distinct), grad.shape[1]), grad.dtype)
        add_rows.serial(grad.shape[1], np.ascontiguousarray(grad), places, total)
        return back(total)

    return out[places], back_from_all


def embedded(model: Model, table: Any, limit: int) -> Any:
    """All rows embedded: an array if it fits the limit in bytes, or else an iterator of blocks."""
    width, dtype = output_kind(model, table)
    if table.shape[0] * width * dtype.itemsize <= limit:
        return outputs(model, table)
    return _blocks(model, table)


def _blocks(model: Model, table: Any) -> Iterator[Floats]:
    for start in range(0, table.shape[0], _BLOCK_ROWS):
        yield outputs(model, table[start : start + _BLOCK_ROWS])


def taken(x: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """x[rows]; by all threads where x is an array as kernels read it."""
    if type(x) is not np.ndarray or not (x.flags.c_contiguous and x.flags.writeable) or x.dtype.char not in "fd":
        return x[rows]
    out = np.empty((len(rows), x.shape[1]), x.dtype)
    take_rows.sized(4 * out.size)(len(rows), x, rows, out)
    return out


class Sides:
    """The two models of a training and how their gradients make up those of all parameters.

    A model of one side serves both. `query` and `document` may be one object; a side without parameters is frozen.
    """

    def __init__(self, model: Any) -> None:
        self.query: Model = getattr(model, "query", model)
        self.document: Model = getattr(model, "document", model)
        self.is_shared = self.query is self.document
        self.trains_queries, self.trains_documents = bool(self.query.params), bool(self.document.params)
        sides = (self.query,) if self.is_shared else (self.query, self.document)
        homes = {id(array): (side, key) for side, tower in enumerate(sides) for key, array in tower.params.items()}
        self._homes: dict[str, tuple[int, str]] = {}
        for name, array in model.params.items():
            if id(array) not in homes:
                raise ValueError(f"model.params[{name!r}] must be an array of its query or document side")
            self._homes[name] = homes[id(array)]

    def rows_read(
        self, queries: Any, query_rows: Rows, documents: Any, document_rows: Rows | None
    ) -> dict[str, Rows] | None:
        """The rows of each parameter from which these are embedded; None if a side with parameters does not tell.

        A parameter that is not there may be read as a whole. Without `document_rows` no document is embedded.
        """
        found: list[dict[str, Rows]] = []
        for model, table, rows in ((self.query, queries, query_rows), (self.document, documents, document_rows)):
            tell = getattr(model, "rows_read", None)
            known = {} if rows is None or not model.params else None if tell is None else tell(table, rows)
            if known is None:
                return None
            found.append(known)
        if self.is_shared:
            found = [{key: np.concatenate([each[key] for each in found if key in each]) for key in found[0]}]
        homes = {name: (side, key) for name, (side, key) in self._homes.items() if key in found[side]}
        return {name: found[side][key] for name, (side, key) in homes.items()}

    def collect(self, to_query: Params, to_document: Params) -> Params:
        """The gradients of both sides by the names of all parameters, added up where the sides are one."""
        if self.is_shared:
            both = {key: g + _of(to_document, key) if to_document else g for key, g in to_query.items()}
            return {name: _of(both, key) for name, (_, key) in self._homes.items()}
        return {name: _of((to_query, to_document)[side], key) for name, (side, key) in self._homes.items()}


def _of(grads: Params, key: str) -> Floats:
    """The gradient of a parameter."""
    if key not in grads:
        raise ValueError(f"backward must return a gradient for params[{key!r}], got those of {sorted(grads)}")
    return grads[key]
