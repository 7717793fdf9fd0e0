"""Exact search from 8-bit products: bounds first, float scores only for the few candidates that the bounds leave.

# Design: a unit vector x is s c + (rounding error), c signed bytes, with ‖x − s c‖ = e. For a query q and a candidate
# x, with their approximations q̃ = s_q c_q and x̃ = s_x c_x,
#
#     |q · x − q̃ · x̃| ≤ ‖q − q̃‖ ‖x‖ + ‖q̃‖ ‖x − x̃‖ ≤ e_q + ‖q̃‖ e_x =: h        (Cauchy–Schwarz)
#
# so that q̃ · x̃ ± h are bounds. A query keeps a heap of the k highest lower bounds. Its root T only rises, and a
# candidate whose upper bound is below T is not among the k best, now or later. Where scores must lie in a window,
# only candidates that certainly lie below its ceiling raise T. The others wait in a short list:
#
#     bytes ─ tile_bytes ─▶ int32 tile ─ screen: upper bound ≥ T? ─▶ list ─ at the end ─▶ float scores, selection
#
# Lines of tiles with candidates that pass the screen are collected, and admitted LINES at a time, because a call
# costs as much as all else that is done for a line.
#
# T starts at a guess, because from nothing it rises slowly and admits ten times as many candidates. One panel in
# SAMPLED goes first. The m-th best q̃ · x̃ of this sample, m well above k / SAMPLED, is likely below the k-th score
# of all. It need not be: if k scores are at the guess or above, no candidate with an upper bound below it was
# missed; otherwise the query is given up. The k-th highest cosine of candidates that are likely among the best, as
# those that another search of the same data has found, is a guess too, and mostly a higher one.
#
# The float scores are those of the tile engine to the bit, so the result is that of `scan`. h also covers the
# rounding of float32 arithmetic, there and here. A query whose list overflows is given up, and left to `scan`.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._amx import begin_tiles, end_tiles
from rvtrain._engine._blocks import Rows
from rvtrain._engine._byte_tile import COLUMNS, ROWS, tile_bytes
from rvtrain._engine._pairs import TOGETHER, dots, unit_row
from rvtrain._engine._prefetch import prefetch_row
from rvtrain._engine._row_screen import TOGETHER as _AT_ONCE
from rvtrain._engine._row_screen import products
from rvtrain._engine._screen import any_at_least, at_least
from rvtrain._kernels import body, kernel, njit, trailing_zeros
from rvtrain.mining._codes_kernels import Codes
from rvtrain.mining._heap import push
from rvtrain.mining._selection_kernels import Limits, count_allowed, first_bits, is_allowed

SAMPLED = 12
"""One panel of candidates in SAMPLED is in the sample."""

LINES = 16
"""Lines of tiles that are admitted together. With fewer, the T of a query rises sooner."""

_GROUP_BYTES = 8192
"""Size of the codes of the queries that meet a panel of candidates in turn, both in the first-level cache."""
_AHEAD = 8
"""Number of candidates whose rows are fetched while another one is scored."""

_GROWS = np.float32(1.000001)
_TINY = np.float32(1e-6)


class Waiting(NamedTuple):
    """The candidates that the bounds have left, query by query."""

    lower: np.ndarray
    """(B, k) float32 heap of the highest lower bounds, T at the root; filled with the guess at first"""
    sample: np.ndarray
    """(B, m) float32 heap of the highest q̃ · x̃ of the sample; filled with the floors at first"""
    columns: np.ndarray
    """(B, capacity) int64"""
    order: np.ndarray
    """(B, capacity) float32: minus their upper bounds; at the end, their cosines in another rounding"""
    sizes: np.ndarray
    """(B,) int64; −1: given up"""
    needs: np.ndarray
    """(panels · ROWS,) float32: least (q̃ · x̃ + ‖q̃‖ e_x) / s_q that is admitted; inf for queries given up, and
    beyond the last"""
    spreads: np.ndarray
    """(panels · ROWS,) float32: ‖q̃‖ / s_q"""
    dropped: np.ndarray
    """(B,) int64: the number of allowed candidates that are certainly at or above the ceiling"""


class Search(NamedTuple):
    """What all tasks of a search share."""

    queries: Rows
    """of (all B, d)"""
    first: int
    """the query of the first row of `query_codes`, `waiting`"""
    candidates: Rows
    """of (N, d)"""
    query_codes: Codes
    codes: Codes
    """of the candidates"""
    limits: Limits
    """of all B queries"""
    waiting: Waiting


class OfTasks(NamedTuple):
    """Scratch arrays, a part of each for every task."""

    tiles: np.ndarray
    """(tasks, ROWS, COLUMNS) int32"""
    lines: np.ndarray
    """(tasks, LINES, COLUMNS) int32: lines of tiles that passed the screen, not admitted yet"""
    places: np.ndarray
    """(tasks, LINES, 3) int64: query and panel of each line, and the bits of the columns that passed"""
    query: np.ndarray
    """(tasks, d): a query at length one"""
    others: np.ndarray
    """(tasks, TOGETHER, d): candidates at length one"""
    scores: np.ndarray
    """(tasks, TOGETHER)"""


@kernel
def certify(start, stop, search, block, scratch, best):
    """Push the k best candidates of each query on its heap, as `scan` would.

    Count is the number of tasks, which share the panels of queries. All queries of a task meet `block` panels of
    candidates before the next ones.
    """
    panels, tasks, waiting = len(search.query_codes.words), len(scratch.tiles), search.waiting
    for task in range(start, stop):
        begin, end = panels * task // tasks, panels * (task + 1) // tasks
        for i in range(begin * ROWS, end * ROWS):
            waiting.spreads[i] = np.float32(0)
        begin_tiles()
        for sampling in (True, False):
            _meet(search, sampling, begin, end, block, scratch.tiles[task], scratch.lines[task], scratch.places[task])
            if sampling:
                _take_guesses(search, begin, end)
        end_tiles()
        for i in range(begin * ROWS, min(end * ROWS, len(waiting.sizes))):
            if waiting.sizes[i] >= 0:
                _rescore(search, i, scratch.query[task], scratch.others[task], scratch.scores[task], best)


@kernel
def guess_from(start, stop, search, likely):
    """Raise the sample's guesses to the k-th highest cosine of the likely candidates in the window.

    Shapes: likely (B, m) int64, −1 for none, for the queries of `search.waiting`.
    """
    queries, first, candidates, query_codes, _, limits, waiting = search
    count, dim = candidates.x.shape
    slack = _slack(dim)
    for i in range(start, stop):
        heap, size = waiting.lower[i], 0
        for m in range(likely.shape[1]):
            j = likely[i, m]
            if 0 <= j < count and is_allowed(first + i, j, j, limits):
                cosine = _cosine(queries, first + i, candidates, j)
                if cosine < limits.ceilings[first + i] - slack and cosine < np.float32(2):
                    size = push(heap, None, None, size, cosine, None, None)
        if size == len(heap) and heap[0] - slack > waiting.sample[i, 0]:
            guess = heap[0] - slack
            for m in range(waiting.sample.shape[1]):
                waiting.sample[i, m] = guess
            waiting.needs[i] = guess / _scale(query_codes, i // ROWS, i % ROWS)


@body
def _take_guesses(search, begin, end):
    """Start T of the queries of panels [begin, end) from the sample."""
    query_codes, waiting, dim = search.query_codes, search.waiting, search.candidates.x.shape[1]
    for i in range(begin * ROWS, min(end * ROWS, len(waiting.sizes))):
        error, scale = query_codes.errors[i // ROWS, i % ROWS], _scale(query_codes, i // ROWS, i % ROWS)
        guess = waiting.sample[i, 0]
        for m in range(waiting.lower.shape[1]):
            waiting.lower[i, m] = guess
        waiting.spreads[i] = _spread(error) / scale
        waiting.needs[i] = (guess - _rounding(error, dim) - _TINY) / scale


@body
def _meet(search, sampling, begin, end, block, tile, lines, places):
    """Screen the products of query panels [begin, end) with all candidates, or the sample, and admit what passes."""
    candidates, query_codes, codes, waiting = search.candidates, search.query_codes, search.codes, search.waiting
    (across, steps, _), parts = codes.words.shape, query_codes.starts.shape[1]
    stride, high = SAMPLED if sampling else 1, max(1, _GROUP_BYTES // (4 * ROWS * steps))
    found = 0
    for start in range(0, across, block * stride):
        for group in range(begin, end, high):
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
                            while hits and not sampling:  # their cosines are computed when the line is admitted
                                column = j * COLUMNS + np.int64(trailing_zeros(hits))
                                hits &= hits - np.uint32(1)
                                prefetch_row(candidates.x, min(column, len(candidates.x) - 1))
                            if found == LINES:
                                _admit(search, sampling, lines, places, found)
                                found = 0
            _admit(search, sampling, lines, places, found)
            found = 0


@njit
def _rounding(error, dim):
    """The part of h that does not depend on the candidate: e_q, and the rounding of float32 arithmetic."""
    return error * _GROWS + np.float32(dim) * np.float32(1.3e-7) + np.float32(2) * _TINY


@njit
def _spread(error):
    """‖q̃‖, rounded up."""
    return (np.float32(1) + error) * _GROWS


@njit
def _scale(codes, p, r):
    """s of a query; 1 for a query whose codes are all 0, for which any number will do."""
    return codes.scales[p, r] if codes.scales[p, r] > 0 else np.float32(1)


@body
def _admit(search, sampling, lines, places, found):
    """Put the candidates of these lines whose upper bound reaches T on the lists; from the sample, note the best."""
    queries, first, candidates, query_codes, codes, limits, waiting = search
    slack = _slack(candidates.x.shape[1])
    sample, lower, columns, order, sizes = (
        waiting.sample,
        waiting.lower,
        waiting.columns,
        waiting.order,
        waiting.sizes,
    )
    scales, errors, capacity, (count, dim) = codes.scales, codes.errors, columns.shape[1], candidates.x.shape
    unlimited = limits.exclude.shape[1] + limits.row_ids.shape[1] == 0
    for f in range(found):
        i, j, hits = places[f, 0], places[f, 1], np.uint32(places[f, 2])
        p, r = i // ROWS, i % ROWS
        scale, spread = _scale(query_codes, p, r), _spread(query_codes.errors[p, r])
        base, ceiling = _rounding(query_codes.errors[p, r], dim), limits.ceilings[first + i]
        if sizes[i] < 0:  # given up since the screen
            continue
        if ceiling < np.inf and not sampling:  # without candidates whose lower bound is above the ceiling
            above = hits & at_least(lines, f, scales, errors, j, -spread / scale, (ceiling + base) / scale)
            above &= first_bits(min(count - j * COLUMNS, COLUMNS))
            hits &= ~above
            if above:
                waiting.dropped[i] += count_allowed(above, first + i, j * COLUMNS, 0, limits)
        while hits:
            q = np.int64(trailing_zeros(hits))
            hits &= hits - np.uint32(1)
            about, column = np.float32(lines[f, q]) * scales[j, q] * scale, j * COLUMNS + q
            half = np.float32(0) if sampling else spread * errors[j, q] + base
            if about + half < (sample[i, 0] if sampling else lower[i, 0]):  # which has risen since the screen
                continue
            if column >= count or not (unlimited or is_allowed(first + i, column, column, limits)):
                continue
            if sampling:
                if about < ceiling:
                    push(sample[i], None, None, sample.shape[1], about, None, None)
                continue
            least, most = about - half, about + half
            if about > lower[i, 0]:  # likely one of the best: T rises higher by its cosine than by its lower bound
                cosine = _cosine(queries, first + i, candidates, column)
                if abs(cosine) < np.float32(2):  # no product has overflown
                    least, most = max(least, cosine - slack), min(most, cosine + slack)
            if most < ceiling:
                push(lower[i], None, None, lower.shape[1], least, None, None)
            if sizes[i] == capacity:
                _compact(i, waiting)
                if 2 * sizes[i] > capacity:
                    sizes[i], waiting.needs[i] = -1, np.inf
                    break
            columns[i, sizes[i]], order[i, sizes[i]] = column, -most
            sizes[i] += 1
        if sampling:
            waiting.needs[i] = sample[i, 0] / scale
        elif sizes[i] >= 0:
            waiting.needs[i] = (lower[i, 0] - base - _TINY) / scale


@njit
def _slack(dim):
    """Four times the greatest difference of two cosines whose sums of `dim` products have different orders."""
    return np.float32(4.0 * (dim + 8.0) * np.finfo(np.float32).eps)


@njit
def _cosine(queries, i, candidates, j):
    """The cosine of a query and a candidate, summed in no fixed order."""
    x, y, product = queries.x[i], candidates.x[j], np.float32(0)
    for k in range(len(x)):
        product += x[k] * y[k]
    return np.float32(product * queries.inverse[i] * candidates.inverse[j])


@njit
def _compact(i, waiting):
    """Remove the candidates whose upper bound is below T by now."""
    kept, most = 0, -waiting.lower[i, 0]
    for w in range(waiting.sizes[i]):
        if waiting.order[i, w] <= most:
            waiting.columns[i, kept], waiting.order[i, kept] = waiting.columns[i, w], waiting.order[i, w]
            kept += 1
    waiting.sizes[i] = kept


@body
def _rescore(search, i, query, others, scores, best):
    """Score the candidates on query i's list in float, and keep the best in its window.

    Products summed in any order, which vectors do eight times as fast, leave only those that may be among the best.
    """
    queries, first, candidates, _, _, limits, waiting = search
    _compact(i, waiting)
    row = first + i
    unit_row(queries, row, query)
    left = _nearly_best(search, i, query, scores)
    keys, columns, found = best.keys[0, row], best.columns[0, row], best.scores[0, row]
    names, size = waiting.columns[i], best.sizes[0, row]
    for begin in range(0, left, TOGETHER):
        here = min(TOGETHER, left - begin)
        for c in range(here):
            unit_row(candidates, names[begin + c], others[c])
        dots(query, others, scores)
        for c in range(here):
            if limits.floors[row] < scores[c] < limits.ceilings[row]:
                key, column = np.float64(scores[c]), names[begin + c]
                size = push(keys, columns, found, size, key, column, scores[c])
            elif scores[c] >= limits.ceilings[row]:
                waiting.dropped[i] += 1
    best.sizes[0, row] = size
    guess = waiting.sample[i, 0]
    if guess > limits.floors[row] and not (size == len(keys) and keys[0] >= guess):
        waiting.sizes[i] = -1


@njit
def _nearly_best(search, i, query, scores):
    """Keep on query i's list what may be among the best by cosines rounded otherwise; returns their number.

    The candidates with the k highest bounds are scored first: the least of their cosines is above most other bounds.
    """
    candidates, limits, waiting, row = search.candidates, search.limits, search.waiting, search.first + i
    names, about, heap = waiting.columns[i], waiting.order[i], waiting.lower[i]
    left, size, slack = waiting.sizes[i], 0, _slack(candidates.x.shape[1])
    for w in range(left, _AT_ONCE):
        names[w] = names[0]
    for w in range(left):
        size = push(heap, None, None, size, -about[w], None, None)
    likely = _first_reaching(names, about, 0, left, heap[0]) if left > 0 else 0
    size = _score(search, i, query, 0, likely, 0, scores)
    if size == len(heap):
        left = _first_reaching(names, about, likely, left, heap[0] - slack)
    size = _score(search, i, query, likely, left, size, scores)
    floor, ceiling = limits.floors[row], limits.ceilings[row]
    low = floor - slack
    if size == len(heap):
        low = max(low, heap[0] - np.float32(2) * slack)
    kept = 0
    for w in range(left):
        if about[w] >= ceiling + slack:
            waiting.dropped[i] += 1
        elif not about[w] < low:  # NaN if a product overflows
            names[kept] = names[w]
            kept += 1
    return kept


@njit
def _first_reaching(names, order, start, stop, bound):
    """Move the candidates from `start` on whose upper bound is at least `bound` to the front; returns their end."""
    end = start
    for w in range(start, stop):
        if -order[w] >= bound:
            name, key = names[w], order[w]
            names[w], order[w] = names[end], order[end]
            names[end], order[end] = name, key
            end += 1
    return end


@njit
def _score(search, i, query, start, stop, size, scores):
    """Replace bounds [start, stop) of query i's list by cosines, and push those certainly in the window on a heap.

    Returns the size of the heap, waiting.lower[i], whose root is at most the k-th best cosine if it is full. A cosine
    is NaN if its product overflows.
    """
    candidates, limits, waiting, row = search.candidates, search.limits, search.waiting, search.first + i
    names, about, heap, slack = waiting.columns[i], waiting.order[i], waiting.lower[i], _slack(len(query))
    floor, ceiling, last = limits.floors[row] + slack, limits.ceilings[row] - slack, waiting.sizes[i] - _AT_ONCE
    for w in range(start, min(start + _AHEAD, stop)):
        prefetch_row(candidates.x, names[w])
    for begin in range(start, stop, _AT_ONCE):
        for w in range(begin + _AHEAD, min(begin + _AHEAD + _AT_ONCE, stop)):
            prefetch_row(candidates.x, names[w])
        first = max(min(begin, last), 0)
        products(candidates.x, names, first, query, scores, 0)
        for w in range(begin, min(begin + _AT_ONCE, stop)):
            cosine = np.float32(scores[w - first] * candidates.inverse[names[w]])
            about[w] = cosine if abs(cosine) < np.float32(2) else np.float32(np.nan)
            if floor < cosine < ceiling and cosine < np.float32(2):
                size = push(heap, None, None, size, cosine, None, None)
    return size
