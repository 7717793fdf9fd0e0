"""The losses of all rows and of all columns, where the batch is that of several ranks."""

from typing import Any

import numpy as np

from rvtrain._engine import _both_ways_kernels as kernels
from rvtrain._engine._blocks import GROUP, Rows
from rvtrain._engine._both_ways import BothWays
from rvtrain._engine._layout import Layout
from rvtrain._engine._mask import Mask
from rvtrain._engine._precision import operand_for
from rvtrain._engine._scratch import Scratch, scratch
from rvtrain._engine._sweep import Room, arrays, pack
from rvtrain._engine._treatment import Own, Results
from rvtrain._kernels._threads import thread_count
from rvtrain.distributed._batch import GlobalBatch
from rvtrain.distributed._sweep import Tree, exchanged, part_of_mask, part_of_rows


def both_ways_of_ranks(
    batch: GlobalBatch,
    parts: list[np.ndarray],
    rows: Rows,
    columns: Rows,
    treatment: Any,
    mask: Mask,
    own: Own,
    memory: Scratch,
    *,
    to_rows: bool = False,
    to_columns: bool = False,
    precision: str | None = None,
) -> BothWays:
    """`both_ways` of this rank's rows with the columns of all ranks, the first of which face the rows.

    Between the sweeps, each rank gets the sums of its columns over the rows of all ranks, and gives all ranks the
    shares of its columns: 2 B numbers. Arguments and order of sums are those of `sweep_of_ranks`.
    """
    (count, dim), wide, dtype = rows.x.shape, len(columns.x), rows.x.dtype
    bounds = batch.pieces
    pieces = [slice(start, stop) for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    most = int(np.diff(bounds).max())
    layout, gradients = Layout(dim, dtype, operand_for(precision, dtype)), to_rows or to_columns
    across, padded = layout.panels(wide), layout.padded(wide)
    height = layout.slab_rows(across, most, thread_count())
    room = Room(
        most,
        wide,
        dim,
        dtype,
        height,
        across if gradients else min(layout.block, across),
        1,
        to_rows,
        to_columns,
        layout.operand,
    )
    losses, slopes, shares = np.empty((2, count)), np.empty((2, count)), np.empty((2, count))
    unused, effort = np.empty(count), most * wide * dim
    to_mine = memory.array((count, dim), dtype) if to_rows else None
    sums, tree = Tree(memory), Tree(memory)
    with scratch() as again:
        packed, work = again.once(room, arrays)
        by_group = again.array((height // GROUP, across, layout.nr), dtype)
        pack(columns, packed)
        for here in pieces:
            there = Results(losses[0, here], slopes[0, here], shares[0, here], unused[here])
            mine, column_sums = Own(*(x[here] for x in own)), np.zeros(padded)
            given = part_of_rows(rows, here), packed, part_of_mask(mask, here), treatment
            kernels.sum_both_ways.sized(effort)(*given, mine, there, work, by_group, column_sums, layout.block)
            sums.add(column_sums)
        facing = exchanged(batch, parts[:1], sums.total()[: int(parts[0].sum()), np.newaxis], memory)[:, 0].copy()
        back = Results(losses[1], slopes[1], shares[1], unused)
        kernels.close_columns.sized(50 * count)(count, treatment, facing, own, back)
        of_both = np.zeros((2, padded))
        if gradients:
            everyones = batch.whole(shares[1])
            of_both[1, : len(everyones)] = everyones
            for here in pieces:
                of_both[0, : here.stop - here.start] = shares[0, here]
                given = part_of_rows(rows, here), packed, part_of_mask(mask, here), treatment
                kept = len(pieces) == 1 and height >= count
                kernels.weigh_both_ways.sized(effort)(*given, of_both, work, layout.block, kept)
                if to_mine is not None:
                    to_mine[here] = work.to_rows.reshape(-1, work.to_rows.shape[2])[: here.stop - here.start, :dim]
                if to_columns:
                    tree.add(work.to_columns[:wide, :dim])
    received = exchanged(batch, parts, tree.total(), memory) if to_columns else None
    return BothWays(losses, slopes, to_mine, received)
