"""Losses of edges, their gradients by node, and the step of each node's row.

# Design: an edge e = (i, j) has k drawn nodes n, and a pair is (i, j) or one (i, n). A batch passes three loops:
#
#     draw_negatives   each edge: k nodes without a link to i                            (B, k)
#     … _edges         blocks of edges: the values; of each edge the gradient to i, and a copy of z_i; for each pair
#                      the number f of its gradients f (z_i − z_v) and f (z_v − z_i), and the number h of h z_v
#                      meanwhile, in one thread, `group`: the distinct nodes, and where each stands
#     step_nodes       each distinct node: the sum of its gradients, in a fixed order, and the step of its row
#
# The range of the second loop is that of `first` parts and of the blocks. Its first part is to group the nodes, which
# takes as long as so many blocks; the other parts of them are nothing. `first` is 0 if the nodes are grouped already.
#
# `step_nodes` changes rows of the table while others are still to be stepped. It reads no row of the table but the
# one that it changes, because z_i has been copied. So no matrix of gradients is written, and no row is read twice.
# Without the step it gives the gradients, for an optimizer of which only `step` is known.
#
# No row is written by two threads, and the edges of a block are the same for any number of threads, so that no sum
# depends on it.
#
# Shapes in all kernels: z (n, d); ends (B, 2 + k) of i, j and the drawn nodes, −1 for none; groups, the other
# arguments of `group`; values (2, ⌈B / BLOCK⌉) float64, of which the second row bounds the elements of all gradients;
# sources and to_source (B, d), z_i and the gradient to it; pairs, f, and own, h, both (B · (1 + k),), by edge and
# pair; own is (0,) where it is 0. fetched: the number of an edge's nodes whose rows are fetched early, 2 where the
# others are of a pool, whose rows stay in the cache, else 2 + k.
"""

import math

import numpy as np

from rvtrain._engine._prefetch import prefetch_row
from rvtrain._kernels import inlined, kernel, njit
from rvtrain.optimizers._rule import element, fetch_at, keep_at, numbers_of
from rvtrain.training._graph_kernels import group
from rvtrain.training._graph_sums import squares_of_edge, sum_of_edge, sum_of_node

BLOCK = 16
"""Edges that are evaluated together: as many as have their nodes' rows in the first cache."""
_EPS = 1e-8
_AHEAD, _NODES_AHEAD = 4, 6
"""Edges, and nodes, from the one whose rows are read to the one whose rows are fetched."""


@inlined
def _prefetch_edge(z, ends, e, fetched):
    """Begin to fetch the rows of the first `fetched` nodes of an edge."""
    if e < len(ends):
        prefetch_row(z, ends[e, 0])
        prefetch_row(z, ends[e, 1])
        for c in range(2, fetched):
            prefetch_row(z, max(ends[e, c], 0))


@njit
def _pairwise(pairs, begin, end, width, margin, near, far):
    """near Σ d² + far Σ max(0, m − d)², where d² is pairs[q] from begin to end, and a bound of all gradients.

    The first sum is that over each width-th pair, the second that over the others but missing ones, whose d² is −1.
    The number f of each pair takes the place of d². Indices are unsigned, since the test of negative ones took as
    long as the rest; and one loop takes all roots and quotients.
    """
    real = pairs.dtype.type
    zero, margin, slope = real(0), real(margin), real(-2.0 * far)
    close, bound = 0.0, 0.0
    for q in range(np.uint64(begin), np.uint64(end), np.uint64(width)):
        close += pairs[q]
        bound += near * math.sqrt(pairs[q])
        pairs[q] = -1
    pushed, gaps = 0.0, 0.0
    for q in range(np.uint64(begin), np.uint64(end)):
        distance = np.sqrt(pairs[q])
        gap = zero if (pairs[q] < zero) | (distance > margin) else margin - distance
        pushed += np.float64(gap) * np.float64(gap)
        gaps += np.float64(gap)
        pairs[q] = slope * gap / distance if distance > zero else zero
    for q in range(np.uint64(begin), np.uint64(end), np.uint64(width)):
        pairs[q] = real(2.0 * near)
    return near * close + far * pushed, 2.0 * (bound + far * gaps)


@kernel
def pairwise_edges(
    start, stop, first, ends, groups, fetched, z, margin, near, far, values, sources, to_source, pairs,
):  # fmt: skip
    """values[0] = Σ_e near d(i, j)² + far Σ_n max(0, m − d(i, n))², and its gradients."""
    width = ends.shape[1] - 1
    if start == 0 < first:
        group(ends, *groups)
    for b in range(max(start - first, 0), stop - first):
        begin, end = b * BLOCK, min((b + 1) * BLOCK, len(ends))
        for e in range(begin, end):
            _prefetch_edge(z, ends, e + _AHEAD, fetched)
            squares_of_edge(z, ends, e, pairs)
        values[0, b], values[1, b] = _pairwise(pairs, begin * width, end * width, width, margin, near, far)
        for e in range(begin, end):
            sum_of_edge(z, ends, e, pairs, 0.0, sources, to_source)


@kernel
def edge_distances(start, stop, first, ends, groups, fetched, z, distances):
    """distances[e, c] = distance of the nodes of pair c of edge e, (B, 1 + k); −1 where no node was drawn."""
    if start == 0 < first:
        group(ends, *groups)
    for b in range(max(start - first, 0), stop - first):
        for e in range(b * BLOCK, min((b + 1) * BLOCK, len(ends))):
            _prefetch_edge(z, ends, e + _AHEAD, fetched)
            squares_of_edge(z, ends, e, distances)
            for c in range(distances.shape[1]):
                if distances[e, c] >= 0:
                    distances[e, c] = math.sqrt(distances[e, c])


@kernel
def triplet_edges(
    start, stop, ends, groups, z, margin, weight, distances, values, sources, to_source, pairs,
):  # fmt: skip
    """values[0] = Σ_e weight · mean of max(0, d(i, j) − d(i, n) + m) over the drawn nodes of all edges from i.

    distances of `edge_distances`; the nodes are grouped.
    """
    _, _, _, _, bounds, middles, owners, _, ranks, _ = groups
    real, width = z.dtype.type, ends.shape[1] - 1
    for b in range(start, stop):
        value, bound = 0.0, 0.0
        for e in range(b * BLOCK, min((b + 1) * BLOCK, len(ends))):
            begin, end = bounds[ranks[e]], middles[ranks[e]]
            count, active, total = 0, 0, 0.0
            for s in range(begin, end):
                for c in range(1, width):
                    far = distances[owners[s], c]
                    gap = distances[e, 0] + margin - far
                    count += not far < 0.0
                    if not (far < 0.0 or gap <= 0.0):  # NaN makes the total NaN
                        total += gap
                        active += 1
            share = weight / max(count, 1)
            for c in range(width):
                distance, slope = distances[e, c], 0.0
                if c == 0:
                    slope = share * active
                elif distance >= 0.0:
                    pushing = 0
                    for s in range(begin, end):
                        pushing += distances[owners[s], 0] + margin - distance > 0.0
                    slope = -share * pushing
                bound += abs(slope)
                pairs[e * width + c] = real(slope / distance if distance > 0.0 else 0.0)
            value += share * total
            sum_of_edge(z, ends, e, pairs, 0.0, sources, to_source)
        values[0, b], values[1, b] = value, bound


@njit
def _multiply(z, ends, e, products, lengths):
    """products[e, c] = z_i · z_v and lengths[e, c] = ‖z_v‖, of the nodes i and v of pair c of edge e; returns ‖z_i‖.

    Where no node was drawn, those of node 0. Indices as in `_pairwise`.
    """
    i, own = np.uint64(ends[e, 0]), z.dtype.type(0)
    for k in range(z.shape[1]):
        own += z[i, k] * z[i, k]
    for c in range(products.shape[1]):
        v = np.uint64(max(ends[e, c + 1], 0))
        product, square = z.dtype.type(0), z.dtype.type(0)
        for k in range(z.shape[1]):
            product += z[i, k] * z[v, k]
            square += z[v, k] * z[v, k]
        products[e, c], lengths[e, c] = product, square
    for c in range(products.shape[1]):
        lengths[e, c] = math.sqrt(lengths[e, c])
    return math.sqrt(np.float64(own))


@kernel
def softmax_edges(
    start, stop, first, ends, groups, fetched, z, cosine, temperature, weight, scores, lengths, values, sources,
    to_source, pairs, own,
):  # fmt: skip
    """values[0] = weight Σ_e (log Σ_c e^{s_c} − s_0): InfoNCE over the pairs of an edge, s cosine or product over τ.

    scores and lengths (B, 1 + k) float64 are scratch.
    """
    if start == 0 < first:
        group(ends, *groups)
    real, width = z.dtype.type, ends.shape[1] - 1
    for b in range(max(start - first, 0), stop - first):
        value, bound = 0.0, 0.0
        for e in range(b * BLOCK, min((b + 1) * BLOCK, len(ends))):
            _prefetch_edge(z, ends, e + _AHEAD, fetched)
            length = _multiply(z, ends, e, scores, lengths)
            inverse, top = 1.0 / max(length, _EPS) if cosine else 1.0, -np.inf
            for c in range(width):
                if ends[e, c + 1] >= 0:
                    scores[e, c] *= inverse / max(lengths[e, c], _EPS) if cosine else 1.0
                    top = max(top, scores[e, c])
            total, rest, own_score = 0.0, 0.0, (scores[e, 0] - top) / temperature
            for c in range(width):
                if ends[e, c + 1] >= 0:
                    term = math.exp((scores[e, c] - top) / temperature)
                    total += term
                    rest += term if c > 0 else 0.0
            along = 0.0
            for c in range(width):
                q = e * width + c
                pairs[q] = own[q] = 0
                if ends[e, c + 1] < 0:
                    continue
                share = rest / total if c == 0 else math.exp((scores[e, c] - top) / temperature) / total
                slope = weight / temperature * (-share if c == 0 else share)
                near = 1.0 / max(lengths[e, c], _EPS) if cosine else 1.0
                toward, back = slope * inverse * near, 0.0  # the gradient to v is toward z_i + back z_v
                if cosine and lengths[e, c] > _EPS:
                    back = -slope * scores[e, c] * near * near
                if cosine and length > _EPS:
                    along -= slope * scores[e, c] * inverse * inverse
                along += toward
                bound += abs(toward) * (length + lengths[e, c]) + abs(back) * lengths[e, c]
                pairs[q], own[q] = real(-toward), real(toward + back)
            sum_of_edge(z, ends, e, pairs, along, sources, to_source)
            value += weight * (math.log1p(rest) if own_score == 0.0 else math.log(total) - own_score)
            bound += abs(along) * length
        values[0, b], values[1, b] = value, bound


@kernel
def step_nodes(
    start, stop, z, nodes, bounds, middles, owners, entries, sources, to_source, pairs, own, out, idle, buffers, c,
):  # fmt: skip
    """A step of the rows of all nodes, by the sum of their gradients. idle: also of those without a gradient.

    c holds the numbers of an optimizer whose state is in buffers (n, d). If it is None, the gradients are written to
    out (M, d) instead. Groups as in `group`; the range is that of nodes (M,).
    """
    real = z.dtype.type
    if c is None:
        gradients = out
    else:
        now, gradients = numbers_of(c, c, z.dtype), np.empty((1, z.shape[1]), z.dtype)
    for r in range(start, stop):
        v, alone = nodes[r], real(0)
        if r + _NODES_AHEAD < len(nodes):
            ahead = nodes[r + _NODES_AHEAD]
            prefetch_row(z, ahead)
            if len(buffers) > 0:
                prefetch_row(buffers[0], ahead)
            if len(buffers) > 1:
                prefetch_row(buffers[1], ahead)
        if len(own) > 0:
            for s in range(middles[r], bounds[r + 1]):
                alone += own[entries[s]]
        slots, at = (bounds[r], middles[r], bounds[r + 1]), r if c is None else 0
        moves = sum_of_node(z, v, owners, entries, *slots, pairs, alone, sources, to_source, gradients, at)
        if c is not None and (idle or moves):
            for k in range(z.shape[1]):
                z[v, k], new = element(now, z[v, k], gradients[0, k], fetch_at(buffers, v, k))
                keep_at(buffers, v, k, new)
