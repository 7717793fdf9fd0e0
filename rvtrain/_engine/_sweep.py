"""The sweep over all rows and columns, for any treatment: allocates arrays and runs the kernels."""

import functools
from typing import Any, NamedTuple

import numpy as np

from rvtrain._engine import _blocks as blocks
from rvtrain._engine import _sweep_kernels as kernels
from rvtrain._engine._bfloat16 import Operand
from rvtrain._engine._blocks import Rows
from rvtrain._engine._guide import Guide, NoGuide
from rvtrain._engine._layout import Layout
from rvtrain._engine._mask import Mask
from rvtrain._engine._precision import operand_for
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
    precision: str | None = None,
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
    precision : {"highest", "high", "medium"}, optional
        Of the products; None: that of `set_float32_precision`.
    """
    (count, dim), wide, dtype = rows.x.shape, len(columns.x), rows.x.dtype
    operand = None if getattr(treatment, "BLOCKS", False) else operand_for(precision, dtype)
    layout, separable = Layout(dim, dtype, operand), type(treatment).SEPARABLE
    across = layout.panels(wide)
    keep = to_columns or not bounded or (to_rows and not separable)
    room = Room(
        count,
        wide,
        dim,
        dtype,
        layout.slab_rows(across, count, thread_count()),
        across if keep else min(layout.block, across),
        type(treatment).SUMS,
        to_rows,
        to_columns,
        layout.operand,
    )
    packed, work = scratch.once(room, arrays)
    pack(columns, packed)
    results = Results(*np.empty((4, count)))
    kernels.sweep_all.sized(count * wide * dim)(
        rows,
        packed,
        mask,
        NoGuide() if guide is None else _packed(*guide, room, scratch),
        treatment,
        own,
        results,
        work,
        kernels.Plan(layout.block, bounded),
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
    plain = _plain_mask(rows, columns, dtype, tuple(diagonals))
    if limits is not None:
        plain = plain._replace(limits=limits.astype(dtype))
    padded = plain.ids.shape[1]
    if bias is not None:
        offsets = np.zeros(padded, dtype)
        offsets[:columns] = bias
        plain = plain._replace(bias=offsets)
    if row_ids is None or column_ids is None or not row_ids.size or not column_ids.size:
        return plain
    code = np.concatenate([row_ids.ravel(), column_ids.ravel()])
    if code.min() < 0 or code.max() > np.iinfo(np.int32).max:
        _, code = np.unique(code, return_inverse=True)
    codes = np.full((column_ids.shape[1], padded), -1, np.int32)
    codes[:, :columns] = code[row_ids.size :].reshape(column_ids.shape).T
    return plain._replace(row_ids=code[: row_ids.size].reshape(row_ids.shape).astype(np.int32), ids=codes)


@functools.lru_cache(maxsize=64)
def _plain_mask(rows: int, columns: int, dtype: np.dtype, diagonals: tuple[int, ...]) -> Mask:
    """A mask of diagonals alone; kept, because making its arrays takes as long as a small sweep."""
    none, padded = np.empty(0, dtype), Layout(1, dtype).padded(columns)
    ids = np.empty((rows, 0), np.int32), np.empty((0, padded), np.int32)
    return Mask(rows, columns, np.array(diagonals, np.int64), *ids, none, none)


def pack(columns: Rows, packed: kernels.Columns) -> None:
    """Write both packed copies of the columns, or the panels alone where the strips are empty."""
    blocks.pack_columns.sized(4 * columns.x.size)(len(packed.panels), columns, *packed)


class Room(NamedTuple):
    """All that the shapes of a sweep's scratch arrays depend on."""

    rows: int
    columns: int
    dim: int
    dtype: np.dtype
    height: int
    """Rows of a slab."""
    across: int
    """Column panels of a slab."""
    sums: int
    """Addends per score."""
    to_rows: bool
    to_columns: bool
    operand: Operand
    """Of the packed copies."""


def arrays(room: Room, scratch: Scratch) -> tuple[kernels.Columns, kernels.Work]:
    """Scratch arrays of a sweep: the packed columns, and the slab with its sums."""
    layout, count, dtype = Layout(room.dim, room.dtype, room.operand), room.columns, room.dtype
    high, wide, padded = layout.mr, layout.nr, layout.padded_dim
    groups, panels, across = room.height // blocks.GROUP, blocks.GROUP // high, layout.panels(count)
    packed_type, split = room.operand
    slabs = blocks.tiles(room.rows, room.height)

    def array(*shape: int, wanted: bool = True, of: Any = dtype) -> np.ndarray:
        return scratch.array(shape if wanted else (0, *shape[1:]), of)

    packed = kernels.Columns(
        array(*layout.panels_shape(count), of=packed_type),
        array(*layout.strips_shape(count), wanted=room.to_rows, of=packed_type),
    )
    slab = array(room.height // high, room.across, high, wide)
    work = kernels.Work(
        slab=slab,
        weights=array(len(slab), room.across, 2 * high, wide, of=packed_type) if split else slab.view(packed_type),
        left=array(groups, panels, layout.depth, high, of=packed_type),
        shifts=array(groups, panels, high, wide),
        sums=array(groups, room.sums, panels, high, wide),
        flags=scratch.array((groups, wide), np.int32),
        strips=array(*layout.strips_of(room.height), wanted=room.to_columns, of=packed_type),
        to_rows=array(slabs * room.height // high, high, padded, wanted=room.to_rows),
        to_columns=array(across * wide, padded, wanted=room.to_columns),
    )
    return packed, work


def _packed(rows: Rows, columns: Rows, limits: np.ndarray, room: Room, scratch: Scratch) -> Guide:
    """A guide for a sweep with that room."""
    length, dtype = rows.x.shape[1], room.dtype
    layout = Layout(room.dim, dtype)
    groups, high = room.height // blocks.GROUP, layout.mr
    panels = scratch.array((layout.panels(room.columns), length, layout.nr), dtype)
    pack(columns, kernels.Columns(panels, np.empty((0, 0), dtype)))
    return Guide(
        rows,
        panels,
        limits.astype(dtype),
        scratch.array((groups, blocks.GROUP // high, length, high), dtype),
        scratch.array((groups, blocks.GROUP // high, min(layout.block, len(panels)), high, layout.nr), dtype),
    )
