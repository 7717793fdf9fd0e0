"""Drawn negatives of edges, and the distinct nodes of a batch."""

import numpy as np

from rvtrain._engine._prefetch import prefetch_part
from rvtrain._engine._random import GOLDEN, mix, row_key
from rvtrain._engine._tile import vector_bytes
from rvtrain._kernels import body, driver, emitted, kernel, njit, trailing_zeros

_TRIES = 20
"""Draws for an edge that has hit a neighbour each time before it goes without."""
_BLOCK = 16
"""Edges whose nodes are drawn together, so that random numbers are made in vectors."""
_ONE, _HALF, _LOW = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
_SHORT = 128
"""Neighbours that are all compared with a node; longer lists are searched by halves."""
KINDS = 64
"""Different values of `_kind`."""
_AHEAD = 8
"""Edges from the one whose nodes are drawn to the one whose neighbours are fetched."""


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


@emitted(lambda others, low, high, v: v in others[low:high], np.bool_)
def _holds(emit, others, low, high, v):
    """Whether v is in others[low:high]: as many at once as fit in a vector, without a branch for each.

    Elements behind `high` are read, and do not count.
    """
    lanes = vector_bytes() // 4
    wanted = v.astype(np.int32).broadcast(lanes)

    def add(r, found):
        left = high - r
        count = (left > lanes).choose(emit.constant(lanes), left).astype(np.int32)
        inside = (emit.constant(1, np.int32) << count) - 1
        return [found | (inside - (inside & (others + r).load(lanes).differs(wanted).bits()))]

    (found,) = emit.loop(low, high, lanes, [emit.constant(0, np.int32)], add)
    return found.differs(0)


@njit
def _is_near(starts, others, i, v):
    """`is_linked`, without a branch that cannot be predicted where the list is short."""
    if starts[i + 1] - starts[i] > _SHORT:
        return is_linked(starts, others, i, v)
    return _holds(others, starts[i], starts[i + 1], v)


@njit
def _node(stream, column, nodes, keep, alias):
    """A node below `nodes`: the high half of `nodes` times a random number of 32 bits; by an alias table, if any."""
    product = (mix(stream + np.uint64(column) * GOLDEN) >> _HALF) * np.uint64(nodes)
    v = np.int64(product >> _HALF)
    if len(keep) and np.float64(np.int64(product & _LOW)) * 2.0**-32 >= keep[v]:
        return alias[v]
    return v


@kernel
def _draw_block(start, stop, edges, batch, stream, starts, others, keep, alias, pool, out):
    """`draw_negatives` from a pool that is drawn already, for blocks of _BLOCK edges."""
    count, width = len(out), out.shape[1] - 2
    nodes = len(pool) if len(pool) else len(starts) - 1
    drawn = np.empty(_BLOCK * width, np.int64)
    for b in range(start, stop):
        begin, end = b * _BLOCK, min((b + 1) * _BLOCK, count)
        for q in range((end - begin) * width):
            drawn[q] = _node(stream, begin * width + q, nodes, keep, alias)
        for e in range(begin, end):
            if e + 3 * _AHEAD < count:
                prefetch_part(edges, 2 * _edge(batch, e + 3 * _AHEAD), 2)
            if e + 2 * _AHEAD < count:
                prefetch_part(starts, edges[_edge(batch, e + 2 * _AHEAD), 0], 1)
            if e + _AHEAD < count:
                prefetch_part(others, starts[edges[_edge(batch, e + _AHEAD), 0]], 32)
            i, j = edges[_edge(batch, e), 0], edges[_edge(batch, e), 1]
            out[e, 0], out[e, 1] = i, j
            for c in range(width):
                v, tried = drawn[(e - begin) * width + c], 1
                v = pool[v] if len(pool) else v
                while (v == i) | (v == j) | _is_near(starts, others, i, v):
                    if tried == _TRIES:
                        v = -1
                        break
                    v = _node(stream, (tried * count + e) * width + c, nodes, keep, alias)
                    v = pool[v] if len(pool) else v
                    tried += 1
                out[e, 2 + c] = v


@driver
def draw_negatives(threads, edges, batch, key, starts, others, keep, alias, pool, out):
    """out[e] = the two nodes of edge batch[e], and k others without a link to the first, −1 where none is hit.

    Nodes are drawn with the probabilities of an alias table, or all alike if there is none; at first those of the
    pool, from which those of the edges are drawn, all alike, unless it is empty. The results depend on the arguments
    alone.

    Shapes: edges (E, 2), batch (B,) or (0,) for all edges, starts (n + 1,), others (R,) and more behind them, as in
    `Graph`, keep and alias (n,) or (0,), pool (P,) scratch or (0,), out (B, 2 + k).
    """
    stream = row_key(key, 0, 0)
    for p in range(len(pool)):
        pool[p] = _node(stream, p, len(starts) - 1, keep, alias)
    if len(pool):
        stream, keep, alias = row_key(key, 1, 0), keep[:0], alias[:0]
    launch_blocks(threads, -(-len(out) // _BLOCK), edges, batch, stream, starts, others, keep, alias, pool, out)


launch_blocks = _draw_block.launch


@njit
def _edge(batch, e):
    return batch[e] if len(batch) else e


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


@body
def group(ends, bits, places, starts, nodes, bounds, middles, owners, entries, ranks, sizes):
    """The distinct nodes of a batch, and the entries of each.

    Entry (e, c) is the node ends[e, c], unless that is −1. The entries of nodes[r] have the slots s from bounds[r] to
    bounds[r + 1], and are of edges owners[s], which ascend: first those with c = 0, up to middles[r], then the
    others, of which entries[s] = e · (1 + k) + c − 1 is the number among all. ranks[e] is the r of ends[e, 0].
    sizes: the numbers of nodes and of entries.

    Nodes with equally many entries of both kinds are neighbours, for then the processor predicts the ends of the
    loops over entries; among these, nodes ascend. A bit for each node of the table lists them, since n / 64 words are
    read sooner than a list of nodes is sorted.

    Shapes: ends (B, 2 + k), bits (⌈n / 64⌉,) uint64 of 0, left so; places (n, 2) of 0, left so; starts (KINDS + 1,)
    scratch; nodes, middles, owners and entries (m,), bounds (m + 1,), with m = B · (2 + k); ranks (B,).
    """
    width = ends.shape[1]
    for e in range(len(ends)):
        for c in range(width):
            v = np.int64(ends[e, c])
            if v >= 0:
                bits[v >> 6] |= _ONE << np.uint64(v & 63)
                places[v, min(c, 1)] += 1
    count = total = 0
    starts[:] = 0
    for word in range(len(bits)):
        left = bits[word]
        bits[word] = 0
        while left != 0:
            v = word * 64 + trailing_zeros(left)
            left &= left - _ONE
            owners[count] = v
            starts[_kind(places[v, 0], places[v, 1]) + 1] += 1
            count += 1
    for kind in range(KINDS):
        starts[kind + 1] += starts[kind]
    for r in range(count):
        v = owners[r]
        kind = _kind(places[v, 0], places[v, 1])
        nodes[starts[kind]] = v
        starts[kind] += 1
    for r in range(count):
        v = nodes[r]
        bounds[r], middles[r] = total, total + places[v, 0]
        places[v, 0], places[v, 1], total = r, total, middles[r] + places[v, 1]
    bounds[count] = total
    for e in range(len(ends)):
        v = ends[e, 0]
        s = places[v, 1]
        places[v, 1] = s + 1
        ranks[e], owners[s] = places[v, 0], e
    for e in range(len(ends)):
        for c in range(1, width):
            v = np.int64(ends[e, c])
            if v >= 0:
                s = places[v, 1]
                places[v, 1] = s + 1
                owners[s], entries[s] = e, e * (width - 1) + c - 1
    for r in range(count):
        places[nodes[r], 0] = places[nodes[r], 1] = 0
    sizes[0], sizes[1] = count, total


@driver
def group_nodes(threads, ends, groups):
    """`group`, whose other arguments are the tuple `groups`."""
    group(ends, *groups)


@njit
def _kind(first, others):
    """A number that tells nodes with different small numbers of entries apart."""
    return min(first, 3) * 16 + min(others, 15)
