"""What one call of a miner chooses from: anchors, candidates, and who may be chosen for whom."""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._blocks import Rows
from rvtrain.mining._candidates import Candidates, Progress
from rvtrain.mining._filters import Filters, below
from rvtrain.mining._search import search
from rvtrain.mining._selection_kernels import BY_SCORE, Limits, Rule, noise

Found = tuple[np.ndarray, np.ndarray]
"""Indices and scores (B, k), or narrower where there are fewer candidates; −1 and −inf beyond the last."""


class Pool(NamedTuple):
    """Candidates of each anchor under limits and filters, which `best` chooses from."""

    queries: Rows
    candidates: Candidates
    limits: Limits
    filters: Filters
    progress: Progress | None

    @property
    def dtype(self) -> np.dtype:
        """Of scores."""
        return self.candidates.dtype

    def best(self, k: int, rule: Rule) -> Found:
        """The k with the largest keys."""
        if self.filters.range_max is not None:
            return self._best_of_ranked(self.filters.range_max, k, rule)
        if self.filters.range_min:
            columns, _ = self._ranked(self.filters.range_min)
            rest = self.without(columns)
            return rest._replace(filters=self.filters._replace(range_min=0)).best(k, rule)
        return search(self.queries, self.candidates, k, rule, self.limits, self.progress)

    def between(self, floors: np.ndarray | None, ceilings: np.ndarray | None) -> "Pool":
        """Only scores above these floors (of the scores' dtype), and below these ceilings (float64)."""
        limits = self.limits
        if floors is not None:
            limits = limits._replace(floors=np.maximum(limits.floors, floors))
        if ceilings is not None:
            limits = limits._replace(ceilings=np.minimum(limits.ceilings, below(ceilings, self.dtype)))
        return self._replace(limits=limits)

    def without(self, columns: np.ndarray) -> "Pool":
        """Not these (B, m) any more."""
        return self._replace(limits=self.limits._replace(exclude=np.hstack([self.limits.exclude, columns])))

    def _ranked(self, count: int) -> Found:
        """The `count` most similar, whatever their score."""
        unbounded = np.full(len(self.limits.floors), np.inf, self.dtype)
        limits = self.limits._replace(floors=-unbounded, ceilings=unbounded)
        return search(self.queries, self.candidates, count, Rule(BY_SCORE), limits, self.progress)

    def _best_of_ranked(self, stop: int, k: int, rule: Rule) -> Found:
        """The same among ranks range_min … stop − 1, which are few enough to be listed."""
        columns, scores = (x[:, self.filters.range_min :] for x in self._ranked(stop))
        floors, ceilings = self.limits.floors[:, np.newaxis], self.limits.ceilings[:, np.newaxis]
        inside = (columns >= 0) & (scores > floors) & (scores < ceilings)
        keys = (
            -np.arange(columns.shape[1]) * np.ones(columns.shape) if rule.kind == BY_SCORE else noise(columns, rule)
        )
        order = np.argsort(np.where(inside, -keys, np.inf), axis=1, kind="stable")[:, :k]
        columns, scores = np.where(inside, columns, -1), np.where(inside, scores, self.dtype.type(-np.inf))
        return np.take_along_axis(columns, order, axis=1), np.take_along_axis(scores, order, axis=1)
