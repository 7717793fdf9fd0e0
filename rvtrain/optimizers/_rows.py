"""Gradients of rows of a table. Those of repeated rows are summed, in an order that no thread changes."""

from typing import Any, NamedTuple

import numpy as np

from rvtrain._kernels import driver, kernel, njit
from rvtrain.optimizers._state import as_table

_DIGIT = 11
"""Bits sorted at a time: the histogram of 2¹¹ counts fits in the first cache."""


class Gradient(NamedTuple):
    """The gradient of an array, or of distinct rows of it. That of a row is a row of `given`, or a sum of several."""

    given: np.ndarray
    sums: np.ndarray
    """(S, d): the gradients of the repeated rows."""
    source: np.ndarray
    """The gradient of rows[r] is given[source[r]], or sums[−1 − source[r]] where source[r] < 0."""
    rows: np.ndarray
    """Distinct and ascending; empty for the whole array."""

    def used(self) -> np.ndarray:
        """The gradients of the distinct rows, in any order; `given` itself if no row is repeated."""
        return (
            self.given
            if not len(self.sums)
            else np.concatenate([self.given[self.source[self.source >= 0]], self.sums])
        )


def by_table(g: Gradient) -> Gradient:
    """The same gradient for a parameter that is read by `as_table`."""
    return g._replace(given=as_table(g.given), sums=as_table(g.sums))


class Owed(NamedTuple):
    """The steps with gradient zero that rows have missed."""

    first: np.ndarray
    """Row r has missed the steps first[r], first[r] + 1, … of the history; none, if first[r] is its length."""
    history: np.ndarray
    """(T, …): the numbers of each step."""
    total: Any
    """The rule's named tuple for several steps together: the numbers of no step."""
    table: np.ndarray
    """(T, …): the numbers of the steps s, s + 1, …, T − 1 together."""


_NONE = np.empty(0, np.int64)


def whole(gradient: np.ndarray) -> Gradient:
    """The gradient of all of an array."""
    return Gradient(gradient, gradient[:0], _NONE, _NONE)


def by_row(gradient: np.ndarray, rows: np.ndarray, length: int) -> Gradient:
    """The gradient (m, d) of `rows` (m,), possibly repeated, of a table with `length` rows."""
    groups = np.empty((5, len(rows) + 1), np.int64)
    counts, sizes = np.empty((1 << _DIGIT) + 1, np.int64), np.empty(2, np.int64)
    _group.serial(rows, length, groups, counts, sizes)
    count, repeated = sizes
    order, distinct, bounds, source, _ = groups
    distinct, source = distinct[:count], source[:count]
    sums = np.empty((repeated, gradient.shape[1]), gradient.dtype)
    if repeated:
        _sum_rows.sized(4 * sums.size)(repeated, gradient, order, bounds, np.flatnonzero(source < 0), sums)
    return Gradient(gradient, sums, source, distinct)


@driver
def _group(threads, rows, length, groups, counts, sizes):
    """Group equal rows: a stable radix sort of rows (m,) < length.

    groups (5, m + 1) are order, distinct, bounds, source and scratch: group r is the row distinct[r], found at
    order[bounds[r]] … order[bounds[r + 1] − 1], and source is as in `Gradient`. sizes (2,): the number of groups, and
    of groups of several. counts: scratch of `_sort_digit`.
    """
    order, distinct, bounds, source, scratch = groups[0], groups[1], groups[2], groups[3], groups[4]
    for i in range(len(rows)):
        order[i] = i
    for shift in range(0, 63, _DIGIT):
        if length >> shift == 0:
            break
        _sort_digit(rows, shift, order, scratch, counts)
        for i in range(len(rows)):
            order[i] = scratch[i]
    count = repeated = 0
    for i in range(len(rows)):
        if i == 0 or rows[order[i]] != rows[order[i - 1]]:
            distinct[count], bounds[count], source[count] = rows[order[i]], i, order[i]
            count += 1
        elif source[count - 1] >= 0:
            repeated += 1
            source[count - 1] = -repeated
    bounds[count] = len(rows)
    sizes[0], sizes[1] = count, repeated


@njit
def _sort_digit(rows, shift, order, out, counts):
    """out = order, sorted by the _DIGIT bits of rows[order] from `shift` on; the sort is stable."""
    mask = (1 << _DIGIT) - 1
    counts[:] = 0
    for i in range(len(rows)):
        counts[((rows[i] >> shift) & mask) + 1] += 1
    for digit in range(mask):
        counts[digit + 1] += counts[digit]
    for i in range(len(rows)):
        digit = (rows[order[i]] >> shift) & mask
        out[counts[digit]] = order[i]
        counts[digit] += 1


@kernel
def _sum_rows(start, stop, gradient, order, bounds, groups, sums):
    """sums[s] = Σ gradient[order[i]] over the group groups[s]; gradient (m, d), sums (S, d), groups (S,)."""
    for s in range(start, stop):
        first, end = bounds[groups[s]], bounds[groups[s] + 1]
        for k in range(sums.shape[1]):
            sums[s, k] = gradient[order[first], k]
        for i in range(first + 1, end):
            for k in range(sums.shape[1]):
                sums[s, k] += gradient[order[i], k]
