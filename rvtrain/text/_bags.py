"""Bags: for each text, rows of a table and their weights."""

from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rvtrain import _validation as check

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MOST_ROWS = 2**31 - 1


class SparseMatrix(Protocol):
    """A matrix or array of scipy.sparse, in any format."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nnz(self) -> int: ...

    def tocsr(self) -> Any: ...


class Bags:
    """Bags of weighted rows, one bag for each of n texts: a sparse matrix (n, n_rows) in CSR form, without SciPy.

    Bag i holds the rows ``indices[offsets[i] : offsets[i + 1]]``, ascending and none twice. The Trainer takes bags in
    the place of a matrix of scipy.sparse.

    Parameters
    ----------
    indices : integer array of shape (nnz,)
        In [0, n_rows). Rows that come several times in a bag are joined, and their weights summed.
    offsets : integer array of shape (n + 1,)
        From 0 to nnz, never descending; bags may be empty.
    weights : array of shape (nnz,), optional
        Finite, float32 or float64. None: all are 1, in float32.
    n_rows : int
        Number of rows of the table, at most 2³¹ − 1.

    Attributes
    ----------
    indices : int32 array of shape (nnz,)
    offsets : int64 array of shape (n + 1,)
    weights : array of shape (nnz,)
    shape : tuple
        (n, n_rows).

    Raises
    ------
    TypeError, ValueError
        If an argument is not that.

    References
    ----------
    Weinberger et al. (2009), Feature Hashing for Large Scale Multitask Learning, arXiv:0902.2206.

    Examples
    --------
    >>> import rvtrain as rt
    >>> bags = rt.Bags([3, 1, 1, 0], [0, 3, 3, 4], n_rows=5)
    >>> bags
    Bags of shape (3, 5), 3 entries, float32
    >>> bags.toarray()
    array([[0., 2., 0., 1., 0.],
           [0., 0., 0., 0., 0.],
           [1., 0., 0., 0., 0.]], dtype=float32)
    """

    format = "csr"
    has_canonical_format = True
    ndim = 2

    def __init__(
        self, indices: ArrayLike, offsets: ArrayLike, weights: ArrayLike | None = None, *, n_rows: int
    ) -> None:
        count = check.integer("n_rows", n_rows, low=1, high=MOST_ROWS)
        bounds = check.integer_array("offsets", offsets, (None,))
        rows = check.indices("indices", _integers(indices), (None,), count)
        if not len(bounds) or bounds[0] != 0 or bounds[-1] != len(rows) or (np.diff(bounds) < 0).any():
            raise ValueError(f"offsets must ascend from 0 to the number of indices, {len(rows)}, got {bounds}")
        values = np.ones(len(rows), np.float32) if weights is None else check.any_float_array("weights", weights)
        check.same_shape("weights", values, "indices", rows.shape)
        check.finite("weights", values)
        self._take(*_canonical(bounds, rows, check.readable(values)), count)

    def _take(self, offsets: NDArray[np.int64], indices: NDArray[Any], weights: NDArray[Any], n_rows: int) -> None:
        self.offsets, self.indices = offsets, indices.astype(np.int32, copy=False)
        self.weights, self.shape = weights, (len(offsets) - 1, n_rows)

    @classmethod
    def _made(cls, offsets: NDArray[np.int64], indices: NDArray[Any], weights: NDArray[Any], n_rows: int) -> "Bags":
        """Bags of arrays that need no check."""
        bags = cls.__new__(cls)
        bags._take(offsets, indices, weights, n_rows)
        return bags

    @classmethod
    def from_scipy(cls, matrix: SparseMatrix) -> "Bags":
        """The bags of a matrix or array of scipy.sparse of shape (n, n_rows), in any format.

        Parameters
        ----------
        matrix : sparse matrix
            Of any real type; integers and float16 become float32 or float64.

        Returns
        -------
        Bags
            They share the memory of the weights of a float32 or float64 CSR matrix in canonical form.

        Raises
        ------
        TypeError, ValueError
            If it is no sparse matrix of real and finite numbers.

        Examples
        --------
        >>> import rvtrain as rt
        >>> from scipy import sparse  # doctest: +SKIP
        >>> rt.Bags.from_scipy(sparse.eye_array(3))  # doctest: +SKIP
        Bags of shape (3, 3), 3 entries, float64
        """
        if isinstance(matrix, Bags):
            return matrix
        if not hasattr(matrix, "tocsr") or not hasattr(matrix, "nnz"):
            raise TypeError(f"matrix must be one of scipy.sparse, got {type(matrix).__name__}")
        if len(matrix.shape) != 2:
            raise ValueError(f"matrix must have 2 dimension(s), got shape {matrix.shape}")
        given: Any = matrix
        dtype = check.computed_dtype("matrix", given)
        is_narrow = given.dtype.type == np.float16  # of which scipy cannot sum duplicates
        csr = (given.astype(dtype) if is_narrow or given.dtype.kind != "f" else given).tocsr()
        values = np.asarray(csr.data).astype(dtype, copy=False)
        return cls(csr.indices, csr.indptr, values, n_rows=csr.shape[1])

    def to_scipy(self) -> "csr_array":
        """The same as a ``scipy.sparse.csr_array``, which shares the memory of indices and weights.

        Returns
        -------
        csr_array of shape (n, n_rows)

        Raises
        ------
        ImportError
            If SciPy is not installed.
        """
        from scipy.sparse import csr_array

        return csr_array((self.weights, self.indices, self.offsets), shape=self.shape)

    def toarray(self) -> NDArray[np.floating]:
        """The same as a dense array of shape (n, n_rows)."""
        out: NDArray[np.floating] = np.zeros(self.shape, self.dtype)
        out[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.indices] = self.weights
        return out

    def __repr__(self) -> str:
        return f"Bags of shape {self.shape}, {self.nnz} entries, {self.dtype}"

    def __len__(self) -> int:
        return self.shape[0]

    @overload
    def __getitem__(self, which: slice) -> "Bags": ...

    @overload
    def __getitem__(self, which: ArrayLike) -> "Bags": ...

    def __getitem__(self, which: slice | ArrayLike) -> "Bags":
        """The bags of a slice, or of an integer array of shape (m,), in its order."""
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step == 1:
                first, end = self.offsets[start], self.offsets[max(start, stop)]
                bounds = self.offsets[start : max(start, stop) + 1] - first
                return Bags._made(bounds, self.indices[first:end], self.weights[first:end], self.shape[1])
            which = np.arange(start, stop, step)
        rows = np.asarray(which)
        if rows.dtype.kind == "b" or (rows.ndim == 1 and not rows.size):
            rows = np.flatnonzero(check_mask(rows, len(self))) if rows.size else rows.astype(np.int64)
        rows = check.integer_array("which", rows, (None,))
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"which must be in [{-len(self)}, {len(self) - 1}], got {rows.min()} to {rows.max()}")
        rows = np.where(rows < 0, rows + len(self), rows)
        sizes = self.offsets[rows + 1] - self.offsets[rows]
        bounds = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(sizes, out=bounds[1:])
        entries = np.arange(bounds[-1]) + np.repeat(self.offsets[rows] - bounds[:-1], sizes)
        return Bags._made(bounds, self.indices[entries], self.weights[entries], self.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the weights."""
        return self.weights.dtype

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return len(self.indices)

    @property
    def data(self) -> NDArray[np.floating]:
        """The weights, by the name that SciPy gives them."""
        return self.weights

    @property
    def indptr(self) -> NDArray[np.int64]:
        """The offsets, by the name that SciPy gives them."""
        return self.offsets

    def tocsr(self) -> "Bags":
        """Itself."""
        return self

    def astype(self, dtype: DTypeLike, copy: bool = False) -> "Bags":
        """With weights of this dtype, float32 or float64; itself if they are and no copy is asked for."""
        found = np.dtype(dtype)
        if found.type not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {found}")
        if found == self.dtype and not copy:
            return self
        return Bags._made(self.offsets, self.indices, self.weights.astype(found), self.shape[1])


def check_mask(mask: NDArray[Any], count: int) -> NDArray[Any]:
    """The mask; IndexError unless it has an element for each bag."""
    if mask.shape != (count,):
        raise IndexError(f"which must have shape ({count},) if it is a mask, got {mask.shape}")
    return mask


def _integers(indices: ArrayLike) -> NDArray[Any]:
    """The array; an empty list has integers too."""
    array = np.asarray(indices)
    return array if array.size else array.astype(np.int64)


def _canonical(
    offsets: NDArray[np.int64], indices: NDArray[np.int64], weights: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """The same bags with ascending rows, none twice; the given arrays where they are that. Sums are in order."""
    begins = np.zeros(len(indices) + 1, bool)
    begins[offsets] = True
    if (begins[1:-1] | (indices[1:] > indices[:-1])).all():
        return offsets, indices, weights
    bag = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((indices, bag))
    rows = indices[order]
    is_first = np.ones(len(rows), bool)
    is_first[1:] = (rows[1:] != rows[:-1]) | (bag[1:] != bag[:-1])
    first = np.flatnonzero(is_first)
    bounds = np.zeros(len(offsets), np.int64)
    np.cumsum(np.bincount(bag[first], minlength=len(offsets) - 1), out=bounds[1:])
    return bounds, rows[first], np.add.reduceat(weights[order], first)
