"""Selection fused with scoring: for each query the k candidates with the largest keys, ties to the lower index.

# Design: a group of queries meets a block of candidates (`_engine/_blocks.py`). While the block's scores are in
# cache, each row of them is screened, a tile's width at a time; scores that may be among the best are pushed on the
# row's heap (`_heap.py`):
#
#     scores of a row   │▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒│ …      screen: may one of these NR scores beat the root?
#                            no       no      yes           one comparison of vectors; then one score after the other
#
# The key of a random draw is noise plus a log weight. Its screen needs no logarithm: −log u ≥ 1 − u, so that
# log w − log(−log u) > root only if 1 − u < w exp(−root), where w is the weight of the row's greatest score in the
# block. That is a limit on the bits from which u is made. Keys are ordered by value, then by index: a total order, so
# the result does not depend on how rows and columns are shared among the threads.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._blocks import CHUNK, GROUP, pack_left, score_block
from rvtrain._engine._random import row_key, uniform
from rvtrain._engine._random_screen import drawn_above, drawn_limit
from rvtrain._engine._screen import any_above, any_between, between, count_reaching, greatest, reaching
from rvtrain._engine._tile import mr, nr
from rvtrain._kernels import body, inlined, kernel, njit, trailing_zeros
from rvtrain.mining._hamming_kernels import set_bits
from rvtrain.mining._heap import is_worse, push, sift

BY_SCORE, UNIFORM, EXPONENTIAL, WU2017, WEIGHT = range(5)
"""The key of a score: the score itself; uniform noise; Gumbel noise plus a log weight, which is s / T, that of Wu et
al. 2017, or log s (the score is the weight)."""

_NEAREST_DROPPED = 0.0199
"""Wu et al. drop d ≥ 1.4, which is s ≤ 0.02."""


class Rule(NamedTuple):
    """How a key is made from a score. Each combination of Python types is another compilation of the kernels."""

    kind: int
    temperature: float = 1.0
    dim: float = 0.0
    seed: int = 0
    draw: int = 0


class Limits(NamedTuple):
    """Which candidates count for a row: floor < s < ceiling, not excluded, and an id that is none of the row's."""

    floors: np.ndarray
    """(B,), of the scores' dtype"""
    ceilings: np.ndarray
    """(B,), of the scores' dtype"""
    exclude: np.ndarray
    """(B, m) int64, −1 for none"""
    row_ids: np.ndarray
    """(B, r) int64; r = 0 without ids"""
    column_ids: np.ndarray
    """(columns of the block,) int64; empty without ids"""


class Best(NamedTuple):
    """Heaps of the best entries so far: one for each row and each part of the columns."""

    keys: np.ndarray
    """(parts, B, k) float64"""
    columns: np.ndarray
    """(parts, B, k) int64"""
    scores: np.ndarray
    """(parts, B, k), of the scores' dtype"""
    sizes: np.ndarray
    """(parts, B) int64"""
    dropped: np.ndarray
    """(parts, B) int64: the number of candidates so far that are allowed but at or above the ceiling"""


@kernel
def scan(start, stop, queries, first, panels, columns, origin, left, slabs, limits, rule, best):
    """Score packed candidates for the queries from row `first` on, and push the scores on their heaps.

    Shapes: queries Rows of (B, d); panels (m / NR, d, NR) hold `columns` candidates, of which column j is candidate
    origin + j. Count is the number of tasks, parts · groups; left (tasks, GROUP / MR, d, MR) and slabs (tasks,
    GROUP / MR, block, MR, NR) are scratch.
    """
    parts, block, height = len(best.keys), slabs.shape[2], mr(panels)
    for task in range(start, stop):
        part, top = task % parts, first + task // parts * GROUP
        rows = min(GROUP, len(queries.x) - top)
        packed = left[task][: (rows + height - 1) // height]
        pack_left(queries, top, packed)
        end = len(panels) * (part + 1) // parts
        for begin in range(len(panels) * part // parts, end, block):
            last = min(begin + block, end)
            score_block(packed, panels, begin, last, slabs[task], 0, begin, CHUNK)
            _push_block(slabs[task], rows, top, part, begin, last, columns, origin, limits, rule, best)


@body
def _push_block(scores, rows, top, part, begin, end, columns, origin, limits, rule, best):
    """Push the scores of panels [begin, end) on the heaps of rows top … top + rows − 1."""
    for r in range(rows):
        _push_row(scores, r, top + r, part, begin, end, columns, origin, limits, rule, best)


@njit
def _push_row(scores, r, row, part, begin, end, columns, origin, limits, rule, best):
    """Push the scores of row r of the block: for most of them, no more than a comparison."""
    height, width = mr(scores), nr(scores)
    first, step = (r // height * scores.shape[1] * height + r % height) * width, height * width
    stop = first + (min(end, columns // width) - begin) * step  # of the tiles that candidates fill
    if limits.ceilings[row] < np.inf:
        best.dropped[part, row] += _count_dropped(scores, first, stop, step, row, begin, end, columns, origin, limits)
    if rule.kind == BY_SCORE:
        _push_highest(scores, r, first, stop, step, row, part, begin, end, columns, origin, limits, rule, best)
    else:
        _push_drawn(scores, r, first, stop, step, row, part, begin, end, columns, origin, limits, rule, best)


@njit
def _count_dropped(scores, first, stop, step, row, begin, end, columns, origin, limits):
    """The number of allowed candidates in the row of the block whose score is at or above the ceiling."""
    width, ceiling, count, j = nr(scores), limits.ceilings[row], 0, begin
    if limits.exclude.shape[1] + limits.row_ids.shape[1] == 0 and stop > first:
        count = count_reaching(scores, first, stop, step, ceiling)
        j += (stop - first) // step
    for panel in range(j, end):
        column = panel * width
        here = min(columns - column, width)
        above = np.uint32(reaching(scores, first + (panel - begin) * step, ceiling) & first_bits(here))
        if above:
            count += count_allowed(above, row, column, origin, limits)
    return count


@njit
def _push_highest(scores, r, first, stop, step, row, part, begin, end, columns, origin, limits, rule, best):
    """Push the scores of panels [begin, end), of which those at offsets first … stop − 1 are full, by score."""
    keys, ids, found = best.keys[part, row], best.columns[part, row], best.scores[part, row]
    size, floor, ceiling = len(keys), limits.floors[row], limits.ceilings[row]
    at, last = first, first + (end - begin) * step
    while at < last:
        if at >= stop or best.sizes[part, row] < size:
            _push_tile(scores, r, (at - first) // step, begin, row, part, columns, origin, limits, rule, best)
            at += step
            continue
        low = max(scores.dtype.type(keys[0]), floor)
        if ceiling < np.inf:
            while at < stop and not any_between(scores, at, low, ceiling):
                at += step
        else:
            while at < stop and not any_above(scores, at, low):
                at += step
        if at < stop:
            hits = between(scores, at, low, ceiling)
            _push_hits(hits, scores, r, (at - first) // step, begin, row, origin, limits, keys, ids, found)
            at += step


@njit
def _push_drawn(scores, r, first, stop, step, row, part, begin, end, columns, origin, limits, rule, best):
    """The same by keys that are drawn."""
    keys, ids, found = best.keys[part, row], best.columns[part, row], best.scores[part, row]
    width, size, noise = nr(scores), len(keys), row_key(rule.seed, rule.draw, row)
    top = np.float64(greatest(scores, first, stop, step)) if stop > first else 0.0
    known, limit = False, np.int64(0)
    for j in range(end - begin):
        at = first + j * step
        if at >= stop or best.sizes[part, row] < size:
            _push_tile(scores, r, j, begin, row, part, columns, origin, limits, rule, best)
            known = False
            continue
        if not known:
            known, limit = True, _limit(keys[0], top, rule)
        hits = drawn_above(scores, noise, origin + (begin + j) * width, limit)
        if hits and _push_draws(hits, scores, r, j, begin, noise, row, origin, limits, rule, keys, ids, found):
            known = False


@njit
def _push_tile(scores, r, j, begin, row, part, columns, origin, limits, rule, best):
    """Push the scores of row r and panel begin + j, one after the other."""
    height, column = mr(scores), (begin + j) * nr(scores)
    values, noise = scores[r // height, j, r % height], row_key(rule.seed, rule.draw, row)
    push_scores(values, min(columns - column, nr(scores)), column, origin, noise, part, row, limits, rule, best)


@njit
def _limit(root, top, rule):
    """The limit of `drawn_above` for scores up to `top`: bits from which a key above the root is made exceed it."""
    if rule.kind == UNIFORM:
        return drawn_limit(root)
    weight = 0.0  # the weight rises with the score, except for WU2017 in one dimension, where it is below 1
    if rule.kind == EXPONENTIAL:
        weight = top / rule.temperature
    elif rule.dim > 1.0:
        weight = _wu2017(top, rule.dim)
    return drawn_limit(1.0 - np.exp(min(weight - root, 700.0)) * 1.000001)


@njit
def _push_draws(hits, scores, r, panel, begin, noise, row, origin, limits, rule, keys, columns, found):
    """Push the scores whose bits are set in `hits` on the row's full heap of drawn keys; whether its root changed."""
    height, first, changed = mr(scores), (begin + panel) * nr(scores), False
    floor, ceiling = limits.floors[row], limits.ceilings[row]
    while hits:
        q = np.int64(trailing_zeros(hits))
        hits &= hits - np.uint32(1)
        s, j = scores[r // height, panel, r % height, q], origin + first + q
        if not floor < s < ceiling or (rule.kind == WU2017 and s < _NEAREST_DROPPED):
            continue
        key = _key(np.float64(s), j, noise, rule)
        if key > -np.inf and is_worse(keys[0], columns[0], key, j) and is_allowed(row, j, first + q, limits):
            sift(keys, columns, found, 0, len(keys), key, j, s)
            changed = True
    return changed


@njit
def _push_hits(hits, scores, r, panel, begin, row, origin, limits, keys, columns, found):
    """Push the scores of row r, panel begin + panel, whose bits are set in `hits` on the row's full heap."""
    height, first = mr(scores), (begin + panel) * nr(scores)
    while hits:
        q = np.int64(trailing_zeros(hits))
        hits &= hits - np.uint32(1)
        s, j = scores[r // height, panel, r % height, q], origin + first + q
        if is_worse(keys[0], columns[0], np.float64(s), j) and is_allowed(row, j, first + q, limits):
            sift(keys, columns, found, 0, len(keys), np.float64(s), j, s)


@inlined
def first_bits(count):
    """The number whose lowest `count` bits are set, 1 ≤ count ≤ 32."""
    return np.uint32(0xFFFFFFFF) >> np.uint32(32 - count)


@njit
def count_allowed(hits, row, column, origin, limits):
    """How many of the candidates whose bits are set are allowed for the row; bit 0 is that of column `column`."""
    for m in range(limits.exclude.shape[1]):
        place = limits.exclude[row, m] - origin - column
        if 0 <= place < 32:
            hits &= ~(np.uint32(1) << np.uint32(place))
    if limits.row_ids.shape[1] == 0:
        return np.int64(set_bits(np.uint64(hits)))
    count = 0
    while hits:
        q = np.int64(trailing_zeros(hits))
        hits &= hits - np.uint32(1)
        if is_allowed(row, origin + column + q, column + q, limits):
            count += 1
    return count


@kernel
def survey(start, stop, weights, positive, good):
    """positive[i] = how many weights of row i are > 0; good[i] = whether all are finite and none is negative.

    Shapes: weights (B, N), positive and good (B,).
    """
    largest = weights.dtype.type(np.finfo(weights.dtype).max)
    for i in range(start, stop):
        row, above, fine = weights[i], 0, True
        for j in range(len(row)):
            above += row[j] > 0
            fine &= (row[j] >= 0) & (row[j] <= largest)
        positive[i], good[i] = above, fine


@kernel
def draw(start, stop, weights, limits, rule, best):
    """Push the weights (B, N) of each row on its heap."""
    width, count, size = nr(weights), weights.shape[1], best.keys.shape[2]
    for i in range(start, stop):
        noise = row_key(rule.seed, rule.draw, i)
        for column in range(0, count, width):
            here = min(count - column, width)
            values = weights[i, column : column + here]
            full = here == width and best.sizes[0, i] == size
            if not full or _may_beat_root(values, column, best.keys[0, i, 0], noise, rule):
                push_scores(values, here, column, 0, noise, 0, i, limits, rule, best)


@njit
def push_scores(values, count, column, origin, noise, part, row, limits, rule, best):
    """Push those of the first `count` scores that the limits allow on the row's heap.

    values[0] is the score of column `column`, which is candidate origin + column; `noise` is the key of the row's
    random numbers.
    """
    keys, columns, scores = best.keys[part, row], best.columns[part, row], best.scores[part, row]
    size = best.sizes[part, row]
    screened = size == len(keys) and rule.kind >= EXPONENTIAL  # no logarithm for what cannot beat the root
    bound = _noise_bound(keys[0], rule) if screened else np.inf
    for q in range(count):
        s = values[q]
        if not limits.floors[row] < s < limits.ceilings[row]:
            continue
        j = origin + column + q
        if screened and 1.0 - uniform(noise, j) >= (bound * s if rule.kind == WEIGHT else bound):
            continue
        key = _key(np.float64(s), j, noise, rule)
        if size == len(keys) and not is_worse(keys[0], columns[0], key, j):
            continue
        if key > -np.inf and is_allowed(row, j, column + q, limits):
            size = push(keys, columns, scores, size, key, j, s)
    best.sizes[part, row] = size


@njit
def _key(s, j, noise, rule):
    if rule.kind == BY_SCORE:
        return s
    u = uniform(noise, j)
    if rule.kind == UNIFORM:
        return u
    if rule.kind == EXPONENTIAL:
        log_weight = s / rule.temperature
    elif rule.kind == WU2017:
        log_weight = _wu2017(s, rule.dim)
    else:
        log_weight = np.log(s)
    return log_weight - np.log(-np.log(u))


@njit
def _may_beat_root(weights, j, root, noise, rule):
    """Whether the key of one of NR weights may be above the root of the heap.

    May be true although none is, but not false where one is.
    """
    hit, bound = False, _noise_bound(root, rule)
    for q in range(nr(weights)):
        hit |= 1.0 - uniform(noise, j + q) < weights[q] * bound
    return hit


@njit
def _noise_bound(root, rule):
    """A key is above root only if 1 − u is below this bound, or below the bound times the weight for WEIGHT."""
    largest = 0.0
    if rule.kind == EXPONENTIAL:
        largest = 1.000001 / rule.temperature  # no cosine is larger than 1
    elif rule.kind == WU2017:
        largest = _wu2017(1.0, rule.dim)
    return np.exp(min(largest - root, 700.0)) * 1.000001


@njit
def _wu2017(s, dim):
    """log 1/q(d) = (2 − n) log d − (n − 3)/2 · log(1 − d²/4) for d = √(2 − 2s) ≥ ½; −inf from d = 1.4."""
    d = max(np.sqrt(max(2.0 - 2.0 * s, 0.0)), 0.5)
    if d >= 1.4:
        return -np.inf
    return (2.0 - dim) * np.log(d) - 0.5 * (dim - 3.0) * np.log(1.0 - 0.25 * d * d)


@inlined
def is_allowed(row, j, column, limits):
    """Whether candidate j, whose id is column_ids[column], may be chosen for the row."""
    for m in range(limits.exclude.shape[1]):
        if limits.exclude[row, m] == j:
            return False
    for r in range(limits.row_ids.shape[1]):
        if limits.row_ids[row, r] == limits.column_ids[column]:
            return False
    return True


def noise(columns: np.ndarray, rule: Rule) -> np.ndarray:
    """The uniform keys of these columns (B, m), as `scan` makes them; float64."""
    out = np.empty(columns.shape)
    _noise.sized(20 * columns.size)(len(columns), columns, rule, out)
    return out


@kernel
def _noise(start, stop, columns, rule, out):
    for i in range(start, stop):
        key = row_key(rule.seed, rule.draw, i)
        for j in range(columns.shape[1]):
            out[i, j] = uniform(key, columns[i, j])


@kernel
def finish(start, stop, best):
    """Merge the heaps of a row's parts into the first and sort it, best first; −1 and −inf beyond the last entry."""
    for row in range(start, stop):
        keys, columns, scores = best.keys[0, row], best.columns[0, row], best.scores[0, row]
        size = best.sizes[0, row]
        for part in range(1, len(best.keys)):
            best.dropped[0, row] += best.dropped[part, row]
            for i in range(best.sizes[part, row]):
                key, column, score = best.keys[part, row, i], best.columns[part, row, i], best.scores[part, row, i]
                size = push(keys, columns, scores, size, key, column, score)
        best.sizes[0, row] = size
        for last in range(size - 1, 0, -1):  # the root, which is the worst entry, goes to the end of a shrinking heap
            key, column, score = keys[last], columns[last], scores[last]
            keys[last], columns[last], scores[last] = keys[0], columns[0], scores[0]
            sift(keys, columns, scores, 0, last, key, column, score)
        for rest in range(size, len(keys)):
            keys[rest], columns[rest], scores[rest] = -np.inf, -1, -np.inf
