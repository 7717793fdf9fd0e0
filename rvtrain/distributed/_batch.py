"""The global batch of one call: how many rows each rank has, and what is computed from all of them."""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._blocks import Rows
from rvtrain.distributed._ranks import Ranks

SEGMENTS = 8
"""Parts of the global batch whose sums to the columns are computed apart, and added in an order that does not depend
on the number of ranks."""


def shares(count: int, ranks: Ranks) -> np.ndarray:
    """Bounds of equal segments of `count` rows: 8, if that is a multiple of the number of ranks, else one each."""
    parts = SEGMENTS if SEGMENTS % ranks.size == 0 else ranks.size
    return np.arange(parts + 1) * count // parts


def shares_of(count: int, ranks: Ranks) -> np.ndarray:
    """The same bounds, of the segments that this rank takes."""
    bounds = shares(count, ranks)
    each = (len(bounds) - 1) // ranks.size
    return bounds[ranks.rank * each :][: each + 1]


class GlobalBatch(NamedTuple):
    """The rows of all ranks, in the order of ranks."""

    ranks: Ranks
    rows: np.ndarray
    """(ranks,) int64: number of rows of each rank"""
    pool: np.ndarray
    """(ranks,) int64: the same of a pool of negatives, zeros if there is none"""

    @property
    def offset(self) -> int:
        """Place of this rank's first row in the batch."""
        return int(self.rows[: self.ranks.rank].sum())

    @property
    def mine(self) -> slice:
        """Places of this rank's rows in the batch."""
        return slice(self.offset, self.offset + int(self.rows[self.ranks.rank]))

    @property
    def pieces(self) -> np.ndarray:
        """Bounds of the segments of this rank's rows; one segment, if those of the batch do not fit the ranks.

        No segment is empty.
        """
        wanted, starts = shares(int(self.rows.sum()), self.ranks), np.cumsum(self.rows) - self.rows
        each = (len(wanted) - 1) // self.ranks.size
        if each > 1 and wanted[-1] >= SEGMENTS and (starts == wanted[:-1:each]).all():
            return wanted[self.ranks.rank * each :][: each + 1] - self.offset
        return np.array([0, self.rows[self.ranks.rank]])

    def counts(self, name: str) -> np.ndarray:
        """Number of rows of an input on each rank."""
        return self.pool if name == "negatives" else self.rows

    def whole(self, x: np.ndarray, name: str = "anchors") -> np.ndarray:
        """The rows of an input on all ranks."""
        return self.ranks.gathered(x, self.counts(name))

    def whole_rows(self, rows: Rows, name: str) -> Rows:
        """The same of vectors with their norms."""
        return Rows(self.whole(rows.x, name), self.whole(rows.inverse, name))

    def total(self, x: np.ndarray) -> float:
        """The sum of one number for each row of the batch, in an order that does not depend on the ranks."""
        return float(self.whole(x).sum())
