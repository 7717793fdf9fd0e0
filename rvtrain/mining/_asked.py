"""What a call of `HardNegativeMiner.mine` asks for, checked."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain.distributed._ranks import Ranks
from rvtrain.mining._arguments import excluded_of, ids_of
from rvtrain.mining._candidates import Candidates, candidates_of
from rvtrain.mining._filters import Filters
from rvtrain.mining._of_ranks import CandidatesOfRanks, digest
from rvtrain.mining._positives import Positives, positives_of
from rvtrain.mining._search import METHODS
from rvtrain.mining._selection_kernels import Limits
from rvtrain.mining._strategy import MiningStrategy

Given = tuple[Any, Any, Any, Any, Any, Any]
"""Anchors, candidates, positives, exclude, anchor_ids and candidate_ids, as they were given."""


class Asked(NamedTuple):
    """The arguments of a call, checked."""

    rows: Rows
    candidates: Candidates
    k: int
    single: bool
    filters: Filters
    positives: Positives | None
    own: NDArray[np.float64] | None
    """(B,) the least cosine of each anchor with its positives"""
    limits: Limits


def asked(
    miner: Any,
    given: Given,
    k: Any,
    filters: dict[str, Any],
    rescore: Any,
    return_scores: Any,
    method: Any,
    comm: Any,
) -> Asked:
    """Check the arguments of a call, of which `filters` replace the miner's; with comm by all ranks together."""
    options = k, filters, rescore, return_scores, method
    if comm is None:
        a, k, kept, positives, pool = _checked(miner, given, *options)
        return _complete(a, k, kept, pool, _limits(given, a, positives, pool))
    ranks = Ranks(comm)
    with ranks.together():
        a, k, kept, positives, local = _checked(miner, given, *options)
        _count_blocks(local)
        facts = _facts(miner, given, k, kept, rescore)
    pool = CandidatesOfRanks(ranks, local, facts)
    with ranks.together():
        limits = _limits(given, a, positives, pool)
    return _complete(a, k, kept, pool, limits)


def _checked(
    miner: Any, given: Given, k: Any, filters: dict[str, Any], rescore: Any, return_scores: Any, method: Any
) -> tuple[NDArray[Any], int, Filters, Positives | None, Candidates]:
    """Anchors, k, filters, positives and candidates, checked without knowing how many candidates there are."""
    a = check.stored_array("anchors", given[0], (1, 2))
    positives = None if given[2] is None else positives_of(given[2], a)
    k = check.neighbours(k)
    check.flag("return_scores", return_scores)
    check.choice("method", method, METHODS)
    kept = miner.filters.replaced(**filters)
    kept.check_use(miner.strategy, rescore)
    if rescore is not None and miner.strategy is MiningStrategy.DISTANCE_WEIGHTED and miner.density == "wu2017":
        raise ValueError("rescore is not for the density wu2017, which is one of cosines")
    for name in kept.relative if positives is None else ():
        raise ValueError(f"{name} is relative to the positive's score and needs positives, got None")
    narrowest = np.float32 if positives is None else positives.dtype
    dtype = np.promote_types(check.computed_dtype("anchors", a), narrowest)
    return a, k, kept, positives, candidates_of("candidates", given[1], a.shape[-1], "anchors", dtype)


_OfRows = tuple[Rows, Positives | None, NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]], Any]
"""Rows, positives, excluded candidates, ids, and the least cosines with positives that are vectors."""


def _limits(given: Given, a: NDArray[Any], positives: Positives | None, pool: Candidates) -> _OfRows:
    """What is checked against the candidates."""
    single, count = a.ndim == 1, 1 if a.ndim == 1 else len(a)
    x = check.readable(np.atleast_2d(a), pool.dtype)
    rows, own, excluded = Rows(x, checked_inverse_norms("anchors", x)), None, np.empty((count, 0), np.int64)
    if given[3] is not None:
        excluded = excluded_of(given[3], count, pool.size, single)
    if positives is not None:
        positives = positives.within(pool)
        if positives.indices is None:
            own = positives.least(rows, pool)
        else:
            excluded = np.hstack([excluded, positives.indices])
    return rows, positives, excluded, ids_of(given[4], given[5], count, pool.here, single), own


def _complete(a: NDArray[Any], k: int, kept: Filters, pool: Candidates, of_rows: _OfRows) -> Asked:
    """All of it; of candidates that are positives, ranks ask each other for the rows."""
    rows, positives, excluded, ids, own = of_rows
    if positives is not None and own is None:
        own = positives.least(rows, pool)
    floors, ceilings = kept.window(own, len(rows.x), pool.dtype)
    return Asked(rows, pool, k, a.ndim == 1, kept, positives, own, Limits(floors, ceilings, excluded, *ids))


def _count_blocks(pool: Candidates) -> None:
    """Count candidates in a list of blocks, because those of other ranks have numbers that begin behind them."""
    if pool.size is None:
        if not isinstance(pool.source, (list, tuple)):
            kind = type(pool.source).__name__
            raise TypeError(f"candidates must be an array or a list of blocks with comm, got {kind}")
        pool.size = sum(map(len, pool.source))


def _facts(miner: Any, given: Given, k: int, kept: Filters, rescore: Any) -> dict[str, Any]:
    """What all ranks have to give alike."""
    anchors, _, positives, exclude, anchor_ids, candidate_ids = given
    arrays = {"anchors": anchors, "positives": positives, "exclude": exclude, "anchor_ids": anchor_ids}
    return {
        **{name: digest(array) for name, array in arrays.items()},
        "k": k,
        "miner": repr(miner),
        "settings of the miner": (miner.margin, miner.temperature, miner.seed, miner.density, miner.fill),
        "filters": kept,
        "number of draws": miner.state_dict()["draws"],
        "candidate_ids": "None" if candidate_ids is None else "given",
        "rescore": "None" if rescore is None else "given",
    }
