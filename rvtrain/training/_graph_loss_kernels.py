"""Losses of edges, their gradients by node, and the step of each node's row.

# Design: an edge e = (i, j) has k drawn nodes n, and a pair is (i, j) or one (i, n). A batch passes four loops:
#
#     draw_negatives   each edge: k nodes without a link to i                          (B, k)
#     group_nodes      the distinct nodes, and where each stands                        serial, two passes
#     … _edges         each edge: the value, the gradient to i, a copy of z_i, and for the other node v of each pair
#                      the numbers a and b of its gradient a z_i + b z_v
#     step_nodes       each distinct node: the sum of its gradients, in the order of the edges, and its step
#
# `step_nodes` changes rows of the table while others are still to be stepped. It reads no row of the table but
# the one that it changes, because z_i has been copied. So neither a matrix of gradients is written nor a row read twice.
# Without the step it gives the gradients, for an optimizer of which only `step` is known.
#
# No row is written by two threads, so that the sums do not depend on the number of threads.
"""

import math

import numpy as np

from rvtrain._engine._prefetch import prefetch_row, prefetch_rows
from rvtrain._kernels import inlined, kernel, njit
from rvtrain.optimizers._rule import element, fetch_at, keep_at, numbers_of

_EPS = 1e-8
_AHEAD = 8
"""Entries from the row that is added to the row that is fetched."""


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
def _begin(z, i, sources, to_source, e):
    """Copy z_i, and begin the sum of the gradients to it."""
    for k in range(z.shape[1]):
        sources[e, k], to_source[e, k] = z[i, k], 0


@inlined
def _add_difference(z, i, v, factor, to_source, e):
    """to_source[e] += factor (z_i − z_v); the factor in the dtype of z."""
    for k in range(z.shape[1]):
        to_source[e, k] += factor * (z[i, k] - z[v, k])


@kernel
def pairwise_edges(
    start, stop, z, edges, negatives, margin, near, far, values, sources, to_source, own, other,
):  # fmt: skip
    """values[e, 0] = near d(i, j)² + far Σ_n max(0, m − d(i, n))², and its gradients; sources[e] = z_i.

    The gradient to i is to_source[e]. That of pair c to its other node v is other[e, c] z_i + own[e, c] z_v.
    values[e, 1] is a bound of the elements of all these.
    Shapes: z (n, d), edges (B, 2), negatives (B, k), values (B, 2) float64, sources and to_source (B, d), own and
    other (B, 1 + k).
    """
    real = z.dtype.type
    for e in range(start, stop):
        _prefetch_edge(z, edges, negatives, e + 1, stop)
        i, total, bound = edges[e, 0], 0.0, 0.0
        _begin(z, i, sources, to_source, e)
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
                bound += abs(slope) * distance
            factor = real(slope)
            own[e, c], other[e, c] = factor, -factor
            if slope != 0.0:
                _add_difference(z, i, v, factor, to_source, e)
        values[e, 0], values[e, 1] = total, bound


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
    start, stop, z, edges, negatives, margin, weight, distances, bounds, local, owners, columns, values, sources,
    to_source, own, other,
):  # fmt: skip
    """values[e, 0] = weight · mean of max(0, d(i, j) − d(i, n) + m) over the drawn nodes of all edges from i.

    Shapes and gradients as in `pairwise_edges`; distances of `edge_distances`, groups of `group_nodes`.
    """
    real = z.dtype.type
    for e in range(start, stop):
        _prefetch_edge(z, edges, negatives, e + 1, stop)
        i, r = edges[e, 0], local[e, 0]
        count, active, total = 0, 0, 0.0
        for s in range(bounds[r], bounds[r + 1]):
            if columns[s] == 0:
                for c in range(1, own.shape[1]):
                    far = distances[owners[s], c]
                    gap = distances[e, 0] + margin - far
                    count += far >= 0.0
                    if far >= 0.0 and gap > 0.0:
                        total += gap
                        active += 1
        share, bound = weight / max(count, 1), 0.0
        _begin(z, i, sources, to_source, e)
        for c in range(own.shape[1]):
            distance, slope = distances[e, c], 0.0
            if c == 0:
                slope = share * active
            elif distance >= 0.0:
                pushing = 0
                for s in range(bounds[r], bounds[r + 1]):
                    pushing += columns[s] == 0 and distances[owners[s], 0] + margin - distance > 0.0
                slope = -share * pushing
            bound += abs(slope)
            factor = real(slope / distance if distance > 0.0 else 0.0)
            own[e, c], other[e, c] = factor, -factor
            if factor != 0.0:
                _add_difference(z, i, _node(edges, negatives, e, c), factor, to_source, e)
        values[e, 0], values[e, 1] = share * total, bound


@kernel
def softmax_edges(
    start, stop, z, edges, negatives, cosine, temperature, weight, scores, lengths, values, sources, to_source, own,
    other,
):  # fmt: skip
    """values[e, 0] = weight (log Σ_c e^{s_c} − s_0): InfoNCE over the pairs of an edge, s cosine or product over τ.

    Shapes and gradients as in `pairwise_edges`; scores and lengths (B, 1 + k) float64 are scratch.
    """
    real = z.dtype.type
    for e in range(start, stop):
        _prefetch_edge(z, edges, negatives, e + 1, stop)
        i = edges[e, 0]
        square = real(0)
        for k in range(z.shape[1]):
            square += z[i, k] * z[i, k]
        _begin(z, i, sources, to_source, e)
        length = math.sqrt(np.float64(square))
        inverse, top = 1.0 / max(length, _EPS) if cosine else 1.0, -np.inf
        for c in range(own.shape[1]):
            v = _node(edges, negatives, e, c)
            if v >= 0:
                product, square = real(0), real(0)
                for k in range(z.shape[1]):
                    product += z[i, k] * z[v, k]
                    square += z[v, k] * z[v, k]
                lengths[e, c] = math.sqrt(np.float64(square))
                near = 1.0 / max(lengths[e, c], _EPS) if cosine else 1.0
                scores[e, c] = np.float64(product) * inverse * near
                top = max(top, scores[e, c])
        total, rest = 0.0, 0.0
        for c in range(own.shape[1]):
            if c == 0 or negatives[e, c - 1] >= 0:
                term = math.exp((scores[e, c] - top) / temperature)
                total += term
                rest += term if c > 0 else 0.0
        first = (scores[e, 0] - top) / temperature
        along, bound = 0.0, 0.0
        for c in range(own.shape[1]):
            own[e, c] = other[e, c] = 0
            if c > 0 and negatives[e, c - 1] < 0:
                continue
            share = rest / total if c == 0 else math.exp((scores[e, c] - top) / temperature) / total
            slope = weight / temperature * (-share if c == 0 else share)
            near = 1.0 / max(lengths[e, c], _EPS) if cosine else 1.0
            a = slope * inverse * near
            other[e, c] = real(a)
            if cosine and lengths[e, c] > _EPS:
                b = -slope * scores[e, c] * near * near
                own[e, c] = real(b)
                bound += abs(b) * lengths[e, c]
            if cosine and length > _EPS:
                along -= slope * scores[e, c] * inverse * inverse
            bound += abs(a) * (length + lengths[e, c])
            v = _node(edges, negatives, e, c)
            for k in range(z.shape[1]):
                to_source[e, k] += real(a) * z[v, k]
        for k in range(z.shape[1]):
            to_source[e, k] += real(along) * z[i, k]
        values[e, 0] = weight * (math.log1p(rest) if first == 0.0 else math.log(total) - first)
        values[e, 1] = bound + abs(along) * length


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
def step_nodes(start, stop, z, nodes, bounds, owners, columns, sources, to_source, own, other, out, idle, buffers, c):
    """A step of the rows of all nodes, by the sum of their gradients. idle: also of those without a gradient.

    c holds the numbers of an optimizer whose state is in buffers (n, d). If it is None, the gradients are written to
    out (m, d) instead. Shapes: as in `pairwise_edges` and `group_nodes`; the range is that of nodes.
    """
    last = bounds[len(nodes)]
    if c is None:
        gradients = out
    else:
        now, gradients = numbers_of(c, c, z.dtype), np.empty((1, z.shape[1]), z.dtype)
    for r in range(start, stop):
        at, v = r, nodes[r]
        if c is not None:
            at = 0
            if len(buffers) == 0:
                prefetch_rows(nodes, r, z, z, z)
            elif len(buffers) == 1:
                prefetch_rows(nodes, r, z, buffers[0], buffers[0])
            else:
                prefetch_rows(nodes, r, z, buffers[0], buffers[1])
        for k in range(z.shape[1]):
            gradients[at, k] = 0
        for s in range(bounds[r], bounds[r + 1]):
            if s + _AHEAD < last:
                if columns[s + _AHEAD] == 0:
                    prefetch_row(to_source, owners[s + _AHEAD])
                else:
                    prefetch_row(sources, owners[s + _AHEAD])
            e, p = owners[s], columns[s] - 1
            if p < 0:
                for k in range(z.shape[1]):
                    gradients[at, k] += to_source[e, k]
                continue
            a, b = own[e, p], other[e, p]
            if a != -b:
                for k in range(z.shape[1]):
                    gradients[at, k] += a * z[v, k] + b * sources[e, k]
            elif a != 0:
                for k in range(z.shape[1]):
                    gradients[at, k] += a * (z[v, k] - sources[e, k])
        if c is not None:
            moves = idle
            if not idle:
                for k in range(z.shape[1]):
                    moves |= gradients[0, k] != 0
            if moves:
                for k in range(z.shape[1]):
                    z[v, k], new = element(now, z[v, k], gradients[0, k], fetch_at(buffers, v, k))
                    keep_at(buffers, v, k, new)
