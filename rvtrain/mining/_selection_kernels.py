"""Selection: of each row of scores, the k columns with the largest keys, ties to the lower column.

A row's result lies in its output arrays as a binary heap with the worst entry at the root: whatever is not
better than the root is passed over with one comparison. Columns come in ascending order, so an equal key
never displaces an earlier one. At the end the heap is sorted in place.
"""

import numpy as np

from rvtrain._jit import kernel, njit, prange
from rvtrain._primitives._random import row_key, uniform

BY_SCORE, UNIFORM, EXPONENTIAL, WU2017 = range(4)
"""What a key is: the score; noise; Gumbel noise plus log weights exp(s / T), or plus those of Wu et al. 2017."""


@kernel
def select(scores, first, floors, ceilings, allowed, rule, keys, out):
    """out[i] = columns of the k largest keys of row i, −1 where there are fewer; keys (n, k) receives them.

    scores (n, N) of the rows first … of the batch; only columns with floors[i] < s < ceilings[i] count, and
    only those that `allowed` = (exclude (B, m), row ids (B, r), column ids (N, r)) leaves; rule = (kind,
    temperature, dim, seed, draw); out (n, k).
    """
    for i in prange(len(scores)):
        _select_row(scores[i], first + np.int64(i), floors[i], ceilings[i], allowed, rule, keys[i], out[i])


@njit
def _select_row(scores, row, floor, ceiling, allowed, rule, keys, out):
    kind, temperature, dim, seed, draw = rule
    noise = row_key(seed, draw, row)
    size = 0
    for j in range(len(scores)):
        s = np.float64(scores[j])
        if not floor < s < ceiling:
            continue
        key = s
        if kind == UNIFORM:
            key = uniform(noise, j)
        elif kind != BY_SCORE:
            log_weight = s / temperature if kind == EXPONENTIAL else _wu2017(s, dim)
            key = log_weight - np.log(-np.log(uniform(noise, j)))
        if key > -np.inf and (size < len(out) or key > keys[0]) and _is_allowed(row, j, allowed):
            if size < len(out):
                _rise(keys, out, size, key, j)
                size += 1
            else:
                _sink(keys, out, size, key, j)
    for last in range(size - 1, 0, -1):  # the worst entry goes to the end, and the heap shrinks before it
        key, j = keys[last], out[last]
        keys[last], out[last] = keys[0], out[0]
        _sink(keys, out, last, key, j)
    for rest in range(size, len(out)):
        keys[rest], out[rest] = -np.inf, -1


@njit
def _wu2017(s, dim):
    """log 1/q(d) = (2 − n) log d − (n − 3)/2 · log(1 − d²/4) for d = √(2 − 2s) ≥ ½; −inf from d = 1.4."""
    d = max(np.sqrt(max(2.0 - 2.0 * s, 0.0)), 0.5)
    if d >= 1.4:
        return -np.inf
    return (2.0 - dim) * np.log(d) - 0.5 * (dim - 3.0) * np.log(1.0 - 0.25 * d * d)


@njit
def _is_allowed(row, column, allowed):
    exclude, row_ids, column_ids = allowed
    for m in range(exclude.shape[1]):
        if exclude[row, m] == column:
            return False
    for r in range(row_ids.shape[1]):
        if row_ids[row, r] == column_ids[column, r]:
            return False
    return True


@njit
def _worse(key_a, a, key_b, b):
    return key_a < key_b or (key_a == key_b and a > b)


@njit
def _rise(keys, out, at, key, j):
    """Add an entry at the end of a heap of `at` entries."""
    while at > 0:
        parent = (at - 1) // 2
        if not _worse(key, j, keys[parent], out[parent]):
            break
        keys[at], out[at] = keys[parent], out[parent]
        at = parent
    keys[at], out[at] = key, j


@njit
def _sink(keys, out, size, key, j):
    """Put an entry in place of the root of a heap of `size` entries."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _worse(keys[child + 1], out[child + 1], keys[child], out[child]):
            child += 1
        if not _worse(keys[child], out[child], key, j):
            break
        keys[at], out[at] = keys[child], out[child]
        at = child
    keys[at], out[at] = key, j
