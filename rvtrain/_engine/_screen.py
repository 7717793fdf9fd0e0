"""Comparisons of up to 32 scores with bounds; the results are the bits of one number.

# Design: emitted, because the compiler does not always vectorise a loop that combines comparisons. With vectors of
# 256 bits it does not, and the loop is ten times slower. Here comparisons stay in vectors until they become bits.
"""

import functools
import operator

import numpy as np

from rvtrain._engine._byte_tile import COLUMNS, LANES, ROWS
from rvtrain._engine._tile import tile_shape
from rvtrain._kernels import emitted
from rvtrain._kernels._vectors import Value


def _between(values, at, low, high):
    x = values.reshape(-1)[at : at + tile_shape(values.dtype)[1]]
    return _bits((x > low) & (x < high))


@emitted(_between, np.uint32)
def between(emit, values, at, low, high):
    """Bit q is set where low < values[at + q] < high, for q < NR.

    values is C-contiguous. It is passed with an offset, not as a view, because each view costs two atomic additions.
    """
    _, columns, lanes = tile_shape(values.dtype)
    least, most = low.broadcast(lanes), high.broadcast(lanes)
    bits = emit.constant(0, np.int32)
    for c in range(0, columns, lanes):
        x = (values + at + c).load(lanes)
        bits = bits | ((x > least) & (x < most)).bits() << c
    return bits


def _reaching(values, at, bound):
    return _bits(values.reshape(-1)[at : at + tile_shape(values.dtype)[1]] >= bound)


@emitted(_reaching, np.uint32)
def reaching(emit, values, at, bound):
    """Bit q is set where values[at + q] ≥ bound, for q < NR; values is C-contiguous."""
    _, columns, lanes = tile_shape(values.dtype)
    least = bound.broadcast(lanes)
    bits = emit.constant(0, np.int32)
    for c in range(0, columns, lanes):
        bits = bits | ((values + at + c).load(lanes) >= least).bits() << c
    return bits


def _any_above(values, at, low):
    return bool((values.reshape(-1)[at : at + tile_shape(values.dtype)[1]] > low).any())


@emitted(_any_above, np.bool_)
def any_above(emit, values, at, low):
    """Whether values[at + q] > low for a q < NR; values is C-contiguous, without NaN."""
    _, columns, lanes = tile_shape(values.dtype)
    x = functools.reduce(_greater, [(values + at + c).load(lanes) for c in range(0, columns, lanes)])
    return (x > low.broadcast(lanes)).bits().differs(0)


def _any_between(values, at, low, high):
    return bool(_between(values, at, low, high))


@emitted(_any_between, np.bool_)
def any_between(emit, values, at, low, high):
    """Whether low < values[at + q] < high for a q < NR; values is C-contiguous."""
    _, columns, lanes = tile_shape(values.dtype)
    least, most = low.broadcast(lanes), high.broadcast(lanes)
    x = [(values + at + c).load(lanes) for c in range(0, columns, lanes)]
    return functools.reduce(operator.or_, [(a > least) & (a < most) for a in x]).bits().differs(0)


def _of_tiles(values, at, stop, step):
    offsets = np.arange(at, stop, step)[:, np.newaxis] + np.arange(tile_shape(values.dtype)[1])
    return values.reshape(-1)[offsets]


def _count_reaching(values, at, stop, step, bound):
    return np.int64((_of_tiles(values, at, stop, step) >= bound).sum())


@emitted(_count_reaching, np.int64)
def count_reaching(emit, values, at, stop, step, bound):
    """The number of values[a + q] ≥ bound for a = at, at + step, … < stop and q < NR; values is C-contiguous."""
    _, columns, lanes = tile_shape(values.dtype)
    integer = np.dtype(f"i{values.dtype.itemsize}")
    least, one, none = bound.broadcast(lanes), *(emit.constant(x, integer, lanes) for x in (1, 0))
    vectors = range(0, columns, lanes)

    def add(a, *counts):
        return [
            count + ((values + a + c).load(lanes) >= least).choose(one, none)
            for c, count in zip(vectors, counts, strict=True)
        ]

    counts = emit.loop(at, stop, step, [none for _ in vectors], add)
    total = _folded(emit, functools.reduce(operator.add, counts), operator.add)
    return total if total.dtype == np.int64 else Value(total.builder, total.builder.sext(total.llvm, at.llvm.type))


def _greatest(values, at, stop, step):
    return _of_tiles(values, at, stop, step).max()


@emitted(_greatest, lambda values, *rest: values)
def greatest(emit, values, at, stop, step):
    """The greatest values[a + q] for a = at, at + step, … < stop and q < NR; values is C-contiguous, without NaN."""
    _, columns, lanes = tile_shape(values.dtype)
    vectors = range(0, columns, lanes)

    def load(a):
        return [(values + a + c).load(lanes) for c in vectors]

    def compare(a, *most):
        return [_greater(x, y) for x, y in zip(load(a), most, strict=True)]

    return _folded(emit, functools.reduce(_greater, emit.loop(at, stop, step, load(at), compare)), _greater)


def _greater(x, y):
    return (x > y).choose(x, y)


def _folded(emit, vector, combine):
    """All elements of a vector, combined to one number."""
    while vector.lanes > 1:
        half = vector.lanes // 2
        vector = combine(vector.shuffle(vector, range(half)), vector.shuffle(vector, range(half, 2 * half)))
    return Value(vector.builder, vector.builder.extract_element(vector.llvm, emit.constant(0, np.int32).llvm))


def _any_at_least(tile, scales, errors, j, spreads, bounds, at):
    spread, bound = (x[at : at + ROWS, np.newaxis] for x in (spreads, bounds))
    return bool((tile * scales[j] + spread * errors[j] >= bound).any())


@emitted(_any_at_least, np.bool_)
def any_at_least(emit, tile, scales, errors, j, spreads, bounds, at):
    """Whether any column of any row r has tile[r] · scales[j] + spreads[at + r] · errors[j] ≥ bounds[at + r].

    tile (ROWS, COLUMNS) int32; scales and errors (panels, COLUMNS), spreads and bounds float32; C-contiguous.
    """
    rows = [[(x + at + r).load().broadcast(LANES) for x in (spreads, bounds)] for r in range(ROWS)]
    start, hits = j * COLUMNS, []
    for c in range(0, COLUMNS, LANES):
        scale, error = ((x + (start + c)).load(LANES) for x in (scales, errors))
        for r, (spread, bound) in enumerate(rows):
            products = (tile + (r * COLUMNS + c)).load(LANES).astype(np.float32)
            hits.append(emit.two_products(products, scale, error, spread) >= bound)
    return functools.reduce(operator.or_, hits).bits().differs(0)


def _at_least(tile, r, scales, errors, j, spread, bound):
    return _bits(tile[r] * scales[j] + spread * errors[j] >= bound)


@emitted(_at_least, np.uint32)
def at_least(emit, tile, r, scales, errors, j, spread, bound):
    """Bit c is set where tile[r, c] · scales[j, c] + spread · errors[j, c] ≥ bound.

    tile (ROWS, COLUMNS) int32, scales and errors (panels, COLUMNS) float32, C-contiguous; the rest float32.
    """
    products = (tile + r * COLUMNS).load(COLUMNS).astype(np.float32)
    scale, error = ((x + j * COLUMNS).load(COLUMNS) for x in (scales, errors))
    spread, bound = spread.broadcast(COLUMNS), bound.broadcast(COLUMNS)
    return (emit.two_products(products, scale, error, spread) >= bound).bits()


def _bits(hits):
    """The number whose bit q is set where hits[q] is true."""
    return np.uint32(sum(1 << int(q) for q in np.flatnonzero(hits)))
