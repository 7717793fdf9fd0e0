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
from rvtrain._engine._pairs import SCORED, scores_of_rows, unit_row
from rvtrain._engine._prefetch import prefetch_row
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

_FETCHED_BYTES = 1 << 17
"""Most bytes of rows that are fetched for the next query's scores, into the second-level cache."""

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
    scores: np.ndarray
    """(tasks, SCORED)"""


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
                take_guesses(search, begin, end)
        end_tiles()
        rescore(search, begin, end, None, scratch.query[task], scratch.scores[task], best)


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
                if cosine < limits.ceilings[first + i] + slack and cosine < np.float32(2):
                    size = push(heap, None, None, size, cosine, None, None)
        if size == len(heap) and heap[0] - slack > waiting.sample[i, 0]:
            guess = heap[0] - slack
            for m in range(waiting.sample.shape[1]):
                waiting.sample[i, m] = guess
            waiting.needs[i] = guess / _scale(query_codes, i // ROWS, i % ROWS)


@body
def take_guesses(search, begin, end):
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
    stride, high = SAMPLED if sampling else 1, panels_of_group(steps)
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
def panels_of_group(steps):
    """Number of panels of queries, of so many words a row, that meet a panel of candidates in turn."""
    return max(1, _GROUP_BYTES // (4 * ROWS * steps))


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
    sample, lower, sizes = waiting.sample, waiting.lower, waiting.sizes
    scales, errors, (count, dim) = codes.scales, codes.errors, candidates.x.shape
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
            if not wait(i, column, least, most, ceiling, waiting):
                break
        if sampling:
            waiting.needs[i] = sample[i, 0] / scale
        elif sizes[i] >= 0:
            waiting.needs[i] = (lower[i, 0] - base - _TINY) / scale


@njit
def wait(i, column, least, most, ceiling, waiting):
    """Put a candidate with these bounds on query i's list; whether the query goes on, because the list has room."""
    lower, columns, order, sizes = waiting.lower, waiting.columns, waiting.order, waiting.sizes
    if most < ceiling:
        push(lower[i], None, None, lower.shape[1], least, None, None)
    if sizes[i] == columns.shape[1]:
        _compact(i, waiting)
        if 2 * sizes[i] > columns.shape[1]:
            sizes[i], waiting.needs[i] = -1, np.inf
            return False
    columns[i, sizes[i]], order[i, sizes[i]] = column, -most
    sizes[i] += 1
    return True


@njit
def _slack(dim):
    """Bound of the difference of two cosines whose sums of `dim` products have different orders.

    A sum of products of unit rows is wrong by at most d ε/2 in any order, and a cosine by four roundings more.
    """
    return np.float32((dim + 8.0) * np.finfo(np.float32).eps)


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
def rescore(search, begin, end, halves, query, scores, best):
    """Score the candidates on the lists of the queries of panels [begin, end) in float, and keep the best.

    halves (panels · ROWS,): how far the upper bounds of a query are from products; None if that varies.
    """
    first, stop = begin * ROWS, min(end * ROWS, len(search.waiting.sizes))
    for i in range(first, stop):
        if i == first:
            _fetch(search, i)
        if i + 1 < stop:
            _fetch(search, i + 1)
        if search.waiting.sizes[i] >= 0:
            half = np.float32(0) if halves is None else halves[i]
            _rescore(search, i, half, query, scores, best)


@njit
def _fetch(search, i):
    """Shorten the list of query i, and begin to fetch the rows on it: only from the third cache, it takes long."""
    x, waiting = search.candidates.x, search.waiting
    _compact(i, waiting)
    for w in range(min(waiting.sizes[i], _FETCHED_BYTES // (4 * x.shape[1]))):
        prefetch_row(x, waiting.columns[i, w])


@njit
def _rescore(search, i, half, query, scores, best):
    """Score the candidates on query i's list in float, and keep the best in its window.

    The candidates with the k highest bounds, and so likely the best below the ceiling, are scored first: the least of
    their scores is above most other bounds.
    """
    queries, first, _, _, _, limits, waiting = search
    row, names, order, heap = first + i, waiting.columns[i], waiting.order[i], waiting.lower[i]
    left, size, keys = waiting.sizes[i], 0, best.keys[0, row]
    unit_row(queries, row, query)
    for w in range(left):
        if -order[w] - half < limits.ceilings[row]:
            size = push(heap, None, None, size, -order[w], None, None)
    likely = _first_reaching(names, order, 0, left, heap[0]) if size > 0 else 0
    _score(search, i, query, 0, likely, scores, best)
    if best.sizes[0, row] == len(keys):
        left = _first_reaching(names, order, likely, left, np.float32(keys[0]))
    _score(search, i, query, likely, left, scores, best)
    guess = waiting.sample[i, 0]
    if guess > limits.floors[row] and not (best.sizes[0, row] == len(keys) and keys[0] >= guess):
        waiting.sizes[i] = -1


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
def _score(search, i, query, start, stop, scores, best):
    """Push those of candidates [start, stop) of query i's list that are in its window on its heap, by their score."""
    (x, inverse), limits, waiting, row = search.candidates, search.limits, search.waiting, search.first + i
    keys, columns, found, size = best.keys[0, row], best.columns[0, row], best.scores[0, row], best.sizes[0, row]
    names, last, floor, ceiling = waiting.columns, waiting.sizes[i] - SCORED, limits.floors[row], limits.ceilings[row]
    for w in range(waiting.sizes[i], SCORED):
        names[i, w] = names[i, 0]
    for begin in range(start, stop, SCORED):
        first = max(min(begin, last), 0)
        scores_of_rows(x, inverse, names, i * names.shape[1] + first, query, scores)
        for w in range(begin, min(begin + SCORED, stop)):
            score = scores[w - first]
            if floor < score < ceiling:
                size = push(keys, columns, found, size, np.float64(score), names[i, w], score)
            elif score >= ceiling:
                waiting.dropped[i] += 1
    best.sizes[0, row] = size
