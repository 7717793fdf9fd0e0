"""Prefetch memory that hardware prefetchers do not predict: rows in random order, and the next part of an operand."""

import numpy as np

from rvtrain._kernels import emitted

_LINE = 64  # bytes of a cache line
_AHEAD = 3  # rows


def _begin_row(emit, table, row, for_writing):
    """Begin to fetch all cache lines of a row. The step is a constant: a quotient took longer than the rest."""
    begin = row * table.shape[1]

    def body(column):
        (table + (begin + column)).prefetch(for_writing)
        return []

    emit.loop(emit.constant(0), table.shape[1], _LINE // table.dtype.itemsize, [], body)


def _begin_part(emit, array, at, size, for_writing):
    def body(offset):
        (array + (at + offset)).prefetch(for_writing)
        return []

    emit.loop(emit.constant(0), size, _LINE // array.dtype.itemsize, [], body)


@emitted(lambda array, at, size: None)
def prefetch_part(emit, array, at, size):
    """Begin to fetch `size` elements of a C-contiguous array from element `at` on, or beyond its end: it never fails.

    Prefetchers follow a stream, but the tiles read a part of an operand several times before they go on to the next.
    """
    _begin_part(emit, array, at, size, False)


@emitted(lambda array, at, size: None)
def prefetch_to_write(emit, array, at, size):
    """The same for elements that will be written, which the cache of another processor may hold."""
    _begin_part(emit, array, at, size, True)


@emitted(lambda table, row: None)
def prefetch_row(emit, table, row):
    """Begin to fetch a row of a C-contiguous table (n, d) for reading."""
    _begin_row(emit, table, row, False)


@emitted(lambda rows, r, a, b, c: None)
def prefetch_rows(emit, rows, r, a, b, c):
    """Begin to fetch row rows[r + _AHEAD] of three C-contiguous tables (n, d) for writing, if there is one."""

    def fetch():
        row = (rows + (r + _AHEAD)).load().astype(np.intp)
        for table in (a, b, c):
            _begin_row(emit, table, row, True)

    emit.either(r + _AHEAD < rows.shape[0], fetch, lambda: None)
