"""The local contrastive loss against one pool of negatives for all rows, as a treatment of the sweep.

# Design: the engine's scores are dot products s = a · x of centred rows. Each block becomes squared distances:
#
#     d² = ‖a‖² + ‖x‖² − 2 s ──┬─ certain ──▶ hinge added to the row's sum; kept value u = gap / d, or 1 / d (triplet)
#                              └─ doubtful ─▶ kept value −0.0, a mark; hinge and gradients from the differences a − x
#
# A pair is doubtful if it may be within the reach and rounding matters: d² is small beside ‖a‖², so that the sum
# above cancels, or (triplet) d² is so near to reach² that the side of the kink is uncertain.
# Gradients are matrix products of the kept values and the rows:
#
#     Σ_j u_ij (a_i − x_j) = a_i Σ_j u_ij − Σ_j u_ij x_j
#
# A mark adds 0 to these sums, and no other kept value has the sign bit set. The gradients of doubtful pairs are
# summed in float64, to the row in phase 1 and to the column after the slab, each in a fixed order.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._blocks import GROUP
from rvtrain._engine._tile import mr, nr
from rvtrain._engine._treatment import close, finish_slab, implements, visit_scores
from rvtrain._kernels import body, in_order, kernel, njit, overload
from rvtrain.losses._local_contrastive_kernels import add_difference, distance, ratio


class Hinges(NamedTuple):
    """Hinges gap · (constant + slope · gap): gap (triplet) with constant 1, or gap² (pairwise) with slope 1."""

    constant: np.floating
    slope: np.floating
    mark: np.floating
    """−0.0; a field, because the compiler may replace a constant −0.0 by 0.0"""

    SUMS, SEPARABLE, EQUAL, BLOCKS = 1, True, False, True  # type: ignore[misc]


class Bounds(NamedTuple):
    """Bounds of d² that decide how a pair is computed, for each row; arrays (B,) of the rows' type."""

    norms: np.ndarray
    """‖a‖²"""
    reach: np.ndarray
    cancels: np.ndarray
    """A smaller d² suffers from cancellation."""
    beyond: np.ndarray
    """A larger d² is certainly beyond the reach."""
    within: np.ndarray
    """A smaller d² is within the reach, up to errors that do not matter for the loss."""


class Facts(NamedTuple):
    """Rows, columns and sums of the treatment; lengths are multiplied by `scale`."""

    anchors: np.ndarray
    """(B, d) raw rows"""
    pool: np.ndarray
    """(N, d) raw columns"""
    scale: float
    bounds: Bounds
    column_norms: np.ndarray
    """(N padded,) ‖x‖² of centred columns, of the rows' type"""
    reach: np.ndarray
    """(B,) float64"""
    shares: np.ndarray
    """(B,) float64: weight of each hinge of the row in the total"""
    lanes: np.ndarray
    """(groups, MR, 4, NR) scratch of phase 1: sums of hinges, of kept values, of active pairs and of marks"""
    column_lanes: np.ndarray
    """(N padded / NR, 2, NR) scratch, or (0, 2, NR) where no gradient to the columns is wanted"""
    sums: np.ndarray
    """(3, B) float64, 0 at first: Σ hinge, Σ u of certain pairs, and the number of active pairs"""
    column_sums: np.ndarray
    """(N padded,) float64, 0 at first: Σ_i shares[i] · u_ij of certain pairs"""
    to_rows: np.ndarray
    """(B, d) float64, 0 at first: Σ u · (a − x) of doubtful pairs; (0, d) if not wanted"""
    to_columns: np.ndarray
    """(N, d) float64, 0 at first: Σ shares[i] · u · (x − a) of doubtful pairs; (0, d) if not wanted"""
    doubts: np.ndarray
    """(2, max(B, N)) bool, False at first: rows and columns that have doubtful pairs"""


@implements(visit_scores, Hinges)
def _visit(t, slab, top, panels, begin, end, origin, first, own):
    _measure_block(t, slab, top, panels, begin, end, origin, first, own)


@implements(close, Hinges)
def _close(t, i, shift, total, second, own, to):
    """Writes the shares, with which the weights of the columns are shares · u; `_Pool` computes the losses."""
    to.losses[i], to.first[i], to.second[i] = own.sums[0, i], own.shares[i], own.sums[1, i]
    to.slopes[i] = own.sums[2, i]


@implements(finish_slab, Hinges)
def _finish(t, threads, slab, first, own, to):
    _launch_column_pairs(threads, len(own.column_lanes), t, slab, first, own)


def sign_bits(slab):
    """The same memory as integers, which are negative for −0.0 too, independent of fastmath and processor modes."""
    return slab.view(f"i{slab.itemsize}")


@overload(sign_bits)
def _sign_bits(slab):
    integer = np.int32 if str(slab.dtype) == "float32" else np.int64
    return lambda slab: slab.view(integer)


@body
def _measure_block(t, slab, top, panels, begin, end, origin, first, own):
    height = mr(slab)
    lanes = own.lanes[first // GROUP]
    for p in range(panels):
        lanes[:] = 0
        for r in range(height):
            i = first + p * height + r
            if i < len(own.anchors):
                line = lanes[r]
                _measure_row(
                    t, slab, top + p, r, begin - origin, end - origin, begin, i, own.bounds, own.column_norms, line
                )
                marks = 0
                for q in range(nr(slab)):
                    own.sums[0, i] += line[0, q]
                    own.sums[1, i] += line[1, q]
                    own.sums[2, i] += line[2, q]
                    marks += line[3, q] > 0
                if marks > 0:
                    _settle_row(t, sign_bits(slab), top + p, r, begin, end, origin, i, own)
            else:
                for j in range(begin - origin, end - origin):
                    for q in range(nr(slab)):
                        slab[top + p, j, r, q] = 0


@njit
def _measure_row(t, slab, p, r, start, stop, begin, i, bounds, column_norms, lanes):
    """Replace the scores of a row by kept values, and add to its lanes (4, NR).

    Written such that it vectorises: constants are scalars, selections have no branches, sums are by lane.
    """
    zero, one = slab.dtype.type(0), slab.dtype.type(1)
    norm, reach, within = bounds.norms[i], bounds.reach[i], bounds.within[i]
    cancels, beyond = bounds.cancels[i], bounds.beyond[i]
    constant, slope, mark = t.constant, t.slope, t.mark
    norms = column_norms[begin * nr(slab) :].reshape(-1, nr(slab))
    for j in range(start, stop):
        for q in range(slab.shape[3]):
            square = _square(norm, norms[j - start, q], slab[p, j, r, q])
            length = _root(square if square > zero else zero)
            gap = reach - length
            doubtful = (square < beyond) & ((square < cancels) | (square > within))
            active = (gap > zero) & (not doubtful)
            strength = constant + slope * gap
            hinge, kept = gap * strength, _quotient(strength, length)
            kept = kept if active else zero
            slab[p, j, r, q] = mark if doubtful else kept
            lanes[0, q] += hinge if active else zero
            lanes[1, q] += kept
            lanes[2, q] += one if active else zero
            lanes[3, q] += one if doubtful else zero


@in_order
def _square(a, b, s):
    return (a + b) - (s + s)


@in_order
def _root(x):
    """√x without fastmath, which would allow an estimate."""
    return np.sqrt(x)


@in_order
def _quotient(x, y):
    return x / y


@njit
def _settle_row(t, bits, p, r, begin, end, origin, i, own):
    """Sums of row i over its doubtful pairs among a block of columns."""
    own.doubts[0, i] = True
    a = own.anchors[i]
    for j in range(begin, end):
        for q in range(bits.shape[3]):
            if bits[p, j - origin, r, q] < 0:
                x = own.pool[j * bits.shape[3] + q]
                length = own.scale * distance(a, x)
                gap = own.reach[i] - length
                if gap > 0.0:
                    strength = t.constant + t.slope * gap
                    own.sums[0, i] += gap * strength
                    own.sums[2, i] += 1.0
                    if len(own.to_rows) > 0:
                        add_difference(own.scale * ratio(strength, length), a, x, own.to_rows[i])


@kernel
def _column_pairs(start, stop, t, slab, first, own):
    """Sums of the columns of panels [start, stop) over the rows of a slab; `first` rows are in earlier slabs."""
    height, width = mr(slab), nr(slab)
    count, bits = min(len(own.anchors) - first, len(slab) * height), sign_bits(slab)
    for j in range(start, stop):
        lanes = own.column_lanes[j]
        lanes[:] = 0
        for s in range(count):
            _add_line(slab, bits, s // height, j, s % height, slab.dtype.type(own.shares[first + s]), lanes)
        for q in range(width):
            own.column_sums[j * width + q] += lanes[0, q]
            if lanes[1, q] > 0:
                _settle_column(t, bits, count, j, q, first, own)


_launch_column_pairs = _column_pairs.launch


@njit
def _add_line(slab, bits, p, j, r, share, lanes):
    zero, one = slab.dtype.type(0), slab.dtype.type(1)
    for q in range(slab.shape[3]):
        lanes[0, q] += share * slab[p, j, r, q]
        lanes[1, q] += one if bits[p, j, r, q] < 0 else zero


@njit
def _settle_column(t, bits, count, j, q, first, own):
    """Gradient to column q of panel j from its doubtful pairs with the rows of a slab."""
    c, height = j * bits.shape[3] + q, bits.shape[2]
    own.doubts[1, c] = True
    x = own.pool[c]
    for s in range(count):
        if bits[s // height, j, s % height, q] < 0:
            i = first + s
            length = own.scale * distance(own.anchors[i], x)
            gap = own.reach[i] - length
            if gap > 0.0:
                push = own.shares[i] * ratio(t.constant + t.slope * gap, length)
                add_difference(own.scale * push, x, own.anchors[i], own.to_columns[c])


class Gradients(NamedTuple):
    """Gradients (B, d), (B, d) and (N, d), without rows if not wanted. In-batch, the last two are one array."""

    anchors: np.ndarray
    positives: np.ndarray
    pool: np.ndarray


@kernel
def gradients(start, stop, positives, pulls, factor, rows, columns, own, kept, to_rows, to_columns, out):
    """Gradients from the sums of a sweep, for the rows and columns numbered from start up to stop.

    anchor i: pulls[i] (a − p) − factor · shares[i] Σ_j u (a − x_j); positive i: pulls[i] (p − a);
    pool row j, added: −factor Σ_i shares[i] u (x_j − a_i).

    Shapes: pulls (B,) and kept = Σ_j u (B,) float64, to_rows = Σ_j u x_j (≥ B, ≥ d), to_columns = Σ_i shares[i] u a_i
    (≥ N, ≥ d), rows and columns centred; out Gradients, its pool 0 at first where it is not the positives.
    """
    for i in range(start, stop):
        if i < len(positives):
            a, p, push = own.anchors[i], positives[i], -factor * own.shares[i]
            if len(out.positives) > 0:
                _pull(pulls[i], p, a, out.positives[i])
            if len(out.anchors) > 0:
                _pull(pulls[i], a, p, out.anchors[i])
                _push(push, kept[i] * rows.inverse[i], rows.x[i], to_rows[i], out.anchors[i])
                if own.doubts[0, i]:
                    _add(push, own.to_rows[i], out.anchors[i])
        if i < len(out.pool):
            _push(-factor, own.column_sums[i] * columns.inverse[i], columns.x[i], to_columns[i], out.pool[i])
            if own.doubts[1, i]:
                _add(-factor, own.to_columns[i], out.pool[i])


@in_order
def _pull(scale, a, b, out):
    for k in range(len(out)):
        out[k] = scale * (np.float64(a[k]) - np.float64(b[k]))


@in_order
def _push(scale, weight, x, sums, out):
    for k in range(len(out)):
        out[k] = out[k] + scale * (weight * x[k] - sums[k])


@in_order
def _add(scale, x, out):
    for k in range(len(out)):
        out[k] = out[k] + scale * x[k]
