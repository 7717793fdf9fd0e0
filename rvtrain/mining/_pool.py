"""The pool of one call of a miner: anchors, candidates, and which candidates may be chosen for which anchor."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain._engine._blocks import Rows
from rvtrain.mining._candidates import Candidates, Progress
from rvtrain.mining._filters import Filters, below
from rvtrain.mining._search import Found, search
from rvtrain.mining._selection_kernels import BY_SCORE, Limits, Rule, noise


class Pool(NamedTuple):
    """Candidates of each anchor under limits and filters, from which `best` chooses."""

    queries: Rows
    candidates: Candidates
    limits: Limits
    filters: Filters
    progress: Progress | None
    method: str

    @property
    def dtype(self) -> np.dtype:
        """The dtype of scores."""
        return self.candidates.dtype

    def best(self, k: int, rule: Rule) -> Found:
        """The k candidates with the largest keys."""
        if self.filters.range_max is not None:
            return self._best_of_ranked(self.filters.range_max, k, rule)
        if self.filters.range_min:
            columns, _ = self._ranked(self.filters.range_min)
            rest = self.without(columns)
            return rest._replace(filters=self.filters._replace(range_min=0)).best(k, rule)
        return self._search(k, rule, self.limits)

    def between(self, floors: NDArray[np.floating] | None, ceilings: NDArray[np.float64] | None) -> "Pool":
        """The pool of scores above these floors (of the scores' dtype) and below these ceilings (float64)."""
        limits = self.limits
        if floors is not None:
            limits = limits._replace(floors=np.maximum(limits.floors, floors))
        if ceilings is not None:
            limits = limits._replace(ceilings=np.minimum(limits.ceilings, below(ceilings, self.dtype)))
        return self._replace(limits=limits)

    def without(self, columns: NDArray[np.int64]) -> "Pool":
        """The pool without these candidates (B, m)."""
        return self._replace(limits=self.limits._replace(exclude=np.hstack([self.limits.exclude, columns])))

    def _search(self, k: int, rule: Rule, limits: Limits) -> Found:
        return search(self.queries, self.candidates, k, rule, limits, self.progress, method=self.method)

    def _ranked(self, count: int) -> Found:
        """The `count` most similar candidates, whatever their score."""
        unbounded = np.full(len(self.limits.floors), np.inf, self.dtype)
        return self._search(count, Rule(BY_SCORE), self.limits._replace(floors=-unbounded, ceilings=unbounded))

    def _best_of_ranked(self, stop: int, k: int, rule: Rule) -> Found:
        """As `best`, from the list of the candidates of ranks range_min … stop − 1."""
        columns, scores = self._ranked(stop)
        columns, scores = columns[:, self.filters.range_min :], scores[:, self.filters.range_min :]
        floors, ceilings = self.limits.floors[:, np.newaxis], self.limits.ceilings[:, np.newaxis]
        inside = (columns >= 0) & (scores > floors) & (scores < ceilings)
        ranks = np.arange(columns.shape[1]) * np.ones(columns.shape)
        keys = -ranks if rule.kind == BY_SCORE else noise(columns, rule)
        order = np.argsort(np.where(inside, -keys, np.inf), axis=1, kind="stable")[:, :k]
        columns, scores = np.where(inside, columns, -1), np.where(inside, scores, self.dtype.type(-np.inf))
        return np.take_along_axis(columns, order, axis=1), np.take_along_axis(scores, order, axis=1)
