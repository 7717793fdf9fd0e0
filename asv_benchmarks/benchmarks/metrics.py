"""Metrics of rankings, of graded pairs and of embeddings."""

import numpy as np

import rvtrain as rt

from .common import Benchmark

AT_K = ("accuracy_at_k", "map_at_k", "mrr_at_k", "ndcg_at_k", "precision_at_k", "recall_at_k")
FUNCTIONS = {name: getattr(rt, name) for name in AT_K}


class Rankings(Benchmark):
    """1,000 rankings of 100 with four relevant documents each."""

    params = ([*AT_K, "map_at_r"],)
    param_names = ("metric",)

    def prepare(self, metric):
        rng = self.rng()
        self.ranked = np.stack([rng.permutation(1000)[:100] for _ in range(1000)])
        self.relevant = rng.integers(0, 1000, (1000, 4))
        self.metric, self.at = (rt.map_at_r, ()) if metric == "map_at_r" else (FUNCTIONS[metric], (10,))
        self.time_metric()

    def time_metric(self, *parameters):
        self.metric(self.ranked, self.relevant, *self.at)

    time_metric.pretty_name = "metric of 1,000 rankings"


class Evaluations(Benchmark):
    """500 queries against 5,000 documents; 5,000 graded pairs."""

    def prepare(self):
        self.queries, self.documents = self.normal(500, 128), self.normal(5000, 128)
        self.pairs = np.stack([np.arange(500)] * 2, axis=1)
        self.x, self.y = self.normal(2, 5000, 128)
        self.scores = self.rng().random(5000)
        self.per_query = self.rng().random((2, 500))

    def time_evaluate_retrieval(self):
        rt.evaluate_retrieval(self.queries, self.documents, pairs=self.pairs)

    time_evaluate_retrieval.pretty_name = "evaluate_retrieval"

    def time_evaluate_pairs(self):
        rt.evaluate_pairs(self.x, self.y, self.scores)

    time_evaluate_pairs.pretty_name = "evaluate_pairs"

    def time_spearman(self):
        rt.spearman(self.x[:, 0], self.scores)

    time_spearman.pretty_name = "spearman"

    def time_alignment(self):
        rt.alignment(self.x, self.y)

    time_alignment.pretty_name = "alignment"

    def time_uniformity(self):
        rt.uniformity(self.queries)

    time_uniformity.pretty_name = "uniformity"

    def time_paired_test(self):
        rt.paired_test(*self.per_query, permutations=1000)

    time_paired_test.pretty_name = "paired_test of 500 queries, 1,000 permutations"
