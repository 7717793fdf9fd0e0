"""A hint to fetch memory before it is needed: rows in no order are not foreseen by the processor."""

from llvmlite import ir
from numba.core import cgutils, types

from rvtrain._kernels import inlined, intrinsic, njit

_LINE = 64  # bytes of a cache line
_AHEAD = 3  # rows


def _prefetching(for_writing):
    def _prefetch(typingctx, table, row, column):
        """Begin to fetch the cache line of table[row, column]."""

        def generate(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            shape, strides = (cgutils.unpack_tuple(builder, part) for part in (array.shape, array.strides))
            place = cgutils.get_item_pointer2(context, builder, array.data, shape, strides, "C", list(args[1:]))
            byte, int32 = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, int32, int32, int32])
            fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            keep, data = int32(3), int32(1)
            builder.call(fetch, [builder.bitcast(place, byte), int32(for_writing), keep, data])
            return context.get_dummy_value()

        return types.none(table, types.intp, types.intp), generate

    return intrinsic(lambda table, row, column: None)(_prefetch)


_to_read, _to_write = _prefetching(0), _prefetching(1)


@njit
def prefetch_row(table, row):
    """Begin to fetch a row of a C-contiguous table (n, d), to be read."""
    for column in range(0, table.shape[1], _LINE // table.itemsize):
        _to_read(table, row, column)


@inlined
def prefetch_rows(rows, r, a, b, c):
    """Begin to fetch the row of three C-contiguous tables (n, d) whose turn comes a little after that of rows[r]."""
    if r + _AHEAD < len(rows):
        row = rows[r + _AHEAD]
        for column in range(0, a.shape[1], _LINE // a.itemsize):
            _to_write(a, row, column)
        for column in range(0, b.shape[1], _LINE // b.itemsize):
            _to_write(b, row, column)
        for column in range(0, c.shape[1], _LINE // c.itemsize):
            _to_write(c, row, column)
