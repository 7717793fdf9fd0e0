"""The sweep over all pairs of a row and a column, for any treatment of a score.

# Design: rows are processed a slab at a time. Phase 1 runs in parallel over groups of rows. Each group processes one
# block of columns after the other:
#
#     pack_left ─▶ for each block: score_block ─▶ mask_block ─▶ visit ─▶ add_weighted_columns      (separable)
#                  close: losses, slopes, coefficients of the rows
#                  for each block: weigh ─▶ add_weighted_columns                                   (otherwise)
#                  pack_strips: the rows, times their coefficients
#
# Phase 2 runs in parallel over panels of columns: add_weighted_rows, from the same slab and strips. If exponents
# could leave the range, one more pass over the scores comes first and finds the row maxima, to which exponents are
# then relative. A slab has all columns if its values are read again later, else the columns of one block. If operands
# are words of bfloat16, `narrow_weights` follows the last change of a block.
"""

from typing import Any, NamedTuple

import numpy as np

from rvtrain._engine._blocks import CHUNK, FINE_CHUNK, GROUP, pack_strips
from rvtrain._engine._guide import mask_by_guide, pack_guide
from rvtrain._engine._mask import equal_ids, mask_block
from rvtrain._engine._operands import (
    add_weighted_columns,
    add_weighted_rows,
    narrow_weights,
    pack_left,
    score_block,
)
from rvtrain._engine._tile import mr, nr
from rvtrain._engine._treatment import close, finish_slab, visit, visit_scores, weigh
from rvtrain._kernels import body, driver, kernel, njit, overload

NO_SHARES = np.empty(0)
"""Passed to `pack_strips` for rows that are packed without factors."""


class Columns(NamedTuple):
    """The columns of the scores, packed."""

    panels: np.ndarray
    """(m / NR, d, NR)"""
    strips: np.ndarray
    """(d padded, m padded), or (0, m padded) if no gradient to the rows is wanted"""


class Work(NamedTuple):
    """Scratch for the groups of a slab, and the sums over all slabs; arrays that are not needed are empty."""

    slab: np.ndarray
    """(rows / MR, m / NR or block, MR, NR) scores, then kept values, then weights"""
    weights: np.ndarray
    """The slab as the sums read it: itself, the same memory as integers that hold words, or in "high" words of both
    parts, (rows / MR, m / NR or block, 2 MR, NR)"""
    left: np.ndarray
    """(groups, GROUP / MR, d, MR) packed rows"""
    shifts: np.ndarray
    """(groups, GROUP / MR, MR, NR) row maxima, each NR times, or 1"""
    sums: np.ndarray
    """(groups, 1 or 2, GROUP / MR, MR, NR) sums of the addends, by lane"""
    flags: np.ndarray
    """(groups, NR) int32"""
    strips: np.ndarray
    """(d padded, rows) the rows packed as strips, for the sums to the columns"""
    to_rows: np.ndarray
    """(n padded / MR, MR, d padded) weighted sums of the columns for each row"""
    to_columns: np.ndarray
    """(m padded, d padded) weighted sums of the rows for each column"""


class Plan(NamedTuple):
    """Block size and form of the sweep."""

    block: int
    """Column panels in a block."""
    bounded: bool
    """Whether exponents relative to score 1 stay in range, so that row maxima are not needed."""


@njit
def groups_of(first, count, height):
    """Number of groups in the slab from row `first` on; fewer in the last slab."""
    return (min(height, count - first) + GROUP - 1) // GROUP


@driver
def sweep_all(threads, rows, columns, mask, guide, treatment, own, to, work, plan):
    """Score every row against every column: results of the rows, and the weighted sums for which `work` has arrays.

    The gradient to the unit rows is to_rows, times `first` if the treatment is separable; to the columns to_columns.
    """
    height = len(work.slab) * mr(work.slab)
    for first in range(0, len(rows.x), height):
        groups = groups_of(first, len(rows.x), height)
        _launch_groups(threads, groups, rows, first, columns, mask, guide, treatment, own, to, work, plan)
        high = groups * (GROUP // mr(work.slab))
        slab, weights = work.slab[:high], work.weights[:high]
        _launch_columns(threads, len(work.to_columns) // nr(slab), weights, work.strips, work.to_columns, first)
        finish_rows(treatment, threads, slab, first, own, to)


@kernel
def _groups(start, stop, rows, start_row, columns, mask, guide, treatment, own, to, work, plan):
    """Phase 1 for groups [start, stop) of the slab that starts with row start_row."""
    for g in range(start, stop):
        slab, left, shifts, sums = work.slab, work.left[g], work.shifts[g], work.sums[g]
        panels = len(left)
        top, first, across = g * panels, start_row + g * GROUP, len(columns.panels)
        keep = slab.shape[1] == across
        pack_left(rows, first, left)
        pack_guide(guide, g, first)
        shifts[:] = 1
        sums[:] = 0 if plan.bounded else -np.inf
        for sweep in range(0 if plan.bounded else -1, 1):  # pass −1 finds the row maxima
            for begin in range(0, across, plan.block):
                end = min(begin + plan.block, across)
                origin = 0 if keep else begin
                if sweep < 0 or plan.bounded:
                    _score(g, begin, end, origin, first, columns, mask, guide, treatment, work, plan)
                if sweep < 0:
                    raise_maxima(slab, top, panels, begin, end, sums)
                    continue
                visit_block(
                    slab, top, panels, begin, end, origin, first, shifts, treatment, mask, sums, work.flags[g]
                )
                visit_whole(treatment, slab, top, panels, begin, end, origin, first, own)
                if is_separable(treatment):
                    narrow_weights(slab, work.weights, top, panels, begin, end, origin)
                    if len(work.to_rows) > 0:
                        at = first // slab.shape[2]
                        sums_of = work.to_rows[at : at + panels]
                        add_weighted_columns(work.weights, top, begin, end, origin, columns.strips, sums_of)
            if sweep < 0:
                row_maxima(sums, shifts)
        close_rows(first, shifts, sums, treatment, own, to)
        if not is_separable(treatment) and keep:
            for begin in range(0, across, plan.block):
                end = min(begin + plan.block, across)
                weigh_block(slab, top, panels, begin, end, first, shifts, treatment, to)
                narrow_weights(slab, work.weights, top, panels, begin, end, 0)
                if len(work.to_rows) > 0:
                    at = first // slab.shape[2]
                    sums_of = work.to_rows[at : at + panels]
                    add_weighted_columns(work.weights, top, begin, end, 0, columns.strips, sums_of)
        if len(work.to_columns) > 0:
            shares = to.first if is_separable(treatment) else to.first[:0]
            pack_strips(rows, shares, start_row, g * GROUP, (g + 1) * GROUP, work.strips)


@kernel
def _columns(start, stop, weights, strips, sums, first):
    """Phase 2 for the column panels [start, stop) of a slab; `first` rows are in earlier slabs."""
    for j in range(start, stop):
        add_weighted_rows(weights, j, strips, sums, first)


_launch_groups, _launch_columns = _groups.launch, _columns.launch
launch_columns = _launch_columns


@njit
def _score(g, begin, end, origin, first, columns, mask, guide, treatment, work, plan):
    """Masked scores of group g, the rows from `first` on, with a block of columns."""
    left = work.left[g]
    top = g * len(left)
    chunk = CHUNK if plan.bounded else FINE_CHUNK
    score_block(left, columns.panels, begin, end, work.slab, top, origin, chunk)
    mask_by_guide(guide, g, work.slab, top, begin, end, origin, first)
    mask_block(work.slab, top, len(left), begin, end, origin, first, mask, not knows_equal(treatment))


@body
def visit_block(slab, top, panels, begin, end, origin, first, shifts, treatment, mask, sums, flags):
    """Replace each score by its kept value, and add its addends lane by lane; sums (1 or 2, P, MR, NR)."""
    visit_lines(treatment, slab, top, panels, begin, end, origin, first, shifts, mask, sums, flags)


def visit_lines(treatment, slab, top, panels, begin, end, origin, first, shifts, mask, sums, flags):
    """The loops of `visit_block`, with one version for each form of treatment.

    Without ids, a tile is one loop, over as many shifts and sums. With a loop for each row, constants were loaded,
    and written to the stack, for each row again: it took twice as long in float64, and in float32 up to four times
    as long in some processes, by the alignment of the stack. The length of the loop is not constant, because the
    compiler would unroll it.
    """
    return _lines(type(treatment))(treatment, slab, top, panels, begin, end, origin, first, shifts, mask, sums, flags)


def _lines(cls):
    if _in_blocks(cls):
        return _no_lines
    if cls.EQUAL:
        return _lines_of_two_knowing_ids if cls.SUMS == 2 else _lines_of_one_knowing_ids
    return _lines_of_two if cls.SUMS == 2 else _lines_of_one


def _no_lines(treatment, slab, top, panels, begin, end, origin, first, shifts, mask, sums, flags):
    pass


def _lines_of_one(treatment, slab, top, panels, begin, end, origin, first, shifts, mask, sums, flags):
    _lines_of_one_alone(treatment, slab, top, panels, begin, end, origin, shifts, sums)


def _lines_of_two(treatment, slab, top, panels, begin, end, origin, first, shifts, mask, sums, flags):
    _lines_of_two_alone(treatment, slab, top, panels, begin, end, origin, shifts, sums)


def _lines_of_one_knowing_ids(treatment, slab, top, panels, begin, end, origin, first, shifts, mask, sums, flags):
    if len(mask.ids) == 0:
        _lines_of_one_alone(treatment, slab, top, panels, begin, end, origin, shifts, sums)
        return
    for p in range(panels):
        for j in range(begin, end):
            for r in range(slab.shape[2]):
                shift = shifts[p, r, 0]
                equal_ids(mask, first + p * slab.shape[2] + r, j, nr(slab), flags)
                for q in range(nr(slab)):
                    kept, addend = visit(treatment, slab[top + p, j - origin, r, q], shift, flags[q] != 0)
                    slab[top + p, j - origin, r, q] = kept
                    sums[0, p, r, q] += addend


def _lines_of_two_knowing_ids(treatment, slab, top, panels, begin, end, origin, first, shifts, mask, sums, flags):
    if len(mask.ids) == 0:
        _lines_of_two_alone(treatment, slab, top, panels, begin, end, origin, shifts, sums)
        return
    for p in range(panels):
        for j in range(begin, end):
            for r in range(slab.shape[2]):
                shift = shifts[p, r, 0]
                i = min(first + p * slab.shape[2] + r, len(mask.row_ids) - 1)
                if mask.row_ids.shape[1] == 1 and len(mask.ids) == 1:
                    known, line = mask.row_ids[i, 0], mask.ids[0, j * nr(slab) : (j + 1) * nr(slab)]
                    for q in range(nr(slab)):
                        s = slab[top + p, j - origin, r, q]
                        kept, addend, second = visit(treatment, s, shift, (line[q] == known) & (s > -np.inf))
                        slab[top + p, j - origin, r, q] = kept
                        sums[0, p, r, q] += addend
                        sums[1, p, r, q] += second
                    continue
                equal_ids(mask, first + p * slab.shape[2] + r, j, nr(slab), flags)
                for q in range(nr(slab)):
                    kept, addend, second = visit(treatment, slab[top + p, j - origin, r, q], shift, flags[q] != 0)
                    slab[top + p, j - origin, r, q] = kept
                    sums[0, p, r, q] += addend
                    sums[1, p, r, q] += second


@njit
def _lines_of_one_alone(treatment, slab, top, panels, begin, end, origin, shifts, sums):
    scores, shift, total = _tiles(slab), _tiles(shifts), _tiles(sums)
    for p in range(panels):
        for j in range(begin - origin, end - origin):
            for e in range(scores.shape[2]):
                kept, addend = visit(treatment, scores[top + p, j, e], shift[0, p, e], False)
                scores[top + p, j, e] = kept
                total[0, p, e] += addend


@njit
def _lines_of_two_alone(treatment, slab, top, panels, begin, end, origin, shifts, sums):
    scores, shift, total = _tiles(slab), _tiles(shifts), _tiles(sums)
    for p in range(panels):
        for j in range(begin - origin, end - origin):
            for e in range(scores.shape[2]):
                kept, addend, second = visit(treatment, scores[top + p, j, e], shift[0, p, e], False)
                scores[top + p, j, e] = kept
                total[0, p, e] += addend
                total[1, p, e] += second


@njit
def _tiles(array):
    """A view (…, MR · NR) with three axes of an array (…, MR, NR)."""
    size = array.shape[-2] * array.shape[-1]
    return array.reshape((-1, array.shape[-3], size))


@overload(visit_lines)
def _visit_lines(treatment, slab, top, panels, begin, end, origin, first, shifts, mask, sums, flags):
    return _lines(treatment.instance_class)


def _in_blocks(cls):
    return getattr(cls, "BLOCKS", False)


def visit_whole(treatment, slab, top, panels, begin, end, origin, first, own):
    """`visit_scores` of a treatment with BLOCKS."""
    _whole(type(treatment))(treatment, slab, top, panels, begin, end, origin, first, own)


def _whole(cls):
    return _all_scores if _in_blocks(cls) else _no_scores


def _all_scores(treatment, slab, top, panels, begin, end, origin, first, own):
    visit_scores(treatment, slab, top, panels, begin, end, origin, first, own)


def _no_scores(treatment, slab, top, panels, begin, end, origin, first, own):
    pass


@overload(visit_whole)
def _visit_whole(treatment, slab, top, panels, begin, end, origin, first, own):
    return _whole(treatment.instance_class)


def finish_rows(treatment, threads, slab, first, own, to):
    """`finish_slab` of a treatment with BLOCKS."""
    _finishing(type(treatment))(treatment, threads, slab, first, own, to)


def _finishing(cls):
    return _finish if _in_blocks(cls) else _no_finish


def _finish(treatment, threads, slab, first, own, to):
    finish_slab(treatment, threads, slab, first, own, to)


def _no_finish(treatment, threads, slab, first, own, to):
    pass


@overload(finish_rows)
def _finish_rows(treatment, threads, slab, first, own, to):
    return _finishing(treatment.instance_class)


def is_separable(treatment: Any) -> bool:
    """Whether dL/ds is a coefficient of the row times the kept value; a constant of the compiled code."""
    return type(treatment).SEPARABLE


@overload(is_separable)
def _is_separable(treatment):
    separable = treatment.instance_class.SEPARABLE
    return lambda treatment: separable


def knows_equal(treatment: Any) -> bool:
    """Whether the treatment is told which pairs share an id; a constant of the compiled code."""
    return type(treatment).EQUAL


@overload(knows_equal)
def _knows_equal(treatment):
    equal = treatment.instance_class.EQUAL
    return lambda treatment: equal


@body
def raise_maxima(slab, top, panels, begin, end, lanes):
    """lanes[0, p, r, q] = largest score so far in lane q of row r of panel p; lanes (…, P, MR, NR)."""
    for p in range(panels):
        for j in range(begin, end):
            for r in range(mr(slab)):
                for q in range(nr(slab)):
                    value = slab[top + p, j, r, q]
                    lanes[0, p, r, q] = value if value > lanes[0, p, r, q] else lanes[0, p, r, q]


@body
def row_maxima(lanes, shifts):
    """shifts[p, r] = maximum over the lanes, or 0 if all are −inf, because −inf − (−inf) is NaN; sets lanes to 0.

    Shapes: lanes (…, P, MR, NR), shifts (P, MR, NR).
    """
    for p in range(len(shifts)):
        for r in range(shifts.shape[1]):
            value = lanes[0, p, r, 0]
            for q in range(lanes.shape[3]):
                value = max(value, lanes[0, p, r, q])
            shifts[p, r, :] = value if value > -np.inf else 0
    lanes[:] = 0


@body
def close_rows(first, shifts, sums, treatment, own, to):
    """`close` for the rows of a group, without the padding; shifts (P, MR, NR), sums (1 or 2, P, MR, NR)."""
    height = shifts.shape[1]
    for i in range(first, min(first + GROUP, len(to.losses))):
        p, r = (i - first) // height, (i - first) % height
        total, second = 0.0, 0.0
        for q in range(sums.shape[3]):
            total += sums[0, p, r, q]
        if len(sums) > 1:
            for q in range(sums.shape[3]):
                second += sums[1, p, r, q]
        close(treatment, i, shifts[p, r, 0], total, second, own, to)


@body
def weigh_block(slab, top, panels, begin, end, first, shifts, treatment, to):
    """Replace each kept value by its weight dL/ds; padding rows get 0."""
    weigh_lines(treatment, slab, top, panels, begin, end, first, shifts, to)


def weigh_lines(treatment, slab, top, panels, begin, end, first, shifts, to):
    """The loops of `weigh_block`; separable treatments have none."""
    return _weighing(type(treatment))(treatment, slab, top, panels, begin, end, first, shifts, to)


def _weighing(cls):
    return _no_weights if cls.SEPARABLE else _weights


def _no_weights(treatment, slab, top, panels, begin, end, first, shifts, to):
    pass


def _weights(treatment, slab, top, panels, begin, end, first, shifts, to):
    for p in range(panels):
        for r in range(slab.shape[2]):
            i = first + p * slab.shape[2] + r
            exists = i < len(to.first)
            one = slab.dtype.type(to.first[i] if exists else 0.0)
            two = slab.dtype.type(to.second[i] if exists else 0.0)
            shift = shifts[p, r, 0]
            for j in range(begin, end):
                for q in range(nr(slab)):
                    slab[top + p, j, r, q] = weigh(treatment, slab[top + p, j, r, q], shift, one, two)


@overload(weigh_lines)
def _weigh_lines(treatment, slab, top, panels, begin, end, first, shifts, to):
    return _weighing(treatment.instance_class)
