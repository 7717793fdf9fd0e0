"""Losses over edge lists, and negatives from a graph."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, Headline

NODES = 10_000


class Graph(Benchmark):
    """A random graph of about ten edges a node."""

    def make(self, nodes, dim, dtype="float32"):
        rng = self.rng()
        edges = rng.integers(0, nodes, size=(5 * nodes, 2))
        self.edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
        self.negatives = rng.integers(0, nodes, size=(5 * nodes, 2))
        self.weights = rng.random(len(self.edges)).astype(dtype)
        self.z = self.normal(nodes, dim, dtype=dtype) / np.sqrt(dim).astype(dtype)


class Spectral(Graph, Headline):
    """The normalised form, from the edge list to the gradients; 500 nodes lie in a core's own cache."""

    params = ([(500, 64), (10_000, 64), (10_000, 256)], ["float32", "float64"], [1])
    param_names = ("shape", "dtype", "threads")

    def prepare(self, shape, dtype, threads):
        if dtype == "float64" and shape != (10_000, 64):
            raise NotImplementedError("float64 is timed at one shape")
        self.make(*shape, dtype)
        self.loss = rt.SpectralRegularization(0.01)
        self.time_gradients()

    def time_gradients(self, *parameters):
        wrt = ("embeddings", "edge_weights")
        self.loss.compute_with_gradients(self.z, self.edges, self.weights, wrt=wrt)

    time_gradients.pretty_name = "spectral regularization and both gradients"


class SpectralThreads(Spectral):
    """The same by all threads."""

    rounds, repeat = Benchmark.rounds, Benchmark.repeat
    params = ([(10_000, 64), (10_000, 256)], ["float32"], ["all"])


class Laplacian(Graph):
    """Value and gradient of 50,000 nodes and 250,000 edges, prepared once, and from the list of edges."""

    version = "2"
    nodes = 50_000

    params = (["plain", "normalized"], [1, "all"])
    param_names = ("form", "threads")

    def prepare(self, form, threads):
        self.make(self.nodes, 64)
        self.graph = rt.Graph(self.edges, self.nodes)
        self.loss = rt.SpectralRegularization(0.01, normalized=form == "normalized")
        self.time_prepared()
        self.time_edges()

    def time_prepared(self, *parameters):
        self.loss.compute_with_gradients(self.z, self.graph)

    time_prepared.pretty_name = "spectral regularization of a prepared graph and gradient"

    def time_edges(self, *parameters):
        self.loss.compute_with_gradients(self.z, self.edges)

    time_edges.pretty_name = "spectral regularization of an edge list and gradient"


class Prepare(Graph):
    """A `Graph` of 500,000 edges."""

    params = ([1, "all"],)
    param_names = ("threads",)

    def prepare(self, threads):
        self.make(100_000, 1)
        self.time_graph()

    def time_graph(self, *parameters):
        rt.Graph(self.edges, 100_000)

    time_graph.pretty_name = "preparation of a graph"


class LocalContrastive(Graph):
    """Both forms over edges and as many negative edges."""

    params = (["pairwise", "triplet"],)
    param_names = ("form",)

    def prepare(self, form):
        self.make(NODES, 64)
        self.loss = rt.LocalContrastiveLoss(1.0, form=form)
        self.time_gradient()

    def time_gradient(self, *parameters):
        self.loss.compute_graph_with_gradients(self.z, self.edges, self.negatives)

    time_gradient.pretty_name = "local contrastive loss of edges and gradient"


class FitGraph(Graph):
    """An epoch of 100,000 edges of 20,000 nodes, 64 columns, 5 drawn nodes an edge, batches of 2,048."""

    params = (["pairwise", "triplet", "infonce", "infonce, pool of 512"], [1, "all"])
    param_names = ("loss", "threads")

    def prepare(self, loss, threads):
        if threads == "all" and loss not in ("pairwise", "infonce"):
            raise NotImplementedError("all threads are timed with two of the losses")
        self.make(20_000, 1)
        self.graph = rt.Graph(self.edges, 20_000)
        self.pool = 512 if "pool" in loss else "auto"
        self.loss = rt.InfoNCELoss(0.2) if "infonce" in loss else rt.LocalContrastiveLoss(1.0, form=loss)
        self.time_epoch()

    def time_epoch(self, *parameters):
        table = rt.EmbeddingTable(20_000, 64)
        trainer = rt.Trainer(table, self.loss, rt.Adam(table.params, 0.05), epochs=1, batch_size=2048, progress=False)
        trainer.fit_graph(self.graph, negatives=5, shared_negatives=False, negative_pool=self.pool)

    time_epoch.pretty_name = "an epoch of fit_graph"


class Walks(Graph):
    """A walk of 20 steps from each of 20,000 nodes, with p = 1 and q = 0.5."""

    def prepare(self):
        self.make(20_000, 1)
        self.graph, self.walks = rt.Graph(self.edges, 20_000), rt.RandomWalks(20, 10, 1, q=0.5)
        self.time_walk()

    def time_walk(self):
        self.walks.walk(self.graph)

    time_walk.pretty_name = "walks of node2vec"


class Miner(Graph):
    """4 negatives of each of 2,000 nodes, two or three hops away."""

    def prepare(self):
        self.make(2000, 64)
        self.miner = rt.GraphNegativeMiner(self.edges)
        self.time_mine()

    def time_mine(self):
        self.miner.mine(self.z, 4)

    time_mine.pretty_name = "graph negatives"
