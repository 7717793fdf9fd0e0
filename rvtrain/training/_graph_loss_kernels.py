"""Losses of edges, their gradients by node, and the step of each node's row.

# Design: an edge e = (i, j) has k drawn nodes n, and a pair is (i, j) or one (i, n). A batch passes four loops:
#
#     draw_negatives   each edge: k nodes without a link to i                            (B, k)
#     group_nodes      the distinct nodes, and where each stands                          serial
#     … _edges         each edge: the value, the gradient to i, and a copy of z_i; for each pair the number f of
#                      its gradients f (z_i − z_v) and f (z_v − z_i), and the number h of h z_v
#     step_nodes       each distinct node: the sum of its gradients, in a fixed order, and the step of its row
#
# `step_nodes` changes rows of the table while others are still to be stepped. It reads no row of the table but the
# one that it changes, because z_i has been copied. So no matrix of gradients is written, and no row is read twice.
# Without the step it gives the gradients, for an optimizer of which only `step` is known.
#
# No row is written by two threads, so that the sums do not depend on the number of threads.
#
# Shapes in all kernels: z (n, d); ends (B, 2 + k) of i, j and the drawn nodes, −1 for none; slots (B, 2 + k) and m
# entries of `group_nodes`; values (2, B) float64, of which values[1, e] is a bound of the elements of all gradients;
# pairs (B, 1 + k), f by edge, scratch; sources and to_source (B, d), z_i and the gradient to it; factors (m,), f by
# slot; own (m,), h by slot, or (0,) where it is 0.
"""

import math

import numpy as np

from rvtrain._engine._prefetch import prefetch_row, prefetch_rows
from rvtrain._kernels import inlined, kernel, njit
from rvtrain.optimizers._rule import element, fetch_at, keep_at, numbers_of
from rvtrain.training._graph_sums import sum_of_edge, sum_of_node

_EPS = 1e-8
_AHEAD = 4
"""Nodes from the one that is summed to the one whose rows are fetched."""


@inlined
def _prefetch_edge(z, ends, e, stop):
    """Begin to fetch the rows of an edge and of its drawn nodes."""
    if e < stop:
        for c in range(ends.shape[1]):
            if ends[e, c] >= 0:
                prefetch_row(z, ends[e, c])


@njit
def _measure(z, ends, e, distances):
    """distances[e, c] = distance of the nodes of pair c of edge e; −1 where no node was drawn.

    Indices are unsigned, since the test of negative ones took as long as the sum; and one loop takes all roots.
    """
    i = np.uint64(ends[e, 0])
    for c in range(distances.shape[1]):
        v = np.uint64(max(ends[e, c + 1], 0))
        total = z.dtype.type(0)
        for k in range(z.shape[1]):
            difference = z[i, k] - z[v, k]
            total += difference * difference
        distances[e, c] = total
    for c in range(distances.shape[1]):
        distances[e, c] = math.sqrt(distances[e, c]) if ends[e, c + 1] >= 0 else -1.0


@kernel
def pairwise_edges(
    start, stop, z, ends, slots, margin, near, far, distances, values, pairs, sources, to_source, factors, own,
):  # fmt: skip
    """values[0, e] = near d(i, j)² + far Σ_n max(0, m − d(i, n))², and its gradients; distances is scratch."""
    real = z.dtype.type
    for e in range(start, stop):
        _prefetch_edge(z, ends, e + 1, stop)
        _measure(z, ends, e, distances)
        total, bound = 0.0, 0.0
        for c in range(pairs.shape[1]):
            distance, slope = distances[e, c], 0.0
            if distance >= 0.0:
                if c == 0:
                    total += near * distance * distance
                    slope = 2.0 * near
                elif distance < margin:
                    total += far * (margin - distance) * (margin - distance)
                    slope = -2.0 * far * (margin - distance) / distance if distance > 0.0 else 0.0
                bound += abs(slope) * distance
                factors[slots[e, c + 1]] = real(slope)
            pairs[e, c] = real(slope)
        sum_of_edge(z, ends, e, pairs, 0.0, sources, to_source)
        values[0, e], values[1, e] = total, bound


@kernel
def edge_distances(start, stop, z, ends, distances):
    """distances[e, c] = distance of the nodes of pair c of edge e, (B, 1 + k) float64; −1 where no node was drawn."""
    for e in range(start, stop):
        _prefetch_edge(z, ends, e + 1, stop)
        _measure(z, ends, e, distances)


@kernel
def triplet_edges(
    start, stop, z, ends, slots, margin, weight, distances, bounds, middles, local, owners, values, pairs, sources,
    to_source, factors, own,
):  # fmt: skip
    """values[0, e] = weight · mean of max(0, d(i, j) − d(i, n) + m) over the drawn nodes of all edges from i.

    distances of `edge_distances`, groups of `group_nodes`.
    """
    real = z.dtype.type
    for e in range(start, stop):
        _prefetch_edge(z, ends, e + 1, stop)
        r = local[e, 0]
        first, last = bounds[r], middles[r]
        count, active, total = 0, 0, 0.0
        for s in range(first, last):
            for c in range(1, pairs.shape[1]):
                far = distances[owners[s], c]
                gap = distances[e, 0] + margin - far
                count += far >= 0.0
                if far >= 0.0 and gap > 0.0:
                    total += gap
                    active += 1
        share, bound = weight / max(count, 1), 0.0
        for c in range(pairs.shape[1]):
            distance, slope = distances[e, c], 0.0
            if c == 0:
                slope = share * active
            elif distance >= 0.0:
                pushing = 0
                for s in range(first, last):
                    pushing += distances[owners[s], 0] + margin - distance > 0.0
                slope = -share * pushing
            bound += abs(slope)
            pairs[e, c] = real(slope / distance if distance > 0.0 else 0.0)
            if distance >= 0.0:
                factors[slots[e, c + 1]] = pairs[e, c]
        sum_of_edge(z, ends, e, pairs, 0.0, sources, to_source)
        values[0, e], values[1, e] = share * total, bound


@njit
def _multiply(z, ends, e, products, lengths):
    """products[e, c] = z_i · z_v and lengths[e, c] = ‖z_v‖, of the nodes i and v of pair c of edge e; returns ‖z_i‖.

    Where no node was drawn, those of node 0. Indices as in `_measure`.
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
    start, stop, z, ends, slots, cosine, temperature, weight, scores, lengths, values, pairs, sources, to_source,
    factors, own,
):  # fmt: skip
    """values[0, e] = weight (log Σ_c e^{s_c} − s_0): InfoNCE over the pairs of an edge, s cosine or product over τ.

    scores and lengths (B, 1 + k) float64 are scratch.
    """
    real = z.dtype.type
    for e in range(start, stop):
        _prefetch_edge(z, ends, e + 1, stop)
        length = _multiply(z, ends, e, scores, lengths)
        inverse, top = 1.0 / max(length, _EPS) if cosine else 1.0, -np.inf
        for c in range(pairs.shape[1]):
            if ends[e, c + 1] >= 0:
                scores[e, c] *= inverse / max(lengths[e, c], _EPS) if cosine else 1.0
                top = max(top, scores[e, c])
        total, rest, first = 0.0, 0.0, (scores[e, 0] - top) / temperature
        for c in range(pairs.shape[1]):
            if ends[e, c + 1] >= 0:
                term = math.exp((scores[e, c] - top) / temperature)
                total += term
                rest += term if c > 0 else 0.0
        along, bound = 0.0, 0.0
        for c in range(pairs.shape[1]):
            pairs[e, c] = 0
            if ends[e, c + 1] < 0:
                continue
            share = rest / total if c == 0 else math.exp((scores[e, c] - top) / temperature) / total
            slope = weight / temperature * (-share if c == 0 else share)
            near = 1.0 / max(lengths[e, c], _EPS) if cosine else 1.0
            a, b = slope * inverse * near, 0.0  # the gradient to v is a z_i + b z_v
            if cosine and lengths[e, c] > _EPS:
                b = -slope * scores[e, c] * near * near
            if cosine and length > _EPS:
                along -= slope * scores[e, c] * inverse * inverse
            along += a
            bound += abs(a) * (length + lengths[e, c]) + abs(b) * lengths[e, c]
            s = slots[e, c + 1]
            pairs[e, c] = factors[s] = real(-a)
            own[s] = real(a + b)
        sum_of_edge(z, ends, e, pairs, along, sources, to_source)
        values[0, e] = weight * (math.log1p(rest) if first == 0.0 else math.log(total) - first)
        values[1, e] = bound + abs(along) * length


@kernel
def step_nodes(
    start, stop, z, nodes, bounds, middles, owners, sources, to_source, factors, own, out, idle, buffers, c,
):  # fmt: skip
    """A step of the rows of all nodes, by the sum of their gradients. idle: also of those without a gradient.

    c holds the numbers of an optimizer whose state is in buffers (n, d). If it is None, the gradients are written to
    out (M, d) instead. Groups as in `group_nodes`; the range is that of nodes (M,).
    """
    real = z.dtype.type
    if c is None:
        gradients = out
    else:
        now, gradients = numbers_of(c, c, z.dtype), np.empty((1, z.shape[1]), z.dtype)
    for r in range(start, stop):
        at, v, alone = r, nodes[r], real(0)
        if c is not None:
            at = 0
            if len(buffers) == 0:
                prefetch_rows(nodes, r, z, z, z)
            elif len(buffers) == 1:
                prefetch_rows(nodes, r, z, buffers[0], buffers[0])
            else:
                prefetch_rows(nodes, r, z, buffers[0], buffers[1])
        if r + _AHEAD < len(nodes):
            for s in range(bounds[r + _AHEAD], middles[r + _AHEAD]):
                prefetch_row(to_source, owners[s])
            for s in range(middles[r + _AHEAD], bounds[r + _AHEAD + 1]):
                prefetch_row(sources, owners[s])
        if len(own) > 0:
            for s in range(middles[r], bounds[r + 1]):
                alone += own[s]
        sum_of_node(
            z, v, owners, bounds[r], middles[r], bounds[r + 1], factors, alone, sources, to_source, gradients, at
        )
        if c is not None:
            moves = idle
            if not idle:
                for k in range(z.shape[1]):
                    moves |= gradients[0, k] != 0
            if moves:
                for k in range(z.shape[1]):
                    z[v, k], new = element(now, z[v, k], gradients[0, k], fetch_at(buffers, v, k))
                    keep_at(buffers, v, k, new)
