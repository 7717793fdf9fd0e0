"""Rows of sparse matrices, as of scipy.sparse, which is not imported: recognised by their members."""

from typing import Any, Protocol

import numpy as np

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError


class SparseRows(Protocol):
    """A matrix or array of scipy.sparse, in any format."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nnz(self) -> int: ...

    def tocsr(self) -> Any: ...


def is_sparse(value: Any) -> bool:
    """Whether the value is a matrix or an array of scipy.sparse."""
    return hasattr(value, "tocsr") and hasattr(value, "nnz")


def as_csr(name: str, value: Any) -> Any:
    """A sparse matrix (n, d) as canonical CSR: indices sorted, none twice. It is copied only if it is not that.

    A copy is float32 or float64, so that sums of duplicates fit. So is float16, of which scipy cannot select rows.
    """
    dtype = check.computed_dtype(name, value)
    if len(value.shape) != 2:
        raise ValueError(f"{name} must have 2 dimension(s), got shape {value.shape}")
    is_csr = getattr(value, "format", "") == "csr" and value.dtype.type != np.float16 and value.dtype.isnative
    csr = value if is_csr else value.astype(dtype).tocsr()
    if not csr.has_canonical_format:
        csr = csr.astype(dtype, copy=True)
        csr.sum_duplicates()
    return csr


def stored_csr(name: str, value: Any) -> Any:
    """`as_csr`, of a matrix that is neither empty nor holds a NaN or an infinity."""
    csr = as_csr(name, value)
    if 0 in csr.shape:
        raise ValueError(f"{name} must not be empty, got shape {csr.shape}")
    finite_csr(name, csr)
    return csr


def finite_csr(name: str, csr: Any, dtype: np.dtype[Any] | None = None) -> None:
    """Raise NotFiniteError if a stored element is not finite, as it is or in this dtype."""
    with np.errstate(over="ignore"):
        good = np.isfinite(csr.data if dtype is None else csr.data.astype(dtype, copy=False))
    if not good.all():
        row = int(np.searchsorted(csr.indptr, int(np.argmin(good)), side="right")) - 1
        raise NotFiniteError(f"{name} must be finite{in_dtype(dtype, csr)}, got a NaN or an infinity in row {row}")


def in_dtype(dtype: np.dtype[Any] | None, table: Any) -> str:
    """Words for an error about a table that is not finite in this dtype; none for the table's own."""
    return "" if dtype is None or dtype == table.dtype else f" in {dtype}"


def dense_only(name: str, value: Any, taker: str) -> None:
    """Raise TypeError if the value is sparse; `taker` says who takes dense rows only."""
    if is_sparse(value):
        raise TypeError(
            f"{name} must be dense, since {taker} takes no sparse rows, got a sparse matrix of shape {value.shape}: "
            f"give {name}.toarray()"
        )
