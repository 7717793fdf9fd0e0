"""What a call of `HardNegativeMiner.mine` asks for, checked."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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


class Given(NamedTuple):
    """Arguments of `mine`, as they were given; `filters` are those that replace the miner's."""

    anchors: Any
    candidates: Any
    k: Any
    positives: Any
    exclude: Any
    anchor_ids: Any
    candidate_ids: Any
    filters: dict[str, Any]
    rescore: Any
    return_scores: Any
    method: Any
    comm: Any


class Asked(NamedTuple):
    """The same, checked."""

    rows: Rows
    candidates: Candidates
    k: int
    single: bool
    filters: Filters
    positives: Positives | None
    own: NDArray[np.float64] | None
    """(B,) the least cosine of each anchor with its positives"""
    limits: Limits


def asked(miner: Any, given: Given) -> Asked:
    """Check the arguments of a call; with a communicator by all ranks together."""
    ranks = None if given.comm is None else Ranks(given.comm)
    together: Callable[[], AbstractContextManager[None]] = nullcontext if ranks is None else ranks.together
    with together():
        a = check.stored_array("anchors", given.anchors, (1, 2))
        single = a.ndim == 1
        positives = None if given.positives is None else positives_of(given.positives, a)
        k = check.neighbours(given.k)
        check.flag("return_scores", given.return_scores)
        check.choice("method", given.method, METHODS)
        filters = miner.filters.replaced(**given.filters)
        filters.check_use(miner.strategy, given.rescore)
        is_density = miner.strategy is MiningStrategy.DISTANCE_WEIGHTED and miner.density == "wu2017"
        if given.rescore is not None and is_density:
            raise ValueError("rescore is not for the density wu2017, which is one of cosines")
        for name in filters.relative if positives is None else ():
            raise ValueError(f"{name} is relative to the positive's score and needs positives, got None")
        narrowest = np.dtype(np.float32) if positives is None else positives.dtype
        dtype = np.promote_types(check.computed_dtype("anchors", a), narrowest)
        pool = candidates_of("candidates", given.candidates, a.shape[-1], "anchors", dtype)
        if ranks is not None:
            _count_blocks(pool)
    if ranks is not None:
        pool = CandidatesOfRanks(ranks, pool, _facts(miner, given, k, filters))
    with together():
        a = check.readable(np.atleast_2d(a), pool.dtype)
        rows, own = Rows(a, checked_inverse_norms("anchors", a)), None
        none = np.empty((len(a), 0), np.int64)
        excluded = none if given.exclude is None else excluded_of(given.exclude, len(a), pool.size, single)
        if positives is not None:
            positives = positives.within(pool)
            if positives.indices is None:
                own = positives.least(rows, pool)
            else:
                excluded = np.hstack([excluded, positives.indices])
        ids = ids_of(given.anchor_ids, given.candidate_ids, len(a), pool.here, single)
    if positives is not None and own is None:  # outside, because ranks ask each other for these rows
        own = positives.least(rows, pool)
    floors, ceilings = filters.window(own, len(a), pool.dtype)
    limits = Limits(floors, ceilings, excluded, *ids)
    return Asked(rows, pool, k, single, filters, positives, own, limits)


def _count_blocks(pool: Candidates) -> None:
    """Count candidates in a list of blocks, because those of other ranks have numbers that begin behind them."""
    if pool.size is None:
        if not isinstance(pool.source, (list, tuple)):
            kind = type(pool.source).__name__
            raise TypeError(f"candidates must be an array or a list of blocks with comm, got {kind}")
        pool.size = sum(map(len, pool.source))


def _facts(miner: Any, given: Given, k: int, filters: Filters) -> dict[str, Any]:
    """What all ranks have to give alike."""
    arrays = ("anchors", "positives", "exclude", "anchor_ids")
    return {
        **{name: digest(getattr(given, name)) for name in arrays},
        "k": k,
        "miner": repr(miner),
        "settings of the miner": (miner.margin, miner.temperature, miner.seed, miner.density, miner.fill),
        "filters": filters,
        "number of draws": miner.state_dict()["draws"],
        "candidate_ids": "None" if given.candidate_ids is None else "given",
        "rescore": "None" if given.rescore is None else "given",
    }
