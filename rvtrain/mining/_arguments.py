"""Checks of arguments of `mine` that name candidates or labels."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check


def excluded_of(exclude: ArrayLike, rows: int, size: int | None, single: bool) -> NDArray[np.int64]:
    """`exclude` as (B, m). Of an iterable, `size` is unknown, and the search checks indices after the last block."""
    shape = (None,) if single and np.ndim(exclude) == 1 else (rows, None)
    stop = 2**62 if size is None else size
    return np.atleast_2d(check.indices("exclude", exclude, shape, stop, missing=True))


def ids_of(ids: ArrayLike, rows: int, single: bool) -> NDArray[np.int64]:
    """`anchor_ids` as (B, P)."""
    array = np.asarray(ids)
    if single and array.ndim < 2:
        array = array.reshape(1, -1)
    if array.ndim == 2:
        return check.integer_array("anchor_ids", array, (rows, None))
    return check.integer_array("anchor_ids", array, (rows,))[:, np.newaxis]
