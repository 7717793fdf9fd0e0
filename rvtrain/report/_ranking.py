"""Ranks of the right documents, and the documents found instead, as a model embeds them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.mining import Neighbours
from rvtrain.text._texts import Texts, are_texts
from rvtrain.training._embedding import Sides, embedded
from rvtrain.training._featurizing import featurized
from rvtrain.training._hits import Indices, PerQuery, distinct, hits
from rvtrain.training._metrics import depth_of, parsed, values
from rvtrain.training._models import forward_rows
from rvtrain.training._options import check_model
from rvtrain.training._pair_data import PairData
from rvtrain.training._sparse import SparseRows, is_sparse

_DEPTH = 100
"""Number of ranks that are searched at least."""
_BLOCK_ROWS = 8192


class Ranking(NamedTuple):
    """The result of `rank_queries`: an entry for each of the Q queries that have a pair."""

    query_rows: Indices
    """(Q,) row of the query"""
    ranks: Indices
    """(Q,) rank of the first of its documents, from 1; depth + 1 where it is beyond `depth`"""
    expected: Indices
    """(Q,) row of the most similar of its documents"""
    expected_scores: PerQuery
    """(Q,) cosine of that document"""
    found: Indices
    """(Q,) row of the most similar document that is not one of its own; −1 if none was among the ranks searched"""
    found_scores: PerQuery
    """(Q,) cosine of that document; NaN if there is none"""
    metrics: dict[str, PerQuery]
    """Metrics of each query (Q,), by name"""
    depth: int
    """Number of ranks searched"""
    sizes: tuple[int, int]
    """Number of all queries and of all documents"""


def rank_queries(
    model: Any,
    queries: ArrayLike | SparseRows | Texts,
    documents: ArrayLike | SparseRows | Texts,
    pairs: ArrayLike | None = None,
    metrics: str | Sequence[str] = ("recall@1", "recall@10", "ndcg@10"),
    *,
    known: ArrayLike | None = None,
    memory_limit: int = 1 << 30,
) -> Ranking:
    r"""Rank all documents for each query that has a pair, and keep what `write_report` shows of it.

    With s the cosines of query q, D(q) its documents in `pairs`, and K(q) those in `known`:

    .. math:: \text{expected} = \arg\max_{p \in D(q)} s_{qp}, \quad
        \text{found} = \arg\max_{n \notin D(q) \cup K(q)} s_{qn}

    Ranks are those of `evaluate_retrieval`. At least 100 are searched, or as many as the metrics need.

    Parameters
    ----------
    model : model or None
        As of `Trainer`, with two sides or one; None compares the vectors as they are.
    queries, documents, pairs
        As in `Trainer.evaluate`.
    metrics : sequence of str
        As in `evaluate_retrieval`.
    known : integer array of shape (K, 2), optional
        More pairs that belong together, such as those trained on: their documents are ranked, but are not `found`.
    memory_limit : int
        Bytes that the embeddings of all documents may take; otherwise they pass in blocks.

    Returns
    -------
    Ranking

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, an index is out of range, or a metric is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from rvtrain.report import rank_queries
    >>> found = rank_queries(None, np.eye(3), np.eye(3)[[1, 0, 2]] + 0.1, [[0, 1], [2, 0]], "recall@1")
    >>> found.ranks, found.found, found.metrics
    (array([1, 2]), array([0, 2]), {'recall@1': array([1., 0.])})
    """
    kinds = parsed(metrics)
    if not kinds:
        raise ValueError("metrics must not be empty")
    memory_limit = check.integer("memory_limit", memory_limit, low=0)
    if model is not None and check_model(model):
        raise TypeError("rank_queries needs a model with forward and backward, got a table of embeddings")
    sides = None if model is None else Sides(model)
    if sides is None and any(is_sparse(x) or are_texts(x) for x in (queries, documents)):
        raise TypeError("without a model, queries and documents must be dense arrays of numbers")
    towers = (None, None) if sides is None else (sides.query, sides.document)
    rows = featurized(towers[0], "queries", queries), featurized(towers[1], "documents", documents)
    data = PairData(*rows, pairs)
    asking = np.unique(data.query_rows)
    own = distinct(np.searchsorted(asking, data.query_rows), data.document_rows, len(asking))
    wanted, places = np.unique(own.documents, return_inverse=True)
    if sides is None:
        columns = data.queries.shape[1], data.documents.shape[1]
        if columns[0] != columns[1]:
            raise ValueError(f"without a model, queries and documents must have as many columns, got {columns}")
        anchors, everything, answers = _floats(data.queries[asking]), data.documents, _floats(data.documents[wanted])
    else:
        anchors = forward_rows(sides.query, data.queries, asking)[0]
        everything = embedded(sides.document, data.documents, memory_limit)
        answers = forward_rows(sides.document, data.documents, wanted)[0]
    count = data.documents.shape[0]
    depth = min(count, max(_DEPTH, depth_of(kinds, int(own.counts.max()))))
    ranks, scores = Neighbours(anchors, everything, ("queries", "documents")).search(depth)
    compared = hits(ranks, own)
    first = np.where(compared.found.any(axis=1), 1 + compared.found.argmax(axis=1), depth + 1)
    cosines = _cosines(anchors, own.queries, answers, places)
    best = np.lexsort((own.documents, -cosines, own.queries))[np.cumsum(own.counts) - own.counts]
    others = ~compared.found & ~_known(known, data, asking, ranks) & (ranks >= 0)
    place = others.argmax(axis=1)[:, np.newaxis]
    is_other = others.any(axis=1)
    return Ranking(
        asking,
        first.astype(np.int64),
        own.documents[best],
        cosines[best],
        np.where(is_other, np.take_along_axis(ranks, place, 1)[:, 0], -1),
        np.where(is_other, np.take_along_axis(scores, place, 1)[:, 0].astype(np.float64), np.nan),
        values(compared, kinds),
        depth,
        (data.queries.shape[0], count),
    )


def _floats(rows: NDArray[Any]) -> NDArray[np.floating]:
    return check.readable(rows, check.computed_dtype("vectors", rows))


def _known(known: ArrayLike | None, data: PairData, asking: Indices, ranks: Indices) -> NDArray[np.bool_]:
    """Whether the document at each rank (Q, depth) is one that `known` gives to the query."""
    if known is None or not np.size(known):
        return np.zeros(ranks.shape, bool)
    pairs = check.integer_array("known", known, (None, 2))
    for side, table in enumerate((data.queries, data.documents)):
        check.indices(f"known[:, {side}]", pairs[:, side], (None,), table.shape[0])
    there = np.isin(pairs[:, 0], asking)
    if not there.any():
        return np.zeros(ranks.shape, bool)
    places = np.searchsorted(asking, pairs[there, 0])
    return hits(ranks, distinct(places, pairs[there, 1], len(asking))).found


def _cosines(left: NDArray[Any], rows: Indices, right: NDArray[Any], columns: Indices) -> PerQuery:
    """Cosine of each row of `left` with its row of `right`, float64."""
    out = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        a, b = left[rows[part]].astype(np.float64), right[columns[part]].astype(np.float64)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        out[part] = (a * b).sum(axis=1) / np.maximum(lengths, 1e-300)
    return out
