"""The losses of all rows and of all columns, from the same scores."""

from typing import Any, NamedTuple

import numpy as np

from rvtrain._engine import _both_ways_kernels as kernels
from rvtrain._engine._blocks import GROUP, Rows
from rvtrain._engine._layout import Layout
from rvtrain._engine._mask import Mask
from rvtrain._engine._precision import operand_for
from rvtrain._engine._scratch import Scratch
from rvtrain._engine._sweep import Room, arrays, pack
from rvtrain._engine._treatment import Own, Results
from rvtrain._kernels._threads import thread_count


class BothWays(NamedTuple):
    """Results of both directions, in the order rows, columns; the sums are scratch."""

    losses: np.ndarray
    """(2, n) float64"""
    slopes: np.ndarray
    """(2, n) float64"""
    to_rows: np.ndarray | None
    """(≥ n, d padded)"""
    to_columns: np.ndarray | None
    """(≥ m, d padded)"""


def both_ways(
    rows: Rows,
    columns: Rows,
    treatment: Any,
    mask: Mask,
    own: Own,
    scratch: Scratch,
    *,
    to_rows: bool = False,
    to_columns: bool = False,
    precision: str | None = None,
) -> BothWays:
    """The losses of n rows over all m columns, and of the first n columns over all n rows, each with its own sums.

    The treatment has to be separable, and its exponents have to stay in range. Arguments are those of `sweep`.
    """
    (count, dim), wide = rows.x.shape, len(columns.x)
    layout = Layout(dim, rows.x.dtype, operand_for(precision, rows.x.dtype))
    across, gradients = layout.panels(wide), to_rows or to_columns
    height = layout.slab_rows(across, count, thread_count())
    room = Room(
        count,
        wide,
        dim,
        layout.dtype,
        height,
        across if gradients else min(layout.block, across),
        1,
        to_rows,
        to_columns,
        layout.operand,
    )
    packed, work = scratch.once(room, arrays)
    pack(columns, packed)
    padded = layout.padded(wide)
    losses, slopes, shares = np.empty((2, count)), np.empty((2, count)), np.zeros((2, padded))
    unused, column_sums = np.empty(count), np.zeros(padded)
    there, back = (Results(losses[way], slopes[way], shares[way, :count], unused) for way in (0, 1))
    by_group = scratch.array((height // GROUP, across, layout.nr), layout.dtype)
    effort = count * wide * dim
    kernels.sum_both_ways.sized(effort)(
        rows, packed, mask, treatment, own, there, work, by_group, column_sums, layout.block
    )
    kernels.close_columns.sized(50 * count)(count, treatment, column_sums, own, back)
    if gradients:
        kept = height >= count
        kernels.weigh_both_ways.sized(effort)(rows, packed, mask, treatment, shares, work, layout.block, kept)
    return BothWays(
        losses,
        slopes,
        work.to_rows.reshape(-1, work.to_rows.shape[2]) if to_rows else None,
        work.to_columns if to_columns else None,
    )
