"""Candidates, block by block: an array in memory or on disk, or an iterable of blocks of rows."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._norms import checked_inverse_norms

Progress = Callable[[int, int | None], object]
"""Called with the number of candidates done so far, and that of all candidates if it is known."""

_BLOCK_BYTES = 1 << 22
"""Size of a block: small beside everything else in memory, large enough to share among threads."""
_CONVERTED_BYTES = 1 << 26
"""Up to this size, rows in memory that are of another type or strided are converted all at once."""


class Candidates:
    """Candidates in blocks of rows in order, converted to one dtype; whether they are finite is not checked here."""

    def __init__(self, name: str, source: Any, dim: int, dtype: np.dtype) -> None:
        self.name, self.source, self.dim, self.dtype = name, source, dim, dtype
        self.size = len(source) if isinstance(source, np.ndarray) else None
        """Number of candidates; that of an iterable is not known before it has been read."""

    @property
    def here(self) -> int | None:
        """Number of those that this process has."""
        return self.size

    @property
    def at_hand(self) -> bool:
        """Whether all rows are in memory as kernels read them, or small enough to be converted at once."""
        if not isinstance(self.source, np.ndarray) or isinstance(self.source, np.memmap):
            return False
        return self._needs_no_copy(self.source) or self.source.size * self.dtype.itemsize <= _CONVERTED_BYTES

    def _needs_no_copy(self, array: np.ndarray) -> bool:
        return array.dtype == self.dtype and array.flags.c_contiguous and not isinstance(array, np.memmap)

    def all_rows(self) -> Rows:
        """All candidates, if they are at hand."""
        x = self._checked(self.source)
        return Rows(x, checked_inverse_norms(self.name, x))

    def rows_at(self, indices: NDArray[np.int64]) -> NDArray[np.floating]:
        """Copies of these rows of an array, in memory or on disk."""
        return np.array(self.source[indices], self.dtype, order="C")

    def by_parts(self, count: int, function: Callable[[slice], NDArray[np.float64]]) -> NDArray[np.float64]:
        """What a function returns for these many numbers, one after the other."""
        return function(slice(0, count))

    def blocks(self, at_once: bool = False) -> Iterator[tuple[int, NDArray[np.floating]]]:
        """(index of the first row, rows) of each block; with `at_once`, an array that needs no copy is one block.

        If rows have to be read, copied or converted, the next block is prepared while this one is used.
        """
        if at_once and isinstance(self.source, np.ndarray) and self._needs_no_copy(self.source):
            yield 0, self._checked(self.source)
            return
        per_block = max(256, _BLOCK_BYTES // (self.dim * self.dtype.itemsize) // 256 * 256)
        if isinstance(self.source, np.ndarray):
            parts = (self.source[start : start + per_block] for start in range(0, len(self.source), per_block))
            pieces, ahead = map(self._checked, parts), not self._needs_no_copy(self.source)
        else:
            pieces, ahead = map(self._checked, self.source), True
        start = 0
        for block in _read_ahead(pieces) if ahead else pieces:
            for first in range(0, len(block), per_block):
                rows = block[first : first + per_block]
                yield start, rows
                start += len(rows)
        if start == 0:
            again = isinstance(self.source, Iterator)
            hint = "; this call needs two passes over them, which an iterator does not allow: give a list of blocks"
            raise ValueError(f"{self.name} must not be empty, got no rows{hint if again else ''}")
        self.size = start

    def _checked(self, piece: ArrayLike) -> NDArray[np.floating]:
        """A block as kernels read it.

        It is a copy unless it stays in memory, because a generator may fill its buffer with the next block as soon as
        it is asked for that.
        """
        block = np.asarray(piece)
        dtype = check.computed_dtype(self.name, block)
        if block.ndim != 2 or block.shape[1] != self.dim:
            raise ValueError(f"blocks of {self.name} must have shape (rows, {self.dim}), got {block.shape}")
        if np.promote_types(dtype, self.dtype) != self.dtype:
            raise TypeError(f"blocks of {self.name} must be {self.dtype} or narrower, got {block.dtype}")
        stays = isinstance(self.source, (np.ndarray, list, tuple)) and not isinstance(piece, np.memmap)
        return check.readable(block, self.dtype) if stays else np.array(block, self.dtype, order="C")


class Prepared(Candidates):
    """Candidates in memory that are searched many times: what a search needs of them is made once, and kept.

    Made by `HardNegativeMiner.prepare`; the array must not change afterwards.
    """

    def __init__(self, name: str, source: Any) -> None:
        array = check.stored_array(name, source, 2)
        if isinstance(source, np.memmap):
            raise TypeError(f"{name} must be an array in memory, got a memmap")
        dtype = check.computed_dtype(name, array)
        super().__init__(name, check.readable(array, dtype), array.shape[1], dtype)
        self._rows = super().all_rows()
        self.codes: dict[bool, Any] = {}
        """The rows as 8-bit codes (False) and 16-bit codes (True), once a search by bounds has made them."""

    def __repr__(self) -> str:
        return f"Prepared(candidates of shape {self.source.shape}, {self.dtype})"

    def __len__(self) -> int:
        return len(self.source)

    def all_rows(self) -> Rows:
        """All candidates and their inverse norms."""
        return self._rows


def candidates_of(name: str, source: Any, dim: int, other: str, dtype: np.dtype) -> Candidates:
    """Check an argument that gives candidates for rows of this dimension and dtype, which are the argument `other`.

    The blocks of an iterable are checked as they are read.
    """
    if isinstance(source, Prepared):
        if source.dim != dim:
            raise ValueError(f"{name} must have {dim} columns like {other}, got shape {source.source.shape}")
        wider = np.promote_types(source.dtype, dtype)
        return source if wider == source.dtype else Candidates(name, source.source, dim, wider)
    if hasattr(source, "shape") or (isinstance(source, (list, tuple)) and not _are_blocks(source)):
        array = check.stored_array(name, source, 2)
        if array.shape[1] != dim:
            raise ValueError(f"{name} must have {dim} columns like {other}, got shape {array.shape}")
        kept = source if isinstance(source, np.memmap) else array
        return Candidates(name, kept, dim, np.promote_types(check.computed_dtype(name, array), dtype))
    if not isinstance(source, Iterable):
        raise TypeError(f"{name} must be an array or an iterable of arrays, got {type(source).__name__}")
    return Candidates(name, source, dim, np.dtype(dtype))


def _are_blocks(source: Any) -> bool:
    return len(source) > 0 and getattr(source[0], "ndim", 0) == 2


def _read_ahead(pieces: Iterator[NDArray[np.floating]]) -> Iterator[NDArray[np.floating]]:
    """The same pieces, each prepared in another thread while the one before is used."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = reader.submit(next, pieces, None)
            yield piece
