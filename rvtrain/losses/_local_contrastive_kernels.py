"""The loops of the local contrastive loss. Distances come from differences, summed in float64.

Both forms are hinges on the distance to a negative: the negatives of row i that are closer than its reach, m
(pairwise) or m + d(a_i, p_i) (triplet), count by gap² or by gap, where gap = reach − d(a_i, n).
"""

from typing import NamedTuple

import numpy as np

from rvtrain._kernels import kernel, njit


class Batch(NamedTuple):
    """The rows, and which rows of a pool (M, d) are their negatives."""

    anchors: np.ndarray
    """(B, d)"""
    positives: np.ndarray
    """(B, d)"""
    pool: np.ndarray
    """(M, d)"""
    indices: np.ndarray
    """Rows of the pool: (B, k), −1 for none, or (1, N) for the same in every row."""
    row_ids: np.ndarray
    """(B, r); a pool row with an id of row i is no negative of i."""
    column_ids: np.ndarray
    """(M, c)"""
    in_batch: bool
    """Whether the pool is the positives, of which row i is no negative of i."""
    margin: float
    triplet: bool


class Columns(NamedTuple):
    """Which rows meet pool row named[s]: rows[begins[s]: ends[s]], ascending."""

    named: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    rows: np.ndarray


@kernel
def row_terms(start, stop, batch, weight, scratch, losses, reaches, shares, to_anchors, to_positives):
    """Each row's loss, and its gradient to its anchor and to its own positive.

    losses[i] = d(a, p)² + (1/N) Σ gap², or (1/N) Σ gap; NaN if a distance is not finite. reaches (B,) as
    above, shares[i] = weight / N. to_anchors and to_positives: `weight` times the gradient, (B, d), or (0, d)
    if not wanted. scratch (lanes, d) float64: lane l takes rows l, l + lanes, …
    """
    for lane in range(start, stop):
        total = scratch[lane]
        for i in range(lane, len(losses), len(scratch)):
            a, p = batch.anchors[i], batch.positives[i]
            candidates = batch.indices[i if len(batch.indices) > 1 else 0]
            near = _distance(a, p)
            reach = batch.margin + near if batch.triplet else batch.margin
            present, active, hinges, seen = 0, 0, 0.0, near
            total[:] = 0.0
            for j in candidates:
                if _is_negative(batch, i, j):
                    present += 1
                    far = _distance(a, batch.pool[j])
                    seen += far
                    if far < reach:
                        active += 1
                        hinges += _hinge(reach - far, batch.triplet)
                        if len(to_anchors) > 0:
                            _add_difference(_push(reach - far, far, batch.triplet), a, batch.pool[j], total)
            share = 1.0 / max(present, 1)
            losses[i] = hinges * share + (0.0 if batch.triplet else near * near)
            if np.isnan(seen) or np.isinf(seen):
                losses[i] = np.nan
            reaches[i] = reach
            shares[i] = weight * share
            pull = weight * (_ratio(active * share, near) if batch.triplet else 2.0)
            for k in range(len(total)):
                step = pull * (np.float64(a[k]) - np.float64(p[k]))
                if len(to_anchors) > 0:
                    to_anchors[i, k] = step - shares[i] * total[k]
                if len(to_positives) > 0:
                    to_positives[i, k] = -step


@kernel
def column_terms(start, stop, batch, reaches, shares, columns, scratch, out):
    """Add to out[j] the gradient to pool row j as a negative, from all the rows that meet it.

    Distances are computed anew, column by column: no two threads write to one row, and nothing of the size of
    B × N is kept. reaches and shares (B,) from `row_terms`, scratch (lanes, d) float64 as there, out (M, d).
    """
    for lane in range(start, stop):
        total = scratch[lane]
        for s in range(lane, len(columns.named), len(scratch)):
            j = columns.named[s]
            x = batch.pool[j]
            for k in range(len(total)):  # slices would compile an error message, for seconds
                total[k] = out[j, k]
            for i in columns.rows[columns.begins[s] : columns.ends[s]]:
                if _is_negative(batch, i, j):
                    far = _distance(batch.anchors[i], x)
                    if far < reaches[i]:
                        push = shares[i] * _push(reaches[i] - far, far, batch.triplet)
                        _add_difference(push, batch.anchors[i], x, total)
            for k in range(len(total)):
                out[j, k] = total[k]


@kernel
def triplet_edges(start, stop, near, far, near_starts, far_starts, margin, values, pulls, pushes):
    """The triplet form over edge lists sorted by source v: its edges e against its negative edges n.

    values[e] = (1/N) Σ_n max(0, near[e] − far[n] + m) over those of the same source; pulls[e] and pushes[n]
    are the derivatives of Σ values by near[e] and by far[n]. Lengths near (E,), far (F,); starts (n + 1,).
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
    if j < 0 or (batch.in_batch and i == j):
        return False
    for r in range(batch.row_ids.shape[1]):
        for c in range(batch.column_ids.shape[1]):
            if batch.row_ids[i, r] == batch.column_ids[j, c]:
                return False
    return True


@njit
def _distance(a, b):
    total = 0.0
    for k in range(len(a)):
        difference = np.float64(a[k]) - np.float64(b[k])
        total += difference * difference
    return np.sqrt(total)


@njit
def _hinge(gap, triplet):
    return gap if triplet else gap * gap


@njit
def _push(gap, far, triplet):
    """−(∂hinge / ∂anchor) as a multiple of anchor − negative; 0 at distance 0."""
    return _ratio(1.0 if triplet else 2.0 * gap, far)


@njit
def _ratio(x, y):
    """x / y, 0 where y is: the subgradient chosen for a distance of 0."""
    return x / y if y > 0.0 else 0.0


@njit
def _add_difference(scale, a, b, total):
    for k in range(len(total)):
        total[k] += scale * (np.float64(a[k]) - np.float64(b[k]))
