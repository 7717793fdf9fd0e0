"""Retrieval metrics: how well the relevant documents are ranked."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.functional import PRECISIONS
from rvtrain.mining import Neighbours
from rvtrain.mining._quantized import QuantizedNeighbours
from rvtrain.training._hits import Hits, Indices, PerQuery, Relevant, distinct, grades_of, hits, relevant_documents

_KINDS: dict[str, Callable[[Hits, int], PerQuery]] = {
    "recall": Hits.recall, "precision": Hits.precision, "accuracy": Hits.accuracy, "mrr": Hits.mrr,
    "ndcg": Hits.ndcg, "map": Hits.map,
}  # fmt: skip


def parsed(metrics: str | Sequence[str], argument: str = "metrics") -> dict[str, tuple[str, int]]:
    """Kind and k of metrics by name, as "recall@10", or "map@r"; errors name the argument."""
    known = {}
    for name in (metrics,) if isinstance(metrics, str) else metrics:
        kind, _, k = str(name).partition("@")
        if str(name) == "map@r":
            known[name] = ("map@r", 0)
        elif kind in _KINDS and k.isdecimal() and int(k) > 0:
            known[name] = (kind, int(k))
        else:
            kinds = ", ".join(f"{kind}@k" for kind in _KINDS)
            raise ValueError(f"{argument} must be {kinds} or map@r, got {name!r}")
    return known


def depth_of(metrics: dict[str, tuple[str, int]], most_relevant: int) -> int:
    """The number of ranks that these metrics need; it may exceed the number of documents."""
    return max(k or most_relevant for _, k in metrics.values())


def values(compared: Hits, metrics: dict[str, tuple[str, int]]) -> dict[str, PerQuery]:
    """The metrics of each query."""
    return {
        name: compared.map_at_r() if kind == "map@r" else _KINDS[kind](compared, k)
        for name, (kind, k) in metrics.items()
    }


def means(compared: Hits, metrics: dict[str, tuple[str, int]]) -> dict[str, float]:
    """The metrics, averaged over the queries."""
    return {name: float(each.mean()) for name, each in values(compared, metrics).items()}


@overload
def evaluate_retrieval(
    queries: ArrayLike,
    documents: ArrayLike | Iterable[ArrayLike],
    qrels: ArrayLike | None = ...,
    metrics: str | Sequence[str] = ...,
    *,
    relevant: ArrayLike | None = ...,
    pairs: ArrayLike | None = ...,
    grades: ArrayLike | None = ...,
    truncate_dim: int | None = ...,
    precision: str = ...,
    ranges: ArrayLike | None = ...,
    rescore_multiplier: int = ...,
    per_query: Literal[False] = ...,
) -> dict[str, float]: ...


@overload
def evaluate_retrieval(
    queries: ArrayLike,
    documents: ArrayLike | Iterable[ArrayLike],
    qrels: ArrayLike | None = ...,
    metrics: str | Sequence[str] = ...,
    *,
    relevant: ArrayLike | None = ...,
    pairs: ArrayLike | None = ...,
    grades: ArrayLike | None = ...,
    truncate_dim: int | None = ...,
    precision: str = ...,
    ranges: ArrayLike | None = ...,
    rescore_multiplier: int = ...,
    per_query: Literal[True],
) -> dict[str, PerQuery]: ...


def evaluate_retrieval(
    queries: ArrayLike,
    documents: ArrayLike | Iterable[ArrayLike],
    qrels: ArrayLike | None = None,
    metrics: str | Sequence[str] = ("recall@1", "recall@10", "ndcg@10"),
    *,
    relevant: ArrayLike | None = None,
    pairs: ArrayLike | None = None,
    grades: ArrayLike | None = None,
    truncate_dim: int | None = None,
    precision: str = "float32",
    ranges: ArrayLike | None = None,
    rescore_multiplier: int = 4,
    per_query: bool = False,
) -> dict[str, float] | dict[str, PerQuery]:
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
        "recall@k", "precision@k", "accuracy@k", "mrr@k", "ndcg@k", "map@k" with a number for k, and "map@r". A k
        beyond N ranks all N.
    relevant : integer array of shape (Q,) or (Q, r), or sequence of sequences
        Each query's relevant documents, at least one; −1: none.
    pairs : integer array of shape (P, 2)
        A query and a document relevant to it in each row, as `Trainer.fit` takes them. Queries without a pair are
        left out of the means.
    grades : numbers in the shape of relevant, or of shape (P,) for pairs, optional
        How relevant the documents are, ≥ 0, for "ndcg@k", as in `ndcg_at_k`. For the other metrics a document is
        relevant if its grade is above 0.
    truncate_dim : int, optional
        Use the first so many dimensions of all vectors, as for embeddings that were trained by `MatryoshkaLoss`.
    precision : {"float32", "float16", "int8", "uint8", "binary", "ubinary"}
        Rank documents as they are after `quantize` to this precision, or conversion to float16, by queries in
        floating point, as `top_k_quantized` does. "float32": as they are.
    ranges : array of shape (2, d), optional
        Least and greatest value of each column, for "int8" and "uint8". None: those of the documents, which then are
        an array.
    rescore_multiplier : int
        For bits: rank so many times the needed number of documents by their bits, and these by the cosine of the
        query and the bits. 0: by the bits alone.
    per_query : bool
        Return the metrics of each query, which `paired_test` compares, in place of their means.

    Returns
    -------
    dict of floats, by the names given
        With per_query of float64 arrays (Q,), NaN for queries without a relevant document.

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
    check.flag("per_query", per_query)
    q = check.stored_array("queries", queries, 2)
    if truncate_dim is not None:
        truncate_dim = check.integer("truncate_dim", truncate_dim, low=1, high=q.shape[1])
        documents = _truncated(documents, q.shape[1], truncate_dim)
        q = q[:, :truncate_dim]
    if check.choice("precision", precision, ("float32", "float16", *PRECISIONS)) == "float32":
        near: Neighbours | QuantizedNeighbours = Neighbours(q, documents, ("queries", "documents"))
    else:
        near = QuantizedNeighbours(q, documents, precision, ranges, rescore_multiplier)
    given = {"qrels": qrels, "relevant": relevant, "pairs": pairs}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ValueError(f"relevant or pairs must be given, one of them, got {' and '.join(names) or 'neither'}")
    if qrels is not None:
        relevant, pairs = (None, qrels) if _are_pairs(qrels, len(q), near.size) else (qrels, None)
    stop = 2**62 if near.size is None else near.size
    if pairs is None:
        query_rows, document_rows = None, relevant_documents(relevant, len(q), stop, grades)
    else:
        query_rows, document_rows = _paired(pairs, len(q), stop, grades)
    ranks, _ = near.search(depth_of(known, int(document_rows.counts.max())), rows=query_rows)
    assert near.size is not None  # that of an iterable is known now
    if document_rows.documents.max() >= near.size:
        name, worst = "relevant" if pairs is None else "pairs", document_rows.documents.max()
        raise ValueError(f"{name} must name documents in [0, {near.size - 1}], got {worst}")
    compared = hits(ranks, document_rows)
    return _of_all(values(compared, known), query_rows, len(q)) if per_query else means(compared, known)


def _of_all(each: dict[str, PerQuery], query_rows: Indices | None, count: int) -> dict[str, PerQuery]:
    """The values of all queries, NaN for those that are not in `query_rows`."""
    if query_rows is None:
        return each
    filled = {name: np.full(count, np.nan) for name in each}
    for name, of_rows in each.items():
        filled[name][query_rows] = of_rows
    return filled


def _truncated(documents: Any, dim: int, kept: int) -> Any:
    """The first `kept` of `dim` columns of documents, or of each block of an iterable of them."""

    def cut(block: Any) -> NDArray[Any]:
        rows = block if isinstance(block, np.ndarray) else np.asarray(block)
        if rows.ndim != 2 or rows.shape[1] != dim:
            raise ValueError(f"documents must have {dim} columns like queries, got shape {rows.shape}")
        return rows[:, :kept]

    is_array = hasattr(documents, "shape") or not isinstance(documents, Iterable)
    if is_array or (isinstance(documents, (list, tuple)) and not (documents and np.ndim(documents[0]) == 2)):
        return cut(documents)
    return map(cut, documents)


def _paired(pairs: ArrayLike, count: int, stop: int, grades: ArrayLike | None = None) -> tuple[Indices, Relevant]:
    """The queries that have a pair, and the documents relevant to these."""
    array = check.integer_array("pairs", pairs, (None, 2))
    if not len(array):
        raise ValueError(f"pairs must not be empty, got shape {array.shape}")
    for column, (side, end) in zip(array.T, (("queries", count), ("documents", stop)), strict=True):
        if column.min() < 0 or column.max() >= end:
            worst = column.min() if column.min() < 0 else column.max()
            raise ValueError(f"pairs must name rows of {side}, in [0, {end - 1}], got {worst}")
    if grades is None:
        query_rows, places = np.unique(array[:, 0], return_inverse=True)
        return query_rows, distinct(places, array[:, 1], len(query_rows))
    graded = grades_of(grades, len(array))
    array, graded = array[graded > 0], graded[graded > 0]
    if not len(array):
        raise ValueError("grades must be above 0 for a pair at least, got none")
    query_rows, places = np.unique(array[:, 0], return_inverse=True)
    return query_rows, distinct(places, array[:, 1], len(query_rows), graded)


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


ByParts = Callable[[int, Callable[[slice], np.ndarray]], np.ndarray]
"""Called with a number of rows and a function of some of them; returns what the function returns for all."""


def _at_once(count: int, function: Callable[[slice], np.ndarray]) -> np.ndarray:
    return function(slice(0, count))


def evaluate_labels(
    queries: np.ndarray, documents: np.ndarray, labels: np.ndarray, metric: str, by_parts: ByParts = _at_once
) -> float:
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

    def ranked(part: slice) -> np.ndarray:
        rows = query_rows[part]
        return near.search(depth, rows=rows, exclude=rows[:, np.newaxis])[0]

    ranks = by_parts(len(query_rows), ranked)
    found = (labels[ranks] == labels[query_rows, np.newaxis]) & (ranks >= 0)
    return means(Hits(found, relevant[query_rows]), known)[metric]


def evaluate_links(
    table: np.ndarray, links: np.ndarray, known_links: np.ndarray, metric: str, by_parts: ByParts = _at_once
) -> float:
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
    near = Neighbours(table, table)
    ranks = by_parts(len(query_rows), lambda part: near.search(depth, rows=query_rows[part], exclude=masked[part])[0])
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
