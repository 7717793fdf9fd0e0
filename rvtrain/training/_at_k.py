"""Metrics of rankings that are already there."""

from collections.abc import Callable

from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain.training._hits import Hits, PerQuery, hits, ranked_documents, relevant_documents

Metric = Callable[[ArrayLike, ArrayLike, int], float]


def _at_k(name: str, formula: str, reference: str, of: Callable[[Hits, int], PerQuery], example: str) -> Metric:
    """Make the public function of a metric at k."""

    def metric(ranked: ArrayLike, relevant: ArrayLike, k: int) -> float:
        k = check.neighbours(k)
        ranks = ranked_documents(ranked)
        compared = hits(ranks, relevant_documents(relevant, len(ranks)))
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
accuracy_at_k = _at_k(
    "accuracy", "Accuracy, or hit rate: the fraction of the queries with a relevant document among the first k.",
    _MANNING, Hits.accuracy, "1.0",
)  # fmt: skip
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
map_at_k = _at_k(
    "map", "Mean average precision: Σ over relevant ranks i ≤ k of precision at i, over min(k, R), R relevant "
    "documents.\n\n    As in sentence-transformers; trec_eval divides by R also where R > k.",
    _MANNING, Hits.map, "0.37499999999999994",
)  # fmt: skip


def ndcg_at_k(ranked: ArrayLike, relevant: ArrayLike, k: int, *, grades: ArrayLike | None = None) -> float:
    """Normalised discounted gain: Σ grade / log₂(1 + rank) over the first k documents, over its largest value.

    The mean over the queries. The gain of a document is its grade, as in trec_eval; 1 without grades.

    Parameters
    ----------
    ranked, relevant, k : as in `recall_at_k`
    grades : numbers in the shape of relevant, optional
        How relevant each document is, ≥ 0; a document of grade 0 is not relevant.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        As `recall_at_k`, and if grades do not fit or are negative.

    References
    ----------
    Järvelin & Kekäläinen (2002), Cumulated Gain-based Evaluation of IR Techniques, ACM TOIS 20(4).

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.ndcg_at_k([[4, 7, 2], [1, 0, 3]], [[7, 2], [5, 3]], k=3)
    0.5
    >>> round(rt.ndcg_at_k([[4, 7, 2]], [[7, 2]], k=3, grades=[[1, 3]]), 6)
    0.586883
    """
    k = check.neighbours(k)
    ranks = ranked_documents(ranked)
    compared = hits(ranks, relevant_documents(relevant, len(ranks), grades=grades))
    if compared.depth < k:
        raise ValueError(f"ranked must have at least k = {k} columns, got {compared.depth}")
    return float(compared.ndcg(k).mean())


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
    ranks = ranked_documents(ranked)
    compared = hits(ranks, relevant_documents(relevant, len(ranks)))
    if compared.depth < compared.relevant.max():
        raise ValueError(f"ranked must have at least R = {compared.relevant.max()} columns, got {compared.depth}")
    return float(compared.map_at_r().mean())
