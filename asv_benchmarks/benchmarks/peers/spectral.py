"""Spectral regularization beside SciPy's Laplacian: from the edge list, and with both sides prepared."""

import numpy as np

import rvtrain as rt

from .common import Benchmark, beside, relative_time


class Graph(Benchmark):
    """A random graph of about ten edges a node."""

    params = ([10_000], [64, 256])
    param_names = ("nodes", "dim")

    def prepare(self, nodes, dim):
        rng = self.rng()
        edges = rng.integers(0, nodes, size=(10 * nodes, 2))
        self.edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
        self.negatives = rng.integers(0, nodes, size=(5 * nodes, 2))
        self.weights = rng.random(len(self.edges), dtype=np.float32)
        self.z = rng.normal(size=(nodes, dim)).astype(np.float32) / np.float32(np.sqrt(dim))


class Spectral(Graph):
    """The normalised form, from the edge list to the gradients."""

    def prepare(self, nodes, dim):
        super().prepare(nodes, dim)
        self.loss = rt.SpectralRegularization(0.01)
        self.gradient()

    def gradient(self):
        self.loss.compute_with_gradients(self.z, self.edges, self.weights)

    @beside("scipy", "of scipy's time")
    def track_time_over_scipy(self, nodes, dim):
        """Value and gradient, against csgraph.laplacian and a sparse product."""
        from scipy import sparse

        def peer():
            upper = sparse.coo_array((self.weights, self.edges.T), shape=(nodes, nodes))
            laplacian = sparse.csgraph.laplacian((upper + upper.T).tocsr(), normed=True)
            product = laplacian @ self.z
            return 0.01 * float((self.z * product).sum()), 0.02 * product

        return relative_time(lambda: self.gradient(), peer)


class Prepared(Benchmark):
    """A million edges among 100,000 nodes, drawn from all pairs, or between nodes near each other in memory."""

    params = (["random", "local"],)
    param_names = ("graph",)

    def prepare(self, graph):
        rng, nodes = self.rng(), 100_000
        first = rng.integers(0, nodes, 1_000_000)
        step = rng.integers(1, nodes if graph == "random" else 64, len(first))
        self.edges = np.stack([first, (first + step) % nodes], axis=1)
        self.z = rng.normal(size=(nodes, 64)).astype(np.float32)
        self.graph = rt.Graph(self.edges, nodes)
        self.loss = rt.SpectralRegularization(0.01, normalized=False)
        self.gradient(self.graph)

    def gradient(self, graph):
        self.loss.compute_with_gradients(self.z, graph)

    def laplacian(self):
        from scipy import sparse

        size, ones = len(self.z), np.ones(len(self.edges), np.float32)
        upper = sparse.coo_array((ones, self.edges.T), shape=(size, size))
        return sparse.csr_array(sparse.csgraph.laplacian((upper + upper.T).tocsr()))

    @beside("scipy", "of scipy's time")
    def track_prepared_over_scipy(self, graph):
        """Value and gradient, against the product L @ Z alone, which SciPy computes in one thread."""
        laplacian = self.laplacian()
        return relative_time(lambda: self.gradient(self.graph), lambda: laplacian @ self.z)

    @beside("scipy", "of scipy's time")
    def track_edges_over_scipy(self, graph):
        """Value and gradient from the edge list, against the construction of L alone."""
        return relative_time(lambda: self.gradient(self.edges), self.laplacian)
