"""The pool of one call of a miner: anchors, candidates, and the limits of each anchor."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain._engine._blocks import Rows
from rvtrain.mining._candidates import Candidates, Progress
from rvtrain.mining._filters import Filters, below
from rvtrain.mining._of_ranks import CandidatesOfRanks
from rvtrain.mining._ranked import Ranked
from rvtrain.mining._report import Drops
from rvtrain.mining._search import Found, Result, search
from rvtrain.mining._selection_kernels import BY_SCORE, Limits, Rule


class Pool(NamedTuple):
    """Candidates of each anchor under limits and filters, from which `best` chooses."""

    queries: Rows
    candidates: Candidates
    limits: Limits
    filters: Filters
    progress: Progress | None
    method: str
    drops: Drops
    """of the last search"""
    likely: NDArray[np.int64] | None = None
    """(B, m) candidates that are likely among the best"""

    @property
    def dtype(self) -> np.dtype:
        """The dtype of scores."""
        return self.candidates.dtype

    def best(self, k: int, rule: Rule) -> Found:
        """The k candidates with the largest keys."""
        if self.filters.range_max is not None:
            ranked = self.ranked(self.filters.range_max)
            self.drops.above[:] = ranked.dropped
            return ranked.best(k, rule)
        if self.filters.range_min:
            columns, _ = self._most_similar(self.filters.range_min)
            self.drops.by_rank = int((columns >= 0).sum())
            rest = self.without(columns)
            return rest._replace(filters=self.filters._replace(range_min=0)).best(k, rule)
        found = self._search(k, rule, self.limits)
        self.drops.above[:] = np.where(self.limits.floors < self.limits.ceilings, found[2], 0)
        return found[:2]

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

    def ranked(self, stop: int) -> Ranked:
        """The candidates of ranks range_min … stop − 1, with the window of the pool."""
        columns, scores = self._most_similar(stop)
        first = self.filters.range_min
        self.drops.by_rank = int((columns[:, :first] >= 0).sum())
        return Ranked(columns[:, first:], scores[:, first:], self.limits.floors, self.limits.ceilings, self.filters)

    def _most_similar(self, count: int) -> Found:
        """The `count` most similar candidates, of any score."""
        unbounded = np.full(len(self.limits.floors), np.inf, self.dtype)
        limits = self.limits._replace(floors=-unbounded, ceilings=unbounded)
        return self._search(count, Rule(BY_SCORE), limits)[:2]

    def _search(self, k: int, rule: Rule, limits: Limits) -> Result:
        if isinstance(self.candidates, CandidatesOfRanks):
            return self.candidates.search(self.queries, k, rule, limits, self.progress, self.method, self.likely)
        return search(
            self.queries, self.candidates, k, rule, limits, self.progress, method=self.method, likely=self.likely
        )
