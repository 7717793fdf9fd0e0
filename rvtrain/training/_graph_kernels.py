"""Drawn negatives of edges, and losses of edges with their gradients by node.

# Design: an edge e = (i, j) has k drawn nodes n, and a pair is (i, j) or one (i, n). A batch passes four loops:
#
#     draw_negatives   each edge: k nodes without a link to i                          (B, k)
#     … _edges         each edge: the value, the gradient to i, and for the other node v of each pair the numbers
#                      a and b of its gradient a z_i + b z_v
#     group_nodes      the distinct nodes that have a gradient, and where each stands   serial, two passes
#     gather_nodes     each distinct node: the sum of its gradients, in the order of the edges
#
# Rows are read from the table where they stand. No row is written by two threads, so that the sums do not depend on
# the number of threads.
"""

import math

import numpy as np

from rvtrain._engine._prefetch import prefetch_part, prefetch_row
from rvtrain._engine._random import row_key, uniform
from rvtrain._kernels import driver, inlined, kernel, njit

_TRIES = 20
"""Draws for an edge that has hit a neighbour each time before it goes without."""
_EPS = 1e-8
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
    """out[e, c] = a node that is no end of edge e and has no link to its first node; −1 if none is hit.

    A node is drawn from pool; if that is empty, with the probabilities of an alias table, or all alike if there is
    none. Each number depends on key, e and c alone.

    Shapes: edges (B, 2), starts (n + 1,), others (R,), keep and alias (n,) or (0,), pool (P,) or (0,), out (B, k).
    """
    nodes, width = len(pool) if len(pool) else len(starts) - 1, out.shape[1]
    for e in range(start, stop):
        if e + 2 * _AHEAD < stop:
            prefetch_part(starts, edges[e + 2 * _AHEAD, 0], 1)
        if e + _AHEAD < stop:
            prefetch_part(others, starts[edges[e + _AHEAD, 0]], 32)
        i, j = edges[e, 0], edges[e, 1]
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
            out[e, c] = found


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
def group_nodes(threads, edges, negatives, used, place, nodes, bounds, local, owners, columns, sizes):
    """The distinct nodes of a batch, without an order, and the entries of each.

    Entry (e, c) of edge e is its first node for c = 0, its second for c = 1, and its drawn node c − 2 above. Those
    whose used[e, c − 1] is 0 are left out, and the first node if all are. The entries of nodes[r] are (owners[s],
    columns[s]), s from bounds[r] to bounds[r + 1], in the order of the edges. local[e, c] is the r of an entry, −1 of
    one that is left out. sizes[0]: the number of nodes.

    Shapes: edges (B, 2), negatives (B, k), used (B, 1 + k), place (n,) of −1, left so; nodes (m,), bounds (m + 1,),
    local (B, 2 + k), owners and columns (m,), with m = B · (2 + k).
    """
    count = entries = 0
    width = local.shape[1]
    for e in range(len(edges)):
        any_used = False
        for c in range(width - 1, -1, -1):
            v = edges[e, c] if c < 2 else negatives[e, c - 2]
            if v < 0 or (used[e, c - 1] == 0 if c > 0 else not any_used):
                local[e, c] = -1
                continue
            any_used = True
            r = place[v]
            if r < 0:
                r = count
                place[v] = r
                nodes[r], bounds[r + 1] = v, 0
                count += 1
            bounds[r + 1] += 1
            local[e, c] = r
            entries += 1
    bounds[0] = 0
    for r in range(count):
        place[nodes[r]] = -1
        bounds[r + 1] += bounds[r]
    for e in range(len(edges) - 1, -1, -1):  # from behind: bounds[r + 1] goes down to the begin of the group
        for c in range(width - 1, -1, -1):
            r = local[e, c]
            if r >= 0:
                bounds[r + 1] -= 1
                owners[bounds[r + 1]], columns[bounds[r + 1]] = e, c
    for r in range(count):
        bounds[r] = bounds[r + 1]
    bounds[count] = entries
    sizes[0] = count


@inlined
def _node(edges, negatives, e, c):
    """The other node of pair c of edge e: its second, or a drawn one; −1 for none."""
    return edges[e, 1] if c == 0 else np.int64(negatives[e, c - 1])


@njit
def _distance(z, i, v):
    """‖z_i − z_v‖."""
    total = z.dtype.type(0)
    for k in range(z.shape[1]):
        difference = z[i, k] - z[v, k]
        total += difference * difference
    return math.sqrt(total)


@inlined
def _add_pair(z, i, v, a, b, out, e):
    """out[e] += a z_i + b z_v where a = −b is a difference; a and b in the dtype of z."""
    if a == -b:
        for k in range(z.shape[1]):
            out[e, k] += a * (z[i, k] - z[v, k])
    else:
        for k in range(z.shape[1]):
            out[e, k] += a * z[i, k] + b * z[v, k]


@kernel
def pairwise_edges(start, stop, z, edges, negatives, margin, near, far, values, to_source, own, other):
    """values[e] = near d(i, j)² + far Σ_n max(0, m − d(i, n))², and its gradients.

    The gradient to i is to_source[e]. That of pair c to its other node v is other[e, c] z_i + own[e, c] z_v.
    Shapes: z (n, d), edges (B, 2), negatives (B, k), values (B,) float64, to_source (B, d), own and other (B, 1 + k).
    """
    real = z.dtype.type
    for e in range(start, stop):
        _prefetch_edge(z, edges, negatives, e + 1, stop)
        i, total = edges[e, 0], 0.0
        for k in range(z.shape[1]):
            to_source[e, k] = 0
        for c in range(own.shape[1]):
            v, slope = _node(edges, negatives, e, c), 0.0
            if v >= 0:
                distance = np.float64(_distance(z, i, v))
                if c == 0:
                    total += near * distance * distance
                    slope = 2.0 * near
                elif distance < margin:
                    total += far * (margin - distance) * (margin - distance)
                    slope = -2.0 * far * (margin - distance) / distance if distance > 0.0 else 0.0
            factor = real(slope)
            own[e, c], other[e, c] = factor, -factor
            if slope != 0.0:
                _add_pair(z, i, v, factor, -factor, to_source, e)
        values[e] = total


@kernel
def edge_distances(start, stop, z, edges, negatives, distances):
    """distances[e, c] = distance of the nodes of pair c of edge e; −1 where there is no drawn node.

    Shapes: z (n, d), edges (B, 2), negatives (B, k), distances (B, 1 + k) float64.
    """
    for e in range(start, stop):
        _prefetch_edge(z, edges, negatives, e + 1, stop)
        for c in range(distances.shape[1]):
            v = _node(edges, negatives, e, c)
            distances[e, c] = np.float64(_distance(z, edges[e, 0], v)) if v >= 0 else -1.0


@kernel
def triplet_edges(
    start, stop, z, edges, negatives, margin, weight, distances, bounds, local, owners, values, to_source, own, other,
):  # fmt: skip
    """values[e] = weight · mean of max(0, d(i, j) − d(i, n) + m) over the drawn nodes of all edges from i.

    Shapes and gradients as in `pairwise_edges`; distances of `edge_distances`. The edges from
    i are owners[s], s from bounds[r] to bounds[r + 1] with r = local[e, 0].
    """
    real = z.dtype.type
    for e in range(start, stop):
        i, r = edges[e, 0], local[e, 0]
        count, active, total = 0, 0, 0.0
        for s in range(bounds[r], bounds[r + 1]):
            for c in range(1, own.shape[1]):
                far = distances[owners[s], c]
                gap = distances[e, 0] + margin - far
                count += far >= 0.0
                if far >= 0.0 and gap > 0.0:
                    total += gap
                    active += 1
        share = weight / max(count, 1)
        values[e] = share * total
        for k in range(z.shape[1]):
            to_source[e, k] = 0
        for c in range(own.shape[1]):
            distance, slope = distances[e, c], 0.0
            if c == 0:
                slope = share * active
            elif distance >= 0.0:
                pushing = 0
                for s in range(bounds[r], bounds[r + 1]):
                    pushing += distances[owners[s], 0] + margin - distance > 0.0
                slope = -share * pushing
            factor = real(slope / distance if distance > 0.0 else 0.0)
            own[e, c], other[e, c] = factor, -factor
            if factor != 0.0:
                _add_pair(z, i, _node(edges, negatives, e, c), factor, -factor, to_source, e)


@kernel
def softmax_edges(start, stop, z, edges, negatives, cosine, temperature, weight, scores, lengths, values, to_source,
                  own, other):  # fmt: skip
    """values[e] = weight (log Σ_c e^{s_c} − s_0): InfoNCE over the pairs of an edge, s cosine or dot product over τ.

    Shapes and gradients as in `pairwise_edges`; scores and lengths (B, 1 + k) float64 are scratch.
    """
    real = z.dtype.type
    for e in range(start, stop):
        _prefetch_edge(z, edges, negatives, e + 1, stop)
        i = edges[e, 0]
        square = real(0)
        for k in range(z.shape[1]):
            square += z[i, k] * z[i, k]
            to_source[e, k] = 0
        length = math.sqrt(np.float64(square)) if cosine else 1.0
        inverse, top = 1.0 / max(length, _EPS), -np.inf
        for c in range(own.shape[1]):
            v = _node(edges, negatives, e, c)
            if v >= 0:
                product, square = real(0), real(0)
                for k in range(z.shape[1]):
                    product += z[i, k] * z[v, k]
                    square += z[v, k] * z[v, k]
                lengths[e, c] = math.sqrt(np.float64(square)) if cosine else 1.0
                scores[e, c] = np.float64(product) * inverse / max(lengths[e, c], _EPS)
                top = max(top, scores[e, c])
        total, rest = 0.0, 0.0
        for c in range(own.shape[1]):
            if c == 0 or negatives[e, c - 1] >= 0:
                term = math.exp((scores[e, c] - top) / temperature)
                total += term
                rest += term if c > 0 else 0.0
        first = (scores[e, 0] - top) / temperature
        values[e] = weight * (math.log1p(rest) if first == 0.0 else math.log(total) - first)
        along = 0.0
        for c in range(own.shape[1]):
            own[e, c] = other[e, c] = 0
            if c > 0 and negatives[e, c - 1] < 0:
                continue
            share = rest / total if c == 0 else math.exp((scores[e, c] - top) / temperature) / total
            slope = weight / temperature * (-share if c == 0 else share)
            near = 1.0 / max(lengths[e, c], _EPS)
            a = real(slope * inverse * near)
            other[e, c] = a
            if cosine and lengths[e, c] > _EPS:
                own[e, c] = real(-slope * scores[e, c] * near * near)
            if cosine and length > _EPS:
                along -= slope * scores[e, c] * inverse * inverse
            v = _node(edges, negatives, e, c)
            for k in range(z.shape[1]):
                to_source[e, k] += a * z[v, k]
        a = real(along)
        for k in range(z.shape[1]):
            to_source[e, k] += a * z[i, k]


@inlined
def _prefetch_edge(z, edges, negatives, e, stop):
    """Begin to fetch the rows of an edge and of its drawn nodes."""
    if e < stop:
        prefetch_row(z, edges[e, 0])
        prefetch_row(z, edges[e, 1])
        for c in range(negatives.shape[1]):
            if negatives[e, c] >= 0:
                prefetch_row(z, negatives[e, c])


@kernel
def gather_nodes(start, stop, z, edges, nodes, bounds, owners, columns, to_source, own, other, out):
    """out[r] = Σ over the entries of v = nodes[r] of to_source[e], or of own[e, c] z_v + other[e, c] z_i.

    Shapes: as in `pairwise_edges` and `group_nodes`; out (m, d). The range is over r.
    """
    last = bounds[len(nodes)]
    for r in range(start, stop):
        v = nodes[r]
        if r + _AHEAD < len(nodes):
            prefetch_row(z, nodes[r + _AHEAD])
        for k in range(z.shape[1]):
            out[r, k] = 0
        for s in range(bounds[r], bounds[r + 1]):
            if s + _AHEAD < last:
                following = owners[s + _AHEAD]
                if columns[s + _AHEAD] == 0:
                    prefetch_row(to_source, following)
                else:
                    prefetch_row(z, edges[following, 0])
            e, c = owners[s], columns[s] - 1
            if c < 0:
                for k in range(z.shape[1]):
                    out[r, k] += to_source[e, k]
            else:
                _add_pair(z, v, edges[e, 0], own[e, c], other[e, c], out, r)
