"""How good a retriever is: ranks of what is relevant."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain.mining import HardNegativeMiner
from rvtrain.mining._candidates import candidates_of
from rvtrain.mining._search import no_limits, search
from rvtrain.mining._selection_kernels import BY_SCORE, Rule

# Ranks that are looked up at a time.
_LOOKED_UP = 1 << 18


class Hits:
    """Which places of each query's ranking hold something relevant, and how much is relevant at all.

    A ranking ends with the last document: a k beyond its depth finds no more.
    """

    def __init__(self, found: np.ndarray, relevant: np.ndarray) -> None:
        self.found, self.relevant = found, relevant
        self.depth = found.shape[1]

    def recall(self, k: int) -> np.ndarray:
        return self.found[:, :k].sum(axis=1) / self.relevant

    def precision(self, k: int) -> np.ndarray:
        return self.found[:, :k].sum(axis=1) / k

    def mrr(self, k: int) -> np.ndarray:
        head = self.found[:, :k]
        return np.where(head.any(axis=1), 1.0 / (1 + head.argmax(axis=1)), 0.0)

    def ndcg(self, k: int) -> np.ndarray:
        k = min(k, max(self.depth, int(self.relevant.max())))
        gains = 1.0 / np.log2(2.0 + np.arange(k))
        ideal = np.cumsum(gains)[np.minimum(self.relevant, k) - 1]
        return self.found[:, :k] @ gains[: self.depth] / ideal

    def map_at_r(self) -> np.ndarray:
        places = np.arange(1, self.depth + 1)
        counted = self.found & (places <= self.relevant[:, np.newaxis])
        return (counted * np.cumsum(counted, axis=1) / places).sum(axis=1) / self.relevant


class Relevant(NamedTuple):
    """The relevant documents of each query, distinct, in the order of queries, then of documents."""

    queries: np.ndarray
    """(n,)"""
    documents: np.ndarray
    """(n,)"""
    counts: np.ndarray
    """(Q,) how many each query has"""


def hits(ranks: np.ndarray, relevant: Relevant) -> Hits:
    """Compare rankings (Q, depth) with what is relevant."""
    documents, stop = relevant.documents, int(relevant.documents.max()) + 1
    names = None
    if stop * len(ranks) > 2**62:  # a query and a document are looked up as one number, which they would not fit in
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
        wanted = np.arange(start, start + len(here))[:, np.newaxis] * stop + here
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        found[start : start + rows] = (known[place] == wanted) & (here >= 0) & (here < stop)
    return Hits(found, relevant.counts)


def _ranked(ranked: Any) -> np.ndarray:
    """Rankings (Q, depth) as their callers give them."""
    ranks = check.indices("ranked", ranked, (None, None), 2**62, missing=True)
    if not ranks.size:
        raise ValueError(f"ranked must not be empty, got shape {ranks.shape}")
    ordered = np.sort(ranks, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        row, place = np.argwhere(twice)[0]
        raise ValueError(f"ranked must not name a document twice, got {ordered[row, place]} twice in row {row}")
    return ranks


def _relevant(relevant: Any, count: int, stop: int = 2**62) -> Relevant:
    """What is relevant to each of `count` queries, of documents below `stop`."""
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
    wanted = _distinct(queries[there], documents[there], count)
    if not wanted.counts.all():
        row = int(np.argmin(wanted.counts > 0))
        raise ValueError(f"relevant must name at least one document for each query, got none in row {row}")
    return wanted


def _distinct(queries: np.ndarray, documents: np.ndarray, count: int) -> Relevant:
    order = np.lexsort((documents, queries))
    queries, documents = queries[order], documents[order]
    first = np.ones(len(order), bool)
    first[1:] = (queries[1:] != queries[:-1]) | (documents[1:] != documents[:-1])
    return Relevant(queries[first], documents[first], np.bincount(queries[first], minlength=count))


def _at_k(name: str, formula: str, reference: str, of: Callable[[Hits, int], np.ndarray], example: str) -> Callable:
    def metric(ranked: Any, relevant: Any, k: int) -> float:
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
        Each query's relevant documents, at least one; −1: none there.
    k : int

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, a query has nothing relevant, or a document is ranked twice for one query.

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
    "recall", "Recall: of what is relevant, the part among the first k.", _MANNING, Hits.recall, "0.75"
)
precision_at_k = _at_k(
    "precision", "Precision: of the first k, the part that is relevant.", _MANNING, Hits.precision, "0.5"
)
mrr_at_k = _at_k(
    "mrr", "Mean reciprocal rank: 1 / rank of the first relevant one, 0 beyond k.",
    "Voorhees (1999), The TREC-8 Question Answering Track Report.", Hits.mrr, "0.41666666666666663",
)  # fmt: skip
ndcg_at_k = _at_k(
    "ndcg", "Normalised gain: Σ 1 / log₂(1 + rank) over what is relevant among the first k, over the most possible.",
    "Järvelin & Kekäläinen (2002), Cumulated Gain-based Evaluation of IR Techniques, ACM TOIS 20(4).",
    Hits.ndcg, "0.5",
)  # fmt: skip


def map_at_r(ranked: Any, relevant: Any) -> float:
    """Mean average precision at R: with R relevant documents, (1/R) Σ over relevant ranks i ≤ R of precision at i.

    Parameters
    ----------
    ranked : integer array of shape (Q, ≥ R)
        Documents by rank, best first; as deep as the longest list of relevant ones.
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


_KINDS: dict[str, Callable[[Hits, int], np.ndarray]] = {
    "recall": Hits.recall, "precision": Hits.precision, "mrr": Hits.mrr, "ndcg": Hits.ndcg,
}  # fmt: skip


def parsed(metrics: Sequence[str]) -> dict[str, tuple[str, int]]:
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
    """How many ranks these metrics need; there may be fewer documents."""
    return max(k or most_relevant for _, k in metrics.values())


def means(compared: Hits, metrics: dict[str, tuple[str, int]]) -> dict[str, float]:
    """The metrics, averaged over the queries."""
    return {
        name: float((compared.map_at_r() if kind == "map" else _KINDS[kind](compared, k)).mean())
        for name, (kind, k) in metrics.items()
    }


def evaluate_retrieval(
    queries: Any,
    documents: Any,
    qrels: Any = None,
    metrics: Sequence[str] = ("recall@1", "recall@10", "ndcg@10"),
    *,
    relevant: Any = None,
    pairs: Any = None,
) -> dict[str, float]:
    """Rank all documents for each query by cosine, exactly, and measure; ties go to the lower index.

    Parameters
    ----------
    queries : array of shape (Q, d)
    documents : array of shape (N, d), or an iterable of blocks
        As the candidates of `top_k`: files are read block by block.
    qrels : as `relevant` or `pairs`
        Which of the two is told by the shape. An array of shape (Q, 2) may be either: it is taken as pairs if its
        first column is 0, 1, … Q − 1, as the one of them that it can be if an index is out of range for the other,
        and is refused otherwise. A list of Q lists is `relevant`.
    metrics : sequence of str
        "recall@k", "precision@k", "mrr@k", "ndcg@k" with a number for k, and "map@r". A k beyond N ranks all N.
    relevant : integer array of shape (Q,) or (Q, r), or sequence of sequences
        Each query's relevant documents, at least one; −1: none there.
    pairs : integer array of shape (P, 2)
        A query and a document relevant to it in each row, as `Trainer.fit` takes them. Queries without a pair are
        left out of the means.

    Returns
    -------
    dict of floats, by the names given

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, an index is out of range, a query has nothing relevant, a metric is unknown, or
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
    pool = candidates_of("documents", documents, q.shape[1], "queries", check.computed_dtype("queries", q))
    given = {"qrels": qrels, "relevant": relevant, "pairs": pairs}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ValueError(f"relevant or pairs must be given, one of them, got {' and '.join(names) or 'neither'}")
    if qrels is not None:
        relevant, pairs = (None, qrels) if _are_pairs(qrels, len(q), pool.size) else (qrels, None)
    stop = 2**62 if pool.size is None else pool.size
    if pairs is None:
        wanted = _relevant(relevant, len(q), stop)
    else:
        asking, wanted = _paired(pairs, len(q), stop)
        q = q if len(asking) == len(q) else q[asking]
    q = check.readable(q, pool.dtype)
    rows = Rows(q, checked_inverse_norms("queries", q))
    depth = depth_of(known, int(wanted.counts.max()))
    ranks, _ = search(rows, pool, depth, Rule(BY_SCORE), no_limits(len(q), pool.dtype))
    assert pool.size is not None  # of an iterable known only now
    if wanted.documents.max() >= pool.size:
        name = "relevant" if pairs is None else "pairs"
        raise ValueError(f"{name} must name documents in [0, {pool.size - 1}], got {wanted.documents.max()}")
    return means(hits(ranks, wanted), known)


def _paired(pairs: Any, count: int, stop: int) -> tuple[np.ndarray, Relevant]:
    """The queries that have a pair, and what is relevant to these."""
    array = check.integer_array("pairs", pairs, (None, 2))
    if not len(array):
        raise ValueError(f"pairs must not be empty, got shape {array.shape}")
    for column, (side, end) in zip(array.T, (("queries", count), ("documents", stop)), strict=True):
        if column.min() < 0 or column.max() >= end:
            worst = column.min() if column.min() < 0 else column.max()
            raise ValueError(f"pairs must name rows of {side}, in [0, {end - 1}], got {worst}")
    asking, rows = np.unique(array[:, 0], return_inverse=True)
    return asking, _distinct(rows, array[:, 1], len(asking))


def _are_pairs(qrels: Any, queries: int, documents: int | None) -> bool:
    """Whether this is pairs of a query and a document, and not the documents of each query."""
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
            "each query: say which, as pairs= or as relevant="
        )
    return bool(may_be_pairs)


def evaluate_labels(queries: np.ndarray, documents: np.ndarray, labels: np.ndarray, metric: str) -> float:
    """A metric where query i's relevant documents are the others of its label; document i itself is not ranked.

    Rows whose label nobody shares are left out.
    """
    known = parsed(metric)
    relevant = np.bincount(labels)[labels] - 1
    asking = np.flatnonzero(relevant > 0)
    if not len(asking):
        raise ValueError("validation must have a label that at least two rows share")
    depth = depth_of(known, int(relevant.max()))
    near = _without(asking[:, np.newaxis], queries[asking], documents, depth)
    found = (labels[near] == labels[asking, np.newaxis]) & (near >= 0)
    return means(Hits(found, relevant[asking]), known)[metric]


def evaluate_links(table: np.ndarray, links: np.ndarray, known_links: np.ndarray, metric: str) -> float:
    """A metric where the relevant nodes of each node in `links` are those at their other ends.

    Neither the node itself nor what `known_links` joins it to is ranked.
    """
    kinds, count = parsed(metric), len(table)
    wanted, known = (_both_ways(x, count) for x in (links, known_links))
    wanted = np.setdiff1d(wanted, known)
    if not len(wanted):
        raise ValueError("validation must have an edge that is not among edges")
    asking, rows, counts = np.unique(wanted // count, return_inverse=True, return_counts=True)
    hidden = np.column_stack([asking, _lists(known, asking, count)])
    near = _without(hidden, table[asking], table, depth_of(kinds, int(counts.max())))
    return means(hits(near, Relevant(rows, wanted % count, counts)), kinds)[metric]


def _without(hidden: np.ndarray, queries: np.ndarray, documents: np.ndarray, depth: int) -> np.ndarray:
    """The nearest documents of each query, except those hidden from it."""
    depth = min(depth, len(documents))
    return np.asarray(HardNegativeMiner.hardest().mine(queries, documents, depth, exclude=hidden))


def _both_ways(links: np.ndarray, count: int) -> np.ndarray:
    """Every link as two numbers, source · n + target, ascending; none of a node to itself."""
    both = np.concatenate([links, links[:, ::-1]])
    both = both[both[:, 0] != both[:, 1]]
    return np.unique(both[:, 0] * count + both[:, 1])


def _lists(numbers: np.ndarray, sources: np.ndarray, count: int) -> np.ndarray:
    """The targets of each source, padded with −1."""
    first = np.searchsorted(numbers, sources * count)
    lengths = np.searchsorted(numbers, (sources + 1) * count) - first
    places = np.arange(max(int(lengths.max(initial=0)), 1))
    inside = places < lengths[:, np.newaxis]
    return np.where(inside, numbers[np.where(inside, first[:, np.newaxis] + places, 0)] % count, -1)
