"""Search by bounds below ceilings that lie among the scores: by 16-bit codes.

# Design: as `_certified_kernels.py`. Bounds from bytes are .013 or more from a score, and leave all candidates that
# near the ceiling, one in twelve of 20,000 × 128 Gaussian ones. Bounds from products of 16-bit codes are fifty times
# closer, and take twice as long. All rows have the same scale and nearly the same error, so that the bounds of a
# query are two integers:
#
#     shorts ─ tile_shorts ─▶ int32 tile ─ screen_shorts: low ≤ product < high ─▶ list ─ at the end ─▶ float scores
#                                                         └▶ ≥ high: above the ceiling, only counted
#
# Lower bounds are so close to the scores that T rises at once, and needs no sample of the candidates.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._byte_tile import COLUMNS, ROWS
from rvtrain._engine._short_tile import screen_shorts, tile_shorts
from rvtrain._kernels import body, kernel, njit, trailing_zeros
from rvtrain.mining import _certified_kernels as bounds
from rvtrain.mining._hamming_kernels import set_bits
from rvtrain.mining._selection_kernels import count_allowed, first_bits, is_allowed

_NEVER = np.int32(2**31 - 1)
"""A bound that no product reaches."""


class Window(NamedTuple):
    """What a search below ceilings needs besides the rest."""

    halves: np.ndarray
    """(panels · ROWS,) float32: h of each query with any candidate"""
    lows: np.ndarray
    """(panels · ROWS,) int32: least product of a candidate that may be among the best; `_NEVER`: none"""
    highs: np.ndarray
    """(panels · ROWS,) int32: least product of a candidate certainly at or above the ceiling"""
    counts: np.ndarray
    """(panels · ROWS,) int64: the number of these that are allowed"""
    passed: np.ndarray
    """(tasks, ROWS) uint32"""
    above: np.ndarray
    """(tasks, ROWS) uint32"""


@kernel
def certify_below(start, stop, search, window, error, block, scratch, best):
    """As `certify`, with 16-bit codes; `error` is the greatest e of a candidate."""
    panels, tasks, waiting = len(search.query_codes.words), len(scratch.tiles), search.waiting
    for task in range(start, stop):
        begin, end = panels * task // tasks, panels * (task + 1) // tasks
        bounds.take_guesses(search, begin, end)
        _take_windows(search, window, error, begin, end)
        _meet(search, window, begin, end, block, scratch.tiles[task], window.passed[task], window.above[task])
        for i in range(begin * ROWS, min(end * ROWS, len(waiting.sizes))):
            waiting.dropped[i] = window.counts[i]
        bounds.rescore(search, begin, end, window.halves, scratch.query[task], scratch.scores[task], best)


@njit
def _take_windows(search, window, error, begin, end):
    """Fill the arrays of `window` for the queries of panels [begin, end)."""
    (count, dim), scale = search.candidates.x.shape, _cosine_of_1(search)
    padding = len(search.codes.words) * COLUMNS - count
    for i in range(begin * ROWS, end * ROWS):
        own = np.float64(search.query_codes.errors[i // ROWS, i % ROWS])
        window.halves[i] = own + (1.0 + own) * error + dim * 6e-8 + 2e-6
        window.lows[i] = window.highs[i] = _NEVER
        window.counts[i] = 0
        if i < len(search.waiting.sizes):
            window.highs[i] = _product_of(search.limits.ceilings[search.first + i] + window.halves[i], scale) + 1
            window.lows[i] = _product_of(search.waiting.lower[i, 0] - window.halves[i], scale)
            if window.highs[i] <= 0:  # the products of rows that fill the last panel are 0
                window.counts[i] = -padding


@njit
def _cosine_of_1(search):
    """The cosine of two rows whose product of codes is 1."""
    return np.float64(search.query_codes.scales[0, 0]) * np.float64(search.codes.scales[0, 0])


@njit
def _product_of(cosine, scale):
    """The product of codes of this cosine, rounded down; near the ends of 32 bits for cosines beyond these."""
    return np.int32(np.floor(min(max(np.float64(cosine) / scale, -2147483000.0), 2147483000.0)))


@body
def _meet(search, window, begin, end, block, tile, passed, above):
    """Compare query panels [begin, end) with all candidates."""
    left, right, count = search.query_codes.words, search.codes.words, len(search.waiting.sizes)
    (across, steps, _), limits = right.shape, search.limits
    high, unlimited = bounds.panels_of_group(steps), limits.exclude.shape[1] + limits.row_ids.shape[1] == 0
    for start in range(0, across, block):
        for group in range(begin, end, high):
            for j in range(start, min(start + block, across)):
                real = first_bits(min(len(search.candidates.x) - j * COLUMNS, COLUMNS))
                for p in range(group, min(group + high, end)):
                    i = p * ROWS
                    tile_shorts(left, p * steps * ROWS, right, j * steps * COLUMNS, steps, tile)
                    some = screen_shorts(tile, window.lows, window.highs, i, window.counts, passed, above)
                    for r in range(0 if unlimited else min(ROWS, count - i)):
                        hits = above[r] & real
                        if hits:
                            allowed = count_allowed(hits, search.first + i + r, j * COLUMNS, 0, limits)
                            window.counts[i + r] += allowed - np.int64(set_bits(np.uint64(hits)))
                    if some:
                        for r in range(ROWS):
                            if passed[r] & real:
                                _admit(search, window, i + r, tile, r, j * COLUMNS, passed[r] & real)


@njit
def _admit(search, window, i, tile, r, first, hits):
    """Put the candidates whose bits are set, of which bit 0 is candidate `first`, on query i's list."""
    limits, waiting, row, half = search.limits, search.waiting, search.first + i, window.halves[i]
    scale = _cosine_of_1(search)
    while hits:
        q = np.int64(trailing_zeros(hits))
        hits &= hits - np.uint32(1)
        column, cosine = first + q, np.float32(tile[r, q] * scale)
        if cosine + half < waiting.lower[i, 0] or not is_allowed(row, column, column, limits):
            continue
        if not bounds.wait(i, column, cosine - half, cosine + half, limits.ceilings[row], waiting):
            window.lows[i] = _NEVER
            return
    window.lows[i] = _product_of(waiting.lower[i, 0] - half, scale)
