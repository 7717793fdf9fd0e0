"""A binary heap of the best entries so far, with the worst of them at the root.

An entry is a key, a column and a score, in three arrays of the same length. Entries are ordered by key, then by
column, where the lower one is better: a total order, so that a heap does not depend on the order in which its entries
were pushed. A heap of keys alone has None for columns and scores, and the compiler removes the code for these.
"""

from rvtrain._kernels import inlined, njit


@njit
def is_worse(key_a, a, key_b, b):
    """Whether the entry of key_a and column a is worse than that of key_b and column b; columns may be None."""
    if a is None:
        return key_a < key_b
    return key_a < key_b or (key_a == key_b and a > b)


@inlined
def push(keys, columns, scores, size, key, column, score):
    """Add an entry to a heap of `size` entries, or put it in place of the root if the arrays are full.

    A full heap stays as it is if the entry is not better than its root. Returns the new size.
    """
    if size < len(keys):
        _sift_up(keys, columns, scores, size, key, column, score)
        return size + 1
    if is_worse(keys[0], _get(columns, 0), key, column):
        sift(keys, columns, scores, 0, size, key, column, score)
    return size


@njit
def sift(keys, columns, scores, at, size, key, column, score):
    """Put an entry in place of entry `at` of a heap of `size` entries, and move it down to where it belongs."""
    while 2 * at + 1 < size:
        child = 2 * at + 1
        right = child + 1
        if right < size and is_worse(keys[right], _get(columns, right), keys[child], _get(columns, child)):
            child = right
        if not is_worse(keys[child], _get(columns, child), key, column):
            break
        _move(keys, columns, scores, child, at)
        at = child
    _put(keys, columns, scores, at, key, column, score)


@njit
def _sift_up(keys, columns, scores, at, key, column, score):
    """Put an entry at the end of a heap of `at` entries, and move it up to where it belongs."""
    while at > 0:
        parent = (at - 1) // 2
        if not is_worse(key, column, keys[parent], _get(columns, parent)):
            break
        _move(keys, columns, scores, parent, at)
        at = parent
    _put(keys, columns, scores, at, key, column, score)


@njit
def _get(columns, at):
    if columns is None:
        return None
    return columns[at]


@njit
def _move(keys, columns, scores, source, target):
    keys[target] = keys[source]
    if columns is not None:
        columns[target] = columns[source]
    if scores is not None:
        scores[target] = scores[source]


@njit
def _put(keys, columns, scores, at, key, column, score):
    keys[at] = key
    if columns is not None:
        columns[at] = column
    if scores is not None:
        scores[at] = score
