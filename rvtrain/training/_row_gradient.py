"""The gradient of a table of which a batch has read some rows."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.training import _bag_kernels as kernels
from rvtrain.training._models import Floats, Params


class RowGradient:
    r"""The gradient of a table (n, d) in the rows that a batch has read; in all others it is zero.

    A model's ``backward`` may return it for an array of its `params`; the Trainer gives the optimizer `values` and
    `rows`. The gradient of row r is the sum over all entries e of ``rows[e] == r``:

    .. math:: g_r = \sum_{e:\, r_e = r} w_e \, G_{o_e}

    It is summed when `rows` or `values` is first read. Until then ``a + b`` is the entries of both, so that the two
    sides of a shared table are summed at once.

    Parameters
    ----------
    shape : (int, int)
        Of the table.
    rows : integer array of shape (E,)
        Of the table, possibly repeated.
    grad : array of shape (m, d)
    owners : integer array of shape (E,), optional
        Row of `grad` of each entry. None: each its own, and m = E.
    weights : array of shape (E,), optional
        None: 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not that.

    References
    ----------
    Sparse gradients of ``torch.nn.EmbeddingBag``, which are summed by ``coalesce``.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> table = np.zeros((5, 2))
    >>> gradient = rt.RowGradient((5, 2), [3, 1, 3], np.array([[1.0, 2.0], [5.0, 6.0], [10.0, 20.0]]))
    >>> gradient.rows, gradient.values
    (array([1, 3]), array([[ 5.,  6.],
           [11., 22.]]))
    >>> optimizer = rt.SGD({"table": table}, lr=1.0)
    >>> optimizer.step({"table": table}, {"table": gradient.values}, rows={"table": gradient.rows})
    >>> table[3]
    array([-11., -22.])
    """

    def __init__(
        self,
        shape: tuple[int, int],
        rows: ArrayLike,
        grad: ArrayLike,
        owners: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> None:
        if not isinstance(shape, tuple) or len(shape) != 2:
            raise TypeError(f"shape must be that of a table, (n, d), got {shape!r}")
        self.shape = shape
        found = check.indices("rows", rows, (None,), shape[0])
        values = check.any_float_array("grad", grad)
        if values.ndim != 2 or values.shape[1] != shape[1]:
            raise ValueError(f"grad must have shape (m, {shape[1]}), got {values.shape}")
        if owners is None:
            check.same_shape("grad", values, "rows and the table", (len(found), shape[1]))
            whose = np.arange(len(found))
        else:
            whose = check.indices("owners", owners, found.shape, len(values))
        given = np.ones(len(found), values.dtype) if weights is None else check.any_float_array("weights", weights)
        check.same_shape("weights", given, "rows", found.shape)
        self._take(found.astype(np.int32), whose.astype(np.int32), given, values)

    def _take(
        self, entries: NDArray[np.int32], owners: NDArray[np.int32], weights: NDArray[Any], grad: NDArray[Any]
    ) -> None:
        self._entries, self._owners = entries, owners
        self._weights, self._grad = check.readable(weights, grad.dtype), check.readable(grad)
        self._summed: tuple[NDArray[np.int64], Floats] | None = None

    @classmethod
    def _made(
        cls,
        shape: tuple[int, int],
        entries: NDArray[np.int32],
        owners: NDArray[np.int32],
        weights: NDArray[Any],
        grad: NDArray[Any],
    ) -> "RowGradient":
        """Of arrays that need no check."""
        made = cls.__new__(cls)
        made.shape = shape
        made._take(entries, owners, weights, grad)
        return made

    def __repr__(self) -> str:
        return f"RowGradient of {len(self.rows)} rows of a table {self.shape}"

    def __add__(self, other: "RowGradient") -> "RowGradient":
        if not isinstance(other, RowGradient):
            return NotImplemented
        if self.shape != other.shape:
            raise ValueError(f"gradients must be of tables of one shape, got {self.shape} and {other.shape}")
        return RowGradient._made(
            self.shape,
            np.concatenate([self._entries, other._entries]),
            np.concatenate([self._owners, other._owners + np.int32(len(self._grad))]),
            np.concatenate([self._weights, other._weights]),
            np.concatenate([self._grad, other._grad]),
        )

    @property
    def rows(self) -> NDArray[np.int64]:
        """The distinct rows, ascending."""
        return self._sums()[0]

    @property
    def values(self) -> Floats:
        """The gradient of each of `rows`, an array of shape (len(rows), d)."""
        return self._sums()[1]

    def toarray(self) -> Floats:
        """The gradient as an array of the table's shape."""
        out = np.zeros(self.shape, self._grad.dtype)
        out[self.rows] = self.values
        return out

    def _sums(self) -> tuple[NDArray[np.int64], Floats]:
        if self._summed is None:
            count = len(self._entries)
            keys, sources = self._entries.copy(), np.arange(count, dtype=np.int32)
            scratch, rows = np.empty((2, count), np.int32), np.empty(count, np.int64)
            bounds, found = np.empty(count + 1, np.int64), np.zeros(1, np.int64)
            kernels.by_table_row.serial(self.shape[0], keys, sources, scratch, rows, bounds, found)
            groups = int(found[0])
            values = np.empty((groups, self.shape[1]), self._grad.dtype)
            kernels.sum_by_row.sized(2 * count * self.shape[1])(
                groups, bounds, sources, self._owners, self._weights, self._grad, values
            )
            self._summed = rows[:groups], values
        return self._summed


def by_rows(grads: dict[str, Any]) -> tuple[Params, dict[str, NDArray[np.int64]] | None]:
    """Gradients as an optimizer takes them: arrays, and the rows of those that are of some rows; None without any."""
    rows = {name: g.rows for name, g in grads.items() if isinstance(g, RowGradient)}
    return {name: g.values if name in rows else g for name, g in grads.items()}, rows or None
