"""How well the right name ranks among all names."""

from typing import NamedTuple

import numpy as np

import rvtrain as rt

DEPTH = 10


class Quality(NamedTuple):
    """Means over the queries, each of which has one right answer."""

    recall_1: float
    recall_10: float
    ndcg_10: float


def quality(queries: np.ndarray, documents: np.ndarray, right: np.ndarray) -> Quality:
    """Rank all documents for each query by cosine; right[i] is the one that query i should find.

    Recall@k: whether it is among the first k. NDCG@10: 1 / log₂(1 + rank) if its rank is at most 10.
    """
    _, found = rt.top_k(queries, documents, DEPTH)
    hits = found == right[:, np.newaxis]
    gains = 1.0 / np.log2(2.0 + np.arange(DEPTH))
    return Quality(float(hits[:, 0].mean()), float(hits.any(axis=1).mean()), float((hits @ gains).mean()))
