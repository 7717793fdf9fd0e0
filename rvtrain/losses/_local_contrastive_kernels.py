"""Loops of the local contrastive loss for rows with their own negatives, and for edge lists.

Both forms are hinges on the distance d to a negative. A negative is active if d is less than the row's *reach*,
which is m (pairwise) or m + d(a, p) (triplet). With gap = reach − d, it adds gap² (pairwise) or gap (triplet) to the
row's sum. Distances are computed from differences, summed in float64.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._kernels import kernel, njit


class Batch(NamedTuple):
    """The rows, and the rows of a pool (M, d) that are their negatives."""

    anchors: np.ndarray
    """(B, d)"""
    positives: np.ndarray
    """(B, d)"""
    pool: np.ndarray
    """(M, d)"""
    indices: np.ndarray
    """(B, k) rows of the pool, −1 for none"""
    row_ids: np.ndarray
    """(B, r); a pool row that shares an id with row i is not a negative of i."""
    column_ids: np.ndarray
    """(M, c)"""
    margin: float
    triplet: bool


class Places(NamedTuple):
    """Uses of pool rows: row named[s] is at the flat positions order[begins[s]: ends[s]] in (B, k), ascending."""

    named: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    order: np.ndarray


@kernel
def row_terms(start, stop, batch, weight, scratch, losses, pushes, to_anchors, to_positives):
    """Each row's loss, the gradients to its anchor and positive, and the factors of those to its negatives.

    losses[i] = d(a, p)² + (1/N) Σ gap², or (1/N) Σ gap; NaN if a distance is not finite. pushes[i, s] · (a − x) is
    `weight` times the gradient to negative x = pool[indices[i, s]]. Gradients are `weight` times those of losses[i].

    Shapes: losses (B,), pushes (B, k), to_anchors and to_positives (B, d); the last three have no rows if not wanted.
    scratch (lanes, d) float64: lane l processes rows l, l + lanes, …
    """
    for lane in range(start, stop):
        total = scratch[lane]
        for i in range(lane, len(losses), len(scratch)):
            a, p = batch.anchors[i], batch.positives[i]
            near = distance(a, p)
            reach = batch.margin + near if batch.triplet else batch.margin
            present, active, hinges, seen = 0, 0, 0.0, near
            total[:] = 0.0
            for s in range(batch.indices.shape[1]):
                j, push = batch.indices[i, s], 0.0
                if _is_negative(batch, i, j):
                    present += 1
                    far = distance(a, batch.pool[j])
                    seen += far
                    if far < reach:
                        active += 1
                        gap = reach - far
                        hinges += gap if batch.triplet else gap * gap
                        push = ratio(1.0 if batch.triplet else 2.0 * gap, far)
                        if len(to_anchors) > 0:
                            add_difference(push, a, batch.pool[j], total)
                if len(pushes) > 0:
                    pushes[i, s] = push
            share = 1.0 / max(present, 1)
            losses[i] = hinges * share + (0.0 if batch.triplet else near * near)
            if np.isnan(seen) or np.isinf(seen):
                losses[i] = np.nan
            share *= weight
            pull = ratio(active * share, near) if batch.triplet else 2.0 * weight
            if len(pushes) > 0:
                for s in range(pushes.shape[1]):
                    pushes[i, s] *= share
            for k in range(len(total)):
                step = pull * (np.float64(a[k]) - np.float64(p[k]))
                if len(to_anchors) > 0:
                    to_anchors[i, k] = step - share * total[k]
                if len(to_positives) > 0:
                    to_positives[i, k] = -step


@kernel
def pool_terms(start, stop, anchors, pool, pushes, places, scratch, out):
    """out[j] = Σ push · (a − x_j) over the positions at which pool row x_j is a negative, with the anchor a there.

    Shapes: anchors (B, d), pool and out (M, d), pushes (B, k) from `row_terms`; only rows in `places` are written.
    scratch (lanes, d) float64: lane l sums places l, l + lanes, …, each in a fixed order.
    """
    for lane in range(start, stop):
        total = scratch[lane]
        for s in range(lane, len(places.named), len(scratch)):
            j = places.named[s]
            total[:] = 0.0
            for at in places.order[places.begins[s] : places.ends[s]]:
                i = at // pushes.shape[1]
                push = pushes[i, at % pushes.shape[1]]
                if push != 0.0:
                    add_difference(push, anchors[i], pool[j], total)
            for k in range(len(total)):
                out[j, k] = total[k]


@kernel
def triplet_edges(start, stop, near, far, near_starts, far_starts, margin, values, pulls, pushes):
    """The triplet form over edge lists that are sorted by source v, its edges e against its negative edges n.

    values[e] = (1/N) Σ_n max(0, near[e] − far[n] + m) over the N negative edges with the source of e; pulls[e] and
    pushes[n] are the derivatives of Σ values by near[e] and by far[n]. Shapes: near (E,), far (F,), starts (n + 1,).
    """
    for v in range(start, stop):
        first, last = far_starts[v], far_starts[v + 1]
        share = 1.0 / max(last - first, 1)
        pushes[first:last] = 0.0
        for e in range(near_starts[v], near_starts[v + 1]):
            active, total = 0, 0.0
            for n in range(first, last):
                gap = near[e] - far[n] + margin
                if gap > 0.0:
                    active += 1
                    total += gap
                    pushes[n] -= share
            values[e] = total * share
            pulls[e] = active * share


@njit
def _is_negative(batch, i, j):
    if j < 0:
        return False
    for r in range(batch.row_ids.shape[1]):
        for c in range(batch.column_ids.shape[1]):
            if batch.row_ids[i, r] == batch.column_ids[j, c]:
                return False
    return True


@njit
def distance(a, b):
    """‖a − b‖, float64."""
    total = 0.0
    for k in range(len(a)):
        difference = np.float64(a[k]) - np.float64(b[k])
        total += difference * difference
    return np.sqrt(total)


@njit
def ratio(x, y):
    """x / y, or 0 where y is 0: the subgradient at distance 0."""
    return x / y if y > 0.0 else 0.0


@njit
def add_difference(scale, a, b, total):
    """total += scale · (a − b), float64."""
    for k in range(len(total)):
        total[k] += scale * (np.float64(a[k]) - np.float64(b[k]))
