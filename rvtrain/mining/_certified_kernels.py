"""Exact search from 8-bit products: bounds first, float scores only for the few that the bounds leave.

# Design: a unit vector x is s · c + (what rounding lost), c signed bytes, ‖x − s c‖ = e. For a query q and a
# candidate x, with their approximations q̃ = s_q c_q and x̃ = s_x c_x,
#
#     |q · x − q̃ · x̃| ≤ ‖q − q̃‖ ‖x‖ + ‖q̃‖ ‖x − x̃‖ ≤ e_q + ‖q̃‖ e_x =: h        (Cauchy–Schwarz)
#
# so that q̃ · x̃ ± h are bounds. A query keeps a heap of the k highest lower bounds; its root T only rises, and a
# candidate whose upper bound is below T is not among the k best, now or ever. Where scores must lie in a window,
# T starts at its floor, and only what lies below its ceiling for certain raises T. The others wait in a short list:
#
#     bytes ─ tile_bytes ─▶ int32 tile ─ screen: upper bound ≥ T? ─▶ waiting ─ at the end ─▶ float scores, selection
#
# What the screen lets through is admitted a few lines of tiles at a time: every array that a function is given is a
# reference counted, in and out, by atomic additions, which for a single line took longer than all the rest.
#
# The float scores are the tile engine's own, to the bit: the result is that of `scan`. h also covers what float32
# arithmetic loses, there and here. A query whose list overflows is given up, and left to `scan`.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._jit import kernel, njit, prange, trailing_zeros
from rvtrain._primitives._byte_tile import COLUMNS, ROWS, tile_bytes
from rvtrain._primitives._pairs import TOGETHER, dots, unit_row
from rvtrain._primitives._prefetch import prefetch_row
from rvtrain._primitives._screen import at_least
from rvtrain.mining._selection_kernels import is_allowed, rise, sink, worse

LINES = 16
"""Lines of tiles that are admitted together: the fewer, the sooner a query's bar rises."""

_GROWS = np.float32(1.000001)
_TINY = np.float32(1e-6)


class Codes(NamedTuple):
    """Rows as bytes, packed for `tile_bytes`."""

    words: np.ndarray
    """(panels, d / 4, width) int32: four codes each; of candidates 128 more, unsigned"""
    scales: np.ndarray
    """(panels, width) float32: s; 0 for rows that do not exist"""
    errors: np.ndarray
    """(panels, width) float32: e, rounded up"""
    starts: np.ndarray
    """(panels, width) int32: −128 Σ codes; of queries"""


class Waiting(NamedTuple):
    """What the bounds have left of the candidates, query by query."""

    low: np.ndarray
    """(B, k) float32 heap of the highest lower bounds, lowest at the root; the floors until there are k"""
    columns: np.ndarray
    """(B, capacity) int64"""
    highs: np.ndarray
    """(B, capacity) float32 their upper bounds"""
    sizes: np.ndarray
    """(B,) int64; −1: given up"""
    needs: np.ndarray
    """(B,) float32: what q̃ · x̃ + ‖q̃‖ e_x must reach; inf for a query that was given up"""


class Scratch(NamedTuple):
    """Of the tasks."""

    tiles: np.ndarray
    """(tasks, ROWS, COLUMNS) int32"""
    lines: np.ndarray
    """(tasks, LINES, COLUMNS) int32 lines of tiles with hits, not admitted yet"""
    places: np.ndarray
    """(tasks, LINES, 3) int64: their query of the panel, their panel of columns, and which columns are hits"""
    query: np.ndarray
    """(tasks, d) a query at length one"""
    others: np.ndarray
    """(tasks, TOGETHER, d) candidates at length one"""
    scores: np.ndarray
    """(tasks, TOGETHER)"""


@kernel
def encode(rows, levels, offset, lines, codes):
    """Codes of rows (n, d) float32, packed by the width of codes.words; offset 128 makes them unsigned.

    lines (tasks, 4 ⌈d / 4⌉) uint8 holds one row's codes for each task, before they go to their places.
    """
    for task in prange(len(lines)):
        panels = len(codes.words)
        for panel in range(panels * task // len(lines), panels * (task + 1) // len(lines)):
            _encode_panel(np.int64(panel), rows, levels, offset, lines[task], codes)


@njit
def _encode_panel(panel, rows, levels, offset, line, codes):
    """With g = levels / max |x|, the code of an element x is rint(g x), and r = g x − code is lost: e = s ‖r‖.

    An r is wrong by 2e-5 at most: four roundings of a number up to 127, which levels do not exceed.
    """
    width, (count, dim) = codes.words.shape[2], rows.x.shape
    whole_words = line.view(np.int32)
    for r in range(width):
        i = panel * width + r
        line[:] = offset
        scale, lost, total = np.float32(0), np.float32(0), np.int32(0)
        if i < count:
            x = rows.x[i]
            top = _largest_magnitude(x)
            stretch = np.float32(levels) / top if top > 1e-30 else np.float32(0)
            scale = np.float32(top * rows.inverse[i] / levels)
            for k in range(dim):
                stretched = x[k] * stretch
                code = np.rint(stretched)
                lost += (stretched - code) * (stretched - code)
                whole = np.int32(code)
                total += whole
                line[k] = np.uint8(whole + offset)
        for k in range(len(whole_words)):
            codes.words[panel, k, r] = whole_words[k]
        codes.scales[panel, r] = scale
        growth = np.float32(1) + np.float32(dim) * np.float32(2.4e-7)
        wrong = np.sqrt(np.float32(dim)) * np.float32(2e-5)
        codes.errors[panel, r] = scale * (np.sqrt(lost) * growth + wrong) + np.float32(4e-7)
        codes.starts[panel, r] = np.int32(-128 * total)


@njit
def _largest_magnitude(x):
    """max |x| of float32, whose order is that of its bits without the sign: integers compare in vectors."""
    bits = x.view(np.int32)
    top = np.int32(0)
    for k in range(len(bits)):
        magnitude = bits[k] & np.int32(0x7FFFFFFF)
        top = magnitude if magnitude > top else top
    return np.int32(top).view(np.float32)


@kernel
def certify(queries, first, rows, count, query_codes, codes, block, limits, waiting, scratch, best):
    """Offer the k best of the first `count` candidates (N, d) to rows first … of the queries, as `scan` would.

    Queries Rows of (B, d), of which query_codes has those from `first` on; a task takes a number of their panels.
    """
    for task in prange(len(scratch.tiles)):
        _certify_task(
            np.int64(task), queries, first, rows, count, query_codes, codes, block, limits, waiting, scratch, best
        )


@njit
def _certify_task(task, queries, first, rows, count, query_codes, codes, block, limits, waiting, scratch, best):
    tasks, panels, across = len(scratch.tiles), len(query_codes.words), len(codes.words)
    begin, end = panels * task // tasks, panels * (task + 1) // tasks
    tile, steps, dim = scratch.tiles[task], codes.words.shape[1], rows.x.shape[1]
    lines, places = scratch.lines[task], scratch.places[task]
    for start in range(0, across, block):
        for p in range(begin, end):
            a, here = p * steps * ROWS, min(ROWS, len(waiting.sizes) - p * ROWS)
            scales, errors = query_codes.scales[p], query_codes.errors[p]
            found = 0
            for j in range(start, min(start + block, across)):
                b = j * steps * COLUMNS
                tile_bytes(query_codes.words, a, codes.words, b, steps, query_codes.starts, p * ROWS, tile)
                for r in range(here):
                    need, spread = waiting.needs[p * ROWS + r], _spread(errors[r])
                    hits = at_least(tile, r, codes.scales, codes.errors, j, scales[r], spread, need)
                    if hits:
                        places[found, 0], places[found, 1], places[found, 2] = r, j, hits
                        for q in range(COLUMNS):
                            lines[found, q] = tile[r, q]
                        found += 1
                        if found == LINES:
                            _admit(lines, places, found, p, first, count, dim, query_codes, codes, limits, waiting)
                            found = 0
            _admit(lines, places, found, p, first, count, dim, query_codes, codes, limits, waiting)
    query, others, scores = scratch.query[task], scratch.others[task], scratch.scores[task]
    for i in range(begin * ROWS, min(end * ROWS, len(waiting.sizes))):
        if waiting.sizes[i] >= 0:
            _rescore(i, first, queries, rows, limits, waiting, query, others, scores, best)


@njit
def _rounding(error, dim):
    """The part of h that no candidate changes: e_q, and what float32 arithmetic loses."""
    return error * _GROWS + np.float32(dim) * np.float32(1.3e-7) + np.float32(2) * _TINY


@njit
def _spread(error):
    """‖q̃‖, rounded up."""
    return (np.float32(1) + error) * _GROWS


@njit
def _admit(lines, places, found, p, first, count, dim, query_codes, codes, limits, waiting):
    """Let those columns of these lines whose upper bound reaches T wait for their queries, of panel p."""
    low, columns, highs, sizes = waiting.low, waiting.columns, waiting.highs, waiting.sizes
    scales, errors, capacity = codes.scales, codes.errors, waiting.columns.shape[1]
    unlimited = limits.exclude.shape[1] + limits.row_ids.shape[1] == 0
    for f in range(found):
        r, j, hits = places[f, 0], places[f, 1], np.uint32(places[f, 2])
        i = p * ROWS + r
        scale, spread = query_codes.scales[p, r], _spread(query_codes.errors[p, r])
        base, ceiling = _rounding(query_codes.errors[p, r], dim), limits.ceilings[first + i]
        if sizes[i] < 0:  # given up since
            continue
        if ceiling < np.inf:  # not those whose lower bound is above it
            hits &= ~at_least(lines, f, scales, errors, j, scale, -spread, ceiling + base)
        while hits:
            q = np.int64(trailing_zeros(hits))
            hits &= hits - np.uint32(1)
            about, column = np.float32(lines[f, q]) * scales[j, q] * scale, j * COLUMNS + q
            half = spread * errors[j, q] + base
            if about + half < low[i, 0]:  # which has risen since
                continue
            if column >= count or not (unlimited or is_allowed(first + i, column, column, limits)):
                continue
            if about - half > low[i, 0] and about + half < ceiling:
                _replace_lowest(low, i, about - half)
            if sizes[i] == capacity:
                _compact(i, waiting)
                if 2 * sizes[i] > capacity:
                    sizes[i], waiting.needs[i] = -1, np.inf
                    break
            columns[i, sizes[i]], highs[i, sizes[i]] = column, about + half
            sizes[i] += 1
        if sizes[i] >= 0:
            waiting.needs[i] = low[i, 0] - base - _TINY


@njit
def _replace_lowest(heaps, i, value):
    """Put a value in place of the root of heap i, lowest first."""
    at, size = 0, heaps.shape[1]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and heaps[i, child + 1] < heaps[i, child]:
            child += 1
        if heaps[i, child] >= value:
            break
        heaps[i, at] = heaps[i, child]
        at = child
    heaps[i, at] = value


@njit
def _compact(i, waiting):
    """Forget those whose upper bound is below the k-th lower bound by now."""
    kept, lowest = 0, waiting.low[i, 0]
    for w in range(waiting.sizes[i]):
        if waiting.highs[i, w] >= lowest:
            waiting.columns[i, kept], waiting.highs[i, kept] = waiting.columns[i, w], waiting.highs[i, w]
            kept += 1
    waiting.sizes[i] = kept


@njit
def _rescore(i, first, queries, rows, limits, waiting, query, others, scores, best):
    """Score what waits for query i in float, highest bound first, and keep the best in its window.

    Whose bound is below the k-th score by then is not scored, nor are those after it.
    """
    _compact(i, waiting)
    row = first + i
    unit_row(queries, row, query)
    keys, columns, found = best.keys[0, row], best.columns[0, row], best.scores[0, row]
    highs, names = waiting.highs[i], waiting.columns[i]
    size, left = 0, waiting.sizes[i]
    for at in range(left // 2 - 1, -1, -1):
        _settle(highs, names, at, left)
    coming = _pop_highest(highs, names, left, rows.x)
    while left > 0 and not (size == len(keys) and highs[left - 1] < keys[0]):
        here = left - coming
        for c in range(here):
            unit_row(rows, names[left - 1 - c], others[c])
        following = _pop_highest(highs, names, coming, rows.x)
        dots(query, others, scores)
        for c in range(here):
            s, column = scores[c], names[left - 1 - c]
            key = np.float64(s)
            if s <= limits.floors[row] or s >= limits.ceilings[row]:
                continue
            if size < len(keys):
                rise(keys, columns, found, size, key, column, s)
                size += 1
            elif worse(keys[0], columns[0], key, column):
                sink(keys, columns, found, size, key, column, s)
        left, coming = coming, following
    best.sizes[0, row] = size


@njit
def _pop_highest(highs, names, size, table):
    """Move the TOGETHER highest of a heap to its end, highest last, their rows on the way; returns what is left."""
    left = size
    while left > max(size - TOGETHER, 0):
        left -= 1
        highs[0], highs[left] = highs[left], highs[0]
        names[0], names[left] = names[left], names[0]
        _settle(highs, names, 0, left)
        prefetch_row(table, names[left])
    return left


@njit
def _settle(highs, names, at, size):
    """Let entry `at` of a heap, highest first, sink to its place."""
    high, name = highs[at], names[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and highs[child + 1] > highs[child]:
            child += 1
        if highs[child] <= high:
            break
        highs[at], names[at] = highs[child], names[child]
        at = child
    highs[at], names[at] = high, name
