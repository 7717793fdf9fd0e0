"""InfoNCE of all rows against all columns on the tile engine: what happens to a block of scores.

# Design: rows are taken a slab at a time. Phase 1, parallel over groups of rows: scores, exponentials, their
# sums, and the weighted columns, block by block while the block is in cache. Phase 2, parallel over panels
# of columns: the weighted rows, from the same slab. Exponentials stay unnormalised: a row's 1 / sum is folded
# into what phase 1 hands out and into the rows that phase 2 reads. Where 2 / τ is small enough that exp cannot
# leave the range, they are taken relative to cosine 1; otherwise relative to the row's largest, for which the
# slab is passed over once more. The symmetric loss needs the columns' sums before any weight is known: a
# first sweep for the sums, a second for the gradients, unless one slab holds all scores and keeps them.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._jit import kernel, njit, prange
from rvtrain._primitives._engine import (
    CHUNK,
    FINE_CHUNK,
    GROUP,
    add_weighted_columns,
    add_weighted_rows,
    pack_left,
    pack_strips,
    score_block,
)
from rvtrain._primitives._exp import exp
from rvtrain._primitives._norms import EPS
from rvtrain._primitives._tile import mr, nr


class Columns(NamedTuple):
    """The columns of the scores, packed, and which of them are no negatives of which row."""

    panels: np.ndarray
    """(m / NR, d, NR)"""
    strips: np.ndarray
    """(d / NR, m padded, NR), or empty where no gradient is asked for"""
    ids: np.ndarray
    """(c, m padded) int32, codes to be compared with the rows'"""
    row_ids: np.ndarray
    """(B, r) int32; r = 0 where there are no ids"""
    width: int
    in_batch: bool
    """Whether column i is row i's positive."""


class Work(NamedTuple):
    """Scratch of a slab, by group of rows."""

    left: np.ndarray
    """(groups, GROUP / MR, d, MR) packed rows"""
    tops: np.ndarray
    """(groups, GROUP / MR, MR) what the exponentials are relative to"""
    sums: np.ndarray
    """(groups, GROUP / MR, MR, NR) sums of exponentials, by lane"""
    weighted: np.ndarray
    """(groups, GROUP / MR, MR, d padded) Σ_j exp_ij ĉ_j, or empty"""
    columns: np.ndarray
    """(groups, m / NR, NR) sums over the rows of the group, for the symmetric loss"""


@njit
def hide(slab, top, panels, start, stop, origin, first, columns):
    """−inf where row or column is padding, the column the row's own positive, or both share an id."""
    height, width = mr(slab), nr(slab)
    lowest = slab.dtype.type(-np.inf)
    if stop * width > columns.width:
        for p in range(top, top + panels):
            for r in range(height):
                for q in range(max(columns.width - (stop - 1) * width, 0), width):
                    slab[p, stop - 1 - origin, r, q] = lowest
    for p in range(panels):
        for r in range(height):
            i = first + p * height + r
            if columns.in_batch and i >= columns.width:  # padding of the rows, which are columns too
                slab[top + p, start - origin : stop - origin, r] = lowest
            elif columns.in_batch and start * width <= i < stop * width:
                slab[top + p, i // width - origin, r, i % width] = lowest
            if i < len(columns.row_ids):
                for known in columns.row_ids[i]:
                    for c in range(len(columns.ids)):
                        for j in range(start, stop):
                            for q in range(width):
                                if columns.ids[c, j * width + q] == known:
                                    slab[top + p, j - origin, r, q] = lowest


@njit
def exponentials(slab, top, panels, start, stop, origin, tops, scale, sums):
    """In place exp((cos − tops) · scale), and their sums lane by lane; tops (P, MR), sums (P, MR, NR)."""
    for p in range(panels):
        for j in range(start - origin, stop - origin):
            for r in range(mr(slab)):
                shift = tops[p, r]
                for q in range(nr(slab)):
                    e = exp((slab[top + p, j, r, q] - shift) * scale)
                    slab[top + p, j, r, q] = e
                    sums[p, r, q] += e


@njit
def raise_tops(slab, top, panels, start, stop, lanes):
    """lanes[p, r, q] = the largest cosine so far in that lane of the row; lanes (P, MR, NR)."""
    for p in range(panels):
        for j in range(start, stop):
            for r in range(mr(slab)):
                for q in range(nr(slab)):
                    value = slab[top + p, j, r, q]
                    lanes[p, r, q] = value if value > lanes[p, r, q] else lanes[p, r, q]


@njit
def largest_lane(lanes, tops):
    """tops[p, r] = max over the lanes, 0 where all are −inf, so that no difference is NaN."""
    for p in range(len(lanes)):
        for r in range(lanes.shape[1]):
            value = lanes[p, r, 0]
            for q in range(lanes.shape[2]):
                value = max(value, lanes[p, r, q])
            tops[p, r] = value if value > -np.inf else 0


@kernel
def one_sided(rows, first, columns, scale, bounded, block, slab, work):
    """Phase 1 for the rows of a slab, from row `first`: work.tops, work.sums and, if asked for, work.weighted.

    slab (rows / MR, m / NR, MR, NR) receives the exponentials; narrower (`block` panels) if nobody reads them.
    """
    for g in prange(len(slab) * mr(slab) // GROUP):
        _one_sided_group(np.int64(g), rows, first + g * GROUP, columns, scale, bounded, block, slab, work)


@njit
def _one_sided_group(g, rows, first, columns, scale, bounded, block, slab, work):
    panels = GROUP // mr(slab)
    top, across = g * panels, len(columns.panels)
    keep = slab.shape[1] == across
    sums, tops = work.sums[g], work.tops[g]
    pack_left(rows, first, work.left[g])
    tops[:] = 1
    if not bounded:
        sums[:] = -np.inf
        for start in range(0, across, block):
            stop = min(start + block, across)
            score_block(work.left[g], columns.panels, start, stop, slab, top, 0, FINE_CHUNK)
            hide(slab, top, panels, start, stop, 0, first, columns)
            raise_tops(slab, top, panels, start, stop, sums)
        largest_lane(sums, tops)
    sums[:] = 0
    for start in range(0, across, block):
        stop = min(start + block, across)
        origin = 0 if keep else start
        if bounded:
            score_block(work.left[g], columns.panels, start, stop, slab, top, origin, CHUNK)
            hide(slab, top, panels, start, stop, origin, first, columns)
        exponentials(slab, top, panels, start, stop, origin, tops, scale, sums)
        if work.weighted.size > 0:
            add_weighted_columns(slab, top, start, stop, columns.strips, work.weighted[g])


@kernel
def symmetric_sums(rows, first, columns, scale, block, slab, work, column_sums):
    """First sweep, one slab: the rows' sums in work.sums; column_sums (m padded,) float64 grows by the slab's."""
    groups, width = len(slab) * mr(slab) // GROUP, nr(slab)
    for g in prange(groups):
        _symmetric_sums_group(np.int64(g), rows, first + g * GROUP, columns, scale, block, slab, work)
    for j in prange(len(columns.panels)):
        for g in range(groups):
            for q in range(width):
                column_sums[j * width + q] += work.columns[g, j, q]


@njit
def _symmetric_sums_group(g, rows, first, columns, scale, block, slab, work):
    panels, width = GROUP // mr(slab), nr(slab)
    top, across = g * panels, len(columns.panels)
    keep = slab.shape[1] == across
    sums, tops, by_column = work.sums[g], work.tops[g], work.columns[g]
    pack_left(rows, first, work.left[g])
    tops[:] = 1
    sums[:] = 0
    by_column[:] = 0
    for start in range(0, across, block):
        stop = min(start + block, across)
        origin = 0 if keep else start
        score_block(work.left[g], columns.panels, start, stop, slab, top, origin, CHUNK)
        hide(slab, top, panels, start, stop, origin, first, columns)
        exponentials(slab, top, panels, start, stop, origin, tops, scale, sums)
        for j in range(start, stop):
            for p in range(top, top + panels):
                for r in range(mr(slab)):
                    for q in range(width):
                        by_column[j, q] += slab[p, j - origin, r, q]


@kernel
def symmetric_weights(rows, first, columns, scale, shares, block, slab, work):
    """Second sweep, one slab: it receives exp_ij · (row share i + column share j), work.weighted their columns.

    shares (2, m padded) float64; where one slab holds all scores, it still has the exponentials.
    """
    for g in prange(len(slab) * mr(slab) // GROUP):
        _symmetric_weights_group(np.int64(g), rows, first + g * GROUP, columns, scale, shares, block, slab, work)


@njit
def _symmetric_weights_group(g, rows, first, columns, scale, shares, block, slab, work):
    panels = GROUP // mr(slab)
    top, across = g * panels, len(columns.panels)
    kept = len(slab) * mr(slab) >= columns.width
    if not kept:
        pack_left(rows, first, work.left[g])
    for start in range(0, across, block):
        stop = min(start + block, across)
        if not kept:
            score_block(work.left[g], columns.panels, start, stop, slab, top, 0, CHUNK)
            hide(slab, top, panels, start, stop, 0, first, columns)
            exponentials(slab, top, panels, start, stop, 0, work.tops[g], scale, work.sums[g])
        share_columns(slab, top, panels, start, stop, first, shares)
        if work.weighted.size > 0:
            add_weighted_columns(slab, top, start, stop, columns.strips, work.weighted[g])


@njit
def share_columns(slab, top, panels, start, stop, first, shares):
    """slab[i, j] *= shares[0, i] + shares[1, j]; rows that do not exist hold zeros already."""
    height, width = mr(slab), nr(slab)
    for p in range(panels):
        for r in range(height):
            i = min(first + p * height + r, shares.shape[1] - 1)
            row_share = slab.dtype.type(shares[0, i])
            for j in range(start, stop):
                for q in range(width):
                    slab[top + p, j, r, q] *= row_share + slab.dtype.type(shares[1, j * width + q])


@kernel
def close_rows(sums, tops, positives, temperature, weight, losses, slopes, shares):
    """From the sums of the exponentials to a row's loss and slopes.

    t = (top − cos⁺) / τ + log Σ exp; losses = softplus(t); slopes = ∂/∂cos⁺ = −w σ(t) / τ; shares = what turns
    an exponential into ∂/∂cos: −slope / Σ exp. sums (n, lanes), all others (n,), the last three float64.
    """
    for i in prange(len(losses)):
        total = 0.0
        for q in range(sums.shape[1]):
            total += sums[i, q]
        t = (tops[i] - positives[i]) / temperature + np.log(total)
        losses[i] = max(t, 0.0) + np.log1p(np.exp(-abs(t)))
        slopes[i] = -weight / (temperature * (1.0 + np.exp(-t)))
        shares[i] = -slopes[i] / total if total > 0.0 else 0.0


@kernel
def weighted_rows(slab, rows, first, strips, sums):
    """Phase 2: sums[c] += Σ_i slab[i, c] · row first + i; rows' inverse norms already hold their shares."""
    height = mr(slab)
    for p in prange(len(slab)):
        pack_strips(rows, first, p * height, (p + 1) * height, strips)
    for j in prange(slab.shape[1]):
        add_weighted_rows(slab, j, strips, sums)


@kernel
def finish(sums, shares, slopes, others, rows, along, out):
    """From sums over the other side to the gradient of the rows as given.

    g = shares[i] · sums[i] + slopes[i] · ô_i is the gradient to the unit row â_i; along[i] = â_i · g; and out[i]
    = (g − â_i along[i]) / ‖a_i‖, or g / ε where ‖a_i‖ ≤ ε. sums (≥ n, ≥ d), others and rows Rows of (n, d).
    """
    for i in prange(len(out)):
        inverse, other = rows.inverse[i], others.inverse[i] * slopes[i]
        total = 0.0
        for k in range(out.shape[1]):
            g = shares[i] * sums[i, k] + other * others.x[i, k]
            out[i, k] = g
            total += g * (rows.x[i, k] * inverse)
        along[i] = total
        total = total * inverse if inverse < 1.0 / EPS else 0.0
        for k in range(out.shape[1]):
            out[i, k] = (out[i, k] - total * rows.x[i, k]) * inverse
