"""Mining and sampling, beside faiss and torch."""

import tracemalloc

import numpy as np

import rvtrain as rt

from .common import Benchmark, relative_time


class Search(Benchmark):
    """Exact nearest neighbours of 1,024 queries, and of one."""

    params = ([(20_000, 128, 10), (100_000, 128, 32), (100_000, 384, 32)],)
    param_names = ("case",)

    def setup(self, case):
        count, dim, self.k = case
        rng = self.rng()
        self.queries = rng.normal(size=(1024, dim)).astype(np.float32)
        self.candidates = rng.normal(size=(count, dim)).astype(np.float32)
        self.time_top_k(case)

    def time_top_k(self, case):
        rt.top_k(self.queries, self.candidates, self.k)

    def normalised(self):
        return (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (self.queries, self.candidates))

    def over_faiss(self, count, method="auto"):
        import faiss

        faiss.omp_set_num_threads(2)
        queries, candidates = self.normalised()
        index = faiss.IndexFlatIP(queries.shape[1])
        index.add(candidates)
        ours = self.queries[:count]
        return relative_time(
            lambda: rt.top_k(ours, self.candidates, self.k, method=method),
            lambda: index.search(queries[:count], self.k),
            budget=4.0,
        )

    def track_time_over_faiss(self, case):
        return self.over_faiss(1024)

    track_time_over_faiss.unit = "of faiss's time"

    def track_one_query_time_over_faiss(self, case):
        return self.over_faiss(1)

    track_one_query_time_over_faiss.unit = "of faiss's time"

    def track_float_stage_time_over_faiss(self, case):
        return self.over_faiss(1024, "float")

    track_float_stage_time_over_faiss.unit = "of faiss's time"

    def track_time_over_torch(self, case):
        import torch

        torch.set_num_threads(2)
        queries, candidates = map(torch.tensor, self.normalised())
        return relative_time(lambda: self.time_top_k(case), lambda: torch.topk(queries @ candidates.T, self.k))

    track_time_over_torch.unit = "of torch's time"

    def track_time_over_sklearn(self, case):
        from sklearn.neighbors import NearestNeighbors

        queries, candidates = self.normalised()
        index = NearestNeighbors(n_neighbors=self.k, algorithm="brute").fit(candidates)
        return relative_time(lambda: self.time_top_k(case), lambda: index.kneighbors(queries))

    track_time_over_sklearn.unit = "of scikit-learn's time"


class Memory(Benchmark):
    """What a slice of 100k anchors needs above inputs and outputs, whatever the number of candidates."""

    params = ([100_000, 1_000_000],)
    param_names = ("candidates",)

    def setup(self, count):
        self.anchors = self.rng().normal(size=(256, 128)).astype(np.float32)
        self.candidates = np.zeros((count, 128), np.float32)
        self.candidates[:] = self.rng().normal(size=(1000, 128)).repeat(count // 1000, axis=0)

    def track_extra_mib(self, count):
        rt.release_workspaces()
        tracemalloc.start()
        rt.HardNegativeMiner.hardest().mine(self.anchors, self.candidates, 10)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 2**20

    track_extra_mib.unit = "MiB"


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


class SemiHard(Benchmark):
    """Semi-hard over hardest: with positives near their anchors, above most candidates, and among them at random."""

    params = (["near", "among"],)
    param_names = ("positives",)

    def setup(self, positives):
        rng = self.rng()
        self.anchors, noise = rng.normal(size=(2, 1024, 128)).astype(np.float32)
        self.candidates = rng.normal(size=(20_000, 128)).astype(np.float32)
        self.positives = self.anchors + 0.5 * noise if positives == "near" else noise
        self.hardest, self.semi_hard = rt.HardNegativeMiner.hardest(), rt.HardNegativeMiner.semi_hard(0.2)

    def mine(self, miner):
        miner.mine(self.anchors, self.candidates, 16, positives=self.positives)

    def track_time_over_hardest(self, positives):
        return relative_time(lambda: self.mine(self.semi_hard), lambda: self.mine(self.hardest))

    track_time_over_hardest.unit = "of the time of hardest"


class Filtered(Benchmark):
    """Filters against false negatives, whose drops are counted, over mining without filters."""

    def setup(self):
        rng = self.rng()
        self.anchors, noise = rng.normal(size=(2, 1024, 128)).astype(np.float32)
        self.candidates = rng.normal(size=(20_000, 128)).astype(np.float32)
        self.positives = self.anchors + 0.5 * noise
        self.plain, self.filtered = rt.HardNegativeMiner.hardest(), rt.HardNegativeMiner.hardest(relative_margin=0.05)

    def mine(self, miner):
        miner.mine(self.anchors, self.candidates, 16, positives=self.positives)
        return miner.last_report

    def track_time_over_unfiltered(self):
        return relative_time(lambda: self.mine(self.filtered), lambda: self.mine(self.plain))

    track_time_over_unfiltered.unit = "of the time without filters"


class DistanceWeighted(Benchmark):
    """16 negatives of 20,000 drawn for 1,024 anchors, beside the same draw from a matrix of scores in torch."""

    def setup(self):
        rng = self.rng()
        self.anchors = rng.normal(size=(1024, 128)).astype(np.float32)
        self.candidates = rng.normal(size=(20_000, 128)).astype(np.float32)
        self.miner = rt.HardNegativeMiner.distance_weighted()
        self.mine()

    def mine(self):
        self.miner.mine(self.anchors, self.candidates, 16)

    def track_time_over_torch_multinomial(self):
        import torch

        torch.set_num_threads(2)
        anchors, candidates = map(torch.tensor, (self.anchors, self.candidates))
        normalize = torch.nn.functional.normalize

        def draw():
            torch.multinomial((normalize(anchors) @ normalize(candidates).T).exp(), 16, replacement=False)

        return relative_time(self.mine, draw)

    track_time_over_torch_multinomial.unit = "of torch's time"


class Sampling(Benchmark):
    """16 of 20,000 by weight, in each of 1,024 rows."""

    def setup(self):
        self.weights = self.rng().random((1024, 20_000), dtype=np.float32)
        rt.weighted_sample(self.weights, 16, 0)

    def track_time_over_torch_multinomial(self):
        import torch

        torch.set_num_threads(2)
        weights = torch.tensor(self.weights)
        return relative_time(
            lambda: rt.weighted_sample(self.weights, 16, 0), lambda: torch.multinomial(weights, 16, replacement=False)
        )

    track_time_over_torch_multinomial.unit = "of torch's time"
