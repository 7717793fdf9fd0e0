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
