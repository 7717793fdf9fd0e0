"""Mining and sampling, beside faiss and torch."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, speedup


class Search(Benchmark):
    """Exact nearest neighbours of 1,024 queries."""

    params = ([(20_000, 128, 10), (100_000, 128, 32)],)
    param_names = ("case",)

    def setup(self, case):
        count, dim, self.k = case
        rng = self.rng()
        self.queries = rng.normal(size=(1024, dim)).astype(np.float32)
        self.candidates = rng.normal(size=(count, dim)).astype(np.float32)
        self.time_top_k(case)

    def time_top_k(self, case):
        rt.top_k(self.queries, self.candidates, self.k)

    def track_speedup_over_faiss(self, case):
        import faiss

        faiss.omp_set_num_threads(2)
        index = faiss.IndexFlatIP(self.queries.shape[1])
        queries, candidates = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (self.queries, self.candidates))
        index.add(candidates)
        return speedup(lambda: self.time_top_k(case), lambda: index.search(queries, self.k))

    track_speedup_over_faiss.unit = "x"


class Strategies(Benchmark):
    """16 negatives of 20,000 for 1,024 anchors, by each strategy."""

    params = ([strategy.value for strategy in rt.MiningStrategy],)
    param_names = ("strategy",)

    def setup(self, strategy):
        rng = self.rng()
        self.anchors, self.positives = rng.normal(size=(2, 1024, 128)).astype(np.float32)
        self.candidates = rng.normal(size=(20_000, 128)).astype(np.float32)
        self.miner = rt.HardNegativeMiner(strategy)
        self.time_mine(strategy)

    def time_mine(self, strategy):
        self.miner.mine(self.anchors, self.candidates, 16, positives=self.positives)


class Sampling(Benchmark):
    """16 of 20,000 by weight, in each of 1,024 rows."""

    def setup(self):
        self.weights = self.rng().random((1024, 20_000), dtype=np.float32)
        rt.weighted_sample(self.weights, 16, 0)

    def track_speedup_over_torch_multinomial(self):
        import torch

        torch.set_num_threads(2)
        weights = torch.tensor(self.weights)
        return speedup(
            lambda: rt.weighted_sample(self.weights, 16, 0), lambda: torch.multinomial(weights, 16, replacement=False)
        )

    track_speedup_over_torch_multinomial.unit = "x"
