"""InfoNCE of all rows against all columns on the tile engine: what happens to a block of scores.

# Design: rows are taken a slab at a time. Phase 1, parallel over groups of rows: scores, exponentials, their
# sums, and the weighted columns, block by block while the block is in cache. Phase 2, parallel over panels
# of columns: the weighted rows, from the same slab. Exponentials stay unnormalised: a row's 1 / sum is folded
# into what phase 1 hands out and into the rows that phase 2 reads. They are powers of two: octaves = 1 / (τ ln 2)
# turns a cosine into their exponent. Where 2 / τ is small enough that they cannot leave the range, they are taken
# relative to cosine 1; otherwise relative to the row's largest, for which the slab is passed over once more. The
# symmetric loss needs the columns' sums before any weight is known: a first sweep for the sums, a second for the
# gradients, unless one slab holds all scores and keeps them.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._kernels import driver, kernel, njit
from rvtrain._engine._blocks import (
    CHUNK,
    FINE_CHUNK,
    GROUP,
    add_weighted_columns,
    add_weighted_rows,
    pack_left,
    pack_strips,
    score_block,
)
from rvtrain._engine._exp import exp2
from rvtrain._engine._norms import EPS
from rvtrain._engine._tile import mr, nr

NO_SHARES = np.empty(0)
"""For rows that are packed as they are."""


class Columns(NamedTuple):
    """The columns of the scores, packed, and which of them are no negatives of which row."""

    panels: np.ndarray
    """(m / NR, d, NR)"""
    strips: np.ndarray
    """(d padded, m padded), or empty where no gradient is asked for"""
    ids: np.ndarray
    """(c, m padded) int32, codes to be compared with the rows'"""
    row_ids: np.ndarray
    """(B, r) int32; r = 0 where there are no ids"""
    width: int
    in_batch: bool
    """Whether column i is row i's positive."""


class Work(NamedTuple):
    """Scratch of a slab of rows, by group, and the sums that grow from slab to slab; empty where not wanted."""

    slab: np.ndarray
    """(rows / MR, m / NR, MR, NR) the exponentials; narrower where nobody reads them later"""
    left: np.ndarray
    """(groups, GROUP / MR, d, MR) packed rows"""
    tops: np.ndarray
    """(groups, GROUP / MR, MR) what the exponentials are relative to"""
    sums: np.ndarray
    """(groups, GROUP / MR, MR, NR) sums of exponentials, by lane"""
    strips: np.ndarray
    """(d padded, rows) the rows again, with their shares, for the sums towards the columns"""
    to_rows: np.ndarray
    """(B padded / MR, MR, d padded) sums of the columns for each row"""
    to_columns: np.ndarray
    """(m padded, d padded) sums of the rows for each column"""
    by_group: np.ndarray
    """(groups, m / NR, NR) sums of the columns' exponentials over a group, for the symmetric loss"""


class Closing(NamedTuple):
    """What makes a loss of a row's sum, and where it goes; all arrays (n,) float64."""

    positives: np.ndarray
    temperature: float
    weight: float
    losses: np.ndarray
    slopes: np.ndarray
    shares: np.ndarray


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
def score(left, columns, start, stop, slab, top, origin, first, fine):
    """Cosines of a group of rows, from row `first` on, with a block of columns: `score_block`, then `hide`."""
    score_block(left, columns.panels, start, stop, slab, top, origin, FINE_CHUNK if fine else CHUNK)
    hide(slab, top, len(left), start, stop, origin, first, columns)


@njit
def exponentials(slab, top, panels, start, stop, origin, tops, octaves, sums):
    """In place 2^((cos − tops) · octaves), and their sums lane by lane; tops (P, MR), sums (P, MR, NR).

    The loop over r ends at a shape, not at mr(slab): unrolled, it would have no registers left for constants.
    """
    for p in range(panels):
        for j in range(start - origin, stop - origin):
            for r in range(slab.shape[2]):
                shift = tops[p, r]
                for q in range(nr(slab)):
                    e = exp2((slab[top + p, j, r, q] - shift) * octaves)
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


@njit
def close(i, total, top, to):
    """From the sum of a row's exponentials to its loss and slopes.

    t = (top − cos⁺) / τ + log Σ exp; losses = softplus(t); slopes = ∂/∂cos⁺ = −w σ(t) / τ; shares = what turns
    an exponential into ∂/∂cos: −slope / Σ exp.
    """
    t = (top - to.positives[i]) / to.temperature + np.log(total)
    to.losses[i] = max(t, 0.0) + np.log1p(np.exp(-abs(t)))
    to.slopes[i] = -to.weight / (to.temperature * (1.0 + np.exp(-t)))
    to.shares[i] = -to.slopes[i] / total if total > 0.0 else 0.0


@njit
def close_group(first, tops, sums, to):
    """`close` for the rows of a group that exist; tops (P, MR), sums (P, MR, NR)."""
    height = tops.shape[1]
    for i in range(first, min(first + GROUP, len(to.losses))):
        p, r = (i - first) // height, (i - first) % height
        total = 0.0
        for q in range(sums.shape[2]):
            total += sums[p, r, q]
        close(i, total, tops[p, r], to)


@njit
def groups_of(first, count, height):
    """Groups of rows in the slab from row `first` on: the last slab has as many as there are rows left."""
    return (min(height, count - first) + GROUP - 1) // GROUP


@kernel
def _one_sided_groups(start, stop, rows, start_row, columns, to, work, octaves, bounded, block):
    for g in range(start, stop):
        _one_sided_group(g, rows, start_row, columns, to, work, octaves, bounded, block)


@njit
def _one_sided_group(g, rows, start_row, columns, to, work, octaves, bounded, block):
    slab, left, tops, sums = work.slab, work.left[g], work.tops[g], work.sums[g]
    panels = len(left)
    top, first, across = g * panels, start_row + g * GROUP, len(columns.panels)
    keep = slab.shape[1] == across
    pack_left(rows, first, left)
    tops[:] = 1
    if not bounded:
        sums[:] = -np.inf
        for start in range(0, across, block):
            stop = min(start + block, across)
            origin = 0 if keep else start
            score(left, columns, start, stop, slab, top, origin, first, not bounded)
            raise_tops(slab, top, panels, start, stop, sums)
        largest_lane(sums, tops)
    sums[:] = 0
    for start in range(0, across, block):
        stop = min(start + block, across)
        origin = 0 if keep else start
        if bounded:
            score(left, columns, start, stop, slab, top, origin, first, not bounded)
        exponentials(slab, top, panels, start, stop, origin, tops, octaves, sums)
        if len(work.to_rows) > 0:
            at = first // slab.shape[2]
            add_weighted_columns(slab, top, start, stop, columns.strips, work.to_rows[at : at + panels])
    close_group(first, tops, sums, to)
    if len(work.to_columns) > 0:
        pack_strips(rows, to.shares, start_row, g * GROUP, (g + 1) * GROUP, work.strips)


@kernel
def _symmetric_sums_groups(start, stop, rows, start_row, columns, to, work, octaves, block):
    for g in range(start, stop):
        _symmetric_sums_group(g, rows, start_row, columns, to, work, octaves, block)


@njit
def _symmetric_sums_group(g, rows, start_row, columns, to, work, octaves, block):
    slab, left, tops, sums = work.slab, work.left[g], work.tops[g], work.sums[g]
    by_column, panels = work.by_group[g], len(left)
    top, first, across = g * panels, start_row + g * GROUP, len(columns.panels)
    keep = slab.shape[1] == across
    pack_left(rows, first, left)
    tops[:] = 1
    sums[:] = 0
    by_column[:] = 0
    for start in range(0, across, block):
        stop = min(start + block, across)
        origin = 0 if keep else start
        score(left, columns, start, stop, slab, top, origin, first, False)
        exponentials(slab, top, panels, start, stop, origin, tops, octaves, sums)
        for j in range(start, stop):
            for p in range(top, top + panels):
                for r in range(mr(slab)):
                    for q in range(nr(slab)):
                        by_column[j, q] += slab[p, j - origin, r, q]
    close_group(first, tops, sums, to)


@kernel
def _symmetric_weights_groups(start, stop, rows, start_row, columns, shares, work, octaves, block):
    for g in range(start, stop):
        _symmetric_weights_group(g, rows, start_row, columns, shares, work, octaves, block)


@njit
def _symmetric_weights_group(g, rows, start_row, columns, shares, work, octaves, block):
    slab, left, tops, sums = work.slab, work.left[g], work.tops[g], work.sums[g]
    panels = len(left)
    top, first, across = g * panels, start_row + g * GROUP, len(columns.panels)
    kept = len(slab) * mr(slab) >= columns.width
    if not kept:
        pack_left(rows, first, left)
    for start in range(0, across, block):
        stop = min(start + block, across)
        if not kept:
            score(left, columns, start, stop, slab, top, 0, first, False)
            exponentials(slab, top, panels, start, stop, 0, tops, octaves, sums)
        share_columns(slab, top, panels, start, stop, first, shares)
        if len(work.to_rows) > 0:
            at = first // slab.shape[2]
            add_weighted_columns(slab, top, start, stop, columns.strips, work.to_rows[at : at + panels])
    if len(work.to_columns) > 0:
        pack_strips(rows, NO_SHARES, start_row, g * GROUP, (g + 1) * GROUP, work.strips)


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
def close_columns(start, stop, sums, to):
    """`close` for the columns of the symmetric loss, whose exponentials are relative to 1; sums (≥ n,)."""
    for i in range(start, stop):
        close(i, sums[i], 1.0, to)


@kernel
def finish(start, stop, sums, shares, slopes, others, rows, along, out):
    """From sums over the other side to the gradient of the rows as given.

    g = share · sums[i] + slopes[i] · ô_i is the gradient to the unit row â_i, share = shares[i], or 1 where there
    are none; along[i] = â_i · g; and out[i]
    = (g − â_i along[i]) / ‖a_i‖, or g / ε where ‖a_i‖ ≤ ε. sums (≥ n, ≥ d), others and rows Rows of (n, d).
    """
    for i in range(start, stop):
        inverse, other = rows.inverse[i], others.inverse[i] * slopes[i]
        share = shares[i] if len(shares) > 0 else 1.0
        total = 0.0
        for k in range(out.shape[1]):
            g = share * sums[i, k] + other * others.x[i, k]
            out[i, k] = g
            total += g * (rows.x[i, k] * inverse)
        along[i] = total
        total = total * inverse if inverse < 1.0 / EPS else 0.0
        for k in range(out.shape[1]):
            out[i, k] = (out[i, k] - total * rows.x[i, k]) * inverse


@kernel
def _to_columns(start, stop, slab, strips, sums, first):
    for j in range(start, stop):
        add_weighted_rows(slab, j, strips, sums, first)


@kernel
def _add_column_sums(start, stop, groups, by_group, column_sums):
    for j in range(start, stop):
        for g in range(groups):
            for q in range(by_group.shape[2]):
                column_sums[j * by_group.shape[2] + q] += by_group[g, j, q]


launch_one_sided, launch_sums, launch_weights = _one_sided_groups.launch, _symmetric_sums_groups.launch, _symmetric_weights_groups.launch
launch_to_columns, launch_add = _to_columns.launch, _add_column_sums.launch


@driver
def one_sided(threads, rows, columns, to, work, octaves, bounded, block):
    """Every row against every column: losses, slopes and shares, and the sums that work has room for.

    To the unit rows: shares · to_rows; to the unit columns: to_columns, which holds the shares already.
    """
    height = len(work.slab) * mr(work.slab)
    for first in range(0, len(rows.x), height):
        groups = groups_of(first, len(rows.x), height)
        launch_one_sided(threads, groups, rows, first, columns, to, work, octaves, bounded, block)
        slab = work.slab[: groups * (GROUP // mr(work.slab))]
        launch_to_columns(threads, len(work.to_columns) // nr(work.slab), slab, work.strips, work.to_columns, first)


@driver
def symmetric_sums(threads, rows, columns, to, work, column_sums, octaves, block):
    """First sweep: losses and shares of the rows, and the sums of the columns' exponentials (m padded,)."""
    height = len(work.slab) * mr(work.slab)
    for first in range(0, len(rows.x), height):
        groups = groups_of(first, len(rows.x), height)
        launch_sums(threads, groups, rows, first, columns, to, work, octaves, block)
        launch_add(threads, len(columns.panels), groups, work.by_group, column_sums)


@driver
def symmetric_weights(threads, rows, columns, shares, work, octaves, block):
    """Second sweep: the sums towards rows and columns, weighted by exp_ij · (row share i + column share j).

    shares (2, m padded) float64; where one slab holds all scores, it still has the exponentials.
    """
    height = len(work.slab) * mr(work.slab)
    for first in range(0, len(rows.x), height):
        groups = groups_of(first, len(rows.x), height)
        launch_weights(threads, groups, rows, first, columns, shares, work, octaves, block)
        slab = work.slab[: groups * (GROUP // mr(work.slab))]
        launch_to_columns(threads, len(work.to_columns) // nr(work.slab), slab, work.strips, work.to_columns, first)
