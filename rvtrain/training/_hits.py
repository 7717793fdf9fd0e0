"""Comparison of rankings with the relevant documents, and the metrics of each query that follow from it."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check

Indices = NDArray[np.int64]
PerQuery = NDArray[np.float64]

_LOOKED_UP = 1 << 18
"""Ranks that are looked up together."""


class Hits:
    """Whether each rank of a query holds a relevant document, and the number of its relevant documents.

    Shapes: found (Q, depth) bool, relevant (Q,); `graded` has the grades, if there are any. With k above
    depth, the ranking must end with the last document.
    """

    def __init__(self, found: NDArray[np.bool_], relevant: Indices, graded: "Graded | None" = None) -> None:
        self.found, self.relevant, self.graded = found, relevant, graded
        self.depth = found.shape[1]

    def accuracy(self, k: int) -> PerQuery:
        """1 if a relevant document is among the first k, else 0."""
        return np.asarray(self.found[:, :k].any(axis=1), np.float64)

    def recall(self, k: int) -> PerQuery:
        """The fraction of the relevant documents that is among the first k."""
        return self.found[:, :k].sum(axis=1) / self.relevant

    def precision(self, k: int) -> PerQuery:
        """The fraction of the first k that is relevant."""
        return np.asarray(self.found[:, :k].sum(axis=1) / k)

    def mrr(self, k: int) -> PerQuery:
        """1 / rank of the first relevant document, 0 beyond k."""
        head = self.found[:, :k]
        return np.where(head.any(axis=1), 1.0 / (1 + head.argmax(axis=1)), 0.0)

    def ndcg(self, k: int) -> PerQuery:
        """Σ gain / log₂(1 + rank) over the first k, over its largest possible value."""
        k = min(k, max(self.depth, int(self.relevant.max())))
        discounts = 1.0 / np.log2(2.0 + np.arange(k))
        if self.graded is not None:
            return self.graded.gains[:, :k] @ discounts[: self.depth] / self.graded.ideal(discounts)
        ideal = np.cumsum(discounts)[np.minimum(self.relevant, k) - 1]
        return self.found[:, :k] @ discounts[: self.depth] / ideal

    def map(self, k: int) -> PerQuery:
        """Σ over relevant ranks i ≤ k of precision at i, over min(k, number of relevant documents)."""
        return self._precisions(np.full(len(self.found), k)) / np.minimum(self.relevant, k)

    def map_at_r(self) -> PerQuery:
        """Σ over relevant ranks i ≤ R of precision at i, over R, the number of relevant documents."""
        return self._precisions(self.relevant) / self.relevant

    def _precisions(self, depths: Indices) -> PerQuery:
        """Σ over relevant ranks i ≤ depths[q] of precision at i."""
        ranks = np.arange(1, self.depth + 1)
        counted = self.found & (ranks <= depths[:, np.newaxis])
        return (counted * np.cumsum(counted, axis=1) / ranks).sum(axis=1)


class Graded(NamedTuple):
    """Grades of relevant documents."""

    gains: NDArray[np.float64]
    """(Q, depth) grade of the document at each rank, 0 where it is not relevant"""
    queries: Indices
    """(n,) query of each relevant document, ascending"""
    grades: NDArray[np.float64]
    """(n,) its grade, descending within a query"""

    def ideal(self, discounts: NDArray[np.float64]) -> PerQuery:
        """Σ grade · discount of the best possible ranking of each query."""
        counts = np.bincount(self.queries, minlength=len(self.gains))
        ranks = np.arange(len(self.queries)) - (np.cumsum(counts) - counts)[self.queries]
        here = ranks < len(discounts)
        gains = self.grades[here] * discounts[ranks[here]]
        return np.bincount(self.queries[here], gains, len(self.gains)).astype(np.float64)


class Relevant(NamedTuple):
    """Pairs of a query and a relevant document, distinct, sorted by query, then by document."""

    queries: Indices
    """(n,)"""
    documents: Indices
    """(n,)"""
    counts: Indices
    """(Q,) the number of relevant documents of each query"""
    grades: NDArray[np.float64] | None = None
    """(n,) grades above 0; None if the pairs have no grades"""


def hits(ranks: Indices, relevant: Relevant) -> Hits:
    """Compare rankings (Q, depth) with the relevant documents."""
    documents, stop = relevant.documents, int(relevant.documents.max()) + 1
    names = None
    if stop * len(ranks) > 2**62:  # the number of a query and a document, q · stop + document, would leave int64
        names, documents = np.unique(documents, return_inverse=True)
        stop = len(names)
    known = relevant.queries * stop + documents
    found = np.empty(ranks.shape, bool)
    grades = relevant.grades
    gains = np.zeros(ranks.shape) if grades is not None else None
    rows = max(1, _LOOKED_UP // ranks.shape[1])
    for start in range(0, len(ranks), rows):
        here = ranks[start : start + rows]
        if names is not None:
            place = np.minimum(np.searchsorted(names, here), stop - 1)
            here = np.where(names[place] == here, place, -1)
        pairs = np.arange(start, start + len(here))[:, np.newaxis] * stop + here
        place = np.minimum(np.searchsorted(known, pairs), len(known) - 1)
        found[start : start + rows] = (known[place] == pairs) & (here >= 0) & (here < stop)
        if grades is not None and gains is not None:
            gains[start : start + rows] = np.where(found[start : start + rows], grades[place], 0.0)
    if grades is None or gains is None:
        return Hits(found, relevant.counts)
    order = np.lexsort((-grades, relevant.queries))
    return Hits(found, relevant.counts, Graded(gains, relevant.queries[order], grades[order]))


def ranked_documents(ranked: ArrayLike) -> Indices:
    """Check the argument `ranked` (Q, depth)."""
    ranks = check.indices("ranked", ranked, (None, None), 2**62, missing=True)
    if not ranks.size:
        raise ValueError(f"ranked must not be empty, got shape {ranks.shape}")
    ordered = np.sort(ranks, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        row, place = np.argwhere(twice)[0]
        raise ValueError(f"ranked must not name a document twice, got {ordered[row, place]} twice in row {row}")
    return ranks


def relevant_documents(
    relevant: ArrayLike | None, count: int, stop: int = 2**62, grades: ArrayLike | None = None
) -> Relevant:
    """Check the arguments `relevant` and `grades` of `count` queries and documents below `stop`."""
    if isinstance(relevant, (list, tuple)) and any(np.ndim(row) for row in relevant):
        if len(relevant) != count or not all(hasattr(row, "__len__") for row in relevant):
            raise ValueError(f"relevant must be a sequence of documents for each of {count} queries")
        lengths = [len(row) for row in relevant]
        flat = np.array([document for row in relevant for document in row])
        flat = flat if flat.size else np.empty(0, np.int64)
        queries = np.repeat(np.arange(count), lengths)
        if grades is not None:
            rows = [np.ravel(row) for row in grades] if isinstance(grades, Iterable) else []
            if [len(row) for row in rows] != lengths:
                raise ValueError("grades must have a grade for each document in relevant")
            grades = np.concatenate(rows)
    else:
        array = np.asarray(relevant)
        array = check.integer_array("relevant", array, (count,) if array.ndim == 1 else (count, None))
        flat, queries = array.ravel(), np.repeat(np.arange(count), array.size // count)
        if grades is not None:
            grades = np.asarray(grades)
            check.same_shape("grades", grades, "relevant", array.shape)
            grades = grades.ravel()
    documents = check.indices("relevant", flat, (None,), stop, missing=True)
    there = documents >= 0
    values = None
    if grades is not None:
        values = grades_of(grades, len(flat))
        there &= values > 0
        values = values[there]
    pairs = distinct(queries[there], documents[there], count, values)
    if not pairs.counts.all():
        row = int(np.argmin(pairs.counts > 0))
        raise ValueError(f"relevant must name at least one document for each query, got none in row {row}")
    return pairs


def grades_of(grades: ArrayLike, count: int) -> NDArray[np.float64]:
    """Check the argument `grades` of `count` pairs."""
    array = np.asarray(grades)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"grades must be real numbers, got dtype {array.dtype}")
    check.same_shape("grades", array, "the pairs", (count,))
    values = array.astype(np.float64)
    check.finite("grades", values)
    if (values < 0).any():
        raise ValueError(f"grades must not be negative, got {values.min()}")
    return values


def distinct(queries: Indices, documents: Indices, count: int, grades: NDArray[np.float64] | None = None) -> Relevant:
    """Pairs in order, each once; of a pair's grades the highest counts."""
    keys = (documents, queries) if grades is None else (-grades, documents, queries)
    order = np.lexsort(keys)
    queries, documents = queries[order], documents[order]
    first = np.ones(len(order), bool)
    first[1:] = (queries[1:] != queries[:-1]) | (documents[1:] != documents[:-1])
    kept = None if grades is None else grades[order][first]
    return Relevant(queries[first], documents[first], np.bincount(queries[first], minlength=count), kept)
