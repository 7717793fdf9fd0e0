"""Drawn negatives of edges, and the distinct nodes of a batch."""

import numpy as np

from rvtrain._engine._prefetch import prefetch_part
from rvtrain._engine._random import row_key, uniform
from rvtrain._kernels import driver, kernel, njit, trailing_zeros

_TRIES = 20
"""Draws for an edge that has hit a neighbour each time before it goes without."""
_ONE = np.uint64(1)
_SHORT = 128
"""Neighbours of which bits are set before nodes are drawn: most of these are then known to be no neighbour."""
_AHEAD = 8
"""Entries from the row that is added to the row that is fetched."""


@njit
def is_linked(starts, others, i, j):
    """Whether j is among the neighbours of i, others[starts[i] : starts[i + 1]], which ascend."""
    low, high = starts[i], starts[i + 1]
    while low < high:
        middle = (low + high) // 2
        if others[middle] < j:
            low = middle + 1
        else:
            high = middle
    return low < starts[i + 1] and others[low] == j


@kernel
def draw_negatives(start, stop, edges, key, starts, others, keep, alias, pool, out):
    """out[e] = the two nodes of edge e, and k others without a link to the first, −1 where none is hit.

    A node is drawn from pool; if that is empty, with the probabilities of an alias table, or all alike if there is
    none. Each number depends on key, e and its place alone.

    Shapes: edges (B, 2), starts (n + 1,), others (R,), keep and alias (n,) or (0,), pool (P,) or (0,),
    out (B, 2 + k).
    """
    nodes, width = len(pool) if len(pool) else len(starts) - 1, out.shape[1] - 2
    for e in range(start, stop):
        if e + 2 * _AHEAD < stop:
            prefetch_part(starts, edges[e + 2 * _AHEAD, 0], 1)
        if e + _AHEAD < stop:
            prefetch_part(others, starts[edges[e + _AHEAD, 0]], 32)
        i, j = edges[e, 0], edges[e, 1]
        out[e, 0], out[e, 1] = i, j
        row, low, high = row_key(key, 0, e), starts[i], starts[i + 1]
        bits = _ONE << np.uint64(i & 63) | _ONE << np.uint64(j & 63)
        if high - low > _SHORT:
            bits = ~np.uint64(0)
        else:
            for r in range(low, high):
                bits |= _ONE << np.uint64(others[r] & 63)
        for c in range(width):
            found = -1
            for t in range(_TRIES):
                place = uniform(row, t * width + c) * nodes
                v = min(int(place), nodes - 1)
                if len(pool):
                    v = pool[v]
                elif len(keep) and place - v >= keep[v]:
                    v = alias[v]
                if not bits >> np.uint64(v & 63) & _ONE or (
                    v != i and v != j and not is_linked(starts, others, i, v)
                ):
                    found = v
                    break
            out[e, 2 + c] = found


@driver
def alias_table(threads, weights, keep, alias, small, large):
    """keep and alias such that a uniform v, replaced by alias[v] with probability 1 − keep[v], has P(v) ∝ weights[v].

    Vose's method. Shapes: weights (n,), changed to weights · n / Σ weights and below; small and large (n,) int64.
    """
    count = len(weights)
    total = 0.0
    for v in range(count):
        total += weights[v]
    low = high = 0
    for v in range(count):
        weights[v] *= count / total
        keep[v], alias[v] = 1.0, v
        if weights[v] < 1.0:
            small[low] = v
            low += 1
        else:
            large[high] = v
            high += 1
    while low > 0 and high > 0:
        low -= 1
        v, u = small[low], large[high - 1]
        keep[v], alias[v] = weights[v], u
        weights[u] -= 1.0 - weights[v]
        if weights[u] < 1.0:
            high -= 1
            small[low] = u
            low += 1


@driver
def group_nodes(threads, ends, bits, place, nodes, bounds, middles, local, slots, owners, sizes):
    """The distinct nodes of a batch, ascending, and the entries of each.

    Entry (e, c) is the node ends[e, c], unless that is −1. The entries of nodes[r] have the slots s from bounds[r] to
    bounds[r + 1], and belong to edges owners[s], which ascend: first those with c = 0, up to middles[r], then the
    others. local[e, c] is the r of an entry, slots[e, c] its slot; both are −1 if there is none. sizes[0]: the number
    of nodes.

    A bit for each node of the table sorts them, since n / 64 words are read sooner than a list of nodes is sorted.
    Shapes: ends, local and slots (B, 2 + k), bits (⌈n / 64⌉,) uint64 of 0, left so; place (n,), nodes and middles
    (m,), bounds (m + 2,), owners (m,), with m = B · (2 + k).
    """
    width = ends.shape[1]
    for e in range(len(ends)):
        for c in range(width):
            v = np.int64(ends[e, c])
            if v >= 0:
                bits[v >> 6] |= _ONE << np.uint64(v & 63)
    count = 0
    for word in range(len(bits)):
        left = bits[word]
        bits[word] = 0
        while left != 0:
            v = word * 64 + trailing_zeros(left)
            left &= left - _ONE
            nodes[count], place[v], bounds[count + 2] = v, count, 0
            count += 1
    bounds[0] = bounds[1] = 0
    for e in range(len(ends)):
        for c in range(width):
            v = ends[e, c]
            local[e, c] = slots[e, c] = -1
            if v >= 0:
                r = place[v]
                local[e, c] = r
                bounds[r + 2] += 1
    for r in range(count):
        bounds[r + 2] += bounds[r + 1]
    for e in range(len(ends)):
        _take_slot(e, 0, bounds, local, slots, owners)
    for r in range(count):
        middles[r] = bounds[r + 1]
    for e in range(len(ends)):
        for c in range(1, width):
            if local[e, c] >= 0:
                _take_slot(e, c, bounds, local, slots, owners)
    sizes[0] = count


@njit
def _take_slot(e, c, bounds, local, slots, owners):
    """Give entry (e, c) the next slot of its node r, bounds[r + 1]."""
    r = local[e, c]
    s = bounds[r + 1]
    owners[s], slots[e, c] = e, s
    bounds[r + 1] = s + 1
