"""Checks of arguments of `mine` that name candidates or labels."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check


def excluded_of(exclude: ArrayLike, rows: int, size: int | None, single: bool) -> NDArray[np.int64]:
    """`exclude` as (B, m). Of an iterable, `size` is unknown, and the search checks indices after the last block."""
    shape = (None,) if single and np.ndim(exclude) == 1 else (rows, None)
    stop = 2**62 if size is None else size
    return np.atleast_2d(check.indices("exclude", exclude, shape, stop, missing=True))


def ids_of(
    anchor_ids: ArrayLike | None, candidate_ids: ArrayLike | None, rows: int, size: int | None, single: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`anchor_ids` as (B, P) and `candidate_ids` as (N,); (B, 0) and (0,) if there are none."""
    if (anchor_ids is None) != (candidate_ids is None):
        raise ValueError("anchor_ids and candidate_ids must be given together, got only one of them")
    if anchor_ids is None or candidate_ids is None:
        return np.empty((rows, 0), np.int64), np.empty(0, np.int64)
    array = np.asarray(anchor_ids)
    if single and array.ndim < 2:
        array = array.reshape(1, -1)
    if array.ndim == 2:
        of_rows = check.integer_array("anchor_ids", array, (rows, None))
    else:
        of_rows = check.integer_array("anchor_ids", array, (rows,))[:, np.newaxis]
    return of_rows, check.integer_array("candidate_ids", candidate_ids, (size,))
