"""The sweep over all rows and columns, for any treatment: allocates arrays and runs the kernels."""

from typing import Any, NamedTuple

import numpy as np

from rvtrain._engine import _blocks as blocks
from rvtrain._engine import _sweep_kernels as kernels
from rvtrain._engine._blocks import Rows
from rvtrain._engine._layout import Layout
from rvtrain._engine._mask import Guide, Mask
from rvtrain._engine._scratch import Scratch
from rvtrain._engine._treatment import Results
from rvtrain._kernels._threads import thread_count


class Sums(NamedTuple):
    """Results of a sweep. Arrays belong to the caller, except the two sums, which are scratch."""

    losses: np.ndarray
    """(n,) float64"""
    slopes: np.ndarray
    """(n,) float64: dL/ds⁺ of the own positive"""
    shares: np.ndarray
    """(n,) float64: factors by which to_rows has still to be multiplied, or empty"""
    second: np.ndarray
    """(n,) float64: the second coefficient of `close`"""
    to_rows: np.ndarray | None
    """(≥ n, d padded): with the shares, the gradient to the unit rows"""
    to_columns: np.ndarray | None
    """(≥ m, d padded): the gradient to the unit columns"""


def sweep(
    rows: Rows,
    columns: Rows,
    treatment: Any,
    mask: Mask,
    own: Any,
    scratch: Scratch,
    *,
    guide: tuple[Rows, Rows, np.ndarray] | None = None,
    bounded: bool = True,
    to_rows: bool = False,
    to_columns: bool = False,
) -> Sums:
    """Score every row against every column, and sum the treatment's addends over the columns.

    Parameters
    ----------
    rows, columns : Rows of (n, d) and (m, d)
    treatment : named tuple with the functions of `_treatment.py`
    mask : Mask, from `masked`
    own : Own of the n rows; with BLOCKS, a named tuple of any class
    scratch : Scratch
        Holds the sums: they are valid until the call of the engine ends.
    guide : (Rows of (n, g), Rows of (m, g), limits (n,)), optional
        Pairs whose cosine under the guide exceeds the row's limit are masked.
    bounded : bool
        Whether the treatment's exponents stay in range relative to score 1. Otherwise they are relative to the row
        maximum: then scores are kept until it is known, and their products are summed in finer chunks.
    to_rows, to_columns : bool
        Whether to compute the sums for the gradients to the rows and to the columns.
    """
    count, dim = rows.x.shape
    dtype = rows.x.dtype
    layout = Layout(dim, dtype)
    across = layout.panels(len(columns.x))
    separable = type(treatment).SEPARABLE
    keep = to_columns or not bounded or (to_rows and not separable)
    height = layout.slab_rows(across, count, thread_count())
    packed = pack(columns, layout, scratch, strips=to_rows)
    chosen = _guide(guide, dtype, scratch)
    work = kernels_work(layout, height, across if keep else min(layout.block, across), scratch, type(treatment).SUMS)
    if len(chosen.x):
        work = _with_guide(work, chosen, layout, min(layout.block, across), scratch)
    work = with_sums(work, layout, count, across, scratch, to_rows=to_rows, to_columns=to_columns)
    results = Results(*np.empty((4, count)))
    plan = kernels.Plan(layout.block, bounded)
    kernels.sweep_all.sized(count * len(columns.x) * dim)(
        rows, packed, mask, chosen, treatment, own, results, work, plan
    )
    return Sums(
        results.losses,
        results.slopes,
        results.first if separable else kernels.NO_SHARES,
        results.second,
        work.to_rows.reshape(-1, work.to_rows.shape[2]) if to_rows else None,
        work.to_columns if to_columns else None,
    )


def masked(
    rows: int,
    columns: int,
    dtype: np.dtype,
    *,
    diagonals: Any = (),
    row_ids: np.ndarray | None = None,
    column_ids: np.ndarray | None = None,
    limits: np.ndarray | None = None,
    bias: np.ndarray | None = None,
) -> Mask:
    """A mask for `rows` rows and `columns` columns.

    Ids (n, r) and (m, c) that do not fit in 31 bits are replaced by codes that do.
    """
    padded = Layout(1, dtype).padded(columns)
    codes: np.ndarray = np.empty((0, padded), np.int32)
    row_codes: np.ndarray = np.empty((rows, 0), np.int32)
    if row_ids is not None and column_ids is not None and row_ids.size and column_ids.size:
        codes = np.full((column_ids.shape[1], padded), -1, np.int32)
        code = np.concatenate([row_ids.ravel(), column_ids.ravel()])
        if code.min() < 0 or code.max() > np.iinfo(np.int32).max:
            _, code = np.unique(code, return_inverse=True)
        row_codes = code[: row_ids.size].reshape(row_ids.shape).astype(np.int32)
        codes[:, :columns] = code[row_ids.size :].reshape(column_ids.shape).T
    offsets = np.zeros(0 if bias is None else padded, dtype)
    offsets[:columns] = 0.0 if bias is None else bias
    return Mask(
        rows,
        columns,
        np.array(diagonals, np.int64),
        row_codes,
        codes,
        np.empty(0, dtype) if limits is None else limits.astype(dtype),
        offsets,
    )


def pack(columns: Rows, layout: Layout, scratch: Scratch, *, strips: bool) -> kernels.Columns:
    """Both packed copies of the columns; strips, which only gradients to the rows need, are optional."""
    count = len(columns.x)
    panels = scratch.array(layout.panels_shape(count), layout.dtype)
    shape = layout.strips_shape(count)
    packed = scratch.array(shape if strips else (0, shape[1]), layout.dtype)
    blocks.pack_columns.sized(4 * columns.x.size)(len(panels), columns, panels, packed)
    return kernels.Columns(panels, packed)


def kernels_work(layout: Layout, height: int, across: int, scratch: Scratch, sums: int) -> kernels.Work:
    """Scratch for slabs of `height` rows and `across` column panels, without arrays for a guide and for sums."""
    high, wide, dtype = layout.mr, layout.nr, layout.dtype
    groups, panels = height // blocks.GROUP, blocks.GROUP // high
    none = np.empty((0, 0), dtype)
    return kernels.Work(
        scratch.array((height // high, across, high, wide), dtype),
        scratch.array((groups, panels, layout.dim, high), dtype),
        scratch.array((groups, panels, high), dtype),
        scratch.array((groups, sums, panels, high, wide), dtype),
        scratch.array((groups, wide), np.int32),
        none.reshape(0, panels, 0, high),
        none.reshape(0, panels, 0, high, wide),
        none,
        none.reshape(0, high, 0),
        none,
    )


def with_sums(
    work: kernels.Work, layout: Layout, rows: int, across: int, scratch: Scratch, *, to_rows: bool, to_columns: bool
) -> kernels.Work:
    """`work` with arrays for the wanted sums, for `count` rows and `across` column panels."""
    high, dtype = layout.mr, layout.dtype
    height = len(work.slab) * high
    if to_rows:
        slabs = blocks.tiles(rows, height)
        work = work._replace(to_rows=scratch.array((slabs * height // high, high, layout.padded_dim), dtype))
    if to_columns:
        work = work._replace(
            to_columns=scratch.array((across * layout.nr, layout.padded_dim), dtype),
            strips=scratch.array((layout.padded_dim, height), dtype),
        )
    return work


def _guide(guide: tuple[Rows, Rows, np.ndarray] | None, dtype: np.dtype, scratch: Scratch) -> Guide:
    if guide is None:
        none = np.empty((0, 0), dtype)
        return Guide(none, np.empty(0), none.reshape(0, 0, 0), np.empty(0, dtype))
    rows, columns, limits = guide
    panels = pack(columns, Layout(columns.x.shape[1], dtype), scratch, strips=False).panels
    return Guide(rows.x, rows.inverse, panels, limits.astype(dtype))


def _with_guide(work: kernels.Work, guide: Guide, layout: Layout, block: int, scratch: Scratch) -> kernels.Work:
    groups, panels, _, high = work.left.shape
    return work._replace(
        guide_left=scratch.array((groups, panels, guide.x.shape[1], high), layout.dtype),
        guide_scores=scratch.array((groups, panels, block, high, layout.nr), layout.dtype),
    )
