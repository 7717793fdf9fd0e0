"""Search, sampling and miners."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, Headline


class Search(Headline):
    """The 10 nearest of 20,000 candidates for 256 queries, and for one; by bytes where the processor has them."""

    params = ([(256, 20_000, 128), (1, 100_000, 128), (256, 20_000, 384)], ["auto", "float"], [1])
    param_names = ("case", "method", "threads")

    def prepare(self, case, method, threads):
        queries, candidates, dim = case
        if method == "float" and case != (256, 20_000, 128):
            raise NotImplementedError("the float stage is timed at one shape")
        self.method = method
        self.queries, self.candidates = (
            self.normal(queries, dim),
            self.rng().random((candidates, dim), "float32") - 0.5,
        )
        self.time_top_k()

    def time_top_k(self, *parameters):
        rt.top_k(self.queries, self.candidates, 10, method=self.method)

    time_top_k.pretty_name = "exact search, 10 nearest"


class SearchThreads(Search):
    """The same by all threads."""

    rounds, repeat = Benchmark.rounds, Benchmark.repeat
    params = (Search.params[0], ["auto"], ["all"])


class Sampling(Headline):
    """16 of 20,000 by weight; 4 rows lie in a core's own cache."""

    params = ([4, 512], [1])
    param_names = ("rows", "threads")

    def prepare(self, rows, threads):
        self.weights = self.rng().random((rows, 20_000), "float32")
        self.time_weighted_sample()

    def time_weighted_sample(self, *parameters):
        rt.weighted_sample(self.weights, 16, 0)

    time_weighted_sample.pretty_name = "sampling by weight"


class SamplingThreads(Sampling):
    """The same by all threads."""

    rounds, repeat = Benchmark.rounds, Benchmark.repeat
    params = ([512], ["all"])


class Miners(Benchmark):
    """16 negatives of 20,000 for 256 anchors, by each strategy."""

    params = (["hardest", "semi_hard", "distance_weighted", "random", "with a margin"],)
    param_names = ("strategy",)

    def prepare(self, strategy):
        self.anchors, self.positives = self.normal(2, 256, 128)
        self.candidates = self.rng().standard_normal((20_000, 128), "float32")
        if strategy == "with a margin":
            self.miner = rt.HardNegativeMiner.hardest(relative_margin=0.05)
        else:
            self.miner = getattr(rt.HardNegativeMiner, strategy)()
        self.time_mine()

    def time_mine(self, *parameters):
        self.miner.mine(self.anchors, self.candidates, 16, positives=self.positives)

    time_mine.pretty_name = "hard negatives"


class InBatch(Benchmark):
    """4 negatives of each of 1,024 anchors from the batch itself."""

    def prepare(self):
        self.anchors, self.positives = self.normal(2, 1024, 128)
        self.miner = rt.InBatchMiner.semi_hard()
        self.time_mine()

    def time_mine(self):
        self.miner.mine(self.anchors, 4, positives=self.positives)

    time_mine.pretty_name = "hard negatives of the batch"


class Quantized(Benchmark):
    """Codes of 20,000 × 128 vectors, and the 10 nearest of 256 queries by these and by a rescoring of the bits."""

    params = (["int8", "binary"],)
    param_names = ("precision",)

    def prepare(self, precision):
        self.queries, self.candidates = self.normal(256, 128), self.normal(20_000, 128)
        self.ranges = np.array([self.candidates.min(axis=0), self.candidates.max(axis=0)])
        self.options = {"ranges": self.ranges} if precision == "int8" else {}
        self.codes = rt.quantize(self.candidates, precision, **self.options)
        self.time_quantize(precision)
        self.time_search(precision)

    def time_quantize(self, precision):
        rt.quantize(self.candidates, precision, **self.options)

    time_quantize.pretty_name = "quantize"

    def time_search(self, precision):
        rt.top_k_quantized(self.queries, self.codes, 10, precision, **self.options)

    time_search.pretty_name = "search of codes"
