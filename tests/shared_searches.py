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
