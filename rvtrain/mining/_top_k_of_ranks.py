"""`top_k` over candidates of which each rank has some rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain.distributed._ranks import Ranks
from rvtrain.mining._neighbours import Neighbours
from rvtrain.mining._search import METHODS


def top_k_of_ranks(
    ranks: Ranks, queries: Any, candidates: Any, k: int, method: str
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """As `top_k`: each rank finds the k best of its own candidates, and all ranks merge all of these.

    Each rank gets k scores and indices of every query from each other rank, and scores its own candidates alone.
    """
    with ranks.together():
        q = check.stored_array("queries", queries, (1, 2))
        near = Neighbours(np.atleast_2d(q), candidates)
        k = check.integer("k", k, low=1)
        indices, scores = near.search(k, method=check.choice("method", method, METHODS))
        assert near.size is not None  # that of an iterable is known now
    facts = {"shape of queries": q.shape, "dtype of the scores": scores.dtype, "k": k, "method": method}
    found = ranks.agree(facts, (near.size, indices.shape[1]))
    sizes, widths = found[:, 0], found[:, 1].copy()
    total = int(sizes.sum())
    if k > total:
        raise ValueError(f"k must be in [1, {total}], got {k}")
    everyones = [ranks.gathered(np.ascontiguousarray(x.T), widths).T for x in (scores, indices)]
    firsts = np.repeat(np.cumsum(sizes) - sizes, widths)
    all_scores, all_indices = everyones[0], everyones[1] + firsts
    order = np.lexsort((all_indices, -all_scores), axis=1)[:, :k]
    scores, indices = (np.take_along_axis(x, order, axis=1) for x in (all_scores, all_indices))
    return (scores[0], indices[0]) if q.ndim == 1 else (scores, indices)
