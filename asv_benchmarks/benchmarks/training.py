"""Steps of the trainer: one epoch without validation, on pairs, on labels and on a graph."""

import numpy as np

import rvtrain as rt

from .common import Benchmark


class Pairs(Benchmark):
    """8 steps of 256 pairs of 384 dimensions."""

    params = (["plain", "mined", "all options"], [1, "all"])
    param_names = ("kind", "threads")

    def prepare(self, kind, threads):
        if kind == "all options" and threads == "all":
            raise NotImplementedError("timed by one thread")
        self.queries, self.documents = self.normal(2, 2048, 384)
        self.kind = kind
        self.time_epoch()

    def time_epoch(self, *parameters):
        model = rt.TwoTower(rt.LinearAdapter(384), rt.LinearAdapter(384))
        options = {"mining": rt.Mining(rt.HardNegativeMiner.hardest())} if self.kind == "mined" else {}
        if self.kind == "all options":
            options = {
                "micro_batch_size": 128,
                "max_grad_norm": 1.0,
                "schedule": rt.warmup_cosine(1e-3, 2, 8),
                "annealing": rt.TemperatureAnnealing(steps=8),
                "callbacks": [rt.EMACallback()],
            }
        rt.Trainer(model, epochs=1, progress=False, **options).fit(self.queries, self.documents)

    time_epoch.pretty_name = "8 steps of a training on pairs"


class Labels(Benchmark):
    """8 steps of 256 labelled rows, 4 of each class."""

    def prepare(self):
        self.x, self.labels = self.normal(2048, 128), np.repeat(np.arange(512), 4)

    def time_epoch(self):
        trainer = rt.Trainer(rt.LinearAdapter(128), rt.SupConLoss(), epochs=1, progress=False)
        trainer.fit_labels(self.x, self.labels, sampler=rt.MPerClass(4))

    time_epoch.pretty_name = "8 steps of a training on labels"

    def time_sampler(self):
        for _ in rt.MPerClass(4).batches(self.labels, 256, np.random.default_rng(0)):
            pass

    time_sampler.pretty_name = "batches of four of a class"


class Graph(Benchmark):
    """40 steps of 256 edges of a graph of 2,000 nodes."""

    def prepare(self):
        edges = self.rng().integers(0, 2000, (10_240, 2))
        self.edges = edges[edges[:, 0] != edges[:, 1]]
        self.time_epoch()

    def time_epoch(self):
        rt.Trainer(rt.EmbeddingTable(2000, 64), epochs=1, progress=False).fit_graph(self.edges, 2000)

    time_epoch.pretty_name = "40 steps of a training on a graph"
