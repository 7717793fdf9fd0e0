"""Searches, of whose candidates each rank may have a part."""

import numpy as np

import rvtrain as rt

# Each: dtype of the vectors, number of queries (0: one alone), k, and how the ranks' parts are given.
CALLS = {
    "ties": (np.float32, 40, 7, "array"),
    "float64": (np.float64, 0, 9, "array"),
    "blocks": (np.float32, 33, 5, "blocks"),
    "more than a rank has": (np.float64, 3, 300, "array"),
    "bounds": (np.float32, 130, 10, "array"),
}


def searched(name, comm=None, k=None):
    """Scores and indices; all ranks together have the candidates of one process."""
    dtype, count, usual, form = CALLS[name]
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(20_000 if name == "bounds" else 500, 16)).astype(dtype)
    candidates[::3] = candidates[0]  # equal scores on all ranks
    queries = rng.normal(size=(count, 16) if count else 16).astype(dtype)
    queries[..., :] += candidates[0]
    if comm is not None:
        bounds = np.array([0, 1, 200, 300, 500])[: comm.Get_size()] * (len(candidates) // 500)
        bounds = np.append(bounds, len(candidates))
        candidates = candidates[bounds[comm.Get_rank()] : bounds[comm.Get_rank() + 1]]
    if form == "blocks":
        candidates = np.array_split(candidates, 3) if len(candidates) > 3 else [candidates]
    return rt.top_k(queries, candidates, usual if k is None else k, **({} if comm is None else {"comm": comm}))


MINERS = {
    "hardest": (rt.HardNegativeMiner.hardest(), {"exclude": np.arange(20)[:, np.newaxis] * 25}),
    "semi_hard": (rt.HardNegativeMiner.semi_hard(0.3), {"positives": True}),
    "margin": (rt.HardNegativeMiner.hardest(relative_margin=0.05), {"positives": True, "ids": True}),
}


def mined(name, comm=None):
    """Indices and scores that a miner finds."""
    miner, options = MINERS[name]
    options = dict(options)
    rng = np.random.default_rng(5)
    candidates, anchors = rng.normal(size=(500, 12)).astype(np.float32), rng.normal(size=(20, 12)).astype(np.float32)
    candidates[::7] = candidates[1]
    here = slice(None)
    if comm is not None:
        bounds = np.append(np.array([0, 3, 200, 300])[: comm.Get_size()], 500)
        here = slice(*bounds[comm.Get_rank() : comm.Get_rank() + 2])
        options["comm"] = comm
    if options.pop("positives", False):
        options["positives"] = anchors + rng.normal(size=anchors.shape).astype(np.float32) / 2
    if options.pop("ids", False):
        ids = rng.integers(0, 40, 500)
        options |= {"anchor_ids": np.arange(20), "candidate_ids": ids[here]}
    return miner.mine(anchors, candidates[here], 9, return_scores=True, **options)
