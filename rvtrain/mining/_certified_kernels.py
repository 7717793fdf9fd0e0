"""Exact search from 8-bit products: bounds first, float scores only for the few that the bounds leave.

# Design: a unit vector x is s · c + (what rounding lost), c signed bytes, ‖x − s c‖ = e. For a query q and a
# candidate x, with their approximations q̃ = s_q c_q and x̃ = s_x c_x,
#
#     |q · x − q̃ · x̃| ≤ ‖q − q̃‖ ‖x‖ + ‖q̃‖ ‖x − x̃‖ ≤ e_q + ‖q̃‖ e_x =: h        (Cauchy–Schwarz)
#
# so that q̃ · x̃ ± h are bounds. A query keeps a heap of the k highest lower bounds; its root T only rises, and a
# candidate whose upper bound is below T is not among the k best, now or ever. Where scores must lie in a window,
# only what lies below its ceiling for certain raises T. The others wait in a short list:
#
#     bytes ─ tile_bytes ─▶ int32 tile ─ screen: upper bound ≥ T? ─▶ waiting ─ at the end ─▶ float scores, selection
#
# What the screen lets through is admitted a few lines of tiles at a time: every array that a function is given is a
# reference counted, in and out, by atomic additions, which for a single line took longer than all the rest.
#
# T starts at a guess, since from nothing it rises slowly, and admits ten times as many: one panel in SAMPLED goes
# first, and the m-th best q̃ · x̃ of these, m well above k / SAMPLED, is likely below the k-th score of all. It need
# not be: with k scores at the guess or above, no candidate whose upper bound is below it was missed; without, the
# query is given up.
#
# The float scores are the tile engine's own, to the bit: the result is that of `scan`. h also covers what float32
# arithmetic loses, there and here. A query whose list overflows is given up, and left to `scan`.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._byte_tile import COLUMNS, PARTIAL, ROWS, tile_bytes
from rvtrain._engine._pairs import TOGETHER, dots, unit_row
from rvtrain._engine._prefetch import prefetch_row
from rvtrain._engine._screen import any_at_least, at_least
from rvtrain._kernels import kernel, njit, trailing_zeros
from rvtrain.mining._selection_kernels import is_allowed, rise, sink, worse

SAMPLED = 12
"""One panel of candidates in so many is in the sample."""

LINES = 16
"""Lines of tiles that are admitted together: the fewer, the sooner a query's bar rises."""

_GROUP_BYTES = 8192
"""Codes of the queries that meet a panel of candidates one after another, both in the first-level cache."""
_LANE = (np.arange(4 * PARTIAL) % 4 < 2).astype(np.float32)
"""1 where a code is summed in the first lane of its part, 0 where in the second."""

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
    """(panels, parts, width) int32: where the sums of queries' products start"""


class Waiting(NamedTuple):
    """What the bounds have left of the candidates, query by query."""

    low: np.ndarray
    """(B, k) float32 heap of the highest lower bounds, lowest at the root; the guesses until there are k"""
    sample: np.ndarray
    """(B, m) float32 heap of the highest q̃ · x̃ of the sample, lowest at the root; the floors until there are m"""
    columns: np.ndarray
    """(B, capacity) int64"""
    highs: np.ndarray
    """(B, capacity) float32 their upper bounds"""
    sizes: np.ndarray
    """(B,) int64; −1: given up"""
    needs: np.ndarray
    """(panels · ROWS,) float32: what (q̃ · x̃ + ‖q̃‖ e_x) / s_q must reach; inf for what is no query, or given up"""
    spreads: np.ndarray
    """(panels · ROWS,) float32: ‖q̃‖ / s_q"""


class Scratch(NamedTuple):
    """Of the tasks."""

    tiles: np.ndarray
    """(tasks, ROWS, COLUMNS) int32"""
    lines: np.ndarray
    """(tasks, LINES, COLUMNS) int32 lines of tiles with hits, not admitted yet"""
    places: np.ndarray
    """(tasks, LINES, 3) int64: their query, their panel of columns, and which columns are hits"""
    query: np.ndarray
    """(tasks, d) a query at length one"""
    others: np.ndarray
    """(tasks, TOGETHER, d) candidates at length one"""
    scores: np.ndarray
    """(tasks, TOGETHER)"""


@kernel
def encode(start, stop, rows, levels, offset, lines, codes):
    """Codes of rows (n, d) float32, packed by the width of codes.words; offset 128 makes them unsigned.

    lines (tasks, 4 ⌈d / 4⌉) uint8 holds one row's codes for each task, before they go to their places.
    """
    for task in range(start, stop):
        panels = len(codes.words)
        for panel in range(panels * task // len(lines), panels * (task + 1) // len(lines)):
            _encode_panel(np.int64(panel), rows, levels, offset, lines[task], codes)


@njit
def _encode_panel(panel, rows, levels, offset, line, codes):
    """The code of an element x is rint(g x), and r = g x − code is lost: e = s ‖r‖ with s = 1 / g of the unit row.

    g is as large as levels, and sums of 16 bits, allow. An r is wrong by 2.3e-5 at most: three roundings of a number
    up to 127, which levels do not exceed.
    """
    width, (count, dim) = codes.words.shape[2], rows.x.shape
    whole_words = line.view(np.int32)
    for r in range(width):
        i = panel * width + r
        line[:] = offset
        codes.starts[panel, :, r] = 0
        scale, lost = np.float32(0), np.float32(0)
        if i < count:
            x = rows.x[i]
            top = _largest_magnitude(x)
            stretch = np.float32(0)
            if top > 1e-30:
                stretch = _most_levels(x, np.float32(1) / top, np.float32(levels)) / top
                scale = np.float32(rows.inverse[i] / stretch)
            for k in range(dim):
                stretched = x[k] * stretch
                code = np.rint(stretched)
                lost += (stretched - code) * (stretched - code)
                line[k] = np.uint8(np.int32(code) + offset)
            if offset == 0:
                _sum_codes(line.view(np.int8), codes.starts[panel, :, r])
        for k in range(len(whole_words)):
            codes.words[panel, k, r] = whole_words[k]
        codes.scales[panel, r] = scale
        growth = np.float32(1) + np.float32(dim) * np.float32(2.4e-7)
        wrong = np.sqrt(np.float32(dim)) * np.float32(2.3e-5)
        codes.errors[panel, r] = scale * (np.sqrt(lost) * growth + wrong) + np.float32(4e-7)


@njit
def _most_levels(x, inverse_top, levels):
    """The largest code: at most `levels`, and so that the codes that a sum of 16 bits meets are not longer than 181.

    Rounding makes n codes longer by √n / 2 at most.
    """
    if PARTIAL == 0:
        return levels
    longest = np.float32(1)
    for start in range(0, len(x), 4 * PARTIAL):
        both, first = np.float32(0), np.float32(0)
        for k in range(min(4 * PARTIAL, len(x) - start)):
            a = x[start + k] * inverse_top
            both += a * a
            first += a * a * _LANE[k]
        longest = max(longest, first, both - first)
    codes = 2 * min(PARTIAL, (len(x) + 3) // 4)
    return min(levels, (np.float32(180.9) - np.sqrt(np.float32(codes)) / np.float32(2)) / np.sqrt(longest))


@njit
def _sum_codes(line, starts):
    """starts = −128 Σ codes; where sums have 16 bits, of each lane of each part by itself, modulo 2¹⁶."""
    if PARTIAL == 0:
        total = np.int32(0)
        for k in range(len(line)):
            total += np.int32(line[k])
        starts[0] = np.int32(-128) * total
        return
    for part in range(len(starts)):
        first, second = np.int32(0), np.int32(0)
        for k in range(4 * PARTIAL * part, min(4 * PARTIAL * (part + 1), len(line)), 4):
            first += np.int32(line[k]) + np.int32(line[k + 1])
            second += np.int32(line[k + 2]) + np.int32(line[k + 3])
        low, high = np.int32(-128) * first, np.int32(-128) * second
        starts[part] = (low & np.int32(0xFFFF)) | np.int32(high << np.int32(16))


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
def certify(start, stop, queries, first, rows, query_codes, codes, block, limits, waiting, scratch, best):
    """Offer the k best of the candidates (N, d) to rows first … of the queries, as `scan` would.

    Queries Rows of (B, d), of which query_codes has those from `first` on; a task takes a number of their panels.
    """
    for task in range(start, stop):
        _certify_task(task, queries, first, rows, query_codes, codes, block, limits, waiting, scratch, best)


@njit
def _certify_task(task, queries, first, rows, query_codes, codes, block, limits, waiting, scratch, best):
    tasks, panels = len(scratch.tiles), len(query_codes.words)
    begin, end = panels * task // tasks, panels * (task + 1) // tasks
    count, dim = rows.x.shape
    for p in range(begin, end):
        for r in range(ROWS):
            waiting.spreads[p * ROWS + r] = np.float32(0)
    _meet(task, begin, end, True, first, count, dim, query_codes, codes, block, limits, waiting, scratch)
    for p in range(begin, end):
        for r in range(min(ROWS, len(waiting.sizes) - p * ROWS)):
            i, error, scale = p * ROWS + r, query_codes.errors[p, r], _scale(query_codes, p, r)
            waiting.low[i] = waiting.sample[i, 0]
            waiting.spreads[i] = _spread(error) / scale
            waiting.needs[i] = (waiting.low[i, 0] - _rounding(error, dim) - _TINY) / scale
    _meet(task, begin, end, False, first, count, dim, query_codes, codes, block, limits, waiting, scratch)
    query, others, scores = scratch.query[task], scratch.others[task], scratch.scores[task]
    for i in range(begin * ROWS, min(end * ROWS, len(waiting.sizes))):
        if waiting.sizes[i] >= 0:
            _rescore(i, first, queries, rows, limits, waiting, query, others, scores, best)


@njit
def _meet(task, begin, end, sampling, first, count, dim, query_codes, codes, block, limits, waiting, scratch):
    """Admit what is due from products of panels begin … end of queries with all candidates, or with the sample."""
    tile, lines, places = scratch.tiles[task], scratch.lines[task], scratch.places[task]
    (across, steps, _), parts = codes.words.shape, query_codes.starts.shape[1]
    stride, high = SAMPLED if sampling else 1, max(1, _GROUP_BYTES // (4 * ROWS * steps))
    for start in range(0, across, block * stride):
        for group in range(begin, end, high):
            found = 0
            for j in range(start, min(start + block * stride, across), stride):
                b = j * steps * COLUMNS
                for p in range(group, min(group + high, end)):
                    i, a, at = p * ROWS, p * steps * ROWS, p * parts * ROWS
                    tile_bytes(query_codes.words, a, codes.words, b, steps, query_codes.starts, at, tile)
                    if not any_at_least(tile, codes.scales, codes.errors, j, waiting.spreads, waiting.needs, i):
                        continue
                    for r in range(ROWS):
                        spread, need = waiting.spreads[i + r], waiting.needs[i + r]
                        hits = at_least(tile, r, codes.scales, codes.errors, j, spread, need)
                        if hits:
                            places[found, 0], places[found, 1], places[found, 2] = i + r, j, hits
                            for q in range(COLUMNS):
                                lines[found, q] = tile[r, q]
                            found += 1
                            if found == LINES:
                                _admit(
                                    lines,
                                    places,
                                    found,
                                    sampling,
                                    first,
                                    count,
                                    dim,
                                    query_codes,
                                    codes,
                                    limits,
                                    waiting,
                                )
                                found = 0
            _admit(lines, places, found, sampling, first, count, dim, query_codes, codes, limits, waiting)


@njit
def _rounding(error, dim):
    """The part of h that no candidate changes: e_q, and what float32 arithmetic loses."""
    return error * _GROWS + np.float32(dim) * np.float32(1.3e-7) + np.float32(2) * _TINY


@njit
def _spread(error):
    """‖q̃‖, rounded up."""
    return (np.float32(1) + error) * _GROWS


@njit
def _scale(codes, p, r):
    """s of a query; a query of which every code is 0 may have any."""
    return codes.scales[p, r] if codes.scales[p, r] > 0 else np.float32(1)


@njit
def _admit(lines, places, found, sampling, first, count, dim, query_codes, codes, limits, waiting):
    """Let those columns of these lines whose upper bound reaches T wait; of the sample, note the best scores."""
    low, columns, highs, sizes = waiting.low, waiting.columns, waiting.highs, waiting.sizes
    scales, errors, capacity = codes.scales, codes.errors, waiting.columns.shape[1]
    unlimited = limits.exclude.shape[1] + limits.row_ids.shape[1] == 0
    for f in range(found):
        i, j, hits = places[f, 0], places[f, 1], np.uint32(places[f, 2])
        p, r = i // ROWS, i % ROWS
        scale, spread = _scale(query_codes, p, r), _spread(query_codes.errors[p, r])
        base, ceiling = _rounding(query_codes.errors[p, r], dim), limits.ceilings[first + i]
        if sizes[i] < 0:  # given up since
            continue
        if ceiling < np.inf and not sampling:  # not those whose lower bound is above it
            hits &= ~at_least(lines, f, scales, errors, j, -spread / scale, (ceiling + base) / scale)
        while hits:
            q = np.int64(trailing_zeros(hits))
            hits &= hits - np.uint32(1)
            about, column = np.float32(lines[f, q]) * scales[j, q] * scale, j * COLUMNS + q
            half = np.float32(0) if sampling else spread * errors[j, q] + base
            if about + half < (waiting.sample[i, 0] if sampling else low[i, 0]):  # which has risen since
                continue
            if column >= count or not (unlimited or is_allowed(first + i, column, column, limits)):
                continue
            if sampling:
                if about < ceiling:
                    _replace_lowest(waiting.sample, i, about)
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
        if sampling:
            waiting.needs[i] = waiting.sample[i, 0] / scale
        elif sizes[i] >= 0:
            waiting.needs[i] = (low[i, 0] - base - _TINY) / scale


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
    guess = waiting.sample[i, 0]
    if guess > limits.floors[row] and not (size == len(keys) and keys[0] >= guess):
        waiting.sizes[i] = -1


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
