"""Recommendations from pairs of ids, beside alternating least squares of implicit in the same time."""

import time

import numpy as np

import rvtrain as rt

from .common import Benchmark, beside

USERS, ITEMS, DIM, BATCH = 2000, 1000, 32, 512


class Recommender(Benchmark):
    """2,000 users with 20 known and 5 held-back items of 1,000, as on the page about recommendations."""

    def prepare(self):
        rng = self.rng()
        taste, kind = rng.normal(size=(USERS, 16)), rng.normal(size=(ITEMS, 16))
        popularity = rng.permutation(-np.log(np.arange(1, ITEMS + 1)))
        wanted = taste @ kind.T / 2 + popularity + rng.gumbel(size=(USERS, ITEMS))
        taken = rng.permuted(np.argsort(-wanted, axis=1)[:, :25], axis=1)
        self.known, self.held_back = taken[:, :20], taken[:, 20:]
        self.pairs = np.repeat(np.arange(USERS), 20), self.known.ravel()
        self.ours(1)

    def ours(self, epochs=20):
        model = rt.TwoTower(rt.EmbeddingTable(USERS, DIM, seed=1), rt.EmbeddingTable(ITEMS, DIM, seed=2))
        optimizer = rt.AdamW(model.params, 0.05, 0.1)
        schedule = rt.warmup_cosine(0.05, 0, epochs * -(-len(self.pairs[0]) // BATCH))
        trainer = rt.Trainer(
            model,
            rt.InfoNCELoss(0.2),
            optimizer,
            schedule=schedule,
            epochs=epochs,
            batch_size=BATCH,
            progress=False,
        )
        trainer.fit(*self.pairs, log_q=True)
        users, items = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in model.params.values())
        return users @ items.T

    def misses(self, scores):
        """1 − recall@20 of the items held back, among those not known."""
        scores = scores.copy()
        np.put_along_axis(scores, self.known, -np.inf, axis=1)
        best = np.argpartition(-scores, 20, axis=1)[:, :20]
        found = (best[:, :, np.newaxis] == self.held_back[:, np.newaxis]).any(axis=1)
        return 1.0 - found.mean()

    @beside("implicit", "of ALS's misses")
    def track_misses_over_als(self):
        from implicit.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix
        from threadpoolctl import threadpool_limits

        begin = time.perf_counter()
        mine = self.misses(self.ours())
        budget = time.perf_counter() - begin
        matrix = csr_matrix((np.ones(len(self.pairs[0]), np.float32), self.pairs), shape=(USERS, ITEMS))
        peer, iterations, spent = 1.0, 5, 0.0
        with threadpool_limits(1):
            while spent < budget:  # the best of more and more iterations by the items held back, which favours ALS
                begin = time.perf_counter()
                model = AlternatingLeastSquares(DIM, 50.0, 10.0, iterations=iterations, random_state=0)
                model.fit(matrix, show_progress=False)
                spent += time.perf_counter() - begin
                peer = min(peer, self.misses(np.asarray(model.user_factors @ model.item_factors.T)))
                iterations *= 2
        return mine / peer
