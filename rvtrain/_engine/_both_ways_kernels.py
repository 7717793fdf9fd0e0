"""Two sweeps for a loss of rows and of columns, from the same kept values of a separable treatment.

# Design: the first sweep sums the kept values by row and by column. Between the sweeps, `close` turns both kinds of
# sums into losses and shares (here a cluster would add up the column sums of its members). The second sweep
# multiplies each kept value by the share of its row plus the share of its column. If one slab holds all scores, the
# second sweep finds the kept values there; otherwise it computes them again.
"""

from rvtrain._engine._blocks import CHUNK, GROUP, pack_strips
from rvtrain._engine._mask import mask_block
from rvtrain._engine._operands import add_weighted_columns, narrow_weights, pack_left, score_block
from rvtrain._engine._sweep_kernels import close_rows, groups_of, launch_columns, visit_block
from rvtrain._engine._tile import mr, nr
from rvtrain._engine._treatment import close
from rvtrain._kernels import body, driver, kernel, njit


@driver
def sum_both_ways(threads, rows, columns, mask, treatment, own, to, work, by_group, column_sums, block):
    """First sweep: the results of the rows, and column_sums[j] = Σ of the kept values of column j; (m padded,).

    by_group (groups, m / NR, NR) is scratch.
    """
    height = len(work.slab) * mr(work.slab)
    for first in range(0, len(rows.x), height):
        groups = groups_of(first, len(rows.x), height)
        _launch_sums(threads, groups, rows, first, columns, mask, treatment, own, to, work, by_group, block)
        _launch_add(threads, len(columns.panels), groups, by_group, column_sums)


@kernel
def _sums(start, stop, rows, start_row, columns, mask, treatment, own, to, work, by_group, block):
    for g in range(start, stop):
        slab, left, shifts, sums = work.slab, work.left[g], work.shifts[g], work.sums[g]
        panels = len(left)
        top, first, across = g * panels, start_row + g * GROUP, len(columns.panels)
        keep = slab.shape[1] == across
        pack_left(rows, first, left)
        shifts[:] = 1
        sums[:] = 0
        for begin in range(0, across, block):
            end = min(begin + block, across)
            origin = 0 if keep else begin
            score_block(left, columns.panels, begin, end, slab, top, origin, CHUNK)
            mask_block(slab, top, panels, begin, end, origin, first, mask, True)
            visit_block(slab, top, panels, begin, end, origin, first, shifts, treatment, mask, sums, work.flags[g])
            add_up_columns(slab, top, panels, begin, end, origin, by_group[g])
        close_rows(first, shifts, sums, treatment, own, to)


@njit
def add_up_columns(slab, top, panels, begin, end, origin, by_column):
    """by_column[j, q] = sum of the values of a group of rows in column j · NR + q."""
    by_column[begin:end] = 0
    for j in range(begin, end):
        for p in range(top, top + panels):
            for r in range(mr(slab)):
                for q in range(nr(slab)):
                    by_column[j, q] += slab[p, j - origin, r, q]


@kernel
def _add(start, stop, groups, by_group, column_sums):
    """Add the sums of the groups, in order, to the sums of the columns in panels [start, stop)."""
    for j in range(start, stop):
        for g in range(groups):
            for q in range(by_group.shape[2]):
                column_sums[j * by_group.shape[2] + q] += by_group[g, j, q]


@driver
def weigh_both_ways(threads, rows, columns, mask, treatment, shares, work, block, kept):
    """Second sweep: the sums to rows and to columns, with weights kept_ij · (row share i + column share j).

    shares (2, m padded) float64: of the rows, of the columns. kept: whether the slab has the kept values of all rows.
    """
    height = len(work.slab) * mr(work.slab)
    for first in range(0, len(rows.x), height):
        groups = groups_of(first, len(rows.x), height)
        _launch_weights(threads, groups, rows, first, columns, mask, treatment, shares, work, block, kept)
        weights = work.weights[: groups * (GROUP // mr(work.slab))]
        launch_columns(threads, len(work.to_columns) // nr(work.slab), weights, work.strips, work.to_columns, first)


@kernel
def _weights(start, stop, rows, start_row, columns, mask, treatment, shares, work, block, kept):
    for g in range(start, stop):
        slab, left, shifts, sums = work.slab, work.left[g], work.shifts[g], work.sums[g]
        panels = len(left)
        top, first, across = g * panels, start_row + g * GROUP, len(columns.panels)
        if not kept:
            pack_left(rows, first, left)
        for begin in range(0, across, block):
            end = min(begin + block, across)
            if not kept:
                score_block(left, columns.panels, begin, end, slab, top, 0, CHUNK)
                mask_block(slab, top, panels, begin, end, 0, first, mask, True)
                visit_block(slab, top, panels, begin, end, 0, first, shifts, treatment, mask, sums, work.flags[g])
            share_block(slab, top, panels, begin, end, first, shares)
            narrow_weights(slab, work.weights, top, panels, begin, end, 0)
            if len(work.to_rows) > 0:
                at = first // slab.shape[2]
                to = work.to_rows[at : at + panels]
                add_weighted_columns(work.weights, top, begin, end, 0, columns.strips, to)
        if len(work.to_columns) > 0:
            pack_strips(rows, rows.inverse[:0], start_row, g * GROUP, (g + 1) * GROUP, work.strips)


@body
def share_block(slab, top, panels, begin, end, first, shares):
    """slab[i, j] *= shares[0, i] + shares[1, j]; padding rows already hold zeros."""
    height, width = mr(slab), nr(slab)
    for p in range(panels):
        for r in range(height):
            i = min(first + p * height + r, shares.shape[1] - 1)
            row_share = slab.dtype.type(shares[0, i])
            for j in range(begin, end):
                for q in range(width):
                    slab[top + p, j, r, q] *= row_share + slab.dtype.type(shares[1, j * width + q])


@kernel
def close_columns(start, stop, treatment, sums, own, to):
    """`close` for columns [start, stop), whose kept values are relative to score 1; sums (≥ n,)."""
    for i in range(start, stop):
        close(treatment, i, 1.0, sums[i], 0.0, own, to)


_launch_sums, _launch_add, _launch_weights = _sums.launch, _add.launch, _weights.launch
