"""Selection fused with scoring: of all candidates the k with the largest keys, ties to the lower index.

# Design: a group of rows meets a block of columns (`_engine.py`); while the block's scores are in cache, each
# row looks at them, a tile's width at a time, and keeps its best in a binary heap with the worst at the root:
#
#     scores of a row   │▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒│ …      screen: can any of these NR beat the root?
#                            no       no      yes           one vector comparison; only then one by one
#
# A draw's key is noise plus a log weight. Its screen needs no logarithm: −log u ≥ 1 − u, so that
# log w − log(−log u) > root only if 1 − u < w exp(−root). All orders are total (key, then index), so the result
# does not depend on how rows and columns were shared out.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._blocks import CHUNK, GROUP, pack_left, score_block
from rvtrain._engine._exp import exp
from rvtrain._engine._random import row_key, uniform
from rvtrain._engine._screen import between
from rvtrain._engine._tile import mr, nr
from rvtrain._kernels import inlined, kernel, njit, trailing_zeros

BY_SCORE, UNIFORM, EXPONENTIAL, WU2017, WEIGHT = range(5)
"""What a key is: the score; noise; Gumbel noise plus log weights exp(s / T), plus those of Wu et al. 2017, or
plus the log of the score, which is then the weight itself."""

_NEAREST_DROPPED = 0.0199
"""Wu et al. drop d ≥ 1.4, which is s ≤ 0.02."""


class Rule(NamedTuple):
    """What makes a key of a score. Keep to these types: others are another compilation of the kernels."""

    kind: int
    temperature: float = 1.0
    dim: float = 0.0
    seed: int = 0
    draw: int = 0


class Limits(NamedTuple):
    """Which candidates count for a row: floors < s < ceilings, not excluded, and its id none of the row's."""

    floors: np.ndarray
    """(B,), of the scores' dtype, like ceilings"""
    ceilings: np.ndarray
    exclude: np.ndarray
    """(B, m) int64, −1 for none"""
    row_ids: np.ndarray
    """(B, r) int64; r = 0 where there are no ids"""
    column_ids: np.ndarray
    """(columns at hand,) int64; empty where there are no ids"""


class Best(NamedTuple):
    """Heaps of the best so far: one for each row and each part of the columns."""

    keys: np.ndarray
    """(parts, B, k) float64"""
    columns: np.ndarray
    """(parts, B, k) int64"""
    scores: np.ndarray
    """(parts, B, k), of the scores' dtype"""
    sizes: np.ndarray
    """(parts, B) int64"""


@kernel
def scan(start, stop, queries, first, panels, columns, origin, left, scratch, limits, rule, best):
    """Offer `columns` columns, packed in panels (m / NR, d, NR), to rows first … of the queries (B, d).

    Column j of the panels is candidate origin + j. left (tasks, GROUP / MR, d, MR) and scratch (tasks,
    GROUP / MR, block, MR, NR) are the tasks': one for each part of the columns and group of rows.
    """
    for task in range(start, stop):
        _scan_task(task, queries, first, panels, columns, origin, left, scratch, limits, rule, best)


@njit
def _scan_task(task, queries, first, panels, columns, origin, left, scratch, limits, rule, best):
    parts = len(best.keys)
    part, group = task % parts, task // parts
    top = first + group * GROUP
    rows, height = min(GROUP, len(queries.x) - top), mr(panels)
    mine, scores = left[task][: (rows + height - 1) // height], scratch[task]
    pack_left(queries, top, mine)
    end = len(panels) * (part + 1) // parts
    for start in range(len(panels) * part // parts, end, scores.shape[1]):
        stop = min(start + scores.shape[1], end)
        score_block(mine, panels, start, stop, scores, 0, start, CHUNK)
        for r in range(rows):
            _scan_row(r, top + r, part, start, stop, scores, columns, origin, limits, rule, best)


@njit
def _scan_row(r, row, part, start, stop, scores, count, origin, limits, rule, best):
    """Offer the scores of panels [start, stop) to row r of the group: no more than a comparison for most."""
    height, width, size = mr(scores), nr(scores), best.keys.shape[2]
    noise, floor, ceiling = row_key(rule.seed, rule.draw, row), limits.floors[row], limits.ceilings[row]
    for j in range(start, stop):
        column, full = j * width, best.sizes[part, row] == size
        here, root = min(count - column, width), best.keys[part, row, 0]
        if full and here == width and rule.kind == BY_SCORE:
            at = ((r // height * scores.shape[1] + j - start) * height + r % height) * width
            hits = between(scores, at, max(scores.dtype.type(root), floor), ceiling)
            if hits:
                _replace(hits, scores[r // height, j - start, r % height], column, origin, part, row, limits, best)
            continue
        values = scores[r // height, j - start, r % height]
        if not full or here < width or _any_beats(values, origin + column, root, noise, rule):
            offer(values, here, column, origin, part, row, limits, rule, best)


@njit
def _replace(hits, values, column, origin, part, row, limits, best):
    """Let those of these scores whose bits are set, of the columns from `column` on, into the row's full heap."""
    keys, columns, scores = best.keys[part, row], best.columns[part, row], best.scores[part, row]
    while hits:
        q = np.int64(trailing_zeros(hits))
        hits &= hits - np.uint32(1)
        s, j = values[q], origin + column + q
        if worse(keys[0], columns[0], np.float64(s), j) and is_allowed(row, j, column + q, limits):
            sink(keys, columns, scores, len(keys), np.float64(s), j, s)


@kernel
def survey(start, stop, weights, positive, good):
    """positive[i] = how many of row i are > 0; good[i] = whether all are finite and none is negative."""
    for i in range(start, stop):
        positive[i], good[i] = _survey_row(weights[i])


@njit
def _survey_row(weights):
    positive, good = 0, True
    largest = weights.dtype.type(np.finfo(weights.dtype).max)
    for j in range(len(weights)):
        positive += weights[j] > 0
        good &= (weights[j] >= 0) & (weights[j] <= largest)
    return positive, good


@kernel
def draw(start, stop, weights, limits, rule, best):
    """Offer each row of weights (B, N) to its own heap."""
    for i in range(start, stop):
        _draw_row(i, weights, limits, rule, best)


@njit
def _draw_row(i, weights, limits, rule, best):
    width, count = nr(weights), weights.shape[1]
    noise = row_key(rule.seed, rule.draw, i)
    for column in range(0, count, width):
        here = min(count - column, width)
        values = weights[i, column : column + here]
        full = here == width and best.sizes[0, i] == best.keys.shape[2]
        if not full or _any_beats(values, column, best.keys[0, i, 0], noise, rule):
            offer(values, here, column, 0, 0, i, limits, rule, best)


@njit
def offer(values, count, column, origin, part, row, limits, rule, best):
    """Let the first `count` of these scores, of the columns from `column` on, into the row's heap."""
    keys, columns, scores = best.keys[part, row], best.columns[part, row], best.scores[part, row]
    size, noise = best.sizes[part, row], row_key(rule.seed, rule.draw, row)
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
        if size == len(keys) and not worse(keys[0], columns[0], key, j):
            continue
        if key > -np.inf and is_allowed(row, j, column + q, limits):
            if size < len(keys):
                rise(keys, columns, scores, size, key, j, s)
                size += 1
            else:
                sink(keys, columns, scores, size, key, j, s)
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
def _any_beats(values, j, root, noise, rule):
    """Whether one of a tile's width of keys, no scores, may be above the root of the heap; never no by mistake."""
    hit = False
    if rule.kind == UNIFORM:
        for q in range(nr(values)):
            hit |= uniform(noise, j + q) > root
    elif rule.kind == WEIGHT:
        bound = _noise_bound(root, rule)
        for q in range(nr(values)):
            hit |= 1.0 - uniform(noise, j + q) < values[q] * bound
    else:
        bound = _noise_bound(root, rule)
        for q in range(nr(values)):
            hit |= 1.0 - uniform(noise, j + q) < bound
        if not hit:
            return False
        hit = False
        if rule.kind == EXPONENTIAL:
            inverse = 1.0 / rule.temperature
            for q in range(nr(values)):
                x = values[q] * inverse - root
                x = x if x < 700.0 else 700.0
                hit |= (1.0 - uniform(noise, j + q)) * 0.999999 < exp(x)
        else:
            for q in range(nr(values)):
                hit |= values[q] > _NEAREST_DROPPED
    return hit


@njit
def _noise_bound(root, rule):
    """What 1 − u has to be below for a draw's key above root; times the weight itself, for WEIGHT."""
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
    for m in range(limits.exclude.shape[1]):
        if limits.exclude[row, m] == j:
            return False
    for r in range(limits.row_ids.shape[1]):
        if limits.row_ids[row, r] == limits.column_ids[column]:
            return False
    return True


def noise(columns: np.ndarray, rule: Rule) -> np.ndarray:
    """The uniform key of each of these columns (B, m), as `scan` would form it."""
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
    """Merge the parts of each row into its first, and sort it in place: best first, −1 where there are fewer."""
    for row in range(start, stop):
        _finish_row(row, best)


@njit
def _finish_row(row, best):
    keys, columns, scores = best.keys[0, row], best.columns[0, row], best.scores[0, row]
    size = best.sizes[0, row]
    for part in range(1, len(best.keys)):
        for i in range(best.sizes[part, row]):
            key, j, s = best.keys[part, row, i], best.columns[part, row, i], best.scores[part, row, i]
            if size < len(keys):
                rise(keys, columns, scores, size, key, j, s)
                size += 1
            elif worse(keys[0], columns[0], key, j):
                sink(keys, columns, scores, size, key, j, s)
    best.sizes[0, row] = size
    for last in range(size - 1, 0, -1):  # the worst entry goes to the end, and the heap shrinks before it
        key, j, s = keys[last], columns[last], scores[last]
        keys[last], columns[last], scores[last] = keys[0], columns[0], scores[0]
        sink(keys, columns, scores, last, key, j, s)
    for rest in range(size, len(keys)):
        keys[rest], columns[rest], scores[rest] = -np.inf, -1, -np.inf


@njit
def worse(key_a, a, key_b, b):
    return key_a < key_b or (key_a == key_b and a > b)


@njit
def rise(keys, columns, scores, at, key, j, s):
    """Add an entry at the end of a heap of `at` entries."""
    while at > 0:
        parent = (at - 1) // 2
        if not worse(key, j, keys[parent], columns[parent]):
            break
        keys[at], columns[at], scores[at] = keys[parent], columns[parent], scores[parent]
        at = parent
    keys[at], columns[at], scores[at] = key, j, s


@njit
def sink(keys, columns, scores, size, key, j, s):
    """Put an entry in place of the root of a heap of `size` entries."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and worse(keys[child + 1], columns[child + 1], keys[child], columns[child]):
            child += 1
        if not worse(keys[child], columns[child], key, j):
            break
        keys[at], columns[at], scores[at] = keys[child], columns[child], scores[child]
        at = child
    keys[at], columns[at], scores[at] = key, j, s
