"""Mining and sampling, beside faiss and torch."""

import contextlib
import io

import numpy as np

import rvtrain as rt

from .common import Benchmark, beside, ratio, relative_time


class Search(Benchmark):
    """Exact nearest neighbours of 1,024 queries, and of one."""

    params = ([(20_000, 128, 10), (100_000, 128, 32)],)
    param_names = ("case",)

    def prepare(self, case):
        count, dim, self.k = case
        rng = self.rng()
        self.queries = rng.normal(size=(1024, dim)).astype(np.float32)
        self.candidates = rng.normal(size=(count, dim)).astype(np.float32)
        self.search()

    def search(self):
        rt.top_k(self.queries, self.candidates, self.k)

    def normalised(self):
        return (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (self.queries, self.candidates))

    def over_faiss(self, count, method="auto", prepare=np.asarray):
        import faiss

        queries, candidates = self.normalised()
        index = faiss.IndexFlatIP(queries.shape[1])
        index.add(candidates)
        ours, pool = self.queries[:count], prepare(self.candidates)
        return relative_time(
            lambda: rt.top_k(ours, pool, self.k, method=method),
            lambda: index.search(queries[:count], self.k),
            budget=4.0,
        )

    @beside("faiss", "of faiss's time")
    def track_time_over_faiss(self, case):
        return self.over_faiss(1024)

    @beside("faiss", "of faiss's time")
    def track_one_query_time_over_faiss(self, case):
        return self.over_faiss(1)

    @beside("faiss", "of faiss's time")
    def track_one_query_of_prepared_time_over_faiss(self, case):
        return self.over_faiss(1, prepare=rt.HardNegativeMiner.prepare)

    @beside("faiss", "of faiss's time")
    def track_float_stage_time_over_faiss(self, case):
        return self.over_faiss(1024, "float")

    @beside("torch", "of torch's time")
    def track_time_over_torch(self, case):
        import torch

        queries, candidates = map(torch.tensor, self.normalised())
        return relative_time(lambda: self.search(), lambda: torch.topk(queries @ candidates.T, self.k))

    @beside("sklearn", "of scikit-learn's time")
    def track_time_over_sklearn(self, case):
        from sklearn.neighbors import NearestNeighbors

        queries, candidates = self.normalised()
        index = NearestNeighbors(n_neighbors=self.k, algorithm="brute").fit(candidates)
        return relative_time(lambda: self.search(), lambda: index.kneighbors(queries))


class Embedded:
    """A model of sentence-transformers whose embeddings are there: what remains is the mining."""

    def __init__(self, queries, documents):
        import torch
        from sentence_transformers import util

        self.queries, self.documents, self.device = queries, documents, torch.device("cpu")
        self.similarity, self.similarity_pairwise = util.cos_sim, util.pairwise_cos_sim

    def encode_query(self, texts, **options):
        return self.queries

    def encode_document(self, texts, **options):
        return self.documents


class HardNegativesOfTexts(Benchmark):
    """Five negatives with a margin for each of 5,000 pairs of texts, as a dataset; embeddings not included."""

    def prepare(self):
        queries, noise = self.rng().normal(size=(2, 5000, 384)).astype(np.float32)
        self.sides = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, queries + 2 * noise)]

    @beside("sentence_transformers", "of sentence-transformers' time")
    def track_time_over_sentence_transformers(self):
        from datasets import Dataset
        from sentence_transformers import util

        import rvtrain.torch

        model = Embedded(*self.sides)
        pairs = Dataset.from_dict({side: [f"{side} {i}" for i in range(5000)] for side in ("query", "document")})
        options = {"relative_margin": 0.05, "num_negatives": 5, "verbose": False}

        def mine(module):
            with contextlib.redirect_stderr(io.StringIO()):
                module.mine_hard_negatives(pairs, model, **options)

        return relative_time(lambda: mine(rvtrain.torch), lambda: mine(util))


class SemiHard(Benchmark):
    """Semi-hard over hardest: with positives near their anchors, above most candidates, and among them at random."""

    params = (["near", "among"],)
    param_names = ("positives",)

    def prepare(self, positives):
        rng = self.rng()
        self.anchors, noise = rng.normal(size=(2, 1024, 128)).astype(np.float32)
        self.candidates = rng.normal(size=(20_000, 128)).astype(np.float32)
        self.positives = self.anchors + 0.5 * noise if positives == "near" else noise
        self.hardest, self.semi_hard = rt.HardNegativeMiner.hardest(), rt.HardNegativeMiner.semi_hard(0.2)

    def mine(self, miner):
        miner.mine(self.anchors, self.candidates, 16, positives=self.positives)

    @ratio("of the time of hardest")
    def track_time_over_hardest(self, positives):
        return relative_time(lambda: self.mine(self.semi_hard), lambda: self.mine(self.hardest))


class DistanceWeighted(Benchmark):
    """16 negatives of 20,000 drawn for 1,024 anchors, beside the same draw from a matrix of scores in torch."""

    def prepare(self):
        rng = self.rng()
        self.anchors = rng.normal(size=(1024, 128)).astype(np.float32)
        self.candidates = rng.normal(size=(20_000, 128)).astype(np.float32)
        self.miner = rt.HardNegativeMiner.distance_weighted()
        self.mine()

    def mine(self):
        self.miner.mine(self.anchors, self.candidates, 16)

    @beside("torch", "of torch's time")
    def track_time_over_torch_multinomial(self):
        import torch

        anchors, candidates = map(torch.tensor, (self.anchors, self.candidates))
        normalize = torch.nn.functional.normalize

        def draw():
            torch.multinomial((normalize(anchors) @ normalize(candidates).T).exp(), 16, replacement=False)

        return relative_time(self.mine, draw)


class Sampling(Benchmark):
    """16 of 20,000 by weight, in each of 1,024 rows."""

    def prepare(self):
        self.weights = self.rng().random((1024, 20_000), dtype=np.float32)
        rt.weighted_sample(self.weights, 16, 0)

    @beside("torch", "of torch's time")
    def track_time_over_torch_multinomial(self):
        import torch

        weights = torch.tensor(self.weights)
        return relative_time(
            lambda: rt.weighted_sample(self.weights, 16, 0), lambda: torch.multinomial(weights, 16, replacement=False)
        )
