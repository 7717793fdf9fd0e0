"""The sweep of all ranks' rows over all ranks' columns.

# Design: each rank scores its own rows against all columns. That gives the results of its rows, and for every column
# the sum over this rank's rows. A rank needs the sums over all rows for its own columns only, so each pair of ranks
# exchanges the sums of their columns once, in all O(columns · d) numbers for each rank. The other way, in which each
# rank scores all rows against its columns a second time, exchanges row sums alone, but takes 4 products instead of 3.
#
# A sum of floating-point numbers depends on its order. Therefore the batch is cut into SEGMENTS of rows, whatever the
# number of ranks. The sums of the segments are added in pairs, then pairs of pairs, and so on: a tree. With 1, 2, 4
# or 8 ranks, a rank holds a complete branch of the tree, so all these numbers of ranks give the same bits.
"""

from typing import Any

import numpy as np

from rvtrain._engine._blocks import Rows
from rvtrain._engine._mask import Mask
from rvtrain._engine._scratch import Scratch, scratch
from rvtrain._engine._sweep import Sums, sweep
from rvtrain._engine._treatment import Own
from rvtrain.distributed._batch import GlobalBatch
from rvtrain.distributed._ranks import Ranks


def sweep_of_ranks(
    batch: GlobalBatch,
    parts: list[np.ndarray],
    rows: Rows,
    columns: Rows,
    treatment: Any,
    mask: Mask,
    own: Own,
    memory: Scratch,
    *,
    guide: tuple[Rows, Rows, np.ndarray] | None = None,
    bounded: bool = True,
    to_rows: bool = False,
    to_columns: bool = False,
    precision: str | None = None,
) -> Sums:
    """`sweep` of this rank's rows over the columns of all ranks.

    Parameters
    ----------
    parts : list of arrays (ranks,) int64
        The columns are inputs, one after the other: the number of rows of each input on each rank.
    rows : Rows of this rank, (n, d)
    columns : Rows of all ranks, (m, d)

    Returns
    -------
    Sums
        As of `sweep`. The sums to the columns are over the rows of all ranks, but only for this rank's columns of
        each input, one input after the other.
    """
    (count, dim), dtype = rows.x.shape, rows.x.dtype
    pieces = batch.pieces
    results = np.empty((4, count))
    to_mine = memory.array((count, dim), dtype) if to_rows else None
    separable, tree = type(treatment).SEPARABLE, Tree(memory)
    for start, stop in zip(pieces[:-1].tolist(), pieces[1:].tolist(), strict=True):
        here = slice(start, stop)
        with scratch() as again:  # the same memory for every segment
            result = sweep(
                part_of_rows(rows, here),
                columns,
                treatment,
                part_of_mask(mask, here),
                Own(*(x[here] for x in own)),
                again,
                guide=None if guide is None else (part_of_rows(guide[0], here), guide[1], guide[2][here]),
                bounded=bounded,
                to_rows=to_rows,
                to_columns=to_columns,
                precision=precision,
            )
            for out, each in zip(results, (result.losses, result.slopes, result.second), strict=False):
                out[here] = each
            if separable:
                results[3, here] = result.shares
            if to_mine is not None:
                assert result.to_rows is not None
                to_mine[here] = result.to_rows[: stop - start, :dim]
            if to_columns:
                assert result.to_columns is not None
                tree.add(result.to_columns[: len(columns.x), :dim])
    received = exchanged(batch, parts, tree.total(), memory) if to_columns else None
    return Sums(results[0], results[1], results[3] if separable else np.empty(0), results[2], to_mine, received)


def part_of_mask(mask: Mask, here: slice) -> Mask:
    """The mask of some of its rows."""
    return mask._replace(
        rows=here.stop - here.start,
        diagonals=mask.diagonals + here.start,
        row_ids=mask.row_ids[here],
        limits=mask.limits[here],
    )


def part_of_rows(rows: Rows, here: slice) -> Rows:
    """Some of the rows."""
    return Rows(rows.x[here], rows.inverse[here])


class Tree:
    """Adds arrays that come one after the other in pairs, pairs of pairs, and so on; keeps log₂ of their number."""

    def __init__(self, memory: Scratch) -> None:
        self._memory = memory
        self._sums: list[tuple[int, np.ndarray]] = []
        self._free: list[np.ndarray] = []

    def add(self, x: np.ndarray) -> None:
        """Add an array, which is copied where it has to be kept."""
        if not self._sums or self._sums[-1][0] > 0:
            kept = self._free.pop() if self._free else self._memory.array(x.shape, x.dtype)
            kept[:] = x
            self._sums.append((0, kept))
            return
        _, total = self._sums.pop()
        total += x
        height = 1
        while self._sums and self._sums[-1][0] == height:
            self._free.append(total)
            _, left = self._sums.pop()
            left += total
            total, height = left, height + 1
        self._sums.append((height, total))

    def total(self) -> np.ndarray:
        """The sum; the number of arrays was a power of two."""
        ((_, total),) = self._sums
        return total


def exchanged(batch: GlobalBatch, parts: list[np.ndarray], sums: np.ndarray, memory: Scratch) -> np.ndarray:
    """The sums for this rank's columns of each input, over the rows of all ranks."""
    rank, dim, start, found = batch.ranks.rank, sums.shape[1], 0, []
    for counts in parts:
        total, mine = int(counts.sum()), int(counts[rank])
        room = memory.array((batch.ranks.size, mine, dim), sums.dtype)
        found.append(_added(list(batch.ranks.exchanged(sums[start : start + total], counts, room))))
        start += total
    return found[0] if len(found) == 1 else np.concatenate(found)


def total_of_ranks(ranks: Ranks, parts: list[np.ndarray]) -> np.ndarray:
    """The sum of the arrays (n,) of all ranks, in the order of the tree; the arrays are overwritten.

    Each rank adds one part of the sum, and gets the others: 2 n numbers are exchanged, whatever the number of ranks.
    """
    mine = _added(parts)
    counts = np.full(ranks.size, -(-len(mine) // ranks.size))
    padded = np.zeros((int(counts.sum()), 1), mine.dtype)
    padded[: len(mine), 0] = mine
    received = ranks.exchanged(padded, counts, np.empty((ranks.size, int(counts[0]), 1), mine.dtype))
    return ranks.gathered(_added(list(received)), counts)[: len(mine), 0]


def _added(parts: list[np.ndarray]) -> np.ndarray:
    """The sum of the arrays in pairs, pairs of pairs, and so on; the arrays are overwritten."""
    while len(parts) > 1:
        for left, right in zip(parts[::2], parts[1::2], strict=False):
            left += right
        parts = parts[::2]
    return parts[0]
