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


def judged(rows, columns):
    """Scores of a better judge than the cosine."""
    return np.cos(rows * 7.0 + columns)


hardest, semi_hard = rt.HardNegativeMiner.hardest, rt.HardNegativeMiner.semi_hard
random, weighted = rt.HardNegativeMiner.random, rt.HardNegativeMiner.distance_weighted
INDICES = np.stack([np.arange(20) * 11, np.full(20, -1)], axis=1)
MINERS = {
    "hardest": (hardest, {"exclude": np.arange(20)[:, np.newaxis] * 25}),
    "semi_hard": (lambda: semi_hard(0.3), {"positives": "vectors"}),
    "margin": (lambda: hardest(relative_margin=0.05), {"positives": "vectors", "ids": True}),
    "ranks": (lambda: hardest(range_min=5, range_max=30), {"exclude": np.arange(20)[:, np.newaxis]}),
    "lowest rank": (lambda: hardest(range_min=7, max_score=0.6, min_score=0.1), {"form": "blocks"}),
    "more than a rank has": (hardest, {"k": 400, "form": "float64"}),
    "without positives": (semi_hard, {}),
    "window": (lambda: semi_hard(0.1, fill=False), {}),
    "listed": (lambda: semi_hard(0.5, absolute_margin=0.01), {"positives": INDICES}),
    "random": (lambda: random(seed=3, range_min=4), {"exclude": np.arange(20)[:, np.newaxis]}),
    "random, blocks": (lambda: random(absolute_margin=0.1), {"positives": "vectors", "form": "blocks"}),
    "weighted": (lambda: weighted(0.1, seed=9), {"ids": True}),
    "by distance": (lambda: weighted(density="wu2017", max_score=0.4), {"form": "float64"}),
    "sampled": (lambda: semi_hard(0.4, sampling="random"), {}),
    "rescored": (lambda: hardest(range_min=2), {"rescore": judged}),
    "rescored margin": (lambda: random(relative_margin=0.2), {"rescore": judged, "positives": INDICES}),
    "one": (weighted, {"one": True, "exclude": [3]}),
    "bounds": (hardest, {"many": True, "exclude": np.arange(130)[:, np.newaxis] * 100}),
}


def mined(name, comm=None):
    """Indices, scores and report of the second call of a miner."""
    make, options = MINERS[name]
    options, miner = dict(options), make()
    rng = np.random.default_rng(5)
    form, many = options.pop("form", "array"), options.pop("many", False)
    dtype, size, count = np.float64 if form == "float64" else np.float32, 20_000 if many else 500, 130 if many else 20
    candidates, anchors = rng.normal(size=(size, 12)).astype(dtype), rng.normal(size=(count, 12)).astype(dtype)
    candidates[::7] = candidates[1]
    here = slice(None)
    if comm is not None:
        bounds = np.append(np.array([0, 3, 200, 300])[: comm.Get_size()] * (size // 500), size)
        here = slice(*bounds[comm.Get_rank() : comm.Get_rank() + 2])
        options["comm"] = comm
    if isinstance(options.get("positives"), str):
        options["positives"] = anchors + rng.normal(size=anchors.shape).astype(dtype) / 2
    if options.pop("ids", False):
        ids = rng.integers(0, 40, size)
        options |= {"anchor_ids": np.arange(20), "candidate_ids": ids[here]}
    if options.pop("one", False):
        anchors = anchors[0]
    given = candidates[here]
    if form == "blocks":
        given = np.array_split(given, min(3, len(given)))
    k = options.pop("k", 9)
    for _ in range(2):  # draws of the second call are others, and the search knows likely candidates
        found = miner.mine(anchors, given, k, return_scores=True, **options)
    return {"indices": found[0], "scores": found[1], "report": repr(miner.last_report)}
