"""Lists of candidates, one for each anchor, from which negatives are chosen by their scores."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain.mining._filters import Filters, below
from rvtrain.mining._search import Found
from rvtrain.mining._selection_kernels import BY_SCORE, EXPONENTIAL, Rule, noise


class Ranked(NamedTuple):
    """The candidates of each anchor that limits and ranks have left, and their scores."""

    columns: NDArray[np.int64]
    """(B, M) candidates in the order of their ranks; −1 for none"""
    scores: NDArray[np.floating]
    """(B, M)"""
    floors: NDArray[np.floating]
    """(B,) of the scores' dtype: a score passes if it lies strictly between floor and ceiling"""
    ceilings: NDArray[np.floating]
    """(B,)"""
    filters: Filters

    @property
    def dtype(self) -> np.dtype:
        """The dtype of scores."""
        return self.scores.dtype

    @property
    def dropped(self) -> NDArray[np.int64]:
        """The number of candidates at or above the ceiling (B,)."""
        above = (self.columns >= 0) & (self.scores >= self.ceilings[:, np.newaxis])
        return np.where(self.floors < self.ceilings, above.sum(axis=1), 0)

    def best(self, k: int, rule: Rule) -> Found:
        """The k candidates with the largest keys; ties go to the lower rank."""
        floors, ceilings = self.floors[:, np.newaxis], self.ceilings[:, np.newaxis]
        inside = (self.columns >= 0) & (self.scores > floors) & (self.scores < ceilings)
        order = np.argsort(np.where(inside, -self._keys(rule), np.inf), axis=1, kind="stable")[:, :k]
        columns, scores = np.where(inside, self.columns, -1), np.where(inside, self.scores, self.dtype.type(-np.inf))
        return np.take_along_axis(columns, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def _keys(self, rule: Rule) -> NDArray[np.floating]:
        if rule.kind == BY_SCORE:
            return self.scores
        uniform = noise(self.columns, rule)
        if rule.kind != EXPONENTIAL:
            return uniform
        return self.scores.astype(np.float64) / rule.temperature - np.log(-np.log(uniform))

    def between(self, floors: NDArray[np.floating] | None, ceilings: NDArray[np.float64] | None) -> "Ranked":
        """The candidates with scores above these floors (of the scores' dtype) and below these ceilings (float64)."""
        ranked = self
        if floors is not None:
            ranked = ranked._replace(floors=np.maximum(self.floors, floors))
        if ceilings is not None:
            ranked = ranked._replace(ceilings=np.minimum(self.ceilings, below(ceilings, self.dtype)))
        return ranked

    def without(self, columns: NDArray[np.int64]) -> "Ranked":
        """The candidates but these (B, m)."""
        left_out = (self.columns[:, :, np.newaxis] == columns[:, np.newaxis]).any(axis=2)
        return self._replace(columns=np.where(left_out, -1, self.columns))
