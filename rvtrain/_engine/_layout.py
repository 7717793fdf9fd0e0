"""Shapes and blocks of the engine's packed arrays, for vectors of one length and type."""

import functools

import numpy as np

from rvtrain._engine import _blocks as blocks
from rvtrain._engine._amx_blocks import SUMMED
from rvtrain._engine._amx_tile import left_tile
from rvtrain._engine._bfloat16 import TILED, Operand, holds_words, words
from rvtrain._engine._tile import tile_shape
from rvtrain._kernels._caches import cache_sizes

_SLABS_IN_CACHE = 4
"""Share of the third-level cache for the slab: a quarter. Every slab rereads all packed columns, so larger slabs are
faster until they fall out of that cache."""


class Layout:
    """Shapes and block sizes of all packed arrays, for vectors of length d and one type.

    Parameters
    ----------
    dim : int
    dtype : dtype
        Of the vectors and of the sums.
    operand : Operand, optional
        Of packed copies (`operand_for`); None: of the same type.

    Attributes
    ----------
    depth : int
        Elements of a packed row (`packed_depth`).
    mr, nr : int
        Rows and columns of a register tile.
    block : int
        Column panels in a block of columns.
    padded_dim : int
        d, rounded up to whole strips.
    """

    def __init__(self, dim: int, dtype: np.dtype, operand: Operand | None = None) -> None:
        self.dim, self.dtype = dim, np.dtype(dtype)
        self.operand = Operand(self.dtype) if operand is None else operand
        self.depth = packed_depth(dim, self.operand)
        self._tiled = self.operand.dtype == TILED
        self.mr, self.nr, self.block, self.padded_dim = _facts(dim, self.dtype, self.depth, self._tiled)

    def panels(self, count: int) -> int:
        """Column panels of `count` columns."""
        return blocks.tiles(count, self.nr)

    def padded(self, count: int) -> int:
        """`count` columns, rounded up to whole panels."""
        return self.panels(count) * self.nr

    def panels_shape(self, count: int) -> tuple[int, int, int]:
        """Shape of `count` columns packed for scores: (panels, depth, NR)."""
        return self.panels(count), self.depth, self.nr

    def strips_shape(self, count: int) -> tuple[int, int]:
        """Shape of the same columns packed for weighted sums (`strips_of`)."""
        return self.strips_of(self.padded(count))

    def strips_of(self, rows: int) -> tuple[int, int]:
        """Shape of strips of so many rows, an even number: (d padded for each part, rows, half as many in words)."""
        return self.operand.parts * self.padded_dim, rows // 2 if holds_words(self.operand.dtype) else rows

    def slab_rows(self, across: int, count: int, threads: int) -> int:
        """Number of rows in a slab of `across` panels: as many as fit in the cache, but several groups per thread.

        It is at most `count`, the number of rows, rounded up to whole groups.
        """
        per_score = self.dtype.itemsize * (3 if self.operand.split else 1)  # its weight, and the words of both parts
        in_cache = slab_bytes() // (across * self.nr * per_score)
        chunk, group = _chunk(self._tiled), blocks.GROUP
        rows = max(in_cache // chunk * chunk, 2 * chunk, threads * group // chunk * chunk)
        return min(rows, blocks.tiles(count, group) * group)


def slab_bytes() -> int:
    """Size of a slab, unless that is fewer than two chunks of rows or one group for each thread."""
    return cache_sizes().third // _SLABS_IN_CACHE


def packed_depth(dim: int, operand: Operand) -> int:
    """Elements of a packed row of length d: d, in words half of it, and on tile registers whole tiles of words.

    If the operand is split, there are three sections of these.
    """
    if operand.dtype == TILED:
        deep = left_tile(of_panels=True)[1]
        return blocks.tiles(words(dim), deep) * deep * (3 if operand.split else 1)
    return words(dim) if holds_words(operand.dtype) else dim


@functools.lru_cache(maxsize=64)
def _facts(dim: int, dtype: np.dtype, depth: int, tiled: bool) -> tuple[int, int, int, int]:
    mr, nr, _ = tile_shape(dtype)
    padded_dim = blocks.tiles(dim, nr) * nr if tiled else blocks.padded_dim(dim, dtype)
    return mr, nr, blocks.block_panels(depth, dtype, _chunk(tiled)), padded_dim


def _chunk(tiled: bool) -> int:
    """Number of weights that are summed from zero. No sum depends on the size of slabs and blocks of whole chunks."""
    return SUMMED if tiled else blocks.CHUNK
