"""Prefetch memory that hardware prefetchers do not predict: rows in random order, and the next part of an operand."""

from rvtrain._kernels import emitted, inlined, njit

_LINE = 64  # bytes of a cache line
_AHEAD = 3  # rows


def _prefetching(for_writing):
    @emitted(lambda table, row, column: None)
    def prefetch(emit, table, row, column):
        """Begin to fetch the cache line of table[row, column]."""
        (table + (row * table.shape[1] + column)).prefetch(for_writing)

    return prefetch


_to_read, _to_write = _prefetching(False), _prefetching(True)


@emitted(lambda array, at, size: None)
def prefetch_part(emit, array, at, size):
    """Begin to fetch `size` elements of a C-contiguous array from element `at` on, or beyond its end: it never fails.

    Prefetchers follow a stream, but the tiles read a part of an operand several times before they go on to the next.
    """

    def body(offset):
        (array + (at + offset)).prefetch(False)
        return []

    emit.loop(emit.constant(0), size, _LINE // array.dtype.itemsize, [], body)


@njit
def prefetch_row(table, row):
    """Begin to fetch a row of a C-contiguous table (n, d) for reading."""
    for column in range(0, table.shape[1], _LINE // table.itemsize):
        _to_read(table, row, column)


@inlined
def prefetch_rows(rows, r, a, b, c):
    """Begin to fetch row rows[r + _AHEAD] of three C-contiguous tables (n, d) for writing."""
    if r + _AHEAD < len(rows):
        row = rows[r + _AHEAD]
        for column in range(0, a.shape[1], _LINE // a.itemsize):
            _to_write(a, row, column)
        for column in range(0, b.shape[1], _LINE // b.itemsize):
            _to_write(b, row, column)
        for column in range(0, c.shape[1], _LINE // c.itemsize):
            _to_write(c, row, column)
