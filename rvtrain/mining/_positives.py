"""The positives of each anchor, as vectors or as indices of candidates, and the least of their scores."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import CHUNK, Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain._engine._pairs import paired_cosines
from rvtrain.mining._candidates import Candidates


class Positives(NamedTuple):
    """Vectors or indices; the other is None."""

    vectors: np.ndarray | None
    """(B, P, d)"""
    indices: NDArray[np.int64] | None
    """(B, P), −1 for none"""

    @property
    def dtype(self) -> np.dtype:
        """The narrowest dtype in which the vectors can be computed with."""
        narrowest = np.dtype(np.float32)
        return narrowest if self.vectors is None else check.computed_dtype("positives", self.vectors)

    def within(self, candidates: Candidates) -> "Positives":
        """The same positives, once indices are checked against the candidates."""
        if self.indices is None:
            return self
        if not isinstance(candidates.source, np.ndarray):
            kind = type(candidates.source).__name__
            raise ValueError(
                f"positives may be indices of {candidates.name} in one array or np.memmap, not of a {kind}"
            )
        assert candidates.size is not None
        indices = check.indices("positives", self.indices, self.indices.shape, candidates.size, missing=True)
        named = (indices >= 0).any(axis=1)
        if not named.all():
            row = int(np.argmin(named))
            raise ValueError(f"positives must name at least one candidate for each anchor, got none in row {row}")
        return Positives(None, indices)

    def least(self, anchors: Rows, candidates: Candidates) -> NDArray[np.float64]:
        """The lowest cosine of each anchor with its positives, (B,)."""
        given = self.indices if self.vectors is None else self.vectors
        assert given is not None
        lowest = np.full(len(anchors.x), np.inf)
        cosines = np.empty(len(anchors.x), candidates.dtype)
        for p in range(given.shape[1]):
            if self.vectors is None:
                x = candidates.rows_at(np.maximum(given[:, p], 0))
            else:
                x = check.readable(given[:, p], candidates.dtype)
            rows = Rows(x, checked_inverse_norms("positives", x))
            paired_cosines.sized(2 * x.size)(len(x), anchors, rows, CHUNK, cosines)
            scores = np.where(given[:, p] < 0, np.inf, cosines) if self.vectors is None else cosines
            lowest = np.minimum(lowest, scores)
        return lowest


def positives_of(positives: ArrayLike, anchors: np.ndarray) -> Positives:
    """Check the positives of anchors (B, d), or (d,) for one. Dtype and shape tell vectors from indices."""
    array = np.asarray(positives)
    if array.dtype.kind in "iu" and array.ndim <= anchors.ndim:
        return Positives(None, _indices(array, anchors))
    array = check.stored_array("positives", array, (anchors.ndim, anchors.ndim + 1))
    *rows, dim = anchors.shape
    if array.shape[:-1][: len(rows)] != tuple(rows) or array.shape[-1] != dim:
        several = ", ".join(map(str, [*rows, "P", dim]))
        raise ValueError(
            f"positives must have the shape of anchors, {anchors.shape}, or ({several}), got {array.shape}"
        )
    return Positives(array.reshape(rows[0] if rows else 1, -1, dim), None)


def _indices(array: np.ndarray, anchors: np.ndarray) -> NDArray[np.int64]:
    """Indices of any of the accepted shapes as (B, P)."""
    if anchors.dtype.kind in "iu" and array.shape == anchors.shape:
        raise ValueError(
            f"positives of integers in the shape of integer anchors, {array.shape}, may be vectors or indices: give "
            "vectors as positives.astype(np.float32), or indices with anchors.astype(np.float32)"
        )
    single, count = anchors.ndim == 1, len(np.atleast_2d(anchors))
    if single:
        array = array.reshape(1, -1)
    elif array.ndim == 1:
        array = array[:, np.newaxis]
    if not array.size:
        raise ValueError(f"positives must not be empty, got shape {array.shape}")
    return check.integer_array("positives", array, (count, None))
