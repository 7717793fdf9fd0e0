"""Searches of candidates of which each rank has some rows: each finds its best, and all merge them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain.distributed._ranks import Ranks
from rvtrain.mining._candidates import Prepared
from rvtrain.mining._neighbours import Neighbours
from rvtrain.mining._search import METHODS
from rvtrain.mining._strategy import MiningStrategy

_BY_SCORE = MiningStrategy.HARDEST, MiningStrategy.SEMI_HARD


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
    sizes = ranks.agree(facts, (near.size,))[:, 0]
    if k > sizes.sum():
        raise ValueError(f"k must be in [1, {sizes.sum()}], got {k}")
    indices, scores = _merged(ranks, sizes, indices, scores, k)
    return (scores[0], indices[0]) if q.ndim == 1 else (scores, indices)


def mine_of_ranks(
    miner: Any,
    ranks: Ranks,
    searched: tuple[Any, Any, Any],
    given: tuple[Any, Any, Any],
    replaced: dict[str, Any],
    options: dict[str, Any],
    return_scores: bool,
) -> Any:
    """As `HardNegativeMiner.mine`, for strategies that take the best by score.

    searched are anchors, candidates of this rank, and k; given are positives, exclude and rescore; replaced are
    filters, and options other arguments of `mine`.
    """
    anchors, candidates, k = searched
    positives, exclude, rescore = given
    with ranks.together():
        k = check.neighbours(k)
        check.flag("return_scores", return_scores)
        source = candidates.source if isinstance(candidates, Prepared) else candidates
        if np.ndim(source) != 2:
            raise TypeError("candidates must be one array (N, d) with comm, got an iterable of blocks")
        a = check.stored_array("anchors", anchors, (1, 2))
        filters = miner.filters.replaced(**replaced)
        if miner.strategy not in _BY_SCORE or filters.sampling == "random":
            raise ValueError(f"comm is for strategies without draws, hardest and semi_hard, got {miner!r}")
        if filters.range_min or filters.range_max is not None or rescore is not None:
            raise ValueError("comm is not for range_min, range_max and rescore, which go by ranks among all")
        if positives is not None and np.asarray(positives).dtype.kind != "f":
            raise ValueError("positives must be vectors with comm, got indices")
        if positives is None and miner.strategy is MiningStrategy.SEMI_HARD:
            raise ValueError("semi_hard needs positives with comm, got None")
    facts = {"anchors": f"{a.shape} {a.dtype}", "k": k, "miner": repr(miner), "filters": repr(filters)}
    sizes = ranks.agree(facts, (len(source),))[:, 0]
    first, own = int(sizes[: ranks.rank].sum()), None
    with ranks.together():
        if exclude is not None:
            shape = (None,) * max(1, np.ndim(exclude))
            found = check.indices("exclude", exclude, shape, int(sizes.sum()), missing=True)
            own = np.where((found >= first) & (found < first + len(source)), found - first, -1)
        indices, scores = miner.mine(
            a, candidates, k, positives=positives, exclude=own, return_scores=True, **replaced, **options
        )
    indices, scores = _merged(ranks, sizes, np.atleast_2d(indices), np.atleast_2d(scores), k)
    if a.ndim == 1:
        indices, scores = indices[0], scores[0]
    return (indices, scores) if return_scores else indices


def _merged(
    ranks: Ranks, sizes: NDArray[np.int64], indices: NDArray[np.int64], scores: NDArray[np.floating], k: int
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """The k best of all ranks, from the best of each among its own `sizes[rank]` candidates, (B, …); −1: none."""
    widths = ranks.agree({"dtype of the scores": scores.dtype}, (indices.shape[1],))[:, 0].copy()
    indices = np.where(indices < 0, -1, indices + sizes[: ranks.rank].sum())
    all_scores, all_indices = (
        ranks.gathered(np.ascontiguousarray(x.T), widths).T for x in (scores, indices.astype(np.int64))
    )
    order = np.lexsort((all_indices, -all_scores), axis=1)[:, :k]
    return np.take_along_axis(all_indices, order, axis=1), np.take_along_axis(all_scores, order, axis=1)
