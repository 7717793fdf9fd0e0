"""How good a retriever is: ranks of what is relevant, and how a space is filled."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain._primitives._engine import Rows
from rvtrain._primitives._norms import EPS, checked_inverse_norms
from rvtrain.functional import cosine_similarity, logsumexp
from rvtrain.mining import HardNegativeMiner
from rvtrain.mining._candidates import candidates_of
from rvtrain.mining._search import no_limits, search
from rvtrain.mining._selection_kernels import BY_SCORE, Rule

_BLOCK = 1024


class Hits:
    """Which places of each query's ranking hold something relevant, and how much is relevant at all."""

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
        gains = 1.0 / np.log2(2.0 + np.arange(k))
        ideal = np.cumsum(gains)[np.minimum(self.relevant, k) - 1]
        return self.found[:, :k] @ gains[: self.depth] / ideal

    def map_at_r(self) -> np.ndarray:
        places = np.arange(1, self.depth + 1)
        counted = self.found & (places <= self.relevant[:, np.newaxis])
        return (counted * np.cumsum(counted, axis=1) / places).sum(axis=1) / self.relevant


def hits(ranked: Any, relevant: Any) -> Hits:
    """Compare rankings with what is relevant."""
    ranks = check.integer_array("ranked", ranked, (None, None))
    if not ranks.size:
        raise ValueError(f"ranked must not be empty, got shape {ranks.shape}")
    wanted = _relevant(relevant, len(ranks))
    found = np.empty(ranks.shape, bool)
    for start in range(0, len(ranks), _BLOCK):
        part = slice(start, start + _BLOCK)
        same = ranks[part, :, np.newaxis] == wanted[part, np.newaxis, :]
        found[part] = (same & (ranks[part] >= 0)[:, :, np.newaxis]).any(axis=2)
    return Hits(found, (wanted >= 0).sum(axis=1))


def _relevant(relevant: Any, count: int) -> np.ndarray:
    """As an array (Q, r) of distinct indices, padded with −1."""
    ragged = isinstance(relevant, (list, tuple)) and any(np.ndim(row) for row in relevant)
    if ragged and len({len(row) for row in relevant}) > 1:
        width = max(map(len, relevant))
        relevant = [[*row, *[-1] * (width - len(row))] for row in relevant]
    shape = (count,) if np.ndim(relevant) == 1 else (count, None)
    wanted = np.sort(check.integer_array("relevant", relevant, shape).reshape(count, -1), axis=1)
    wanted[:, 1:][wanted[:, 1:] == wanted[:, :-1]] = -1
    if not (wanted >= 0).any(axis=1).all():
        row = int(np.argmin((wanted >= 0).any(axis=1)))
        raise ValueError(f"relevant must name at least one document for each query, got none in row {row}")
    return wanted


def _at_k(name: str, formula: str, reference: str, of: Callable[[Hits, int], np.ndarray], example: str) -> Callable:
    def metric(ranked: Any, relevant: Any, k: int) -> float:
        k = check.neighbours(k)
        compared = hits(ranked, relevant)
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
        If shapes do not fit, or a query has nothing relevant.

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
    compared = hits(ranked, relevant)
    if compared.depth < compared.relevant.max():
        raise ValueError(f"ranked must have at least R = {compared.relevant.max()} columns, got {compared.depth}")
    return float(compared.map_at_r().mean())


def alignment(x: Any, y: Any, alpha: float = 2.0) -> float:
    r"""How near what belongs together is: the mean of :math:`\|\hat x_i - \hat y_i\|^α`, of unit vectors.

    Parameters
    ----------
    x, y : arrays of shape (n, d), float32 or float64
    alpha : float
        α in (0, 1000].

    Returns
    -------
    float
        0 where all pairs coincide; smaller is better.

    Raises
    ------
    TypeError, ValueError
        If shapes differ, something is empty or not finite, or α ≤ 0.

    References
    ----------
    Wang & Isola (2020), Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere, arXiv:2005.10242.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rt.alignment(np.eye(2), np.eye(2)[::-1])
    2.0000000000000004
    """
    x, y = check.float_array("x", x, 2), check.float_array("y", y, 2)
    check.same_shape("y", y, "x", x.shape)
    alpha = check.number("alpha", alpha, low=0.0, high=1000.0, open_low=True)
    for name, values in (("x", x), ("y", y)):
        check.finite(name, values)
    distances = np.linalg.norm(_unit(x) - _unit(y), axis=1)
    return float((distances**alpha).mean())


def uniformity(x: Any, t: float = 2.0) -> float:
    r"""How evenly unit vectors fill the sphere: :math:`\log` of the mean of :math:`e^{-t \|\hat x_i - \hat x_j\|^2}`.

    The mean is over all pairs i < j. Rows are taken a block at a time: memory grows with n, not with n².

    Parameters
    ----------
    x : array of shape (n, d), n ≥ 2, float32 or float64
    t : float
        t > 0.

    Returns
    -------
    float
        At most 0, where all coincide; smaller is better.

    Raises
    ------
    TypeError, ValueError
        If x has fewer than two rows or is not finite, or t ≤ 0.

    References
    ----------
    Wang & Isola (2020), arXiv:2005.10242.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rt.uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    -8.0
    """
    x = check.float_array("x", x, 2)
    check.finite("x", x)
    t = check.number("t", t, low=0.0, open_low=True)
    if len(x) < 2:
        raise ValueError(f"x must have at least two rows, got shape {x.shape}")
    wide, parts = x.astype(np.float64), []
    for start in range(0, len(x), 256):
        exponents = 2.0 * t * (cosine_similarity(wide[start : start + 256], wide) - 1.0)
        rows = np.arange(len(exponents))
        exponents[rows, start + rows] = -np.inf
        parts.append(logsumexp(exponents, axis=None))
    return float(logsumexp(np.array(parts)) - np.log(len(x) * (len(x) - 1.0)))


def _unit(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), EPS)


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
        elif kind in _KINDS and k.isdigit() and int(k) > 0:
            known[name] = (kind, int(k))
        else:
            raise ValueError(f"metrics must be {', '.join(f'{kind}@k' for kind in _KINDS)} or map@r, got {name!r}")
    return known


def depth_of(metrics: dict[str, tuple[str, int]], most_relevant: int) -> int:
    """How many ranks these metrics need."""
    return max(k or most_relevant for _, k in metrics.values())


def means(compared: Hits, metrics: dict[str, tuple[str, int]]) -> dict[str, float]:
    """The metrics, averaged over the queries."""
    return {
        name: float((compared.map_at_r() if kind == "map" else _KINDS[kind](compared, k)).mean())
        for name, (kind, k) in metrics.items()
    }


def evaluate_retrieval(
    queries: Any, documents: Any, relevant: Any, metrics: Sequence[str] = ("recall@1", "recall@10", "ndcg@10")
) -> dict[str, float]:
    """Rank all documents for each query by cosine, exactly, and measure; ties go to the lower index.

    Parameters
    ----------
    queries : array of shape (Q, d), float32 or float64
    documents : array of shape (N, d), or an iterable of blocks
        As the candidates of `top_k`: files are read block by block.
    relevant : integer array of shape (Q,) or (Q, r), or sequence of sequences
        Each query's relevant documents, at least one; −1: none there.
    metrics : sequence of str
        "recall@k", "precision@k", "mrr@k", "ndcg@k" with a number for k, and "map@r".

    Returns
    -------
    dict of floats, by the names given

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, a query has nothing relevant, or a metric is unknown.

    References
    ----------
    Manning, Raghavan & Schütze (2008), Introduction to Information Retrieval, chapter 8.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rt.evaluate_retrieval(np.eye(3), np.eye(3)[[1, 0, 2]], [1, 0, 1], ["recall@1", "mrr@2"])
    {'recall@1': 0.6666666666666666, 'mrr@2': 0.6666666666666666}
    """
    known = parsed(metrics)
    q = check.float_array("queries", queries, 2)
    wanted = _relevant(relevant, len(q))
    depth = depth_of(known, int((wanted >= 0).sum(axis=1).max()))
    pool = candidates_of("documents", documents, q.shape[1], "queries", q.dtype)
    q = check.readable(q, pool.dtype)
    rows = Rows(q, checked_inverse_norms("queries", q))
    ranked, _ = search(rows, pool, depth, Rule(BY_SCORE), no_limits(len(q), pool.dtype))  # −1 beyond the last
    return means(hits(ranked, wanted), known)


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
    found = np.zeros((len(asking), depth), bool)
    near = _without(asking[:, np.newaxis], queries[asking], documents, depth)
    found[:, : near.shape[1]] = (labels[near] == labels[asking, np.newaxis]) & (near >= 0)
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
    asking = np.unique(wanted // count)
    relevant, hidden = (_lists(x, asking, count) for x in (wanted, known))
    depth = depth_of(kinds, relevant.shape[1])
    near = _without(np.column_stack([asking, hidden]), table[asking], table, depth)
    ranked = np.pad(near, ((0, 0), (0, depth - near.shape[1])), constant_values=-1)
    return means(hits(ranked, relevant), kinds)[metric]


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
