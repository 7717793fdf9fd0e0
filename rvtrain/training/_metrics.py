"""Retrieval metrics: how well the relevant documents are ranked."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.mining import Neighbours

Indices = NDArray[np.int64]
PerQuery = NDArray[np.float64]

_LOOKED_UP = 1 << 18
"""Ranks that are looked up together."""


class Hits:
    """Whether each rank of a query holds a relevant document, and the number of its relevant documents.

    Shapes: found (Q, depth) bool, relevant (Q,). With k above depth, the ranking must end with the last document.
    """

    def __init__(self, found: NDArray[np.bool_], relevant: Indices) -> None:
        self.found, self.relevant = found, relevant
        self.depth = found.shape[1]

    def recall(self, k: int) -> PerQuery:
        return self.found[:, :k].sum(axis=1) / self.relevant

    def precision(self, k: int) -> PerQuery:
        return self.found[:, :k].sum(axis=1) / k

    def mrr(self, k: int) -> PerQuery:
        head = self.found[:, :k]
        return np.where(head.any(axis=1), 1.0 / (1 + head.argmax(axis=1)), 0.0)

    def ndcg(self, k: int) -> PerQuery:
        k = min(k, max(self.depth, int(self.relevant.max())))
        gains = 1.0 / np.log2(2.0 + np.arange(k))
        ideal = np.cumsum(gains)[np.minimum(self.relevant, k) - 1]
        return self.found[:, :k] @ gains[: self.depth] / ideal

    def map_at_r(self) -> PerQuery:
        ranks = np.arange(1, self.depth + 1)
        counted = self.found & (ranks <= self.relevant[:, np.newaxis])
        return (counted * np.cumsum(counted, axis=1) / ranks).sum(axis=1) / self.relevant


class Relevant(NamedTuple):
    """Pairs of a query and a relevant document, distinct, sorted by query, then by document."""

    queries: Indices
    """(n,)"""
    documents: Indices
    """(n,)"""
    counts: Indices
    """(Q,) the number of relevant documents of each query"""


def hits(ranks: Indices, relevant: Relevant) -> Hits:
    """Compare rankings (Q, depth) with the relevant documents."""
    documents, stop = relevant.documents, int(relevant.documents.max()) + 1
    names = None
    if stop * len(ranks) > 2**62:  # the number of a query and a document, q · stop + document, would leave int64
        names, documents = np.unique(documents, return_inverse=True)
        stop = len(names)
    known = relevant.queries * stop + documents
    found = np.empty(ranks.shape, bool)
    rows = max(1, _LOOKED_UP // ranks.shape[1])
    for start in range(0, len(ranks), rows):
        here = ranks[start : start + rows]
        if names is not None:
            place = np.minimum(np.searchsorted(names, here), stop - 1)
            here = np.where(names[place] == here, place, -1)
        pairs = np.arange(start, start + len(here))[:, np.newaxis] * stop + here
        place = np.minimum(np.searchsorted(known, pairs), len(known) - 1)
        found[start : start + rows] = (known[place] == pairs) & (here >= 0) & (here < stop)
    return Hits(found, relevant.counts)


def _ranked(ranked: ArrayLike) -> Indices:
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


def _relevant(relevant: ArrayLike | None, count: int, stop: int = 2**62) -> Relevant:
    """Check the argument `relevant` of `count` queries and documents below `stop`."""
    if isinstance(relevant, (list, tuple)) and any(np.ndim(row) for row in relevant):
        if len(relevant) != count or not all(hasattr(row, "__len__") for row in relevant):
            raise ValueError(f"relevant must be a sequence of documents for each of {count} queries")
        flat = np.array([document for row in relevant for document in row])
        flat = flat if flat.size else np.empty(0, np.int64)
        queries = np.repeat(np.arange(count), [len(row) for row in relevant])
    else:
        array = np.asarray(relevant)
        array = check.integer_array("relevant", array, (count,) if array.ndim == 1 else (count, None))
        flat, queries = array.ravel(), np.repeat(np.arange(count), array.size // count)
    documents = check.indices("relevant", flat, (None,), stop, missing=True)
    there = documents >= 0
    pairs = _distinct(queries[there], documents[there], count)
    if not pairs.counts.all():
        row = int(np.argmin(pairs.counts > 0))
        raise ValueError(f"relevant must name at least one document for each query, got none in row {row}")
    return pairs


def _distinct(queries: Indices, documents: Indices, count: int) -> Relevant:
    order = np.lexsort((documents, queries))
    queries, documents = queries[order], documents[order]
    first = np.ones(len(order), bool)
    first[1:] = (queries[1:] != queries[:-1]) | (documents[1:] != documents[:-1])
    return Relevant(queries[first], documents[first], np.bincount(queries[first], minlength=count))


Metric = Callable[[ArrayLike, ArrayLike, int], float]


def _at_k(name: str, formula: str, reference: str, of: Callable[[Hits, int], PerQuery], example: str) -> Metric:
    """Make the public function of a metric at k."""

    def metric(ranked: ArrayLike, relevant: ArrayLike, k: int) -> float:
        k = check.neighbours(k)
        ranks = _ranked(ranked)
        compared = hits(ranks, _relevant(relevant, len(ranks)))
        if compared.depth < k:
            raise ValueError(f"ranked must have at least k = {k} columns, got {compared.depth}")
        return float(of(compared, k).mean())

    metric.__name__ = metric.__qualname__ = f"{name}_at_k"
    metric.__doc__ = f"""{formula}

    The mean over the queries.

    Parameters
    ----------
    ranked : integer array of shape (Q, ≥ k)
        Documents by rank, best first, as `top_k` returns them; −1: none.
    relevant : integer array of shape (Q,) or (Q, r), or sequence of sequences
        Each query's relevant documents, at least one; −1: none.
    k : int

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, a query has no relevant document, or a document is ranked twice for one query.

    References
    ----------
    {reference}

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.{name}_at_k([[4, 7, 2], [1, 0, 3]], [[7, 2], [5, 3]], k=3)
    {example}
    """
    return metric


_MANNING = "Manning, Raghavan & Schütze (2008), Introduction to Information Retrieval, chapter 8."
recall_at_k = _at_k(
    "recall", "Recall: the fraction of the relevant documents that is among the first k.",
    _MANNING, Hits.recall, "0.75",
)  # fmt: skip
precision_at_k = _at_k(
    "precision", "Precision: the fraction of the first k documents that is relevant.",
    _MANNING, Hits.precision, "0.5",
)  # fmt: skip
mrr_at_k = _at_k(
    "mrr", "Mean reciprocal rank: 1 / rank of the first relevant document, 0 beyond k.",
    "Voorhees (1999), The TREC-8 Question Answering Track Report.", Hits.mrr, "0.41666666666666663",
)  # fmt: skip
ndcg_at_k = _at_k(
    "ndcg", "Normalised gain: Σ 1 / log₂(1 + rank) over the relevant documents among the first k, over its maximum.",
    "Järvelin & Kekäläinen (2002), Cumulated Gain-based Evaluation of IR Techniques, ACM TOIS 20(4).",
    Hits.ndcg, "0.5",
)  # fmt: skip


def map_at_r(ranked: ArrayLike, relevant: ArrayLike) -> float:
    """Mean average precision at R: with R relevant documents, (1/R) Σ over relevant ranks i ≤ R of precision at i.

    Parameters
    ----------
    ranked : integer array of shape (Q, ≥ R)
        Documents by rank, best first, for the largest R.
    relevant : as in `recall_at_k`

    Returns
    -------
    float
        The mean over the queries.

    Raises
    ------
    TypeError, ValueError
        As `recall_at_k`, and if a ranking is not deep enough.

    References
    ----------
    Musgrave, Belongie & Lim (2020), A Metric Learning Reality Check, arXiv:2003.08505.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.map_at_r([[4, 7, 2], [1, 0, 3]], [[7, 2], [5, 1]])
    0.375
    """
    ranks = _ranked(ranked)
    compared = hits(ranks, _relevant(relevant, len(ranks)))
    if compared.depth < compared.relevant.max():
        raise ValueError(f"ranked must have at least R = {compared.relevant.max()} columns, got {compared.depth}")
    return float(compared.map_at_r().mean())


_KINDS: dict[str, Callable[[Hits, int], PerQuery]] = {
    "recall": Hits.recall, "precision": Hits.precision, "mrr": Hits.mrr, "ndcg": Hits.ndcg,
}  # fmt: skip


def parsed(metrics: str | Sequence[str]) -> dict[str, tuple[str, int]]:
    """Kind and k of metrics by name, as "recall@10", or "map@r"."""
    known = {}
    for name in (metrics,) if isinstance(metrics, str) else metrics:
        kind, _, k = str(name).partition("@")
        if str(name) == "map@r":
            known[name] = (kind, 0)
        elif kind in _KINDS and k.isdecimal() and int(k) > 0:
            known[name] = (kind, int(k))
        else:
            raise ValueError(f"metrics must be {', '.join(f'{kind}@k' for kind in _KINDS)} or map@r, got {name!r}")
    return known


def depth_of(metrics: dict[str, tuple[str, int]], most_relevant: int) -> int:
    """The number of ranks that these metrics need; it may exceed the number of documents."""
    return max(k or most_relevant for _, k in metrics.values())


def means(compared: Hits, metrics: dict[str, tuple[str, int]]) -> dict[str, float]:
    """The metrics, averaged over the queries."""
    return {
        name: float((compared.map_at_r() if kind == "map" else _KINDS[kind](compared, k)).mean())
        for name, (kind, k) in metrics.items()
    }


def evaluate_retrieval(
    queries: ArrayLike,
    documents: ArrayLike | Iterable[ArrayLike],
    qrels: ArrayLike | None = None,
    metrics: str | Sequence[str] = ("recall@1", "recall@10", "ndcg@10"),
    *,
    relevant: ArrayLike | None = None,
    pairs: ArrayLike | None = None,
) -> dict[str, float]:
    """Rank all documents for each query by cosine, exactly, and measure; ties go to the lower index.

    Parameters
    ----------
    queries : array of shape (Q, d)
    documents : array of shape (N, d), or an iterable of blocks
        As the candidates of `top_k`: files are read block by block.
    qrels : as `relevant` or `pairs`
        The shape tells which of the two. An array of shape (Q, 2) may be either: it is taken as pairs if its first
        column is 0, 1, … Q − 1, as the one of the two whose indices are in range if only one is, and is refused
        otherwise. A list of Q lists is `relevant`.
    metrics : sequence of str
        "recall@k", "precision@k", "mrr@k", "ndcg@k" with a number for k, and "map@r". A k beyond N ranks all N.
    relevant : integer array of shape (Q,) or (Q, r), or sequence of sequences
        Each query's relevant documents, at least one; −1: none.
    pairs : integer array of shape (P, 2)
        A query and a document relevant to it in each row, as `Trainer.fit` takes them. Queries without a pair are
        left out of the means.

    Returns
    -------
    dict of floats, by the names given

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, an index is out of range, a query has no relevant document, a metric is unknown, or
        `qrels` is ambiguous.

    References
    ----------
    Manning, Raghavan & Schütze (2008), Introduction to Information Retrieval, chapter 8.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rt.evaluate_retrieval(np.eye(3), np.eye(3)[[1, 0, 2]], [1, 0, 1], ["recall@1", "mrr@2"])
    {'recall@1': 0.6666666666666666, 'mrr@2': 0.6666666666666666}
    >>> rt.evaluate_retrieval(np.eye(3), np.eye(3)[[1, 0, 2]], pairs=[[0, 1], [2, 1]], metrics=["recall@1"])
    {'recall@1': 0.5}
    """
    known = parsed(metrics)
    q = check.stored_array("queries", queries, 2)
    near = Neighbours(q, documents, ("queries", "documents"))
    given = {"qrels": qrels, "relevant": relevant, "pairs": pairs}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ValueError(f"relevant or pairs must be given, one of them, got {' and '.join(names) or 'neither'}")
    if qrels is not None:
        relevant, pairs = (None, qrels) if _are_pairs(qrels, len(q), near.size) else (qrels, None)
    stop = 2**62 if near.size is None else near.size
    if pairs is None:
        query_rows, document_rows = None, _relevant(relevant, len(q), stop)
    else:
        query_rows, document_rows = _paired(pairs, len(q), stop)
    ranks, _ = near.search(depth_of(known, int(document_rows.counts.max())), rows=query_rows)
    assert near.size is not None  # that of an iterable is known now
    if document_rows.documents.max() >= near.size:
        name, worst = "relevant" if pairs is None else "pairs", document_rows.documents.max()
        raise ValueError(f"{name} must name documents in [0, {near.size - 1}], got {worst}")
    return means(hits(ranks, document_rows), known)


def _paired(pairs: ArrayLike, count: int, stop: int) -> tuple[Indices, Relevant]:
    """The queries that have a pair, and the documents relevant to these."""
    array = check.integer_array("pairs", pairs, (None, 2))
    if not len(array):
        raise ValueError(f"pairs must not be empty, got shape {array.shape}")
    for column, (side, end) in zip(array.T, (("queries", count), ("documents", stop)), strict=True):
        if column.min() < 0 or column.max() >= end:
            worst = column.min() if column.min() < 0 else column.max()
            raise ValueError(f"pairs must name rows of {side}, in [0, {end - 1}], got {worst}")
    query_rows, places = np.unique(array[:, 0], return_inverse=True)
    return query_rows, _distinct(places, array[:, 1], len(query_rows))


def _are_pairs(qrels: Any, queries: int, documents: int | None) -> bool:
    """Whether `qrels` is pairs of a query and a document, and not the relevant documents of each query."""
    if isinstance(qrels, (list, tuple)):
        return len(qrels) not in (0, queries) and all(np.shape(row) == (2,) for row in qrels)
    array = np.asarray(qrels)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        return False
    if len(array) != queries:
        return True
    stop = 2**62 if documents is None else documents
    may_be_pairs = array.min() >= 0 and array[:, 0].max() < queries and array[:, 1].max() < stop
    may_be_documents = array.max() < stop
    if may_be_pairs and may_be_documents and (array[:, 0] != np.arange(queries)).any():
        raise ValueError(
            f"qrels of shape ({queries}, 2) may be pairs of a query and a document, or two documents relevant to "
            "each query: give it as pairs= or as relevant="
        )
    return bool(may_be_pairs)


def evaluate_labels(queries: np.ndarray, documents: np.ndarray, labels: np.ndarray, metric: str) -> float:
    """A metric where the relevant documents of query i are the others of its label; document i itself is not ranked.

    Rows whose label no other row has are left out.
    """
    known = parsed(metric)
    relevant = np.bincount(labels)[labels] - 1
    query_rows = np.flatnonzero(relevant > 0)
    if not len(query_rows):
        raise ValueError("validation must have a label that at least two rows share")
    near = Neighbours(queries, documents)
    depth = depth_of(known, int(relevant.max()))
    ranks, _ = near.search(depth, rows=query_rows, exclude=query_rows[:, np.newaxis])
    found = (labels[ranks] == labels[query_rows, np.newaxis]) & (ranks >= 0)
    return means(Hits(found, relevant[query_rows]), known)[metric]


def evaluate_links(table: np.ndarray, links: np.ndarray, known_links: np.ndarray, metric: str) -> float:
    """A metric where the relevant nodes of each node in `links` are those at the other end of its links.

    Neither the node itself nor the nodes that `known_links` joins it to are ranked.
    """
    kinds, count = parsed(metric), len(table)
    held_out, known = (_both_ways(x, count) for x in (links, known_links))
    held_out = np.setdiff1d(held_out, known)
    if not len(held_out):
        raise ValueError("validation must have an edge that is not among edges")
    query_rows, places, counts = np.unique(held_out // count, return_inverse=True, return_counts=True)
    masked = np.column_stack([query_rows, _targets(known, query_rows, count)])
    depth = depth_of(kinds, int(counts.max()))
    ranks, _ = Neighbours(table, table).search(depth, rows=query_rows, exclude=masked)
    return means(hits(ranks, Relevant(places, held_out % count, counts)), kinds)[metric]


def _both_ways(links: Indices, count: int) -> Indices:
    """Every link as two numbers, source · n + target, ascending; none of a node to itself."""
    both = np.concatenate([links, links[:, ::-1]])
    both = both[both[:, 0] != both[:, 1]]
    return np.unique(both[:, 0] * count + both[:, 1])


def _targets(numbers: Indices, sources: Indices, count: int) -> Indices:
    """The targets of each source, as (sources, most targets of one) with −1 beyond the last."""
    first = np.searchsorted(numbers, sources * count)
    lengths = np.searchsorted(numbers, (sources + 1) * count) - first
    places = np.arange(max(int(lengths.max(initial=0)), 1))
    inside = places < lengths[:, np.newaxis]
    return np.where(inside, numbers[np.where(inside, first[:, np.newaxis] + places, 0)] % count, -1)
